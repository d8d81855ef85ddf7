"""lapse.why: for one row, why it is still there, without waiting for anybody."""

import json
from collections.abc import Iterator

import psycopg
import pytest

from tests.support import databases, pages, shed
from tests.support.install import ROOT
from tests.support.running import pglapse


@pytest.fixture(scope="module")
def dsn(server: str, template: str) -> Iterator[str]:
    """One database for this module; every test builds its shed afresh."""
    with databases.database(server, template) as own:
        yield own


@pytest.fixture
def conn(conn: psycopg.Connection) -> psycopg.Connection:
    shed.build(conn)
    conn.execute("truncate lapse.hold, lapse.file_cleanup_queue, lapse.file_cleanup_log")
    conn.execute("insert into lapse.tick_source (source, last_tick_at) values ('manual', now())")
    return conn


def why(conn: psycopg.Connection, key: object, target: str = "shed.things") -> list[tuple]:
    return conn.execute("select * from lapse.why(%s::regclass, %s)", [target, str(key)]).fetchall()


def only(conn: psycopg.Connection, key: object) -> tuple[str, str]:
    ((policy, state, says),) = why(conn, key)
    assert policy == "sweep"
    return state, says


def test_a_row_that_is_not_due_says_until_when(conn):
    shed.policy(conn)
    (row,) = shed.add(conn, 1, ago="-1 day")
    due = shed.one(conn, "select (due at time zone 'UTC')::text from shed.things")

    assert only(conn, row) == ("not due", f"not due until {due}+00")


def test_a_due_row_says_since_when_and_who_takes_it_when(conn):
    shed.policy(conn)
    (row,) = shed.add(conn, 1)
    at_once = only(conn, row)
    conn.execute("update lapse.policy_state set next_run_at = '2099-01-01 00:00:00+00'")
    later = only(conn, row)
    conn.execute("update lapse.policy_state set next_run_at = now()")
    conn.execute("update lapse.tick_source set last_tick_at = '2020-01-01 00:00:00+00'")
    never = only(conn, row)
    with conn.transaction(force_rollback=True):
        conn.execute("delete from lapse.tick_source")
        not_once = only(conn, row)
    conn.execute("select lapse.begin_run('sweep', null, false)")
    now = only(conn, row)

    assert at_once[0] == later[0] == never[0] == now[0] == "due"
    assert at_once[1].startswith("due since ")
    assert at_once[1].endswith("; will be taken by the next tick")
    assert later[1].endswith("; will be taken by the run at 2099-01-01 00:00:00+00")
    assert never[1].endswith(
        "; would be taken by the next tick, but nobody ticks: the last one was at 2020-01-01 00:00:00+00"
    )
    assert not_once[1].endswith("but nobody ticks: there has been none")
    assert "; a run is under way since " in now[1]


def test_a_row_that_lapses_by_age_says_when_it_is_old_enough(conn):
    conn.execute("create index on shed.things (due, id)")
    conn.execute("select lapse.create_expiry('sweep', 'shed.things', 'due', p_older_than => '2 days')")
    (row,) = shed.add(conn, 1)
    due = shed.one(conn, "select ((due + interval '2 days') at time zone 'UTC')::text from shed.things")
    young = only(conn, row)
    conn.execute("update shed.things set due = due - interval '2 days'")

    assert young == ("not due", f"not due until {due}+00")
    assert only(conn, row)[0] == "due"
    conn.execute("select lapse.hold('shed.things', %s, 'case 4711')", [str(row)])
    shed.run(conn)
    assert only(conn, row)[0] == "held"
    conn.execute("select lapse.release_hold('shed.things', %s)", [str(row)])
    shed.run(conn)
    assert why(conn, row)[0][1] == "no such row"


def test_a_row_in_another_state_says_which_and_which_it_should_be(conn):
    shed.policy(conn)
    (row,) = shed.add(conn, 1)
    conn.execute("update shed.things set status = 'done'")

    state, says = only(conn, row)

    assert state == "another state"
    assert (
        "takes rows where status = 'active' and kind = 'thing', and here kind is thing and status is done"
        in says
    )


def test_a_held_row_says_by_whom_and_why(conn):
    shed.policy(conn)
    (row,) = shed.add(conn, 1)
    conn.execute("select lapse.hold('shed.things', %s, 'case 4711')", [str(row)])

    state, says = only(conn, row)

    assert state == "held"
    assert f"by {conn.info.user}: case 4711" in says


