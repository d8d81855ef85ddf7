"""What every storage can do: delete many files, and say of each what became of it.

A storage knows nothing of the database. An object store answers the same call with one bulk request.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

Verdict = Literal["deleted", "missing", "failed", "refused", "released"]

GoOn = Callable[[], bool]
"""Asked before each file: may it still go? No, once the lease is over or the worker was told to stop."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one file.

    ``failed`` may work later, ``refused`` never will, ``released`` was not tried. ``error`` is for people.
    """

    verdict: Verdict
    bytes: int = 0
    error: str | None = None


RELEASED = Outcome("released")
MISSING = Outcome("missing")


class Storage(Protocol):
    """A place where files are."""

    @property
    def name(self) -> str:
        """Its name in the configuration and in the queue."""

    def delete(self, paths: Sequence[str], go_on: GoOn) -> list[Outcome]:
        """Delete files; one outcome for each path, in order. Never raises for a file."""
