"""The worker's life: listen, drain, wait, and again, until told to stop.

Listening comes before draining: a file queued while we drain has already left its nudge behind. Waiting
ends with a nudge, with the next file's due time, or with the poll that makes up for nudges lost with a
connection.
"""

import logging
import os
import secrets
import socket
from typing import Any

import psycopg

from pglapse import __version__, queue, schema, text
from pglapse.deadline import LAST, Connection, Patience
from pglapse.drain import ADOPT, Worker, drain
from pglapse.errors import NotAdopted, PglapseError
from pglapse.listening import Listening
from pglapse.outage import Outage
from pglapse.stop import Stop, Stopping
from pglapse.storage import clock
from pglapse.supervisor import Supervisor
from pglapse.sweep.schedule import Sweeper
from pglapse.ticker import Mode, Ticker, tick

log = logging.getLogger(__name__)

BEAT = 15.0  # seconds between two signs of life
LATER = "; once the lease is over, another attempt finds the files gone"


def new_id() -> str:
    """A worker's name: where it runs, and something no other has."""
    return f"{text.storable(socket.gethostname(), 100)}-{os.getpid()}-{secrets.token_hex(3)}"


def serve(worker: Worker, stop: Stop, mode: Mode, sweeper: Sweeper | None = None) -> None:
    """Work until told to stop, then for the time of grace: a storage that hangs is left behind.

    Raises only when this worker and its database don't fit together, or when a thread of its own died.
    """
    life = Life(worker, stop, Ticker(mode, worker.id), sweeper or Sweeper({}, {}))
    try:
        while not stop():
            try:
                with stop.interruptible():
                    conn = life.connect()
                with conn:
                    _attend(conn, life)
            except Stopping:
                break
            except psycopg.Error as error:
                life.check()
                pause = life.outage.noted(error)
                life.supervisor.status(f"waiting for the database: {text.one_line(error)}")
                life.supervisor.alive()
            else:
                continue
            try:
                stop.pause(pause)
            except Stopping:
                break
        life.supervisor.stopping()
        life.sweeper.stop()
        life.ticker.leave()
        if worker.busy or worker.unreported:
            _hand_in(life)
    finally:
        life.sweeper.stop()
        life.ticker.stop(max(LAST, min(5.0, stop.left(worker.grace))))
    log.info(
        "stopped after %s deleted or missing, %s freed", text.files(worker.done), text.size(worker.freed)
    )


class Life:
    """What outlasts each single connection of a worker."""

    def __init__(self, worker: Worker, stop: Stop, ticker: Ticker, sweeper: Sweeper) -> None:
        self.worker = worker
        self.stop = stop
        self.ticker = ticker
        self.sweeper = sweeper
        self.outage = Outage("queue")
        self.supervisor = Supervisor()
        self.listening = Listening(stop)
        self._patience = Patience(left=self.left)

    def connect(self, **options: Any) -> Connection:
        conn = schema.for_worker(self._patience, **options)
        conn.alive = self.supervisor.alive
        return conn

    def check(self) -> None:
        """Raise when a thread of ours is dead."""
        self.ticker.check()
        self.sweeper.check()

    def left(self) -> float:
        """Seconds until all has to come to an end."""
        return self.stop.left(self.worker.grace)


def once(worker: Worker, mode: Mode) -> None:
    """Delete what is due, then return; with mode ``always``, run the policies that are due first."""
    with schema.for_worker() as conn:
        _greet(conn, worker)
        try:
            with schema.expected(conn, "grant_worker"):
                if mode == "always":
                    tick(conn)
                while True:
                    drain(conn, worker)
                    clogged, count = worker.clogged, len(worker.unreported)
                    if not _settle(conn, worker) and clogged:
                        raise PglapseError(
                            f"the results of {text.files(count)} can't be handed in, so no more were taken",
                            hint="their rows are locked, or a file source fails: see the warnings above",
                        )
                    if not clogged:
                        break
        finally:
            if not conn.broken:
                queue.bye(conn, worker.id)
    if worker.halted is not None:
        raise NotAdopted(f"{worker.halted}: nothing is deleted", hint=ADOPT)
    for name, trouble in worker.troubles.items():
        raise PglapseError(f"storage {text.printable(name)} is away, its files wait: {trouble}")


