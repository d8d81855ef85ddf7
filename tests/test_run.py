"""lapse.run: batches, busy and lost runs, pauses, time limits, rights and paths."""

import threading
import time
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from tests.support import databases, shed
from tests.support.poll import until

AT_THE_THIRD_BATCH = f"if (select count(*) from shed.things) < 20 then {shed.GATE} end if;"


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


def in_background(dsn, command="call lapse.run('sweep')", *, settings=""):
    """Run a command on a connection of its own; join the thread to have its error, or None, in ``.error``."""

    class Call(threading.Thread):
        error: psycopg.Error | None = None

        def run(self):
            try:
                with psycopg.connect(dsn, autocommit=True, options=settings) as connection:
                    connection.execute(command)
            except psycopg.Error as error:
                self.error = error

    call = Call(daemon=True)
    call.start()
    return call


def waiting_for_locks(conn):
    return shed.one(
        conn,
        "select count(*) from pg_stat_activity"
        " where wait_event_type = 'Lock' and datname = current_database()",
    )


def test_what_is_due_goes_and_everything_else_stays(conn):
    shed.policy(conn)
    shed.add(conn, 2500)
    later = shed.add(conn, 3, ago="-1 hour")
    other_kind = shed.add(conn, 3, kind="other")

    shed.run(conn)

    assert shed.left(conn) == later
    assert shed.left(conn, "other") == other_kind
    assert shed.log(conn, "status, picked, handled, blocked, more, source") == [
        ("ok", 2500, 2500, 0, False, "manual")
    ]
    assert shed.run_locks(conn) == 0


def test_a_call_by_hand_says_what_it_did(conn):
    shed.policy(conn, p_batch_size=10)
    shed.add(conn, 25)
    said = []
    conn.add_notice_handler(lambda notice: said.append(notice.message_primary))

    shed.run(conn)
    shed.run(conn)

    assert said == ["sweep: 25 row(s) changed in 3 batch(es)", "sweep: nothing was due"]


def test_a_row_due_at_the_very_cutoff_is_taken_and_one_a_microsecond_later_is_not(conn):
    shed.policy(conn)
    cutoff = datetime(2020, 1, 1, tzinfo=UTC)
    conn.execute(
        "insert into shed.things (due)"
        " select %s::timestamptz + n * interval '1 microsecond' from generate_series(0, 1) n",
        [cutoff],
    )

    conn.execute("call lapse.run('sweep', %s)", [cutoff])

    assert shed.column(conn, "select due from shed.things") == [cutoff + timedelta(microseconds=1)]


def test_each_batch_is_committed_by_itself(conn, dsn, other):
    shed.policy(conn, extra=AT_THE_THIRD_BATCH, p_batch_size=10)
    shed.add(conn, 30)

    with shed.gate_closed(dsn):
        call = in_background(dsn)
        until(lambda: shed.waiting_pid(other))
        seen = len(shed.left(other))
    call.join()

    assert seen == 20
    assert shed.left(conn) == []


def test_an_empty_run_leaves_no_entry_in_the_history(conn):
    shed.policy(conn)

    shed.run(conn)

    assert shed.log(conn) == []
    assert shed.state(conn, "last_status") == "ok"
    assert shed.state(conn, "run_id is null and last_rows = 0 and next_run_at > clock_timestamp()")


def test_batches_grow_while_they_are_quick_and_never_beyond_the_policy(conn):
    shed.policy(conn, p_batch_size=64)
    conn.execute("update lapse.policy_state set batch_limit = 1")
    shed.add(conn, 400)

    shed.run(conn)

    limits = shed.column(conn, "select limit_was from shed.calls order by id")
    assert limits[:8] == [1, 2, 4, 8, 16, 32, 64, 64]
    assert max(limits) == 64


def test_batches_shrink_when_they_are_slow_and_the_size_is_kept_for_the_next_run(conn):
    shed.policy(conn, extra="perform pg_sleep(0.41);", p_batch_size=8)
    shed.add(conn, 12)

    shed.run(conn)

    assert shed.column(conn, "select limit_was from shed.calls order by id") == [8, 4, 2]
    assert shed.state(conn, "batch_limit") == 1


