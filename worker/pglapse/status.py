"""What there is to see at a glance: policies, queue and workers, from the engine's views.

Read as JSON that the server makes, so that programs and people get the same, and times outside what
Python can hold (infinity) are no trouble.
"""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from pglapse import __version__, text
from pglapse.schema import Connection

Row = dict[str, Any]

READ = """
select jsonb_build_object(
    'database', current_database(),
    'at', statement_timestamp(),
    'guard', (select to_jsonb(g) from lapse.database_status as g),
    'policies', (
        select coalesce(jsonb_agg(to_jsonb(p) || jsonb_build_object(
                   'oldest_due_age', extract(epoch from p.oldest_due_age),
                   'next_run_in', extract(epoch from p.next_run_at - statement_timestamp()),
                   'last_run_ago', extract(epoch from statement_timestamp() - p.last_run_at),
                   'running_for', extract(epoch from statement_timestamp() - p.running_since))
                   order by p.policy), '[]')
          from lapse.policy_status as p),
    'queue', (
        select to_jsonb(q) || jsonb_build_object('oldest_due_age', extract(epoch from q.oldest_due_age))
          from lapse.queue_status as q),
    'storages', (
        select coalesce(jsonb_agg(to_jsonb(s) || jsonb_build_object(
                   'oldest_due_age', extract(epoch from s.oldest_due_age),
                   'last_sweep', t.sweep_result,
                   'last_sweep_at', t.sweep_ended_at,
                   'last_sweep_ago', extract(epoch from statement_timestamp() - t.sweep_ended_at))
                   order by s.storage), '[]')
          from lapse.queue_by_storage as s
          left join lapse.storage_status as t on t.storage = s.storage),
    'workers', (
        select coalesce(jsonb_agg(to_jsonb(w) || jsonb_build_object(
                   'unseen_for', extract(epoch from w.unseen_for),
                   'running_for', extract(epoch from statement_timestamp() - w.since))
                   order by w.since, w.worker), '[]')
          from lapse.worker_status as w))
"""


@dataclass(frozen=True, slots=True)
class Status:
    """Everything that one look shows; the keys are the columns of the views, time spans are seconds."""

    database: str
    at: str
    guard: Row
    policies: list[Row]
    queue: Row
    storages: list[Row]
    workers: list[Row]


def read(conn: Connection) -> Status:
    """One look at all three, from one moment."""
    with conn.transaction():  # a session's setting would be somebody else's next behind a pooler
        conn.execute(
            "set local jit = off"
        )  # to compile so many small queries takes longer than to answer them
        [(document,)] = conn.execute(READ)
    return Status(**document)


def console() -> Console:
    """Standard output: in colour on a terminal, else plain and never cut to a terminal's width."""
    plain = Console()
    return plain if plain.is_terminal else Console(width=250, no_color=True, highlight=False)


def document(value: Any) -> str:
    """For programs; characters that standard output can't hold are escaped as JSON does."""
    unicode = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    return json.dumps(value, ensure_ascii=not unicode, indent=2)


def rendered(status: Status) -> RenderableType:
    """The status for people."""
    head = Text(f"pglapse {__version__}", style="bold") + Text(
        f"  database {text.printable(status.database)}, {status.at}", style="dim not bold"
    )
    return Group(
        head,
        *_guard(status.guard),
        *_brakes(status.policies),
        "",
        *_policies(status.policies, status.guard["holds"]),
        "",
        *_queue(status.queue, status.storages),
        "",
        *_workers(status.workers),
    )


def _guard(row: Row) -> Iterator[RenderableType]:
    """What stops everything comes first."""
    if not row["adopted"]:
        yield Text(f"  {text.printable(row['trouble'], 1000)}", style="bold red")
        yield Text(
            "  No policy runs and no file is deleted. If this database is to work from now on: pglapse adopt",
            style="red",
        )


def _brakes(rows: list[Row]) -> Iterator[RenderableType]:
    for row in rows:
        if row["braked_at"] is not None:
            yield Text(
                f"  policy {row['policy']} is braked and takes nothing: {row['braked_rows']:,} "
                f"of {row['braked_of']:,} rows were due",
                style="bold red",
            )
            yield Text(
                f"  Look at what is due; if it may go: select lapse.release_brake('{row['policy']}')",
                style="red",
            )


def _policies(rows: list[Row], holds: int) -> Iterator[RenderableType]:
    yield Text("Policies", style="bold")
    if not rows:
        yield Text("  none yet: lapse.create_policy(...) makes one", style="dim")
        return
    table = _table(
        "policy", "schedule", "next", "last run", "#rows", "#last day", "#backlog", "#oldest due", "#blocked"
    )
    for row in rows:
        table.add_row(
            Text(row["policy"], style="bold" if row["enabled"] else "dim"),
            row["schedule"],
            _next(row),
            _last(row),
            _number(row["rows_last_run"]),
            _number(row["rows_last_day"]),
            Text(row["backlog"] or "-", style="" if row["backlog"] in (None, "0") else "yellow"),
            _ago(row["oldest_due_age"]),
            _number(row["blocked_rows"], "yellow"),
        )
    yield table
    if holds:
        yield Text(f"  held: {holds:,} (select * from lapse.hold)", style="cyan")
    for row in rows:
        if row["last_status"] not in (None, "ok", "braked") and row["last_error"]:
            yield Text(f"  {row['policy']}: {text.printable(row['last_error'])}", style="red")


