"""``pglapse preview``: what a policy would do, before it does it."""

from typing import Annotated

import typer

from pglapse import preview as look
from pglapse import schema
from pglapse.status import console, document


def preview(
    policy: Annotated[str, typer.Argument(help="Its name, as pglapse status shows it.")],
    bound: Annotated[
        int,
        typer.Option(min=1, max=1_000_000, help="Count no further than this, and say 'at least' then."),
    ] = 100_000,
    as_json: Annotated[bool, typer.Option("--json", help="For programs: one JSON object.")] = False,
) -> None:
    """Show what a policy would do now and in the next days. Reads only.

    Rows due and their share of the table, what foreign keys take along, the index that leads there, how long
    it takes, and what stands in the way.

    Exit codes: 0 nothing stands in the way; 1 something does, or the rows can't be counted, or the database
    failed; 2 there is no such policy, or the usage is wrong.

    \b
    Examples:
      pglapse preview purge_sessions
      pglapse preview purge_sessions --bound 1000
      pglapse preview purge_sessions --json | jq .due.now
    """
    with schema.opened("grant_observer") as conn:
        found = look.read(conn, policy, bound)
    if as_json:
        typer.echo(document(found))
    else:
        console().print(look.rendered(found))
    if not look.clear(found):
        raise typer.Exit(1)
