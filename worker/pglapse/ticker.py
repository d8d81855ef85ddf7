"""Keep the schedule where pg_cron does not: call lapse.run_due from a thread and connection of its own.

Draining never waits for it. Of several workers one ticks; which one is settled by a lock that its
connection holds, so a worker that dies hands over by dying.
"""

import logging
from threading import Event, Thread
from typing import Any, Literal

import psycopg

from pglapse.errors import HelperDied, PglapseError, RunFailed, translated
from pglapse.outage import Outage
from pglapse.schema import expected, for_worker
from pglapse.text import printable

log = logging.getLogger(__name__)

Mode = Literal["auto", "always", "never"]

EVERY = 2.0  # seconds between two looks


class Ticker:
    """The thread that ticks, as the worker's main thread sees it."""

    def __init__(self, mode: Mode) -> None:
        self.mode = mode
        self.ticking = False
        self._stop = Event()
        self._conn: psycopg.Connection[Any] | None = None
        self._died: BaseException | None = None
        self._thread = Thread(target=self._run, name="ticker", daemon=True)

    def start(self) -> None:
        if self.mode != "never":
            self._thread.start()

    def check(self) -> None:
        """Raise when the thread ended by an error: this worker looks alive but keeps no schedule."""
        if isinstance(self._died, PglapseError):
            raise self._died
        if self._died is not None:
            raise HelperDied(
                f"the thread that keeps the schedule died: {type(self._died).__name__}: {self._died}"
            ) from self._died

    def stop(self, patience: float = 5.0) -> None:
        """Stop ticking; a run that is under way is asked to end after its batch."""
        self._stop.set()
        if not self._thread.is_alive():
            return
        conn = self._conn
        if conn is not None and self.ticking:
            try:
                conn.cancel_safe(timeout=2)
            except psycopg.Error:
                log.debug("could not cancel the run that is under way", exc_info=True)
        self._thread.join(patience)

    def _run(self) -> None:
        try:
            outage = Outage("schedule")
            while not self._stop.is_set():
                try:
                    self._serve(outage)
                except psycopg.Error as error:
                    self._stop.wait(outage.noted(error))
        except BaseException as error:  # handed to the main thread
            self._died = error
        finally:
            self.ticking = False

    def _serve(self, outage: Outage) -> None:
        with for_worker() as conn:
            self._conn = conn
            try:
                while not self._stop.is_set():
                    with expected(conn, "grant_worker"):
                        look(conn, self)
                    outage.over()
                    self._stop.wait(EVERY)
            finally:
                self._conn = None
                self.ticking = False


def look(conn: psycopg.Connection[Any], ticker: Ticker) -> None:
    """Run what is due if that is this worker's task now."""
    with translated():
        [(wanted,)] = conn.execute("select lapse.tick_wanted(%s)", [ticker.mode])
        turn = "acquire" if wanted else "release"
        [(held,)] = conn.execute(f"select lapse.tick_{turn}()")
    ticking = wanted and held
    if ticking != ticker.ticking:
        log.info("this worker keeps the schedule now" if ticking else "pg_cron keeps the schedule again")
        ticker.ticking = ticking
    if ticking:
        tick(conn)


def tick(conn: psycopg.Connection[Any]) -> None:
    """Run every policy that is due. A policy that fails is recorded in lapse.run_log and stops nothing."""
    try:
        with translated():
            conn.execute("call lapse.run_due('worker')")
    except RunFailed as error:
        log.warning(
            "%s%s", printable(str(error)), f" ({printable(error.detail, 400)})" if error.detail else ""
        )
    except psycopg.errors.QueryCanceled:
        log.info("the run that was under way was cancelled")
