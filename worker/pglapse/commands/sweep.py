"""``pglapse sweep``: files that no row knows, and rows whose file is not there."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from pglapse import markers, parts, schema
from pglapse.config import LocalSettings, load
from pglapse.errors import PglapseError, SettingError
from pglapse.schema import Connection
from pglapse.storage import Away, Sign
from pglapse.storage.local import LocalStorage
from pglapse.sweep import missing as missing_files
from pglapse.sweep import orphans
from pglapse.sweep.orphans import Found, Limits
from pglapse.text import printable


def sweep(
    *,
    config: Annotated[
        str | None,
        typer.Option(
            help="Where the storages are named.  [default: PGLAPSE_CONFIG, or pglapse.toml]", metavar="FILE"
        ),
    ] = None,
    storage: Annotated[str | None, typer.Option(help="Only this storage.", metavar="NAME")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Find and sum up; queue nothing.")] = False,
    missing: Annotated[
        bool, typer.Option("--missing", help="The other way: rows whose file is not there. Changes nothing.")
    ] = False,
    older_than: Annotated[
        float, typer.Option(min=1, max=24 * 366 * 10, help="Hours that a file must have been left alone.")
    ] = 24,
    most_files: Annotated[
        int, typer.Option(min=0, help="Stop and ask if more than these would go.")
    ] = 10_000,
    most_share: Annotated[
        float, typer.Option(min=0, max=1, help="Stop and ask if more than this share of the files would go.")
    ] = 0.5,
    as_json: Annotated[bool, typer.Option("--json", help="For programs: one JSON object a storage.")] = False,
) -> None:
    """Queue files in the temporary areas that no row of the database knows.

    Areas are named in pglapse.toml, as folders below a storage's root:

    \b
      [storage.private]
      kind = "local"
      root = "/srv/uploads/private"
      temp = ["tmp", "incoming"]

    Nothing else is looked at. A file must be older than --older-than by its last change of any kind. It is
    queued with reason 'orphan' and with what it was, so one that is written anew meanwhile stays. Where the
    find looks wrong, the sweep stops and says why. Workers sweep every six hours by themselves.

    \b
    Examples:
      pglapse sweep --dry-run
      pglapse sweep --storage private --most-files 50000
      pglapse sweep --missing
    """
    settings = load(config)
    chosen = _chosen(settings.storages, storage, with_areas=not missing)
    limits = Limits(timedelta(hours=older_than), most_files, most_share)
    with parts.storages(settings, 1) as storages, schema.opened("grant_worker") as conn:
        founds: dict[str, Found] = {}
        gaps = 0
        for one in chosen:
            local = storages[one.name]
            assert isinstance(local, LocalStorage)  # noqa: S101 (what LocalSettings become)
            try:
                _introduce(conn, local)
                if missing:
                    gaps += _missing(conn, local, as_json=as_json)
                    continue
                with _progress(one.name) as progress:
                    found = orphans.sweep(conn, local, one.temp, limits, dry_run=dry_run, progress=progress)
            except Away as away:
                raise PglapseError(away.reason) from away
            founds[one.name] = found
            _tell(found, dry_run=dry_run, as_json=as_json)
    if missing and not as_json:
        typer.echo(f"{gaps:,} rows name a file that is not there")
    if error := orphans.stopped(founds):
        raise error


def _chosen(storages: object, name: str | None, *, with_areas: bool) -> list[LocalSettings]:
    """The storages to sweep; raises `SettingError` where there is none."""
    assert isinstance(storages, dict)  # noqa: S101
    if name is not None and name not in storages:
        raise SettingError(
            f"there is no storage {printable(name)!r}", hint=f"known: {', '.join(sorted(storages))}"
        )
    local = [one for one in storages.values() if isinstance(one, LocalSettings) and name in (None, one.name)]
    chosen = [one for one in local if one.temp or not with_areas]
    if not chosen:
        raise SettingError(
            "no temporary area is named" if with_areas else "no local storage is named",
            hint='add a key like temp = ["tmp"] to a storage of kind "local" in the configuration',
        )
    return chosen


def _introduce(conn: Connection, storage: LocalStorage) -> None:
    """Ask the database for the root's marker. A root that never had one is a worker's to trust, not ours."""

    def ask(found: object) -> Sign:
        sign = markers.asked(conn, storage.name, found)  # type: ignore[arg-type]
        if sign.write:
            raise PglapseError(
                "no worker has served it yet, so its root is not known", hint="start a worker first"
            )
        return sign

    storage.introduce(ask)


def _missing(conn: Connection, storage: LocalStorage, *, as_json: bool) -> int:
    count = 0
    for source, path in missing_files.missing(conn, storage):
        count += 1
        if as_json:
            typer.echo(json.dumps({"storage": storage.name, "source": source, "path": path}))
        else:
            typer.echo(f"{printable(storage.name)}: {printable(path, 4000)} (file source {source})")
    return count


def _tell(found: Found, *, dry_run: bool, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps({"storage": found.storage, **found.summary(), "examples": found.examples}))
        return
    typer.echo(orphans.said(found, dry_run=dry_run))
    for path in found.examples:
        typer.echo(f"  {printable(path)}")


@contextmanager
def _progress(name: str) -> Iterator[Callable[[Found], None]]:
    """How far it is, on a terminal; nothing elsewhere."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    columns = SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(printable(name))

        def show(found: Found) -> None:
            said = f"{found.files:,} files, {found.orphans:,} orphans, {found.queued:,} queued"
            said = f"{printable(name)}: {said}"
            bar.update(task, description=said)

        yield show
