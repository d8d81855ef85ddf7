"""Do this package, the database's routines and the server fit together?"""

from collections.abc import Iterator

from pglapse import __version__, schema
from pglapse.cluster import OLDEST
from pglapse.deadline import Connection
from pglapse.doctor.finding import Finding, fail, ok, warn

NEWEST = 18
"""The newest major version of PostgreSQL that this version was tested with."""


def server(conn: Connection) -> Iterator[Finding]:
    """The server's version."""
    major = conn.info.server_version // 10000
    said = conn.info.parameter_status("server_version") or str(major)
    if major < OLDEST:
        yield fail(
            "server", f"PostgreSQL {said} is older than {OLDEST}", f"use PostgreSQL {OLDEST} to {NEWEST}"
        )
    elif major > NEWEST:
        yield warn(
            "server",
            f"PostgreSQL {said} is newer than any that pglapse {__version__} was tested with",
            "pip install --upgrade pglapse",
        )
    else:
        yield ok("server", f"reached PostgreSQL {said} as role {conn.info.user}, database {conn.info.dbname}")


def routines(conn: Connection) -> Iterator[Finding]:
    """The database's routines, by the number that workers ask for; raises `SchemaError`."""
    schema.agree(conn, conn.execute("select lapse.api_version()").fetchone())
    yield ok("versions", f"pglapse {__version__} and the database's routines both speak API {schema.API}")
