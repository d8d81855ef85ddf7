"""A database for the demo alone: in an embedded server, or beside the one that DATABASE_URL names."""

import os
import secrets
import shlex
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from time import sleep
from typing import Any

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from pglapse.cluster import OLDEST, find_embedded, throwaway
from pglapse.errors import PglapseError, SettingError


@dataclass(frozen=True, slots=True)
class Database:
    """Where it is, which server that is, the psql that reaches it, and what becomes of it in the end."""

    dsn: str
    server: str
    psql: str
    end: str

    def look(self) -> str:
        """The command that opens psql on it; a password stays out of it."""
        parts = conninfo_to_dict(self.dsn)
        parts.pop("password", None)
        return f"{shlex.quote(self.psql)} {shlex.quote(make_conninfo('', **parts))}"


@contextmanager
def embedded(folder: Path) -> Iterator[Database]:
    """Start the embedded server in ``folder``, stop it afterwards and remove the folder."""
    try:
        bindir = find_embedded()
    except FileNotFoundError as error:
        raise SettingError(
            f"{error}\nor set DATABASE_URL to a server of yours: the demo makes a database of its own there"
        ) from error
    for name in [name for name in os.environ if name.startswith("PG") and not name.startswith("PGLAPSE")]:
        del os.environ[name]  # PGOPTIONS, PGSSLMODE … are about some other server
    try:
        with throwaway(bindir, folder) as dsn:
            yield Database(
                dsn, f"PostgreSQL {_version(dsn)}, embedded", str(bindir / "psql"), "the server is stopped"
            )
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def borrowed(url: str) -> Iterator[Database]:
    """Create a database on the server of ``url`` and drop it afterwards; in the one named nothing changes."""
    name = f"pglapse_demo_{os.getpid()}_{secrets.token_hex(4)}"
    try:
        with _admin(url) as admin:
            if admin.info.server_version < OLDEST * 10_000:
                raise SettingError(
                    f"the server of DATABASE_URL is PostgreSQL {_version(url)}: it takes {OLDEST} or newer"
                )
            # template0: whatever lies in template1 is none of the demo's business
            admin.execute(
                sql.SQL("create database {} template template0 encoding 'UTF8'").format(sql.Identifier(name))
            )
    except psycopg.errors.InsufficientPrivilege as error:
        raise SettingError(
            f"the demo makes a database of its own, and the role of DATABASE_URL may not ({_line(error)}): "
            "name a role that has CREATEDB, or unset DATABASE_URL for an embedded server"
        ) from error
    except psycopg.Error as error:
        raise SettingError(f"can't use the server of DATABASE_URL: {_line(error)}") from error
    try:
        server = f"PostgreSQL {_version(url)}, database {name}"
        yield Database(make_conninfo(url, dbname=name), server, "psql", "the database is dropped")
    finally:
        _drop(url, name)


def connect(dsn: str) -> psycopg.Connection[Any]:
    """The demo's own connection: what it expects must not depend on the role's settings."""
    connection = psycopg.connect(dsn, application_name="pglapse demo", autocommit=True)
    connection.execute(
        "select set_config('search_path', '', false), set_config('statement_timeout', '0', false)"
    )
    connection.execute("set time zone 'UTC'")
    return connection


def _admin(url: str) -> psycopg.Connection[Any]:
    return psycopg.connect(url, application_name="pglapse demo", autocommit=True, connect_timeout=10)


def _drop(url: str, name: str) -> None:
    error: psycopg.Error | None = None
    for pause in (0.2, 1.0, 3.0):
        try:
            with _admin(url) as admin:
                admin.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name)))
        except psycopg.Error as reason:
            error = reason
            sleep(pause)
        else:
            return
    raise PglapseError(f"database {name} is still there ({_line(error)}): drop it by hand") from error


def _version(dsn: str) -> str:
    with suppress(psycopg.Error), _admin(dsn) as admin:
        return admin.info.parameter_status("server_version") or "?"
    return "?"


def _line(error: Exception | None) -> str:
    return (str(error).strip().splitlines() or ["no reason given"])[0]
