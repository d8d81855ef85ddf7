"""lapse.policy_status: each policy at a glance, cheap, and never broken by one bad policy."""

from datetime import timedelta

import psycopg
import pytest

from tests.support import databases, shed


@pytest.fixture(scope="module")
def dsn(server, template):
    """One database for this module; every test builds its shed afresh."""
    with databases.database(server, template) as own:
        yield own


@pytest.fixture
def conn(conn):
    shed.build(conn)
    return conn


def status(conn, columns, name="sweep"):
    return conn.execute(f"select {columns} from lapse.policy_status where policy = %s", [name]).fetchone()


def test_it_tells_schedule_last_run_and_backlog(conn):
    shed.policy(conn, p_description="sweeps", every="90 s")
    shed.add(conn, 3)
    shed.run(conn)
    shed.add(conn, 37, ago="2 hours")
    shed.add(conn, 5, ago="-1 hour")

    assert status(
        conn,
        "description, enabled, schedule, last_status, last_error, rows_last_run, rows_last_day, backlog,"
        " backlog_rows, blocked_rows, consecutive_failures, running_since",
    ) == ("sweeps", True, "every 90 seconds", "ok", None, 3, 3, "37", 37, 0, 0, None)
    (age, last, following) = status(conn, "oldest_due_age, now() - last_run_at, next_run_at - now()")
    assert timedelta(hours=2) - timedelta(seconds=1) < age < timedelta(hours=2, minutes=1)
    assert timedelta() <= last < timedelta(minutes=1)
    assert timedelta() < following <= timedelta(seconds=90)


def test_the_backlog_is_counted_to_ten_thousand_and_then_at_least(conn):
    shed.policy(conn)
    shed.add(conn, 10_000)
    exact = status(conn, "backlog, backlog_rows")
    shed.add(conn, 1)

    assert exact == ("10000", 10_000)
    assert status(conn, "backlog, backlog_rows") == ("at least 10000", 10_000)


def test_rows_set_aside_are_counted_apart(conn):
    shed.policy(conn)
    ids = shed.add(conn, 2)
    conn.execute(
        "insert into lapse.blocked_row (policy, key, error, run_id, retry_at)"
        " values ('sweep', %s, 'x', 1, 'infinity')",
        [str(ids[0])],
    )

    assert status(conn, "backlog, blocked_rows") == ("1", 1)


def test_an_open_run_and_a_failed_one_show(conn):
    shed.policy(conn, target=False, extra="raise exception 'broken';")
    shed.fails(conn, "call lapse.run('sweep')")
    conn.execute("select lapse.begin_run('sweep', null, false)")

    assert status(
        conn, "last_status, last_error, consecutive_failures, running_since is not null, backlog"
    ) == (
        "failed",
        "P0001: broken",
        1,
        True,
        None,
    )


def test_a_policy_whose_table_is_gone_does_not_hide_the_others(conn):
    shed.policy(conn)
    conn.execute(
        """
        create table shed.doomed (id bigint primary key, due timestamptz);
        select lapse.create_policy('doomed', 'shed.sweep', '1 min', p_target => 'shed.doomed',
                                   p_key_columns => '{id}', p_due_column => 'due');
        drop table shed.doomed;
        """
    )

    assert status(conn, "backlog, backlog_rows, oldest_due_age", "doomed") == (None, None, None)
    assert status(conn, "backlog") == ("0",)


def test_a_table_that_is_being_altered_does_not_make_the_status_hang(conn, dsn):
    shed.policy(conn)
    with psycopg.connect(dsn) as other:
        other.execute("lock table shed.things in access exclusive mode")
        conn.execute("set statement_timeout = '10 s'")
        assert status(conn, "backlog, oldest_due_age") == (None, None)
    conn.execute("reset statement_timeout")

    assert status(conn, "backlog") == ("0",)


def test_a_row_due_since_ever_is_counted_and_has_no_age(conn):
    shed.policy(conn)
    conn.execute("insert into shed.things (due) values ('-infinity')")
    assert status(conn, "backlog, oldest_due_age") == ("1", None)

    shed.add(conn, 1, ago="1 day")
    assert status(conn, "backlog, oldest_due_age between '23 h' and '25 h'") == ("2", True)


@pytest.mark.parametrize("cap", [None, 0, -5, 2])
def test_a_backlog_can_be_counted_with_any_cap(conn, cap):
    shed.policy(conn)
    shed.add(conn, 3)

    rows, capped = conn.execute("select rows, capped from lapse.backlog('sweep', %s)", [cap]).fetchone()

    assert (rows, capped) == {None: (3, False), 2: (2, True)}.get(cap, (1, True))


def test_the_backlog_of_an_unknown_policy_is_not_known(conn):
    assert conn.execute("select * from lapse.backlog('nothing')").fetchall() == [(None, None, None)]


def test_an_observer_reads_it_without_any_right_on_a_table(conn):
    role = f"pglapse_test_{conn.info.backend_pid}"
    shed.policy(conn)
    shed.add(conn, 1)
    conn.execute(f"create role {role}; select lapse.grant_observer('{role}')")
    try:
        conn.execute(f"set role {role}")
        assert status(conn, "backlog, schedule") == ("1", "every 5 minutes")
        assert isinstance(shed.fails(conn, "select from lapse.policy"), psycopg.errors.InsufficientPrivilege)
    finally:
        conn.execute(f"reset role; drop owned by {role}; drop role {role}")


def test_counting_a_large_backlog_reads_no_more_than_it_counts(conn):
    shed.policy(conn)
    shed.add(conn, 60_000)
    conn.execute("vacuum analyze shed.things")

    plan = conn.execute(
        "explain (analyze, buffers, format json) select * from lapse.backlog('sweep', 1000)"
    ).fetchone()
    buffers = plan[0][0]["Plan"]["Shared Hit Blocks"] + plan[0][0]["Plan"]["Shared Read Blocks"]

    assert buffers < 400 + 1000
