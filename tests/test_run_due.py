"""lapse.run_due: what is due, in fair turns, each policy's failure its own."""

import threading
import time
from contextlib import suppress

import psycopg
import pytest

from tests.support import databases, shed
from tests.support.poll import until


@pytest.fixture(scope="module")
def dsn(server, template):
    """One database for this module; every test builds its shed afresh."""
    with databases.database(server, template) as own:
        yield own


@pytest.fixture
def conn(conn):
    shed.build(conn)
    return conn


@pytest.fixture
def other(dsn):
    with psycopg.connect(dsn, autocommit=True) as connection:
        yield connection


def in_background(dsn, command="call lapse.run_due()"):
    def call():
        with suppress(psycopg.Error), psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute(command)

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    return thread


def test_only_what_is_due_and_enabled_runs(conn):
    for name in ("due", "later", "paused"):
        shed.policy(conn, name, kind=name)
        shed.add(conn, 3, kind=name)
    conn.execute("update lapse.policy_state set next_run_at = now() + '1 min' where policy = 'later'")
    conn.execute("select lapse.pause('paused')")

    conn.execute("call lapse.run_due()")

    assert [len(shed.left(conn, kind)) for kind in ("due", "later", "paused")] == [0, 3, 3]
    assert shed.log(conn, "policy, status, source") == [("due", "ok", "manual")]
    assert shed.run_locks(conn) == 0


def test_a_policy_with_a_large_backlog_does_not_starve_a_small_one(conn):
    shed.policy(conn, "big", kind="big", p_batch_size=10)
    shed.add(conn, 600, kind="big")
    shed.policy(conn, "small", kind="small", p_batch_size=10)
    shed.add(conn, 25, kind="small")

    conn.execute("call lapse.run_due()")

    turns = shed.column(conn, "select policy from shed.calls order by id")
    assert turns[:6] == ["big", "small"] * 3
    assert shed.left(conn, "big") == shed.left(conn, "small") == []


def test_a_policy_that_comes_due_meanwhile_gets_its_turn(conn, dsn, other):
    shed.policy(conn, "big", kind="big", p_batch_size=10, extra=shed.GATE)
    shed.add(conn, 100, kind="big")
    shed.policy(conn, "small", kind="small")
    conn.execute("update lapse.policy_state set next_run_at = 'infinity' where policy = 'small'")
    shed.add(conn, 3, kind="small")

    with shed.gate_closed(dsn):
        call = in_background(dsn)
        until(lambda: shed.waiting_pid(other))
        conn.execute("update lapse.policy_state set next_run_at = now() where policy = 'small'")
    call.join()

    assert shed.column(conn, "select policy from shed.calls order by id")[:2] == ["big", "small"]


def test_a_failing_policy_stops_no_other_and_all_failures_come_out_at_the_end(conn):
    for name in ("first", "second"):
        shed.policy(conn, name, kind=name, target=False, extra=f"raise exception 'no {name}';")
    shed.policy(conn, "zealous", kind="zealous")
    shed.add(conn, 5, kind="zealous")

    error = shed.fails(conn, "call lapse.run_due('pg_cron')")

    assert error.sqlstate == "LP006"
    assert "first, second" in error.diag.message_primary
    assert "no first" in error.diag.message_detail
    assert "no second" in error.diag.message_detail
    assert shed.left(conn, "zealous") == []
    assert sorted(shed.log(conn, "policy, status, source")) == [
        ("first", "failed", "pg_cron"),
        ("second", "failed", "pg_cron"),
        ("zealous", "ok", "pg_cron"),
    ]
    assert shed.state(conn, "next_run_at - last_run_at", "first").total_seconds() == 15
    conn.execute("call lapse.run_due()")  # both back off: nothing is due, nothing fails
    assert shed.run_locks(conn) == 0


