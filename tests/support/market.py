"""Build the marketplace's rows, and look at what became of them."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime, timedelta
from itertools import count
from typing import Any

import psycopg
import pytest

from tests.support.poll import until

NEVER = None
NUMBER = count(1)
HOUR = timedelta(hours=1)
SECOND = timedelta(seconds=1)


def value(conn: psycopg.Connection, query: str, *arguments: Any) -> Any:
    """The first column of the first row."""
    row = conn.execute(query, arguments).fetchone()
    assert row is not None, f"no row: {query}"
    return row[0]


def column(conn: psycopg.Connection, query: str, *arguments: Any) -> list[Any]:
    """The first column of every row."""
    return [row[0] for row in conn.execute(query, arguments)]


def now(conn: psycopg.Connection) -> datetime:
    """The server's clock: the time of the transaction, as the operations see it."""
    return value(conn, "select now()")


def add(conn: psycopg.Connection, table: str, **columns: Any) -> int:
    """Insert one row into a table of the marketplace; returns its id."""
    names = ", ".join(columns)
    places = ", ".join(["%s"] * len(columns))
    return value(
        conn, f"insert into market.{table} ({names}) values ({places}) returning id", *columns.values()
    )


def add_user(conn: psycopg.Connection) -> int:
    number = next(NUMBER)
    return add(conn, "users", email=f"user{number}@example.org", display_name=f"User {number}")


def add_task(conn: psycopg.Connection, poster: int | None = None, **columns: Any) -> int:
    return add(conn, "tasks", poster_id=poster or add_user(conn), title="Carry a piano", **columns)


def add_file(conn: psycopg.Connection, task: int, path: str, storage: str = "public", **columns: Any) -> int:
    return add(conn, "task_files", task_id=task, storage=storage, path=path, **columns)


def queue(conn: psycopg.Connection) -> dict[str, datetime]:
    """The files that wait to be deleted, and when each may go."""
    return dict(
        conn.execute("select storage || ':' || path, not_before from lapse.file_cleanup_queue").fetchall()
    )


def claim(conn: psycopg.Connection, worker: str = "w", limit: int = 100) -> dict[str, tuple[int, int]]:
    """Take what is due, as a worker does: path → (id, token)."""
    rows = conn.execute(
        "select path, id, token from lapse.exchange_files(%s, p_limits => array[%s]) where kind = 'claimed'",
        [worker, limit],
    )
    return {path: (number, token) for path, number, token in rows}


def emptied(conn: psycopg.Connection) -> psycopg.Connection:
    """Take all rows out of the marketplace, the queue and the logs: cheaper than a database a test."""
    logs = ("file_cleanup_queue", "file_cleanup_log", "run_log", "blocked_row")
    tables = column(
        conn,
        "select c.oid::regclass::text from pg_class as c where c.relkind = 'r' and"
        " (c.relnamespace = 'market'::regnamespace"
        "  or c.relnamespace = 'lapse'::regnamespace and c.relname = any (%s))",
        list(logs),
    )
    with conn.transaction():
        conn.execute("set local session_replication_role = replica")
        conn.execute(";".join(f"delete from {table}" for table in tables))
    return conn


def due_now(conn: psycopg.Connection, policy: str) -> None:
    """Let the next `lapse.run_due` serve this policy and no other."""
    conn.execute(
        "update lapse.policy_state set next_run_at = case when policy = %s then now() else 'infinity' end",
        [policy],
    )


@contextmanager
def raises(code: str, *, hint: bool = True) -> Iterator[pytest.ExceptionInfo[psycopg.Error]]:
    """Expect an error with this SQLSTATE, and a hint for the person who reads it."""
    with pytest.raises(psycopg.Error) as caught:
        yield caught
    assert caught.value.sqlstate == code, caught.value
    assert not hint or caught.value.diag.message_hint


@contextmanager
def waiting(conn: psycopg.Connection, query: str, *arguments: Any) -> Iterator[Future[list[tuple[Any, ...]]]]:
    """Run a query that must wait for a lock: inside the block it does, and the future will have its rows."""

    def run() -> list[tuple[Any, ...]]:
        return conn.execute(query, arguments).fetchall()

    with ThreadPoolExecutor(1) as pool, psycopg.connect(conn.info.dsn, autocommit=True) as watch:
        future = pool.submit(run)

        def waits() -> bool:
            assert not future.done(), f"did not wait: {future.exception() or future.result()}"
            return value(
                watch,
                "select count(*) from pg_stat_activity where pid = %s and wait_event_type = 'Lock'",
                conn.info.backend_pid,
            )

        until(waits, what=f"{query} to wait for a lock")
        yield future
