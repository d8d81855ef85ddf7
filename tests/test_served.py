"""Which storages are served, by whom and since when; and what becomes of files that nobody serves."""

from datetime import timedelta
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from tests.support.cost import buffers, fill
from tests.support.queue import end_leases, enqueue, exchange, row


def hello(conn: psycopg.Connection, *storages: str, worker: str = "w1") -> None:
    conn.execute("select lapse.worker_hello(%s, 'host', 1, '1.0', %s)", [worker, list(storages)])


def beat(conn: psycopg.Connection, troubles: str | None = None, worker: str = "w1") -> None:
    conn.execute("select lapse.worker_beat(%s, 1, 0, 0, false, %s)", [worker, troubles])


def known(conn: psycopg.Connection) -> list[str]:
    return [name for (name,) in conn.execute("select name from lapse.storage order by name")]


def served(conn: psycopg.Connection, name: str = "a") -> timedelta:
    """How long ago it was last served."""
    (ago,) = conn.execute(
        "select clock_timestamp() - last_served_at from lapse.storage where name = %s", [name]
    ).fetchone()
    return ago


def by_storage(conn: psycopg.Connection) -> dict[str, dict[str, Any]]:
    with conn.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute("select * from lapse.queue_by_storage").fetchall()
    return {found["storage"]: found for found in rows}


def unserved(conn: psycopg.Connection) -> int:
    (count,) = conn.execute("select unserved from lapse.queue_status").fetchone()
    return count


# The list of storages


def test_a_worker_says_what_it_serves(conn):
    hello(conn, "b", "a", "a")
    hello(conn, "c", "b", worker="w2")
    hello(conn, "d", worker="w2")

    assert known(conn) == ["a", "b", "c", "d"]
    workers = conn.execute("select worker, storages, troubles from lapse.worker_status order by 1").fetchall()
    assert workers == [("w1", ["a", "b"], {}), ("w2", ["d"], {})]


def test_a_storage_is_noted_as_served_at_most_once_a_minute(conn):
    hello(conn, "a")
    conn.execute("update lapse.storage set last_served_at = now() - interval '50 s'")
    beat(conn)
    hello(conn, "a")
    assert served(conn) > timedelta(seconds=49)

    for say in (beat, lambda conn: hello(conn, "a")):
        conn.execute("update lapse.storage set last_served_at = now() - interval '2 min'")
        say(conn)
        assert served(conn) < timedelta(seconds=30)
    assert conn.execute("select first_served_at < last_served_at from lapse.storage").fetchone() == (True,)


def test_a_beat_waits_for_no_other_worker_s_note(conn, dsn):
    hello(conn, "a")
    conn.execute("update lapse.storage set last_served_at = now() - interval '2 min'")

    with psycopg.connect(dsn) as other:
        beat(other)
        hello(conn, "b", worker="w2")
        conn.execute("set statement_timeout = '2 s'")
        conn.execute("update lapse.worker set storages = '{a}' where id = 'w2'")
        beat(conn, worker="w2")


@pytest.mark.parametrize("storages", ["null", "'{null}'", "'{a, \"\"}'", "array[repeat('x', 201)]"])
def test_a_storage_that_can_not_be_one_is_refused(conn, storages):
    with pytest.raises(psycopg.Error) as caught:
        conn.execute(f"select lapse.worker_hello('w', 'host', 1, '1.0', {storages})")

    assert (caught.value.sqlstate, bool(caught.value.diag.message_hint)) == ("LP001", True)
    assert known(conn) == []


def test_troubles_are_told_until_they_are_over(conn):
    def troubles() -> dict[str, str]:
        (said,) = conn.execute("select troubles from lapse.worker_status").fetchone()
        return said

    hello(conn, "a")
    beat(conn, '{"a": "read-only"}')
    assert troubles() == {"a": "read-only"}
    beat(conn)
    assert troubles() == {"a": "read-only"}
    beat(conn, "{}")
    assert troubles() == {}
    beat(conn, '{"a": "read-only"}')
    hello(conn, "a")
    assert troubles() == {}


@pytest.mark.parametrize("troubles", ["[]", "5", "null", '"x"', '{"a": 5}', '{"a": {}}', '{"a": null}'])
def test_troubles_that_are_none_are_refused(conn, troubles):
    hello(conn, "a")

    with pytest.raises(psycopg.Error) as caught:
        beat(conn, troubles)

    assert (caught.value.sqlstate, bool(caught.value.diag.message_hint)) == ("LP001", True)


# Files that nobody serves


def test_due_files_of_a_storage_that_no_worker_ever_served_are_dead_with_the_reason(conn):
    hello(conn, "a", "b")
    enqueue(conn, "1", storage="B")
    enqueue(conn, "2", storage="B", at="now() + interval '1 hour'")
    enqueue(conn, "3", storage="b")

    assert exchange(conn, storages=["a"]).claimed == []

    dead = row(conn, "1")
    assert dead["dead_at"]
    assert dead["last_error"] == "no worker has ever served storage B; served: a, b"
    assert (row(conn, "2")["dead_at"], row(conn, "3")["dead_at"]) == (None, None)


