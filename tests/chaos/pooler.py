"""PgBouncer between the server and everybody else."""

import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from psycopg.conninfo import conninfo_to_dict, make_conninfo

from tests.chaos.campaign import NotPossible
from tests.chaos.database import APPLICATION, NAME, WORKER
from tests.chaos.faults import Fault


def there() -> None:
    if not _program():
        raise NotPossible("there is no pgbouncer here: apt-get install pgbouncer")


def _program() -> str | None:
    return shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


class Pooler:
    """A PgBouncer of the campaign's own."""

    def __init__(self, folder: Path, server: str, mode: str) -> None:
        folder.mkdir()
        given = conninfo_to_dict(server)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.dsn = make_conninfo(host="127.0.0.1", port=self.port, dbname=NAME)
        users = folder / "users"
        users.write_text(f'"{WORKER}" ""\n"{APPLICATION}" ""\n')
        self._log = folder / "log"
        self._config = folder / "pgbouncer.ini"
        self._config.write_text(
            f"[databases]\n{NAME} = host={given['host']} port={given['port']} dbname={NAME}\n"
            "[pgbouncer]\nlisten_addr = 127.0.0.1\n"
            f"listen_port = {self.port}\nunix_socket_dir =\nauth_type = trust\nauth_file = {users}\n"
            f"pool_mode = {mode}\ndefault_pool_size = 8\nmax_client_conn = 100\n"
            "server_login_retry = 0.2\nquery_wait_timeout = 5\n"
        )
        self._user = "postgres" if os.geteuid() == 0 else None
        if self._user:
            owner = pwd.getpwnam(self._user)
            for path in (folder, users, self._config):
                os.chown(path, owner.pw_uid, owner.pw_gid)
        self._process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as output:
            process = subprocess.Popen(
                [_program() or "pgbouncer", str(self._config)],
                user=self._user,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        until = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
            except OSError as error:
                if process.poll() is not None or time.monotonic() > until:
                    raise RuntimeError(f"pgbouncer does not start:\n{self._log.read_text()}") from error
                time.sleep(0.02)
            else:
                return process

    def kill(self) -> None:
        """kill -9, and another one at once."""
        self.end()
        self._process = self._start()

    def end(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()


@dataclass
class KillPooler(Fault):
    pooler: Pooler
    name: str = "poolers killed"

    def strike(self, dice: random.Random, stop: threading.Event) -> int:
        self.pooler.kill()
        return 1
