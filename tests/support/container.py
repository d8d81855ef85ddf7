"""PostgreSQL with pg_cron in a container, from docker/Dockerfile.postgres."""

import os
import re
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

from tests.support.install import ROOT

IMAGE = "PGLAPSE_TEST_IMAGE"
"""An image that is built already: none is built then."""

BASE = "PGLAPSE_TEST_BASE_IMAGE"
"""The image to build on, where the official one can't be pulled."""

STARTUP = 90.0  # seconds that a container may take


class NoContainer(Exception):
    """No engine answers, or the image can't be built or run; the message says which and why."""


class BuildFailed(NoContainer):
    """An engine and the base image are there, yet a Dockerfile of ours does not build."""


def engine() -> Any:
    """A client of the engine that DOCKER_HOST or the usual socket leads to; raises `NoContainer`."""
    if not os.environ.get("DOCKER_HOST") and not Path("/var/run/docker.sock").exists():
        raise NoContainer("no Docker engine answers")
    try:
        import docker  # noqa: PLC0415 - slow to import, and not needed where a server was named

        client = docker.from_env(timeout=600)
        client.ping()
    except Exception as error:
        raise NoContainer(f"no Docker engine answers: {error}") from error
    return client


def build(folder: Path, dockerfile: str, tag: str, base: str | None = None) -> str:
    """Build ``dockerfile`` with ``folder`` as its context and return the tag.

    Raises `NoContainer` when no engine answers or the base image is not to be had, `BuildFailed` when the
    fault lies with the Dockerfile.
    """
    client = engine()
    first = re.search(r"^ARG BASE=(\S+)", (folder / dockerfile).read_text(encoding="utf-8"), re.MULTILINE)
    assert first, f"{dockerfile} names no base image"
    base = base or first[1]
    try:
        client.images.get(base)
    except Exception:
        try:
            client.images.pull(base)
        except Exception as error:
            raise NoContainer(f"Docker answers, but {base} can't be pulled: {error}") from error
    try:
        client.images.build(
            path=str(folder), dockerfile=dockerfile, tag=tag, buildargs={"BASE": base}, rm=True
        )
    except Exception as error:
        raise BuildFailed(f"{dockerfile} does not build: {error}") from error
    return tag


def postgres_image() -> str:
    """An image of PostgreSQL with pg_cron: the one that was named, or built now; raises `NoContainer`."""
    named = os.environ.get(IMAGE)
    return named or build(
        ROOT / "docker", "Dockerfile.postgres", "pglapse-postgres:test", os.environ.get(BASE)
    )


@contextmanager
def postgres() -> Iterator[str]:
    """A superuser's DSN on the cron database, good until the block ends; raises `NoContainer`."""
    image = postgres_image()
    password = secrets.token_hex(16)
    try:
        from testcontainers.core.container import DockerContainer  # noqa: PLC0415

        container = DockerContainer(image).with_env("POSTGRES_PASSWORD", password).with_exposed_ports(5432)
        container.start()
    except Exception as error:
        raise NoContainer(f"Docker answers, but the image {image} does not run: {error}") from error
    try:
        dsn = psycopg.conninfo.make_conninfo(
            host=container.get_container_host_ip(),
            port=container.get_exposed_port(5432),
            user="postgres",
            password=password,
            dbname="postgres",
        )
        _wait_for(dsn, container)
        yield dsn
    finally:
        container.stop()


def _wait_for(dsn: str, container: Any) -> None:
    """Until the server answers over TCP, which it does only after its init scripts; raises `NoContainer`."""
    until = time.monotonic() + STARTUP
    while True:
        try:
            psycopg.connect(dsn, connect_timeout=5).close()
        except psycopg.OperationalError as error:
            if time.monotonic() > until:
                output = b"\n".join(container.get_logs()).decode(errors="replace")
                raise NoContainer(f"the container does not answer: {error}\n{output[-2000:]}") from error
            time.sleep(0.2)
        else:
            return
