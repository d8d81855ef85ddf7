"""LISTEN that really listens: prove again and again that a notification arrives, and poll where none does.

A pooler that hands a connection to whoever has a transaction accepts LISTEN, answers that all is well, and
drops what the server then sends; nothing fails, files only go later and later. So the worker sends itself a
notification now and then. It sends it over another connection and waits for it without a word on its own:
a notification to oneself, or one that meets an answer under way, comes back even through such a pooler.
"""

import logging
import random
import secrets
from collections.abc import Callable
from time import monotonic

import psycopg
from psycopg import sql

from pglapse import text
from pglapse.deadline import Connection, Overdue, Patience, connect
from pglapse.queue import CHANNEL, PROBE, listen, nudging

log = logging.getLogger(__name__)

DEADLINE = 2.0  # seconds within which a notification arrives, or LISTEN is in vain
EVERY = 300.0  # seconds between two probes while they arrive
AGAIN = 120.0  # and while they don't
POLL = 5.0  # seconds between two looks into the queue of a worker that hears nothing
PIECE = 0.25  # longest wait between two looks at whether to stop


def probing() -> Connection:
    """A connection for one probe, with little patience: whoever has something to do meanwhile has to wait."""
    return connect(Patience(3.0), connect_timeout=3)


class Listening:
    """What a worker knows of its own hearing, over all its connections."""

    def __init__(
        self,
        stopping: Callable[[], bool] = lambda: False,
        *,
        another: Callable[[], Connection] = probing,
        deadline: float | None = None,
        every: float | None = None,
        again: float | None = None,
    ) -> None:
        self.deaf = False
        self._another = another
        self._stopping = stopping
        self._deadline = DEADLINE if deadline is None else deadline
        self._every = EVERY if every is None else every
        self._again = AGAIN if again is None else again
        self._due = 0.0
        self._token = secrets.token_hex(6)
        self._count = 0

    def begin(self, conn: Connection) -> None:
        """Listen on a new connection; what is known of the one before says nothing about it."""
        listen(conn)
        self._due = 0.0

    def longest(self, horizon: float) -> float:
        """How long a worker may sleep that would look into the queue every ``horizon`` seconds."""
        return min(horizon, POLL) if self.deaf else horizon

    def look(self, conn: Connection) -> bool:
        """Send a probe if one is due and wait for it; returns whether there was a nudge meanwhile.

        To be called when there is nothing else to do: waiting takes as long as the deadline where the probe
        is not heard.
        """
        if monotonic() < self._due:
            return False
        if self.deaf:
            listen(conn)  # whoever serves us now may not have been told
        self._count += 1
        payload = f"{PROBE} {self._token} {self._count}"
        trouble = self._send(conn, payload)
        heard, nudge = self._wait(conn, payload) if trouble is None else (False, False)
        if self._stopping():
            return nudge
        self._learnt(heard, trouble)
        self._due = monotonic() + (self._every if heard else self._again) * random.uniform(0.8, 1.2)  # noqa: S311
        return nudge

    def _send(self, conn: Connection, payload: str) -> str | None:
        """Have the probe sent by another session; returns why that was not possible, None if it was."""
        notify = sql.SQL("notify {}, {}").format(sql.Identifier(CHANNEL), sql.Literal(payload))
        try:
            with self._another() as other:
                other.execute(notify)
        except psycopg.OperationalError as error:
            if isinstance(error, Overdue) or is_pooled(conn):
                return text.one_line(error, 200)
            # One connection is all there is to be had, but it is the server itself that it leads to.
            conn.execute(notify)
        return None

    def _wait(self, conn: Connection, payload: str) -> tuple[bool, bool]:
        """Wait for the probe and nothing else; returns whether it came, and whether a nudge did."""
        heard = nudge = False
        until = monotonic() + self._deadline
        while not heard and not self._stopping() and (left := until - monotonic()) > 0:
            came = [one.payload for one in conn.notifies(timeout=min(left, PIECE), stop_after=1)]
            heard = payload in came
            nudge = nudge or nudging(came)
        return heard, nudge

    def _learnt(self, heard: bool, trouble: str | None) -> None:
        if heard and self.deaf:
            log.info("notifications arrive again")
        elif not heard and not self.deaf and trouble:
            log.warning(
                "can't find out whether notifications arrive here (%s); polling every %g s instead",
                trouble,
                POLL,
            )
        elif not heard and not self.deaf:
            log.warning(
                "no notification arrives here: what stands before the database swallows LISTEN, as PgBouncer"
                " does in transaction and statement mode; polling every %g s instead",
                POLL,
            )
        self.deaf = not heard


def is_pooled(conn: Connection) -> bool:
    """Whether a pooler answers for the server: then the process we were told of is not the one at work."""
    return conn.info.backend_pid != conn.prove()
