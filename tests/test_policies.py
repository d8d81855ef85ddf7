"""lapse.create_policy and its sisters: what they refuse, and that a refusal changes nothing."""

from datetime import UTC, datetime, time, timedelta

import psycopg
import pytest

from tests.support import databases, shed


def furnish(conn):
    shed.build(conn)
    shed.step(conn, "sweep")
    conn.execute(
        """
        create function shed.two_arguments(integer, timestamptz)
            returns lapse.progress language sql as 'select null::lapse.progress';
        create function shed.returns_void(integer, timestamptz, timestamptz) returns void language sql as '';
        create function shed.returns_many(integer, timestamptz, timestamptz)
            returns setof lapse.progress language sql as 'select null::lapse.progress';
        create function shed.local_times(integer, timestamp, timestamp)
            returns lapse.progress language sql as 'select null::lapse.progress';
        create procedure shed.a_procedure(integer, timestamptz, timestamptz) language sql as '';
        create table shed.local_due (id bigint primary key, due timestamp, day date, seconds bigint);
        create view shed.a_view as select * from shed.things;
        """
    )


@pytest.fixture(scope="module")
def dsn(server, template):
    """One database for this module; every test builds its shed afresh."""
    with databases.database(server, template) as own:
        yield own


@pytest.fixture
def conn(conn):
    furnish(conn)
    return conn


@pytest.fixture(scope="module")
def furnished(server, template):
    with (
        databases.database(server, template) as own,
        psycopg.connect(own, autocommit=True, options="-c search_path=") as connection,
    ):
        furnish(connection)
        yield connection


@pytest.fixture
def shared(furnished):
    """One database for all tests that only need a transaction, which is rolled back."""
    with furnished.transaction(force_rollback=True):
        yield furnished


TYPES = {
    "p_every": "::interval",
    "p_key_columns": "::text[]",
    "p_at_time": "::time",
    "p_older_than": "::interval",
}


def create(conn, **changes):
    arguments = {
        "p_name": "sweep",
        "p_step": "shed.sweep",
        "p_every": "5 min",
        "p_target": "shed.things",
        "p_key_columns": ["id"],
        "p_due_column": "due",
        "p_predicate": "status = 'active'",
    } | changes
    named = ", ".join(f"{name} => %({name})s{TYPES.get(name, '')}" for name in arguments)
    conn.execute(f"select lapse.create_policy({named})", arguments)


def everything(conn):
    return (
        conn.execute("select * from lapse.policy order by 1").fetchall(),
        conn.execute("select * from lapse.policy_state order by 1").fetchall(),
    )


LOCAL = {"p_target": "shed.local_due", "p_predicate": None}

