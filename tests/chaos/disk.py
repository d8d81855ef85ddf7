"""The files of a campaign. Each says in its content which writing of it this is: its generation."""

import os
import time
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from pglapse.storage.marker import NAME as MARKER
from tests.chaos.journal import Journal

STORAGES = ("public", "private")

Place = tuple[str, str]
"""Storage and path."""


@dataclass(frozen=True)
class Disk:
    """A folder with one root for each storage, and one where files are written before they get their name."""

    folder: Path

    def make(self) -> None:
        for storage in STORAGES:
            self.root(storage).mkdir(parents=True)
        self.incoming.mkdir()
        self._tombs.mkdir()
        self.hesitation.touch()

    @property
    def incoming(self) -> Path:
        return self.folder / "incoming"

    @property
    def hesitation(self) -> Path:
        """While it is there, workers that were told to hesitate do."""
        return self.folder / "hesitation"

    @property
    def _tombs(self) -> Path:
        return self.folder / "tombs"

    def tomb(self, pid: int, number: int) -> Path:
        """Where a deletion of a process puts the file, before it really goes."""
        return self._tombs / f"{pid}-{number}"

    def buried(self, pid: int, number: int) -> str | None:
        """The generation that is still in the tomb of a deletion."""
        try:
            return generation(self.tomb(pid, number).read_bytes())
        except FileNotFoundError:
            return None

    def root(self, storage: str) -> Path:
        return self.folder / storage

    def has(self, place: Place) -> bool:
        return (self.root(place[0]) / place[1]).is_file()

    def seen(self, place: Place) -> tuple[str, int, int] | None:
        """Generation, size and time (ns) of what is there now; None if nothing is."""
        try:
            with (self.root(place[0]) / place[1]).open("rb") as file:
                status = os.fstat(file.fileno())
                return generation(file.read(200)), status.st_size, status.st_mtime_ns
        except FileNotFoundError:
            return None

    def place(self, file: str) -> Place:
        """Storage and path of an absolute file name."""
        storage, _, path = os.path.relpath(file, self.folder).partition("/")
        return storage, path

    def generations(self) -> dict[Place, str]:
        """What is there now."""
        found = {}
        for storage in STORAGES:
            for folder, _, names in os.walk(self.root(storage)):
                for name in set(names) - {MARKER}:
                    file = Path(folder) / name
                    found[self.place(str(file))] = generation(file.read_bytes())
        return found

    def config(self) -> str:
        """The worker's configuration."""
        return "".join(
            f'[storage.{storage}]\nkind = "local"\nroot = "{self.root(storage)}"\n' for storage in STORAGES
        )


def generation(content: bytes) -> str:
    return content.split(b"\n", 1)[0].decode()


class Writer:
    """Writes files for one application and notes each writing before and after."""

    def __init__(self, disk: Disk, journal: Journal, name: str) -> None:
        self._disk = disk
        self._journal = journal
        self._name = name
        self._number = count(1)

    def write(self, place: Place) -> None:
        """Write the file anew, in one step, whatever was there before."""
        this = f"{self._name}.{next(self._number)}"
        draft = self._disk.incoming / this
        draft.write_text(f"{this}\n{place[0]}:{place[1]}\n" + "x" * 200)
        target = self._disk.root(place[0]) / place[1]
        # A time of its own for each: the system's clock for files goes by milliseconds.
        written = time.time_ns()
        os.utime(draft, ns=(written, written))
        self._journal.note("write", place=place, generation=this)
        while True:
            # A worker may remove the folder in between, because it has just emptied it. When it does so just
            # before mkdir looks what is there already, mkdir says that something is.
            with suppress(FileNotFoundError, FileExistsError):
                target.parent.mkdir(parents=True, exist_ok=True)
                draft.replace(target)
                break
        self._journal.note("written", place=place, generation=this)
