"""``pglapse why``: why a row is still there."""

from typing import Annotated

import psycopg
import typer
from rich.text import Text

from pglapse import schema
from pglapse.errors import SettingError, translated
from pglapse.status import console, document
from pglapse.text import printable

STYLES = {"due": "green", "held": "cyan", "not due": "dim"}


def why(
    table: Annotated[str, typer.Argument(help="The table, schema.table.")],
    key: Annotated[str, typer.Argument(help="The row's key; of several columns, an array: '{7,abc}'.")],
    as_json: Annotated[bool, typer.Option("--json", help="For programs: one JSON array.")] = False,
) -> None:
    """Say why a row is still there, policy by policy, and what became of its files.

    Not due yet, held, locked by somebody, set aside with an error, its policy paused, and so on. Changes
    nothing and waits for nobody. To be run by the engine's owner.

    \b
    Examples:
      pglapse why market.tasks 17
      pglapse why market.tasks 17 --json
    """
    with schema.opened("") as conn, translated():
        try:
            rows = conn.execute(
                "select w.policy, w.state, w.says from lapse.why(%s::regclass, %s) as w", [table, key]
            ).fetchall()
        except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidName) as error:
            raise SettingError(
                f"there is no table {printable(table)}", hint="name it schema.table"
            ) from error
    if as_json:
        typer.echo(
            document([{"policy": policy, "state": state, "says": says} for policy, state, says in rows])
        )
        return
    for policy, state, says in rows:
        line = Text(f"{policy}: " if policy else "", style="bold")
        line += Text(printable(state), style=f"{STYLES.get(state, 'yellow')} not bold")
        line += Text(f" - {printable(says, 4000)}", style="not bold")
        console().print(line)
