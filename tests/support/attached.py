"""Tables of a user's own with files attached, as tests see them."""

from typing import Any

import psycopg
import pytest

from tests.support.queue import exchange, result

UPLOADS = """
create schema app;
create table app.uploads (
    id      bigint generated always as identity primary key,
    path    text,
    status  text not null default 'open',
    goes_at timestamptz,
    views   integer not null default 0,
    removed timestamptz
);
create index on app.uploads (lapse.path_digest(path));
"""

LIVE = "status in ('open', 'taken')"


def attach(conn: psycopg.Connection, target: str = "app.uploads", column: str = "path", **given: Any) -> str:
    """Attach the files of a column, in storage ``s`` unless another is given; the file source's name."""
    if "storage" not in given and "storage_column" not in given:
        given["storage"] = "s"
    arguments = "".join(f", p_{name} => %({name})s" for name in given)
    (name,) = conn.execute(
        f"select lapse.attach_files(%(target)s::regclass, %(column)s{arguments})",
        {"target": target, "column": column, **given},
    ).fetchone() or ("",)
    return str(name)


def loose_collation(conn: psycopg.Connection) -> None:
    """Make collation app.loose, to which upper and lower case are equal; skips where there is no ICU."""
    try:
        conn.execute(
            "create collation app.loose (provider = icu, locale = 'und-u-ks-level2', deterministic = false)"
        )
    except psycopg.errors.FeatureNotSupported:
        pytest.skip("this server has no ICU")


def put(
    conn: psycopg.Connection, *paths: str | None, status: str = "open", table: str = "app.uploads"
) -> None:
    """Insert a row for each path, in one statement."""
    conn.execute(
        f"insert into {table} (path, status) select p, %s from unnest(%s::text[]) as p", [status, list(paths)]
    )


def queued(conn: psycopg.Connection) -> dict[str, str]:
    """What is queued: reason by path."""
    return dict(conn.execute("select path, reason from lapse.file_cleanup_queue order by path").fetchall())


def deleted(conn: psycopg.Connection) -> set[str]:
    """Take and delete all that is due, as a worker does; what was deleted."""
    gone: set[str] = set()
    while claimed := exchange(conn).claimed:
        exchange(conn, [result(claim) for claim in claimed], limit=0)
        gone |= {claim.path for claim in claimed}
    return gone