def _queue(row: Row, storages: list[Row]) -> Iterator[RenderableType]:
    title = Text("File queue", style="bold")
    if row["counts_are_minimum"]:
        title += Text("  (at least)", style="dim not bold")
    yield title
    table = _table(
        "#pending",
        "#due",
        "#leased",
        "#retrying",
        "#dead",
        "#oldest due",
        "#files/day",
        "#freed/day",
    )
    table.add_row(
        _number(row["pending"]),
        _number(row["due"]),
        _number(row["leased"]),
        _number(row["retrying"], "yellow"),
        _number(row["dead"], "bold red"),
        _ago(row["oldest_due_age"]),
        _number(row["files_last_day"]),
        text.size(row["bytes_last_day"]),
    )
    yield table
    if row["dead"]:
        yield Text("  dead rows tell why: pglapse queue list --state dead", style="dim")
    for storage in storages:
        if storage["due"] and not storage["workers"]:
            least = "at least " if storage["counts_are_minimum"] else ""
            yield Text(
                f"  storage {text.printable(storage['storage'])}: no worker serves it, "
                f"and {least}{text.files(storage['due'])} due",
                style="red",
            )
    yield from _sweeps(storages)


def _sweeps(storages: list[Row]) -> Iterator[RenderableType]:
    """What the last sweep for forgotten files found, of each storage that was swept."""
    for storage in storages:
        if (found := storage["last_sweep"]) is None:
            continue
        ago = text.span(max(storage["last_sweep_ago"] or 0, 0))
        line = f"  storage {text.printable(storage['storage'])}: swept {ago} ago, "
        line += f"{text.files(found.get('files') or 0)} looked at, "
        line += f"{found.get('orphans') or 0:,} known to no row, "
        line += f"{found.get('queued') or 0:,} queued"
        stopped = found.get("stopped")
        yield Text(
            line + (f"; stopped: {text.printable(str(stopped), 500)}" if stopped else ""),
            style="red" if stopped else "dim",
        )


def _workers(rows: list[Row]) -> Iterator[RenderableType]:
    yield Text("Workers", style="bold")
    if not rows:
        yield Text("  none: pglapse worker starts one", style="yellow")
        return
    table = _table("worker", "version", "running for", "last seen", "schedule", "#files", "#failed", "#freed")
    for row in rows:
        seen = Text(
            f"{text.span(max(row['unseen_for'], 0))} ago", style="green" if row["alive"] else "bold red"
        )
        table.add_row(
            Text(text.printable(row["worker"])),
            text.printable(row["version"]),
            text.span(max(row["running_for"], 0)),
            seen,
            "keeps it" if row["ticking"] else "-",
            _number(row["files_done"]),
            _number(row["files_failed"], "yellow"),
            text.size(row["bytes_freed"]),
        )
    yield table
    troubles = {trouble for row in rows if row["alive"] for trouble in row["troubles"].items()}
    for storage, trouble in sorted(troubles):
        yield Text(f"  {text.printable(storage)}: {text.printable(trouble, 1000)}", style="red")


def _table(*headings: str) -> Table:
    """A table without lines; a heading that starts with # stands above numbers.

    Where the terminal is narrow, words go on in the next line; a number that is cut is another number.
    """
    table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="dim")
    for heading in headings:
        number = heading.startswith("#")
        table.add_column(
            heading.removeprefix("#"),
            justify="right" if number else "left",
            no_wrap=number,
            overflow="ellipsis" if number else "fold",
        )
    return table


def _next(row: Row) -> Text:
    if not row["enabled"]:
        return Text("paused", style="yellow")
    if row["braked_at"] is not None:
        return Text("braked", style="bold red")
    if row["running_for"] is not None:
        return Text(f"running, {text.span(max(row['running_for'], 0))}", style="cyan")
    seconds = row["next_run_in"]
    if seconds is None:
        return Text("-")
    return Text(f"in {text.span(seconds)}") if seconds >= 1 else Text("now")


def _last(row: Row) -> Text:
    status, ago = row["last_status"], row["last_run_ago"]
    if status is None or ago is None:
        return Text("-", style="dim")
    words = Text(status, style="green" if status == "ok" else "bold red")
    words += Text(f" {text.span(max(ago, 0))} ago", style="not bold default")
    if failures := row["consecutive_failures"]:
        words += Text(f", {failures} in a row", style="red not bold")
    return words


def _number(value: int | None, alarm: str = "") -> Text:
    if value is None:
        return Text("-", style="dim")
    return Text(f"{value:,}", style=alarm if value else "")


def _ago(seconds: float | None) -> Text:
    return Text("-", style="dim") if seconds is None else Text(text.span(max(seconds, 0)))