BAD = [
    ({"p_name": None}, "LP001"),
    ({"p_step": None}, "LP001"),
    ({"p_every": None}, "LP001"),
    ({"p_description": None}, "LP001"),
    ({"p_time_zone": None}, "LP001"),
    ({"p_batch_size": None}, "LP001"),
    ({"p_max_runtime": None}, "LP001"),
    ({"p_lock_timeout": None}, "LP001"),
    ({"p_enabled": None}, "LP001"),
    ({"p_name": ""}, "LP001"),
    ({"p_name": "Sweep"}, "LP001"),
    ({"p_name": "a" * 64}, "LP001"),
    ({"p_name": "sweep\nit"}, "LP001"),
    ({"p_step": "sweep"}, "LP001"),
    ({"p_step": "shed.sweep; drop table shed.things"}, "LP001"),
    ({"p_step": "a.b.c"}, "LP001"),
    ({"p_step": ""}, "LP001"),
    ({"p_step": "shed.nothing"}, "LP002"),
    ({"p_step": "shed.nothing", "p_enabled": False}, "LP002"),
    ({"p_step": "shed.two_arguments"}, "LP001"),
    ({"p_step": "shed.returns_void"}, "LP001"),
    ({"p_step": "shed.returns_many"}, "LP001"),
    ({"p_step": "shed.local_times"}, "LP001"),
    ({"p_step": "shed.a_procedure"}, "LP001"),
    ({"p_every": "0"}, "LP001"),
    ({"p_every": "-1 hour"}, "LP001"),
    ({"p_every": "9 s"}, "LP001"),
    ({"p_every": "10.5 s"}, "LP001"),
    ({"p_every": "367 days"}, "LP001"),
    ({"p_every": "1 month"}, "LP001"),
    ({"p_every": "1 year"}, "LP001"),
    ({"p_at_time": "03:00"}, "LP001"),
    ({"p_at_time": "03:00", "p_every": "36 hours"}, "LP001"),
    ({"p_time_zone": "Mars/Olympus"}, "LP001"),
    ({"p_time_zone": "+03:00"}, "LP001"),
    ({"p_batch_size": 0}, "LP001"),
    ({"p_batch_size": -1}, "LP001"),
    ({"p_batch_size": 100001}, "LP001"),
    ({"p_max_runtime": "0"}, "LP001"),
    ({"p_max_runtime": "-1 s"}, "LP001"),
    ({"p_max_runtime": "2 hours"}, "LP001"),
    ({"p_lock_timeout": "0"}, "LP001"),
    ({"p_lock_timeout": "2 min"}, "LP001"),
    ({"p_target": None}, "LP001"),
    ({"p_key_columns": None}, "LP001"),
    ({"p_key_columns": []}, "LP001"),
    ({"p_key_columns": [None]}, "LP001"),
    ({"p_due_column": None}, "LP001"),
    ({"p_target": None, "p_key_columns": None, "p_due_column": None}, "LP001"),
    (
        {
            "p_target": None,
            "p_key_columns": None,
            "p_due_column": None,
            "p_predicate": None,
            "p_older_than": "1 day",
        },
        "LP001",
    ),
    ({"p_predicate": "status = 'active') or (status = 'paused'"}, "LP001"),
    ({"p_predicate": "true, true"}, "LP001"),
    ({"p_target": "things"}, "LP002"),
    ({"p_target": "shed.nothing"}, "LP002"),
    ({"p_target": "shed.a_view"}, "LP002"),
    ({"p_key_columns": ["nothing"]}, "LP002"),
    ({"p_key_columns": ["ctid"]}, "LP002"),
    ({"p_due_column": "nothing"}, "LP002"),
    ({"p_due_column": "status"}, "LP001"),
    (LOCAL, "LP001"),
    (LOCAL | {"p_due_zone": "Mars/Olympus"}, "LP001"),
    (LOCAL | {"p_due_column": "day"}, "LP001"),
    (
        LOCAL | {"p_due_column": "day", "p_due_zone": "UTC"},
        "LP001",
    ),
    (LOCAL | {"p_due_column": "seconds"}, "LP001"),
    ({"p_due_zone": "UTC"}, "LP001"),
    ({"p_older_than": "0"}, "LP001"),
    ({"p_older_than": "-1 day"}, "LP001"),
    ({"p_older_than": "1 month -30 days"}, "LP001"),
    ({"p_older_than": "2 months -1 day"}, "LP001"),
    ({"p_older_than": "1001 years"}, "LP001"),
    ({"p_action": "archive"}, "LP001"),
    ({"p_predicate": "true) or coalesce(false"}, "LP001"),
    ({"p_predicate": "true] || array[false"}, "LP001"),
    ({"p_predicate": "true; select true"}, "LP001"),
    ({"p_predicate": "true\n) is true from t; drop table shed.calls; select (true"}, "LP001"),
    ({"p_predicate": "status = 'active' /* for ever"}, "LP001"),
    ({"p_predicate": "status = 'active"}, "LP001"),
    ({"p_predicate": "$1 is null"}, "LP001"),
    ({"p_predicate": "nothing = 1"}, "LP001"),
    ({"p_predicate": "status = "}, "LP001"),
    ({"p_predicate": "status"}, "LP001"),
]


@pytest.mark.parametrize(("changes", "sqlstate"), BAD, ids=str)
def test_a_policy_that_could_not_run_is_refused_with_a_hint_and_nothing_changes(shared, changes, sqlstate):
    before = everything(shared)

    with pytest.raises(psycopg.Error) as caught, shared.transaction():
        create(shared, **changes)

    assert caught.value.sqlstate == sqlstate
    assert caught.value.diag.message_hint
    assert everything(shared) == before == ([], [])


@pytest.mark.parametrize(
    ("changes", "sqlstate"),
    [(c, s) for c, s in BAD if "p_name" not in c and not any(v is None for v in c.values())],
    ids=str,
)
def test_a_change_that_could_not_run_is_refused_with_a_hint_and_nothing_changes(shared, changes, sqlstate):
    create(shared, **({"p_every": "1 day", "p_at_time": "01:00"} if "p_every" in changes else {}))
    before = everything(shared)
    changes = {"p_name": "sweep"} | changes
    if "p_every" in changes:
        changes.setdefault("p_at_time", "01:00")
    if changes.get("p_target") == "shed.local_due":
        changes["p_predicate"] = "true"
    named = ", ".join(f"{name} => %({name})s{TYPES.get(name, '')}" for name in changes)

    with pytest.raises(psycopg.Error) as caught, shared.transaction():
        shared.execute(f"select lapse.alter_policy({named})", changes)

    assert caught.value.sqlstate == sqlstate
    assert caught.value.diag.message_hint
    assert everything(shared) == before


