"""lapse.queue_status, queue_detail, worker_status; retrying, discarding and forgetting."""

from datetime import timedelta
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from tests.support.queue import (
    end_leases,
    enqueue,
    exchange,
    hand_in,
    listening,
    nudges,
    outcomes,
    result,
    row,
)


def status(conn: psycopg.Connection) -> dict[str, Any]:
    with conn.cursor(row_factory=dict_row) as cursor:
        return cursor.execute("select * from lapse.queue_status").fetchone()


def five_states(conn: psycopg.Connection) -> None:
    """One row in each state, named after it."""
    for path in ("leased", "dead", "retrying"):
        enqueue(conn, path)
        claim = exchange(conn).claimed[0]
        if path == "dead":
            hand_in(conn, result(claim, "refused", error="no such storage"))
        if path == "retrying":
            hand_in(conn, result(claim, "failed", error="EBUSY"))
    enqueue(conn, "due", at="now() - interval '90 s'")
    enqueue(conn, "waiting", at="now() + interval '1 day'")


def test_an_empty_queue_has_a_status_of_zeros(conn):
    assert status(conn) == {
        "pending": 0,
        "due": 0,
        "leased": 0,
        "retrying": 0,
        "dead": 0,
        "unserved": 0,
        "oldest_due_age": None,
        "files_last_day": 0,
        "bytes_last_day": 0,
        "counts_are_minimum": False,
    }


def test_the_status_counts_rows_by_what_they_wait_for(conn):
    five_states(conn)

    now = status(conn)
    assert (now["pending"], now["due"], now["leased"], now["retrying"], now["dead"]) == (4, 1, 1, 1, 1)
    assert timedelta(seconds=90) <= now["oldest_due_age"] < timedelta(seconds=150)
    assert not now["counts_are_minimum"]


def test_the_detail_names_each_state(conn):
    five_states(conn)

    states = conn.execute("select path, state, last_error from lapse.queue_detail order by path").fetchall()
    assert states == [
        ("dead", "dead", "no such storage"),
        ("due", "due", None),
        ("leased", "leased", None),
        ("retrying", "retrying", "EBUSY"),
        ("waiting", "waiting", None),
    ]


def test_the_status_sums_what_was_deleted_in_the_last_day(conn):
    enqueue(conn, "a", "b", "c", "d")
    claims = {claim.path: claim for claim in exchange(conn).claimed}
    hand_in(conn, *(result(claims[path], bytes=1000) for path in "ab"), result(claims["c"], "missing"))
    conn.execute("select lapse.enqueue_file('s', 'x'), lapse.cancel_file('s', 'x')")
    conn.execute(
        "update lapse.file_cleanup_log set finished_at = now() - interval '25 hours' where path = 'b'"
    )

    assert (status(conn)["files_last_day"], status(conn)["bytes_last_day"]) == (2, 1000)


def test_the_status_of_a_long_queue_says_at_least_and_costs_no_more_as_it_grows(conn):
    buffers = []
    for first in (1, 20_001, 40_001):
        conn.execute(f"""
            insert into lapse.file_cleanup_queue (storage, path, not_before, dead_at, generation)
            select 's', n::text, now() + interval '1 day', case when n % 2 = 0 then now() end, 1
              from generate_series({first}, {first + 19_999}) as n
        """)
        conn.execute("vacuum analyze lapse.file_cleanup_queue")
        (plan,) = conn.execute(
            "explain (analyze, buffers, format json) select * from lapse.queue_status"
        ).fetchone()
        buffers.append(plan[0]["Plan"]["Shared Hit Blocks"] + plan[0]["Plan"]["Shared Read Blocks"])

    now = status(conn)
    assert (now["pending"], now["dead"], now["counts_are_minimum"]) == (10_001, 10_001, True)
    assert buffers[2] < 1.2 * buffers[1]


