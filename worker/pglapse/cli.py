"""The command line: mounts the commands and turns what they raise into one clear line and an exit code."""

import io
import sys
from typing import Annotated

import psycopg
import typer

from pglapse import __version__, install, scheduling
from pglapse.commands import adopt, doctor, index, preview, queue, run, status, storage, sweep, why, worker
from pglapse.complaint import complain, say
from pglapse.demo.command import demo
from pglapse.errors import PglapseError

app = typer.Typer(
    name="pglapse",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="""Rows lapse, their files follow: expiry and file clean-up inside PostgreSQL.

The database is the one in DATABASE_URL, or of libpq's own PG* variables.

\b
First steps:
  export DATABASE_URL=postgresql://user@host/database
  pglapse upgrade      install the engine
  pglapse schedule     let pg_cron keep the schedule; without it, the worker does
  pglapse worker       delete files whose time has come
  pglapse status       look
  pglapse doctor       is all well?
  pglapse preview      see what a policy would do
""",
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"pglapse {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Options before the command."""


for command in (
    worker.worker,
    status.status,
    doctor.doctor,
    preview.preview,
    run.run,
    why.why,
    adopt.adopt,
    index.index,
    sweep.sweep,
    scheduling.schedule,
    scheduling.unschedule,
    demo,
):
    app.command()(command)
app.add_typer(queue.app, name="queue")
app.add_typer(storage.app, name="storage")
install.mount(app)


def main() -> None:
    """Run the command line. Exit codes: 0 ok, 1 failed, 2 a setting or the usage is wrong."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A name that this terminal can't show is no reason to show none.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        app()
    except (PglapseError, psycopg.Error) as error:
        sys.exit(complain(error))
    except UnicodeEncodeError:
        say("an argument is not valid text", None, "it has bytes that are no characters in this locale")
        sys.exit(2)
    except BrokenPipeError:
        sys.exit(1)
