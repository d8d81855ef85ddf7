"""One way to reach the database, for the worker, the commands and the migrations."""

import os
from typing import Any

import psycopg


def dsn() -> str:
    """The connection string: DATABASE_URL, or empty, which leaves everything to libpq's own PG* variables."""
    url = os.environ.get("DATABASE_URL", "")
    # SQLAlchemy's spelling of a URL is common in DATABASE_URL; libpq knows only its own.
    scheme, separator, rest = url.partition("://")
    return f"postgresql://{rest}" if separator and scheme.startswith(("postgres+", "postgresql+")) else url


def connect(conninfo: str | None = None, **options: Any) -> psycopg.Connection[Any]:
    """Open a connection; raises `psycopg.OperationalError` when the server can't be reached."""
    return psycopg.connect(dsn() if conninfo is None else conninfo, application_name="pglapse", **options)
