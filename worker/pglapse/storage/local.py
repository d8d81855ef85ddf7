"""Delete files below a folder of this machine, and nothing else.

Each folder on the way is opened relative to the one before and never through a symbolic link, so
whatever is swapped for a link meanwhile, the walk stays below the root. Checking a path first and
deleting it then would be a race; see docs/decisions.
"""

import errno
import logging
import os
import stat
from collections.abc import Sequence
from concurrent.futures import Executor, Future, wait
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from pglapse.errors import SettingError
from pglapse.paths import BadPath, split
from pglapse.storage import MISSING, Away, Batch, Outcome, Verdict
from pglapse.text import printable

log = logging.getLogger(__name__)

Identity = tuple[int, int]
"""Device and inode: what a folder is, whatever its name."""

_Entry = tuple[int, bytes]
"""Position in the batch and name in the folder."""

FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
TRAIL = 16  # open folders kept for the way back; emptied folders further up stay
PIECE = 32  # a large folder is shared among threads in pieces no smaller than this

HOPELESS = {
    errno.ENOTDIR: "a folder in the path is not a folder",
    errno.ELOOP: "a folder in the path is a symbolic link",
    errno.EISDIR: "it is a folder, not a file",
    errno.ENAMETOOLONG: "a name in the path is too long for this file system",
    errno.EILSEQ: "a name in the path is not possible on this file system",
    errno.EINVAL: "a name in the path is not possible on this file system",
}
PASSING = {
    errno.EACCES: "no permission",
    errno.EPERM: "not permitted",
    errno.EROFS: "the file system is read-only",
    errno.EBUSY: "the file is in use by the system",
    errno.EIO: "the disk reports an error",
    errno.ESTALE: "the network file system lost track of a folder",
    errno.EMFILE: "too many open files in this worker",
    errno.ENFILE: "too many open files on this machine",
}


@dataclass(frozen=True, slots=True)
class LocalStorage:
    """A root folder, remembered as it was when the worker started."""

    name: str
    root: Path
    identity: Identity
    pool: Executor
    threads: int = 1
    prune: bool = True
    keep: frozenset[Identity] = frozenset()
    """Folders that stay even when empty: the roots of other storages."""

    def check(self) -> None:
        """Raise `Away` unless the root is the folder that it was when the worker started."""
        _close(self._open_root())

    def delete(self, batch: Batch) -> None:
        """Delete regular files.

        A missing file is no failure. With a root that is gone or changed the whole storage is away: an
        unmounted disk must not look like files that are already deleted.
        """
        groups: dict[tuple[bytes, ...], list[_Entry]] = {}
        for position, file in enumerate(batch.files):
            try:
                *folders, name = split(file.path)
            except BadPath as error:
                if batch.begin(position):
                    batch.end(position, Outcome("refused", error=str(error)))
            else:
                groups.setdefault(tuple(folders), []).append((position, name))
        if not groups:
            return
        root = self._open_root()
        jobs: list[Future[list[int]]] = []
        try:
            for parents, group in groups.items():
                for piece in _pieces(group, self.threads):
                    jobs.append(self.pool.submit(self._delete_in, root, parents, piece, batch))
        finally:
            # All of them, whatever happened: the descriptor that they share may be another folder's soon.
            wait(jobs)
            _close(root)
        if missing := [position for job in jobs for position in job.result()]:
            self.check()  # files are believed to be missing only if the root is there after looking for them
            for position in missing:
                batch.end(position, MISSING)

    def _open_root(self) -> int:
        try:
            root = os.open(self.root, FOLDER)
        except OSError as error:
            raise Away(
                f"the root {self.root} of storage {self.name} can't be opened: {_words(error)}"
            ) from error
        try:
            found = _identity(os.fstat(root))
        except OSError as error:
            _close(root)
            raise Away(
                f"the root {self.root} of storage {self.name} can't be looked at: {_words(error)}"
            ) from error
        if found != self.identity:
            _close(root)
            raise Away(
                f"the root {self.root} of storage {self.name} is another folder than when the worker started "
                "(unmounted or replaced?); restart the worker if this is meant"
            )
        return root

    def _delete_in(
        self, root: int, folders: tuple[bytes, ...], entries: Sequence[_Entry], batch: Batch
    ) -> list[int]:
        """Delete files that lie in one folder; return those that are missing, begun and not ended.

        An error of our own fails the files that it leaves undone.
        """
        trail: list[_Folder] = []
        missing: list[int] = []
        current: int | None = None
        gone = False
        try:
            obstacle = self._descend(root, folders, trail)
            here = trail[-1].descriptor if trail else root
            for position, name in entries:
                if not batch.begin(position):
                    continue
                current = position
                outcome = obstacle or _unlink(here, name)
                current = None
                if outcome.verdict == "missing":
                    missing.append(position)
                else:
                    batch.end(position, outcome)
                gone = gone or outcome.verdict in ("deleted", "missing")
            if self.prune and gone:
                self._climb(root, trail)
        except Exception as error:
            log.exception("an unexpected error in storage %s", self.name)
            rest = Outcome("failed", error=f"an unexpected error: {type(error).__name__}: {error}")
            if current is not None:
                batch.end(current, rest)
            for position, _ in entries:
                if batch.begin(position):
                    batch.end(position, rest)
        finally:
            for folder in trail:
                folder.close()
        return missing

    def _descend(self, root: int, folders: tuple[bytes, ...], trail: "list[_Folder]") -> Outcome | None:
        """Open one folder after the other into ``trail``; what is returned holds for all files below."""
        here = root
        for depth, name in enumerate(folders):
            try:
                opened = os.open(name, FOLDER | os.O_NOFOLLOW, dir_fd=here)
            except OSError as error:
                return _obstacle(error, here, name)
            try:
                found = _identity(os.fstat(opened))
            except OSError as error:  # a network file system may lose a folder at any time
                _close(opened)
                return _failure(error, name)
            trail.append(_Folder(name, opened, found))
            if found[0] != self.identity[0]:
                return Outcome(
                    "refused", error=f"another file system is mounted at {_shown(name)} in the path"
                )
            if depth >= TRAIL:
                trail[depth - TRAIL].close()
            here = opened
        return None

    def _climb(self, root: int, trail: "list[_Folder]") -> None:
        """Remove folders that are empty now, from the innermost up.

        A folder that somebody writes to is not empty, or is made again by them: both are theirs to win.
        """
        for depth in range(len(trail) - 1, -1, -1):
            folder = trail[depth]
            parent = trail[depth - 1].descriptor if depth else root
            if parent < 0 or folder.identity in self.keep or folder.identity[0] != self.identity[0]:
                return
            try:
                os.rmdir(folder.name, dir_fd=parent)
            except FileNotFoundError:
                continue  # another thread or worker was quicker
            except OSError:
                return  # not empty, or not ours to remove


