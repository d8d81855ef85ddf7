"""A disk that is full when the test says so: a tablespace on a small file system of its own."""

import os
import secrets
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from tests.support.names import PREFIX, SESSION

SIZE = 1 << 20


class SmallDisk:
    """``tablespace`` lies on it."""

    def __init__(self, folder: Path, tablespace: str) -> None:
        self.folder = folder
        self.tablespace = tablespace
        self._ballast = folder / "ballast"

    def fill(self) -> None:
        """Leave not a single block."""
        with self._ballast.open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(b"\0" * 4096)

    def clear(self) -> None:
        """Make room again."""
        self._ballast.unlink()


@contextmanager
def small_disk(conn: psycopg.Connection) -> Iterator[SmallDisk]:
    """A small disk for the server of ``conn``; skips, with the reason, where none can be mounted."""
    (data,) = conn.execute("show data_directory").fetchone() or ("",)
    if os.geteuid() != 0 or not Path(data).is_dir():
        pytest.skip("a file system can be mounted by root alone, and only for a server on this machine")
    owner = Path(data).stat()
    name = f"{PREFIX}_{os.environ[SESSION]}_{secrets.token_hex(4)}"
    folder = Path("/tmp") / name  # noqa: S108 (short, and open to the server's user)
    folder.mkdir(mode=0o755)
    options = f"size={SIZE},mode=0700,uid={owner.st_uid},gid={owner.st_gid}"
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True, text=True, check=False
    )
    if done.returncode:
        folder.rmdir()
        pytest.skip(f"no file system may be mounted here: {done.stderr.strip()}")
    try:
        conn.execute(
            sql.SQL("create tablespace {} location {}").format(sql.Identifier(name), sql.Literal(str(folder)))
        )
        try:
            yield SmallDisk(folder, name)
        finally:
            (folder / "ballast").unlink(missing_ok=True)
            conn.execute("alter table lapse.file_cleanup_log set tablespace pg_default")
            conn.execute(sql.SQL("drop tablespace {}").format(sql.Identifier(name)))
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)
        folder.rmdir()
