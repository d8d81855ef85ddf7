"""Walk an area of a root, file by file, however many there are.

Nothing is read but names and times. Symbolic links are not followed and other mounts not entered; what is
skipped is counted, so that nothing goes unseen.
"""

import os
import stat
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal

from pglapse.storage.folders import STEP, close
from pglapse.storage.marker import NAME, is_marker
from pglapse.storage.mounts import Place, Surveyor

DEEPEST = 200  # folders within each other; each one on the way is held open

Skipped = Literal["link", "mount", "special", "name", "deep", "denied", "leftover", "marker", "root"]

WHY: dict[Skipped, str] = {
    "link": "symbolic links",
    "mount": "other file systems",
    "special": "neither files nor folders",
    "name": "names that are no text in UTF-8",
    "deep": f"folders more than {DEEPEST} deep",
    "denied": "not allowed to be read",
    "leftover": "leftovers of a network file system",
    "marker": "markers",
    "root": "roots of other storages",
}


@dataclass(frozen=True, slots=True)
class Seen:
    """A file as it was when the walk came by."""

    path: str
    size: int
    mtime_ns: int
    changed_at: float
    """Seconds since 1970: the later of its last modification and its last change of any kind, since the first
    can be set to anything (unpacking an archive does)."""


@dataclass(slots=True)
class Area:
    """An area of an open root, and what was skipped in it."""

    root: int
    home: Place
    folders: tuple[bytes, ...]
    skipped: Counter[Skipped] = field(default_factory=Counter)

    def files(self) -> Iterator[Seen]:
        """Each regular file below, without those that vanish meanwhile. An area that isn't there is empty.

        Raises `OSError` when the file system itself fails.
        """
        here = self.root
        opened: list[int] = []
        try:
            for name in self.folders:
                found = self._enter(here, name)
                if found is None:
                    return
                opened.append(found)
                here = found
            if here == self.root:
                opened.append(os.dup(self.root))
                here = opened[-1]
            yield from self._below(here, b"/".join(self.folders).decode())
        finally:
            for descriptor in opened:
                close(descriptor)

    def _below(self, start: int, prefix: str) -> Iterator[Seen]:
        trail = [(start, prefix, os.scandir(start))]
        try:
            while trail:
                descriptor, path, entries = trail[-1]
                entry = next(entries, None)
                if entry is None:
                    entries.close()
                    trail.pop()
                    if trail:
                        close(descriptor)
                    continue
                try:
                    name = os.fsencode(entry.name).decode("utf-8")
                except UnicodeDecodeError:
                    self.skipped["name"] += 1
                    continue
                below = f"{path}/{name}" if path else name
                if self._is_folder(entry):
                    if len(trail) >= DEEPEST:
                        self.skipped["deep"] += 1
                    elif (folder := self._enter(descriptor, os.fsencode(entry.name))) is not None:
                        trail.append((folder, below, os.scandir(folder)))
                elif (seen := self._file(entry, name, below)) is not None:
                    yield seen
        finally:
            for depth, (descriptor, _, entries) in enumerate(trail):
                entries.close()
                if depth:
                    close(descriptor)

    def _is_folder(self, entry: os.DirEntry[str]) -> bool:
        try:
            return entry.is_dir(follow_symlinks=False)
        except PermissionError:  # on file systems whose listings don't say what is a folder
            return False

    def _file(self, entry: os.DirEntry[str], name: str, path: str) -> Seen | None:
        try:
            return self._looked_at(entry, name, path)
        except PermissionError:  # a folder whose names may be read and nothing else
            self.skipped["denied"] += 1
            return None

    def _looked_at(self, entry: os.DirEntry[str], name: str, path: str) -> Seen | None:
        if entry.is_symlink():
            self.skipped["link"] += 1
        elif not entry.is_file(follow_symlinks=False):
            self.skipped["special"] += 1
        elif name.startswith(".nfs"):
            self.skipped["leftover"] += 1
        elif is_marker(os.fsencode(name)):
            self.skipped["marker"] += 1
        else:
            with suppress(FileNotFoundError):
                found = entry.stat(follow_symlinks=False)
                if stat.S_ISREG(found.st_mode):
                    changed = max(found.st_mtime, found.st_ctime)
                    return Seen(path, found.st_size, found.st_mtime_ns, changed)
        return None

    def _enter(self, parent: int, name: bytes) -> int | None:
        """Open a folder; None when it is gone, or not to be entered."""
        try:
            opened = os.open(name, STEP, dir_fd=parent)
        except FileNotFoundError:
            return None
        except PermissionError:
            self.skipped["denied"] += 1
            return None
        except NotADirectoryError:  # swapped for a link or a file since it was listed
            self.skipped["link"] += 1
            return None
        try:
            device, _, mount = Surveyor().place(opened)
        except OSError:
            close(opened)
            raise
        if (device, mount) != (self.home[0], self.home[2]):
            close(opened)
            self.skipped["mount"] += 1
            return None
        if _is_marked(opened):
            # The rows that know its files know them by other names, as another storage's.
            close(opened)
            self.skipped["root"] += 1
            return None
        return opened


def _is_marked(folder: int) -> bool:
    """Whether a folder is itself a storage's root: whatever has the marker's name makes it one."""
    try:
        os.lstat(NAME, dir_fd=folder)
    except FileNotFoundError:
        return False
    except PermissionError:  # then its files can't be looked at either
        return False
    return True