def test_infinite_intervals_are_refused_where_the_server_has_them(conn):
    if conn.info.server_version < 170000:
        pytest.skip("this server has no infinite intervals")
    for changes in (
        {"p_every": "infinity"},
        {"p_max_runtime": "infinity"},
        {"p_lock_timeout": "-infinity"},
        {"p_older_than": "infinity"},
    ):
        with pytest.raises(psycopg.Error) as caught:
            create(conn, **changes)
        assert caught.value.sqlstate == "LP001"


def test_a_taken_name_is_refused(conn):
    create(conn)
    before = everything(conn)

    with pytest.raises(psycopg.Error) as caught:
        create(conn, p_every="1 hour")

    assert caught.value.sqlstate == "LP003"
    assert everything(conn) == before


def test_two_sessions_that_make_the_same_policy_get_one_and_a_clear_error(conn, dsn):
    with psycopg.connect(dsn) as first, psycopg.connect(dsn, autocommit=True) as second:
        create(first)
        second.execute("set lock_timeout = '5 s'")
        first.commit()

        with pytest.raises(psycopg.Error) as caught:
            create(second)

    assert caught.value.sqlstate == "LP003"


@pytest.mark.parametrize("function", ["alter_policy", "pause", "resume", "drop_policy"])
@pytest.mark.parametrize("name", ["nothing", "", None])
def test_an_unknown_policy_is_said_to_be_unknown(shared, function, name):
    with pytest.raises(psycopg.Error) as caught, shared.transaction():
        shared.execute(f"select lapse.{function}(%s)", [name])

    assert caught.value.sqlstate == "LP002"
    assert caught.value.diag.message_hint


def test_a_step_that_somebody_else_may_rewrite_is_refused_unless_it_runs_with_their_own_rights(conn):
    role = f"pglapse_test_{conn.info.backend_pid}"
    conn.execute(f"create role {role}")
    try:
        conn.execute(f"alter function shed.sweep owner to {role}")
        with pytest.raises(psycopg.Error) as caught:
            create(conn)
        assert caught.value.sqlstate == "LP010"

        conn.execute("alter function shed.sweep security definer")
        create(conn)

        conn.execute("alter function shed.sweep security invoker")
        error = shed.fails(conn, "call lapse.run('sweep')")
        assert error.sqlstate == "LP006"
        assert "LP010" in error.diag.message_detail
        assert shed.one(conn, "select count(*) from shed.calls") == 0
    finally:
        conn.execute(f"reassign owned by {role} to current_user; drop owned by {role}; drop role {role}")


def test_only_the_owner_of_the_engine_makes_policies(conn):
    role = f"pglapse_test_{conn.info.backend_pid}"
    conn.execute(f"create role {role}; grant usage on schema lapse, shed to {role}")
    conn.execute(f"grant execute on all functions in schema lapse, shed to {role}")
    try:
        conn.execute(f"set role {role}")
        error = shed.fails(conn, "select lapse.create_policy('sweep', 'shed.sweep', '5 min')")
        assert isinstance(error, psycopg.errors.InsufficientPrivilege)
    finally:
        conn.execute(f"reset role; drop owned by {role}; drop role {role}")


def test_altering_keeps_what_is_not_given(conn):
    create(conn)
    before = conn.execute("select * from lapse.policy").fetchone()

    conn.execute("select lapse.alter_policy('sweep')")

    after = conn.execute("select * from lapse.policy").fetchone()
    assert after[:-1] == before[:-1]
    assert after[-1] > before[-1]


def test_altering_changes_each_value_that_is_given(conn):
    create(conn)
    shed.step(conn, "other")

    conn.execute(
        "select lapse.alter_policy('sweep', 'shed.other', '2 days', 'described', '04:05', 'Europe/Berlin', 7,"
        "       '3 s', '40 ms', false, 'shed.things', '{due,id}', 'due', 'true')"
    )

    assert conn.execute(
        "select step, every, description, at_time, time_zone, batch_size, max_runtime, lock_timeout, enabled,"
        "       target_table, key_columns, due_column, predicate from lapse.policy"
    ).fetchone() == (
        "shed.other",
        timedelta(days=2),
        "described",
        time(4, 5),
        "Europe/Berlin",
        7,
        timedelta(seconds=3),
        timedelta(milliseconds=40),
        False,
        "shed.things",
        ["due", "id"],
        "due",
        "true",
    )


def test_a_cadence_below_a_day_drops_the_time_of_day(conn):
    create(conn, p_every="1 day", p_at_time="03:00")

    conn.execute("select lapse.alter_policy('sweep', p_every => '1 hour')")

    assert conn.execute("select every, at_time from lapse.policy").fetchone() == (timedelta(hours=1), None)


