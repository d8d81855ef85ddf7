"""``pglapse storage``: the storages, by what each one's root is known, and a way out when it is another."""

import os
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Annotated, Any
from uuid import UUID

import typer
from rich.table import Table
from rich.text import Text

from pglapse import markers, schema
from pglapse.config import LocalSettings, Settings, load
from pglapse.errors import PglapseError, SettingError
from pglapse.status import console, document
from pglapse.storage import marker
from pglapse.storage.faults import words
from pglapse.storage.folders import FOLDER, close
from pglapse.text import printable

app = typer.Typer(
    no_args_is_help=True,
    help="Look at storages; say that a folder is a storage's root from now on.",
)

Config = Annotated[
    str | None,
    typer.Option(
        help="Where the storages are named.  [default: PGLAPSE_CONFIG, or pglapse.toml]", metavar="FILE"
    ),
]


@dataclass(frozen=True, slots=True)
class Row:
    """A storage: what the database knows of it, and what is here."""

    storage: str
    root: str | None
    marker: str | None
    found: str | None
    state: str
    workers: int
    troubles: list[str]


@app.command("list")
def list_(
    config: Config = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs: one JSON array.")] = False,
) -> None:
    """Show storages: those that workers have served, and those of the configuration, if there is one here.

    The marker is the number by which the root is known; 'ok': the folder here has it.

    \b
    Examples:
      pglapse storage list
      pglapse storage list --config /etc/pglapse.toml --json
    """
    settings: Settings | None = None
    try:
        settings = load(config)
    except SettingError as error:
        if config is not None:
            raise
        typer.echo(f"only what the database knows: {error}", err=True)
    with schema.opened("grant_observer") as conn:
        known = markers.known(conn)
    here = settings.storages if settings else {}
    rows = [_row(name, known, here.get(name)) for name in sorted({*known, *here})]
    if as_json:
        typer.echo(document([asdict(row) for row in rows]))
        return
    if not rows:
        typer.echo("no worker has served a storage yet")
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2), header_style="dim")
    for heading in ("storage", "state", "workers", "root", "marker"):
        table.add_column(heading, justify="right" if heading == "workers" else "left", overflow="fold")
    for row in rows:
        table.add_row(
            Text(printable(row.storage)),
            Text(row.state, style="green" if row.state == "ok" else ""),
            str(row.workers),
            Text(printable(row.root or "-")),
            row.marker or "-",
        )
    console().print(table)
    for row in rows:
        for trouble in row.troubles:
            console().print(Text(f"{printable(row.storage)}: {printable(trouble, 1000)}", style="red"))


@app.command()
def adopt(
    name: Annotated[str, typer.Argument(help="The storage, as in the configuration.", metavar="NAME")],
    config: Config = None,
    yes: Annotated[
        bool, typer.Option("--yes", help="Do it; without, it only says what it would do.")
    ] = False,
) -> None:
    """Let the folder that is there now be a storage's root: after a change of disk, or a restored backup.

    The folder gets a new marker, and the database knows the storage by it from then on. Workers notice by
    themselves and go on deleting, in this folder. To be run where the folder is, by the engine's owner.

    \b
    Examples:
      pglapse storage adopt public
      pglapse storage adopt public --yes
    """
    local = _local(load(config), name)
    with _opened(local) as root, schema.opened("") as conn:
        known = markers.known(conn)
        if name not in known:
            raise SettingError(
                f"no worker has ever served storage {printable(name)}",
                hint="start one: on first use it trusts the folder, and there is nothing to adopt",
            )
        found, oddity = _found(root)
        if found is not None and str(found) == known[name]["marker"]:
            markers.asked(conn, name, found)
            typer.echo(
                f"{printable(str(local.root))} is the root of storage {printable(name)}: nothing to do"
            )
            return
        typer.echo(_plan(local, known, found, oddity))
        with os.scandir(root) as entries:
            if not any(entry.name != marker.NAME for entry in entries):
                typer.echo("The folder is empty. Is its disk mounted?")
        if not yes:
            raise SettingError(
                "nothing was changed",
                hint=f"if this is meant: pglapse storage adopt {shlex.quote(printable(name))} --yes",
            )
        sign = markers.adopted(conn, name, found)
        if sign.write:
            _write(local, root, sign.number)
        markers.asked(conn, name, sign.number)  # seen: no worker need write it
    typer.echo(f"Done: storage {printable(name)} is known by {sign.number} from now on.")