def test_a_second_run_is_skipped_at_once_noticed_and_entered(conn, dsn, other):
    shed.policy(conn, extra=shed.GATE)
    shed.add(conn, 5)
    notices = []
    conn.add_notice_handler(lambda notice: notices.append(notice.message_primary))

    with shed.gate_closed(dsn):
        call = in_background(dsn)
        until(lambda: shed.waiting_pid(other))
        shed.log(conn)
        began = time.monotonic()
        shed.run(conn)
        took = time.monotonic() - began
    call.join()

    assert took < 0.05
    assert ["sweep" in notice for notice in notices] == [True]
    assert shed.log(conn) == [("sweep", "skipped"), ("sweep", "ok")]
    assert call.error is None


def test_a_run_between_two_batches_is_busy_too(conn, other):
    shed.policy(conn)
    assert shed.one(other, "select lapse.begin_run('sweep', null, false)")

    shed.run(conn)

    assert shed.log(conn) == [("sweep", "skipped")]


def test_two_runs_at_once_take_each_row_once(conn, dsn):
    shed.policy(conn, p_batch_size=7)
    conn.execute("create table shed.gone (id bigint)")
    conn.execute(
        """
        create function shed.note() returns trigger language plpgsql as
            'begin insert into shed.gone values (old.id); return old; end';
        create trigger note before delete on shed.things for each row execute function shed.note();
        """
    )
    ids = shed.add(conn, 700)

    calls = [in_background(dsn) for _ in range(4)]
    for call in calls:
        call.join()

    assert [call.error for call in calls] == [None] * 4
    assert sorted(shed.column(conn, "select id from shed.gone")) == ids
    assert shed.run_locks(conn) == 0


def test_a_run_whose_session_was_terminated_is_recorded_lost_and_its_work_done_by_the_next(conn, dsn, other):
    shed.policy(conn, extra=AT_THE_THIRD_BATCH, p_batch_size=10)
    shed.add(conn, 30)

    with shed.gate_closed(dsn):
        call = in_background(dsn)
        pid = until(lambda: shed.waiting_pid(other))
        conn.execute("select pg_terminate_backend(%s)", [pid])
        call.join()
        until(lambda: shed.run_locks(conn) == 0)
    shed.run(conn)

    assert shed.left(conn) == []
    assert shed.log(conn, "status, handled, more") == [("lost", 10, True), ("ok", 20, False)]
    assert shed.state(conn, "consecutive_failures") == 0


def test_each_lost_run_halves_the_batch_in_case_it_was_too_much_for_the_server(conn, dsn, other):
    shed.policy(conn, extra=shed.GATE, p_batch_size=16)
    shed.add(conn, 5)

    for _ in range(2):
        with shed.gate_closed(dsn):
            call = in_background(dsn)
            conn.execute("select pg_terminate_backend(%s)", [until(lambda: shed.waiting_pid(other))])
            call.join()
            until(lambda: shed.run_locks(conn) == 0)
    shed.run(conn)

    assert shed.log(conn) == [("sweep", "lost"), ("sweep", "lost"), ("sweep", "ok")]
    assert shed.column(conn, "select limit_was from shed.calls order by id")[0] == 4


def test_a_run_left_behind_by_a_cancelled_call_of_a_living_session_is_not_in_the_way(conn, other):
    shed.policy(conn)
    shed.add(conn, 3)
    run = shed.one(other, "select lapse.begin_run('sweep', null, false)")
    conn.execute("update lapse.policy_state set last_served_at = last_served_at - interval '11 s'")

    shed.run(conn)
    again = other.execute("select again, failed, stop from lapse.run_batch(%s)", [run]).fetchone()

    assert shed.log(conn) == [("sweep", "stopped"), ("sweep", "ok")]
    assert again == (False, None, False)
    assert shed.run_locks(conn) == 0


