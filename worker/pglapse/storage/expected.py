"""Is a file still the one that was condemned? Between its queueing and its deletion it may be written anew.

There is no deletion on Linux that compares first, so a file replaced in the microseconds between the look
and the deletion still goes.
"""

import os
from collections.abc import Sequence
from datetime import UTC, datetime

from pglapse.storage import Expected, Outcome


def objection(expected: Sequence[Expected], found: os.stat_result) -> Outcome | None:
    """Why a file is to be left alone; None if it is one of those expected.

    A local file has no etag: it is passed over beside a size or a time, and refused where it is all there is.
    """
    known = [one for one in expected if one.size is not None or one.mtime_ns is not None or one.etag is None]
    if not known:
        return Outcome("refused", error="a local file has no etag to compare; give its size or mtime_ns")
    differences = [_differences(one, found) for one in known]
    if not all(differences):
        return None
    if len(known) == 1:
        return Outcome("changed", error=", ".join(differences[0]))
    is_ = f"size {found.st_size}, written {_time(found.st_mtime_ns)}"
    return Outcome("changed", error=f"{is_}: none of the {len(known)} that are meant")


def _differences(one: Expected, found: os.stat_result) -> list[str]:
    told = []
    if one.size is not None and one.size != found.st_size:
        told.append(f"size {found.st_size} instead of {one.size}")
    if one.mtime_ns is not None and one.mtime_ns != found.st_mtime_ns:
        told.append(f"written {_time(found.st_mtime_ns)} instead of {_time(one.mtime_ns)}")
    return told


def _time(ns: int) -> str:
    seconds, rest = divmod(ns, 1_000_000_000)
    try:
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S}.{rest:09d} UTC"
    except (OverflowError, ValueError, OSError):
        return f"{ns} ns after 1970"
