"""One way to reach the database, for the worker, the commands and the migrations."""

import os
import re
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict

from pglapse.errors import SettingError

# What holds unless the connection string or libpq's own variable says otherwise. A connection whose other
# end vanished without a word must be noticed within about a minute, not after two hours.
DEFAULTS: dict[str, tuple[str | int, str | None]] = {
    "application_name": ("pglapse", "PGAPPNAME"),
    "connect_timeout": (10, "PGCONNECT_TIMEOUT"),
    "keepalives": (1, None),
    "keepalives_idle": (30, None),
    "keepalives_interval": (10, None),
    "keepalives_count": (3, None),
    "tcp_user_timeout": (60_000, None),
}


def dsn() -> str:
    """The connection string: DATABASE_URL, or empty, which leaves everything to libpq's own PG* variables."""
    url = os.environ.get("DATABASE_URL", "")
    # SQLAlchemy's spelling of a URL is common in DATABASE_URL; libpq knows only its own.
    scheme, separator, rest = url.partition("://")
    return f"postgresql://{rest}" if separator and scheme.startswith(("postgres+", "postgresql+")) else url


def connect(conninfo: str | None = None, **options: Any) -> psycopg.Connection[Any]:
    """Open a connection.

    Raises `psycopg.OperationalError` when the server can't be reached, and `SettingError` when the
    connection string is none.
    """
    text, parameters = target(conninfo, **options)
    return psycopg.connect(text, **parameters)


def target(conninfo: str | None = None, **options: Any) -> tuple[str, dict[str, Any]]:
    """Where to connect to, and how: what `psycopg.connect` takes; raises `SettingError`."""
    text = dsn() if conninfo is None else conninfo
    try:
        given = conninfo_to_dict(text)
    except psycopg.ProgrammingError as error:
        # What libpq quotes may be a part of the password.
        reason = re.sub(r'"[^"]*"?', '"…"', str(error).strip())
        raise SettingError(
            f"the connection string is not one: {reason}",
            hint="DATABASE_URL looks like postgresql://user@host:5432/database",
        ) from None
    defaults = {
        name: value
        for name, (value, variable) in DEFAULTS.items()
        if name not in given and not (variable and os.environ.get(variable))
    }
    # No prepared statements: they gain nothing here and trouble a pooler.
    return text, {**defaults, "client_encoding": "utf8", "prepare_threshold": None, **options}