def test_files_of_a_storage_that_was_served_once_wait_and_are_shown(conn):
    hello(conn, "a", worker="w1")
    hello(conn, "b", worker="w2")
    enqueue(conn, "1", "2", storage="b", at="now() - interval '1 min'")
    enqueue(conn, "3", storage="a")
    assert unserved(conn) == 0
    conn.execute("select lapse.worker_bye('w2')")

    exchange(conn, storages=["a"])
    found = by_storage(conn)

    assert unserved(conn) == 2
    assert (found["a"]["workers"], found["a"]["due"], found["a"]["leased"]) == (1, 0, 1)
    assert (found["b"]["workers"], found["b"]["due"], found["b"]["pending"]) == (0, 2, 2)
    assert found["b"]["oldest_due_age"] >= timedelta(minutes=1)
    assert found["b"]["last_served_at"]
    hello(conn, "b", worker="w3")
    assert unserved(conn) == 0


def test_a_worker_that_was_not_seen_for_a_minute_serves_nothing(conn):
    hello(conn, "a")
    enqueue(conn, "1", storage="a")
    conn.execute("update lapse.worker set last_seen_at = now() - interval '90 s'")

    assert unserved(conn) == 1


def test_files_that_were_given_up_are_revived_when_somebody_serves_their_storage_after_all(conn):
    hello(conn, "a")
    enqueue(conn, "1", "2", storage="b")
    enqueue(conn, "3", storage="c")
    conn.execute(
        "update lapse.file_cleanup_queue set dead_at = now(), last_error = 'EACCES' where path = '2'"
    )
    exchange(conn, storages=["a"])
    assert row(conn, "1")["dead_at"]

    hello(conn, "b", worker="w2")

    assert row(conn, "1")["dead_at"] is None
    assert row(conn, "2")["last_error"] == "EACCES"
    assert row(conn, "3")["dead_at"]
    assert exchange(conn, storages=["b"]).paths == ["1"]


def test_what_is_asked_for_or_held_at_this_moment_is_given_up_by_nobody(conn):
    hello(conn, "a")
    enqueue(conn, "1", storage="b")
    enqueue(conn, "2", storage="c")

    exchange(conn, storages=["a", "b"], limit=[500, 0])
    assert row(conn, "1")["dead_at"] is None
    assert row(conn, "2")["dead_at"]
    assert exchange(conn, storages=["a", "b"]).paths == ["1"]
    exchange(conn, storages=["a"])
    assert row(conn, "1")["dead_at"] is None
    end_leases(conn)
    exchange(conn, storages=["a"])
    assert row(conn, "1")["dead_at"]


def test_where_no_worker_has_said_what_it_serves_nothing_is_given_up(conn):
    hello(conn)
    enqueue(conn, "1", storage="b")

    exchange(conn, storages=["a"])

    assert row(conn, "1")["dead_at"] is None


def test_a_storage_whose_first_worker_says_hello_at_this_moment_is_left_alone(conn, dsn):
    hello(conn, "a")
    enqueue(conn, "1", storage="b")

    with psycopg.connect(dsn) as starting:
        hello(starting, "b", worker="w2")
        conn.execute("set statement_timeout = '2 s'")
        exchange(conn, storages=["a"])
    exchange(conn, storages=["a"])

    assert row(conn, "1")["dead_at"] is None


def test_files_that_are_being_given_up_while_their_first_worker_says_hello_are_revived(conn, dsn):
    hello(conn, "a")
    enqueue(conn, "1", storage="b")

    with psycopg.connect(dsn) as other, psycopg.connect(dsn, autocommit=True) as starting:
        exchange(other, storages=["a"])
        starting.execute("set lock_timeout = '50 ms'")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            hello(starting, "b", worker="w2")
        other.commit()
        hello(starting, "b", worker="w2")

    assert row(conn, "1")["dead_at"] is None


def test_giving_up_looks_at_no_row_that_is_served_and_at_a_thousand_at_a_time(conn):
    hello(conn, "a", "m")
    fill(conn, 30_000, "now() - interval '1 s'", "m")
    fill(conn, 1_500, "now() - interval '1 s'", "b")
    fill(conn, 600, "now() - interval '1 s'", "z")
    conn.execute("vacuum analyze lapse.file_cleanup_queue")

    dead = []
    for _ in range(4):
        exchange(conn, storages=["a"])
        counts = conn.execute(
            "select count(*) from lapse.file_cleanup_queue where dead_at is not null"
        ).fetchone()
        dead += counts

    assert dead == [1000, 2000, 2100, 2100]
    conn.execute("vacuum lapse.file_cleanup_queue")
    assert buffers(conn, "select * from lapse.exchange_files('w', p_storages => '{a}')") < 60


def test_a_claim_that_is_full_gives_nothing_up(conn):
    """What is urgent goes first; the next claim that comes back short has the time."""
    hello(conn, "a")
    enqueue(conn, "1", storage="a")
    enqueue(conn, "2", storage="b")

    exchange(conn, storages=["a"], limit=1)

    assert row(conn, "2")["dead_at"] is None


def test_names_that_are_long_or_many_make_no_long_reason(conn):
    hello(conn, *(f"{n:03}{'x' * 197}" for n in range(50)))
    enqueue(conn, "1", storage="b" * 200)

    exchange(conn, storages=["a"])

    assert 1000 < len(row(conn, "1")["last_error"]) < 2500
