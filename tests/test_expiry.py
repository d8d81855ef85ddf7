"""Declared policies: what a generated step does, with any key, any name, each action, and in company."""

from datetime import datetime, timedelta
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import sql

from tests.support import databases, shed
from tests.support.expiry import build, declare, functions, running

PAST, FUTURE = "now() - interval '1 hour'", "now() + interval '1 hour'"


@pytest.fixture(scope="module")
def dsn(server, template):
    """One database for this module; every test makes its tables afresh."""
    with databases.database(server, template) as own:
        yield own


@pytest.fixture
def conn(conn):
    build(conn)
    return conn


def add(conn: psycopg.Connection[Any], due: str = PAST, count: int = 1, **columns: str) -> list[int]:
    """Add sessions; returns their ids."""
    names = "".join(f", {name}" for name in columns)
    values = "".join(f", '{value}'" for value in columns.values())
    return shed.column(
        conn,
        f"insert into app.sessions (expires_at{names}) select {due}{values} from generate_series(1, %s)"
        " returning id",
        count,
    )


def left(conn: psycopg.Connection[Any]) -> list[int]:
    return shed.column(conn, "select id from app.sessions order by id")


def blocked(conn: psycopg.Connection[Any]) -> list[str]:
    return shed.column(conn, "select key from lapse.blocked_row order by key")


def test_rows_that_are_due_go_and_all_others_stay(conn):
    declare(conn, p_predicate="state = 'open'")
    due = add(conn, count=3)
    others = [*add(conn, FUTURE), *add(conn, "null"), *add(conn, "'infinity'"), *add(conn, state="closed")]

    shed.run(conn, "sessions")

    assert left(conn) == others
    assert shed.log(conn, "status, picked, handled") == [("ok", len(due), len(due))]
    assert shed.column(conn, "select key from lapse.due_keys('sessions')") == []


def test_the_step_can_be_read_and_says_what_it_is_and_whose_it_is(conn):
    declare(conn, p_predicate="state = 'open' -- not yet closed")

    text = shed.one(
        conn,
        "select pg_get_functiondef(oid) from pg_proc where proname = 'lapse_expire_sessions'",
    )

    assert "-- app.lapse_expire_sessions: one batch of policy sessions" in text
    assert "don't edit" in text
    assert "where (state = 'open' -- not yet closed\n" in text
    assert "for update of t skip locked" in text
    assert "ctid" not in text
    assert "SECURITY DEFINER" in text
    assert "SET search_path TO 'pg_catalog', 'pg_temp'" in text


KEYS: dict[str, tuple[list[str], list[tuple[Any, ...]]]] = {
    "bigint": (["bigint"], [(-1,), (2**62,)]),
    "uuid": (
        ["uuid"],
        [("6f1c2a1e-0000-4000-8000-000000000001",), ("6f1c2a1e-0000-4000-8000-000000000002",)],
    ),
    "text": (["text"], [("",), ("a'b\"c,{}\\",)]),
    "text of another order": (['text collate "C"'], [("Ä",), ("a",)]),
    "numeric": (["numeric"], [("1.10",), ("1E+30",)]),
    "timestamptz": (["timestamptz"], [("2026-01-01 00:00:00.000001+00",), ("-infinity",)]),
    "bytea": (["bytea"], [(b"\x00\\",), (b"",)]),
    "double": (["double precision"], [(0.1,), ("NaN",)]),
    "varchar(5)": (["varchar(5)"], [("a",), ("b",)]),
    "char(5)": (["char(5)"], [("a",), ("b",)]),
    "enum": (["app.mood"], [("sad",), ("gl'ad",)]),
    "domain": (["app.number"], [(1,), (2,)]),
    "range": (["int4range"], [("[1,2)",), ("empty",)]),
    "inet": (["inet"], [("10.0.0.1",), ("::1",)]),
    "of two": (["bigint", "text"], [(1, 'a,"b'), (1, "a")]),
    "of three": (["date", "uuid", "boolean"], [("2026-01-01", "6f1c2a1e-0000-4000-8000-000000000001", True)]),
}