def test_two_ticks_at_once_share_the_policies_and_take_each_row_once(conn, dsn):
    names = [f"p{n}" for n in range(6)]
    conn.execute("create table shed.gone (id bigint)")
    conn.execute(
        """
        create function shed.note() returns trigger language plpgsql as
            'begin insert into shed.gone values (old.id); return old; end';
        create trigger note before delete on shed.things for each row execute function shed.note();
        """
    )
    ids = []
    for name in names:
        shed.policy(conn, name, kind=name, p_batch_size=5)
        ids += shed.add(conn, 60, kind=name)

    calls = [in_background(dsn, "call lapse.run_due('manual', false, '5 min')") for _ in range(3)]
    for call in calls:
        call.join()

    assert sorted(shed.column(conn, "select id from shed.gone")) == sorted(ids)
    assert set(shed.log(conn, "status, handled")) == {("ok", 60)}
    assert shed.run_locks(conn) == 0


def test_a_busy_policy_is_passed_over_silently(conn, dsn, other):
    shed.policy(conn, "slow", kind="slow", extra=shed.GATE)
    shed.policy(conn, "quick", kind="quick")
    shed.add(conn, 1, kind="slow")
    shed.add(conn, 1, kind="quick")

    with shed.gate_closed(dsn):
        call = in_background(dsn, "call lapse.run('slow')")
        until(lambda: shed.waiting_pid(other))
        conn.execute("call lapse.run_due()")
        assert shed.left(conn, "quick") == []
        assert shed.log(conn) == [("quick", "ok")]
    call.join()


def test_looking_for_work_locks_nothing_that_another_tick_serves(conn, other):
    shed.policy(conn, p_batch_size=2)
    shed.add(conn, 10)
    run = shed.one(conn, "select run_id from lapse.next_due('manual', 'infinity', false)")

    with other.transaction():
        assert shed.one(other, "select run_id from lapse.next_due('manual', 'infinity', false)") is None
        conn.execute("select lapse.run_batch(%s)", [run])

    assert len(shed.left(conn)) == 8


def test_what_a_held_up_tick_has_open_is_taken_over_by_another_as_it_stands(conn, dsn, other):
    shed.policy(conn, "open", kind="open", p_batch_size=10)
    shed.add(conn, 30, kind="open")
    shed.policy(conn, "stuck", kind="stuck", extra=shed.GATE)
    shed.add(conn, 1, kind="stuck")

    with shed.gate_closed(dsn):
        call = in_background(dsn)
        until(lambda: shed.waiting_pid(other))
        assert len(shed.left(conn, "open")) == 20
        conn.execute("call lapse.run_due()")
        untouched = len(shed.left(conn, "open"))
        conn.execute(
            "update lapse.policy_state set last_served_at = last_served_at - interval '11 s'"
            " where policy = 'open'"
        )
        conn.execute("call lapse.run_due()")
        assert shed.left(conn, "open") == []
    call.join()

    assert untouched == 20
    assert sorted(shed.log(conn, "policy, status, handled")) == [("open", "ok", 30), ("stuck", "ok", 1)]
    assert shed.run_locks(conn) == 0


def test_a_run_with_a_cutoff_of_its_own_is_taken_over_by_nobody(conn, other):
    shed.policy(conn)
    later = shed.add(conn, 3, ago="-1 day")
    due = shed.add(conn, 2)
    other.execute("select lapse.begin_run('sweep', now() + interval '2 days', true)")
    conn.execute("update lapse.policy_state set last_served_at = last_served_at - interval '11 s'")

    conn.execute("call lapse.run_due()")

    assert shed.left(conn) == later
    assert shed.log(conn, "source, status, handled") == [("manual", "stopped", 0), ("manual", "ok", len(due))]


def test_a_batch_that_took_long_does_not_make_its_run_look_held_up(conn):
    shed.policy(conn, extra="create table shed.ended as select clock_timestamp() as at;")
    shed.add(conn, 1)
    shed.run(conn)

    assert shed.state(conn, "last_served_at >= (select at from shed.ended)")


def test_a_lost_run_is_done_over_at_once_and_a_second_one_in_a_row_backs_off(conn, dsn, other):
    shed.policy(conn, extra=shed.GATE)
    shed.add(conn, 1)

    for _ in range(2):
        with shed.gate_closed(dsn):
            call = in_background(dsn)
            conn.execute("select pg_terminate_backend(%s)", [until(lambda: shed.waiting_pid(other))])
            call.join()
            until(lambda: shed.run_locks(conn) == 0)
    conn.execute("call lapse.run_due()")

    assert shed.log(conn) == [("sweep", "lost"), ("sweep", "lost")]
    assert len(shed.left(conn)) == 1
    assert shed.state(conn, "consecutive_failures") == 2
    assert shed.state(conn, "next_run_at - last_run_at").total_seconds() == 30