def test_dead_files_are_retried_at_once_with_a_nudge(conn, dsn):
    enqueue(conn, "a", "b", "c", "d")
    exchange(conn, limit=0)
    claims = {claim.path: claim for claim in exchange(conn).claimed}
    hand_in(conn, *(result(claims[path], "refused", error="x") for path in "abc"))

    with listening(dsn) as ear:
        ids = [claims["a"].id, claims["d"].id, 2**40]
        assert conn.execute("select lapse.retry_files(%s)", [ids]).fetchone() == (1,)
        assert nudges(conn, ear) == 1
        assert conn.execute("select lapse.retry_files(p_storage => 'other')").fetchone() == (0,)
        assert nudges(conn, ear) == 0

    assert exchange(conn).claimed[0].attempt == 1
    assert conn.execute("select lapse.retry_files(p_storage => 's')").fetchone() == (2,)
    assert sorted(exchange(conn).paths) == ["b", "c"]


def test_all_dead_files_can_be_retried(conn):
    five_states(conn)

    assert conn.execute("select lapse.retry_files()").fetchone() == (1,)
    assert (row(conn, "dead")["attempts"], row(conn, "dead")["last_error"]) == (0, None)
    assert row(conn, "retrying")["attempts"] == 1


def test_discarded_rows_leave_the_queue_with_a_reason_but_not_those_that_a_worker_holds(conn):
    warned = []
    conn.add_notice_handler(lambda notice: warned.append(notice.message_primary))
    five_states(conn)

    discard = (
        "select lapse.discard_files(array(select q.id from lapse.queue_detail as q), 'the disk is gone')"
    )
    assert conn.execute(discard).fetchone() == (4,)

    assert warned == ["1 rows were not discarded: a worker holds them"]
    assert {outcome for _, outcome in outcomes(conn)} == {"discarded"}
    notes = conn.execute("select distinct note from lapse.file_cleanup_log").fetchall()
    assert notes == [("the disk is gone",)]

    end_leases(conn)
    assert conn.execute(discard).fetchone() == (1,)


def test_discarding_needs_rows_and_a_reason(conn):
    for arguments in ("null, 'x'", "'{1}', null", "'{1}', ' '"):
        with pytest.raises(psycopg.Error) as caught:
            conn.execute(f"select lapse.discard_files({arguments})")
        assert caught.value.sqlstate == "LP001"


def test_the_log_is_pruned_by_age_in_batches(conn):
    enqueue(conn, *(str(n) for n in range(5)))
    hand_in(conn, *(result(claim) for claim in exchange(conn).claimed))
    conn.execute("""
        update lapse.file_cleanup_log
           set finished_at = now() - interval '30 days' - path::integer * interval '1 hour'
         where path::integer < 4
    """)

    step = "select picked, handled, reached from lapse.prune_file_log(%s, now(), %s)"
    picked, handled, reached = conn.execute(step, [3, "-infinity"]).fetchone()
    assert (picked, handled) == (3, 3)
    assert sorted(outcomes(conn)) == [("0", "deleted"), ("4", "deleted")]
    assert conn.execute(step, [3, reached]).fetchone()[:2] == (1, 1)
    assert conn.execute(step, [3, reached]).fetchone() == (0, 0, None)


def test_a_worker_says_hello_and_beats_and_says_goodbye(conn):
    hello = "select api_version, notify_horizon from lapse.worker_hello('w', 'host', 7, '1.0')"
    assert conn.execute(hello).fetchone() == (1, timedelta(seconds=30))
    conn.execute("select lapse.worker_beat('w', 5, 1, 2048, true)")
    seen = conn.execute(
        "select worker, host, pid, version, alive, ticking, files_done, files_failed, bytes_freed"
        "  from lapse.worker_status"
    ).fetchall()
    assert seen == [("w", "host", 7, "1.0", True, True, 5, 1, 2048)]

    conn.execute("update lapse.worker set last_seen_at = now() - interval '2 minutes'")
    assert conn.execute("select alive from lapse.worker_status").fetchone() == (False,)
    conn.execute(hello)
    assert conn.execute("select alive, files_done from lapse.worker_status").fetchone() == (True, 5)

    conn.execute("select lapse.worker_bye('w')")
    assert conn.execute("select count(*) from lapse.worker_status").fetchone() == (0,)


def test_a_worker_that_nobody_knows_harms_nothing(conn):
    conn.execute("select lapse.worker_beat('w', 1, 1, 1, false), lapse.worker_bye('w')")

    assert conn.execute("select count(*) from lapse.worker").fetchone() == (0,)
    with pytest.raises(psycopg.Error) as caught:
        conn.execute("select lapse.worker_hello('w', null, 1, '1')")
    assert caught.value.sqlstate == "LP001"