@pytest.mark.parametrize(
    ("kind", "index"), [*((kind, "primary key") for kind in KEYS), ("uuid", "unique"), ("of two", "unique")]
)
def test_any_key_will_do(conn, kind, index):
    types, rows = KEYS[kind]
    names = [f"k{place}" for place in range(len(types))]
    columns = ", ".join(f"{name} {type} not null" for name, type in zip(names, types, strict=True))
    conn.execute(
        "create type app.mood as enum ('sad', 'gl''ad'); create domain app.number as int check (value > 0)"
    )
    conn.execute(f"create table app.any (due timestamptz, {columns}, {index} ({', '.join(names)}))")
    conn.execute("create index on app.any (due)")
    conn.execute("create table app.kept (like app.any)")
    declare(conn, p_name="anything", p_target="app.any", p_due_column="due")
    marks = ", ".join(f"%s::{type.partition(' collate')[0]}" for type in types)
    for row in rows:
        conn.execute(f"insert into app.any values ({PAST}, {marks})", row)
    keys = shed.column(conn, "select key from lapse.due_keys('anything') order by 1")
    conn.execute(
        "insert into lapse.blocked_row (policy, key, error, run_id, retry_at)"
        " values ('anything', %s, 'x', 1, 'infinity')",
        [keys[0]],
    )

    shed.run(conn, "anything")
    blocked_rest = shed.one(conn, "select count(*) from app.any")
    conn.execute("delete from lapse.blocked_row")
    shed.run(conn, "anything")

    assert len(set(keys)) == len(rows)
    assert blocked_rest == 1
    assert shed.one(conn, "select count(*) from app.any") == 0


HARD = [
    "select", "table", "step", "due", "t", "d", "c", "p_limit", "p_cutoff", "v_limit", "v_since", "v_until",
    "v_picked", "key_1", "lapse_key_1", "lapse_still_due", "picked", "handled", "reached", "gone", "changed",
    "pg_catalog", "%s", "%I", "$1", 'a"b', "a'b", "A", "ä", "a.b", "$lapse$", "--", "/*", "\\", "a b",
]  # fmt: skip
NAMES = st.one_of(
    st.sampled_from(HARD),
    st.text(st.characters(exclude_categories=["Cs", "Cc"], max_codepoint=0x2FFF), min_size=1, max_size=15),
)


@settings(
    max_examples=12,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    names=st.lists(NAMES, min_size=6, max_size=6, unique=True),
    action=st.sampled_from(["delete", "update", "call"]),
    partitioned=st.booleans(),
    aged=st.booleans(),
)
def test_any_name_will_do_for_schemas_tables_and_columns(conn, names, action, partitioned, aged):
    build(conn, "")
    names[0] = "x" + names[0]  # a schema can't be called pg_...
    schema, _, key, due, state, _ = (sql.Identifier(name) for name in names)
    whole, text = sql.Identifier(names[0], names[1]), sql.Identifier(names[0], names[5])
    conn.execute(sql.SQL("drop schema if exists {} cascade; create schema {}").format(schema, schema))
    try:
        conn.execute(
            sql.SQL(
                "create table {w} ({k} bigint primary key, {d} timestamptz, {s} text default 'on') {part};"
                "create index on {w} ({d}, {k}) where {s} = 'on'"
            ).format(
                w=whole,
                k=key,
                d=due,
                s=state,
                part=sql.SQL("partition by hash ({})").format(key) if partitioned else sql.SQL(""),
            )
        )
        if partitioned:
            conn.execute(
                sql.SQL("create table {} partition of {} for values with (modulus 1, remainder 0)").format(
                    sql.Identifier(names[0], names[1][:15] + "_1"), whole
                )
            )
        conn.execute(
            sql.SQL("create function {f}(bigint[]) returns void language sql as {b}").format(
                f=text,
                b=sql.Literal(
                    sql.SQL("delete from {} where {} = any ($1)").format(whole, key).as_string(conn)
                ),
            )
        )
        conn.execute(
            sql.SQL(
                "insert into {w} values (1, {p}, 'on'), (2, now() + interval '1 day', 'on'), (3, {p}, 'off')"
            ).format(w=whole, p=sql.SQL("now() - interval '2 hours'"))
        )
        declare(
            conn,
            p_name="odd",
            p_target=whole.as_string(conn),
            p_due_column=names[3],
            p_predicate=sql.SQL("{} = 'on'").format(state).as_string(conn),
            p_action=action,
            **({"p_set": {names[4]: "done"}} if action == "update" else {}),
            **({"p_function": text.as_string(conn)} if action == "call" else {}),
            **({"p_older_than": "1 hour"} if aged else {}),
        )

        shed.run(conn, "odd")

        rows = conn.execute(sql.SQL("select {}, {} from {} order by 1").format(key, state, whole)).fetchall()
        assert rows == [(1, "done")] * (action == "update") + [(2, "on"), (3, "off")]
        assert shed.log(conn, "status, handled") == [("ok", 1)]
        conn.execute("select lapse.drop_expiry('odd')")
    finally:
        conn.execute(sql.SQL("drop schema {} cascade").format(schema))


