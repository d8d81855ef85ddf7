"""What every storage can do: delete many files, and say of each what became of it.

A storage knows nothing of the database. It gets a `Batch`, asks it before it touches a file and tells it
what became of the file; an object store does so for all the files of one bulk request.
"""

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol, runtime_checkable
from uuid import UUID

Verdict = Literal["deleted", "missing", "changed", "failed", "refused", "released"]


@dataclass(frozen=True, slots=True)
class Expected:
    """What a file was when it was condemned; what is None is not compared."""

    size: int | None = None
    mtime_ns: int | None = None
    etag: str | None = None


class File(NamedTuple):
    """A file to delete. With ``expected``, only if it is still one of these."""

    path: str
    expected: tuple[Expected, ...] = ()


class Outcome(NamedTuple):
    """What became of one file.

    ``changed``: no longer the file that was condemned, so it was left alone for good; ``failed`` may work
    later, ``refused`` never will, ``released`` was not tried. ``error`` is for people.
    """

    verdict: Verdict
    bytes: int = 0
    error: str | None = None


RELEASED = Outcome("released")
MISSING = Outcome("missing")


class Away(Exception):
    """The whole storage can't be worked with at present; the text says why, for people.

    ``retry_in``: seconds after which another try makes sense, where the storage said so.
    """

    def __init__(self, reason: str, retry_in: float | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry_in = retry_in


@dataclass(frozen=True, slots=True)
class Sign:
    """The number that a storage is known by; ``write`` as long as nobody has seen it there yet."""

    number: UUID
    write: bool = False


def clock() -> float:
    """Seconds since the machine started, sleep included: a lease goes on while a laptop or a VM sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Batch:
    """Files in the hands of a storage, and what became of them so far.

    The storage begins and ends files in any order and from any thread. Its owner may meanwhile collect
    outcomes, move the deadline, and take back what is not begun. A file is begun or given back, never both:
    each is one removal from the same dictionary, which Python does in one step.
    """

    def __init__(
        self, files: Sequence[File], until: float = float("inf"), stopping: Callable[[], bool] = lambda: False
    ) -> None:
        self.files = files
        self.until = until
        """When, by `clock`, no further file may be begun; the owner moves it when it renews the lease."""
        self._stopping = stopping
        self._waiting = dict.fromkeys(range(len(files)), True)
        self._begun: set[int] = set()
        self._ended: deque[tuple[int, Outcome]] = deque()
        self.moved_at = clock()
        """When a file was last begun or ended."""

    def begin(self, position: int) -> bool:
        """Whether this file may be touched now; if not, leave it alone and go on with the next."""
        now = clock()
        if now >= self.until or self._stopping() or not self._waiting.pop(position, False):
            return False
        self._begun.add(position)
        self.moved_at = now
        return True

    @property
    def over(self) -> bool:
        """Whether no further file may be begun, and none that was should be tried once more."""
        return clock() >= self.until or self._stopping()

    def end(self, position: int, outcome: Outcome) -> None:
        """Tell what became of a file that was begun; `KeyError` for any other."""
        self._begun.remove(position)
        self.moved_at = clock()
        self._ended.append((position, outcome))

    def give_back(self, outcome: Outcome = RELEASED, *, begun: bool = False) -> None:
        """End all files that are not begun; with ``begun``, once the storage is done, also those that are."""
        while self._waiting:
            try:
                position, _ = self._waiting.popitem()
            except KeyError:
                break  # the storage began the last one just now
            self._ended.append((position, outcome))
        if begun:
            for position in list(self._begun):
                self._begun.discard(position)
                self._ended.append((position, outcome))

    def withdraw(self, position: int) -> bool:
        """Take back one file, if it is not begun: nothing will be said of it."""
        return self._waiting.pop(position, False)

    def collect(self) -> list[tuple[int, Outcome]]:
        """Outcomes that came in since the last call."""
        return [self._ended.popleft() for _ in range(len(self._ended))]

    @property
    def open(self) -> int:
        """How many files are not ended yet."""
        return len(self._waiting) + len(self._begun)

    @property
    def begun(self) -> frozenset[int]:
        """The files that the storage has in hand at this moment."""
        return frozenset(self._begun.copy())

    def left(self) -> list[int]:
        """The files that are not ended yet."""
        return [*self._waiting.copy(), *self._begun.copy()]


class Storage(Protocol):
    """A place where files are."""

    @property
    def name(self) -> str:
        """Its name in the configuration and in the queue."""

    def check(self) -> None:
        """Raise `Away` when the storage can't be worked with; cheap, and asked again after each trouble."""

    def delete(self, batch: Batch) -> None:
        """Begin and end each file of the batch. Never raises for one file.

        Raises `Away` for trouble of the storage as a whole; what is not ended by then was not deleted, is
        given back and tried again later without counting as an attempt.
        """


@runtime_checkable
class Introduced(Protocol):
    """A storage that the database has to know, so that another of the same name is not taken for it."""

    @property
    def asks(self) -> bool:
        """Whether there is something to ask."""

    def introduce(self, ask: Callable[[UUID | None], Sign]) -> None:
        """Ask by which number it is known, given the one it has. What that says counts from the next check.

        Called by the thread that talks to the database, also while the storage deletes; touches no file.
        """
