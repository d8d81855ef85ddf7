"""Fixtures: one server a session, one migrated template, one database a test."""

import os
import uuid
from collections.abc import Iterator

import psycopg
import pytest
from psycopg import sql

from tests.support.install import alembic


@pytest.fixture(scope="session")
def server() -> str:
    """A superuser's DSN; `PGLAPSE_TEST_DSN` names it."""
    return os.environ["PGLAPSE_TEST_DSN"]


@pytest.fixture(scope="session")
def template(server: str) -> Iterator[str]:
    """The name of a database in which everything is installed, to be cloned by `dsn`."""
    name = f"pglapse_template_{uuid.uuid4().hex[:8]}"
    with psycopg.connect(server, autocommit=True) as admin:
        admin.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
        alembic(on(server, name), "upgrade", "heads")
        yield name
        admin.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


@pytest.fixture
def dsn(server: str, template: str) -> Iterator[str]:
    """A database of the test's own, with everything installed; dropped afterwards."""
    name = f"pglapse_test_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(server, autocommit=True) as admin:
        admin.execute(
            sql.SQL("create database {} template {}").format(sql.Identifier(name), sql.Identifier(template))
        )
        yield on(server, name)
        admin.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


@pytest.fixture
def conn(dsn: str) -> Iterator[psycopg.Connection]:
    """An autocommit connection with an empty search_path, so that an unqualified name fails."""
    with psycopg.connect(dsn, autocommit=True, options="-c search_path=") as connection:
        yield connection


def on(server: str, database: str) -> str:
    """The same server, another database."""
    return psycopg.conninfo.make_conninfo(server, dbname=database)
