"""Run Alembic against the migrations in the package, and say what went wrong in one clear line."""

import io
import sys
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

import psycopg
from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy.exc import DBAPIError

from pglapse.errors import PglapseError, SettingError, translated
from pglapse.resources import migrations

BRANCHES = ("engine", "market")


def upgrade(revision: str, *, sql: bool = False) -> None:
    """Bring the database up to ``revision``, or write the script that does; raises `PglapseError`."""
    with explained():
        command.upgrade(configuration(), revision, sql=sql)


def downgrade(revision: str, *, discard_queue: bool = False, sql: bool = False) -> None:
    """Take the database down to ``revision``, or write the script that does; raises `PglapseError`."""
    if sql and ":" not in revision:  # a script has to know where it starts
        revision = f"heads:{revision}"
    with explained():
        command.downgrade(configuration("discard-queue" if discard_queue else None), revision, sql=sql)


def current() -> str:
    """The installed revisions, one a line; empty when there are none. Raises `PglapseError`."""
    said = io.StringIO()
    with explained():
        command.current(configuration(said=said))
    return said.getvalue().strip()


def configuration(*options: str | None, said: TextIO | None = None) -> Config:
    """What alembic.ini says in a checkout, wherever the migrations are; ``options`` as after ``-x``."""
    home = migrations()
    given = Namespace(x=[option for option in options if option])
    config = Config(stdout=said or sys.stdout, output_buffer=sys.stdout, cmd_opts=given)
    # One path a line: a path may hold blanks and colons. The parser reads % as its own.
    places = "\n".join(str(home / branch / "versions") for branch in BRANCHES)
    for name, value in (
        ("script_location", str(home)),
        ("path_separator", "newline"),
        ("version_locations", places),
    ):
        config.set_main_option(name, value.replace("%", "%%"))
    return config


@contextmanager
def explained() -> Iterator[None]:
    """Raise `PglapseError` in place of what Alembic, SQLAlchemy or the database said."""
    try:
        with translated(), _unwrapped():
            yield
    except CommandError as error:
        raise SettingError(
            str(error), hint="Known: engine@head, heads, market@head; for a downgrade market@base, base."
        ) from error
    except psycopg.Error as error:
        said = error.diag
        if said.message_primary:
            raise PglapseError(
                said.message_primary, hint=said.message_hint, detail=said.message_detail
            ) from error
        kind = PglapseError if isinstance(error, psycopg.OperationalError) else SettingError
        raise kind(
            f"can't reach the database: {' '.join(str(error).split())}",
            hint="The database is the one of DATABASE_URL, or of libpq's own PG* variables.",
        ) from error


@contextmanager
def _unwrapped() -> Iterator[None]:
    """The database's own error, without SQLAlchemy around it."""
    try:
        yield
    except DBAPIError as error:
        if isinstance(error.orig, psycopg.Error):
            raise error.orig from error
        raise
