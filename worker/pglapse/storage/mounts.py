"""Where an open folder lives: on which file system, and through which mount.

A device number alone does not tell: a folder of the same disk mounted elsewhere ("bind mount", as
containers have it) keeps its number. So the mount is asked for as well: statx knows it since Linux 5.8,
/proc since 3.15. Python's own ``os`` has no statx yet.
"""

import ctypes
import os
import struct
from contextlib import suppress
from typing import Any

_EMPTY_PATH = 0x1000  # AT_EMPTY_PATH: the descriptor itself
_DONT_SYNC = 0x4000  # AT_STATX_DONT_SYNC: none of this ever changes, so no server need be asked
_INODE = 0x100  # STATX_INO
_MOUNT = 0x1000  # STATX_MNT_ID
_FIELDS = struct.Struct("=I28xQ96xQQ")  # of struct statx: mask, inode, device, mount
_SIZE = 256

_statx: Any = None  # with an old C library
with suppress(OSError, AttributeError):
    _statx = ctypes.CDLL(None, use_errno=True).statx
    _statx.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_uint, ctypes.c_char_p]


Place = tuple[int, int, int]
"""Device and inode, which together are what a folder is whatever its name, and the mount that it was reached
through: 0 where this machine does not tell."""

Identity = tuple[int, int]
"""Device and inode alone."""


class Surveyor:
    """Looks at open folders. For one thread: it has a buffer of its own."""

    def __init__(self) -> None:
        self._buffer = ctypes.create_string_buffer(_SIZE)

    def place(self, descriptor: int) -> Place:
        """Where the folder lives; raises `OSError`."""
        if _statx is not None and not _statx(
            descriptor, b"", _EMPTY_PATH | _DONT_SYNC, _INODE | _MOUNT, self._buffer
        ):
            mask, inode, device, mount = _FIELDS.unpack_from(self._buffer)
            if mask & _MOUNT:
                return device, inode, mount
        # An old kernel, or one that keeps statx from this process.
        found = os.fstat(descriptor)
        return found.st_dev, found.st_ino, _mount(descriptor)


def _mount(descriptor: int) -> int:
    try:
        with open(f"/proc/self/fdinfo/{descriptor}", "rb") as lines:  # noqa: PTH123 (no path object needed)
            for line in lines:
                if line.startswith(b"mnt_id:"):
                    return int(line[7:])
    except OSError:
        pass
    return 0