@dataclass(slots=True)
class _Folder:
    """A folder on the way, open until the way back is done."""

    name: bytes
    descriptor: int
    identity: Identity

    def close(self) -> None:
        if self.descriptor >= 0:
            _close(self.descriptor)
            self.descriptor = -1


def open_local(
    name: str, root: Path, pool: Executor, *, threads: int = 1, prune: bool = True
) -> LocalStorage:
    """Look at the root once and remember what it is; raises `SettingError` when there is no such folder."""
    try:
        descriptor = os.open(root, FOLDER)
    except OSError as error:
        raise SettingError(f"storage.{name}: can't open the root {root}: {_words(error)}") from error
    try:
        return LocalStorage(name, root, _identity(os.fstat(descriptor)), pool, threads, prune)
    finally:
        _close(descriptor)


def keeping_roots(storages: Sequence[LocalStorage]) -> list[LocalStorage]:
    """The same storages, none of which removes another's root when that lies below its own and is empty."""
    roots = frozenset(storage.identity for storage in storages)
    return [replace(storage, keep=roots) for storage in storages]


def _close(descriptor: int) -> None:
    """Close it. What a network file system has to say then changes nothing: nothing was written."""
    with suppress(OSError):
        os.close(descriptor)


def _unlink(folder: int, name: bytes) -> Outcome:
    """Delete a regular file of an open folder.

    Between the look and the deletion another entry may take the name; deleting never follows a link, so
    the worst is another entry of the same folder and name.
    """
    try:
        found = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if not stat.S_ISREG(found.st_mode):
            return Outcome("refused", error=f"{_shown(name)} is {_kind(found.st_mode)}, not a regular file")
        os.unlink(name, dir_fd=folder)
    except FileNotFoundError:
        return MISSING
    except OSError as error:
        return _failure(error, name)
    # Blocks, not length: a sparse file gives back less than it shows, and a hard-linked one nothing yet.
    return Outcome("deleted", bytes=found.st_blocks * 512 if found.st_nlink == 1 else 0)


def _obstacle(error: OSError, parent: int, name: bytes) -> Outcome:
    """Why a folder could not be opened, for every file in it."""
    if error.errno == errno.ENOENT:
        return MISSING
    if error.errno in (errno.ENOTDIR, errno.ELOOP):
        try:
            kind = _kind(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)
        except OSError:
            kind = "not a folder"
        return Outcome("refused", error=f"{_shown(name)} in the path is {kind}, not a folder")
    return _failure(error, name)


def _failure(error: OSError, name: bytes) -> Outcome:
    verdict: Verdict = "refused" if error.errno in HOPELESS else "failed"
    return Outcome(verdict, error=f"{_words(error)} ({_shown(name)})")


def _words(error: OSError) -> str:
    code = error.errno or 0
    if code == errno.ENOENT:
        return "there is no such folder"
    if code == errno.EACCES:
        return f"no permission for user {os.geteuid()}"
    return HOPELESS.get(code) or PASSING.get(code) or os.strerror(code)


def _shown(name: bytes) -> str:
    return f"'{printable(name.decode('utf-8', 'backslashreplace'), 80)}'"


def _kind(mode: int) -> str:
    for test, words in (
        (stat.S_ISLNK, "a symbolic link"),
        (stat.S_ISDIR, "a folder"),
        (stat.S_ISREG, "a file"),
        (stat.S_ISFIFO, "a named pipe"),
        (stat.S_ISSOCK, "a socket"),
    ):
        if test(mode):
            return words
    return "a device"


def _identity(found: os.stat_result) -> Identity:
    return found.st_dev, found.st_ino


def _pieces(entries: list[_Entry], threads: int) -> list[list[_Entry]]:
    step = max(PIECE, -(-len(entries) // threads))
    return [entries[start : start + step] for start in range(0, len(entries), step)]