def test_a_row_that_a_held_one_hangs_on_by_now_says_so(conn):
    """Before any batch has found it out; of a step written by hand nobody knows whether it deletes."""
    (row,) = shed.add(conn, 1)
    shed.policy(conn)
    conn.execute(
        "create table shed.parts (id int primary key, thing bigint references shed.things on delete cascade);"
        "insert into shed.parts values (7, null)"
    )
    conn.execute(
        "select lapse.create_expiry('declared', 'shed.things', 'due', p_index => 'build');"
        "select lapse.hold('shed.parts', '7', 'case 4711')"
    )
    conn.execute("update shed.parts set thing = %s", [row])

    found = {policy: (state, says) for policy, state, says in why(conn, row)}
    alone = why(conn, 7, "shed.parts")

    assert found["declared"][0] == "held"
    assert found["sweep"][0] == "due"
    for _, says in found.values():
        assert "row 7 of shed.parts would go along with it: case 4711" in says
    assert alone[0][1] == "no policy"
    assert "held since" in alone[0][2]


def test_a_row_set_aside_says_why_and_until_when(conn):
    shed.policy(conn)
    (row,) = shed.add(conn, 1)
    conn.execute("create table shed.refers (id bigint references shed.things)")
    conn.execute("insert into shed.refers values (%s)", [row])
    shed.run(conn)

    state, says = only(conn, row)

    assert state == "set aside"
    assert "after 1 tries: " in says
    assert "refers_id_fkey" in says


@pytest.mark.parametrize("lock", ["for update", "for key share"])
def test_a_locked_row_says_by_whom_and_nobody_is_waited_for(conn, dsn, lock):
    shed.policy(conn)
    row, other = shed.add(conn, 2)
    with psycopg.connect(dsn, application_name="shop") as locker, psycopg.connect(dsn) as second:
        locker.execute(f"select from shed.things where id = %s {lock}", [row])
        if lock == "for key share":
            second.execute(f"select from shed.things where id = %s {lock}", [row])  # a group of two
        pid = locker.info.backend_pid

        state, says = only(conn, row)

        assert state == "locked"
        assert f"locked by pid {pid} (shop), in its transaction for 00:00:0" in says
        assert lock in says
        assert only(conn, other)[0] == "due"
    assert only(conn, row)[0] == "due"


def test_a_table_that_is_locked_as_a_whole_is_not_waited_for(conn, dsn):
    shed.policy(conn)
    (row,) = shed.add(conn, 1)
    with psycopg.connect(dsn) as locker:
        locker.execute("lock table shed.things")
        conn.execute("set statement_timeout = '10 s'")

        ((_, state, says),) = why(conn, row)

        assert state == "locked"
        assert f"by pid {locker.info.backend_pid}" in says


def test_what_keeps_the_whole_policy_is_said_too(conn):
    shed.policy(conn)
    (row,) = shed.add(conn, 1)
    conn.execute("select lapse.pause('sweep')")
    paused = only(conn, row)
    conn.execute(
        "update lapse.policy_state set consecutive_failures = 3, last_error = 'P0001: broken',"
        " braked_at = now(), braked_rows = 30, braked_of = 40"
    )
    state, says = only(conn, row)

    assert paused == ("paused", paused[1])
    assert "select lapse.resume('sweep')" in paused[1]
    assert state == "braked"
    assert "30 of 40 rows due: select lapse.release_brake('sweep')" in says
    assert "is paused" in says
    assert "failed 3 times in a row, the last time with: P0001: broken" in says


def test_a_failing_policy_says_so_and_when_it_is_tried_again(conn):
    shed.policy(conn, target=True, extra="raise exception 'broken';")
    (row,) = shed.add(conn, 1)
    shed.fails(conn, "call lapse.run('sweep')")

    state, says = only(conn, row)

    assert state == "failing"
    assert "broken" in says
    assert "will be taken by the run at" in says


def test_a_copy_of_the_database_says_so(conn):
    shed.policy(conn)
    (row,) = shed.add(conn, 1)
    conn.execute("select lapse.disown_database()")
    try:
        state, says = only(conn, row)
    finally:
        conn.execute("select lapse.adopt_database()")

    assert state == "not adopted"
    assert "select lapse.adopt_database();" in says


