"""Attacks on lapse.create_expiry by one who did not write it: odd names, predicates, keys, ages."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support import databases
from tests.support.running import pglapse
from tests.support.shed import column, one
from tests.support.words import WORDS

CLEAN = """
set client_min_messages = warning;
select lapse.drop_expiry(p.name) from lapse.policy as p where p.action is not null;
drop schema if exists app, words cascade;
create schema app;
create table app.t (id int primary key, due timestamptz, kind text);
delete from lapse.hold;
reset client_min_messages;
"""


@pytest.fixture(scope="module")
def dsn(server: str, template: str) -> Iterator[str]:
    """One database for this module; every test builds its table afresh."""
    with databases.database(server, template) as own:
        yield own


@pytest.fixture
def conn(conn: psycopg.Connection) -> psycopg.Connection:
    conn.execute(CLEAN)
    return conn


@pytest.mark.parametrize(
    "character", ["\n", "\r", "\r\n-- ", "'; drop table app.t; --\n", '"', "%s", "\\", "$$"]
)
def test_no_name_ends_a_comment_or_a_string_of_what_is_written(conn, character):
    table, due, key, schema = (
        '"' + f"{word}{character}x".replace('"', '""') + '"' for word in ("tab", "due", "key", "app2")
    )
    conn.execute(f"create schema {schema}".encode())
    try:
        conn.execute(
            f"create table {schema}.{table} ({key} int primary key, {due} timestamptz);"
            f" create index on {schema}.{table} ({due}, {key});"
            f" insert into {schema}.{table} values (1, now() - interval '1 h'), (2, now() + interval '1 h')"
        )
        conn.execute(
            "select lapse.create_expiry('odd', %s::regclass, %s)", [f"{schema}.{table}", f"due{character}x"]
        )
        shown = one(conn, "select lapse.preview_json('odd')")
        conn.execute("call lapse.run('odd')")

        assert column(conn, f"select {key} from {schema}.{table}".replace("%", "%%")) == [2]
        assert shown["due"]["now"] == {"rows": 1, "at_least": False}
        assert shown["findings"] == []
        assert one(conn, "select to_regclass('app.t') is not null")
    finally:
        conn.execute(f"select lapse.drop_expiry('odd', true); drop schema {schema} cascade".encode())


PREDICATES = [
    "kind = 'x' -- and nothing else\n",
    "-- first a word\nkind = 'x'\n-- and a last one",
    "kind\n=\n'x'",
    "kind = 'x' /* ; */ and id > 0",
    "kind in ('x', ';', '--', '/*', '%s', '$1', '100%')",
    "kind = $q$x$q$",
    r"kind ~ E'^\x78$'",
    "t.kind = 'x' and t is not null",
    "case when kind = 'x' then true end",
]


@pytest.mark.parametrize(
    ("predicate", "how"), [(predicate, "build") for predicate in PREDICATES] + [(PREDICATES[1], "later")]
)
def test_a_predicate_may_be_written_in_any_way_and_gets_its_index(conn, dsn, predicate, how):
    conn.execute(
        "insert into app.t select g, now() - interval '1 h', chr(119 + g) from generate_series(1, 3) as g"
    )

    conn.execute("select lapse.create_expiry('odd', 'app.t', 'due', %s, p_index => %s)", [predicate, how])
    if how == "later":
        built = pglapse(dsn, "index", "odd")
        assert (built.returncode, built.stderr) == (0, "")
    conn.execute("call lapse.run('odd')")

    assert column(conn, "select kind from app.t order by kind") == ["y", "z"]
    assert one(conn, "select ok from lapse.index_proof('odd')")
    assert one(conn, "select count(*) from pg_index where indrelid = 'app.t'::regclass") == 2


def test_the_owner_of_a_table_previews_what_lapses_in_it_and_an_observer_sees_no_more_than_counts(conn):
    author, observer = (f"pglapse_{kind}_{conn.info.backend_pid}" for kind in ("author", "observer"))
    conn.execute(
        f"""
        create role {author}; create role {observer};
        select lapse.grant_author('{author}'), lapse.grant_observer('{observer}');
        grant all on schema app to {author}; alter table app.t owner to {author};
        insert into app.t values (1, now() - interval '1 h'), (2, now() - interval '1 h'), (3, null);
        create index on app.t (due, id);
        set role {author};
        create table app.child (t int references app.t on delete cascade);
        create index on app.child (t);
        insert into app.child values (1), (1), (3);
        select lapse.create_expiry('own', 'app.t', 'due');
        """
    )
    try:
        mine = one(conn, "select lapse.preview_json('own')")
        conn.execute(f"set role {observer}")
        seen = one(conn, "select lapse.preview_json('own')")
    finally:
        conn.execute(
            f"reset role; {CLEAN}; drop owned by {author}, {observer}; drop role {author}, {observer}"
        )

    assert mine["due"]["now"] == seen["due"]["now"] == {"rows": 2, "at_least": False}
    assert (mine["children"][0]["rows"], mine["not_known"], mine["findings"]) == (2, [], [])
    assert mine["index"]["ok"] is seen["index"]["ok"] is True
    assert seen["children"] is None
    assert seen["not_known"] != []


def test_a_superusers_preview_runs_nothing_of_what_hides_behind_a_table(conn):
    author = f"pglapse_evil_{conn.info.backend_pid}"
    conn.execute(
        f"""
        create role {author};
        select lapse.grant_author('{author}');
        grant all on schema app to {author}; alter table app.t owner to {author};
        create index on app.t (due, id);
        set role {author};
        create table app.child (t int references app.t on delete cascade);
        create index on app.child (t);
        insert into app.t values (1, now() - interval '1 h'); insert into app.child values (1);
        create function app.evil() returns int immutable language plpgsql as
            $$ begin raise notice 'as %', current_user; return 1; end $$;
        select lapse.create_expiry('own', 'app.t', 'due');
        create index on app.child ((t + app.evil()));
        reset role;
        """
    )
    said: list[str] = []
    conn.add_notice_handler(lambda notice: said.append(notice.message_primary or ""))
    try:
        child = one(conn, "select lapse.preview_json('own')")
        conn.execute(f"set role {author}; create index on app.t (id) where id = app.evil(); reset role")
        said.clear()
        target = one(conn, "select lapse.preview_json('own')")
        heard = list(said)
        conn.execute(f"set role {author}")
        own = one(conn, "select lapse.preview_json('own')")
    finally:
        conn.execute(f"reset role; {CLEAN}; drop owned by {author}; drop role {author}")

    assert f"as {conn.info.user}" not in said + heard
    assert child["children"][0]["note"] == "not counted: reading it would run app.evil() with your rights"
    assert (target["children"], target["due"]["now"]["rows"]) == (None, 1)
    assert target["not_known"] == [
        "what refers to the table: reading app.t would run app.evil() with your rights"
    ]
    assert own["children"][0]["rows"] == 1


AGES = st.builds(
    lambda months, days, hours: f"{months} mons {days} days {hours} hours",
    st.integers(0, 14),
    st.integers(0, 400),
    st.integers(0, 50),
).filter(lambda age: age != "0 mons 0 days 0 hours")
MOMENTS = st.datetimes(datetime(2020, 1, 1), datetime(2030, 1, 1)).map(  # noqa: DTZ001
    lambda moment: moment.replace(tzinfo=UTC, microsecond=moment.microsecond // 1000 * 1000)
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    AGES, MOMENTS, st.lists(st.timedeltas(timedelta(days=-40), timedelta(days=40)), min_size=1, max_size=20)
)
@pytest.mark.parametrize("zone", [None, "Europe/Berlin", "America/New_York"])
def test_no_row_is_due_early_and_none_later_than_the_calendar_explains(conn, zone, age, cutoff, offsets):
    """Against the server's own arithmetic, in UTC: the moment that the column names, plus the age."""
    rows = conn.execute(
        """
        with given as (
            select %(cutoff)s::timestamptz as cutoff, %(age)s::interval as age, %(zone)s::text as zone
        )
        select w.due_at, w.column_at - w.latest <= interval '0', g.cutoff - w.due_at
          from given as g
         cross join lateral unnest(%(offsets)s::interval[]) as o (away)
         cross join lateral (
               select timezone(coalesce(g.zone, 'UTC'), g.cutoff) - g.age + o.away as column_at,
                      timezone('UTC', g.cutoff) - lapse.due_shift(g.cutoff, g.age, g.zone) as latest) as c
         cross join lateral (
               select c.column_at, c.latest,
                      timezone('UTC', timezone('UTC', timezone(coalesce(g.zone, 'UTC'), c.column_at)) + g.age)
                      as due_at) as w
        """,
        {"cutoff": cutoff, "age": age, "zone": zone, "offsets": offsets},
    ).fetchall()

    for due_at, taken, over in rows:
        assert not taken or due_at <= cutoff, (due_at, cutoff)
        assert taken or over < timedelta(days=3, hours=2), (due_at, cutoff, over)


