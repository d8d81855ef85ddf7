"""A real ``pglapse worker`` process, as a user starts it, and what it costs."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.contestants import WORKER
from benchmarks.jobs import Failed
from benchmarks.server import Connection

STORAGE = "bench"
PAGE = os.sysconf("SC_PAGE_SIZE")


@contextmanager
def running(dsn: str, root: Path, conn: Connection) -> Iterator[subprocess.Popen[bytes]]:
    """Start one with its defaults, for one storage; yields once it has said hello to the database."""
    config = root.with_name(f"{root.name}.toml")
    table = f'[storage.{STORAGE}]\nkind = "local"\nroot = "{root}"\n'
    config.write_text(f"{table}marker = false\n", encoding="utf-8")  # each run has a new folder
    log = root.with_name(f"{root.name}.log")
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "pglapse", "worker", "--tick", "never", "--config", str(config)],
            env={**os.environ, "DATABASE_URL": dsn, "PYTHONPATH": str(WORKER)},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        until = time.monotonic() + 30
        while not conn.execute("select 1 from lapse.worker where pid = %s", [process.pid]).fetchone():
            if process.poll() is not None or time.monotonic() > until:
                raise Failed(f"pglapse worker does not start:\n{log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.05)
        yield process
        if process.poll() is not None:
            raise Failed(f"pglapse worker ended by itself:\n{log.read_text(errors='replace')[-2000:]}")
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def resident(pid: int) -> int:
    """Bytes of memory that a process holds."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE


def empty(conn: Connection) -> bool:
    """Whether nothing that is due is left in the queue."""
    return not conn.execute(
        "select 1 from lapse.file_cleanup_queue where not_before < now() + interval '1 hour' limit 1"
    ).fetchone()
