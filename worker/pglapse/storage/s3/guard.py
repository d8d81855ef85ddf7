"""Tell whether an object is still the one that was condemned."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime

from pglapse.storage import Expected

AWS_ETAG = re.compile(r"[0-9A-Fa-f]{32}(-[0-9]{1,5})?")
SECOND = 1_000_000_000  # nanoseconds; S3 tells the time of an object no finer


def difference(condemned: Sequence[Expected], found: Expected) -> str | None:
    """Why ``found`` is none of the condemned ones, for people; None when it is one, or none was named."""
    differences = [_differs(one, found) for one in condemned]
    if not differences or None in differences:
        return None
    more = f" (nor is it any of the {len(differences) - 1} others that were condemned)"
    return f"{differences[0]}{more if len(differences) > 1 else ''}"


def only_etag(condemned: Sequence[Expected]) -> str | None:
    """The ETag, when nothing else need be compared and it looks like one of AWS: it can compare by itself."""
    if len(condemned) == 1 and condemned[0].size is None and condemned[0].mtime_ns is None:
        etag = _bare(condemned[0].etag)
        return etag if etag and AWS_ETAG.fullmatch(etag) else None  # '*' would match anything
    return None


def _differs(one: Expected, found: Expected) -> str | None:
    if one.size is not None and one.size != found.size:
        return f"its size is {found.size} bytes, not {one.size}"
    if one.etag is not None and _bare(one.etag) != _bare(found.etag):
        return f"its ETag is {_bare(found.etag)}, not {_bare(one.etag)}"
    if one.mtime_ns is not None and one.mtime_ns // SECOND != (found.mtime_ns or 0) // SECOND:
        return f"it was last modified at {_moment(found.mtime_ns)}, not {_moment(one.mtime_ns)}"
    return None


def _bare(etag: str | None) -> str | None:
    """An ETag without its quotes, which some programs keep and others do not."""
    return None if etag is None else etag.strip().removeprefix("W/").strip('"')


def _moment(nanoseconds: int | None) -> str:
    try:
        return datetime.fromtimestamp((nanoseconds or 0) // SECOND, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):
        return f"{nanoseconds} ns"
