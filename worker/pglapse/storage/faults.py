"""What an error of the file system means: for one file, or for the whole storage.

`HOPELESS` errors will be the same tomorrow; others may pass. Some say nothing about the file at all, and
then the storage rests without blaming anything in it.
"""

import errno
import os
import stat

from pglapse.storage import Outcome, Verdict
from pglapse.text import printable

HOPELESS = {
    errno.ENOTDIR: "a folder in the path is not a folder",
    errno.ELOOP: "a folder in the path is a symbolic link",
    errno.EISDIR: "it is a folder, not a file",
    errno.ENAMETOOLONG: "a name in the path is too long for this file system",
    errno.EILSEQ: "a name in the path is not possible on this file system",
    errno.EINVAL: "a name in the path is not possible on this file system",
}
PASSING = {
    errno.EPERM: "not permitted (immutable, append-only, or another user's in a sticky folder?)",
    errno.EROFS: "it is mounted read-only (after an error of the disk? the kernel's log says)",
    errno.EBUSY: "the file is in use by the system (something is mounted on it?)",
    errno.ENOSPC: "the file system is so full that it can't even delete",
    errno.EDQUOT: "a quota is used up so far that nothing can even be deleted",
    errno.EIO: "the disk reports an error; the kernel's log says more",
    errno.ESTALE: "the server of this network file system does not know it any more: mount it again",
    errno.ENOTCONN: "the process or server behind this file system is gone: mount it again",
    errno.ETIMEDOUT: "the server of this file system does not answer",
    errno.EHOSTDOWN: "the server of this file system is down",
    errno.EMFILE: "this worker has too many files open; raise its limit (LimitNOFILE=, ulimit -n)",
    errno.ENFILE: "this machine has too many files open (fs.file-max)",
    errno.ENOMEM: "this machine is out of memory",
}
EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})
"""The worker or the machine has run out of something: no file is to blame."""

DENIED = frozenset({errno.EACCES, errno.EPERM})
ITS_OWN = frozenset({errno.EBUSY, errno.ENOSPC, errno.EDQUOT}) | HOPELESS.keys() | DENIED
"""Errors that say something about a file, and nothing about the rest of its storage."""


def words(error: OSError) -> str:
    """The error as people say it, with what to do about it where that is known."""
    code = error.errno or 0
    if code == errno.ENOENT:
        return "there is no such folder"
    if code == errno.EACCES:
        return f"no permission for user {os.geteuid()}"
    return HOPELESS.get(code) or PASSING.get(code) or os.strerror(code)


class Denial(Outcome):
    """Failed for want of permission: maybe of the worker, and not for this file alone."""


def failure(error: OSError) -> Outcome:
    """What became of a file on which a call failed; not for those that are missing."""
    verdict: Verdict = "refused" if error.errno in HOPELESS else "failed"
    name = f" ({shown(error.filename)})" if isinstance(error.filename, bytes) else ""
    return (Denial if error.errno in DENIED else Outcome)(verdict, error=words(error) + name)


def shown(name: bytes) -> str:
    """A name between quotes, on one line whatever is in it."""
    return f"'{printable(name.decode('utf-8', 'backslashreplace'), 80)}'"


def kind(mode: int) -> str:
    """What an entry is, with its article."""
    for test, said in (
        (stat.S_ISLNK, "a symbolic link"),
        (stat.S_ISDIR, "a folder"),
        (stat.S_ISREG, "a file"),
        (stat.S_ISFIFO, "a named pipe"),
        (stat.S_ISSOCK, "a socket"),
    ):
        if test(mode):
            return said
    return "a device"
