"""``pglapse status``: policies, queue and workers."""

import dataclasses
from typing import Annotated

import typer

from pglapse import schema
from pglapse import status as look


def status(
    as_json: Annotated[bool, typer.Option("--json", help="For programs: one JSON object.")] = False,
) -> None:
    """Show policies, file queue and workers at a glance.

    Counts stop at 10,000 and then say 'at least', so that looking stays cheap.

    \b
    Examples:
      pglapse status
      pglapse status --json | jq .queue.dead
    """
    with schema.opened("grant_observer") as conn:
        found = look.read(conn)
    if as_json:
        typer.echo(look.document(dataclasses.asdict(found)))
    else:
        look.console().print(look.rendered(found))
