"""Delete files below a folder of this machine, and nothing else.

The way to each file is `folders`: opened one after the other, through no symbolic link. What is here decides
what becomes of a file, when the storage as a whole is away, and how many threads are worth their while.
"""

import errno
import logging
import os
import resource
import stat
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Executor, Future, wait
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from pglapse.errors import SettingError
from pglapse.storage import MISSING, Away, Batch, Outcome
from pglapse.storage.denial import Denials
from pglapse.storage.expected import objection
from pglapse.storage.faults import EXHAUSTED, ITS_OWN, Denial, failure, kind, shown, words
from pglapse.storage.folders import FOLDER, Walk, close
from pglapse.storage.jobs import Entry, Job, jobs, planned
from pglapse.storage.marker import Ask, Marked
from pglapse.storage.mounts import Identity, Place, Surveyor
from pglapse.text import printable

log = logging.getLogger(__name__)

BLOCKED = 0.3  # waits a file: a disk has about one for each, a file system in memory none
CROWDED = 16  # batches that get helpers from the start, before the next is looked at alone


class Guard(Protocol):
    """Knows the right root from another folder that has its name."""

    def check(self, root: int, place: Place) -> None:
        """Raise `Away` unless an open root is the right one."""


class SameFolder:
    """Knows a root by what it was when the worker started: all that there is without a marker."""

    def __init__(self, storage: str, root: Path, identity: Identity) -> None:
        self.storage = storage
        self.root = root
        self.identity = identity

    def check(self, root: int, place: Place) -> None:  # noqa: ARG002 (a guard's signature)
        """Raise `Away` unless it is the same folder."""
        if place[:2] != self.identity:
            raise Away(
                f"the root {self.root} of storage {self.storage} is another folder than when the worker "
                "started (unmounted or replaced?); restart the worker if this is meant"
            )


class LocalStorage:
    """A root folder. One thread deletes, or several where the disk makes it wait."""

    def __init__(
        self, name: str, root: Path, pool: Executor, guard: Guard, *, threads: int = 1, prune: bool = True
    ) -> None:
        self.name = name
        self.root = root
        self.guard = guard
        self.prune = prune
        self.roots: dict[str, Identity] = {}
        """The roots of all storages, as each was last seen: none is removed, even when it is empty."""
        self._pool = pool
        self._threads = threads
        self._denials = Denials()
        self._crowded = 0

    @property
    def asks(self) -> bool:
        """Whether the database has to be asked about the marker of the root."""
        return isinstance(self.guard, Marked) and self.guard.asks

    def introduce(self, ask: Ask) -> None:
        """Ask the database about the marker of the root, where it is known by one; see `Marked`."""
        if isinstance(self.guard, Marked):
            self.guard.introduce(ask)

    def check(self) -> None:
        """Raise `Away` unless the root is there, is the right one, and is not read-only."""
        root, _ = self.open_root()
        try:
            if os.fstatvfs(root).f_flag & os.ST_RDONLY:
                raise OSError(errno.EROFS, "")
        except OSError as error:
            raise self.away(error) from error
        finally:
            close(root)

    def delete(self, batch: Batch) -> None:
        """Delete regular files.

        A missing file is no failure. With a root that is gone or another the whole storage is away: an
        unmounted disk must not look like files that are already deleted.
        """
        plan = planned(batch.files)
        for position, refusal in plan.refused:
            if batch.begin(position):
                batch.end(position, refusal)
        if not plan.groups:
            return
        root, home = self.open_root()
        try:
            work = _Work(self, root, home, batch, jobs(plan.groups, self._threads), guarded=plan.guarded)
            self._work_off(work)
        finally:
            close(root)
        if work.deleted:
            self._denials.deleted()
        if work.away is not None:
            raise work.away
        if work.missing or work.denied:
            self.look_again(home)
        for position in work.missing:
            batch.end(position, MISSING)
        folders = [folder for _, folder, _ in work.denied]
        if self._denials.everywhere(folders):
            raise Away(
                f"storage {self.name} lets nothing be deleted, none of {len(folders)} files in "
                f"{len(set(folders))} folders: {work.denied[0][2].error}. Is the worker the right user?"
            )
        for position, _, denial in work.denied:
            batch.end(position, denial)

    def open_root(self) -> tuple[int, Place]:
        """The root, opened and found to be the right one; raises `Away`."""
        try:
            root = os.open(self.root, FOLDER)
        except OSError as error:
            raise self.away(error) from error
        try:
            place = Surveyor().place(root)
            self.guard.check(root, place)
        except OSError as error:
            close(root)
            raise self.away(error) from error
        except BaseException:
            close(root)
            raise
        self.roots[self.name] = place[:2]
        return root, place

    def look_again(self, home: Place) -> None:
        """Raise `Away` unless the root is there, and the same, after something strange was seen below it."""
        root, now = self.open_root()
        close(root)
        if now != home:
            raise Away(f"the root {self.root} of storage {self.name} was mounted anew meanwhile", retry_in=0)

    def away(self, error: OSError) -> Away:
        """What is wrong with the root."""
        mounted = " (is its disk mounted?)" if isinstance(error, FileNotFoundError) else ""
        return Away(f"the root {self.root} of storage {self.name} can't be used: {words(error)}{mounted}")

    def _work_off(self, work: "_Work") -> None:
        """Do all jobs: alone as long as the file system never makes us wait, else with helpers.

        Where it never does, threads would only take turns in Python, which costs more than it gains.
        """
        helpers = self._invited(work) if self._crowded else []
        try:
            while job := work.next():
                before = _waits()
                files = work.do(job)
                if not helpers and _waits() - before >= BLOCKED * files:
                    self._crowded = CROWDED
                    helpers = self._invited(work)
        finally:
            # All of them, whatever happened: the descriptor that they share may be another folder's soon.
            wait(helpers)
        self._crowded = max(0, self._crowded - 1)
        for helper in helpers:
            helper.result()

    def _invited(self, work: "_Work") -> list[Future[None]]:
        helpers: list[Future[None]] = []
        with suppress(RuntimeError):  # no more threads to be had: fewer must do, or this one alone
            for _ in range(min(self._threads - 1, len(work.jobs))):
                helpers.append(self._pool.submit(work.do_rest))
        return helpers