def _row(name: str, known: Mapping[str, dict[str, Any]], here: Any) -> Row:
    row = known.get(name, {})
    local = isinstance(here, LocalSettings)
    found, state = _state(name, known, here) if local else (None, "a bucket" if here else "-")
    return Row(
        storage=name,
        root=str(here.root) if local else None,
        marker=row.get("marker"),
        found=None if found is None else str(found),
        state=state,
        workers=row.get("workers", 0),
        troubles=row.get("troubles", []),
    )


def _state(name: str, known: Mapping[str, dict[str, Any]], local: LocalSettings) -> tuple[UUID | None, str]:
    """What the folder here has for a marker, and what that means in a few words."""
    if not local.marker:
        return None, "without a marker"
    try:
        with _opened(local) as root:
            found, oddity = _found(root)
    except SettingError as error:
        return None, str(error)
    row = known.get(name, {})
    if oddity is not None:
        return None, f"a marker that can't be used: {oddity}"
    if found is None:
        return None, "no marker: not mounted?" if row.get("marked_at") else "no marker yet"
    if str(found) == row.get("marker"):
        return found, "ok"
    names = _names(known, found)
    return found, f"the marker of {names}" if names else "a marker that this database does not know"


def _plan(
    local: LocalSettings, known: Mapping[str, dict[str, Any]], found: UUID | None, oddity: str | None
) -> str:
    """What adopting a folder means, in sentences."""
    root, name = printable(str(local.root)), printable(local.name)
    if oddity is not None:
        return (
            f"{root} has a marker that can't be used: {oddity}. It gets a new one in its place, by which "
            f"storage {name} is known from then on."
        )
    if found is None:
        return f"{root} has no marker. It gets one, by which storage {name} is known from then on."
    if names := _names(known, found):
        return (
            f"{root} has the marker of {names}. Storage {name} is known by the same from then on: "
            "both delete in this folder."
        )
    return (
        f"{root} has a marker that this database does not know, {found}. It gets a new one in its place, by "
        f"which storage {name} is known from then on. If another database's workers delete in this folder, "
        "they stop."
    )


def _names(known: Mapping[str, dict[str, Any]], found: UUID) -> str:
    return " and ".join(
        f"storage {printable(name)}" for name, row in known.items() if row["marker"] == str(found)
    )


def _local(settings: Settings, name: str) -> LocalSettings:
    local = settings.storages.get(name)
    if local is None:
        raise SettingError(
            f"{settings.source} names no storage {printable(name)!r}",
            hint=f"it names {', '.join(map(printable, settings.storages))}",
        )
    if not isinstance(local, LocalSettings) or not local.marker:
        why = "says marker = false" if isinstance(local, LocalSettings) else "is a bucket"
        raise SettingError(f"storage {printable(name)} {why}: there is no marker to adopt")
    return local


@contextmanager
def _opened(local: LocalSettings) -> Iterator[int]:
    try:
        root = os.open(local.root, FOLDER)
    except OSError as error:
        raise SettingError(f"can't open {printable(str(local.root))}: {words(error)}") from error
    try:
        yield root
    finally:
        close(root)


def _found(root: int) -> tuple[UUID | None, str | None]:
    """The number in the marker of an open root, or what is odd about it."""
    try:
        mark = marker.read(root)
    except marker.Unreadable as reason:
        return None, str(reason)
    return mark and mark.number, None


def _write(local: LocalSettings, root: int, number: UUID) -> None:
    try:
        marker.replace(root, number)
    except OSError as error:
        raise PglapseError(
            f"the database knows the new marker, but it can't be written into {local.root}: {words(error)}",
            hint=f"write a file {marker.NAME} there yourself, with the one line {number}",
        ) from error