def test_an_update_is_done_once_and_sets_literals_and_expressions(conn):
    conn.execute(
        "alter table app.sessions add number integer, add note jsonb, add word json,"
        " add truth boolean default true"
    )
    declare(
        conn,
        p_predicate="state = 'open'",
        p_action="update",
        p_set={
            "state": "it's; drop table app.sessions --",
            "closed_at": {"expression": "now()"},
            "number": 7,
            "note": {"why": ["lapsed"]},
            "word": "it's",
            "truth": None,
        },
    )
    (id,) = add(conn)
    (other,) = add(conn, FUTURE)

    shed.run(conn, "sessions")
    shed.run(conn, "sessions")

    assert conn.execute(
        "select id, state, closed_at is not null, number, note, word, truth from app.sessions order by id"
    ).fetchall() == [
        (id, "it's; drop table app.sessions --", True, 7, {"why": ["lapsed"]}, "it's", None),
        (other, "open", False, None, None, None, True),
    ]
    assert shed.log(conn, "status, handled") == [("ok", 1)]


def test_an_update_may_move_the_due_time_itself(conn):
    declare(conn, p_action="update", p_set={"expires_at": {"expression": "now() + interval '1 day'"}})
    add(conn, count=3)

    shed.run(conn, "sessions")

    assert shed.one(conn, f"select count(*) from app.sessions where expires_at > {FUTURE}") == 3


def test_an_update_that_leaves_a_row_due_sets_it_aside_instead_of_going_on_for_ever(conn):
    conn.execute(
        """
        create function app.stubborn() returns trigger language plpgsql as
            $$ begin if new.id % 2 = 0 then new.state := 'open'; end if; return new; end $$;
        create trigger stubborn before update on app.sessions for each row execute function app.stubborn();
        """
    )
    declare(conn, p_predicate="state = 'open'", p_action="update", p_set={"state": "closed"})
    ids = add(conn, count=6)

    shed.run(conn, "sessions")

    assert blocked(conn) == sorted(str(id) for id in ids if id % 2 == 0)
    assert shed.log(conn, "status, handled, blocked") == [("ok", 3, 3)]
    assert shed.one(conn, "select batches from lapse.run_log") < 20


def test_a_function_gets_the_keys_and_what_it_leaves_due_is_set_aside(conn):
    conn.execute(
        """
        create table app.archive (like app.sessions);
        create function app.archive(p_ids bigint[]) returns integer language plpgsql as $$
        begin
            insert into app.archive select * from app.sessions where id = any (p_ids);
            delete from app.sessions where id = any (p_ids) and state <> 'stuck';
            return 1;
        end $$;
        """
    )
    declare(conn, p_action="call", p_function="app.archive")
    ids, (stuck,) = add(conn, count=3), add(conn, state="stuck")

    shed.run(conn, "sessions")

    assert left(conn) == [stuck]
    assert blocked(conn) == [str(stuck)]
    assert set(ids) <= set(shed.column(conn, "select id from app.archive"))


