"""The database's side of the file queue: each function here is one call. What is due, who may have it and
what a result means is decided there.

What there is one of for each file is a named tuple: those are made in a fraction of a dataclass's time.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import timedelta
from time import monotonic
from typing import Any, NamedTuple

import psycopg
from psycopg.types.json import Jsonb

from pglapse.errors import WrongIsolation, translated
from pglapse.storage import Expected, Outcome
from pglapse.text import storable

Connection = psycopg.Connection[Any]

CHANNEL = "file_cleanup_queue"

PROBE = "probe"
"""What payloads begin with by which a worker tries whether it hears: see `pglapse.listening`."""

Position = tuple[int | None, int]
"""Due time, in microseconds since 1970, and number of a queue row: where a search goes on. A number means the
same whatever the session's time zone, style of dates and collation; None comes before every time."""

START: Position = (None, 0)

Receipt = tuple[int, int]
"""Number and lease token of a claimed row."""


class Claim(NamedTuple):
    """A file that is ours to delete until the lease is over."""

    id: int
    token: int
    storage: str
    path: str
    attempt: int
    expected: tuple[Expected, ...] = ()

    @property
    def receipt(self) -> Receipt:
        return self.id, self.token


@dataclass(frozen=True, slots=True)
class Want:
    """How many files of a storage to take, and where the search for them goes on."""

    storage: str
    limit: int
    after: Position = START


class Result(NamedTuple):
    """What became of a claimed file."""

    claim: Claim
    outcome: Outcome

    @property
    def receipt(self) -> Receipt:
        return self.claim.receipt


@dataclass(frozen=True, slots=True)
class Exchange:
    """The answer to results handed in: more files, and the results that must be handed in again."""

    claims: list[Claim]
    alone: bool
    """The files taken were lost with a worker before: nothing else may be in hand while they are deleted."""
    unsettled: frozenset[Receipt]
    stale: frozenset[Receipt]
    next: Mapping[str, Position]
    """Where the search goes on, for each storage of which all files asked for came."""
    wait: Mapping[str, float | None]
    """For each of the others, seconds until there may be more; 0 at once, None not before a nudge."""


@dataclass(frozen=True, slots=True)
class Welcome:
    """What the database tells a worker at the start."""

    api_version: int
    notify_horizon: timedelta


def exchange(
    conn: Connection, worker: str, results: Sequence[Result], wants: Sequence[Want], *, lease: float
) -> Exchange:
    """Hand in results and take files that are due, in due order."""
    rows = _ask(
        conn,
        "select e.kind, e.id, e.token, e.storage, e.path, e.attempt, e.expected, e.alone,"
        "       (extract(epoch from e.due) * 1000000)::bigint, e.wait_seconds"
        "  from lapse.exchange_files(%s::text, %s::jsonb, %s::text[], %s::integer[], %s::interval,"
        "           array(select 'epoch'::timestamptz + u.due * interval '1 microsecond'"
        "                   from unnest(%s::bigint[]) with ordinality as u (due, n) order by u.n),"
        "           %s::bigint[]) as e",
        [
            worker,
            _handed_in(results, conn.info.parameter_status("server_encoding") or ""),
            [want.storage for want in wants],
            [want.limit for want in wants],
            timedelta(seconds=lease),
            [want.after[0] for want in wants],
            [want.after[1] for want in wants],
        ],
    )
    claimed = [row for row in rows if row[0] == "claimed"]
    others = [row for row in rows if row[0] != "claimed"]
    return Exchange(
        claims=[
            Claim(id_, token, storage, path, attempt, () if expected is None else _expected(expected))
            for _, id_, token, storage, path, attempt, expected, *_ in claimed
        ],
        alone=bool(claimed and claimed[0][7]),  # one answer's files are all alone, or none of them is
        unsettled=frozenset((row[1], row[2]) for row in others if row[0] == "unsettled"),
        stale=frozenset((row[1], row[2]) for row in others if row[0] == "stale"),
        next={row[3]: (row[8], row[1]) for row in others if row[0] == "next"},
        wait={row[3]: row[9] for row in others if row[0] == "wait"},
    )


