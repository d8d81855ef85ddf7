"""lapse.enqueue_file(s) and plain INSERTs: what a request does to the queue, and what it never does."""

import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from tests.support.queue import (
    end_leases,
    enqueue,
    exchange,
    hand_in,
    listening,
    nudges,
    result,
    row,
    waits_for_a_lock,
)

LATER = "now() + interval '1 day'"


def test_a_request_is_queued_as_it_was_made(conn):
    (number,) = conn.execute(
        "select lapse.enqueue_file('public', 'a/b.png', now() + interval '3 days', 'task done', 'app.f', '7')"
    ).fetchone()

    queued = row(conn, "a/b.png")
    assert (queued["id"], queued["storage"], queued["reason"]) == (number, "public", "task done")
    assert (queued["source_table"], queued["source_id"], queued["attempts"]) == ("app.f", "7", 0)
    assert queued["due_in"].days == 2


def test_a_request_without_a_time_is_due_now(conn):
    conn.execute("select lapse.enqueue_file('s', 'a', null)")
    conn.execute(
        "select lapse.enqueue_files(array[row('s', 'b', null, null, null, null, null)::lapse.file_request])"
    )

    assert exchange(conn).paths == ["a", "b"]


def test_a_rolled_back_request_leaves_nothing(conn):
    with conn.transaction(force_rollback=True):
        enqueue(conn, "a")

    assert exchange(conn).paths == []


def test_a_waiting_row_keeps_the_earlier_time(conn):
    enqueue(conn, "a", at=LATER)
    enqueue(conn, "a", at="now() + interval '2 days'")
    assert row(conn, "a")["due_in"].days == 0

    enqueue(conn, "a")
    assert row(conn, "a")["is_due"]
    assert row(conn, "a")["generation"] == 3


def test_the_request_that_comes_due_first_says_why(conn):
    conn.execute("select lapse.enqueue_file('s', 'a', now() + interval '2 days', 'slow', 'app.t', '1')")
    conn.execute("select lapse.enqueue_file('s', 'a', now() + interval '3 days', 'slower', 'app.t', '2')")
    assert (row(conn, "a")["reason"], row(conn, "a")["source_id"]) == ("slow", "1")

    conn.execute("select lapse.enqueue_file('s', 'a', now(), 'fast', 'app.t', '3')")
    assert (row(conn, "a")["reason"], row(conn, "a")["source_id"]) == ("fast", "3")


def test_a_path_twice_in_one_statement_is_one_row_with_the_earlier_time(conn):
    (count,) = conn.execute(
        "select lapse.enqueue_files(array[row('s', 'a', 'infinity', 'x', null, null, null),"
        "  row('s', 'a', now(), 'y', null, null, null), row('s', 'b', null, null, null, null, null)"
        "]::lapse.file_request[])"
    ).fetchone()

    assert count == 2
    assert row(conn, "a")["reason"] == "y"
    assert row(conn, "b")["reason"] == "requested"


def test_the_same_path_in_two_storages_is_two_files(conn):
    enqueue(conn, "a", storage="public")
    enqueue(conn, "a", storage="private")

    assert exchange(conn).paths == ["a", "a"]


def test_a_dead_row_is_revived_with_its_attempts_forgotten(conn):
    enqueue(conn, "a")
    hand_in(conn, result(exchange(conn).claimed[0], "refused", error="leads out of the root"))
    assert row(conn, "a")["dead_at"]

    conn.execute("select lapse.enqueue_file('s', 'a', now() + interval '1 day', 'anew')")

    revived = row(conn, "a")
    assert revived["dead_at"] is None
    assert (revived["attempts"], revived["last_error"], revived["reason"]) == (0, None, "anew")
    assert not revived["is_due"]


def test_a_row_that_backs_off_keeps_its_backoff(conn):
    enqueue(conn, "a")
    hand_in(conn, result(exchange(conn).claimed[0], "failed", error="busy"))
    before = row(conn, "a")

    enqueue(conn, "a")

    after = row(conn, "a")
    assert after["not_before"] == before["not_before"]
    assert (after["attempts"], after["last_error"]) == (1, "busy")


def test_a_request_for_a_held_row_is_done_after_the_worker_finished(conn):
    enqueue(conn, "a")
    claim = exchange(conn).claimed[0]

    enqueue(conn, "a")
    assert exchange(conn, worker="w2").claimed == []
    hand_in(conn, result(claim))

    again = row(conn, "a")
    assert (again["attempts"], again["lease_token"], again["again_at"]) == (0, None, None)
    assert exchange(conn, worker="w2").paths == ["a"]


