"""Tables of users in a schema of their own, and the call that lets their rows lapse."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

CASTS = {
    "p_target": "regclass",
    "p_older_than": "interval",
    "p_every": "interval",
    "p_at_time": "time",
    "p_key_columns": "text[]",
    "p_set": "jsonb",
    "p_max_runtime": "interval",
    "p_lock_timeout": "interval",
}

SESSIONS = """
create table app.sessions (
    id         bigint generated always as identity primary key,
    expires_at timestamptz,
    state      text not null default 'open',
    closed_at  timestamptz
);
create index sessions_expires on app.sessions (expires_at, id);
"""


def build(conn: psycopg.Connection[Any], tables: str = SESSIONS) -> None:
    """Make schema app afresh, in a database without any other policy and without history."""
    conn.execute("reset role")
    conn.execute("set client_min_messages = error")
    conn.execute("drop schema if exists app cascade; delete from lapse.policy; truncate lapse.run_log")
    conn.execute("reset client_min_messages")
    conn.execute("create schema app")
    conn.execute(tables)


def declare(conn: psycopg.Connection[Any], **changes: Any) -> None:
    """Call lapse.create_expiry for app.sessions, with changes."""
    given = {"p_name": "sessions", "p_target": "app.sessions", "p_due_column": "expires_at"} | changes
    named = sql.SQL(", ").join(
        sql.SQL("{} => {}::{}").format(
            sql.SQL(name), sql.Placeholder(name), sql.SQL(CASTS.get(name, "text" if is_text(value) else ""))
        )
        if name in CASTS or is_text(value)
        else sql.SQL("{} => {}").format(sql.SQL(name), sql.Placeholder(name))
        for name, value in given.items()
    )
    values = {name: Jsonb(value) if name == "p_set" else value for name, value in given.items()}
    conn.execute(sql.SQL("select lapse.create_expiry({})").format(named), values)


def is_text(value: object) -> bool:
    return value is None or isinstance(value, str)


def functions(conn: psycopg.Connection[Any]) -> list[str]:
    """Everything in the database that was made for declared policies."""
    return [
        name
        for (name,) in conn.execute(
            "select p.oid::regprocedure::text from pg_proc as p"
            "  join pg_namespace as n on n.oid = p.pronamespace"
            " where p.proname like 'lapse\\_%' and n.nspname not in ('lapse', 'market') order by 1"
        )
    ]


@contextmanager
def running(session: psycopg.Connection[Any], command: str, *, fails: str | None = None) -> Iterator[None]:
    """Run a command in another session meanwhile; the block's end waits for it, and for how it ended."""
    ended: list[str | None] = []

    def call() -> None:
        try:
            session.execute(command)
        except psycopg.Error as error:
            ended.append(error.sqlstate)
        else:
            ended.append(None)

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    yield
    thread.join(60)
    assert ended == [fails]
