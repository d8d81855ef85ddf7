"""A worker comes to an end in time, whatever hangs, and never goes on with a part of it dead."""

import signal
from pathlib import Path
from time import monotonic

import psycopg
import pytest

from tests.support.files import put, shelf, waiting
from tests.support.poll import until
from tests.support.running import door, worker

HANGS = """
import os, threading
unlink = os.unlink
def stuck(name, **options):
    if b"hangs" in os.fsencode(name):
        os.write(2, b"hanging\\n")
        threading.Event().wait()
    unlink(name, **options)
os.unlink = stuck
"""
HELPED = """
from pglapse.storage.local import LocalStorage
work_off = LocalStorage._work_off
def crowded(self, work):
    self._crowded = 2
    work_off(self, work)
LocalStorage._work_off = crowded
"""
BEATS = """
import pglapse.service
pglapse.service.BEAT = 0.1
"""
DIES = """
import time
def die(*arguments):
    raise SystemExit("on purpose")
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return shelf(tmp_path, "one", "two")


def test_a_storage_that_hangs_is_left_behind_and_the_rest_is_handed_in(
    conn: psycopg.Connection, dsn: str, tmp_path: Path, config: Path
) -> None:
    put(conn, tmp_path / "one", "hangs", *(f"then/{number:03}" for number in range(200)))
    put(conn, tmp_path / "two", "a")

    with worker(dsn, config, "--threads", "1", "--grace", "2", spoilt=HANGS) as running:
        running.says("hanging")
        until(lambda: not (tmp_path / "two" / "a").exists())
        running.process.send_signal(signal.SIGTERM)
        asked = monotonic()
        assert running.ends(15) == 0

    assert monotonic() - asked >= 1.5  # it had its time
    assert "storage one does not come to an end" in running.said
    rows = conn.execute(
        "select path, attempts, leased_until is not null from lapse.file_cleanup_queue order by path"
    ).fetchall()
    assert rows[0] == ("hangs", 1, True)
    assert set(rows[1:]) == {(f"then/{number:03}", 0, False) for number in range(200)}
    assert conn.execute("select path, outcome from lapse.file_cleanup_log").fetchall() == [("a", "deleted")]
    assert conn.execute("select 1 from lapse.worker").fetchall() == []


def test_a_database_that_hangs_holds_up_no_stop(
    conn: psycopg.Connection, dsn: str, tmp_path: Path, config: Path
) -> None:
    with door(dsn) as way:
        way.open()
        with worker(way.dsn, config, "--grace", "2", spoilt=BEATS) as running:
            until(lambda: conn.execute("select 1 from lapse.worker").fetchone())
            way.swallowing = True
            running.process.send_signal(signal.SIGTERM)
            assert running.ends(15) == 0


def test_storage_and_database_may_hang_at_the_same_time(
    conn: psycopg.Connection, dsn: str, tmp_path: Path, config: Path
) -> None:
    put(conn, tmp_path / "one", "hangs")
    with door(dsn) as way:
        way.open()
        with worker(way.dsn, config, "--grace", "1", spoilt=HANGS) as running:
            running.says("hanging")
            way.swallowing = True
            running.process.send_signal(signal.SIGTERM)
            assert running.ends(15) == 0


def test_a_second_signal_ends_it_on_the_spot_though_all_hangs(
    conn: psycopg.Connection, dsn: str, tmp_path: Path, config: Path
) -> None:
    put(conn, tmp_path / "one", "hangs")
    with worker(dsn, config, spoilt=HANGS) as running:
        running.says("hanging")
        running.process.send_signal(signal.SIGTERM)
        with pytest.raises(AssertionError, match="still running"):
            running.ends(0.5)
        running.process.send_signal(signal.SIGTERM)
        assert running.ends(3) == 128 + signal.SIGTERM


def test_once_told_to_stop_it_waits_for_no_storage_that_hangs(
    conn: psycopg.Connection, dsn: str, tmp_path: Path, config: Path
) -> None:
    put(conn, tmp_path / "one", "hangs")
    with worker(dsn, config, "--once", "--grace", "1", spoilt=HANGS) as running:
        running.says("hanging")
        running.process.send_signal(signal.SIGTERM)
        assert running.ends(15) == 0


@pytest.mark.parametrize(
    ("thread", "spoilt", "tick"),
    [
        ("that keeps the schedule", "import pglapse.ticker as t; t.look = die", "always"),
        ("of storage one", "import pglapse.lane as l; l.Lane._work = die", "never"),
        ("of storage one", "import pglapse.lane as l; l.Lane._check = die", "never"),
    ],
    ids=["ticker", "lane at work", "lane at a check"],
)
def test_a_worker_one_of_whose_threads_dies_ends_and_says_which(
    conn: psycopg.Connection, dsn: str, tmp_path: Path, config: Path, thread: str, spoilt: str, tick: str
) -> None:
    put(conn, tmp_path / "one", "a")

    with worker(dsn, config, tick=tick, spoilt=DIES + spoilt + "\n") as running:
        assert running.ends() == 1

    assert f"the thread {thread} died: SystemExit: on purpose" in running.said


def test_a_thread_that_dies_while_a_storage_hangs_ends_it_all_the_same(
    conn: psycopg.Connection, dsn: str, tmp_path: Path, config: Path
) -> None:
    put(conn, tmp_path / "one", *(f"hangs-{number}" for number in range(20)))
    lane = """
import pglapse.lane
work = pglapse.lane.Lane._work
pglapse.lane.Lane._work = lambda self, hand: die() if self.name == "two" else work(self, hand)
"""
    with worker(dsn, config, spoilt=HANGS + HELPED + DIES + lane) as running:
        until(lambda: running.said.count("hanging") > 1, what="one of the pool's threads to hang as well")
        put(conn, tmp_path / "two", "b")
        assert running.ends() == 1

    assert "the thread of storage two died" in running.said


def test_a_thread_that_dies_while_the_database_is_away_is_noticed_all_the_same(
    conn: psycopg.Connection, dsn: str, config: Path
) -> None:
    with door(dsn) as way:
        way.open()
        dies = DIES + "import pglapse.ticker as t; t.look = lambda *a: (time.sleep(2), die())\n"
        with worker(way.dsn, config, tick="always", spoilt=dies) as running:
            until(lambda: waiting(conn))
            way.shut()
            assert running.ends() == 1

    assert "the thread that keeps the schedule died" in running.said


def test_a_run_that_is_cancelled_by_the_stop_is_no_outage(
    conn: psycopg.Connection, dsn: str, config: Path
) -> None:
    cancelled = """
import os, psycopg, pglapse.ticker
def look(conn, ticker):
    os.write(2, b"looking\\n")
    ticker._stop.wait()
    raise psycopg.errors.QueryCanceled("canceling statement due to user request")
pglapse.ticker.look = look
"""
    with worker(dsn, config, tick="always", spoilt=cancelled) as running:
        running.says("looking")
        running.process.send_signal(signal.SIGTERM)
        assert running.ends() == 0

    assert "trying again" not in running.said


def test_a_psycopg_that_keeps_no_deadline_ends_the_worker(dsn: str, config: Path) -> None:
    """What would be a guard's death elsewhere: deadlines are kept by whoever waits, and that is looked at."""
    elsewhere = "import psycopg, pglapse.deadline as d; del d.Connection.wait\n"

    with worker(dsn, config, spoilt=elsewhere) as running:
        assert running.ends() == 1

    assert "no deadline can be kept with psycopg" in running.said
