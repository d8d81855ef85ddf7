"""A primary and a synchronous standby; when the primary is lost, the standby is promoted and a new one made.

The standby is synchronous before a primary may be lost, so each commit that was acknowledged is on both.
"""

import os
import pwd
import random
import shutil
import socket
import subprocess
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path

import psycopg
from psycopg.conninfo import make_conninfo

from pglapse import cluster
from pglapse.cluster import Cluster
from tests.chaos.faults import Fault, kill_server

STREAM = {"hot_standby": "on", "wal_level": "replica", "listen_addresses": "127.0.0.1"}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


class Pair:
    """Two clusters that take turns in being the primary."""

    def __init__(self, primary: Cluster, port: int, folder: Path) -> None:
        folder.mkdir()
        if primary.user:
            owner = pwd.getpwnam(primary.user)
            os.chown(folder, owner.pw_uid, owner.pw_gid)
        folder.chmod(0o700)
        self.primary, self._port = primary, port
        self.standby, self._standby_port = replace(primary, folder=folder, socket=folder), free_port()

    def dsn(self, **more: str) -> str:
        """Whichever of them is the primary now."""
        return make_conninfo(
            host="127.0.0.1,127.0.0.1",
            port=f"{min(self._port, self._standby_port)},{max(self._port, self._standby_port)}",
            user="postgres",
            target_session_attrs="read-write",
            **more,
        )

    def _own(self, port: int) -> str:
        return make_conninfo(host="127.0.0.1", port=port, user="postgres", dbname="postgres")

    def join(self) -> None:
        """Make the standby from the primary, and go on once no commit is acknowledged without it."""
        data = self.standby.folder / "data"
        shutil.rmtree(data, ignore_errors=True)
        self._as_server("pg_basebackup", "-D", str(data), "-d", self._own(self._port), "-X", "stream",
                        "-c", "fast", "-R", "--no-sync")  # fmt: skip
        with (data / "postgresql.conf").open("a") as conf:
            conf.write(f"port = {self._standby_port}\nunix_socket_directories = '{self.standby.socket}'\n")
        cluster.start(self.standby)
        with psycopg.connect(self._own(self._port), autocommit=True) as conn:
            conn.execute("alter system set synchronous_standby_names = '*'")
            conn.execute("select pg_reload_conf()")
            until = time.monotonic() + 30
            while (
                conn.execute("select 1 from pg_stat_replication where sync_state = 'sync'").fetchone() is None
            ):
                if time.monotonic() > until:
                    raise RuntimeError("the standby does not get synchronous")
                time.sleep(0.05)

    def fail_over(self) -> None:
        """Lose the primary without a warning, and promote the standby, which then waits for no other."""
        kill_server(self.primary)
        with psycopg.connect(self._own(self._standby_port), autocommit=True) as conn:
            conn.execute("select pg_promote(true, 30)")
        self.primary, self.standby = self.standby, self.primary
        self._port, self._standby_port = self._standby_port, self._port

    def stop(self) -> None:
        for one in (self.primary, self.standby):
            cluster.stop(one, "immediate")

    def _as_server(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [self.primary.bindir / program, *arguments],
            user=self.primary.user,
            cwd="/",
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{program} failed: {done.stderr}")


@dataclass
class FailOver(Fault):
    pair: Pair
    name: str = "failovers"

    def strike(self, dice: random.Random, stop: threading.Event) -> int:
        self.pair.fail_over()
        stop.wait(dice.uniform(0, 1))
        self.pair.join()
        return 1
