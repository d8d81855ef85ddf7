"""The processes of a campaign: workers that are started again when they were killed, and applications."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from tests.chaos.disk import Disk
from tests.chaos.journal import now
from tests.support.install import ROOT

GRACE = 30.0  # seconds that a worker may take to stop


def state(pid: int) -> str:
    """A process's state, as ps shows it; X where there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return "X"


def environment(dsn: str = "") -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "DATABASE_URL"))}
    path = os.pathsep.join([str(ROOT / "worker"), str(ROOT)])
    return {**kept, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"} | ({"DATABASE_URL": dsn} if dsn else {})


@dataclass
class Fleet:
    """Workers by their place; a killed one is followed by another in the same place."""

    folder: Path
    disk: Disk
    dsn: str
    seed: str
    lease: float = 2.0
    slow: float = 1.0
    """Milliseconds that a deletion takes, on average."""
    hesitant: float = 0
    """Share of deletions right before which a worker stops, until it is let go on."""
    options: Sequence[str] = ()
    within: Callable[[int], Sequence[str]] = lambda place: ()
    """What a worker's command line begins with, by place: to run it on another host."""
    may_die: frozenset[int] = frozenset()
    """Exit codes with which a worker may end without having been killed from outside."""
    complaints: list[str] = field(default_factory=list)
    started: int = 0
    died: int = 0

    def __post_init__(self) -> None:
        self._workers: dict[int, subprocess.Popen[bytes]] = {}
        self._launched: dict[int, int] = {}
        self._applications: list[subprocess.Popen[bytes]] = []
        self._lock = threading.Lock()
        (self.folder / "journals").mkdir(exist_ok=True)
        self.config = self.folder / "pglapse.toml"
        self.config.write_text(self.disk.config())

    @property
    def journals(self) -> list[Path]:
        return sorted((self.folder / "journals").iterdir())

    def employ(self, count: int) -> None:
        for place in range(count):
            self._start(place)

    def apply(self, kind: str, dsn: str, *options: str) -> None:
        """Start an application."""
        name = f"{kind}{len(self._applications)}"
        self._applications.append(
            self._popen(
                ["-m", "tests.chaos.application", "--kind", kind, "--name", name, "--dsn", dsn,
                 "--disk", str(self.disk.folder), "--journal", str(self._journal(name)),
                 "--seed", f"{self.seed}/{name}", *options],
                name, environment(),
            )
        )  # fmt: skip

    def _start(self, place: int) -> None:
        self.started += 1
        self._launched[place] = now()
        name = f"worker{place}-{self.started}"
        self._workers[place] = self._popen(
            ["-m", "tests.chaos.worker", str(self.disk.folder), str(self._journal(name)),
             str(self.slow), str(self.hesitant), f"{self.seed}/{name}",
             "--", "worker", "--config", str(self.config), "--tick", "never", "--lease", str(self.lease),
             *self.options],
            name, environment(self.dsn), *self.within(place),
        )  # fmt: skip

    def _journal(self, name: str) -> Path:
        return self.folder / "journals" / f"{name}.jsonl"

    def _popen(
        self, arguments: list[str], name: str, environment: dict[str, str], *before: str
    ) -> subprocess.Popen[bytes]:
        with (self.folder / f"{name}.log").open("ab") as output:
            return subprocess.Popen(
                [*before, sys.executable, *arguments],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def places(self) -> list[int]:
        return sorted(self._workers)

    def ready(self, conn: psycopg.Connection[Any]) -> set[int]:
        """The places of workers that have come so far that they know what SIGTERM means.

        Process numbers are used again, within a campaign even, and a killed worker stays on the list.
        """
        listed = conn.execute(
            "select pid, (extract(epoch from started_at) * 1000000)::bigint from lapse.worker"
        ).fetchall()
        return {
            place
            for place, process in self._workers.items()
            if any(pid == process.pid and since >= self._launched[place] for pid, since in listed)
        }

    def pick(self, dice: random.Random) -> int:
        return dice.choice(sorted(self._workers))

    def signal(self, place: int, number: int) -> subprocess.Popen[bytes]:
        """Send a signal to the worker in a place; returns the process that got it."""
        with self._lock:
            process = self._workers[place]
            process.send_signal(number)
            return process

    def stopped(self) -> list[subprocess.Popen[bytes]]:
        """Workers that a signal has stopped."""
        with self._lock:
            return [one for one in self._workers.values() if one.poll() is None and state(one.pid) == "T"]

    def calm(self) -> None:
        """From now on no worker stops by itself; those that have go on."""
        self.disk.hesitation.unlink(missing_ok=True)
        for process in self.stopped():
            process.send_signal(signal.SIGCONT)

    def kill(self, place: int) -> None:
        """kill -9, and another one takes its place."""
        with self._lock:
            process = self._workers[place]
            if process.poll() is None:
                process.kill()
                process.wait()
                self._start(place)
            else:
                self._mourn(place)

    def replace(self, place: int, *, impatient: bool) -> bool:
        """SIGTERM, or two of them, and another one in its place; whether there was one to be told.

        A second signal ends it at once: with its own code, or, when it comes at the very end, with the
        system's.
        """
        with self._lock:
            process = self._workers[place]
            if process.poll() is not None:
                self._mourn(place)
                return False
            process.terminate()
            if impatient:
                time.sleep(0.01)
                process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(GRACE)
            if process.poll() is None:
                self.complaints.append(f"worker {place} did not stop within {GRACE:.0f} s")
                process.kill()
                process.wait()
            elif process.returncode not in (
                (0, 128 + signal.SIGTERM, -signal.SIGTERM) if impatient else (0,)
            ):
                self.complaints.append(f"worker {place} ended with {process.returncode} on SIGTERM")
            self._start(place)
            return True

    def look(self) -> None:
        """See that everybody is alive: nobody may end without having been killed."""
        with self._lock:
            for place, process in self._workers.items():
                if process.poll() is not None:
                    self._mourn(place)
        for process in self._applications:
            if process.poll() is not None and process.returncode:
                self.complaints.append(f"an application ended with {process.returncode}: see {self.folder}")
        self._applications = [one for one in self._applications if one.poll() is None]

    def _mourn(self, place: int) -> None:
        code = self._workers[place].returncode
        self.died += 1
        if code not in self.may_die:
            self.complaints.append(f"worker {place} ended by itself with exit code {code}: see {self.folder}")
        self._start(place)

    def end_applications(self, patience: float = 90) -> None:
        for process in self._applications:
            process.terminate()
        for process in self._applications:
            with suppress(subprocess.TimeoutExpired):
                process.wait(patience)
            if process.poll() is None:
                self.complaints.append(f"an application did not stop within {patience:.0f} s")
                process.kill()
            if process.wait():
                self.complaints.append(f"an application ended with {process.returncode}: see {self.folder}")
        self._applications = []

    def end_workers(self) -> None:
        """SIGTERM: each must end in time, with exit code 0."""
        with self._lock:
            for process in self._workers.values():
                process.terminate()
            for place, process in self._workers.items():
                with suppress(subprocess.TimeoutExpired):
                    process.wait(GRACE)
                if process.poll() is None:
                    self.complaints.append(f"worker {place} did not stop within {GRACE:.0f} s")
                    process.kill()
                elif process.returncode:
                    self.complaints.append(f"worker {place} ended with {process.returncode} on SIGTERM")
                process.wait()
            self._workers = {}

    def kill_all(self) -> None:
        """Whatever happened: leave no process behind."""
        for process in [*self._workers.values(), *self._applications]:
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGCONT)
                process.kill()
            process.wait()
