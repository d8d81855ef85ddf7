"""What one policy would do: read from the database as one object, and shown to people.

Read inside a read-only transaction: a preview that changed something would be none.
"""

from collections.abc import Iterator
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from pglapse import text
from pglapse.errors import translated
from pglapse.schema import Connection

Document = dict[str, Any]

HORIZONS = ("now", "1 hour", "24 hours", "7 days")

EFFECTS = {
    "cascade": ("go with it", "yellow"),
    "set null": ("are set to null", ""),
    "set default": ("are set to their default", ""),
    "restrict": ("stand in the way", "bold red"),
    "no action": ("stand in the way", "bold red"),
}


def read(conn: Connection, policy: str, bound: int) -> Document:
    """All that the database says of a policy; raises `NotFound` where there is none of that name."""
    with translated(), conn.transaction():
        conn.execute("set transaction read only")
        [(document,)] = conn.execute("select lapse.preview_json(%s, %s)", [policy, bound])
    return dict(document)


def clear(document: Document) -> bool:
    """Whether nothing stands in the way, as far as could be seen, and the rows due could be counted."""
    return not document["findings"] and (not document["target"] or "now" in document["due"])


def rendered(document: Document) -> RenderableType:
    """The preview for people, the worst last, where it is seen."""
    return Group(
        *_head(document), *_due(document), *_children(document), *_way(document), *_warnings(document)
    )


def _head(document: Document) -> Iterator[RenderableType]:
    title = Text(document["policy"], style="bold")
    if not document["enabled"]:
        title += Text("  paused", style="yellow not bold")
    title += Text(f"  {document['schedule']}, {document['at']}", style="dim not bold")
    yield title
    if document["description"]:
        yield Text(f"  {text.printable(document['description'])}", style="dim")
    if document["target"]:
        yield ""


def _due(document: Document) -> Iterator[RenderableType]:
    if not document["target"]:
        return
    yield Text("Rows due", style="bold")
    if not document["due"]:
        yield Text("  not known, see below", style="dim")
        return
    table = Table(box=None, pad_edge=False, padding=(0, 1), show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(overflow="fold")
    for horizon in HORIZONS:
        count = document["due"].get(horizon, {"rows": None, "at_least": False})
        now = horizon == "now"
        table.add_row(
            "  now" if now else f"  within {horizon}",
            Text(_number(count["rows"], count["at_least"]), style="bold" if now and count["rows"] else ""),
            _share(document) if now else "",
        )
    yield table
    if document.get("oldest_due"):
        yield Text(f"  the oldest since {document['oldest_due']}")
    if document["blocked_rows"]:
        yield Text(f"  set aside: {document['blocked_rows']:,} (lapse.blocked_row)", style="yellow")
    if document["held_rows"]:
        yield Text(f"  held: {document['held_rows']:,} (lapse.hold)", style="cyan")
    estimate = document["estimate"]
    if estimate and estimate["batches"]:
        least = "at least" if estimate["at_least"] else "about"
        span = text.span(max(estimate["seconds"], 1))
        yield Text(
            f"  takes {least} {span}: {_count(estimate['batches'], 'batch', 'batches')}"
            f" in {_count(estimate['runs'], 'run', 'runs')}",
        ) + Text(f"  ({estimate['basis']})", style="dim")


def _children(document: Document) -> Iterator[RenderableType]:
    if not document["children"] and not document["files"]:
        return
    yield ""
    yield Text("What goes along", style="bold")
    if document["deletes"] is None:
        yield Text("  if its step deletes, which can't be told", style="dim")
    table = Table(box=None, pad_edge=False, padding=(0, 1), show_header=False)
    table.add_column(overflow="fold")
    table.add_column(justify="right", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_column(overflow="fold", style="dim")
    for child in document["children"] or []:
        effect, style = EFFECTS[child["on_delete"]]
        table.add_row(
            Text(f"  {text.printable(child['relation'])}"),
            _number(child["rows"], child["at_least"]),
            Text(f"rows {effect}", style=style if child["rows"] else ""),
            Text(text.printable(f"{child['name']}, {child['on_delete']}")),
        )
    for file in document["files"] or []:
        table.add_row(
            Text(f"  {text.printable(file['table'])}"),
            _number(file["rows"], file["at_least"]),
            Text("files are queued, or fewer"),
            Text(text.printable(file["note"] or file["name"])),
        )
    yield table


def _way(document: Document) -> Iterator[RenderableType]:
    index = document["index"]
    if not index or index["ok"] is None:
        return
    yield ""
    yield Text("How it gets at them", style="bold")
    if index["ok"]:
        yield Text(f"  by index {text.printable(index['index_name'] or '')}", style="green")
    for line in (index["plan"] or "").splitlines():
        yield Text(f"    {text.printable(line, 1000)}", style="dim")


def _warnings(document: Document) -> Iterator[RenderableType]:
    for heading, key, style in (
        ("In the way", "findings", "red"),
        ("Not known", "not_known", "yellow"),
    ):
        if document[key]:
            yield ""
            yield Text(heading, style="bold")
            for line in document[key]:
                yield Text(f"  {text.printable(line, 2000)}", style=style)


def _share(document: Document) -> str:
    if document["share"] is None:
        return ""
    about = "about " if document["table"]["estimated"] else ""
    return f"{document['share']:.1%} of the table, which has {about}{document['table']['rows']:,} rows"


def _number(count: int | None, at_least: bool | None) -> str:
    if count is None:
        return "?"
    return f"{'at least ' if at_least else ''}{count:,}"


def _count(count: float, one: str, many: str) -> str:
    return f"{count:,.0f} {one if count == 1 else many}"
