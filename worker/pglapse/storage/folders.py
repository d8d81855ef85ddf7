"""Walk to folders below a root, never through a symbolic link and never into another mount.

Each folder is opened relative to the one before, so whatever is swapped for a link meanwhile, the walk
stays below the root. Checking a path first and using it then would be a race; see docs/decisions.
"""

import errno
import os
from collections.abc import Container
from contextlib import suppress

from pglapse.storage import MISSING, Outcome
from pglapse.storage.faults import kind, shown
from pglapse.storage.mounts import Identity, Place, Surveyor

FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
STEP = FOLDER | os.O_NOFOLLOW
TRAIL = 16  # open folders kept for the way back; emptied folders further up stay


class _Folder:
    """A folder on the way."""

    __slots__ = ("descriptor", "gone", "identity", "name")

    def __init__(self, name: bytes, descriptor: int, identity: Identity) -> None:
        self.name = name
        self.descriptor = descriptor
        self.identity = identity
        self.gone = False
        """Whether something went from it, so that it may be empty now."""

    def close(self) -> None:
        if self.descriptor >= 0:
            close(self.descriptor)
            self.descriptor = -1


class Walk:
    """One thread's way through folders; those that one and the next have in common stay open.

    For a short time only: a folder that somebody moves out of the root takes the walk along.
    """

    def __init__(self, root: int, home: Place, *, prune: bool, keep: Container[Identity]) -> None:
        self._root = root
        self._device, _, self._mount = home
        self._prune = prune
        self._keep = keep
        self._place = Surveyor().place
        self._trail: list[_Folder] = []

    def to(self, folders: tuple[bytes, ...]) -> Outcome | None:
        """Go to a folder; ``here`` is its descriptor then.

        What is returned instead holds for all files in it: missing, or refused. Any other trouble is
        an `OSError`, with the name of the folder as its ``filename``.
        """
        trail = self._trail
        common = 0
        for folder, name in zip(trail, folders, strict=False):
            if folder.name != name:
                break
            common += 1
        self._leave(common)
        if common < len(folders) and trail and trail[-1].descriptor < 0:
            self._leave(0)  # that far down, this one was closed on the way
            common = 0
        for name in folders[common:]:
            if said := self._step(name):
                return said
        return None

    @property
    def here(self) -> int:
        """The descriptor of the folder that the walk is at."""
        return self._trail[-1].descriptor if self._trail else self._root

    def emptied(self) -> None:
        """Say that something went, or was missing, from the folder that the walk is at."""
        if self._trail:
            self._trail[-1].gone = True

    def end(self) -> None:
        """Go back to the root: close all folders, and remove those that are empty now."""
        self._leave(0)

    def _step(self, name: bytes) -> Outcome | None:
        """Enter a folder of the one that the walk is at."""
        trail, here = self._trail, self.here
        try:
            opened = os.open(name, STEP, dir_fd=here)
        except FileNotFoundError:
            return MISSING
        except OSError as error:
            if error.errno not in (errno.ENOTDIR, errno.ELOOP):
                raise
            return Outcome("refused", error=f"{shown(name)} in the path is {_kind(here, name)}, not a folder")
        try:
            device, inode, mount = self._place(opened)
        except OSError as error:
            close(opened)
            error.filename = name
            raise
        if device != self._device or mount != self._mount:
            close(opened)
            return Outcome("refused", error=f"another file system is mounted at {shown(name)} in the path")
        trail.append(_Folder(name, opened, (device, inode)))
        if len(trail) > TRAIL:
            trail[-1 - TRAIL].close()
        return None

    def _leave(self, depth: int) -> None:
        """Go up, removing folders that are empty now.

        A folder that somebody writes to is not empty, or is made again by them: both are theirs to win.
        """
        trail = self._trail
        while len(trail) > depth:
            folder = trail.pop()
            folder.close()
            parent = trail[-1].descriptor if trail else self._root
            if not (folder.gone and self._prune and parent >= 0) or folder.identity in self._keep:
                continue
            try:
                os.rmdir(folder.name, dir_fd=parent)
            except FileNotFoundError:
                pass  # another thread or worker was quicker
            except OSError:
                continue  # not empty, or not ours to remove
            if trail:
                trail[-1].gone = True


def close(descriptor: int) -> None:
    """Close it. What a network file system has to say then changes nothing: nothing was written."""
    with suppress(OSError):
        os.close(descriptor)


def _kind(parent: int, name: bytes) -> str:
    try:
        return kind(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)
    except OSError:
        return "something else"
