"""What lapse.create_expiry refuses: table, column and reason are named, with a hint, and nothing is left."""

from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support import databases
from tests.support.expiry import SESSIONS, build, declare, functions

TABLES = (
    SESSIONS
    + """
create index sessions_closed on app.sessions (closed_at);
create view app.a_view as select * from app.sessions;
create materialized view app.a_matview as select * from app.sessions;
create foreign data wrapper nowhere;
create server nowhere foreign data wrapper nowhere;
create foreign table app.a_foreign_table (id bigint, expires_at timestamptz) server nowhere;
create sequence app.a_sequence;
create temporary table a_temporary_table (id bigint primary key, expires_at timestamptz);
create table app.a_parent (id bigint primary key, expires_at timestamptz);
create table app.a_child () inherits (app.a_parent);
create table app.a_mixed (id bigint, expires_at timestamptz) partition by list (id);
create foreign table app.a_mixed_1 partition of app.a_mixed for values in (1) server nowhere;
create table app.no_key (id bigint, expires_at timestamptz);
create unique index no_key_null on app.no_key (id);
create unique index no_key_part on app.no_key (expires_at) where id > 0;
create unique index no_key_expression on app.no_key ((id + 1));
create table app.array_key (id bigint[] primary key, expires_at timestamptz);
create type app.pair as (a int, b text);
create table app.row_key (id app.pair primary key, expires_at timestamptz);
create table app.late_key (id bigint not null unique deferrable, expires_at timestamptz);
create table app.clocks (id bigint primary key, wall timestamp, day date, seconds bigint);
create table app.hidden (id bigint primary key, expires_at timestamptz);
create function app.anything() returns boolean language sql volatile as 'select true';
create function app.numbers() returns setof boolean language sql stable as 'select true';
create function app.wrong(text[]) returns void language sql as '';
create procedure app.a_procedure(bigint[]) language sql as '';
"""
)


@pytest.fixture(scope="module")
def shared(server, template):
    with (
        databases.database(server, template) as own,
        psycopg.connect(own, autocommit=True, options="-c search_path=") as connection,
    ):
        build(connection, TABLES)
        yield connection


@pytest.fixture
def conn(shared):
    """One database for all tests, in a transaction that is rolled back."""
    with shared.transaction(force_rollback=True):
        yield shared


def refused(conn: psycopg.Connection[Any], **changes: Any) -> psycopg.Error:
    before = left(conn)
    with pytest.raises(psycopg.Error) as caught, conn.transaction():
        declare(conn, **changes)
    assert left(conn) == before
    return caught.value


def left(conn: psycopg.Connection[Any]) -> tuple[Any, ...]:
    """Everything that a refused call could have left behind."""
    return (
        functions(conn),
        conn.execute("select * from lapse.policy").fetchall(),
        conn.execute("select * from lapse.policy_state").fetchall(),
        conn.execute(
            "select relname from pg_class where relnamespace = 'app'::regnamespace order by 1"
        ).fetchall(),
        conn.execute("select count(*) from pg_proc where pronamespace = 'app'::regnamespace").fetchall(),
    )


UPDATE = {"p_action": "update"}
CALL = {"p_action": "call"}
CLOCKS = {"p_target": "app.clocks"}

