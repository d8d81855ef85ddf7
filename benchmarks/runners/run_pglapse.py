"""pglapse itself, for what a real ``pglapse worker`` can't show: jobs that do nothing.

All is as in that process, but for the storage, which says "deleted" and touches nothing.
"""

import subprocess
import sys
import time
from typing import Any

import protocol
import psycopg

from pglapse import drain as draining
from pglapse.storage import Batch, Outcome

STORAGE = "bench"
DELETED = Outcome("deleted", bytes=4096)
ENQUEUE = """
select lapse.enqueue_files(array(
    select row(%(storage)s, path, coalesce(to_timestamp(%(due)s), now()), null, null, null, null)
               ::lapse.file_request
      from unnest(%(paths)s::text[]) as path))
"""

Connection = psycopg.Connection[Any]


class Nothing:
    """A storage whose files are gone at once."""

    name = STORAGE

    def check(self) -> None:
        """It can always be worked with."""

    def delete(self, batch: Batch) -> None:
        for position in range(len(batch.files)):
            if batch.begin(position):
                batch.end(position, DELETED)


def install(dsn: str) -> None:
    environment = {"DATABASE_URL": dsn, "PYTHONPATH": ":".join(sys.path[1:])}
    subprocess.run(
        [sys.executable, "-m", "pglapse", "upgrade"], env=environment, check=True, capture_output=True
    )


def fill(conn: Connection, settings: dict[str, Any]) -> None:
    """Queue files; ``root`` is where they are, ``due`` when they may go at the earliest (default: now)."""
    due = settings.get("due")
    if settings.get("later"):
        due = time.time() + 365 * 86_400
    root = settings.get("root", "")
    number = 0
    for batch in protocol.batches(protocol.jobs(settings)):
        paths = [path.removeprefix(f"{root}/") or f"{at:08x}/file" for at, path in enumerate(batch, number)]
        number += len(batch)
        if settings.get("later"):
            paths = [f"later/{path}" for path in paths]
        conn.execute(ENQUEUE, {"storage": STORAGE, "due": due, "paths": paths})


def drain(conn: Connection, settings: dict[str, Any]) -> None:
    watch = protocol.Watch()
    worker = draining.Worker("bench", {STORAGE: Nothing()}, lambda: watch.seconds > settings["seconds"])
    if not protocol.wait_for_line():
        return
    watch = protocol.Watch()
    draining.drain(conn, worker)
    watch.say(worker.done)


def probe(conn: Connection, settings: dict[str, Any]) -> None:
    root = settings["folder"]

    def enqueue(path: str) -> None:
        conn.execute("select lapse.enqueue_file(%s, %s)", [STORAGE, path.removeprefix(f"{root}/")])

    protocol.probe(settings, enqueue)


def main() -> None:
    command, dsn, settings = protocol.arguments()
    if command == "install":
        install(dsn)
        return
    commands = {"fill": fill, "probe": probe, "drain": drain}
    with psycopg.connect(dsn, autocommit=True) as conn:
        commands[command](conn, settings)


if __name__ == "__main__":
    main()
