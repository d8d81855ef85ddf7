"""A primary and a standby of one's own, where the server's programs are on this machine."""

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import psycopg

from pglapse import cluster
from tests.support.poll import until


@contextmanager
def pair() -> Iterator[tuple[str, str] | None]:
    """DSNs of a primary and of its hot standby, gone afterwards; None where there are no programs for it."""
    bindir = cluster.find_local()
    if bindir is None or not (bindir / "pg_basebackup").is_file():
        yield None
        return
    with ExitStack() as stack:
        folder = Path(
            stack.enter_context(
                tempfile.TemporaryDirectory(prefix="pglapse-standby-", dir="/tmp", ignore_cleanup_errors=True)
            )
        )
        folder.chmod(0o755)
        settings = {"max_wal_senders": "3", "shared_buffers": "16 MB"}
        primary = cluster.create(bindir, folder / "primary", settings)
        stack.callback(cluster.remove_socket, primary)
        stack.callback(cluster.stop, primary)
        cluster.start(primary)

        home = folder / "standby"
        home.mkdir(mode=0o700)
        if primary.user:
            shutil.chown(home, primary.user)
        standby = replace(primary, folder=home, socket=home)
        copy = ["pg_basebackup", "-d", primary.dsn, "-D", str(home / "data")]
        program(primary, *copy, "-X", "stream", "-c", "fast", "-R", "--no-sync")
        with (home / "data" / "postgresql.conf").open("a", encoding="utf-8") as file:
            file.write(f"unix_socket_directories = '{home}'\n")
        stack.callback(cluster.stop, standby)
        cluster.start(standby)
        yield primary.dsn, standby.dsn


def program(owner: cluster.Cluster, name: str, *arguments: str) -> None:
    """Run one of the server's programs as the user who runs the server."""
    done = subprocess.run(
        [owner.bindir / name, *arguments],
        user=owner.user,
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr


def caught_up(primary: psycopg.Connection, standby: psycopg.Connection) -> None:
    """Wait until the standby has all that the primary has now."""
    (place,) = primary.execute("select pg_current_wal_insert_lsn()").fetchone() or (None,)
    until(
        lambda: (standby.execute("select pg_last_wal_replay_lsn() >= %s", [place]).fetchone() or (False,))[0],
        what="the standby to catch up",
    )
