"""Keep the schedule where pg_cron does not: call lapse.run_due from a thread and connection of its own.

Draining never waits for it. Of several workers one ticks; which one is settled by a row that its heartbeats
keep, so one that dies or is cut off hands over within a minute or so, whatever stands before the database.
"""

import logging
from collections.abc import Callable
from threading import Event, Thread
from typing import Literal

import psycopg

from pglapse.deadline import Connection, Patience
from pglapse.errors import HelperDied, PglapseError, RunFailed, translated
from pglapse.outage import Outage
from pglapse.schema import expected, for_worker
from pglapse.storage import clock
from pglapse.text import printable

log = logging.getLogger(__name__)

Mode = Literal["auto", "always", "never"]

EVERY = 2.0  # seconds between two looks
AGAIN = 0.5  # seconds between two attempts to cancel a run
LONG = 300.0  # seconds that a call may take which runs policies: a batch may be a large one


class Ticker:
    """The thread that ticks, as the worker's main thread sees it."""

    def __init__(self, mode: Mode, worker: str) -> None:
        self.mode = mode
        self.worker = worker
        self.ticking = False
        self._stop = Event()
        self._conn: Connection | None = None
        self._running = False
        self._died: BaseException | None = None
        self._patience, self.long = Patience(), Patience(LONG)
        self._thread = Thread(target=self._run, name="ticker", daemon=True)

    def start(self) -> None:
        """Begin, if that is still to be done: once the worker is on the list, or it would get no turn."""
        if self.mode != "never" and self._thread.ident is None:
            self._thread.start()

    def check(self) -> None:
        """Raise when the thread ended by an error: this worker looks alive but keeps no schedule."""
        if isinstance(self._died, PglapseError):
            raise self._died
        if self._died is not None:
            raise HelperDied(
                f"the thread that keeps the schedule died: {type(self._died).__name__}: {self._died}"
            ) from self._died

    def leaving(self) -> bool:
        """Whether it was told to leave."""
        return self._stop.is_set()

    def leave(self) -> None:
        """Begin no further tick; a run that is under way is cancelled. Does not wait."""
        if not self._stop.is_set():
            self._stop.set()
            self._cancel()

    def stop(self, patience: float = 5.0) -> None:
        """Have left, and wait for it.

        A server that has not got the call yet ignores that it is cancelled, so this does it again.
        """
        self.leave()
        until = clock() + patience
        while self._thread.is_alive() and (left := until - clock()) > 0:
            self._thread.join(min(AGAIN, left))
            self._cancel()

    def run(self, conn: Connection) -> None:
        """Run what is due, unless told to leave."""
        self._running = True  # before the look: so either this hears of `leave`, or that of this
        try:
            if not self._stop.is_set():
                tick(conn, self.long, leaving=self.leaving)
        finally:
            self._running = False

    def _cancel(self) -> None:
        conn = self._conn
        if conn is not None and self._running:
            try:
                conn.cancel_safe(timeout=2)
            except psycopg.Error:
                log.debug("could not cancel the run that is under way", exc_info=True)

    def _run(self) -> None:
        try:
            outage = Outage("schedule")
            while not self._stop.is_set():
                try:
                    self._serve(outage)
                except psycopg.Error as error:
                    if self._stop.is_set() and isinstance(error, psycopg.errors.QueryCanceled):
                        log.debug("what was under way was cancelled, by ourselves")
                        break
                    self._stop.wait(outage.noted(error))
        except BaseException as error:  # handed to the main thread
            self._died = error
        finally:
            self.ticking = False

    def _serve(self, outage: Outage) -> None:
        with for_worker(self._patience) as conn:
            self._conn = conn
            try:
                while not self._stop.is_set():
                    with expected(conn, "grant_worker"):
                        look(conn, self)
                    outage.over()
                    self._stop.wait(EVERY)
                if self.ticking:
                    conn.execute("select lapse.tick_release(%s)", [self.worker])
            finally:
                self._conn = None
                self.ticking = False


def look(conn: Connection, ticker: Ticker) -> None:
    """Run what is due if that is this worker's task now."""
    with translated():
        [(wanted, held)] = conn.execute(
            "select w.wanted, case when w.wanted then lapse.tick_acquire(%(me)s)"
            "                     else lapse.tick_release(%(me)s) end"
            "  from (select lapse.tick_wanted(%(mode)s)) as w (wanted)",
            {"me": ticker.worker, "mode": ticker.mode},
        )
    ticking = wanted and held
    if ticking != ticker.ticking:
        log.info(_news(ticking=ticking, wanted=wanted))
        ticker.ticking = ticking
    if ticking:
        ticker.run(conn)


def _news(*, ticking: bool, wanted: bool) -> str:
    if ticking:
        return "this worker keeps the schedule now"
    return "another worker keeps the schedule now" if wanted else "pg_cron keeps the schedule again"


def tick(
    conn: Connection, patience: Patience | None = None, leaving: Callable[[], bool] = lambda: False
) -> None:
    """Run every policy that is due. A policy that fails is recorded in lapse.run_log and stops nothing.

    ``leaving``: whether what was under way was cancelled by ourselves.
    """
    try:
        with translated(), conn.within(patience or Patience(LONG)):
            conn.execute("call lapse.run_due('worker')")
    except RunFailed as error:
        said = printable(str(error)) + (f" ({printable(error.detail, 400)})" if error.detail else "")
        if leaving():
            log.info("cancelled: %s", said)
        else:
            log.warning("%s", said)
    except psycopg.errors.QueryCanceled:
        log.info("the run that was under way was cancelled")