REFUSALS: list[tuple[dict[str, Any], str, list[str]]] = [
    # arguments
    ({"p_name": None}, "LP001", ["p_name"]),
    ({"p_target": None}, "LP001", ["p_target"]),
    ({"p_due_column": None}, "LP001", ["p_due_column"]),
    ({"p_action": None}, "LP001", ["p_action"]),
    ({"p_index": None}, "LP001", ["p_index"]),
    ({"p_name": 'x"; drop table app.sessions; --'}, "LP001", ["name"]),
    ({"p_name": "a" * 64}, "LP001", ["name"]),
    ({"p_action": "truncate"}, "LP001", ["truncate"]),
    ({"p_index": "never"}, "LP001", ["never"]),
    ({"p_every": "1 s"}, "LP001", ["every"]),
    ({"p_batch_size": 0}, "LP001", ["0 rows"]),
    # retention
    ({"p_older_than": None}, "LP024", ["app.sessions", "NULL"]),
    ({"p_older_than": "0"}, "LP024", ["app.sessions", "expires_at", "00:00:00"]),
    ({"p_older_than": "-1 day"}, "LP024", ["app.sessions", "expires_at", "-1 days"]),
    ({"p_older_than": "1 month -1 day"}, "LP024", ["app.sessions", "expires_at"]),
    ({"p_older_than": "1001 years"}, "LP024", ["app.sessions", "expires_at"]),
    # tables
    ({"p_target": "app.a_view"}, "LP020", ["app.a_view", "is a view"]),
    ({"p_target": "app.a_matview"}, "LP020", ["app.a_matview", "is a view"]),
    ({"p_target": "app.a_foreign_table"}, "LP020", ["app.a_foreign_table", "foreign table"]),
    ({"p_target": "app.a_sequence"}, "LP020", ["app.a_sequence", "not a table"]),
    ({"p_target": "pg_temp.a_temporary_table"}, "LP020", ["a_temporary_table", "temporary"]),
    ({"p_target": "pg_catalog.pg_statistic"}, "LP020", ["pg_statistic", "PostgreSQL itself"]),
    ({"p_target": "lapse.run_log"}, "LP020", ["lapse.run_log", "pglapse's own"]),
    ({"p_target": "app.a_parent"}, "LP020", ["app.a_parent", "inherit"]),
    ({"p_target": "app.a_mixed"}, "LP020", ["app.a_mixed", "foreign tables"]),
    # keys
    ({"p_target": "app.no_key"}, "LP021", ["app.no_key", "no_key_null allows NULL in id", "has a condition"]),
    ({"p_target": "app.array_key"}, "LP021", ["app.array_key", "array"]),
    ({"p_target": "app.late_key"}, "LP021", ["app.late_key", "deferrable"]),
    ({"p_target": "app.row_key"}, "LP021", ["app.row_key", "a row"]),
    ({"p_key_columns": ["nothing"]}, "LP021", ["app.sessions", "nothing"]),
    ({"p_key_columns": []}, "LP021", ["app.sessions"]),
    ({"p_key_columns": ["state"]}, "LP021", ["app.sessions", "state"]),
    ({"p_key_columns": ["id", "closed_at"]}, "LP021", ["app.sessions", "closed_at"]),
    # due columns
    ({"p_due_column": "nothing"}, "LP002", ["app.sessions", "nothing"]),
    ({"p_due_column": "state"}, "LP001", ["app.sessions.state", "text"]),
    ({**CLOCKS, "p_due_column": "wall"}, "LP001", ["app.clocks.wall", "without time zone"]),
    ({**CLOCKS, "p_due_column": "wall", "p_due_zone": "Mars/Olympus"}, "LP001", ["Mars/Olympus"]),
    ({**CLOCKS, "p_due_column": "day"}, "LP001", ["app.clocks.day", "date"]),
    ({**CLOCKS, "p_due_column": "day", "p_due_zone": "UTC"}, "LP001", ["app.clocks.day", "date"]),
    ({**CLOCKS, "p_due_column": "seconds"}, "LP001", ["app.clocks.seconds", "bigint"]),
    ({"p_due_zone": "UTC"}, "LP001", ["app.sessions.expires_at", "no zone"]),
    # predicates
    *(
        ({"p_predicate": predicate}, "LP023", ["app.sessions", reason])
        for predicate, reason in [
            ("state =", "syntax error"),
            ("", "is empty"),
            (" \n", "is empty"),
            ("state = 'open') or (true", "syntax error"),
            ("true) or coalesce(false", "syntax error"),
            ("true] || array[false", "syntax error"),
            ("true; drop table app.sessions; --", "syntax error"),
            ("true\n) is true from t; drop table app.sessions; select (true", "syntax error"),
            ("true] from t; drop table app.sessions; select array[true", "does not exist"),
            ("state = 'open", "unterminated"),
            ("state = 'open' /* for ever", "unterminated"),
            ('"state', "unterminated"),
            ("state = $$open", "unterminated"),
            ("$1 is null", "parameter"),
            ("nothing = 1", "nothing"),
            ("p_cutoff is not null", "p_cutoff"),
            ("v_limit > 0", "v_limit"),
            ("state", "boolean"),
            ("true, true", "IS TRUE"),
            ("exists (select from app.clocks)", "sub-select"),
            ("id in (select id from app.sessions)", "sub-select"),
            ("(select true)", "sub-select"),
            ("id = array_length(array(select 1), 1)", "sub-select"),
            ("count(*) > 0", "aggregate"),
            ("row_number() over () = 1", "window"),
            ("app.numbers()", "set"),
            ("random() < 0.5", "volatile function, random()"),
            ("expires_at < clock_timestamp()", "volatile function, clock_timestamp()"),
            ("app.anything()", "volatile function, app.anything()"),
            ("case when id > 0 then app.anything() end", "volatile function, app.anything()"),
            ("id = nextval('app.a_sequence')", "volatile function, nextval(regclass)"),
            ("anything()", "anything()"),
        ]
    ),
    # updates
    (UPDATE, "LP026", ["app.sessions", "what to set"]),
    ({**UPDATE, "p_set": {}}, "LP026", ["app.sessions", "what to set"]),
    ({**UPDATE, "p_set": ["state"]}, "LP026", ["app.sessions", "what to set"]),
    ({**UPDATE, "p_set": {"nothing": 1}}, "LP026", ["app.sessions", "nothing"]),
    ({**UPDATE, "p_set": {"id": 1, "expires_at": None}}, "LP026", ["app.sessions", "id", "identity"]),
    ({**UPDATE, "p_set": {"state": "closed"}}, "LP026", ["app.sessions", "still be due"]),
    ({**UPDATE, "p_set": {"closed_at": "now", "expires_at": None}}, "LP026", ["closed_at", "first planned"]),
    ({**UPDATE, "p_set": {"expires_at": "tuesday-ish"}}, "LP026", ["app.sessions", "tuesday-ish"]),
    ({**UPDATE, "p_set": {"expires_at": {"expression": "now()", "more": 1}}}, "LP026", ["expires_at"]),
    ({**UPDATE, "p_set": {"expires_at": {"expression": 1}}}, "LP026", ["expires_at"]),
    ({**UPDATE, "p_set": {"state": ["a"]}}, "LP026", ["state", "list"]),
    ({**UPDATE, "p_set": {"state": None, "expires_at": None}}, "LP026", ["state", "can't be NULL"]),
    *(
        ({**UPDATE, "p_set": {"expires_at": {"expression": expression}}}, "LP023", ["expires_at", reason])
        for expression, reason in [
            ("now()) where false; drop table app.sessions; --", "syntax error"),
            ("null, state = 'x'", "record"),
            ("(select now())", "sub-select"),
            ("max(expires_at)", "aggregate"),
            ("nothing", "nothing"),
        ]
    ),
    ({"p_set": {"state": "closed"}}, "LP026", ["delete"]),
    # calls
    (CALL, "LP026", ["app.sessions", "NULL"]),
    ({**CALL, "p_function": "app.nothing"}, "LP026", ["app.sessions", "app.nothing(bigint[])"]),
    ({**CALL, "p_function": "app.wrong"}, "LP026", ["app.wrong(bigint[])"]),
    ({**CALL, "p_function": "app.a_procedure"}, "LP026", ["app.a_procedure(bigint[])"]),
    ({**CALL, "p_function": "app.x(); drop table app.sessions"}, "LP026", ["app.sessions"]),
    ({"p_function": "app.wrong"}, "LP026", ["delete"]),
    # indexes
    ({"p_target": "app.hidden"}, "LP027", ["app.hidden", "no index"]),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "code", "reasons"), REFUSALS, ids=lambda value: str(value)[:60])