KEYS = {
    "bigint": st.integers(-(2**63), 2**63 - 1),
    "text": st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=12),
    "numeric": st.decimals(allow_nan=False, allow_infinity=False, places=3),
    "bytea": st.binary(max_size=8),
    "float8": st.floats(allow_nan=False),
    "char(4)": st.text("ab '\",{}\\", max_size=4),
    "interval": st.timedeltas(timedelta(days=-9999), timedelta(days=9999)),
    "jsonb": st.text('ab"\\{}', max_size=4).map(lambda text: psycopg.types.json.Jsonb({"k": text})),
}


@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
@pytest.mark.parametrize("kind", KEYS)
def test_rows_with_any_key_go_once_and_a_held_one_stays(conn, kind, data):
    keys = data.draw(st.lists(KEYS[kind], min_size=2, max_size=12))
    conn.execute("select lapse.drop_expiry('keys', true); drop table if exists app.k; delete from lapse.hold")
    conn.execute(f"create table app.k (a {kind} not null, b int, due timestamptz, primary key (a, b))")
    conn.execute("create index on app.k (due, a, b)")
    for number, key in enumerate(keys):
        conn.execute(
            "insert into app.k values (%s, 1, now() + %s * interval '1 h') on conflict do nothing",
            [key, -1 if number % 3 else 1],
        )
    conn.execute("select lapse.create_expiry('keys', 'app.k', 'due', p_batch_size => 3)")
    due = conn.execute(
        "select a::text, array[a::text, b::text]::text from app.k where due <= now()"
    ).fetchall()
    later = one(conn, "select count(*) from app.k where due > now()")
    held = due[0] if due else None
    if held:
        conn.execute("select lapse.hold('app.k', %s, 'a test')", [held[1]])

    conn.execute("call lapse.run('keys')")

    left = column(conn, "select a::text from app.k where due <= now()")
    assert left == ([held[0]] if held else [])
    assert one(conn, "select count(*) from app.k") == later + len(left)
    assert one(conn, "select count(*) from lapse.blocked_row where policy = 'keys' and hold_key is null") == 0


