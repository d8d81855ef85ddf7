"""A PostgreSQL of the benchmark's own, set up as a user has it: every setting at its default, so that a
commit is on disk when it returns."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
from psycopg.conninfo import conninfo_to_dict

from pglapse import cluster

Connection = psycopg.Connection[Any]

# A throw-away cluster is made for tests, with these off; here they are what a new cluster has.
DEFAULTS = {"fsync": "on", "full_page_writes": "on", "jit": "on"}
SHOWN = (
    "fsync",
    "synchronous_commit",
    "full_page_writes",
    "shared_buffers",
    "max_wal_size",
    "autovacuum",
    "autovacuum_naptime",
    "jit",
    "max_connections",
)
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Server:
    """A running server, and where its programs are."""

    dsn: str
    bindir: Path
    pid: int

    def url(self, database: str) -> str:
        """A connection string that libpq, asyncpg and Node.js all understand."""
        parts = conninfo_to_dict(self.dsn)
        return f"postgresql://{parts['user']}@{quote(str(parts['host']), safe='')}:{parts['port']}/{database}"

    def connect(self, database: str = "postgres") -> Connection:
        """A superuser's connection."""
        return psycopg.connect(self.url(database), autocommit=True, application_name="benchmark")

    def create(self, database: str, template: str = "template1") -> str:
        """Make a database; return its connection string."""
        with self.connect() as conn:
            conn.execute(f'create database "{database}" template "{template}"')
        return self.url(database)

    def settings(self) -> dict[str, str]:
        """Version and settings worth knowing, and every one that is not at its default."""
        with self.connect() as conn:
            version = conn.info.parameter_status("server_version") or "?"
            rows = conn.execute(
                "select name, current_setting(name) from pg_settings where name = any(%s)"
                " or source = 'configuration file' and setting is distinct from boot_val"
                " and category not like 'Reporting%%' "
                " and name !~ '^(lc_|unix_socket|log_|Date|default_text)'",
                [list(SHOWN)],
            ).fetchall()
        return {"version": version, **dict(sorted(rows))}

    def seconds_of_cpu(self) -> float:
        """Processor time of the server so far: its processes of now and those that ended."""
        total = sum(_times(Path(f"/proc/{self.pid}/stat"), 4))
        for child in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split():
            total += sum(_times(Path(f"/proc/{child}/stat"), 2))
        return total / TICKS


def seconds_of_cpu(pid: int) -> float:
    """Processor time of one process and of its children that ended."""
    return sum(_times(Path(f"/proc/{pid}/stat"), 4)) / TICKS


def _times(stat: Path, count: int) -> list[int]:
    """User and system time, then those of ended children; nothing for a process that is gone."""
    try:
        fields = stat.read_text().rsplit(")", 1)[1].split()
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [int(field) for field in fields[11 : 11 + count]]


@contextmanager
def running(*, durable: bool = True) -> Iterator[Server]:
    """A new cluster on disk, stopped and removed afterwards; not durable: with fsync off, for tests."""
    bindir = cluster.find_local() or cluster.find_embedded()
    for name in [name for name in os.environ if name.startswith("PG") and not name.startswith("PGLAPSE")]:
        del os.environ[name]  # they are about some other server
    settings = dict(DEFAULTS) if durable else {}
    library = any((bindir.parent / "lib").rglob("pg_stat_statements.so"))
    if library:
        # Loaded but asleep: it counts the requests of an idle worker, and nothing else is measured with it.
        settings |= {"shared_preload_libraries": "pg_stat_statements", "pg_stat_statements.track": "none"}
    folder = Path(tempfile.mkdtemp(prefix="pglapse-bench-"))
    try:
        with cluster.throwaway(bindir, folder, settings) as dsn:
            pid = int((folder / "data" / "postmaster.pid").read_text().splitlines()[0])
            yield Server(dsn, bindir, pid)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