def test_the_next_call_of_the_same_session_tidies_up_after_a_cut_off_one(conn):
    shed.policy(conn)
    conn.execute("select lapse.begin_run('sweep', null, false)")

    shed.run(conn)

    assert shed.log(conn) == [("sweep", "lost")]
    assert shed.run_locks(conn) == 0


def test_a_run_that_was_replaced_touches_nothing_any_more(conn, other):
    shed.policy(conn)
    shed.add(conn, 3)
    run = shed.one(conn, "select lapse.begin_run('sweep', null, false)")
    conn.execute("update lapse.policy_state set run_id = run_id + 1")

    assert conn.execute("select again, failed, stop from lapse.run_batch(%s)", [run]).fetchone() == (
        False,
        None,
        False,
    )
    assert len(shed.left(conn)) == 3


def test_another_session_can_not_give_batches_to_a_run_of_ours(conn, other):
    shed.policy(conn)
    shed.add(conn, 3)
    run = shed.one(conn, "select lapse.begin_run('sweep', null, false)")

    other.execute("select lapse.run_batch(%s)", [run])

    assert len(shed.left(conn)) == 3


@pytest.mark.parametrize("command", ["lapse.pause('sweep')", "lapse.drop_policy('sweep')"])
def test_a_policy_that_is_paused_or_dropped_stops_within_one_batch(conn, dsn, other, command):
    shed.policy(conn, extra=shed.GATE, p_batch_size=10)
    shed.add(conn, 50)

    with shed.gate_closed(dsn):
        call = in_background(dsn)
        until(lambda: shed.waiting_pid(other))
        change = in_background(dsn, f"select {command}")
        if "pause" in command:
            change.join()
        else:
            until(lambda: waiting_for_locks(other) > 1)
    call.join()
    change.join()

    assert len(shed.left(conn)) == 40
    assert shed.log(conn, "status, handled, more") == [("stopped", 10, True)]
    assert (call.error, change.error) == (None, None)
    assert shed.run_locks(conn) == 0


def test_a_paused_policy_is_not_run_and_the_error_says_how_to_resume(conn):
    shed.policy(conn, p_enabled=False)
    shed.add(conn, 1)

    error = shed.fails(conn, "call lapse.run('sweep')")

    assert error.sqlstate == "LP005"
    assert "lapse.resume('sweep')" in error.diag.message_hint
    assert len(shed.left(conn)) == 1
    assert shed.run_locks(conn) == 0


def test_a_change_takes_effect_with_the_next_batch_of_a_run_under_way(conn, dsn, other):
    shed.policy(conn, extra=shed.GATE, p_batch_size=10)
    shed.step(conn, "other", extra="")
    shed.add(conn, 50)

    with shed.gate_closed(dsn):
        call = in_background(dsn)
        until(lambda: shed.waiting_pid(other))
        conn.execute("select lapse.alter_policy('sweep', p_step => 'shed.other', p_batch_size => 3)")
    call.join()

    calls = conn.execute("select policy, limit_was from shed.calls order by id").fetchall()
    assert calls[0] == ("sweep", 10)
    assert set(calls[1:]) == {("other", 3)}
    assert shed.left(conn) == []


@pytest.mark.parametrize(
    "lock", ["select from lapse.policy_state for update", "select lapse.drop_policy('sweep')"]
)
def test_an_operators_open_transaction_delays_a_run_and_does_not_lose_it(conn, dsn, lock):
    shed.policy(conn)
    shed.add(conn, 3)
    run = shed.one(conn, "select lapse.begin_run('sweep', null, false)")

    with psycopg.connect(dsn) as operator:
        operator.execute(lock)
        meanwhile = shed.one(conn, "select again from lapse.run_batch(%s)", run)
        untouched = len(shed.left(conn))
        operator.rollback()
    afterwards = shed.one(conn, "select again from lapse.run_batch(%s)", run)

    assert (meanwhile, untouched, afterwards) == (True, 3, False)
    assert shed.left(conn) == []
    assert shed.log(conn) == [("sweep", "ok")]


@pytest.mark.parametrize("name", ["nothing", "", None])
def test_an_unknown_policy_is_said_to_be_unknown(conn, name):
    error = shed.fails(conn, "call lapse.run(%s)", name)

    assert error.sqlstate == "LP002"
    assert error.diag.message_hint


@pytest.mark.parametrize("cutoff", ["infinity", "-infinity"])
def test_a_cutoff_that_is_no_time_is_refused(conn, cutoff):
    shed.policy(conn)
    shed.add(conn, 1)

    assert shed.fails(conn, "call lapse.run('sweep', %s::timestamptz, true)", cutoff).sqlstate == "LP001"
    assert len(shed.left(conn)) == 1


@pytest.mark.parametrize("allowed", [False, None])
def test_a_cutoff_in_the_future_is_refused_unless_it_is_meant(conn, allowed):
    shed.policy(conn)
    shed.add(conn, 1, ago="-1 hour")

    error = shed.fails(conn, "call lapse.run('sweep', now() + interval '1 day', %s::boolean)", allowed)
    assert (error.sqlstate, len(shed.left(conn))) == ("LP001", 1)

    conn.execute("call lapse.run('sweep', now() + interval '1 day', p_allow_future => true)")
    assert shed.left(conn) == []


@pytest.mark.parametrize("cutoff", ["now() - interval '3 days'", "now() + interval '3 days'"])
def test_a_run_with_a_cutoff_of_its_own_leaves_the_schedule_alone(conn, cutoff):
    shed.policy(conn)
    shed.add(conn, 2, ago="4 days")
    before = conn.execute(
        "select slot_at, next_run_at, consecutive_failures from lapse.policy_state"
    ).fetchone()

    conn.execute(f"call lapse.run('sweep', {cutoff}, true)")

    assert shed.left(conn) == []
    assert (
        conn.execute("select slot_at, next_run_at, consecutive_failures from lapse.policy_state").fetchone()
        == before
    )


def test_a_call_inside_a_transaction_is_refused_before_anything_is_done(conn):
    shed.policy(conn)
    shed.add(conn, 1)

    with conn.transaction(force_rollback=True), pytest.raises(psycopg.errors.InvalidTransactionTermination):
        conn.execute("call lapse.run('sweep')")

    assert len(shed.left(conn)) == 1
    assert shed.state(conn, "run_id is null")
    assert shed.run_locks(conn) == 0


def test_time_runs_out_with_work_left_and_that_is_said(conn):
    shed.policy(conn, extra="perform pg_sleep(0.12);", p_batch_size=1, p_max_runtime="1 s")
    shed.add(conn, 50)

    shed.run(conn)

    handled = 50 - len(shed.left(conn))
    assert 1 < handled < 12
    assert shed.log(conn, "status, handled, more") == [("ok", handled, True)]
    assert shed.state(conn, "next_run_at <= clock_timestamp()")


def test_a_run_ends_by_itself_before_statement_timeout_strikes(conn):
    shed.policy(conn, extra="perform pg_sleep(0.12);", p_batch_size=1)
    shed.add(conn, 100)

    conn.execute("set statement_timeout = '3 s'")
    shed.run(conn)
    conn.execute("reset statement_timeout")

    assert shed.log(conn, "status, more") == [("ok", True)]
    assert 0 < len(shed.left(conn)) < 100


def test_a_step_that_outlives_statement_timeout_is_recorded_and_the_error_comes_out(conn):
    shed.policy(conn, extra="perform pg_sleep(30);", p_batch_size=8)
    shed.add(conn, 20)

    conn.execute("set statement_timeout = '300 ms'")
    error = shed.fails(conn, "call lapse.run('sweep')")
    conn.execute("reset statement_timeout")

    assert error.sqlstate == "LP006"
    assert "57014" in error.diag.message_detail
    assert shed.log(conn, "status, sqlstate, handled") == [("failed", "57014", 0)]
    assert shed.state(conn, "batch_limit") == 4
    assert shed.one(conn, "select count(*) from lapse.blocked_row") == 0
    assert shed.run_locks(conn) == 0


def test_a_backlog_too_big_for_its_time_limit_shrinks_with_every_run(conn):
    # Ten rows a second: a batch of 100 can't make it, and it must not fail for ever.
    shed.policy(conn, extra="perform pg_sleep(0.02 * v_progress.handled);", p_batch_size=64)
    shed.add(conn, 100)

    conn.execute("set statement_timeout = '500 ms'")
    for _ in range(6):
        try:
            shed.run(conn)
        except psycopg.Error as error:
            # Recorded, or, where the time is up between two batches, the timeout itself.
            assert error.sqlstate in {"LP006", "57014"}  # noqa: PT017
    conn.execute("reset statement_timeout")

    assert len(shed.left(conn)) < 100


def test_waiting_for_a_lock_ends_the_turn_and_sets_nothing_aside(conn, dsn):
    conn.execute("create table shed.parts (thing bigint references shed.things on delete cascade)")
    shed.policy(conn, p_lock_timeout="50 ms")
    (thing,) = shed.add(conn, 1)
    conn.execute("insert into shed.parts values (%s)", [thing])

    with psycopg.connect(dsn) as holder:
        holder.execute("select from shed.parts for update")
        error = shed.fails(conn, "call lapse.run('sweep')")
    shed.run(conn)

    assert "55P03" in error.diag.message_detail
    assert shed.log(conn, "status, sqlstate, blocked") == [("failed", "55P03", 0), ("ok", None, 0)]
    assert shed.left(conn) == []


def test_a_row_locked_elsewhere_is_left_for_the_next_run(conn, dsn):
    shed.policy(conn)
    ids = shed.add(conn, 3)

    with psycopg.connect(dsn) as holder:
        holder.execute("select from shed.things where id = %s for update", [ids[1]])
        shed.run(conn)

    assert shed.left(conn) == [ids[1]]
    assert shed.log(conn, "status, handled") == [("ok", 2)]


def test_a_database_that_is_serializable_by_default_is_served_without_serialization_failures(
    conn, dsn, other
):
    shed.policy(
        conn,
        extra=shed.GATE
        + "insert into shed.calls (policy) values (current_setting('transaction_isolation'));",
        p_batch_size=2,
    )
    shed.add(conn, 6)

    with shed.gate_closed(dsn):
        call = in_background(dsn, settings="-c default_transaction_isolation=serializable")
        until(lambda: shed.waiting_pid(other))
        other.execute("update lapse.policy set description = 'changed meanwhile'")
    call.join()

    assert call.error is None
    assert shed.left(conn) == []
    assert set(shed.column(conn, "select policy from shed.calls where rows is null")) == {"read committed"}


@pytest.mark.parametrize(
    "answer",
    [
        "'(,0,)'",
        "'(1,,)'",
        "'(1,1,)'",
        "'(-1,-1,)'",
        "'(1,2,2020-01-01)'",
        "'(2000,0,2020-01-01)'",
        "'(1,1,2999-01-01)'",
        "null",
    ],
)
def test_a_step_that_answers_nonsense_fails_and_what_it_did_is_undone(conn, answer):
    shed.policy(conn, extra=f"v_progress := {answer}::lapse.progress;")
    shed.add(conn, 1)

    error = shed.fails(conn, "call lapse.run('sweep')")

    assert "LP004" in error.diag.message_detail
    assert len(shed.left(conn)) == 1
    assert shed.log(conn, "status, sqlstate, handled") == [("failed", "LP004", 0)]


def test_the_error_of_a_failed_run_is_kept_in_full_and_raised_at_the_end(conn):
    shed.policy(
        conn,
        target=False,
        extra="raise exception using errcode = 'P1234', message = 'm', detail = 'd', hint = 'h';",
    )

    error = shed.fails(conn, "call lapse.run('sweep')")

    assert error.sqlstate == "LP006"
    assert "sweep" in error.diag.message_primary
    assert "P1234" in error.diag.message_detail
    assert shed.log(conn, "status, sqlstate, message, detail, hint") == [("failed", "P1234", "m", "d", "h")]
    assert "shed.sweep" in shed.one(conn, "select context from lapse.run_log")
    assert shed.state(conn, "last_error") == "P1234: m"
    assert shed.run_locks(conn) == 0


def test_failures_back_off_from_15_seconds_to_an_hour_and_a_success_forgets_them(conn):
    shed.policy(conn, target=False, extra="assert false, 'not yet';")
    waits = []

    for _ in range(10):
        shed.fails(conn, "call lapse.run('sweep')")
        waits.append(shed.state(conn, "next_run_at - last_run_at").total_seconds())
    shed.step(conn, "sweep")
    shed.run(conn)

    assert waits == [15, 30, 60, 120, 240, 480, 960, 1920, 3600, 3600]
    assert shed.state(conn, "consecutive_failures") == 0
    assert shed.state(conn, "next_run_at = slot_at")


def test_slots_missed_run_once_and_the_grid_is_kept(conn):
    shed.policy(conn, every="10 min")
    conn.execute("update lapse.policy_state set slot_at = now() - interval '55 min'")
    slot = shed.state(conn, "slot_at")

    shed.run(conn)

    assert shed.state(conn, "next_run_at") == slot + timedelta(minutes=60)


def test_a_role_that_may_run_needs_no_right_on_any_table_and_gets_none(conn, dsn):
    role = f"pglapse_test_{conn.info.backend_pid}"
    conn.execute(f"create role {role} login; select lapse.grant_runner('{role}')")
    shed.policy(conn)
    shed.add(conn, 3)
    try:
        conn.execute(f"set role {role}")
        shed.run(conn)
        conn.execute("call lapse.run_due()")
        denied = shed.fails(conn, "select from lapse.policy_state")
        conn.execute("reset role")

        assert shed.left(conn) == []
        assert isinstance(denied, psycopg.errors.InsufficientPrivilege)
        assert (
            shed.column(
                conn,
                "select c.oid::regclass::text from pg_class as c"
                " where c.relnamespace in ('lapse'::regnamespace, 'shed'::regnamespace)"
                "   and c.relkind in ('r', 'v', 'S')"
                "   and case c.relkind when 'S' then has_sequence_privilege(%s, c.oid, 'usage')"
                "       else has_table_privilege(%s, c.oid, 'select, insert, update, delete') end",
                role,
                role,
            )
            == []
        )
    finally:
        conn.execute(f"reset role; drop owned by {role}; drop role {role}")


PLANTED = """
create schema planted;
create table planted.ran (what text);
create function planted.trap(bigint, bigint) returns boolean language plpgsql as
    'begin insert into planted.ran values (''bigint =''); return true; end';
create function planted.trap(text, text) returns boolean language plpgsql as
    'begin insert into planted.ran values (''text =''); return true; end';
create function planted.trap(timestamptz, timestamptz) returns boolean language plpgsql as
    'begin insert into planted.ran values (''timestamptz <=''); return true; end';
create operator planted.= (function = planted.trap, leftarg = bigint, rightarg = bigint);
create operator planted.= (function = planted.trap, leftarg = text, rightarg = text);
create operator planted.<= (function = planted.trap, leftarg = timestamptz, rightarg = timestamptz);
create operator planted.>= (function = planted.trap, leftarg = timestamptz, rightarg = timestamptz);
create function planted.set_config(text, text, boolean) returns text language plpgsql as
    'begin insert into planted.ran values (''set_config''); return ''''; end';
create function planted.clock_timestamp() returns timestamptz language plpgsql as
    'begin insert into planted.ran values (''clock_timestamp''); return now(); end';
create function planted.array_append(bigint[], bigint) returns bigint[] language plpgsql as
    'begin insert into planted.ran values (''array_append''); return $1; end';
create function planted.pg_sleep(double precision) returns void language plpgsql as
    'begin insert into planted.ran values (''pg_sleep''); end';
"""


