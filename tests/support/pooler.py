"""PgBouncer in front of a test's database, as Debian packages it."""

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from tests.support.poll import until

Mode = Literal["session", "transaction", "statement"]

CONFIG = """
[databases]
* = host={host} port={port} user={user} pool_size={size}{password}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {listen}
unix_socket_dir =
auth_type = any
admin_users = postgres
pool_mode = {mode}
"""


class Pooler:
    """A running PgBouncer: ``dsn`` leads through it to the database that it was made for."""

    def __init__(self, dsn: str, console: str) -> None:
        self.dsn = dsn
        self._console = console

    def ask(self, command: str) -> list[tuple[object, ...]]:
        """Say something on its console, such as ``set pool_mode = session`` or ``show servers``."""
        with psycopg.connect(self._console, autocommit=True, cursor_factory=psycopg.ClientCursor) as console:
            cursor = console.execute(command)
            return cursor.fetchall() if cursor.description else []


@contextmanager
def pgbouncer(dsn: str, folder: Path, mode: Mode, *, size: int = 5) -> Iterator[Pooler]:
    """PgBouncer in one of its modes, with at most ``size`` connections to the server; skips without one."""
    program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        pytest.skip("no PgBouncer here: apt-get install pgbouncer")
    given = conninfo_to_dict(dsn)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = folder / f"pgbouncer-{port}.ini"
    text = CONFIG.format(
        host=given.get("host") or given.get("hostaddr") or "/var/run/postgresql",
        port=given.get("port") or 5432,
        user=given.get("user") or "postgres",
        password=f" password={given['password']}" if given.get("password") else "",
        listen=port,
        mode=mode,
        size=size,
    )
    config.write_text(text)
    log = folder / f"pgbouncer-{port}.log"
    with config.open() as readable, log.open("wb") as output:
        process = subprocess.Popen(
            # It does not run as root, and may not be able to enter a test's folder.
            [program, *(["-u", "postgres"] if os.geteuid() == 0 else []), f"/dev/fd/{readable.fileno()}"],
            pass_fds=[readable.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd="/",
        )
    try:
        through = make_conninfo(dsn, host="127.0.0.1", port=port, hostaddr="")
        console = make_conninfo(host="127.0.0.1", port=port, user="postgres", dbname="pgbouncer")
        until(lambda: _answers(port), what=lambda: f"PgBouncer to listen; it said:\n{log.read_text()}")
        yield Pooler(through, console)
    finally:
        process.terminate()
        process.wait(20)


def _answers(port: int) -> bool:
    with socket.socket() as line:
        return line.connect_ex(("127.0.0.1", port)) == 0