def test_a_row_that_row_level_security_hides_is_not_said_to_be_gone(conn):
    shed.policy(conn)
    (row,) = shed.add(conn, 1)
    role = f"pglapse_test_{conn.info.backend_pid}"
    conn.execute("alter table shed.things enable row level security")
    conn.execute(f"create role {role}; grant usage on schema lapse, shed to {role}")
    conn.execute(f"grant execute on all functions in schema lapse to {role}")
    conn.execute(f"grant all on all tables in schema shed, lapse to {role}")
    try:
        conn.execute(f"set role {role}")
        ((_, state, says),) = why(conn, row)
    finally:
        conn.execute(f"reset role; drop owned by {role}; drop role {role}")

    assert state == "hidden"
    assert "row-level security" in says


def test_a_row_that_is_gone_says_so_and_what_became_of_its_files(conn):
    shed.policy(conn)
    (row,) = shed.add(conn, 1)
    conn.execute("select lapse.hold('shed.things', %s, 'case 4711')", [str(row)])
    conn.execute("delete from shed.things")
    for path in ("a", "b"):
        conn.execute(
            "select lapse.enqueue_file('s', %s, '2099-01-01 00:00+00', p_source_table => 'shed.things',"
            " p_source_id => %s)",
            [path, str(row)],
        )
    conn.execute("select lapse.cancel_file('s', 'b')")

    gone, queued, logged = why(conn, row)

    assert gone[:2] == (None, "no such row")
    assert f"table shed.things has no row {row}; it is still held, since" in gone[2]
    assert queued[:2] == (None, "files queued")
    assert "1 queued, 0 of them dead, the first one due at 2099-01-01 00:00:00+00: s:a" in queued[2]
    assert logged[:2] == (None, "files gone")
    assert "1 on record, the last one cancelled at" in logged[2]


def test_each_policy_on_the_table_has_its_line(conn):
    shed.policy(conn)
    shed.policy(conn, "other", kind="other")
    (row,) = shed.add(conn, 1)

    assert [(policy, state) for policy, state, _ in why(conn, row)] == [
        ("other", "another state"),
        ("sweep", "due"),
    ]


def test_a_table_without_a_policy_or_a_key_says_so(conn):
    conn.execute("create table shed.keyless (a int)")
    (row,) = shed.add(conn, 1)

    assert [state for _, state, _ in why(conn, row)] == ["no policy"]
    error = shed.fails(conn, "select lapse.why('shed.keyless', '1')")
    assert (error.sqlstate, bool(error.diag.message_hint)) == ("LP016", True)
    assert shed.fails(conn, "select lapse.why(null, '1')").sqlstate == "LP001"


def test_a_predicate_that_is_broken_by_now_hides_no_other_policy(conn):
    shed.policy(conn)
    shed.policy(conn, "other")
    (row,) = shed.add(conn, 1)
    conn.execute("update lapse.policy set predicate = 'gone = 1' where name = 'other'")

    (other, sweep) = why(conn, row)

    assert other[:2] == ("other", "unknown")
    assert sweep[:2] == ("sweep", "due")


def test_it_writes_nothing(conn):
    shed.policy(conn)
    (row,) = shed.add(conn, 1)

    with conn.transaction():
        conn.execute("set transaction read only")
        assert only(conn, row)[0] == "due"


def test_the_page_on_guards_does_what_it_says(server, template):
    with databases.database(server, template) as own:
        with psycopg.connect(own) as made:
            made.execute(
                "insert into market.users (display_name, email) values ('ann', 'a@example.org');"
                "insert into market.tasks (id, poster_id, title) overriding system value"
                " select 17, id, 't' from market.users"
            )

        assert pages.run(ROOT / "docs" / "guards.md", own) >= 6


def test_from_the_command_line(conn, dsn):
    shed.policy(conn)
    (row,) = shed.add(conn, 1)

    shown = pglapse(dsn, "why", "shed.things", str(row))
    [line] = json.loads(pglapse(dsn, "why", "shed.things", str(row), "--json").stdout)
    unknown = pglapse(dsn, "why", "shed.nothing", "1")

    assert shown.stdout.startswith("sweep: due - due since ")
    assert (line["policy"], line["state"]) == ("sweep", "due")
    assert unknown.returncode == 2
    assert "there is no table shed.nothing" in unknown.stderr