def _handed_in(results: Sequence[Result], encoding: str) -> str:
    """Results as the JSON text that lapse.exchange_files takes; only the rare error has to be quoted."""
    said = [
        f'{{"id":{claim.id},"token":{claim.token},"outcome":"{outcome.verdict}","bytes":{outcome.bytes}'
        f"{_error(outcome.error, encoding) if outcome.error else ''}}}"
        for claim, outcome in results
    ]
    return f"[{','.join(said)}]"


def _error(text: str, encoding: str) -> str:
    return f',"error":{json.dumps(storable(text, encoding=encoding))}'


def renew(conn: Connection, worker: str, claims: Sequence[Claim], *, lease: float) -> frozenset[Receipt]:
    """Hold on to files that take longer; those returned are not ours any more, or locked at the moment."""
    rows = _ask(
        conn,
        "select r.id, r.token"
        "  from lapse.renew_files(%s::text, %s::bigint[], %s::bigint[], %s::interval) as r",
        [worker, [claim.id for claim in claims], [claim.token for claim in claims], timedelta(seconds=lease)],
    )
    return frozenset((id_, token) for id_, token in rows)


def _expected(alternatives: list[dict[str, Any]]) -> tuple[Expected, ...]:
    return tuple(
        Expected(size=one.get("size"), mtime_ns=one.get("mtime_ns"), etag=one.get("etag"))
        for one in alternatives
    )


def listen(conn: Connection) -> None:
    """Ask to be nudged when something is queued that is due soon."""
    conn.execute(f"listen {CHANNEL}")


def nudged(conn: Connection, seconds: float) -> bool:
    """Sleep until nudged or until the time is over; True when nudged."""
    until = monotonic() + seconds
    while came := [one.payload for one in conn.notifies(timeout=max(0.0, until - monotonic()), stop_after=1)]:
        if nudging(came):
            return True
    return False


def nudging(payloads: Iterable[str]) -> bool:
    """Whether one of these asks to look into the queue; probes are their sender's alone."""
    return any(not payload.startswith(PROBE) for payload in payloads)


def hello(
    conn: Connection, worker: str, *, host: str, pid: int, version: str, storages: Sequence[str]
) -> Welcome:
    """Put the worker on the list."""
    [row] = _ask(
        conn,
        "select api_version, notify_horizon from lapse.worker_hello(%s, %s, %s, %s, %s)",
        [worker, host, pid, version, list(storages)],
    )
    return Welcome(*row)


def beat(
    conn: Connection,
    worker: str,
    *,
    files: int,
    failed: int,
    freed: int,
    ticking: bool,
    troubles: Mapping[str, str],
) -> None:
    """Say that the worker is alive, what it did since it started, and which storages are in trouble."""
    encoding = conn.info.parameter_status("server_encoding") or ""
    said = {name: storable(trouble, encoding=encoding) for name, trouble in troubles.items()}
    _ask(
        conn,
        "select lapse.worker_beat(%s, %s, %s, %s, %s, %s)",
        [worker, files, failed, freed, ticking, Jsonb(said)],
    )


def bye(conn: Connection, worker: str) -> None:
    """Take the worker off the list."""
    _ask(conn, "select lapse.worker_bye(%s)", [worker])


def retry(conn: Connection, ids: Sequence[int] | None, storage: str | None) -> int:
    """Revive dead rows: those named, those of a storage, or all; return how many."""
    return _count(conn, "select lapse.retry_files(%s::bigint[], %s::text)", [ids and list(ids), storage])


def discard(conn: Connection, ids: Sequence[int], reason: str) -> int:
    """Take rows out of the queue without deleting their files; return how many."""
    return _count(conn, "select lapse.discard_files(%s::bigint[], %s::text)", [list(ids), reason])


def _count(conn: Connection, query: str, arguments: list[Any]) -> int:
    [(count,)] = _ask(conn, query, arguments)
    return int(count)


def _ask(conn: Connection, query: str, arguments: list[Any]) -> list[tuple[Any, ...]]:
    """One call; where another isolation level is the default, in a transaction that has the right one.

    The default is not changed for the session: behind a pooler it may be somebody else's next.
    """
    try:
        with translated(), nullcontext() if conn.isolation_level is None else conn.transaction():
            return conn.execute(query, arguments).fetchall()
    except WrongIsolation:
        if conn.isolation_level is not None:
            raise
    conn.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
    return _ask(conn, query, arguments)
