"""Who keeps the schedule: pg_cron while it lives, one worker while it does not."""

from datetime import timedelta

import psycopg
import pytest


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


def one(conn: psycopg.Connection, function: str) -> bool:
    row = conn.execute(f"select lapse.{function}()").fetchone()
    assert row is not None
    return bool(row[0])


def test_one_session_ticks_at_a_time_and_a_release_hands_over(conn, dsn):
    with psycopg.connect(dsn, autocommit=True) as other:
        assert one(conn, "tick_acquire") is True
        assert one(other, "tick_acquire") is False

        assert one(conn, "tick_release") is True
        assert one(other, "tick_acquire") is True
        assert one(conn, "tick_acquire") is False


def test_acquiring_twice_needs_one_release(conn, dsn):
    assert one(conn, "tick_acquire") is True
    assert one(conn, "tick_acquire") is True

    assert one(conn, "tick_release") is True

    with psycopg.connect(dsn, autocommit=True) as other:
        assert one(other, "tick_acquire") is True
    assert one(conn, "tick_release") is False


def test_the_lock_of_one_database_is_not_that_of_another(conn, server):
    with psycopg.connect(server, autocommit=True) as elsewhere:
        elsewhere.execute("select pg_advisory_lock(1818324340, 0)")

        assert one(conn, "tick_acquire") is True


def test_a_session_that_dies_hands_over(conn, dsn):
    with psycopg.connect(dsn, autocommit=True) as other:
        assert one(other, "tick_acquire") is True

        conn.execute("select pg_terminate_backend(%s, 5000)", [other.info.backend_pid])

        assert one(conn, "tick_acquire") is True


def test_nobody_may_tick_by_default(conn):
    conn.execute("begin")
    conn.execute("create role sched_nobody")
    conn.execute("grant usage on schema lapse to sched_nobody")
    conn.execute("set local role sched_nobody")

    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        conn.execute("select lapse.tick_acquire()")
    conn.execute("rollback")
