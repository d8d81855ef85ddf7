"""Judge a path from the queue before any system call sees it.

The queue is data from the application, so no path in it is trusted. What the kernel would accept and
understand otherwise (``..``), or would silently call missing (a leading slash, 5,000 bytes), is refused
here: a refused path is shown to people, a missing one would be forgotten.
"""

LONGEST_NAME = 255
LONGEST_PATH = 4095


class BadPath(ValueError):
    """The path names no file below a root; the text says why, for people."""


def split(path: str) -> tuple[bytes, ...]:
    """The names that lead from the root to the file, as UTF-8 bytes; raises `BadPath`.

    Bytes, because the names on disk are bytes: the worker's locale must not choose another file.
    """
    if not path:
        raise BadPath("the path is empty")
    if "\x00" in path:
        raise BadPath("the path contains a NUL character")
    if path.startswith("/"):
        raise BadPath("the path is absolute; it must be relative to the storage's root")
    try:
        encoded = path.encode("utf-8")
    except UnicodeEncodeError:
        raise BadPath("the path is not valid Unicode") from None
    if len(encoded) > LONGEST_PATH:
        raise BadPath(f"the path has {len(encoded):,} bytes; at most {LONGEST_PATH:,} are possible")
    names = tuple(encoded.split(b"/"))
    if b".." in names:
        raise BadPath("the path contains '..'")
    if b"." in names:
        raise BadPath("the path contains '.' as a folder or file")
    if b"" in names:
        raise BadPath(
            "the path ends in a slash" if path.endswith("/") else "the path contains two slashes in a row"
        )
    longest = max(map(len, names))
    if longest > LONGEST_NAME:
        raise BadPath(f"a name in the path has {longest:,} bytes; at most {LONGEST_NAME} are possible")
    return names