def test_a_request_for_a_held_row_waits_for_its_own_time(conn):
    enqueue(conn, "a")
    claim = exchange(conn).claimed[0]

    enqueue(conn, "a", at="now() + interval '3 days'")
    enqueue(conn, "a", at="now() + interval '2 days'")
    hand_in(conn, result(claim))

    assert row(conn, "a")["due_in"].days == 1


def test_a_claim_after_the_lease_ended_serves_a_second_request_that_is_due(conn):
    enqueue(conn, "a")
    exchange(conn)
    enqueue(conn, "a")
    end_leases(conn)

    hand_in(conn, result(exchange(conn, worker="w2").claimed[0]))

    assert row(conn, "a") == {}


def test_a_claim_after_the_lease_ended_keeps_a_second_request_for_later(conn):
    enqueue(conn, "a")
    exchange(conn)
    enqueue(conn, "a", at=LATER)
    end_leases(conn)

    hand_in(conn, result(exchange(conn, worker="w2").claimed[0]))

    assert not row(conn, "a")["is_due"]


def test_a_file_without_storage_or_path_is_refused(conn):
    for call in ("enqueue_file(null, 'a')", "enqueue_file('s', null)"):
        with pytest.raises(psycopg.Error) as caught:
            conn.execute(f"select lapse.{call}")
        assert caught.value.sqlstate == "LP001"


def test_one_bad_request_of_many_is_named_and_nothing_is_queued(conn):
    with pytest.raises(psycopg.Error, match="file request 2 ") as caught:
        conn.execute(
            "select lapse.enqueue_files(array[row('s', 'a', null, null, null, null, null),"
            " row('s', null, null, null, null, null, null)]::lapse.file_request[])"
        )

    assert caught.value.sqlstate == "LP001"
    assert row(conn, "a") == {}


def test_no_files_is_no_work(conn):
    for files in ("null", "'{}'"):
        assert conn.execute(f"select lapse.enqueue_files({files})").fetchone() == (0,)


LONG = hashlib.sha512(b"").hexdigest() * 157  # 20 kB
ANY_PATHS = ["", LONG, "ä\n\t'\"\\%$1 :name", "../../etc/passwd", "🦄" * 5000]


def test_any_path_can_be_queued_and_comes_back_as_it_was(conn):
    for path in ANY_PATHS:
        enqueue(conn, path)
        conn.execute("insert into lapse.file_cleanup_queue (storage, path) values ('s', %s)", [path])

    assert exchange(conn).paths == ANY_PATHS


def test_any_time_can_be_given(conn):
    for time in ("-infinity", "4713-01-01 BC", "infinity", "294276-12-31"):
        conn.execute("select lapse.enqueue_file('s', %s::text, %s::timestamptz)", [time, time])

    assert exchange(conn).paths == ["-infinity", "4713-01-01 BC"]


def test_a_plain_insert_is_merged_with_what_is_queued(conn):
    conn.execute(
        "insert into lapse.file_cleanup_queue (storage, path) values ('s', 'a'), ('s', 'b'), ('s', 'a')"
    )
    conn.execute(
        "insert into lapse.file_cleanup_queue (storage, path, not_before, reason)"
        " values ('s', 'c', 'infinity', 'x')"
    )
    conn.execute("insert into lapse.file_cleanup_queue (storage, path, reason) values ('s', 'c', 'y')")

    assert sorted(exchange(conn).paths) == ["a", "b", "c"]
    assert row(conn, "a")["generation"] == 2
    assert row(conn, "c")["reason"] == "y"


def test_odd_values_of_a_plain_insert_are_ignored(conn):
    conn.execute(
        "insert into lapse.file_cleanup_queue"
        " (storage, path, attempts, leased_until, leased_by, lease_token, dead_at, again_at, last_error)"
        " values ('s', 'a', -7, 'infinity', 'nobody', 99, now(), now(), 'odd')"
    )

    assert exchange(conn).claimed[0].attempt == 1


def test_a_plain_insert_without_a_path_is_refused(conn):
    with pytest.raises(psycopg.Error) as caught:
        conn.execute("insert into lapse.file_cleanup_queue (storage) values ('s')")

    assert caught.value.sqlstate == "LP001"


def test_odd_attempts_set_by_hand_stop_no_claim(conn):
    for attempts in (-(2**31), -1, 2**31 - 1):
        enqueue(conn, str(attempts))
        conn.execute(
            "update lapse.file_cleanup_queue set attempts = %s where path = %s", [attempts, str(attempts)]
        )
    enqueue(conn, "b")

    assert exchange(conn).paths == ["-2147483648", "-1", "b"]
    assert row(conn, "2147483647")["dead_at"]
    assert row(conn, "-1")["attempts"] == 1


def test_a_plain_insert_of_a_path_that_another_transaction_queued_waits_and_succeeds(conn, dsn):
    with psycopg.connect(dsn, autocommit=True) as other, ThreadPoolExecutor() as pool:
        with conn.transaction():
            conn.execute("insert into lapse.file_cleanup_queue (storage, path) values ('s', 'a')")
            second = pool.submit(
                other.execute, "insert into lapse.file_cleanup_queue (storage, path) values ('s', 'a')"
            )
            waits_for_a_lock(conn, other.info.backend_pid)
        second.result(timeout=20)

    assert row(conn, "a")["generation"] == 2


def test_concurrent_plain_inserts_of_the_same_paths_never_fail(conn, dsn):
    start = threading.Barrier(4)

    def insert() -> None:
        with psycopg.connect(dsn, autocommit=True) as own:
            start.wait()
            for n in range(100):
                own.execute(
                    "insert into lapse.file_cleanup_queue (storage, path) values ('s', %s)", [str(n % 5)]
                )

    with ThreadPoolExecutor() as pool:
        for done in [pool.submit(insert) for _ in range(4)]:
            done.result(timeout=60)

    found = conn.execute("select count(*), sum(generation) from lapse.file_cleanup_queue").fetchone()
    assert found == (5, 400)


def test_statements_that_queue_the_same_files_in_another_order_do_not_deadlock(conn, dsn):
    first, last = sorted(("a", "b"), key=lambda path: hashlib.sha256(path.encode()).digest())
    enqueue(conn, first, last, at=LATER)

    with (
        psycopg.connect(dsn, autocommit=True) as one,
        psycopg.connect(dsn, autocommit=True) as two,
        ThreadPoolExecutor() as pool,
    ):
        with conn.transaction():
            conn.execute("select from lapse.file_cleanup_queue where path = %s for update", [first])
            # The first to wait gets the first row. Were the other to go in its own order, it would by then
            # hold the last row and wait for the first.
            running = [pool.submit(enqueue, one, first, last)]
            waits_for_a_lock(conn, one.info.backend_pid)
            running.append(pool.submit(enqueue, two, last, first))
            waits_for_a_lock(conn, two.info.backend_pid)
        for done in running:
            done.result(timeout=20)

    assert row(conn, first)["generation"] == row(conn, last)["generation"] == 3


def test_a_nudge_is_sent_at_commit_for_what_is_due_within_the_horizon(conn, dsn):
    with listening(dsn) as ear:
        enqueue(conn, "a")
        enqueue(conn, "b", at="now() + interval '20 s'")
        conn.execute("insert into lapse.file_cleanup_queue (storage, path) values ('s', 'c'), ('s', 'd')")
        assert nudges(conn, ear) == 3

        with conn.transaction(force_rollback=True):
            enqueue(conn, "e")
        assert nudges(conn, ear) == 0


def test_no_nudge_is_sent_for_what_is_due_later(conn, dsn):
    with listening(dsn) as ear:
        enqueue(conn, "a", "b", at="now() + interval '1 minute'")
        conn.execute(
            "insert into lapse.file_cleanup_queue (storage, path, not_before) values ('s', 'c', 'infinity')"
        )
        assert nudges(conn, ear) == 0

        conn.execute("update lapse.setting set notify_horizon = '2 minutes'")
        enqueue(conn, "a", "b", at="now() + interval '1 minute'")
        assert nudges(conn, ear) == 1


def test_a_nudge_is_sent_when_a_row_is_brought_forward_or_revived(conn, dsn):
    enqueue(conn, "a", "b", at=LATER)
    conn.execute("update lapse.file_cleanup_queue set dead_at = now() where path = 'b'")

    with listening(dsn) as ear:
        enqueue(conn, "a")
        assert nudges(conn, ear) == 1
        enqueue(conn, "b")
        assert nudges(conn, ear) == 1


def test_no_nudge_is_sent_for_a_row_that_a_worker_holds(conn, dsn):
    enqueue(conn, "a")
    exchange(conn)

    with listening(dsn) as ear:
        enqueue(conn, "a")
        assert nudges(conn, ear) == 0


@pytest.mark.parametrize("length", [1, 34, 1024])
def test_a_file_can_be_guarded_by_its_etag(conn, length):
    conn.execute(
        "select lapse.enqueue_file('s', 'a', p_expected => jsonb_build_object('etag', repeat('x', %s)))",
        [length],
    )

    assert row(conn, "a")["expected"] == [{"etag": "x" * length}]


@pytest.mark.parametrize("etag", ["''", "repeat('x', 1025)", "7"])
def test_what_can_t_be_an_etag_is_refused(conn, etag):
    with pytest.raises(psycopg.Error) as caught:
        conn.execute(f"select lapse.enqueue_file('s', 'a', p_expected => jsonb_build_object('etag', {etag}))")

    assert caught.value.sqlstate == "LP001"
