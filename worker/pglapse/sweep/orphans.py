"""Sweep a storage's temporary areas: queue old files that no row knows, unless that looks wrong.

The walk spools what it finds, so that all is known before anything is queued: a sweep that would take much
stops and asks. Each file is queued with what it was when it was seen; one that was written anew since
stays. The database is asked twice, after the file was seen and when it is queued, and once more when a
worker takes it.
"""

import json
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import islice
from typing import IO, Any, TypeVar

from psycopg.types.json import Jsonb

from pglapse import text
from pglapse.errors import PglapseError, SettingError, translated
from pglapse.paths import split
from pglapse.schema import Connection
from pglapse.storage.folders import close
from pglapse.storage.local import LocalStorage
from pglapse.storage.marker import Marked
from pglapse.sweep.walk import WHY, Area, Seen, Skipped

Item = TypeVar("Item")

BATCH = 1000
LOOK = "look at them first, then raise the limit"
LEAST_AGE = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Limits:
    """How old a file must be, and how much may go at once."""

    age: timedelta = timedelta(hours=24)
    most: int = 10_000
    """Orphans in one sweep of a storage."""
    share: float = 0.5
    """Orphans among the files of all areas, and of each: a wrong one hides behind no other."""
    few: int = 100
    """So many orphans may go whatever their share."""

    def __post_init__(self) -> None:
        if self.age < LEAST_AGE:
            raise SettingError("a sweep takes no file younger than an hour: an upload may take that long")
        if self.most < 0 or not 0 <= self.share <= 1:
            raise SettingError("a sweep's limits are a number of files, and a share from 0 to 1")


@dataclass(slots=True)
class Found:
    """What a sweep has found so far."""

    storage: str
    files: int = 0
    young: int = 0
    orphans: int = 0
    bytes: int = 0
    queued: int = 0
    stopped: str | None = None
    """Why nothing, or no more, was queued."""
    skipped: Counter[Skipped] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)
    areas: list[tuple[int, int, str]] = field(default_factory=list)
    """Files and orphans of each area that was walked to its end, and where that is, in words."""

    def summary(self) -> dict[str, Any]:
        """For lapse.sweep_end, and for programs."""
        return {
            "files": self.files,
            "young": self.young,
            "orphans": self.orphans,
            "bytes": self.bytes,
            "queued": self.queued,
            "stopped": self.stopped,
            "skipped": {WHY[kind]: count for kind, count in self.skipped.items()},
        }


def sweep(
    conn: Connection,
    storage: LocalStorage,
    areas: Sequence[str],
    limits: Limits,
    *,
    dry_run: bool = False,
    progress: Callable[[Found], None] = lambda _: None,
    stopping: Callable[[], bool] = lambda: False,
) -> Found:
    """Queue what no row knows in the areas of a storage; with ``dry_run``, only find it, by the same way.

    Raises `Away` when the root can't be used, and `PglapseError` with LP013 when the database can't tell
    what it knows. Where the find looks wrong ``stopped`` says why, and nothing was queued.
    """
    found = Found(storage.name)
    if not dry_run and (halted := _halted(conn)) is not None:
        found.stopped = halted
        return found
    if not isinstance(storage.guard, Marked):
        found.stopped = "its root has no marker (marker = false), so an unmounted one could not be told"
        return found
    if not _knows_any(conn, storage.name):
        found.stopped = (
            f"the database knows no file of storage {storage.name} at all: "
            "is it the right one, or newly made?"
        )
        return found
    root, home = storage.open_root()
    try:
        with tempfile.TemporaryFile("w+", encoding="utf-8", prefix="pglapse-sweep-") as spool:
            before = time.time() - limits.age.total_seconds()
            for area in areas:
                files, gone = found.files, found.orphans
                walk = Area(root, home, split(area) if area else ())
                old: list[Seen] = []
                for some in _batches(walk.files(), BATCH):
                    old += _old(some, before, found)
                    if len(old) >= BATCH:
                        _spool(conn, spool, old, found)
                        old.clear()
                    progress(found)
                    if stopping():
                        found.stopped = "told to stop"
                        return found
                _spool(conn, spool, old, found)
                progress(found)
                found.skipped += walk.skipped
                found.areas.append((found.files - files, found.orphans - gone, f" in {text.printable(area)}"))
            storage.look_again(home)
            found.stopped = _too_much(found, limits)
            if not dry_run and found.stopped is None:
                _queue(conn, spool, found, progress, stopping)
    finally:
        close(root)
    return found