@pytest.mark.parametrize("others", ["", ", n int"])
def test_a_key_of_an_extensions_type_is_found_by_its_own_index(conn, others):
    """A citext, an ltree: what equals what is said by an operator that is not in pg_catalog."""
    columns = "k" + others[:3]
    conn.execute(WORDS)
    conn.execute(f"create table app.k (k words.word{others}, due timestamptz, primary key ({columns}))")
    conn.execute(f"create index on app.k (due, {columns})")
    conn.execute(f"""
        insert into app.k ({columns}, due)
        select ('K' || g)::words.word{others and ", g"}, now() + (g % 2 * 2 - 1) * interval '1 h'
          from generate_series(1, 6) as g
    """)
    conn.execute("select lapse.create_expiry('odd', 'app.k', 'due')")
    held = one(conn, "select key from lapse.due_keys('odd') limit 1")
    conn.execute(
        "select lapse.hold('app.k', %s, 'a test')", [held.lower()]
    )  # equal, as its own operator has it
    shown = one(conn, "select lapse.preview_json('odd')")

    conn.execute("call lapse.run('odd')")

    assert one(conn, "select count(*) from app.k where due < now()") == 1
    assert one(conn, "select count(*) from app.k") == 4
    assert (shown["index"]["ok"], shown["not_known"]) == (True, [])
    assert one(conn, "select state from lapse.why('app.k', %s)", held) == "held"