def test_what_could_not_work_is_refused_with_reason_and_hint_and_nothing_is_left(
    conn, changes, code, reasons
):
    error = refused(conn, **changes)

    said = f"{error.diag.message_primary} {error.diag.message_detail or ''}"
    assert error.sqlstate == code, said
    assert error.diag.message_hint
    for reason in reasons:
        assert reason in said
    assert conn.execute("select to_regclass('app.sessions') is not null").fetchone() == (True,)


def test_infinite_ages_are_refused_where_the_server_has_them(conn):
    if conn.info.server_version < 170000:
        pytest.skip("this server has no infinite intervals")

    assert refused(conn, p_older_than="infinity").sqlstate == "LP024"
    assert refused(conn, p_older_than="-infinity").sqlstate == "LP024"


def test_a_name_that_is_taken_is_refused_by_policy_or_by_function(conn):
    declare(conn)
    assert refused(conn).sqlstate == "LP003"
    declare(conn, p_name="others")
    conn.execute("create table app.third (like app.sessions including all)")
    error = refused(conn, p_target="app.third", p_replace=True)
    assert (error.sqlstate, "app.sessions" in str(error)) == ("LP003", True)
    conn.execute("create function app.lapse_expire_mine() returns int language sql as 'select 1'")
    assert refused(conn, p_name="mine").sqlstate == "LP028"


def test_a_policy_with_a_step_written_by_hand_is_neither_replaced_nor_dropped(conn):
    conn.execute("select lapse.create_policy('by_hand', 'lapse.prune_workers', '1 hour')")

    assert refused(conn, p_name="by_hand", p_replace=True).sqlstate == "LP003"
    with pytest.raises(psycopg.Error) as caught, conn.transaction():
        conn.execute("select lapse.drop_expiry('by_hand')")
    assert caught.value.sqlstate == "LP001"


def warned(conn: psycopg.Connection[Any], **changes: Any) -> list[tuple[str, str]]:
    said: list[tuple[str, str]] = []

    def note(diag: psycopg.errors.Diagnostic) -> None:
        said.append((diag.message_primary or "", diag.message_hint or ""))

    conn.add_notice_handler(note)
    try:
        declare(conn, **changes)
    finally:
        conn.remove_notice_handler(note)
    return said