def _batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    some = iter(items)
    while batch := list(islice(some, size)):
        yield batch


def _old(some: Sequence[Seen], before: float, found: Found) -> list[Seen]:
    """Those that were left alone for long enough; all are counted."""
    old = [seen for seen in some if seen.changed_at <= before]
    found.files += len(some)
    found.young += len(some) - len(old)
    return old


def _spool(conn: Connection, spool: IO[str], some: Sequence[Seen], found: Found) -> None:
    """Keep those that no row knows; asked after they were seen, so that a row written before is found."""
    if not some:
        return
    with translated():
        unknown = {
            path
            for (path,) in conn.execute(
                "select u.path from lapse.unknown_files(%s, %s::text[]) as u",
                [found.storage, [seen.path for seen in some]],
            )
        }
    for seen in some:
        if seen.path in unknown:
            found.orphans += 1
            found.bytes += seen.size
            if len(found.examples) < 5:
                found.examples.append(seen.path)
            spool.write(json.dumps([seen.path, seen.size, seen.mtime_ns]) + "\n")


def _too_much(found: Found, limits: Limits) -> str | None:
    if found.orphans > limits.most:
        return f"{text.files(found.orphans)} would go, more than {limits.most:,}: {LOOK}"
    for files, gone, where in [(found.files, found.orphans, ""), *found.areas]:
        if gone > limits.few and gone > limits.share * files:
            return f"{gone / files:.0%} of the files{where} would go, more than {limits.share:.0%}: {LOOK}"
    return None


def _queue(
    conn: Connection,
    spool: IO[str],
    found: Found,
    progress: Callable[[Found], None],
    stopping: Callable[[], bool],
) -> None:
    spool.seek(0)
    for lines in _batches(spool, BATCH):
        if stopping():
            found.stopped = "told to stop"
            return
        some = [json.loads(line) for line in lines]
        with translated():
            [(count,)] = conn.execute(
                "select lapse.enqueue_orphans(%s, %s::text[], %s::jsonb[])",
                [
                    found.storage,
                    [path for path, _, _ in some],
                    [Jsonb([{"size": size, "mtime_ns": mtime}]) for _, size, mtime in some],
                ],
            )
        found.queued += count
        progress(found)


def _halted(conn: Connection) -> str | None:
    """Why nothing is deleted in this database: a copy knows nothing of its original's newer files."""
    [(reason,)] = conn.execute("select lapse.halt_reason()")
    return None if reason is None else str(reason)


def _knows_any(conn: Connection, storage: str) -> bool:
    with translated():
        return bool(conn.execute("select 1 from lapse.listed_files(%s, null, null, 1)", [storage]).fetchone())


def said(found: Found, *, dry_run: bool) -> str:
    """One line for people."""
    line = (
        f"storage {text.printable(found.storage)}: {text.files(found.files)} looked at, "
        f"{found.young:,} too young, {found.orphans:,} known to no row ({text.size(found.bytes)})"
    )
    if found.skipped:
        line += "; skipped: " + ", ".join(f"{count:,} {WHY[kind]}" for kind, count in found.skipped.items())
    if found.stopped is not None:
        return f"{line}; stopped, nothing more is queued: {found.stopped}"
    return line + ("; nothing was queued (--dry-run)" if dry_run else f"; {found.queued:,} queued")


def stopped(founds: Mapping[str, Found]) -> PglapseError | None:
    """The error to end with where a sweep stopped by itself."""
    reasons = {name: found.stopped for name, found in founds.items() if found.stopped is not None}
    if not reasons:
        return None
    braked = any(reason.endswith(LOOK) for reason in reasons.values())
    return PglapseError(
        f"the sweep of {', '.join(text.printable(name) for name in reasons)} stopped before it queued all",
        hint="look with --dry-run; --most-files and --most-share raise the limits" if braked else None,
    )
