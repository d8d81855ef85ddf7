"""The database's side of the file queue: each function here is one call. What is due, who may have it and
what a result means is decided there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from pglapse.errors import translated
from pglapse.storage import Outcome
from pglapse.text import storable

Connection = psycopg.Connection[Any]

CHANNEL = "file_cleanup_queue"

Position = tuple[int | None, int]
"""Due time, in microseconds since 1970, and number of a queue row. A number means the same whatever the
session's time zone, style of dates and collation; None comes before every time."""

START: Position = (None, 0)

Receipt = tuple[int, int]
"""Number and lease token of a claimed row."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A file that is ours to delete until the lease is over."""

    id: int
    token: int
    storage: str
    path: str
    attempt: int
    due: int


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a claimed file."""

    claim: Claim
    outcome: Outcome

    @property
    def receipt(self) -> Receipt:
        return self.claim.id, self.claim.token


@dataclass(frozen=True, slots=True)
class Exchange:
    """The answer to results handed in: more files, and the results that must be handed in again."""

    claims: list[Claim]
    unsettled: frozenset[Receipt]
    stale: frozenset[Receipt]
    wait: float | None
    """Seconds until there may be more; 0 at once, None not before a nudge, or when all asked for came."""
    after: dict[str, Position]
    """By storage, where to go on; storages without more are not in it."""


@dataclass(frozen=True, slots=True)
class Welcome:
    """What the database tells a worker at the start."""

    api_version: int
    notify_horizon: timedelta


def exchange(
    conn: Connection,
    worker: str,
    results: Sequence[Result],
    *,
    storages: Sequence[str],
    limit: int,
    lease: float,
    after: Mapping[str, Position] | None = None,
) -> Exchange:
    """Hand in results and take files that are due, at most ``limit`` of each storage, from ``after`` on."""
    points = [(after or {}).get(name, START) for name in storages]
    encoding = conn.info.parameter_status("server_encoding") or ""
    handed_in = [
        {
            "id": result.claim.id,
            "token": result.claim.token,
            "outcome": result.outcome.verdict,
            "bytes": result.outcome.bytes,
            "error": storable(result.outcome.error, encoding=encoding) if result.outcome.error else None,
        }
        for result in results
    ]
    with translated():
        rows = conn.execute(
            "select e.kind, e.id, e.token, e.storage, e.path, e.attempt,"
            "       (extract(epoch from e.due) * 1000000)::bigint, e.wait_seconds"
            "  from lapse.exchange_files("
            "           %s::text, %s::jsonb, %s::text[], %s::integer[], %s::interval,"
            "           array(select 'epoch'::timestamptz + p.due * interval '1 microsecond'"
            "                   from unnest(%s::bigint[]) with ordinality as p (due, n) order by p.n),"
            "           %s::bigint[]) as e"
            " order by e.due, e.id",
            [
                worker,
                Jsonb(handed_in),
                list(storages),
                [limit] * len(storages),
                timedelta(seconds=lease),
                [due for due, _ in points],
                [number for _, number in points],
            ],
        ).fetchall()
    return Exchange(
        claims=[Claim(*row[1:7]) for row in rows if row[0] == "claimed"],
        unsettled=frozenset((row[1], row[2]) for row in rows if row[0] == "unsettled"),
        stale=frozenset((row[1], row[2]) for row in rows if row[0] == "stale"),
        wait=min((row[7] for row in rows if row[0] == "wait" and row[7] is not None), default=None),
        after={row[3]: (row[6], row[1]) for row in rows if row[0] == "next"},
    )


def listen(conn: Connection) -> None:
    """Ask to be nudged when something is queued that is due soon."""
    conn.execute(f"listen {CHANNEL}")


def nudged(conn: Connection, seconds: float) -> bool:
    """Sleep until nudged or until the time is over; True when nudged."""
    return bool(list(conn.notifies(timeout=seconds, stop_after=1)))


def hello(
    conn: Connection, worker: str, host: str, pid: int, version: str, *, storages: Sequence[str]
) -> Welcome:
    """Put the worker on the list."""
    with translated():
        row = conn.execute(
            "select api_version, notify_horizon from lapse.worker_hello(%s, %s, %s, %s, %s::text[])",
            [worker, host, pid, version, list(storages)],
        ).fetchone()
    assert row is not None  # noqa: S101 (the function always answers one row)
    return Welcome(*row)


def beat(conn: Connection, worker: str, *, files: int, failed: int, freed: int, ticking: bool) -> None:
    """Say that the worker is alive, and what it did since it started."""
    with translated():
        conn.execute("select lapse.worker_beat(%s, %s, %s, %s, %s)", [worker, files, failed, freed, ticking])


def bye(conn: Connection, worker: str) -> None:
    """Take the worker off the list."""
    with translated():
        conn.execute("select lapse.worker_bye(%s)", [worker])


def retry(conn: Connection, ids: Sequence[int] | None, storage: str | None) -> int:
    """Revive dead rows: those named, those of a storage, or all; return how many."""
    return _count(conn, "select lapse.retry_files(%s::bigint[], %s::text)", [ids and list(ids), storage])


def discard(conn: Connection, ids: Sequence[int], reason: str) -> int:
    """Take rows out of the queue without deleting their files; return how many."""
    return _count(conn, "select lapse.discard_files(%s::bigint[], %s::text)", [list(ids), reason])


def _count(conn: Connection, query: str, arguments: list[Any]) -> int:
    with translated():
        row = conn.execute(query, arguments).fetchone()
    return int(row[0]) if row else 0
