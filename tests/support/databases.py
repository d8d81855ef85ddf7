"""Databases of a test session, told apart from those of sessions beside it and swept up after dead ones.

A name carries its session's number: ``pglapse_test_SESSION_…``. A living session holds the advisory lock
keyed by that number; databases and roles whose lock is free belong to a session that is gone.
"""

import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg import sql

from tests.support import roles
from tests.support.install import alembic
from tests.support.names import PREFIX, SESSION, session

SPACE = 1_886_809_203  # the first key of our advisory locks, so that they are nobody else's
CRON = 0


@contextmanager
def opened(server: str) -> Iterator[None]:
    """Claim a number for this session, sweep up after dead ones, and afterwards after itself."""
    os.environ[SESSION] = f"{secrets.randbits(31) or 1:08x}"
    try:
        with psycopg.connect(server, autocommit=True) as admin:
            admin.execute("select pg_advisory_lock(%s, %s)", [SPACE, session()])
            sweep(admin)
            roles.create(admin)
            yield
            drop(admin, os.environ[SESSION])
    finally:
        del os.environ[SESSION]


def sweep(admin: psycopg.Connection) -> None:
    """Drop the databases and roles of sessions that are gone."""
    rows = admin.execute(
        "select substring(name from %(ours)s)"
        "  from (select datname from pg_database union all select rolname from pg_roles) as n (name)"
        " where name ~ %(ours)s",
        {"ours": f"^{PREFIX}_([0-9a-f]{{8}})_"},
    )
    for number in {number for (number,) in rows}:
        key = [SPACE, int(number, 16)]
        (gone,) = admin.execute("select pg_try_advisory_lock(%s, %s)", key).fetchone() or (False,)
        if number != os.environ[SESSION] and gone:
            drop(admin, number)
        if gone:
            admin.execute("select pg_advisory_unlock(%s, %s)", key)


def drop(admin: psycopg.Connection, number: str) -> None:
    """Drop every database of one session, then its roles."""
    rows = admin.execute(
        "select datname from pg_database where starts_with(datname, %s)", [f"{PREFIX}_{number}_"]
    )
    for (name,) in rows.fetchall():
        admin.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name)))
    roles.drop(admin, number)


@contextmanager
def database(server: str, template: str | None = None, *, adopted: bool = True) -> Iterator[str]:
    """A new database's DSN, empty or like ``template``, where pglapse works; dropped at the end."""
    name = f"{PREFIX}_{os.environ[SESSION]}_{secrets.token_hex(6)}"
    source = sql.SQL("template {}").format(sql.Identifier(template or "template0"))
    with psycopg.connect(server, autocommit=True) as admin:
        admin.execute(sql.SQL("create database {} {}").format(sql.Identifier(name), source))
        try:
            if template is not None and adopted:
                adopt(on(server, name))
            yield on(server, name)
        finally:
            admin.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name)))


def adopt(dsn: str) -> None:
    """Let pglapse work in a copy: what `lapse.adopt_database` does, without what it counts and says."""
    with psycopg.connect(dsn, autocommit=True) as copy:
        copy.execute("update lapse.identity set database_name = current_database()")


def installed(server: str) -> str:
    """The name of a database in which everything is installed, made by whichever process comes first.

    `roles` have their rights in it; beside it stands one in which nobody has any: `untouched`.
    """
    name = f"{PREFIX}_{os.environ[SESSION]}_template"
    with psycopg.connect(server, autocommit=True) as admin:
        # Another key than the session's own: processes of one session take turns.
        admin.execute("select pg_advisory_lock(%s, %s)", [SPACE + 1, session()])
        if admin.execute("select 1 from pg_database where datname = %s", [name]).fetchone():
            return name
        draft = f"{name}_draft"
        admin.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(draft)))
        admin.execute(sql.SQL("create database {} template template0").format(sql.Identifier(draft)))
        alembic(on(server, draft), "upgrade", "heads")
        admin.execute(sql.SQL("drop database if exists {}").format(sql.Identifier(untouched(name))))
        admin.execute(
            sql.SQL("create database {} template {}").format(
                sql.Identifier(untouched(name)), sql.Identifier(draft)
            )
        )
        with psycopg.connect(on(server, draft)) as made:
            roles.grant(made)
        admin.execute(
            sql.SQL("alter database {} rename to {}").format(sql.Identifier(draft), sql.Identifier(name))
        )
    return name


def untouched(template: str) -> str:
    """The name of the database beside ``template`` that is as the installation left it."""
    return f"{template}_untouched"


@contextmanager
def cron_home(server: str) -> Iterator[str | None]:
    """The DSN of the database where pg_cron lives, for this test alone; None where there is no pg_cron."""
    with psycopg.connect(server, autocommit=True) as admin:
        (name,) = admin.execute(
            "select current_setting('cron.database_name', true)"
            "  from pg_available_extensions where name = 'pg_cron'"
        ).fetchone() or (None,)
        if not name:
            yield None
            return
        # Jobs are the cluster's, so tests that make some take turns, also with other sessions.
        admin.execute("select pg_advisory_lock(%s, %s)", [SPACE, CRON])
        with psycopg.connect(on(server, name), autocommit=True) as home:
            home.execute("create extension if not exists pg_cron")
        yield on(server, name)


def on(server: str, database: str) -> str:
    """The same server, another database."""
    return psycopg.conninfo.make_conninfo(server, dbname=database)


def until(connection: psycopg.Connection, query: str, wanted: object, patience: float = 30.0) -> None:
    """Ask until the answer is ``wanted``; fails when it does not come in time."""
    deadline = time.monotonic() + patience
    while (answer := (connection.execute(query).fetchone() or (None,))[0]) != wanted:
        if time.monotonic() > deadline:
            raise AssertionError(f"{query} still answers {answer}, not {wanted}")
        time.sleep(0.05)
