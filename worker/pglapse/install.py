"""The commands ``pglapse upgrade``, ``downgrade`` and ``current``.

`mount` adds the three to the command line; they raise `PglapseError` and leave printing it, and the exit
code, to ``cli.main``:

    from pglapse import install
    install.mount(app)

Alembic is loaded when one of them runs: it would double the time that `pglapse status` takes to start.
The same from a checkout, with Alembic's own command: ``alembic upgrade heads``.
"""

from typing import Annotated

import typer

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

    The database is the one of DATABASE_URL, or of libpq's own PG* variables.
    Everything happens in one transaction. No role is made, and nothing outside schemas lapse and market.

    Where only psql may be used: pglapse upgrade --sql > install.sql, then psql -1 -f install.sql
    """
    from pglapse import migrate  # noqa: PLC0415 - see above

    migrate.upgrade(revision, sql=sql)


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
    from pglapse import migrate  # noqa: PLC0415 - see above

    migrate.downgrade(revision, discard_queue=discard_queue, sql=sql)


def current() -> None:
    """Show which revisions are installed."""
    from pglapse import migrate  # noqa: PLC0415 - see above

    typer.echo(migrate.current() or "pglapse is not installed in this database: pglapse upgrade")