def test_the_time_allowed_ends_the_call_and_what_is_left_is_due_again_at_once(conn):
    shed.policy(conn, extra="perform pg_sleep(0.12);", p_batch_size=1)
    shed.add(conn, 60)

    began = time.monotonic()
    conn.execute("call lapse.run_due('manual', false, '1 s')")

    assert time.monotonic() - began < 10
    assert 0 < len(shed.left(conn)) < 60
    assert shed.log(conn, "status, more") == [("ok", True)]
    assert shed.state(conn, "next_run_at <= clock_timestamp() and run_id is null")
    assert shed.run_locks(conn) == 0


def test_a_statement_timeout_stops_the_whole_call_and_is_recorded_once(conn):
    shed.policy(conn, "slow", kind="slow", extra="perform pg_sleep(30);")
    shed.add(conn, 2, kind="slow")
    shed.policy(conn, "next", kind="next")
    conn.execute("update lapse.policy_state set last_served_at = now() where policy = 'next'")
    shed.add(conn, 2, kind="next")

    conn.execute("set statement_timeout = '2500 ms'")
    error = shed.fails(conn, "call lapse.run_due()")
    conn.execute("reset statement_timeout")

    assert "57014" in error.diag.message_detail
    assert shed.log(conn, "policy, status, sqlstate") == [("slow", "failed", "57014")]
    assert len(shed.left(conn, "next")) == 2
    assert shed.run_locks(conn) == 0


@pytest.mark.parametrize("limit", ["400 ms", "2 s"])
def test_a_short_statement_timeout_leaves_time_for_work(conn, limit):
    shed.policy(conn)
    shed.add(conn, 5)

    conn.execute(f"set statement_timeout = '{limit}'")
    conn.execute("call lapse.run_due()")
    conn.execute("reset statement_timeout")

    assert shed.left(conn) == []


def test_a_call_that_stays_leaves_before_statement_timeout_strikes(conn):
    shed.policy(conn)
    shed.run(conn)

    conn.execute("set statement_timeout = '1 s'")
    conn.execute("call lapse.run_due('pg_cron', true)")
    conn.execute("reset statement_timeout")

    assert shed.one(conn, "select count(*) from lapse.tick_source") == 1


def test_a_cancelled_call_begins_no_further_batch(conn, dsn, other):
    shed.policy(conn, "slow", kind="slow", extra=shed.GATE)
    shed.policy(conn, "next", kind="next")
    conn.execute("update lapse.policy_state set last_served_at = now() where policy = 'next'")
    shed.add(conn, 2, kind="next")

    with shed.gate_closed(dsn):
        call = in_background(dsn)
        other.execute("select pg_cancel_backend(%s)", [until(lambda: shed.waiting_pid(other))])
        call.join()

    assert shed.log(conn, "policy, status, sqlstate") == [("slow", "failed", "57014")]
    assert len(shed.left(conn, "next")) == 2
    assert shed.run_locks(conn) == 0


def test_each_call_notes_who_ticks(conn):
    for source in ("pg_cron", "worker", "worker", "manual"):
        conn.execute("call lapse.run_due(%s)", [source])

    assert conn.execute("select source, ticks from lapse.tick_source order by 1").fetchall() == [
        ("manual", 1),
        ("pg_cron", 1),
        ("worker", 2),
    ]


@pytest.mark.parametrize(
    "arguments",
    [
        "'somebody'",
        "null",
        "''",
        "'manual', false, '0'",
        "'manual', false, null",
        "'manual', false, '-1 s'",
        "'manual', false, '1 day'",
    ],
)
def test_a_wrong_argument_is_refused_with_a_hint(conn, arguments):
    error = shed.fails(conn, f"call lapse.run_due({arguments})")

    assert error.sqlstate == "LP001"
    assert error.diag.message_hint
    assert shed.one(conn, "select count(*) from lapse.tick_source") == 0


def test_a_call_inside_a_transaction_is_refused(conn):
    with conn.transaction(force_rollback=True), pytest.raises(psycopg.errors.InvalidTransactionTermination):
        conn.execute("call lapse.run_due()")


