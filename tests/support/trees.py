"""A folder tree as a value, to compare before and after."""

import os
import stat
from pathlib import Path


def snapshot(root: Path) -> dict[bytes, tuple[int, int, bytes]]:
    """Every entry below ``root``: its type, inode and content (or link target)."""
    found: dict[bytes, tuple[int, int, bytes]] = {}
    top = os.fsencode(root)
    for folder, folders, names in os.walk(top):
        for name in folders + names:
            path = os.path.join(folder, name)  # noqa: PTH118 (bytes)
            status = os.lstat(path)
            if stat.S_ISREG(status.st_mode):
                with open(path, "rb") as file:  # noqa: PTH123 (bytes)
                    content = file.read()
            elif stat.S_ISLNK(status.st_mode):
                content = os.readlink(path)  # noqa: PTH115 (bytes)
            else:
                content = b""
            found[os.path.relpath(path, top)] = (stat.S_IFMT(status.st_mode), status.st_ino, content)
    return found