def test_a_key_of_several_columns_goes_to_a_function_as_arrays_side_by_side(conn):
    conn.execute(
        """
        create table app.pairs (a int, b text, due timestamptz, primary key (b, a));
        create index on app.pairs (due);
        create table app.got (a int, b text);
        create function app.take(p_b text[], p_a int[]) returns void language sql as $$
            insert into app.got select u.a, u.b from unnest(p_b, p_a) as u (b, a);
            delete from app.pairs as p using unnest(p_b, p_a) as u (b, a) where p.b = u.b and p.a = u.a;
        $$;
        """
    )
    conn.execute(f"insert into app.pairs values (1, 'x', {PAST}), (2, 'x', {PAST}), (1, 'y', {FUTURE})")
    declare(
        conn, p_name="pairs", p_target="app.pairs", p_due_column="due", p_action="call", p_function="app.take"
    )

    shed.run(conn, "pairs")

    assert conn.execute("select * from app.got order by 1").fetchall() == [(1, "x"), (2, "x")]
    assert conn.execute("select a, b from app.pairs").fetchall() == [(1, "y")]


def test_rows_of_all_partitions_go_oldest_first_and_generated_columns_may_decide(conn):
    conn.execute(
        """
        create table app.events (
            id bigint, made timestamp not null, kind text,
            ends timestamptz generated always as (timezone('Europe/Berlin', made + interval '1 hour')) stored,
            primary key (id, made)
        ) partition by range (made);
        create table app.events_1 partition of app.events for values from ('2026-01-01') to ('2026-02-01');
        create table app.events_2 partition of app.events default;
        create index on app.events (ends);
        insert into app.events (id, made, kind)
        select n, timestamp '2026-01-31 23:00' + n * interval '1 min', 'k' from generate_series(1, 100) as n;
        """
    )
    declare(conn, p_name="events", p_target="app.events", p_due_column="ends", p_batch_size=7)

    conn.execute("call lapse.run('events', '2026-01-31 23:30+00')")

    assert shed.column(conn, "select id from app.events order by id") == list(range(31, 101))


def test_a_clock_without_a_zone_and_an_age_work_together_in_a_step(conn):
    conn.execute("create table app.django (id uuid primary key default gen_random_uuid(), made timestamp)")
    conn.execute("create index on app.django (made)")
    conn.execute(
        "insert into app.django (made) select '2025-10-26 02:30'::timestamp + n * interval '1 hour'"
        " from generate_series(-3, 3) as n"
    )
    declare(
        conn,
        p_name="django",
        p_target="app.django",
        p_due_column="made",
        p_due_zone="Europe/Berlin",
        p_older_than="30 days",
        p_batch_size=1,
    )
    conn.execute("set timezone = 'Asia/Kathmandu'")

    # 02:30 came twice; it was over at 01:30 UTC.
    conn.execute("call lapse.run('django', '2025-11-25 01:29:59+00')")
    before = shed.one(conn, "select min(made) from app.django")
    conn.execute("call lapse.run('django', '2025-11-27 01:30+00')")

    assert before == datetime(2025, 10, 26, 2, 30)  # noqa: DTZ001
    assert shed.one(conn, "select count(*) from app.django") == 0


def test_a_row_that_is_renewed_while_it_is_swept_stays(conn, dsn):
    declare(conn)
    renewed, gone = add(conn, count=2)
    conn.execute(
        """
        create function app.wait() returns trigger language plpgsql as
            $$ begin lock table app.gate in access share mode; return old; end $$;
        create table app.gate ();
        create trigger wait before delete on app.sessions for each row execute function app.wait();
        """
    )

    with psycopg.connect(dsn) as user, psycopg.connect(dsn, autocommit=True) as sweeper:
        user.execute(f"update app.sessions set expires_at = {FUTURE} where id = %s", [renewed])
        shed.run(sweeper, "sessions")  # skips the row, since it is locked
        assert left(conn) == [renewed]
        user.commit()
        shed.run(sweeper, "sessions")

    assert left(conn) == [renewed]
    assert gone not in left(conn)


def test_a_row_renewed_after_the_statement_began_is_looked_at_again_under_its_lock(conn, dsn):
    """The step's own statement waits for nobody, so a function of the owner's waits in its predicate."""
    conn.execute(
        """
        create function app.patient(p_id bigint) returns boolean language plpgsql stable as
            $$ begin perform pg_advisory_xact_lock_shared(77); return true; end $$;
        """
    )
    declare(conn, p_predicate="app.patient(id)", p_lock_timeout="30 s")
    renewed, _ = add(conn, count=2)

    with (
        psycopg.connect(dsn) as user,
        psycopg.connect(dsn) as keeper,
        psycopg.connect(dsn, autocommit=True) as sweeper,
    ):
        keeper.execute("select pg_advisory_xact_lock(77)")
        with running(sweeper, "call lapse.run('sessions')"):
            databases.until(
                conn,
                "select count(*) from pg_locks where locktype = 'advisory' and objid = 77 and not granted",
                1,
            )
            user.execute(f"update app.sessions set expires_at = {FUTURE} where id = %s", [renewed])
            user.commit()
            keeper.rollback()

    assert left(conn) == [renewed]


def test_two_runs_at_once_do_no_row_twice_and_neither_waits(conn, dsn):
    declare(conn, p_batch_size=10)
    add(conn, count=200)
    conn.execute("create table app.counted (id bigint)")
    conn.execute(
        """
        create function app.count() returns trigger language plpgsql as
            $$ begin insert into app.counted select id from gone; return null; end $$;
        create trigger count after delete on app.sessions referencing old table as gone
            for each statement execute function app.count();
        """
    )

    with (
        psycopg.connect(dsn, autocommit=True) as sweeper,
        running(sweeper, "call lapse.run('sessions')"),
    ):
        for _ in range(20):
            step = "select handled from app.lapse_expire_sessions(10, now(), '-infinity')"
            conn.execute(step)

    assert left(conn) == []
    assert shed.one(conn, "select count(*) = 200 and count(distinct id) = 200 from app.counted")


def test_the_same_call_twice_with_replace_changes_nothing_and_another_call_keeps_state_and_history(conn):
    def look() -> list[Any]:
        return [
            conn.execute(query).fetchall()
            for query in (
                "select * from lapse.policy",
                "select * from lapse.policy_state",
                "select oid, xmin::text, prosrc from pg_proc"
                " where proname like 'lapse\\_%' and pronamespace = 'app'::regnamespace order by 1",
            )
        ]

    declare(conn, p_replace=True, p_predicate="state = 'open'")
    add(conn)
    shed.run(conn, "sessions")
    conn.execute("select lapse.pause('sessions')")
    before = look()

    declare(conn, p_replace=True, p_predicate="state = 'open'")
    assert look() == before

    declare(conn, p_replace=True, p_older_than="1 day", p_batch_size=5)
    policy = conn.execute("select predicate, older_than, batch_size, enabled from lapse.policy").fetchone()
    assert policy == (None, timedelta(days=1), 5, False), "a pause is the operator's, and stays"
    assert shed.log(conn) == [("sessions", "ok")]
    conn.execute("select lapse.resume('sessions')")
    (young,) = add(conn)
    (old,) = add(conn, "now() - interval '2 days'", state="closed")
    shed.run(conn, "sessions")
    assert left(conn) == [young]
    assert old != young


def test_nothing_is_left_of_a_transaction_that_is_rolled_back(conn):
    with conn.transaction(force_rollback=True):
        declare(conn)
        assert len(functions(conn)) == 2

    assert functions(conn) == []
    assert shed.one(conn, "select count(*) from lapse.policy") == 0


def test_dropping_takes_the_functions_and_leaves_table_index_and_history(conn):
    declare(conn)
    add(conn)
    shed.run(conn, "sessions")

    conn.execute("select lapse.drop_expiry('sessions')")
    conn.execute("select lapse.drop_expiry('sessions', p_if_exists => true)")

    assert functions(conn) == []
    assert shed.log(conn) == [("sessions", "ok")]
    assert shed.one(conn, "select to_regclass('app.sessions_expires') is not null")
    assert shed.fails(conn, "select lapse.drop_expiry('sessions')").sqlstate == "LP002"


def test_a_table_that_is_gone_fails_its_own_policy_clearly_and_no_other(conn):
    declare(conn)
    conn.execute("create table app.others (like app.sessions including all)")
    declare(conn, p_name="others", p_target="app.others")
    conn.execute(f"insert into app.others (expires_at) values ({PAST})")
    conn.execute("drop table app.sessions")

    error = shed.fails(conn, "call lapse.run_due()")

    assert error.sqlstate == "LP006"
    assert 'relation "app.sessions" does not exist' in (error.diag.message_detail or "")
    assert shed.one(conn, "select count(*) from app.others") == 0
    assert conn.execute("select policy, backlog from lapse.policy_status order by 1").fetchall() == [
        ("others", "0"),
        ("sessions", None),
    ]
    conn.execute("select lapse.drop_expiry('sessions')")
    assert shed.column(conn, "select name from lapse.policy") == ["others"]