def test_a_call_that_stays_serves_what_comes_due_meanwhile_and_holds_no_snapshot_for_long(conn, dsn, other):
    shed.policy(conn)
    conn.execute("update lapse.policy_state set next_run_at = now() + interval '1 h'")
    shed.add(conn, 1)
    if shed.one(conn, "select extract(second from clock_timestamp()) > 45"):
        until(lambda: shed.one(conn, "select extract(second from clock_timestamp()) < 45"))
    call = in_background(dsn, "call lapse.run_due('pg_cron', true)")
    until(lambda: shed.one(other, "select count(*) from lapse.tick_source"))

    shed.make_due(conn)
    until(lambda: shed.left(conn) == [])
    began = shed.one(
        other,
        "select max(clock_timestamp() - xact_start) from pg_stat_activity"
        " where query = 'call lapse.run_due(''pg_cron'', true)'",
    )

    assert call.is_alive()
    assert began.total_seconds() < 3
    conn.execute(
        "select pg_terminate_backend(pid) from pg_stat_activity"
        " where query = 'call lapse.run_due(''pg_cron'', true)' and datname = current_database()"
    )
    call.join()


def test_a_session_may_stay_also_where_the_engines_owner_does_not_see_what_it_is(conn):
    role = f"pglapse_test_{conn.info.backend_pid}"
    conn.execute(f"create role {role}")
    owner = shed.one(conn, "select proowner::regrole::text from pg_proc where proname = 'may_stay'")
    try:
        conn.execute(f"alter function lapse.may_stay owner to {role}")
        stays = [shed.one(conn, "select lapse.may_stay(%s)", wants) for wants in (True, False, None)]
    finally:
        conn.execute(f"alter function lapse.may_stay owner to {owner}; drop role {role}")

    assert stays == [True, False, False]


@pytest.mark.parametrize(
    ("began", "stays_until"), [("2026-01-01 10:00:00.2", 54.5), ("2026-01-01 10:00:59", 62)]
)
def test_staying_ends_in_time_for_the_next_minute(conn, began, stays_until):
    # The rule of lapse.begin_tick, on times of our own.
    source = shed.one(conn, "select prosrc from pg_proc where proname = 'begin_tick'")
    assert "greatest(date_trunc('minute', v_began) + interval '54.5 s', v_began + interval '3 s')" in source
    seconds = shed.one(
        conn,
        "select extract(epoch from greatest(date_trunc('minute', b) + interval '54.5 s', b + interval '3 s')"
        "       - timestamptz '2026-01-01 10:00') from (select %s::timestamptz as b) as q",
        began,
    )
    assert float(seconds) == stays_until


def test_entries_of_the_history_and_workers_are_pruned_when_their_time_has_come(conn):
    for step in ("prune_run_log", "prune_workers"):
        conn.execute("select lapse.create_policy(%s, %s, '1 day')", [step, f"lapse.{step}"])
    conn.execute(
        "insert into lapse.run_log (policy, source, status, started_at, finished_at)"
        " select 'x', 'manual', 'ok', now() - t, now() - t"
        "   from unnest(array[interval '30 days 1 min', interval '30 days -1 min']) t"
    )
    conn.execute(
        "insert into lapse.worker (id, host, pid, version, last_seen_at)"
        " values ('dead', '', 1, '', now() - interval '25 h'), ('alive', '', 1, '', now() - interval '23 h')"
    )

    conn.execute("call lapse.run_due()")

    assert shed.one(conn, "select count(*) from lapse.run_log where policy = 'x'") == 1
    assert shed.column(conn, "select id from lapse.worker") == ["alive"]
    assert sorted(shed.log(conn, "policy, status, handled")) == [
        ("prune_run_log", "ok", 1),
        ("prune_workers", "ok", 1),
        ("x", "ok", 0),
    ]


def test_the_engine_looks_after_its_own_tables(server, template):
    with databases.database(server, template) as own, psycopg.connect(own) as fresh:
        policies = fresh.execute("select name from lapse.policy where step like 'lapse.%'").fetchall()

    assert {name for (name,) in policies} >= {"prune_run_log", "prune_file_log", "prune_workers"}