class _Work:
    """One batch on its way, and what came of it, for all threads that do it."""

    def __init__(
        self, storage: LocalStorage, root: int, home: Place, batch: Batch, jobs: deque[Job], *, guarded: bool
    ) -> None:
        self.jobs = jobs
        self.missing: list[int] = []
        """Begun, and not ended before the root was looked at again."""
        self.denied: list[tuple[int, tuple[bytes, ...], Denial]] = []
        """Begun, and not ended before it is known whether all were; with the folder of each."""
        self.away: Away | None = None
        self._storage = storage
        self._root = root
        self._home = home
        self._batch = batch
        self._guarded = guarded
        self._keep = frozenset(storage.roots.values())
        self._looked = False
        self._deletions: dict[int, Outcome] = {}
        """One outcome for all files that gave back as much."""

    @property
    def deleted(self) -> bool:
        """Whether any file was."""
        return bool(self._deletions)

    def next(self) -> Job | None:
        """The next job; None when there is none, or none may be done any more."""
        if self.away is not None:
            return None
        try:
            return self.jobs.popleft()
        except IndexError:
            return None

    def do_rest(self) -> None:
        """Do jobs until none is left."""
        while job := self.next():
            self.do(job)

    def do(self, job: Job) -> int:
        """Delete the files of one job; return how many that were."""
        walk = Walk(self._root, self._home, prune=self._storage.prune, keep=self._keep)
        try:
            for folders, entries in job:
                self._delete_in(walk, folders, entries)
        except Away as away:
            self.away = away
        finally:
            walk.end()
        return sum(len(entries) for _, entries in job)

    def _delete_in(self, walk: Walk, folders: tuple[bytes, ...], entries: Sequence[Entry]) -> None:
        """Delete files that lie in one folder. An error of our own fails those that it leaves undone."""
        begin, end, unlink = self._batch.begin, self._batch.end, self._unlink
        current: int | None = None
        try:
            obstacle = self._go(walk, folders)
            here = walk.here
            closely = self._guarded or not folders
            for position, name in entries:
                if self.away is not None:
                    return
                if not begin(position):
                    continue
                current = position
                ended = obstacle or unlink(here, name, position if closely else None)
                if ended is MISSING:
                    self.missing.append(position)
                elif isinstance(ended, Denial):
                    self.denied.append((position, folders, ended))
                else:
                    end(position, ended)
                current = None
            walk.emptied()  # maybe: the folder itself knows
        except Away:
            raise
        except Exception as error:
            log.exception("an unexpected error in storage %s", printable(self._storage.name))
            rest = Outcome("failed", error=f"an unexpected error: {type(error).__name__}: {error}")
            if current is not None:
                self._batch.end(current, rest)
            for position, _ in entries:
                if begin(position):
                    end(position, rest)

    def _go(self, walk: Walk, folders: tuple[bytes, ...]) -> Outcome | None:
        """Go to a folder; what is returned instead holds for all files in it."""
        try:
            return walk.to(folders)
        except OSError as error:
            return self._failure(error)

    def _unlink(self, folder: int, name: bytes, closely: int | None) -> Outcome:
        """Delete a regular file of an open folder. ``closely``: only if the file at this position is meant.

        Between the look and the deletion another entry may take the name; deleting never follows a link, so
        the worst is another entry of the same folder and name.
        """
        try:
            found = os.lstat(name, dir_fd=folder)
            if found.st_mode & 0o170000 != stat.S_IFREG:
                return Outcome("refused", error=f"{shown(name)} is {kind(found.st_mode)}, not a regular file")
            if closely is not None and (said := self._objection(closely, found)):
                return said
            os.unlink(name, dir_fd=folder)
        except FileNotFoundError:
            return MISSING
        except OSError as error:
            return self._failure(error)
        # Blocks, not length: a sparse file gives back less than it shows, and a hard-linked one nothing yet.
        freed = found.st_blocks * 512 if found.st_nlink == 1 else 0
        told = self._deletions.get(freed)
        if told is None:
            told = self._deletions[freed] = Outcome("deleted", bytes=freed)
        return told

    def _objection(self, position: int, found: os.stat_result) -> Outcome | None:
        """Why a file that is there is to be left alone."""
        guard = self._storage.guard
        if isinstance(guard, Marked) and found.st_ino == guard.inode:
            return Outcome("refused", error="it is the marker of the storage's root, by another name")
        expected = self._batch.files[position].expected
        return objection(expected, found) if expected else None

    def _failure(self, error: OSError) -> Outcome:
        """What became of a file on which a call failed; raises `Away` where the storage itself has failed."""
        code = error.errno
        if code in EXHAUSTED:
            raise Away(words(error)) from error
        if code == errno.EROFS and os.fstatvfs(self._root).f_flag & os.ST_RDONLY:
            raise self._storage.away(error)
        if code not in ITS_OWN and not self._looked:
            self._looked = True
            self._storage.look_again(self._home)
        return failure(error)


