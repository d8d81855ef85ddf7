"""Find a PostgreSQL for the tests, in this order: a DSN, Docker, local programs, the embedded wheel."""

import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg

from pglapse import cluster
from tests.support.install import ROOT

DSN = "PGLAPSE_TEST_DSN"
IMAGE = "PGLAPSE_TEST_IMAGE"
STARTUP = 90.0  # seconds that a container may take


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
    if not os.environ.get("DOCKER_HOST") and not Path("/var/run/docker.sock").exists():
        raise NotHere("no Docker engine answers")
    try:
        import docker  # noqa: PLC0415 - slow to import, and not needed where a server was named
        from testcontainers.core.container import DockerContainer  # noqa: PLC0415

        engine = docker.from_env(timeout=600)
        engine.ping()
    except Exception as error:
        raise NotHere(f"no Docker engine answers: {error}") from error
    folder = ROOT / "docker"
    try:
        image = os.environ.get(IMAGE)
        if not image:
            engine.images.build(
                path=str(folder), dockerfile="Dockerfile.postgres", tag="pglapse-postgres:test", rm=True
            )
            image = "pglapse-postgres:test"
        password = secrets.token_hex(16)
        container = DockerContainer(image).with_env("POSTGRES_PASSWORD", password).with_exposed_ports(5432)
        container.start()
    except Exception as error:
        raise NotHere(
            f"Docker answers, but the image docker/Dockerfile.postgres does not run: {error}"
        ) from error
    try:
        dsn = psycopg.conninfo.make_conninfo(
            host=container.get_container_host_ip(),
            port=container.get_exposed_port(5432),
            user="postgres",
            password=password,
            dbname="postgres",
        )
        _wait_for(dsn)
        yield Server(dsn, f"Docker image {image}")
    finally:
        container.stop()


def _wait_for(dsn: str) -> None:
    until = time.monotonic() + STARTUP
    while True:
        try:
            psycopg.connect(dsn).close()
        except psycopg.OperationalError:
            if time.monotonic() > until:
                raise
            time.sleep(0.2)
        else:
            return


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