def _attend(conn: Connection, life: Life) -> None:
    """Serve one connection until it breaks or the worker is told to stop."""
    worker, ticker, listening, supervisor = life.worker, life.ticker, life.listening, life.supervisor
    horizon = _greet(conn, worker)
    ticker.start()
    life.sweeper.start()
    listening.begin(conn)
    worker.horizon = listening.longest(horizon)
    worker.nudge()
    beaten, told, clogged = clock(), None, False
    with schema.expected(conn, "grant_worker"):
        while not life.stop():
            supervisor.alive()
            life.check()
            state = ticker.ticking, worker.troubles
            if clock() - beaten >= BEAT or state != told:
                beaten, told = clock(), state
                _beat(conn, worker, ticking=ticker.ticking)
                supervisor.status(_status(worker))
            if worker.turn(conn):
                life.outage.over()
                supervisor.ready()
                if worker.clogged != clogged:
                    clogged = worker.clogged
                    _tell(worker)
                continue
            if len(worker.troubles) == len(worker.lanes):
                supervisor.ready()  # there is nothing to ask for, and that is told
            if listening.look(conn) or worker.horizon != listening.longest(horizon):
                worker.horizon = listening.longest(horizon)
                worker.nudge()
                continue
            worker.rest(conn, worker.horizon)
        supervisor.stopping()
        ticker.leave()
        _finish(conn, life)
    _settle(conn, worker, max(LAST, min(5.0, life.left())))
    queue.bye(conn, worker.id)


def _status(worker: Worker) -> str:
    """One line for `systemctl status`."""
    done = f"{text.files(worker.done)} deleted or missing, {text.size(worker.freed)} freed"
    if worker.halted is not None:
        return f"{done}; {worker.halted}: nothing is deleted"
    return "; ".join([done, *(f"storage {name}: {trouble}" for name, trouble in worker.troubles.items())])


def _finish(conn: Connection, life: Life) -> None:
    """Wait for the files in hand, hand in what became of them and give the rest back.

    The rest at once: a storage that hangs would keep it for as long as we wait.
    """
    worker = life.worker
    worker.give_back()
    while (left := life.left()) > 0:
        life.supervisor.alive()
        if worker.turn(conn):
            continue
        if not worker.busy:
            break
        worker.rest(conn, left)
    for name in worker.in_hand:
        log.warning("storage %s does not come to an end: left behind%s", text.printable(name), LATER)


def _greet(conn: Connection, worker: Worker) -> float:
    """Introduce the worker to the database and see that they fit; return the poll interval in seconds."""
    with schema.expected(conn, "grant_worker"):
        welcome = queue.hello(
            conn,
            worker.id,
            host=text.storable(socket.gethostname()),
            pid=os.getpid(),
            version=__version__,
            storages=sorted(worker.lanes),
        )
    schema.agree(conn, (welcome.api_version,))
    with schema.expected(conn, "grant_worker"):
        worker.introduce(conn)
    return welcome.notify_horizon.total_seconds()


def _tell(worker: Worker) -> None:
    if worker.clogged:
        log.warning(
            "the results of %s can't be handed in, so no more are taken: "
            "their rows are locked, or a file source fails",
            text.files(len(worker.unreported)),
        )
    else:
        log.info("results can be handed in again")


def _settle(conn: Connection, worker: Worker, patience: float = 5.0) -> bool:
    """Hand in results whose rows were locked, for a while; after that the lease ends by itself.

    Returns whether all could be handed in.
    """
    until = clock() + patience
    while worker.unreported and clock() < until:
        worker.hand_in(conn)
        if worker.unreported:
            queue.nudged(conn, 0.1)
    if worker.unreported:
        log.warning(
            "%d results could not be handed in: their rows are locked%s", len(worker.unreported), LATER
        )
        worker.forget()
        return False
    return True


def _beat(conn: Connection, worker: Worker, *, ticking: bool) -> None:
    queue.beat(
        conn,
        worker.id,
        files=worker.done,
        failed=worker.failed,
        freed=worker.freed,
        ticking=ticking,
        troubles=worker.troubles,
    )


def _hand_in(life: Life) -> None:
    """One last try to report what was done before the connection was lost."""
    worker = life.worker
    try:
        with life.connect(connect_timeout=2) as conn:
            _finish(conn, life)
            _settle(conn, worker, max(LAST, min(5.0, life.left())))
            queue.bye(conn, worker.id)
    except psycopg.Error as error:
        log.warning(
            "%d results could not be handed in: %s%s", len(worker.unreported), text.one_line(error), LATER
        )
