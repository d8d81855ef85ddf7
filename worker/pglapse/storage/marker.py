"""The marker: a small file below a root by which the root is known, also after it was unmounted.

An unmounted root leaves an empty folder of the same name, in which every file looks "missing". So the
database keeps a number for each storage, the root's marker holds the same, and nothing is deleted, or
believed to be missing, where the two differ. On first use neither knows one, and the root is trusted.
"""

import errno
import logging
import os
import re
import secrets
import shlex
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

from pglapse.errors import PglapseError
from pglapse.storage import Away, Sign
from pglapse.storage.faults import kind, words
from pglapse.storage.mounts import Place
from pglapse.text import printable

log = logging.getLogger(__name__)

NAME = ".pglapse-root"
LONGEST = 1024
TEXT = """{}
# The first line says which storage of which database this folder is. pglapse deletes files below this folder
# only while it is here, so that a disk that is not mounted is noticed. To renew it: pglapse storage adopt
"""
CUT = 36  # characters of a number: a file with less is one whose writer died, or is just at it

_NUMBER = re.compile(rb"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


class Unreadable(Exception):
    """There is a marker, but no number in it; the text says why. ``cut``: whoever wrote it did not finish."""

    def __init__(self, reason: str, *, cut: bool = False) -> None:
        super().__init__(reason)
        self.cut = cut


class Mark(NamedTuple):
    """A marker as it lies in a root."""

    number: UUID
    inode: int


Ask = Callable[[UUID | None], Sign]
"""Asks the database, with the number that was found in the root; raises `PglapseError` when it refuses."""


def is_marker(name: bytes) -> bool:
    """Whether a file of that name is, or on some file system could be, a marker. It is not to be deleted."""
    return name.lower() == NAME.encode()


def read(root: int) -> Mark | None:
    """The marker of an open root, None if it has none; raises `Unreadable`."""
    try:
        descriptor = os.open(
            NAME, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY, dir_fd=root
        )
    except FileNotFoundError:
        return None
    except OSError as error:
        what = "it is a symbolic link" if error.errno == errno.ELOOP else words(error)
        raise Unreadable(what) from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise Unreadable(f"it is {kind(status.st_mode)}, not a regular file")
        content = os.read(descriptor, LONGEST + 1)
    except OSError as error:
        raise Unreadable(words(error)) from error
    finally:
        with suppress(OSError):
            os.close(descriptor)
    first = content.split(b"\n", 1)[0].strip()
    if len(content) > LONGEST or not _NUMBER.fullmatch(first):
        raise Unreadable("its first line is no number as pglapse writes it", cut=len(content) < CUT)
    return Mark(UUID(first.decode()), status.st_ino)


def write(root: int, number: UUID) -> None:
    """Give an open root its marker; raises `FileExistsError` if it has one, else `OSError`."""
    _create(root, NAME, number)
    _settle(root)


def replace(root: int, number: UUID) -> None:
    """Give an open root its marker, in place of any that it has; raises `OSError`."""
    name = f"{NAME}.{secrets.token_hex(4)}"
    _create(root, name, number)
    try:
        os.rename(name, NAME, src_dir_fd=root, dst_dir_fd=root)
    except OSError:
        os.unlink(name, dir_fd=root)
        raise
    _settle(root)


def _create(root: int, name: str, number: UUID) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(name, flags, 0o644, dir_fd=root)
    try:
        with suppress(PermissionError):  # a file system without modes
            os.fchmod(descriptor, 0o644)  # whatever the umask: every worker must be able to read it
        os.write(descriptor, TEXT.format(number).encode())
        os.fsync(descriptor)
    except OSError:
        os.unlink(name, dir_fd=root)
        raise
    finally:
        with suppress(OSError):
            os.close(descriptor)


def _settle(root: int) -> None:
    """Have the entry on disk before the database hears of it."""
    with suppress(OSError):  # some file systems can't do this for folders
        os.fsync(root)


class Marked:
    """Knows a storage's root by its marker.

    The lane's thread looks at the root; the main thread asks the database. Neither waits for the other:
    what was found lies here until it is asked about, the answer until the root is looked at again.
    """

    def __init__(self, storage: str, root: Path) -> None:
        self.storage = storage
        self.root = root
        self.asks = True
        """Whether the database has to be asked, by `introduce`."""
        self.inode: int | None = None
        """That of the marker, by which it is known under any name."""
        self._found: UUID | None = None
        self._written: UUID | None = None
        self._word: Sign | str | None = None

    def look(self, root: int) -> None:
        """Note what an open root has, to be asked about; for the start, when nothing is known yet."""
        with suppress(Unreadable):
            mark = read(root)
            self._note(mark.number if mark else None)

    def introduce(self, ask: Ask) -> None:
        """Ask the database which number the root must have. Its refusal is kept, any other error passes."""
        self.asks = False  # first: what is found meanwhile must be asked about, too
        found, written = self._found, self._written
        try:
            if written is not None and written != found:
                ask(written)  # it was there; that it is gone again must not look like a first use
            self._word = ask(found)
            self._written = None
        except PglapseError as error:
            self._word = f"{error}{'; ' + error.hint if error.hint else ''}"
        except BaseException:
            self.asks = True
            raise

    def check(self, root: int, place: Place) -> None:  # noqa: ARG002 (a guard's signature)
        """Raise `Away` unless an open root has the number that the database knows it by."""
        word = self._word
        mark = self._read(root, may_write=isinstance(word, Sign) and word.write)
        if mark is None and isinstance(word, Sign) and word.write:
            mark = self._write(root, word.number)
        found = mark.number if mark else None
        if mark is not None and isinstance(word, Sign) and found == word.number:
            self.inode = mark.inode
            if word.write:
                self._word = Sign(word.number)  # from now on, a root without it is another one
                self._written = found
                self._note(found)  # and the database is to know that
            return
        self._note(found)
        if word is None:
            raise Away(f"the database was not asked yet for the marker of {self._folder}", retry_in=0)
        if isinstance(word, str):
            raise Away(f"{self._folder} is refused: {word}")
        if found is None:
            raise Away(
                f"{self._folder} has no marker {NAME}: its disk is not mounted, or it is another folder than "
                f"before. {self._way_out}"
            )
        raise Away(
            f"{self._what} is that of another storage ({found} instead of {word.number}): is the right disk "
            f"mounted? {self._way_out}"
        )

    def _read(self, root: int, *, may_write: bool) -> Mark | None:
        try:
            return read(root)
        except Unreadable as reason:
            if may_write and reason.cut:
                return None
            self.asks = True
            raise Away(f"{self._what} can't be used: {reason}. {self._way_out}") from reason

    def _note(self, found: UUID | None) -> None:
        self._found = found
        self.asks = True

    def _write(self, root: int, number: UUID) -> Mark | None:
        """Give the root its marker; return the one that it has now."""
        try:
            with os.scandir(root) as entries:
                empty = next(entries, None) is None
            try:
                write(root, number)
            except FileExistsError:  # another worker was quicker, or one died while it wrote
                if mark := self._read(root, may_write=True):
                    return mark
                replace(root, number)
        except OSError as error:
            raise Away(
                f"the marker {NAME} can't be written into {self._folder}: {words(error)}. Let the worker "
                f"write there once, or put it there yourself, a file with the one line {number}; or set "
                "marker = false, where the folder is to be trusted without"
            ) from error
        log.info(
            "storage %s: %s has the marker %s from now on, %s",
            printable(self.storage),
            printable(str(self.root)),
            NAME,
            number,
        )
        if empty:
            log.warning(
                "storage %s: %s was empty when it got its marker: is its disk mounted?",
                printable(self.storage),
                printable(str(self.root)),
            )
        return self._read(root, may_write=False)

    @property
    def _folder(self) -> str:
        return f"the root {self.root} of storage {self.storage}"

    @property
    def _what(self) -> str:
        return f"the marker {NAME} in {self._folder}"

    @property
    def _way_out(self) -> str:
        return (
            "If this folder is the right one from now on (a new disk, a restored backup): "
            f"pglapse storage adopt {shlex.quote(self.storage)}"
        )
