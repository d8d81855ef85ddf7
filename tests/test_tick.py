"""Who keeps the schedule: pg_cron while it lives, one worker while it does not."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import psycopg
import pytest

from tests.support.queue import waits_for_a_lock


def wanted(conn: psycopg.Connection, mode: str | None) -> bool:
    row = conn.execute("select lapse.tick_wanted(%s)", [mode]).fetchone()
    assert row is not None
    return bool(row[0])


def tick(conn: psycopg.Connection, source: str, age: timedelta) -> None:
    conn.execute(
        """insert into lapse.tick_source (source, last_tick_at) values (%s, clock_timestamp() - %s)
           on conflict (source) do update set last_tick_at = excluded.last_tick_at""",
        [source, age],
    )


@pytest.mark.parametrize(
    ("age", "expected"),
    [
        (None, True),
        (timedelta(seconds=0), False),
        (timedelta(seconds=115), False),
        (timedelta(seconds=121), True),
        (timedelta(hours=-1), True),
    ],
    ids=["never", "just now", "115 s ago", "121 s ago", "an hour in the future"],
)
def test_auto_ticks_when_pg_cron_has_been_silent_for_two_minutes(conn, age, expected):
    if age is not None:
        tick(conn, "pg_cron", age)

    assert wanted(conn, "auto") is expected


def test_ticks_by_workers_and_by_hand_say_nothing_about_pg_cron(conn):
    tick(conn, "worker", timedelta(0))
    tick(conn, "manual", timedelta(0))

    assert wanted(conn, "auto") is True


def test_always_and_never_do_not_look(conn):
    tick(conn, "pg_cron", timedelta(0))
    assert wanted(conn, "always") is True

    tick(conn, "pg_cron", timedelta(hours=1))
    assert wanted(conn, "never") is False


@pytest.mark.parametrize("mode", ["sometimes", "", "AUTO", None])
def test_an_unknown_mode_is_refused_with_a_hint(conn, mode):
    with pytest.raises(psycopg.Error) as caught:
        wanted(conn, mode)

    assert caught.value.sqlstate == "LP001"
    assert "auto, always or never" in (caught.value.diag.message_hint or "")


def one(conn: psycopg.Connection, function: str, worker: str) -> bool:
    row = conn.execute(f"select lapse.{function}(%s)", [worker]).fetchone()
    assert row is not None
    return bool(row[0])


@pytest.fixture
def workers(conn: psycopg.Connection) -> None:
    """Two workers, a and b, that are at work."""
    for worker in ("a", "b"):
        conn.execute("select lapse.worker_hello(%s, 'host', 1, '0')", [worker])


def unseen(conn: psycopg.Connection, worker: str, seconds: float) -> None:
    conn.execute(
        "update lapse.worker set last_seen_at = clock_timestamp() - make_interval(secs => %s) where id = %s",
        [seconds, worker],
    )


def test_one_worker_ticks_at_a_time_and_a_release_hands_over(conn, workers):
    assert one(conn, "tick_acquire", "a") is True
    assert one(conn, "tick_acquire", "b") is False

    assert one(conn, "tick_release", "b") is False
    assert one(conn, "tick_release", "a") is True
    assert one(conn, "tick_acquire", "b") is True
    assert one(conn, "tick_acquire", "a") is False


def test_acquiring_twice_needs_one_release(conn, workers):
    assert one(conn, "tick_acquire", "a") is True
    assert one(conn, "tick_acquire", "a") is True

    assert one(conn, "tick_release", "a") is True

    assert one(conn, "tick_acquire", "b") is True
    assert one(conn, "tick_release", "a") is False


def test_the_turn_is_a_worker_s_whichever_session_it_comes_by(conn, dsn, workers):
    """Behind a pooler each call may come by another session, and several workers share one."""
    with psycopg.connect(dsn, autocommit=True) as other:
        assert one(conn, "tick_acquire", "a") is True
        assert one(other, "tick_acquire", "a") is True
        assert one(conn, "tick_acquire", "b") is False
        assert one(other, "tick_release", "a") is True


@pytest.mark.parametrize(("age", "expected"), [(55, False), (61, True), (-3600, True)])
def test_a_worker_that_fell_silent_hands_over(conn, workers, age, expected):
    assert one(conn, "tick_acquire", "a") is True

    unseen(conn, "a", age)

    assert one(conn, "tick_acquire", "b") is expected
    assert one(conn, "tick_acquire", "a") is not expected


def test_a_worker_that_says_goodbye_hands_over(conn, workers):
    assert one(conn, "tick_acquire", "a") is True

    conn.execute("select lapse.worker_bye('a')")

    assert one(conn, "tick_acquire", "b") is True


def test_who_is_not_at_work_gets_no_turn(conn, workers):
    unseen(conn, "a", 61)

    assert one(conn, "tick_acquire", "a") is False
    assert one(conn, "tick_acquire", "nobody") is False
    assert one(conn, "tick_acquire", "b") is True


def test_of_two_who_see_the_same_dead_worker_one_takes_over(conn, dsn, workers):
    conn.execute("select lapse.worker_hello('c', 'host', 1, '0')")
    assert one(conn, "tick_acquire", "a") is True
    unseen(conn, "a", 61)

    with psycopg.connect(dsn) as first, psycopg.connect(dsn, autocommit=True) as second:
        assert one(first, "tick_acquire", "b") is True
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(one, second, "tick_acquire", "c")
            waits_for_a_lock(conn, second.info.backend_pid)
            first.commit()
            assert answer.result(20) is False

    assert one(conn, "tick_acquire", "b") is True


@pytest.mark.parametrize("worker", ["", None])
def test_a_turn_without_a_name_is_refused(conn, worker):
    with pytest.raises(psycopg.Error) as caught:
        one(conn, "tick_acquire", worker)

    assert caught.value.sqlstate == "LP001"


def test_nobody_may_tick_by_default(conn):
    conn.execute("begin")
    conn.execute("create role sched_nobody")
    conn.execute("grant usage on schema lapse to sched_nobody")
    conn.execute("set local role sched_nobody")

    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        conn.execute("select lapse.tick_acquire('a')")
    conn.execute("rollback")
