"""Is what the database holds what this version works with? If not, say which command to type."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import errors

from pglapse import deadline
from pglapse.connect import connect
from pglapse.deadline import Patience
from pglapse.errors import PglapseError, SchemaError
from pglapse.text import printable

API = 1
"""The version of the database's routines that this package calls: what lapse.api_version() must answer."""

log = logging.getLogger(__name__)

Connection = psycopg.Connection[Any]


@contextmanager
def opened(grant: str) -> Iterator[Connection]:
    """A connection for one command, checked; ``grant`` names the routine that gives a role what it needs."""
    with connect(autocommit=True) as conn, expected(conn, grant):
        agree(conn, conn.execute("select lapse.api_version()").fetchone())
        yield conn


def for_worker(patience: Patience | None = None, **options: Any) -> deadline.Connection:
    """A connection that lasts, for a thread of the worker; what the server warns of goes to the log."""
    conn = deadline.connect(patience, **options)
    conn.add_notice_handler(_warned)
    return conn


def _warned(notice: psycopg.errors.Diagnostic) -> None:
    if notice.severity_nonlocalized == "WARNING":
        log.warning("the database warns: %s", printable(notice.message_primary or "", 1000))


@contextmanager
def expected(conn: Connection, grant: str) -> Iterator[None]:
    """Translate what the server says when our schema is missing, older, or closed to this role."""
    try:
        yield
    except errors.InvalidSchemaName as error:
        raise SchemaError(
            f"pglapse is not installed in database {printable(conn.info.dbname)}",
            hint="type: pglapse upgrade",
        ) from error
    except (errors.UndefinedFunction, errors.UndefinedTable, errors.UndefinedColumn) as error:
        raise SchemaError(
            f"pglapse in database {printable(conn.info.dbname)} is older than this version "
            f"({error.diag.message_primary})",
            hint="type: pglapse upgrade",
        ) from error
    except errors.InsufficientPrivilege as error:
        role = conn.info.user.replace("'", "''")
        raise PglapseError(
            f"role {printable(conn.info.user)} may not do this: {error.diag.message_primary}",
            hint=f"as the owner of schema lapse, type in psql: select lapse.{grant}('{printable(role)}');"
            if grant
            else "connect as the owner of schema lapse",
        ) from error


def agree(conn: Connection, answer: tuple[Any, ...] | None) -> None:
    """Raise `SchemaError` unless the database's routines are of our version."""
    found = answer[0] if answer else None
    database = printable(conn.info.dbname)
    if found is None or found < API:
        raise SchemaError(
            f"pglapse in database {database} is older than this version (has {found}, needs {API})",
            hint="type: pglapse upgrade",
        )
    if found > API:
        raise SchemaError(
            f"pglapse in database {database} is newer than this version (has {found}, this one knows {API})",
            hint="type: pip install --upgrade pglapse",
        )
