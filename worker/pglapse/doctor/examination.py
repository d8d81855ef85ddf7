"""The whole examination: what the database sees, then what only a client does, each part as far as it can."""

from collections.abc import Iterator

import psycopg

from pglapse import deadline, markers
from pglapse.config import load
from pglapse.deadline import Connection, Patience
from pglapse.doctor import clock, cron, database, hearing, storages, versions
from pglapse.doctor.finding import Finding, fail
from pglapse.doctor.guarded import guarded
from pglapse.errors import SettingError
from pglapse.text import one_line, printable

PATIENCE = 30.0  # seconds for the server to answer anything


def examined(config: str | None, cron_dsn: str | None) -> Iterator[Finding]:
    """All findings, in order. Raises nothing that a check is about."""
    settings, troubles = storages.configured(load, config)
    try:
        conn = deadline.connect(Patience(PATIENCE), connect_timeout=10)
    except SettingError as error:
        yield fail("server", str(error), error.hint or "mend DATABASE_URL")
        conn = None
    except psycopg.Error as error:
        yield fail(
            "server",
            f"can't reach the database: {one_line(error, 300)}",
            "see that it runs, and DATABASE_URL or libpq's PG* variables",
        )
        conn = None
    known: storages.Known | None = None
    if conn is not None:
        with conn:
            yield from _asked(conn, cron_dsn)
            known = _known(conn)
    yield from troubles
    if settings is not None:
        yield from storages.examined(settings, known)


def _asked(conn: Connection, cron_dsn: str | None) -> Iterator[Finding]:
    """What can be asked over a connection."""
    yield from guarded("server", lambda: versions.server(conn))
    absent: list[str | None] = []
    yield from guarded("schema", lambda: _installed(conn, absent))
    if absent == [None]:
        granting = (
            f"as the owner of schema lapse: select lapse.grant_observer('{printable(conn.info.user)}');"
        )
        yield from guarded("versions", lambda: versions.routines(conn), "pglapse upgrade", granting)
        try:
            yield from database.examined(conn)
        except psycopg.Error as error:
            yield fail(
                "schema",
                f"lapse.doctor() can't be asked: {one_line(error, 300)}",
                granting if isinstance(error, psycopg.errors.InsufficientPrivilege) else "pglapse doctor",
            )
        else:
            yield from guarded(cron.CHECK, lambda: cron.elsewhere(conn, cron_dsn))
    yield from guarded("client_clock", lambda: clock.clock(conn))
    yield from guarded("listen", lambda: hearing.hearing(conn))


def _installed(conn: Connection, absent: list[str | None]) -> Iterator[Finding]:
    absent.append(database.missing(conn))
    if absent[0] is not None:
        yield fail("schema", absent[0], "pglapse upgrade")


def _known(conn: Connection) -> storages.Known | None:
    try:
        return markers.known(conn)
    except psycopg.Error:
        return None  # said already