def test_a_new_policy_is_due_at_once_and_one_with_a_time_of_day_at_that_time(conn):
    now = datetime.now(UTC)
    create(conn)
    create(conn, p_name="nightly", p_every="7 days", p_at_time="03:00", p_time_zone="Asia/Tokyo")

    assert shed.state(conn, "next_run_at <= clock_timestamp()")
    nightly = shed.state(conn, "next_run_at", "nightly").astimezone(UTC)
    assert nightly.time() == time(18, 0)
    assert now < nightly <= now + timedelta(days=1)


def test_a_new_cadence_starts_a_new_grid_and_any_other_change_leaves_it(conn):
    create(conn)
    conn.execute(
        "update lapse.policy_state set next_run_at = now() + interval '3 min', slot_at = next_run_at"
    )
    before = shed.state(conn, "next_run_at")

    conn.execute("select lapse.alter_policy('sweep', p_batch_size => 5)")
    unchanged = shed.state(conn, "next_run_at")
    conn.execute("select lapse.alter_policy('sweep', p_every => '1 min')")

    assert unchanged == before
    assert shed.state(conn, "next_run_at <= clock_timestamp()")


def test_pausing_and_resuming_twice_is_fine(conn):
    create(conn)

    for function, enabled in [("pause", False), ("pause", False), ("resume", True), ("resume", True)]:
        conn.execute(f"select lapse.{function}('sweep')")
        assert shed.one(conn, "select enabled from lapse.policy") is enabled


@pytest.mark.parametrize("gone", ["table shed.things", "function shed.sweep"])
def test_a_policy_that_can_not_run_any_more_can_be_paused_and_dropped(conn, gone):
    create(conn)
    conn.execute(f"drop {gone} cascade")

    conn.execute("select lapse.pause('sweep')")
    assert shed.one(conn, "select enabled from lapse.policy") is False
    assert shed.fails(conn, "select lapse.resume('sweep')").sqlstate == "LP002"
    conn.execute("select lapse.drop_policy('sweep')")

    assert everything(conn) == ([], [])


def test_resuming_forgets_the_backoff(conn):
    create(conn)
    conn.execute("update lapse.policy_state set next_run_at = now() + interval '1 hour'")

    conn.execute("select lapse.resume('sweep')")

    assert shed.state(conn, "next_run_at <= clock_timestamp()")


def test_dropping_takes_state_and_blocked_rows_and_keeps_the_history(conn):
    create(conn)
    shed.add(conn, 1)
    shed.run(conn)
    conn.execute(
        "insert into lapse.blocked_row (policy, key, error, run_id, retry_at)"
        " values ('sweep', '1', 'x', 1, now())"
    )

    conn.execute("select lapse.drop_policy('sweep')")

    assert everything(conn) == ([], [])
    assert shed.one(conn, "select count(*) from lapse.blocked_row") == 0
    assert shed.log(conn) == [("sweep", "ok")]


def test_names_that_need_quotes_work_from_creation_to_run(conn):
    conn.execute(
        """
        create schema "Odd ""Schema";
        create table "Odd ""Schema"."The Table" ("The Key" text, "second" date, "Due At" timestamptz);
        insert into "Odd ""Schema"."The Table"
        values ('a"b,c', '2020-02-29', now() - interval '1 h'), ('later', '2020-01-01', 'infinity');
        create function "Odd ""Schema"."The Step"(integer, timestamptz, timestamptz)
            returns lapse.progress language sql as $$
            with gone as (
                delete from "Odd ""Schema"."The Table" where "Due At" between $3 and $2 returning "Due At"
            )
            select count(*)::integer, count(*)::integer, max("Due At") from gone
        $$;
        """
    )
    create(
        conn,
        p_step='"Odd ""Schema"."The Step"',
        p_target='"Odd ""Schema"."The Table"',
        p_key_columns=["The Key", "second"],
        p_due_column="Due At",
        p_predicate="\"The Key\" <> '' -- a comment",
    )

    keys = shed.column(conn, "select key from lapse.due_keys('sweep')")
    shed.run(conn)

    assert keys == [r'{"a\"b,c",2020-02-29}']
    assert shed.column(conn, 'select "The Key" from "Odd ""Schema"."The Table"') == ["later"]


def test_the_due_query_leaves_out_what_is_set_aside_and_what_is_not_due(conn):
    create(conn)
    first, second, third = shed.add(conn, 3)
    shed.add(conn, 1, ago="-1 hour")
    conn.execute("update shed.things set status = 'gone' where id = %s", [third])
    conn.execute(
        "insert into lapse.blocked_row (policy, key, error, run_id, retry_at)"
        " values ('sweep', %s, 'x', 1, 'infinity')",
        [str(first)],
    )

    assert shed.column(conn, "select key from lapse.due_keys('sweep')") == [str(second)]
    assert shed.fails(conn, "select lapse.due_keys('nothing')").sqlstate == "LP002"


def test_the_api_version_is_the_one_that_workers_expect(conn):
    assert shed.one(conn, "select lapse.api_version()") == 1
