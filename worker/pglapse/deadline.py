"""A connection on which no exchange with the server lasts for ever.

A proxy, a firewall or a pulled cable can leave a connection that looks open and answers nothing. TCP's own
keepalive does not see the first two: somebody still acknowledges each packet. So every call has a deadline
here, and one that runs out shuts the socket and raises `Overdue`, an error like that of any lost
connection.

There is no watching thread, which could die unseen: whoever waits for the server looks at the clock. psycopg
does all its waiting in one method, which is replaced here; that it still does is checked on each connection.
"""

import os
import select
import socket
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any, TypeVar

import psycopg

from pglapse.connect import target
from pglapse.errors import HelperDied

PATIENCE = 60.0
LONGEST = 900.0
CALM = 3600.0
LAST = 1.0

LOOK = 0.1
"""Seconds between two looks at the clock."""

# What psycopg's generators yield (1: to read, 2: to write, 3: both), and are sent when it is possible.
EVENTS = {1: select.POLLIN, 2: select.POLLOUT, 3: select.POLLIN | select.POLLOUT}

T = TypeVar("T")


class Overdue(psycopg.OperationalError):
    """The server did not answer in time, and the connection is closed."""


class Patience:
    """How long a call may take: longer after each one that ran out, so that a slow server gets its chance.

    A call that was cut off may be tried again for ever otherwise, each time with the same little time. An
    hour after the last one it is as short as at first.
    """

    def __init__(
        self, seconds: float | None = None, left: Callable[[], float] = lambda: float("inf")
    ) -> None:
        """``left``: seconds until all has to come to an end; a call gets no more, but always `LAST`."""
        self._first = self._now = PATIENCE if seconds is None else seconds
        self._ran_out_at = -CALM
        self._left = left

    @property
    def seconds(self) -> float:
        if monotonic() - self._ran_out_at > CALM:
            self._now = self._first
        return self._now

    def over(self, waited: float) -> bool:
        """Whether a call that has waited for so long is to be given up."""
        return waited > self.seconds or (waited > LAST and self._left() <= 0)

    def ran_out(self) -> None:
        """Note a call that took too long."""
        self._now = min(self.seconds * 2, max(LONGEST, self._first))
        self._ran_out_at = monotonic()


class Connection(psycopg.Connection[Any]):
    """A connection whose calls raise `Overdue` after ``patience``; waiting for notifications is no call."""

    patience: Patience
    _waits = 0
    _idle = False

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.patience = Patience()
        self.alive: Callable[[], None] = lambda: None
        """Called now and then while waiting for the server, which comes to an end by the deadline."""

    def wait(self, gen: Generator[Any, Any, T], *arguments: Any, **options: Any) -> T:
        """What psycopg does with everything that it wants of the server; here with the deadline."""
        self._waits += 1
        if self._idle or options.get("timeout") is not None:
            return super().wait(gen, *arguments, **options)
        began, line = monotonic(), select.poll()
        try:
            wanted = next(gen)
            while True:
                line.register(self.pgconn.socket, EVENTS[wanted])
                came = line.poll(LOOK * 1000)
                if not came and self.patience.over(monotonic() - began):
                    break
                self.alive()
                wanted = gen.send(_ready(came[0][1]) if came else 0)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        self.patience.ran_out()
        self._cut()
        raise Overdue(f"the server has not answered for {monotonic() - began:.3g} s")

    def _cut(self) -> None:
        """Close the connection without a word to the other end, which would not take it."""
        with socket.socket(fileno=os.dup(self.pgconn.socket)) as line:
            line.shutdown(socket.SHUT_RDWR)
        self.pgconn.finish()

    def notifies(self, **options: Any) -> Generator[psycopg.Notify, None, None]:
        """As psycopg's: how long to wait for notifications is the caller's choice."""
        self._idle = True
        try:
            yield from super().notifies(**options)
        finally:
            self._idle = False

    @contextmanager
    def within(self, patience: Patience) -> Iterator[None]:
        """Have another patience with what is done in here."""
        before, self.patience = self.patience, patience
        try:
            yield
        finally:
            self.patience = before

    def prove(self) -> int:
        """See that deadlines are kept on this connection; returns the number of its server process.

        Raises `HelperDied` when they are not, which a psycopg newer than this package might bring about.
        """
        before = self._waits
        row = self.execute("select pg_catalog.pg_backend_pid()").fetchone()
        if self._waits == before:
            raise HelperDied(
                f"no deadline can be kept with psycopg {psycopg.__version__}: it waits elsewhere",
                hint="install a version of psycopg that this version of pglapse was tested with",
            )
        assert row is not None  # noqa: S101 (a function in the select list always answers one row)
        return int(row[0])


def _ready(events: int) -> int:
    """What poll saw, in psycopg's words; a broken line counts as both, so that libpq finds it broken."""
    return (1 if events & ~select.POLLOUT else 0) | (2 if events & ~select.POLLIN else 0)


def connect(patience: Patience | None = None, **options: Any) -> Connection:
    """Open a connection, as `pglapse.connect.connect` does, and see that deadlines are kept on it.

    Opening it has a deadline of its own, libpq's connect_timeout.
    """
    text, parameters = target(**{"autocommit": True, **options})
    conn = Connection.connect(text, **parameters)
    conn.patience = patience or Patience()
    try:
        conn.prove()
    except BaseException:
        conn.close()
        raise
    return conn