def test_a_declared_policy_s_rows_are_not_changed_behind_its_step(conn):
    declare(conn)

    error = shed.fails(conn, "select lapse.alter_policy('sessions', p_predicate => 'false')")

    assert error.sqlstate == "LP001"
    assert "create_expiry" in error.diag.message_hint
    conn.execute("select lapse.alter_policy('sessions', p_every => '1 hour')")


def test_a_bad_row_is_named_by_its_key_and_the_rest_go(conn):
    conn.execute("create table app.children (session bigint references app.sessions)")
    conn.execute("create index on app.children (session)")
    declare(conn)
    ids = add(conn, count=50)
    conn.execute("insert into app.children values (%s)", [ids[20]])

    shed.run(conn, "sessions")

    assert left(conn) == [ids[20]]
    assert blocked(conn) == [str(ids[20])]


def test_columns_that_come_later_and_are_called_like_variables_change_nothing(conn):
    declare(conn, p_predicate="state = 'open'")
    conn.execute(
        "alter table app.sessions add v_until timestamptz default '-infinity', add v_limit int default 0,"
        " add p_cutoff timestamptz default '-infinity', add step int, add key_1 int, add due int"
    )
    add(conn, count=2)

    shed.run(conn, "sessions")

    assert left(conn) == []


def test_the_brake_counts_a_table_that_nobody_has_analyzed(conn):
    declare(conn, p_brake_rows=5)
    add(conn, count=10)
    (kept,) = add(conn, FUTURE)

    error = shed.fails(conn, "call lapse.run('sessions')")
    add(conn, FUTURE, count=20)
    conn.execute("select lapse.release_brake('sessions')")
    shed.run(conn, "sessions")
    conn.execute(f"insert into app.sessions (expires_at) select {PAST} from generate_series(1, 10)")
    shed.run(conn, "sessions")

    assert "[LP015] 10 of 11 rows are due" in error.diag.message_detail
    assert len(left(conn)) == 21
    assert kept in left(conn)


def test_the_longest_name_works_and_two_of_them_are_told_apart(conn):
    names = ["a" * 63, "a" * 62 + "b"]
    for name in names:
        declare(conn, p_name=name)
    add(conn)

    shed.run(conn, names[1])

    assert left(conn) == []
    assert len(functions(conn)) == 4
    for name in names:
        conn.execute("select lapse.drop_expiry(%s)", [name])
    assert functions(conn) == []


def test_a_table_that_was_renamed_is_still_the_policys_own(conn):
    declare(conn)
    add(conn)
    shed.run(conn, "sessions")
    conn.execute("alter table app.sessions rename to visits")
    error = shed.fails(conn, "call lapse.run('sessions')")

    declare(conn, p_target="app.visits", p_replace=True)
    conn.execute(f"insert into app.visits (expires_at) values ({PAST})")
    shed.run(conn, "sessions")

    assert 'relation "app.sessions" does not exist' in error.diag.message_detail
    assert shed.one(conn, "select count(*) from app.visits") == 0
    assert [status for (status,) in shed.log(conn, "status")] == ["ok", "failed", "ok"]


def test_the_index_can_be_built_here_and_now_and_a_partial_one_serves_a_predicate(conn):
    conn.execute("drop index app.sessions_expires")
    before = functions(conn)

    error = refused(conn, p_predicate="state = 'open'")
    declare(conn, p_predicate="state = 'open'", p_index="build")

    assert error.sqlstate == "LP027"
    assert "create index concurrently" in error.diag.message_hint
    assert before == []
    assert shed.one(conn, "select ok from lapse.index_proof('sessions')")
    (index,) = shed.column(
        conn, "select indexdef from pg_indexes where schemaname = 'app' and indexdef ~ 'expires_at'"
    )
    assert "WHERE (state = 'open'::text)" in index


def refused(conn: psycopg.Connection[Any], **changes: Any) -> psycopg.Error:
    with pytest.raises(psycopg.Error) as caught:
        declare(conn, **changes)
    assert functions(conn) == []
    return caught.value