def test_what_somebody_planted_on_the_callers_path_does_not_run(conn):
    conn.execute(PLANTED)
    shed.policy(conn, p_batch_size=5)
    shed.policy(conn, "broken", target=False, kind="other", extra="raise exception 'always';")
    conn.execute(
        """
        create function shed.unpinned(p_limit integer, p_cutoff timestamptz, p_after timestamptz)
            returns lapse.progress language plpgsql
        as $$
        begin
            return (select row(count(*), count(*), max(c))::lapse.progress
                      from (select clock_timestamp() as c where p_cutoff <= p_after) as q);
        end
        $$;
        select lapse.create_policy('unpinned', 'shed.unpinned', '1 min');
        """
    )
    shed.add(conn, 20)

    conn.execute("set search_path = planted, pg_catalog")
    shed.run(conn)
    failed = shed.fails(conn, "call lapse.run_due()")
    conn.execute("set search_path = ''")

    assert failed.sqlstate == "LP006"
    assert shed.left(conn) == []
    assert shed.column(conn, "select what from planted.ran") == []


def test_each_transaction_of_a_run_has_the_pinned_path_and_the_callers_is_back_afterwards(conn):
    shed.policy(
        conn,
        extra="insert into shed.calls (policy) values (current_setting('search_path'));",
        p_batch_size=2,
    )
    conn.execute("alter function shed.sweep reset search_path; set search_path = public")
    shed.add(conn, 6)

    shed.run(conn)

    assert set(shed.column(conn, "select policy from shed.calls where rows is null")) == {
        "pg_catalog, pg_temp"
    }
    assert shed.one(conn, "show search_path") == "public"


def test_row_level_security_that_hides_rows_is_a_loud_failure(conn):
    role = f"pglapse_test_{conn.info.backend_pid}"
    shed.policy(conn)
    shed.add(conn, 3)
    conn.execute(
        f"""
        create role {role};
        grant usage on schema shed, lapse to {role};
        grant all on all tables in schema shed to {role};
        grant select on lapse.blocked_row to {role};
        alter function shed.sweep owner to {role};
        alter function shed.sweep security definer;
        alter table shed.things enable row level security;
        create policy hidden on shed.things using (false);
        """
    )
    try:
        error = shed.fails(conn, "call lapse.run('sweep')")

        assert error.sqlstate == "LP006"
        assert "row-level security" in error.diag.message_detail
        assert shed.log(conn, "status, sqlstate, blocked") == [("failed", "42501", 0)]
        assert shed.one(conn, "select count(*) from lapse.blocked_row") == 0
    finally:
        conn.execute(f"reassign owned by {role} to current_user; drop owned by {role}; drop role {role}")


def test_under_a_held_snapshot_a_run_does_not_read_its_own_dead_rows_again_and_again(conn, dsn):
    shed.policy(conn, p_batch_size=200)
    # In random order, so that each dead index entry costs a block of its own.
    conn.execute(
        "insert into shed.things (due)"
        " select now() - interval '1 day' + n * interval '1 ms'"
        "   from generate_series(1, 12000) n order by random()"
    )
    conn.execute("vacuum analyze shed.things")

    with psycopg.connect(dsn) as reader:
        reader.execute("set transaction isolation level repeatable read")
        reader.execute("select count(*) from shed.things")
        before = blocks(conn)
        shed.run(conn)
        read = blocks(conn) - before

    assert shed.left(conn) == []
    # Sixty batches, a few blocks a row. From the index's dead head each batch would meet all rows before it,
    # 360,000 more in all.
    assert read < 250_000


def blocks(conn) -> int:
    conn.execute("select pg_stat_force_next_flush()")
    return shed.one(
        conn,
        "select heap_blks_hit + heap_blks_read + idx_blks_hit + idx_blks_read"
        "  from pg_statio_all_tables where relid = 'shed.things'::regclass",
    )


def test_updates_of_the_state_are_hot(conn):
    shed.policy(conn)
    conn.execute("select pg_stat_force_next_flush()")
    for _ in range(150):
        shed.run(conn)

    conn.execute("select pg_stat_force_next_flush()")
    updates, hot = conn.execute(
        "select n_tup_upd, n_tup_hot_upd from pg_stat_all_tables where relid = 'lapse.policy_state'::regclass"
    ).fetchone()
    assert updates >= 450
    assert hot >= updates * 0.95