def test_a_cadence_that_can_not_serve_an_age_is_warned_of(conn):
    ((message, hint),) = warned(conn, p_older_than="5 min", p_every="1 day")

    assert "at the age of 00:05:00" in message
    assert "every 1 day" in message
    assert hint
    conn.execute("select lapse.drop_expiry('sessions')")
    assert warned(conn, p_older_than="1 day", p_every="1 hour") == []


def test_a_foreign_key_without_index_is_warned_of_with_the_line_that_mends_it(conn):
    conn.execute(
        "create table app.children (id bigint, session bigint references app.sessions on delete cascade)"
    )

    ((message, hint),) = warned(conn)

    assert "app.children" in message
    assert "children_session_fkey" in message
    assert hint.startswith("create index concurrently on app.children (session)")
    conn.execute("select lapse.drop_expiry('sessions'); create index on app.children (session)")
    assert warned(conn) == []


def test_an_index_with_rows_that_the_predicate_leaves_out_is_warned_of_with_the_line_of_a_better_one(conn):
    ((message, hint),) = warned(conn, p_predicate="state = 'open'")

    assert "passed over again by each run" in message
    line = hint.removeprefix("Where they may become many: ")
    assert line.startswith("create index concurrently ")
    conn.execute("select lapse.drop_expiry('sessions')")
    conn.execute("drop index app.sessions_expires")
    conn.execute(line.replace(" concurrently", ""))
    assert warned(conn, p_predicate="state = 'open'") == []


def test_one_partition_alone_is_warned_of(conn):
    conn.execute(
        "create table app.parts (id bigint primary key, due timestamptz) partition by hash (id);"
        "create table app.parts_1 partition of app.parts for values with (modulus 1, remainder 0);"
        "create index on app.parts (due)"
    )

    ((message, hint),) = warned(conn, p_target="app.parts_1", p_due_column="due")

    assert "one partition of app.parts" in message
    assert "app.parts" in hint


def test_row_security_that_hides_rows_from_the_owner_is_refused_and_any_other_is_not(conn):
    role = f"pglapse_{conn.info.backend_pid}_owner"
    conn.execute(f"create role {role}; grant create, usage on schema app to {role}")
    conn.execute(
        f"alter table app.sessions owner to {role}; alter table app.sessions enable row level security"
    )
    declare(conn)
    conn.execute("select lapse.drop_expiry('sessions'); alter table app.sessions force row level security")

    error = refused(conn)

    assert error.sqlstate == "LP025"
    assert "app.sessions" in error.diag.message_primary
    assert f"alter role {role} bypassrls" in error.diag.message_hint
    conn.execute(f"alter role {role} bypassrls")
    declare(conn)


WORDS = st.sampled_from([
    "state", "=", "'open'", "(", ")", "[", "]", "or", "and", "not", "true", "false", ",", ";", "--", "\n",
    "/*", "*/", "'", '"', "$$", "select", "from", "t", "array", "coalesce", "null", "is", "||", "id", "> 0",
    "E'\\'",
])  # fmt: skip


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(words=st.lists(WORDS, min_size=1, max_size=9))
def test_no_predicate_reaches_beyond_itself(conn, words):
    """Whatever is accepted, rows that are not due stay: nothing in a predicate can widen the due range."""
    predicate = " ".join(words)
    with conn.transaction(force_rollback=True):
        conn.execute("insert into app.sessions (expires_at) values (now() + interval '1 day')")
        try:
            with conn.transaction():
                declare(conn, p_predicate=predicate)
        except psycopg.Error as error:
            assert error.sqlstate in ("LP023", "LP027"), predicate  # noqa: PT017 - no row can meet "false"
            assert functions(conn) == []
            return
        (picked,) = conn.execute(
            "select picked from app.lapse_expire_sessions(10, now(), '-infinity')"
        ).fetchone()
        assert picked == 0, predicate
        assert conn.execute("select lapse.due_keys('sessions')").fetchall() == [], predicate


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    value=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=30),
    wild=st.booleans(),
)
def test_a_value_to_set_is_data_whatever_it_says(conn, value, wild):
    value = f"'{value}'); drop table app.sessions; --\\" if wild else value
    with conn.transaction(force_rollback=True):
        conn.execute("insert into app.sessions (expires_at) values (now() - interval '1 day')")
        declare(
            conn,
            p_action="update",
            p_predicate="closed_at is null",
            p_set={"state": value, "closed_at": "2026-01-01"},
        )
        conn.execute("select * from app.lapse_expire_sessions(10, now(), '-infinity')")
        assert conn.execute("select state from app.sessions").fetchall() == [(value,)]
