"""The container's health check asks the database whether a worker of this host is at work."""

import os
import socket
import subprocess
import sys

import psycopg
import pytest

from tests.support.install import ROOT
from tests.support.roles import OBSERVER, acting


def health(dsn: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The check in a process of its own, as a container runs it, with an observer's rights."""
    path = str(ROOT / "worker")
    return subprocess.run(
        [sys.executable, "-m", "pglapse.health"],
        env={**os.environ, "DATABASE_URL": acting(dsn, OBSERVER), "PYTHONPATH": path, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def hello(conn: psycopg.Connection, worker: str, host: str) -> None:
    conn.execute("select lapse.worker_hello(%s, %s, 1, '0')", [worker, host])


def test_a_worker_of_this_host_seen_just_now_is_healthy(conn: psycopg.Connection, dsn: str) -> None:
    hello(conn, "w", socket.gethostname())

    done = health(dsn)

    assert (done.returncode, done.stderr) == (0, "")
    assert f"a worker of {socket.gethostname()} was seen" in done.stdout


def test_one_that_is_alive_is_enough(conn: psycopg.Connection, dsn: str) -> None:
    hello(conn, "old", socket.gethostname())
    conn.execute("update lapse.worker set last_seen_at = last_seen_at - interval '1 hour'")
    hello(conn, "new", socket.gethostname())

    assert health(dsn).returncode == 0


def test_a_worker_that_fell_silent_is_not_healthy(conn: psycopg.Connection, dsn: str) -> None:
    hello(conn, "w", socket.gethostname())
    conn.execute("update lapse.worker set last_seen_at = last_seen_at - interval '61 s'")

    done = health(dsn)

    assert done.returncode == 1
    assert "was seen 1 min" in done.stdout
    assert health(dsn, PGLAPSE_HEALTH_PATIENCE="600").returncode == 0


def test_a_worker_of_another_host_says_nothing_about_this_one(conn: psycopg.Connection, dsn: str) -> None:
    hello(conn, "w", "elsewhere")

    done = health(dsn)

    assert done.returncode == 1
    assert "no worker of" in done.stdout


def test_without_a_database_it_is_not_healthy_and_says_why_in_one_line() -> None:
    done = health("postgresql://127.0.0.1:1/nowhere?connect_timeout=2")

    assert done.returncode == 1
    assert done.stdout.startswith("can't ask the database: ")
    assert len(done.stdout.splitlines()) == 1
    assert done.stderr == ""


@pytest.mark.parametrize("patience", ["soon", "nan", "-1"])
def test_a_patience_that_is_no_number_of_seconds_is_named(patience: str) -> None:
    done = health("postgresql://127.0.0.1:1/nowhere", PGLAPSE_HEALTH_PATIENCE=patience)

    assert done.returncode == 1
    assert "PGLAPSE_HEALTH_PATIENCE must be a number of seconds" in done.stderr