SILENT = ["status <> 'open'", "status in ('open')", "status is distinct from 'open'", "'open' = status"]


def test_what_would_be_compared_as_text_without_a_word_is_refused_and_says_what_to_write(conn):
    conn.execute(WORDS)
    conn.execute("alter table app.t add status words.word default 'Open'; create index on app.t (due, id)")
    conn.execute("insert into app.t values (1, now() - interval '1 h', 'x')")

    for predicate in SILENT:
        with pytest.raises(psycopg.Error) as caught:
            conn.execute("select lapse.create_expiry('odd', 'app.t', 'due', %s)", [predicate])
        assert caught.value.sqlstate == "LP023", predicate
        assert "and not words." in str(caught.value), predicate
        assert "operator(schema.=)" in str(caught.value.diag.message_hint)
    assert one(conn, "select count(*) from pg_proc where pronamespace = 'app'::regnamespace") == 0
    assert one(conn, "select count(*) from pg_class where relname like 'lapse_probe%%'") == 0

    for predicate, left in [
        ("status operator(words.<>) 'open'", 1),
        ("status::text = 'Open' and length(status) = 4", 0),
    ]:
        conn.execute("select lapse.create_expiry('odd', 'app.t', 'due', %s, p_replace => true)", [predicate])
        conn.execute("call lapse.run('odd')")
        assert one(conn, "select count(*) from app.t") == left


ODD_COLUMNS = (
    "p_what p_after p_cutoff p_limit p_relation p_settings v_limit v_since v_until v_picked key_1"
    " lapse_key_1 d step"
)


def test_columns_that_are_called_like_parts_of_what_is_written_change_nothing(conn):
    columns = ", ".join(f"{name} int" for name in ODD_COLUMNS.split())
    conn.execute(f"create table app.n (id int primary key, due timestamptz, {columns})")
    conn.execute("create index on app.n (due, id)")
    conn.execute(
        "insert into app.n (id, due) select g, now() - interval '1 h' from generate_series(1, 9) as g"
    )
    conn.execute("select lapse.create_expiry('odd', 'app.n', 'due', p_batch_size => 2, p_brake_rows => 3)")

    with pytest.raises(psycopg.Error) as caught:
        conn.execute("call lapse.run('odd')")  # the brake counts the table
    assert "LP015" in str(caught.value)
    conn.execute("select lapse.release_brake('odd')")
    conn.execute("call lapse.run('odd')")

    assert one(conn, "select count(*) from app.n") == 0


def test_after_its_schema_was_renamed_a_policy_is_dropped_without_a_trace_and_declared_again(conn):
    conn.execute("create index on app.t (due, id); insert into app.t values (1, now() - interval '1 h', 'x')")
    conn.execute("select lapse.create_expiry('odd', 'app.t', 'due'); alter schema app rename to app_2")
    try:
        with pytest.raises(psycopg.Error) as caught:
            conn.execute("select lapse.create_expiry('odd', 'app_2.t', 'due', p_replace => true)")
        assert "lapse.drop_expiry('odd')" in str(caught.value.diag.message_hint)
        conn.execute("select lapse.drop_expiry('odd')")
        assert one(conn, "select count(*) from pg_proc where pronamespace = 'app_2'::regnamespace") == 0
        conn.execute("select lapse.create_expiry('odd', 'app_2.t', 'due')")
        conn.execute("call lapse.run('odd')")
        assert one(conn, "select count(*) from app_2.t") == 0
    finally:
        conn.execute("select lapse.drop_expiry('odd', true); drop schema app_2 cascade")
