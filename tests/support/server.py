"""Find a PostgreSQL for the tests, in this order: a DSN, Docker, local programs, the embedded wheel."""

import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg

from pglapse import cluster
from tests.support import container

DSN = "PGLAPSE_TEST_DSN"


@dataclass(frozen=True, slots=True)
class Server:
    """A superuser's DSN, and where it comes from, in words."""

    dsn: str
    origin: str


class NotHere(Exception):
    """This kind of server is not to be had on this machine; the message says why."""


@contextmanager
def found() -> Iterator[Server]:
    """The first server to be had, running until the end of the block; raises `NotHere` with every reason."""
    reasons: list[str] = []
    with ExitStack() as stack:
        for kind in (_named, _docker, _local, _embedded):
            try:
                server = stack.enter_context(kind())
            except NotHere as reason:
                reasons.append(str(reason))
            else:
                passed_over = f" ({'; '.join(reasons)})" if reasons else ""
                yield Server(server.dsn, server.origin + passed_over)
                return
    raise NotHere("; ".join(reasons))


def described(server: Server) -> str:
    """One line for the top of a test run: which server, which version, and where its pg_cron is."""
    with psycopg.connect(server.dsn) as connection:
        version, home, cron = connection.execute(
            "select current_setting('server_version'), current_setting('cron.database_name', true),"
            "       (select default_version from pg_available_extensions where name = 'pg_cron')"
        ).fetchone() or ("?", None, None)
    where = f"pg_cron {cron} in database {home}" if home and cron else "no pg_cron"
    return f"PostgreSQL {version}, {where}; {server.origin}"


@contextmanager
def _named() -> Iterator[Server]:
    dsn = os.environ.get(DSN)
    if not dsn:
        raise NotHere(f"{DSN} is not set")
    psycopg.connect(dsn).close()  # one that was named and is not there is an error, not a reason to look on
    yield Server(dsn, f"named by {DSN}")


@contextmanager
def _docker() -> Iterator[Server]:
    with ExitStack() as stack:
        try:
            dsn = stack.enter_context(container.postgres())
        except container.NoContainer as reason:
            raise NotHere(str(reason)) from reason
        yield Server(dsn, "Docker image of docker/Dockerfile.postgres")


@contextmanager
def _local() -> Iterator[Server]:
    bindir = cluster.find_local()
    if bindir is None:
        raise NotHere("no PostgreSQL is installed here")
    settings = {"shared_preload_libraries": "pg_cron"} if cluster.has_cron(bindir) else {}
    with _folder() as folder, cluster.throwaway(bindir, folder, settings) as dsn:
        yield Server(dsn, f"a throw-away cluster of {bindir}")


@contextmanager
def _embedded() -> Iterator[Server]:
    try:
        bindir = cluster.find_embedded()
    except FileNotFoundError as error:
        raise NotHere(str(error)) from error
    with _folder() as folder, cluster.throwaway(bindir, folder) as dsn:
        yield Server(dsn, "a throw-away cluster of the embedded wheel")


@contextmanager
def _folder() -> Iterator[Path]:
    folder = Path(tempfile.gettempdir()) / f"pglapse-test-{secrets.token_hex(4)}"
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
