"""The worker and the commands as processes of their own, and a door in front of the database.

Each works with a role that may do no more than it needs: see tests/support/roles.py.
"""

import os
import selectors
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from psycopg.conninfo import conninfo_to_dict, make_conninfo

from tests.support.install import ROOT
from tests.support.poll import until
from tests.support.roles import OBSERVER, OWNER, WORKER, acting

SLOW_DISK = """
import os, time
unlink = os.unlink
def slow(*arguments, **options):
    os.write(2, b"deleting slowly\\n")
    time.sleep({seconds})
    unlink(*arguments, **options)
os.unlink = slow
"""

MAIN = """
from pglapse.cli import main
main()
"""


ROLES = {"worker": WORKER, "run": WORKER, "status": OBSERVER, "doctor": OBSERVER, "queue list": OBSERVER}
"""Who runs a command; the others change what is the owner's."""


def environment(dsn: str, **more: str) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PG", "DATABASE_URL"))}
    return {**kept, "DATABASE_URL": dsn, "PYTHONPATH": str(ROOT / "worker"), **more}


def pglapse(
    dsn: str, *arguments: str, cwd: Path | None = None, **more: str
) -> subprocess.CompletedProcess[str]:
    """Run one command to its end, as the role that it is for."""
    command = " ".join(arguments[: 2 if arguments[:1] == ("queue",) else 1])
    return subprocess.run(
        [sys.executable, "-m", "pglapse", *arguments],
        env=environment(acting(dsn, ROLES.get(command, OWNER)), **more),
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


class Running:
    """A worker process and what it has said so far."""

    def __init__(self, process: subprocess.Popen[bytes], output: Path) -> None:
        self.process = process
        self._output = output

    @property
    def said(self) -> str:
        return self._output.read_text()

    def says(self, words: str, seconds: float = 60) -> str:
        """Wait until it has said so."""
        return until(
            lambda: self.said if words in self.said else "",
            seconds=seconds,
            what=lambda: f"{words!r} in\n{self.said}",
        )

    def ends(self, seconds: float = 60) -> int:
        """Wait for its end; the exit code."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {seconds} s:\n{self.said}") from None


@contextmanager
def worker(
    dsn: str,
    config: Path,
    *options: str,
    slow_disk: float = 0,
    tick: str = "never",
    spoilt: str = "",
    **more: str,
) -> Iterator[Running]:
    """A worker, with a worker's rights and no other, that runs until the end of the block.

    ``slow_disk``: seconds that each deletion takes; ``spoilt``: Python that is run beforehand in the worker's
    process; ``more``: variables of its environment.
    """
    spoilt += SLOW_DISK.format(seconds=slow_disk) if slow_disk else ""
    program = ["-c", spoilt + MAIN] if spoilt else ["-m", "pglapse"]
    output = config.parent / f"worker-{os.urandom(4).hex()}.log"
    with output.open("ab") as file:  # whoever else writes to it overwrites nothing
        process = subprocess.Popen(
            [sys.executable, *program, "worker", "--config", str(config), "--tick", tick, *options],
            env=environment(acting(dsn, WORKER), **more),
            stdout=file,
            stderr=subprocess.STDOUT,
        )
        try:
            yield Running(process, output)
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()


class Door:
    """Stands before the server and can be shut: new connections are refused, open ones are cut.

    While ``swallowing`` it takes whatever either side sends, also on new connections, and passes on nothing.
    """

    def __init__(self, dsn: str) -> None:
        given = conninfo_to_dict(dsn)
        host, port = (
            str(given.get("host") or given.get("hostaddr") or "/var/run/postgresql"),
            given.get("port", 5432),
        )
        self._target = f"{host}/.s.PGSQL.{port}" if host.startswith("/") else (host, int(port))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self.dsn = make_conninfo(dsn, host="127.0.0.1", port=self._port)
        self._listener: socket.socket | None = None
        self._open: list[socket.socket] = []
        self._lock = threading.Lock()
        self.swallowing = False
        self._flowing = threading.Event()
        self._flowing.set()

    def open(self) -> None:
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind(("127.0.0.1", self._port))
        self._listener.listen()
        threading.Thread(target=self._serve, args=(self._listener,), daemon=True).start()

    def clog(self) -> None:
        """Take nothing more, so that what is sent piles up at the sender's."""
        self._flowing.clear()

    def shut(self) -> None:
        self._flowing.set()
        if self._listener is not None:
            with suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None
        with self._lock:
            for one in self._open:
                with suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
            self._open.clear()

    def _serve(self, listener: socket.socket) -> None:
        while True:
            try:
                inside, _ = listener.accept()
            except OSError:
                return
            family = socket.AF_UNIX if isinstance(self._target, str) else socket.AF_INET
            outside = socket.socket(family)
            outside.connect(self._target)
            with self._lock:
                self._open += [inside, outside]
            threading.Thread(target=self._pass_on, args=(inside, outside), daemon=True).start()

    def _pass_on(self, one: socket.socket, other: socket.socket) -> None:
        with one, other, selectors.DefaultSelector() as ready, suppress(OSError):
            ready.register(one, selectors.EVENT_READ, other)
            ready.register(other, selectors.EVENT_READ, one)
            while True:
                for key, _ in ready.select():
                    self._flowing.wait()
                    data = key.fileobj.recv(65536)  # type: ignore[union-attr]
                    if not data:
                        return
                    if not self.swallowing:
                        key.data.sendall(data)


@contextmanager
def door(dsn: str) -> Iterator[Door]:
    """A door, shut at first, and again in the end."""
    one = Door(dsn)
    try:
        yield one
    finally:
        one.shut()
