"""What is done to workers, server and connections. Each fault strikes again and again, in its own thread."""

import os
import random
import signal
import threading
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psycopg

from pglapse import cluster
from pglapse.cluster import Cluster
from tests.chaos.database import APPLICATION, WORKER
from tests.chaos.fleet import Fleet, state


class Fault(ABC):
    """Something that can be inflicted; ``name`` is how it is counted."""

    name: str

    def begin(self) -> None:  # noqa: B027 (most have nothing to prepare)
        """What must be there before it first strikes."""

    @abstractmethod
    def strike(self, dice: random.Random, stop: threading.Event) -> int:
        """Do it; returns how often it was done. It must leave nothing broken behind."""


@dataclass(frozen=True)
class Rhythm:
    """A fault, and the shortest and longest pause before it strikes (again), in seconds."""

    fault: Fault
    shortest: float
    longest: float


class Trouble:
    """Runs faults until it is told to stop; a fault that fails ends the campaign."""

    def __init__(self, rhythms: Sequence[Rhythm], seed: str) -> None:
        self.toll: Counter[str] = Counter()
        self.failures: list[str] = []
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._go_on, args=(rhythm, random.Random(f"{seed}/{rhythm.fault.name}")))
            for rhythm in rhythms
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _go_on(self, rhythm: Rhythm, dice: random.Random) -> None:
        try:
            while not self._stop.wait(dice.uniform(rhythm.shortest, rhythm.longest)):
                self.toll[rhythm.fault.name] += rhythm.fault.strike(dice, self._stop)
        except Exception as error:
            self.failures.append(f"{rhythm.fault.name}: {type(error).__name__}: {error}")


@dataclass
class KillWorkers(Fault):
    """kill -9, and a new worker at once."""

    fleet: Fleet
    name: str = "workers killed"

    def strike(self, dice: random.Random, stop: threading.Event) -> int:
        self.fleet.kill(self.fleet.pick(dice))
        return 1


@dataclass
class ReplaceWorkers(Fault):
    """SIGTERM, sometimes twice: it must end in time, and with 0 unless it was told twice."""

    fleet: Fleet
    admin: str
    name: str = "workers told to stop"

    def strike(self, dice: random.Random, stop: threading.Event) -> int:
        with suppress(psycopg.OperationalError), psycopg.connect(self.admin) as conn:
            if ready := sorted(self.fleet.ready(conn)):
                return int(self.fleet.replace(dice.choice(ready), impatient=dice.random() < 0.2))
        return 0


@dataclass
class StopWorkers(Fault):
    """SIGSTOP for twice the lease, then SIGCONT: it goes on, and must leave alone what it no longer holds."""

    fleet: Fleet
    name: str = "workers stopped for twice their lease"

    def strike(self, dice: random.Random, stop: threading.Event) -> int:
        process = self.fleet.signal(self.fleet.pick(dice), signal.SIGSTOP)
        stopped = time.monotonic()
        stop.wait(self.fleet.lease * 2)
        process.send_signal(signal.SIGCONT)
        return int(time.monotonic() - stopped >= self.fleet.lease * 2)


@dataclass
class LetGoOn(Fault):
    """SIGCONT to workers that stopped right before a deletion, twice their lease later."""

    fleet: Fleet
    name: str = "workers stopped between look and deletion"

    def strike(self, dice: random.Random, stop: threading.Event) -> int:
        stopped = self.fleet.stopped()
        if stopped:
            stop.wait(self.fleet.lease * 2)
        for process in stopped:
            process.send_signal(signal.SIGCONT)
        return len(stopped)


@dataclass
class Terminate(Fault):
    """pg_terminate_backend on one of a role's backends, at whatever it is doing."""

    admin: str
    role: str
    name: str = ""

    def __post_init__(self) -> None:
        self.name = {
            WORKER: "workers' backends terminated",
            APPLICATION: "applications' backends terminated",
        }[self.role]

    def strike(self, dice: random.Random, stop: threading.Event) -> int:
        with suppress(psycopg.OperationalError), psycopg.connect(self.admin, autocommit=True) as conn:
            pids = conn.execute(
                "select pid from pg_stat_activity where usename = %s order by pid", [self.role]
            ).fetchall()
            if pids:
                conn.execute("select pg_terminate_backend(%s)", dice.choice(pids))
                return 1
        return 0


@dataclass
class LockSources(Fault):
    """Nobody can read a table of references for a moment: then nothing may be taken for not referenced."""

    admin: str
    name: str = "tables of references locked"

    def strike(self, dice: random.Random, stop: threading.Event) -> int:
        table = dice.choice(("chaos.reference", "market.task_files", "market.tasks"))
        with psycopg.connect(self.admin, options="-c lock_timeout=5s -c deadlock_timeout=10s") as conn:
            try:
                conn.execute(f"lock table {table} in access exclusive mode")
            except psycopg.errors.LockNotAvailable:
                return 0
            stop.wait(dice.uniform(0.3, 1.5))
        return 1


@dataclass
class KillServer(Fault):
    """kill -9 of every process of the server, and an immediate restart."""

    server: Cluster
    name: str = "servers killed"

    def strike(self, dice: random.Random, stop: threading.Event) -> int:
        kill_server(self.server)
        cluster.start(self.server)
        return 1


@dataclass
class TakeServerAway(Fault):
    """The server is shut down, and is back some time later."""

    server: Cluster
    seconds: float
    name: str = "times without a server"

    def strike(self, dice: random.Random, stop: threading.Event) -> int:
        cluster.stop(self.server, dice.choice(("fast", "immediate")))
        try:
            stop.wait(self.seconds)
        finally:
            cluster.start(self.server)
        return 1


def kill_server(server: Cluster) -> None:
    """kill -9 to the postmaster, so that it starts nobody anew, then to all its children; see them end."""
    pidfile = server.folder / "data" / "postmaster.pid"
    postmaster = int(pidfile.read_text().split("\n", 1)[0])
    children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
    pids = [postmaster, *map(int, children)]
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    until = time.monotonic() + 20
    while any(state(pid) not in "ZX" for pid in pids):
        if time.monotonic() > until:
            raise RuntimeError("killed processes of the server don't end")
        time.sleep(0.01)
    # A dead process that nobody has reaped yet would look like a living server to the next one.
    for file in [pidfile, *server.socket.glob(".s.PGSQL.*.lock")]:
        file.unlink(missing_ok=True)
