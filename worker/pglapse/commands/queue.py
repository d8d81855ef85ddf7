"""``pglapse queue``: look at queued files, try dead ones again, take some out."""

from enum import StrEnum
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from pglapse import queue, schema
from pglapse.errors import SettingError
from pglapse.schema import Connection
from pglapse.status import console, document
from pglapse.text import printable

app = typer.Typer(
    no_args_is_help=True,
    help="Look at queued files, try dead ones again, take some out.",
)


class State(StrEnum):
    waiting = "waiting"
    due = "due"
    leased = "leased"
    retrying = "retrying"
    dead = "dead"


COLOURS = {"dead": "bold red", "retrying": "yellow", "leased": "cyan", "due": "green"}

NUMBERS = typer.Argument(help="Their numbers, from pglapse queue list.", min=1, max=2**63 - 1)

Storage = Annotated[str | None, typer.Option(help="Only files of this storage.", metavar="NAME")]


DEAD = """
select to_jsonb(q)
  from lapse.queue_detail as q
 where q.dead_at is not null
   and (%(state)s::text is null or q.state = %(state)s)
   and (%(storage)s::text is null or q.storage = %(storage)s)
 order by q.dead_at, q.id
 limit %(limit)s
"""

ALIVE = """
select to_jsonb(q)
  from lapse.queue_by_storage as s
 cross join lateral (
       select q.*
         from lapse.queue_detail as q
        where q.storage = s.storage and q.dead_at is null and (%(state)s::text is null or q.state = %(state)s)
        order by q.not_before, q.id
        limit %(limit)s) as q
 where %(storage)s::text is null or s.storage = %(storage)s
 order by q.not_before, q.id
 limit %(limit)s
"""


@app.command("list")
def list_(
    state: Annotated[State | None, typer.Option(help="Only files in this state.")] = None,
    storage: Storage = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="Show at most this many.")] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="For programs: one JSON array.")] = False,
) -> None:
    """Show queued files, those due first; without --state, dead ones come before them.

    \b
    Examples:
      pglapse queue list
      pglapse queue list --state dead --storage public
      pglapse queue list --json | jq -r '.[].path'
    """
    with schema.opened("grant_observer") as conn:
        rows = _rows(conn, state, storage, limit)
    if as_json:
        typer.echo(document(rows))
        return
    if not rows:
        typer.echo(
            "nothing is queued" if state is None and storage is None else "nothing like that is queued"
        )
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2), header_style="dim")
    for heading in ("id", "state", "storage", "path", "why", "not before", "tries", "note"):
        table.add_column(heading, justify="right" if heading in ("id", "tries") else "left", overflow="fold")
    for row in rows:
        table.add_row(
            str(row["id"]),
            Text(row["state"], style=COLOURS.get(row["state"], "")),
            Text(printable(row["storage"])),
            Text(printable(row["path"])),
            Text(printable(row["reason"])),
            row["not_before"][:19].replace("T", " "),
            str(row["attempts"]),
            Text(
                printable(
                    row["last_error"] or ("held by " + row["leased_by"] if row["state"] == "leased" else "")
                )
            ),
        )
    console().print(table)
    if len(rows) == limit:
        typer.echo(f"the first {limit}; --limit shows more", err=True)


@app.command()
def retry(
    ids: Annotated[list[int] | None, NUMBERS] = None,
    storage: Storage = None,
    everything: Annotated[bool, typer.Option("--all", help="All dead files.")] = False,
) -> None:
    """Try dead files again, once what was wrong with them is mended.

    \b
    Examples:
      pglapse queue retry 17 18
      pglapse queue retry --storage public
      pglapse queue retry --all
    """
    if not (ids or storage or everything) or (everything and (ids or storage)):
        raise SettingError("which files?", hint="give their numbers, --storage NAME, or --all alone")
    with schema.opened("") as conn:
        _say_warnings(conn)
        count = queue.retry(conn, ids or None, storage)
    typer.echo(f"{count:,} dead {'row' if count == 1 else 'rows'} will be tried again")
    _all_of(ids, count)


@app.command()
def discard(
    ids: Annotated[list[int], NUMBERS],
    reason: Annotated[str, typer.Option(help="Why, for the log.", metavar="TEXT")],
) -> None:
    """Take files out of the queue; they stay where they are.

    \b
    Example:
      pglapse queue discard 17 --reason "the disk is gone"
    """
    with schema.opened("") as conn:
        _say_warnings(conn)
        count = queue.discard(conn, ids, reason)
    typer.echo(f"{count:,} {'row' if count == 1 else 'rows'} taken out of the queue")
    _all_of(ids, count)


def _rows(conn: Connection, state: State | None, storage: str | None, limit: int) -> list[dict[str, Any]]:
    """Dead rows by when they died, others by when they are due, storage by storage: both have an index."""
    found: list[dict[str, Any]] = []
    for query, wanted in ((DEAD, state in (None, State.dead)), (ALIVE, state is not State.dead)):
        if wanted and len(found) < limit:
            asked = {"state": state and state.value, "storage": storage, "limit": limit - len(found)}
            found += (row for (row,) in conn.execute(query, asked))
    return found


def _say_warnings(conn: Connection) -> None:
    conn.add_notice_handler(lambda notice: typer.echo(printable(notice.message_primary or ""), err=True))


def _all_of(ids: list[int] | None, count: int) -> None:
    """Exit 1 when some of the rows that were named could not be had."""
    if ids and count < len(set(ids)):
        typer.echo("the others are not in that state, or not queued: pglapse queue list", err=True)
        raise typer.Exit(1)
