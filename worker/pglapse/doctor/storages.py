"""Can the storages of the configuration be worked with from here? Nothing is written, deleted or adopted.

For folders: the root is there, is the one that the database knows by its marker, and lets this user delete.
For buckets: what the worker itself asks before it deletes. A storage that hangs is given up after a while.
"""

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from shlex import quote
from typing import Any

from pglapse import parts
from pglapse.config import LocalSettings, Settings
from pglapse.doctor.finding import Finding, fail, ok, warn
from pglapse.doctor.guarded import guarded
from pglapse.errors import SettingError
from pglapse.storage import marker
from pglapse.storage.faults import words
from pglapse.storage.folders import FOLDER, close
from pglapse.storage.s3.settings import S3Settings
from pglapse.text import printable

PATIENCE = 15.0  # seconds for a storage to answer

Known = Mapping[str, Mapping[str, Any]]
"""The rows of lapse.storage_status by name; what `pglapse.markers.known` answers."""


def examined(settings: Settings, known: Known | None, patience: float = PATIENCE) -> Iterator[Finding]:
    """A line for each storage of the configuration; ``known`` is None where the database can't be asked."""
    where = f"--config {quote(str(settings.source))}"
    for one in settings.storages.values():
        check = f"storage {printable(one.name)}"
        look = _bound(_local, one, known, where) if isinstance(one, LocalSettings) else _bound(_bucket, one)
        yield from guarded(check, _bound(_in_time, check, look, patience), f"pglapse doctor {where}")
    for name in sorted(set(known or ()) - set(settings.storages)):
        yield ok(
            f"storage {printable(name)}",
            f"workers have served it; {printable(str(settings.source))} does not name it",
        )


def _bound(function: Callable[..., Any], *arguments: Any) -> Callable[[], list[Finding]]:
    return lambda: list(function(*arguments))


def _in_time(check: str, look: Callable[[], list[Finding]], patience: float) -> Iterator[Finding]:
    """What a look finds, or that it takes too long: a network file system can hang for ever."""
    found: list[list[Finding]] = []
    raised: list[BaseException] = []

    def run() -> None:
        try:
            found.append(look())
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run, name=check, daemon=True)
    thread.start()
    thread.join(patience)
    if raised:
        raise raised[0]
    if not found:
        yield fail(
            check,
            f"does not answer within {patience:g} s",
            "see whether its disk or network hangs: pglapse storage list",
        )
        return
    yield from found[0]


def _local(one: LocalSettings, known: Known | None, where: str) -> Iterator[Finding]:
    check, root = f"storage {printable(one.name)}", printable(str(one.root))
    try:
        opened = os.open(one.root, FOLDER)
    except OSError as error:
        hint = (
            f"mount its disk, or mkdir -p {quote(root)}"
            if isinstance(error, FileNotFoundError)
            else f"ls -ld {quote(root)}"
        )
        yield fail(check, f"its root {root} can't be used: {words(error)}", hint)
        return
    try:
        yield from _root(one, opened, known, where)
    finally:
        close(opened)


def _root(one: LocalSettings, opened: int, known: Known | None, where: str) -> Iterator[Finding]:
    check, root = f"storage {printable(one.name)}", printable(str(one.root))
    user = f"user {os.geteuid()}"
    if os.fstatvfs(opened).f_flag & os.ST_RDONLY:
        yield fail(check, f"its root {root} is mounted read-only", f"mount -o remount,rw {quote(root)}")
        return
    if not os.access(
        ".", os.W_OK | os.X_OK, dir_fd=opened, effective_ids=os.access in os.supports_effective_ids
    ):
        yield fail(
            check,
            f"{user} may not delete in its root {root}",
            f"chown or chmod {quote(root)} for the user of the worker",
        )
        return
    if not one.marker:
        yield ok(check, f"{root} is there and writable for {user}; without a marker (marker = false)")
        return
    adopt = f"pglapse storage adopt {quote(one.name)} {where}"
    try:
        mark = marker.read(opened)
    except marker.Unreadable as reason:
        yield fail(check, f"the marker in {root} can't be used: {reason}", f"{adopt} --yes")
        return
    if known is None:
        yield ok(
            check,
            f"{root} is there and writable for {user}; whether it is the right one, the database can't say",
        )
        return
    row = known.get(one.name)
    if row is None or row.get("marked_at") is None:
        if mark is None:
            yield warn(
                check,
                f"no worker has used {root} yet; the first one gives it its marker",
                f"pglapse worker {where}",
            )
        elif str(mark.number) in {known[name]["marker"] for name in known}:
            yield ok(check, f"{root} is there and writable for {user}; it is another storage's root, too")
        else:
            yield fail(
                check,
                f"{root} has the marker of another database: no file is deleted there",
                f"{adopt} --yes",
            )
    elif mark is None:
        yield fail(
            check,
            f"{root} has lost its marker, or its disk is not mounted",
            f"mount its disk; if this is the root: {adopt} --yes",
        )
    elif str(mark.number) != row["marker"]:
        yield fail(
            check, f"{root} has another marker than the database knows: another disk?", f"{adopt} --yes"
        )
    else:
        yield ok(check, f"{root} is there, writable for {user}, and known by its marker")


def _bucket(one: S3Settings) -> Iterator[Finding]:
    """Ask as the worker does; raises `Away` with what the server said."""
    with ExitStack() as stack:
        alone = Settings(source=Path("pglapse.toml"), storages={one.name: one})
        storage = stack.enter_context(parts.storages(alone, 1))[one.name]
        storage.check()
    yield ok(f"storage {printable(one.name)}", f"bucket {printable(one.bucket)} answers")


def configured(
    load: Callable[[str | None], Settings], named: str | None
) -> tuple[Settings | None, list[Finding]]:
    """The configuration, or what is wrong with it. That there is none is no trouble unless it was named."""
    try:
        return load(named), []
    except SettingError as error:
        if named is None and str(error).startswith("there is no configuration file"):
            return None, [
                ok(
                    "storages_here",
                    "no configuration here, so no storage is looked at from here (--config FILE)",
                )
            ]
        return None, [fail("storages_here", str(error), error.hint or "mend the configuration file")]
