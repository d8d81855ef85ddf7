"""The file queue as tests see it: queue, take, hand in, and look."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.rows import dict_row, namedtuple_row

from tests.support.poll import until

CHANNEL = "file_cleanup_queue"


@dataclass(frozen=True)
class Exchange:
    """What one call of lapse.exchange_files answered, by kind."""

    claimed: list[Any]
    unsettled: list[Any]
    stale: list[Any]
    wait: list[Any]
    next: list[Any]
    halted: list[Any]

    @property
    def paths(self) -> list[str]:
        return [row.path for row in self.claimed]


def exchange(
    conn: psycopg.Connection,
    results: Sequence[dict[str, Any]] = (),
    *,
    worker: str = "w1",
    storages: Sequence[str] | None = None,
    limit: int | Sequence[int] = 500,
    lease: str = "60 s",
    after: Sequence[tuple[Any, int | None]] | None = None,
) -> Exchange:
    """Hand in results and take the next files, ``limit`` of each storage named, or of each that is queued.

    ``after``, one for each storage named, is where to go on.
    """
    limits = (
        list(limit) if isinstance(limit, Sequence) else [limit] * (1 if storages is None else len(storages))
    )
    dues, ids = zip(*after, strict=True) if after else (None, None)
    with conn.cursor(row_factory=namedtuple_row) as cursor:
        rows = cursor.execute(
            "select * from lapse.exchange_files("
            "%s, %s::jsonb, %s::text[], %s::int[], %s::interval, %s::timestamptz[], %s::bigint[])",
            [
                worker,
                json.dumps(list(results)),
                None if storages is None else list(storages),
                limits,
                lease,
                dues and list(dues),
                ids and list(ids),
            ],
        ).fetchall()
    kinds = {kind: [row for row in rows if row.kind == kind] for kind in Exchange.__dataclass_fields__}
    assert sum(map(len, kinds.values())) == len(rows), rows
    return Exchange(**kinds)


def result(claim: Any, outcome: str = "deleted", **more: Any) -> dict[str, Any]:
    """A result for a file that was claimed."""
    return {"id": claim.id, "token": claim.token, "outcome": outcome, **more}


def hand_in(conn: psycopg.Connection, *results: dict[str, Any], worker: str = "w1") -> Exchange:
    """Hand in results and take nothing."""
    return exchange(conn, results, worker=worker, limit=0)


def enqueue(conn: psycopg.Connection, *paths: str, storage: str = "s", at: str = "now()") -> None:
    """Queue paths with one statement, in the order given; ``at`` is SQL."""
    conn.execute(
        "select lapse.enqueue_files(array("
        f"  select row(%s, p.path, {at}, 'test', 't', p.n::text, null)::lapse.file_request"
        "   from unnest(%s::text[]) with ordinality as p (path, n) order by p.n))",
        [storage, list(paths)],
    )


def cancel(conn: psycopg.Connection, path: str, storage: str = "s") -> bool:
    """Cancel a file; whether that was in time."""
    (taken,) = conn.execute("select lapse.cancel_file(%s, %s)", [storage, path]).fetchone() or (False,)
    return bool(taken)


def row(conn: psycopg.Connection, path: str) -> dict[str, Any]:
    """The queue row of a path; an empty dict when there is none."""
    with conn.cursor(row_factory=dict_row) as cursor:
        found = cursor.execute(
            "select q.*, q.not_before <= clock_timestamp() as is_due,"
            "       q.not_before - clock_timestamp() as due_in"
            "  from lapse.file_cleanup_queue as q where q.path = %s",
            [path],
        ).fetchone()
    return found or {}


def outcomes(conn: psycopg.Connection) -> list[tuple[str, str]]:
    """What the log says, in order: path and outcome."""
    return conn.execute("select path, outcome from lapse.file_cleanup_log order by id").fetchall()


def end_leases(conn: psycopg.Connection) -> None:
    """As if the leases had run out."""
    conn.execute(
        "update lapse.file_cleanup_queue set leased_until = clock_timestamp() where leased_until is not null"
    )


def end_backoff(conn: psycopg.Connection) -> None:
    """As if waiting rows had waited long enough."""
    conn.execute(
        "update lapse.file_cleanup_queue set not_before = clock_timestamp()"
        " where not_before > clock_timestamp()"
    )


@contextmanager
def listening(dsn: str) -> Iterator[psycopg.Connection]:
    """A connection of its own that listens to the queue's channel."""
    with psycopg.connect(dsn, autocommit=True) as ear:
        ear.execute(f"listen {CHANNEL}")
        yield ear


def nudges(conn: psycopg.Connection, ear: psycopg.Connection) -> int:
    """How many notifications came before a mark that is set now."""
    conn.execute(f"notify {CHANNEL}, 'mark'")
    for count, heard in enumerate(ear.notifies(timeout=20)):
        if heard.payload == "mark":
            return count
        assert heard.payload == ""
    raise AssertionError("the mark was never heard")


def waits_for_a_lock(conn: psycopg.Connection, pid: int) -> None:
    """Return once the backend ``pid`` waits for a lock."""
    until(
        lambda: conn.execute(
            "select 1 from pg_stat_activity where pid = %s and wait_event_type = 'Lock'", [pid]
        ).fetchone(),
        what=f"backend {pid} to wait for a lock",
    )
