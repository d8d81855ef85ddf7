"""The worker that does the work in the demo: a process of its own, started as a user starts it."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from pglapse.demo.files import STORAGES

_GRACE = 20.0


@dataclass(frozen=True, slots=True)
class Worker:
    """A running ``pglapse worker`` and where it writes its log."""

    process: subprocess.Popen[bytes]
    log: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    def gone(self) -> bool:
        """True when it ended, though nobody told it to."""
        return self.process.poll() is not None

    def stop(self) -> int:
        """End it as a service manager does: SIGTERM, then patience, then force; return its exit code."""
        self.process.terminate()
        try:
            return self.process.wait(_GRACE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()

    def last_words(self) -> str:
        """The end of its log."""
        with suppress(OSError):
            lines = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            return "\n".join(lines[-5:])
        return ""


def configure(folder: Path) -> Path:
    """Write the worker's configuration: both storages below ``folder``."""
    config = folder / "pglapse.toml"
    tables = [
        # JSON's way to write a string is one of TOML's
        f'[storage.{name}]\nkind = "local"\nroot = {json.dumps(str(folder / name), ensure_ascii=False)}\n'
        for name in STORAGES
    ]
    config.write_text("\n".join(tables), encoding="utf-8")
    return config


def environment(dsn: str) -> dict[str, str]:
    """What a process of ours needs to find the database and this very package."""
    package = Path(__file__).resolve().parents[2]
    paths = [str(package), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    return {**os.environ, "DATABASE_URL": dsn, "PYTHONPATH": os.pathsep.join(paths)}


def install(dsn: str) -> None:
    """Install engine and marketplace, as ``pglapse upgrade heads`` does; raises `RuntimeError`."""
    done = subprocess.run(
        [sys.executable, "-m", "pglapse", "upgrade", "heads"],
        env=environment(dsn),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"pglapse upgrade heads failed:\n{done.stdout.strip()[-3000:]}")


@contextmanager
def worker(dsn: str, config: Path) -> Iterator[Worker]:
    """Start a worker that also keeps the schedule, since there is no pg_cron in the demo's database."""
    log = config.with_name("worker.log")
    with log.open("ab") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "pglapse", "worker", "--tick", "always", "--config", str(config)],
            env=environment(dsn),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C in the terminal is the demo's to answer
        )
    running = Worker(process, log)
    try:
        yield running
    finally:
        running.stop()
