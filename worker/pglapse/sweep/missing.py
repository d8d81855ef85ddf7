"""The other way round: rows that speak of a file which is not there."""

import os
from collections.abc import Iterator

from pglapse.errors import translated
from pglapse.paths import BadPath, split
from pglapse.schema import Connection
from pglapse.storage.folders import Walk, close
from pglapse.storage.local import LocalStorage

PAGE = 1000


def missing(conn: Connection, storage: LocalStorage) -> Iterator[tuple[str, str]]:
    """File source and path of each row whose file is not there, or is nothing that could be deleted.

    Raises `Away` when the root can't be used: then every file would seem to be missing.
    """
    source: str | None = None
    after: str | None = None
    while True:
        with translated():
            page = conn.execute(
                "select l.source, l.path from lapse.listed_files(%s, %s, %s, %s) as l",
                [storage.name, source, after, PAGE],
            ).fetchall()
        if not page:
            return
        source, after = page[-1]
        root, home = storage.open_root()
        walk = Walk(root, home, prune=False, keep=())
        try:
            gone = [
                (name, path) for name, path in sorted(page, key=lambda row: row[1]) if not _there(walk, path)
            ]
        finally:
            walk.end()
            close(root)
        storage.look_again(home)  # files are believed to be missing only if the root is still there
        yield from gone


def _there(walk: Walk, path: str) -> bool:
    try:
        *folders, name = split(path)
        if walk.to(tuple(folders)) is not None:
            return False
        os.lstat(name, dir_fd=walk.here)
    except (BadPath, FileNotFoundError, NotADirectoryError):
        return False
    return True
