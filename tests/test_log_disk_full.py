"""The disk of the queue's log is full: nothing that was done is forgotten, and no more is taken than that."""

import signal
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from tests.support.files import empty, put, shelf
from tests.support.poll import until
from tests.support.queue import end_leases
from tests.support.running import pglapse, worker
from tests.support.smalldisk import SmallDisk, small_disk

FULL = "No space left on device"


@pytest.fixture
def disk(conn: psycopg.Connection) -> Iterator[SmallDisk]:
    """The disk of lapse.file_cleanup_log."""
    with small_disk(conn) as one:
        conn.execute(
            sql.SQL("alter table lapse.file_cleanup_log set tablespace {}").format(
                sql.Identifier(one.tablespace)
            )
        )
        yield one


def logged(conn: psycopg.Connection) -> list[tuple[str, int, int]]:
    return conn.execute(
        "select outcome, attempts, count(*) from lapse.file_cleanup_log group by outcome, attempts"
    ).fetchall()


def left(root: Path) -> int:
    return len(list(root.glob("[0-9]*")))


def tried_again(conn: psycopg.Connection, seen: set[int]) -> bool:
    """Whether the worker has come by several connections; those seen so far are noted."""
    seen.update(
        pid
        for (pid,) in conn.execute(
            "select pid from pg_stat_activity"
            " where application_name = 'pglapse' and datname = current_database()"
        )
    )
    return len(seen) >= 5


def test_results_are_kept_while_the_disk_is_full_and_handed_in_when_it_is_not(
    conn: psycopg.Connection, dsn: str, tmp_path: Path, disk: SmallDisk
) -> None:
    config = shelf(tmp_path, "public")
    root = tmp_path / "public"
    put(conn, root, *(f"{number:03}" for number in range(100)))
    disk.fill()

    with worker(dsn, config, "--batch", "10") as running:
        running.says(FULL)
        seen: set[int] = set()
        until(lambda: tried_again(conn, seen))
        assert left(root) in (80, 90), "what was taken before the first result failed, and no more"
        assert logged(conn) == []
        disk.clear()
        until(lambda: empty(conn))
        running.process.send_signal(signal.SIGTERM)
        assert running.ends() == 0

    assert logged(conn) == [("deleted", 1, 100)]
    assert running.said.count(FULL) == 1
    assert "is there again" in running.said


def test_a_worker_that_is_stopped_meanwhile_ends_in_time_and_another_finishes_what_it_held(
    conn: psycopg.Connection, dsn: str, tmp_path: Path, disk: SmallDisk
) -> None:
    config = shelf(tmp_path, "public")
    put(conn, tmp_path / "public", *(f"{number:03}" for number in range(20)))
    disk.fill()

    with worker(dsn, config, "--batch", "10", "--grace", "1") as running:
        running.says(FULL)
        running.process.send_signal(signal.SIGTERM)
        assert running.ends() == 0
    assert "results could not be handed in" in running.said
    disk.clear()
    end_leases(conn)
    done = pglapse(dsn, "worker", "--once", "--config", str(config))

    assert done.returncode == 0, done.stderr
    assert empty(conn)
    assert left(tmp_path / "public") == 0
    assert sum(count for *_, count in logged(conn)) == 20
