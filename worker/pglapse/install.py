"""``pglapse upgrade``, ``downgrade`` and ``current``: Alembic, run against the migrations in the package.

`mount` adds the three to the command line; they raise `PglapseError` and leave printing it, and the exit
code, to ``cli.main``:

    from pglapse import install
    install.mount(app)

The same from a checkout, with Alembic's own command: ``alembic upgrade heads``.
"""

import io
import sys
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, TextIO

import psycopg
import typer
from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy.exc import DBAPIError

from pglapse.errors import PglapseError, SettingError, translated
from pglapse.resources import migrations

BRANCHES = ("engine", "market")

SQL_HELP = "Write the SQL to standard output instead of running it, for those who may only use psql."


def mount(app: typer.Typer) -> None:
    """Add the commands of this module to ``app``."""
    for function in (upgrade, downgrade, current):
        app.command()(function)


def upgrade(
    revision: Annotated[
        str,
        typer.Argument(
            help="engine@head: the engine alone. heads: with the marketplace, the worked example."
        ),
    ] = "engine@head",
    sql: Annotated[bool, typer.Option("--sql", help=SQL_HELP)] = False,
) -> None:
    """Install pglapse into the database, or bring it up to date.

    The database is the one of DATABASE_URL, or of libpq's own PG* variables. Everything happens in one
    transaction. No role is made, and nothing outside schemas lapse and market.

    Without a database at hand: pglapse upgrade --sql > install.sql, then psql -1 -f install.sql
    """
    with explained():
        command.upgrade(configuration(), revision, sql=sql)


def downgrade(
    revision: Annotated[
        str,
        typer.Argument(help="base: remove everything. market@base: the marketplace alone."),
    ],
    discard_queue: Annotated[
        bool,
        typer.Option("--discard-queue", help="Go on although files are still queued."),
    ] = False,
    sql: Annotated[bool, typer.Option("--sql", help=SQL_HELP)] = False,
) -> None:
    """Go back to an earlier revision, or remove pglapse without a trace.

    Refused while files are queued, and while pg_cron in another database has jobs that call this one.
    The pg_cron extension stays.
    """
    if sql and ":" not in revision:  # a script has to know where it starts
        revision = f"heads:{revision}"
    with explained():
        command.downgrade(configuration("discard-queue" if discard_queue else None), revision, sql=sql)


def current() -> None:
    """Show which revisions are installed."""
    said = io.StringIO()
    with explained():
        command.current(configuration(said=said))
    typer.echo(said.getvalue().strip() or "pglapse is not installed in this database: pglapse upgrade")


def configuration(*options: str | None, said: TextIO | None = None) -> Config:
    """What alembic.ini says in a checkout, for the migrations wherever they are; ``options`` as after ``-x``."""
    home = migrations()
    given = Namespace(x=[option for option in options if option])
    config = Config(stdout=said or sys.stdout, cmd_opts=given)
    # One path a line: a path may hold blanks and colons. The parser reads % as its own.
    places = "\n".join(str(home / branch / "versions") for branch in BRANCHES)
    for name, value in (
        ("script_location", str(home)),
        ("path_separator", "newline"),
        ("version_locations", places),
    ):
        config.set_main_option(name, value.replace("%", "%%"))
    config.output_buffer = sys.stdout
    return config


@contextmanager
def explained() -> Iterator[None]:
    """Raise `PglapseError`, one clear line, in place of what Alembic, SQLAlchemy or the database said."""
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
