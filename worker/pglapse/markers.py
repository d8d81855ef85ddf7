"""The database's side of the markers by which roots are known: each function here is one call."""

from typing import Any
from uuid import UUID

from pglapse.errors import translated
from pglapse.schema import Connection
from pglapse.storage import Sign


def asked(conn: Connection, storage: str, found: UUID | None) -> Sign:
    """By which number a storage's root is known; raises `PglapseError` where it is another database's."""
    return _sign(conn, "select marker, may_write from lapse.storage_marker(%s, %s)", [storage, found])


def adopted(conn: Connection, storage: str, found: UUID | None) -> Sign:
    """Let a folder be a storage's root from now on: the number it is known by, and whether to write it."""
    return _sign(conn, "select marker, to_write from lapse.adopt_storage(%s, %s)", [storage, found])


def known(conn: Connection) -> dict[str, dict[str, Any]]:
    """What the database knows of each storage: the columns of lapse.storage_status, as JSON, by name."""
    rows = conn.execute("select s.storage, to_jsonb(s) from lapse.storage_status as s order by s.storage")
    return dict(rows.fetchall())


def _sign(conn: Connection, query: str, arguments: list[Any]) -> Sign:
    with translated():
        row = conn.execute(query, arguments).fetchone()
    assert row is not None  # noqa: S101 (the functions always answer one row)
    return Sign(*row)
