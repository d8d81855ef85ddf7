"""The database's side of the file queue: each function here is one call. What is due, who may have it and
what a result means is decided there.

What there is one of for each file is a named tuple: those are made in a fraction of a dataclass's time.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from datetime import timedelta
from itertools import repeat
from time import monotonic
from typing import Any, LiteralString, NamedTuple

import psycopg
from psycopg.generators import fetch_many
from psycopg.generators import send as flush
from psycopg.pq import ExecStatus
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
class Taken:
    """Files of one storage that were taken together, as they came: reading them can wait."""

    storage: str
    token: int
    packed: str

    def claims(self) -> list[Claim]:
        """What they are."""
        said = json.loads(self.packed)
        guards = said["expected"]
        return list(
            map(
                Claim,
                said["ids"],
                repeat(self.token),
                repeat(self.storage),
                said["paths"],
                said["attempts"],
                repeat(()) if guards is None else map(_expected, guards),
            )
        )


@dataclass(frozen=True, slots=True)
class Exchange:
    """The answer to results handed in: more files, and the results that must be handed in again."""

    taken: list[Taken]
    alone: bool
    """The files taken were lost with a worker before: nothing else may be in hand while they are deleted."""
    unsettled: frozenset[Receipt]
    stale: frozenset[Receipt]
    next: Mapping[str, Position]
    """Where the search goes on, for each storage of which all files asked for came."""
    wait: Mapping[str, float | None]
    """For each of the others, seconds until there may be more; 0 at once, None not before a nudge."""
    halted: str | None = None
    """Why no file is handed out at all; None when all is well."""

    @property
    def claims(self) -> list[Claim]:
        """All files taken."""
        return [claim for taken in self.taken for claim in taken.claims()]


@dataclass(frozen=True, slots=True)
class Welcome:
    """What the database tells a worker at the start."""

    api_version: int
    notify_horizon: timedelta


EXCHANGE: LiteralString = (
    "select e.kind, e.id, e.token, e.storage, e.due, e.alone, e.wait_seconds, e.files::text, e.note"
    "  from lapse.exchange_files_packed({}::text, {}::jsonb, {}::text[], {}::integer[], {}::interval,"
    " {}::bigint[], {}::bigint[], {}::bigint[], {}::bigint[], {}::bigint[]) as e"
)
EXECUTED: LiteralString = EXCHANGE.format(*("%s",) * 10)
SENT = EXCHANGE.format(*(f"${number}" for number in range(1, 11))).encode()

READ: tuple[Callable[[str], Any], ...] = (str, int, int, str, int, "t".__eq__, float, str, str)
"""How the columns of an answer are read."""


class Report:
    """Results made ready to be sent, which takes a while and can be done beforehand.

    Those of which nothing is to be said but that the file is gone travel as three lists of numbers, all
    others as JSON, in which only the rare error has to be quoted.
    """

    __slots__ = ("bytes", "ids", "others", "results", "tokens")

    def __init__(self, conn: Connection, results: list[Result]) -> None:
        gone: list[Result] = []
        others: list[Result] = []
        for result in results:
            _, (verdict, _, error) = result
            (gone if verdict == "deleted" and error is None else others).append(result)
        self.results = results
        self.ids = _list([claim[0] for claim, _ in gone])
        self.tokens = _list([claim[1] for claim, _ in gone])
        self.bytes = _list([outcome[1] for _, outcome in gone])
        self.others = _said(conn, others)


class Call:
    """An exchange that the server is working on."""

    def __init__(self, conn: Connection, arguments: list[str]) -> None:
        self._conn = conn
        self._arguments = arguments
        self._sent = conn.autocommit and conn.isolation_level is None
        if self._sent:
            encoding = _encoding(conn)
            conn.pgconn.send_query_params(SENT, [argument.encode(encoding) for argument in arguments])
            conn.wait(flush(conn.pgconn))

    def answer(self) -> Exchange:
        """Wait for the answer. After that the connection is free again."""
        rows = None
        if self._sent:
            with suppress(WrongIsolation):
                rows = self._received()
        if rows is None:
            rows = _ask(self._conn, EXECUTED, self._arguments)
        return Exchange(
            taken=[Taken(row[3], row[2], row[7]) for row in rows if row[0] == "claimed"],
            alone=any(row[5] for row in rows),  # one answer's files are all alone, or none of them is
            unsettled=frozenset((row[1], row[2]) for row in rows if row[0] == "unsettled"),
            stale=frozenset((row[1], row[2]) for row in rows if row[0] == "stale"),
            next={row[3]: (row[4], row[1]) for row in rows if row[0] == "next"},
            wait={row[3]: row[6] for row in rows if row[0] == "wait"},
            halted=next((row[8] for row in rows if row[0] == "halted"), None),
        )

    def _received(self) -> list[tuple[Any, ...]]:
        encoding = _encoding(self._conn)
        with translated():
            results = self._conn.wait(fetch_many(self._conn.pgconn))
            for result in results:  # a server that ends us, or a pooler, may add its error to an answer
                if result.status != ExecStatus.TUPLES_OK:
                    raise psycopg.errors.error_from_result(result, encoding=encoding)
            if len(results) != 1:
                raise psycopg.OperationalError(f"{len(results)} answers came where one was expected")
            [result] = results
        return [
            tuple(
                None if (value := result.get_value(row, column)) is None else read(value.decode(encoding))
                for column, read in enumerate(READ)
            )
            for row in range(result.ntuples)
        ]


def send(
    conn: Connection,
    worker: str,
    report: Report,
    wants: Sequence[Want],
    *,
    held: Sequence[Result] = (),
    lease: float,
) -> Call:
    """Hand in results and ask for files that are due, in due order, without waiting for the answer.

    ``held``: results that could not be handed in before. Until the answer was taken, nothing else may be
    done with the connection.
    """
    return Call(
        conn,
        [
            worker,
            f"[{','.join([*_said(conn, held), *report.others])}]",
            _list([_quoted(want.storage) for want in wants]),
            _list([want.limit for want in wants]),
            f"{lease:.6f} s",
            _list(["NULL" if want.after[0] is None else want.after[0] for want in wants]),
            _list([want.after[1] for want in wants]),
            report.ids,
            report.tokens,
            report.bytes,
        ],
    )


def exchange(
    conn: Connection, worker: str, results: Sequence[Result], wants: Sequence[Want], *, lease: float
) -> Exchange:
    """Hand in results and take files that are due, in due order."""
    return send(conn, worker, Report(conn, list(results)), wants, lease=lease).answer()


def _list(items: Iterable[object]) -> str:
    """An array as PostgreSQL reads it."""
    return f"{{{','.join(map(str, items))}}}"


def _quoted(text: str) -> str:
    """A text as an item of such an array."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _encoding(conn: Connection) -> str:
    """What texts are encoded in on the way; where the client takes bytes as they come, as psycopg does."""
    return "utf-8" if conn.info.encoding == "ascii" else conn.info.encoding


def _said(conn: Connection, results: Iterable[Result]) -> list[str]:
    """Results as the JSON that lapse.exchange_files takes."""
    encoding = conn.info.parameter_status("server_encoding") or ""
    return [
        f'{{"id":{claim.id},"token":{claim.token},"outcome":"{outcome.verdict}","bytes":{outcome.bytes}'
        f"{_error(outcome.error, encoding) if outcome.error else ''}}}"
        for claim, outcome in results
    ]


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


def _expected(alternatives: list[dict[str, Any]] | None) -> tuple[Expected, ...]:
    return tuple(
        Expected(size=one.get("size"), mtime_ns=one.get("mtime_ns"), etag=one.get("etag"))
        for one in alternatives or ()
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
