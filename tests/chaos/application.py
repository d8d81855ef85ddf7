"""An application: transactions on files, each noted before its COMMIT and after it.

``python -m tests.chaos.application --help``. It goes on until SIGTERM. A transaction whose COMMIT was not
answered is looked up before the next one begins, so what one application does has an order. Facts noted:

- ``intent``: all is done but the COMMIT, with what the transaction did to which file (see `Doing`);
- ``outcome``: ``committed`` or ``aborted``, and ``seen``: whether COMMIT's own answer told so;
- ``failed``: it never came to a COMMIT;  ``rolled back``: it was not meant to.
"""

import argparse
import os
import random
import signal
import socket
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg

from tests.chaos.disk import Disk, Place, Writer
from tests.chaos.journal import Journal, now

PATIENCE = 4.0  # seconds that one statement may take before the connection counts as dead
LOOKING = 60.0  # seconds to find out what became of a COMMIT
ROLLED_BACK = 0.15  # of all transactions
DAWDLING = 0.02  # of all transactions: they keep their locks for a second or two

Connection = psycopg.Connection[Any]


class Doing:
    """What a transaction does to files, as the judge reads it.

    request   the file may go from ``due`` on; ``maybe``: perhaps not: a worker has just marked it as gone;
              ``guard``: only if it still is this generation
    cancel    an earlier request no longer counts; ``maybe``: perhaps it does
    refer     a row needs the file from now on; ``fragile``: until a worker says that the file is gone
    unrefer   that row needs it no more

    ``first`` is when the statement began.
    """

    def __init__(self) -> None:
        self.effects: list[dict[str, Any]] = []

    def request(
        self,
        place: Place,
        first: int,
        due: int | None = None,
        *,
        maybe: bool = False,
        guard: str | None = None,
    ) -> None:
        self.effects.append(
            {
                "does": "request",
                "place": place,
                "first": first,
                "due": due or first,
                "maybe": maybe,
                "guard": guard,
            }
        )

    def cancel(self, conn: Connection, places: Collection[Place], first: int) -> None:
        """Note a cancel. Another transaction may have had the row for too long: then it is ``maybe``.

        A row that is still there and not marked was not taken out (or has been queued anew meanwhile).
        """
        missed = conn.execute(
            "select q.storage, q.path from unnest(%s::text[], %s::text[]) as f (storage, path)"
            "  join lapse.file_cleanup_queue as q on q.storage = f.storage"
            "   and lapse.path_digest(q.path) = lapse.path_digest(f.path)"
            " where q.cancelled_at is null",
            [[storage for storage, _ in places], [path for _, path in places]],
        ).fetchall()
        for place in places:
            self.effects.append(
                {"does": "cancel", "place": place, "first": first, "maybe": tuple(place) in missed}
            )

    def refer(self, place: Place, first: int, key: str, *, fragile: bool = False) -> None:
        self.effects.append({"does": "refer", "place": place, "first": first, "key": key, "fragile": fragile})

    def unrefer(self, place: Place, first: int, key: str) -> None:
        self.effects.append({"does": "unrefer", "place": place, "first": first, "key": key})


