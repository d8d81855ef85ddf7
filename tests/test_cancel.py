"""lapse.cancel_file(s): what comes back to life is saved, if no worker has it yet."""

import time
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from tests.support.queue import (
    end_leases,
    enqueue,
    exchange,
    hand_in,
    outcomes,
    result,
    row,
    waits_for_a_lock,
)


def cancel(conn: psycopg.Connection, path: str = "a") -> bool:
    return conn.execute("select lapse.cancel_file('s', %s)", [path]).fetchone()[0]


@pytest.fixture
def warned(conn):
    """The warnings that the connection has received."""
    heard = []
    conn.add_notice_handler(lambda notice: heard.append(notice.message_primary))
    return heard


def test_a_pending_row_is_taken_out_and_logged(conn, warned):
    enqueue(conn, "a", "b")

    assert cancel(conn)
    assert exchange(conn).paths == ["b"]
    assert outcomes(conn) == [("a", "cancelled")]
    assert warned == []


def test_a_file_that_is_not_queued_is_safe(conn):
    enqueue(conn, "a", storage="other")

    assert cancel(conn)
    assert row(conn, "a")


def test_a_rolled_back_cancel_leaves_the_row(conn):
    enqueue(conn, "a")

    with conn.transaction(force_rollback=True):
        assert cancel(conn)

    assert exchange(conn).paths == ["a"]


@pytest.mark.parametrize("outcome", ["refused", "failed"])
def test_dead_and_failed_rows_are_taken_out_too(conn, outcome):
    enqueue(conn, "a")
    hand_in(conn, result(exchange(conn).claimed[0], outcome))

    assert cancel(conn)
    assert row(conn, "a") == {}


def test_a_held_row_is_reported_with_a_warning(conn, warned):
    enqueue(conn, "a", "b", "c")
    doomed = exchange(conn, limit=2).paths

    held = conn.execute("select * from lapse.cancel_files('{s,s,s,s}', '{a,b,c,d}')").fetchall()

    assert sorted(held) == sorted(("s", path) for path in doomed)
    assert len(warned) == 1
    assert "2 of the files" in warned[0]
    assert len(outcomes(conn)) == 1


@pytest.mark.parametrize("outcome", ["failed", "refused", "released"])
def test_a_held_row_that_was_cancelled_is_not_tried_again(conn, outcome):
    enqueue(conn, "a")
    claim = exchange(conn).claimed[0]
    assert not cancel(conn)

    hand_in(conn, result(claim, outcome))

    assert row(conn, "a") == {}
    assert outcomes(conn) == [("a", "cancelled")]


def test_a_held_row_that_was_cancelled_too_late_is_logged_as_deleted(conn):
    enqueue(conn, "a")
    claim = exchange(conn).claimed[0]
    cancel(conn)

    hand_in(conn, result(claim))

    assert outcomes(conn) == [("a", "deleted")]


def test_a_cancelled_row_whose_worker_never_came_back_is_taken_out_at_the_next_claim(conn):
    enqueue(conn, "a", "b")
    exchange(conn)
    cancel(conn)
    end_leases(conn)

    assert exchange(conn, worker="w2").paths == ["b"]
    assert outcomes(conn) == [("a", "cancelled")]


def test_a_lease_that_is_over_is_no_lease(conn):
    enqueue(conn, "a")
    claim = exchange(conn).claimed[0]
    end_leases(conn)

    assert cancel(conn)
    assert [late.id for late in hand_in(conn, result(claim)).stale] == [claim.id]


def test_a_cancel_takes_back_a_request_to_do_it_again(conn):
    enqueue(conn, "a")
    claim = exchange(conn).claimed[0]
    enqueue(conn, "a")
    cancel(conn)

    hand_in(conn, result(claim))

    assert row(conn, "a") == {}


@pytest.mark.parametrize("outcome", ["deleted", "failed", "never reported"])
def test_a_request_after_a_cancel_counts_whatever_the_worker_does(conn, outcome):
    enqueue(conn, "a")
    claim = exchange(conn).claimed[0]
    cancel(conn)
    enqueue(conn, "a", at="now() + interval '3 days'")

    if outcome == "never reported":
        end_leases(conn)
    else:
        hand_in(conn, result(claim, outcome))

    # The cancelled request must not be tried again three days early.
    assert exchange(conn, worker="w2").paths == []
    assert row(conn, "a")["due_in"].days == 2
    assert row(conn, "a")["attempts"] == 0


def test_arrays_of_different_length_are_refused(conn):
    for arrays in ("'{s}', '{}'", "'{s}', '{a,b}'", "null, '{a}'"):
        with pytest.raises(psycopg.Error) as caught:
            conn.execute(f"select lapse.cancel_files({arrays})")
        assert caught.value.sqlstate == "LP001"


def test_no_files_is_no_work(conn):
    for arrays in ("null, null", "'{}', '{}'"):
        assert conn.execute(f"select lapse.cancel_files({arrays})").fetchall() == []


def test_a_file_without_a_path_is_refused(conn):
    with pytest.raises(psycopg.Error) as caught:
        conn.execute("select lapse.cancel_file('s', null)")

    assert caught.value.sqlstate == "LP001"


def test_a_row_that_another_transaction_has_locked_is_reported_after_a_moment(conn, dsn):
    enqueue(conn, "a", "b")

    with psycopg.connect(dsn) as other:
        enqueue(other, "a")
        began = time.monotonic()
        held = conn.execute("select path from lapse.cancel_files('{s,s}', '{a,b}')").fetchall()
        took = time.monotonic() - began

    assert held == [("a",)]
    assert took < 1
    assert row(conn, "b") == {}


def test_a_row_that_comes_free_in_time_is_taken_out(conn, dsn):
    enqueue(conn, "a")

    with psycopg.connect(dsn, autocommit=True) as other, ThreadPoolExecutor() as pool:
        # The function's own lock_timeout, made so long that nothing depends on speed.
        conn.execute("alter function lapse.cancel_files(text[], text[]) set lock_timeout = '20s'")
        with conn.transaction():
            enqueue(conn, "a")
            cancelling = pool.submit(cancel, other)
            waits_for_a_lock(conn, other.info.backend_pid)
        assert cancelling.result(timeout=20)

    assert row(conn, "a") == {}


def test_of_a_claim_and_a_cancel_at_once_only_one_wins(conn, dsn):
    paths = [str(n) for n in range(400)]
    enqueue(conn, *paths)

    def cancel_all() -> set[str]:
        with psycopg.connect(dsn, autocommit=True) as own:
            return {path for path in paths if cancel(own, path)}

    def claim_all() -> set[str]:
        with psycopg.connect(dsn, autocommit=True) as own:
            return {path for _ in range(100) for path in exchange(own, limit=4).paths}

    with ThreadPoolExecutor() as pool:
        running = pool.submit(cancel_all), pool.submit(claim_all)
        saved, doomed = (side.result(timeout=60) for side in running)

    doomed |= set(exchange(conn).paths)
    assert saved & doomed == set()
    assert saved | doomed == set(paths)
