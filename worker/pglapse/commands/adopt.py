"""``pglapse adopt``: let pglapse work in a copy of a database, or in one that was renamed."""

from typing import Annotated

import typer

from pglapse import schema
from pglapse.errors import translated
from pglapse.text import printable


def adopt(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what is due and would go; change nothing.")
    ] = False,
) -> None:
    """Let pglapse work in this database from now on, though it is a copy, or was renamed.

    A database that was restored, cloned or renamed runs no policy and deletes no file, lest a copy delete the
    original's. This says what was taken over and what is due; workers go on by themselves. To be run by the
    engine's owner.

    \b
    Examples:
      pglapse adopt --dry-run
      pglapse adopt
    """
    with schema.opened("") as conn, translated():
        lines = conn.execute("select lapse.adopt_database(%s)", [dry_run]).fetchall()
    for (line,) in lines:
        typer.echo(printable(line, 4000))