def open_local(
    name: str, root: Path, pool: Executor, *, threads: int = 1, prune: bool = True, marker: bool = False
) -> LocalStorage:
    """Look at the root; raises `SettingError` when there is no such folder.

    With ``marker``, the root is known by its marker, and the storage is away until it was introduced to the
    database; without, by what it is now.
    """
    try:
        descriptor = os.open(root, FOLDER)
    except OSError as error:
        raise SettingError(f"storage.{name}: can't open the root {root}: {words(error)}") from error
    try:
        guard: Guard
        place = Surveyor().place(descriptor)
        if marker:
            guard = Marked(name, root)
            guard.look(descriptor)
        else:
            guard = SameFolder(name, root, place[:2])
    finally:
        close(descriptor)
    storage = LocalStorage(name, root, pool, guard, threads=threads, prune=prune)
    storage.roots[name] = place[:2]
    return storage


def keeping_roots(storages: Sequence[LocalStorage]) -> list[LocalStorage]:
    """The same storages, none of which removes another's root when that lies below its own and is empty."""
    roots = {name: identity for storage in storages for name, identity in storage.roots.items()}
    for storage in storages:
        storage.roots = roots
    return list(storages)


def _waits() -> int:
    """How often this thread had to wait for something, instead of being made to."""
    return resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw
