"""What a process did, written down outside the database, so that it can bear witness against it.

One file a process, one line of JSON a fact, one write(2) a line: what was noted survives the process, however
it ends. Nothing is fsynced, since no campaign takes the machine down. Times are microseconds of the clock
that the server on this machine reads too.
"""

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def now() -> int:
    """Microseconds since 1970."""
    return time.time_ns() // 1000


class Journal:
    """An open journal; threads may share it."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)

    def note(self, kind: str, **facts: Any) -> int:
        """Write a fact down; returns the time that it was given."""
        at = facts.pop("t", None) or now()
        line = json.dumps({"kind": kind, "t": at, "m": time.monotonic_ns() // 1000, **facts})
        os.write(self._descriptor, line.encode() + b"\n")
        return at


def read(path: Path) -> Iterator[dict[str, Any]]:
    """The facts of one journal, in order; a last line that its process could not end is left out."""
    for line in path.read_bytes().split(b"\n")[:-1]:
        yield json.loads(line)