class Application:
    """A connection that is made anew whenever it breaks, and a journal."""

    def __init__(
        self, name: str, dsn: str, disk: Disk, journal: Journal, dice: random.Random, *, patient: bool = False
    ) -> None:
        self.name = name
        self.dice = dice
        self.disk = disk
        self.files = Writer(disk, journal, name)
        self.stopping = False
        self._dsn = dsn
        self._journal = journal
        self._patient = patient
        self._conn: Connection | None = None
        self._number = 0
        self._busy_until: float | None = None
        threading.Thread(target=self._watch, daemon=True).start()

    def transact(self, work: Callable[[Connection, Doing], None]) -> bool:
        """Do it in one transaction; whether it was committed, however long that takes to find out."""
        self._number += 1
        mark = f"{self.name}-{self._number}"
        doing = Doing()
        try:
            conn = self._connected()
            with self._in_time():
                xid, pid = conn.execute(
                    "insert into chaos.txn (id) values (%s)"
                    " returning pg_current_xact_id()::text, pg_backend_pid()",
                    [mark],
                ).fetchone() or ("", 0)
                work(conn, doing)
                if self.dice.random() < DAWDLING:
                    time.sleep(self.dice.uniform(0.2, 2))
                if self.dice.random() < ROLLED_BACK:
                    conn.rollback()
                    self._journal.note("rolled back", txn=mark)
                    return False
        except psycopg.Error as error:
            self._journal.note("failed", txn=mark, error=error.sqlstate or type(error).__name__)
            self._lost(error)
            return False
        self._journal.note("intent", txn=mark, xid=xid, effects=doing.effects)
        try:
            with self._in_time():
                conn.commit()
        except psycopg.Error:
            self._drop()
            return self._look_up(mark, xid, pid)
        self._journal.note("outcome", txn=mark, fate="committed", seen=True)
        return True

    def _connected(self) -> Connection:
        if self._conn is None:
            # No prepared statements: a pooler may give each transaction another server connection.
            conn = psycopg.connect(self._dsn, prepare_threshold=None, application_name=self.name)
            conn.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
            self._conn = conn
        return self._conn

    def _lost(self, error: psycopg.Error) -> None:
        conn = self._conn
        if conn is not None and not conn.closed:
            with suppress(psycopg.Error), self._in_time():
                conn.rollback()
                return
        self._drop()
        if isinstance(error, psycopg.OperationalError):
            time.sleep(self.dice.uniform(0.02, 0.2))

    def _drop(self) -> None:
        if self._conn is not None:
            with suppress(psycopg.Error):
                self._conn.close()
        self._conn = None

    def _look_up(self, mark: str, xid: str, pid: int) -> bool:
        """Find out what became of a transaction whose COMMIT was not answered."""
        until = time.monotonic() + LOOKING
        while time.monotonic() < until:
            try:
                conn = self._connected()
                with self._in_time():
                    # First whether it is over, then, in a statement of its own, whether it left its mark.
                    (status,) = conn.execute("select pg_xact_status(%s::xid8)", [xid]).fetchone() or (None,)
                    (there,) = conn.execute(
                        "select exists (select from chaos.txn where id = %s)", [mark]
                    ).fetchone() or (False,)
                    if not there and status == "in progress" and not self._patient:
                        conn.execute(
                            "select pg_terminate_backend(pid) from pg_stat_activity"
                            " where pid = %s and backend_xid = %s::xid8::xid",
                            [pid, xid],
                        )
                    conn.rollback()
                if there or status != "in progress":
                    fate = "committed" if there else "aborted"
                    self._journal.note("outcome", txn=mark, fate=fate, seen=False, status=status)
                    return bool(there)
            except psycopg.Error:
                self._drop()
            time.sleep(0.05)
        self._journal.note("gave up", txn=mark)
        raise SystemExit(f"{self.name}: can't find out what became of {mark}")

    @contextmanager
    def _in_time(self) -> Iterator[None]:
        """Cut the connection if what is done here takes too long: its other end may be gone."""
        self._busy_until = time.monotonic() + PATIENCE
        try:
            yield
        finally:
            self._busy_until = None

    def _watch(self) -> None:
        while True:
            time.sleep(0.1)
            until, conn = self._busy_until, self._conn
            if until is not None and conn is not None and time.monotonic() > until:
                with suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(conn.fileno())) as line:
                    line.shutdown(socket.SHUT_RDWR)


def main() -> None:
    from tests.chaos import market, plain  # noqa: PLC0415 (they import this module)

    kinds = {"plain": plain.behave, "market": market.behave}
    parser = argparse.ArgumentParser()
    parser.add_argument("--kind", choices=kinds, required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--dsn", required=True)
    parser.add_argument("--disk", type=Path, required=True)
    parser.add_argument("--journal", type=Path, required=True)
    parser.add_argument("--seed", required=True)
    parser.add_argument("--pause", type=float, default=5, help="milliseconds between two transactions")
    parser.add_argument("--patient", action="store_true", help="terminate no backend that hangs in a COMMIT")
    given = parser.parse_args()
    journal = Journal(given.journal)
    journal.note("application", pid=os.getpid())
    app = Application(
        given.name, given.dsn, Disk(given.disk), journal, random.Random(given.seed), patient=given.patient
    )

    def stop(_number: int, _frame: object) -> None:
        app.stopping = True

    signal.signal(signal.SIGTERM, stop)
    steps = kinds[given.kind](app)
    while not app.stopping:
        next(steps)
        time.sleep(app.dice.expovariate(1000 / given.pause) if given.pause else 0)
    journal.note("ended", at=now())


if __name__ == "__main__":
    main()
