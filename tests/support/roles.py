"""The roles that processes of ours work with in tests: each may call its functions, and nothing else.

Made once a session, since roles are the whole cluster's; their names carry the session's number, as those
of databases do, and they go with it. Databases cloned from the template come with the grants.
"""

import os

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from tests.support.names import PREFIX, SESSION

WORKER, OBSERVER, OWNER = "worker", "observer", ""
GRANTS = {WORKER: "grant_worker", OBSERVER: "grant_observer"}


def name(kind: str, number: str | None = None) -> str:
    """What the role of one kind is called in a session: this one unless a number is given."""
    return f"{PREFIX}_{number or os.environ[SESSION]}_{kind}"


def create(admin: psycopg.Connection) -> None:
    """Make this session's roles; they may do nothing yet."""
    for kind in GRANTS:
        admin.execute(
            sql.SQL("create role {} login password {}").format(sql.Identifier(name(kind)), name(kind))
        )


def drop(admin: psycopg.Connection, number: str) -> None:
    """Drop one session's roles, once the databases with their grants are gone."""
    for kind in GRANTS:
        admin.execute(sql.SQL("drop role if exists {}").format(sql.Identifier(name(kind, number))))


def grant(conn: psycopg.Connection) -> None:
    """Give this session's roles their rights in one database."""
    for kind, function in GRANTS.items():
        conn.execute(f"select lapse.{function}(%s)", [name(kind)])


def acting(dsn: str, kind: str) -> str:
    """A DSN whose sessions act as a role of this kind.

    One that has options of its own stays as it is, and so does what is no DSN at all.
    """
    try:
        given = conninfo_to_dict(dsn)
    except psycopg.ProgrammingError:
        return dsn
    if kind == OWNER or given.get("options") or given.get("user") == name(kind):
        return dsn
    return make_conninfo(dsn, options=f"-c role={name(kind)}")


def login(dsn: str, kind: str) -> str:
    """A DSN that logs in as a role of this kind, for ways to the server that don't let options through."""
    return make_conninfo(dsn, user=name(kind), password=name(kind))
