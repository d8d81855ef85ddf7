"""Make keys of paths, and judge which of them XML can carry.

A path is data from an application. A key has no folders and may hold almost anything, but not every server
that speaks S3 keeps its objects as S3 does: some make folders of the slashes, and ``a/../b`` would be
another object there. So the segments ``.`` and ``..`` are refused everywhere, and no key leaves its prefix.
"""

import re

from pglapse.paths import BadPath

LONGEST_KEY = 1024  # bytes
UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\ufffe\uffff]")


def folder(prefix: str) -> str:
    """A prefix that ends in a slash, or nothing; raises `BadPath`.

    Without the slash, ``up`` and the path ``loads/x`` would lead to ``uploads/x``, which belongs to others.
    """
    if not prefix:
        return ""
    if prefix.startswith("/"):
        raise BadPath("it begins with a slash, as no key of yours is likely to")
    if "//" in prefix:
        raise BadPath("it contains two slashes in a row")
    if not prefix.isprintable():
        raise BadPath("it contains a character that can't be printed")
    _judge(prefix)
    return prefix if prefix.endswith("/") else prefix + "/"


def key_of(prefix: str, path: str) -> str:
    """The key of a path below a prefix that ends in a slash or is empty; raises `BadPath`."""
    if not path:
        raise BadPath("the path is empty")
    if "\x00" in path:
        raise BadPath("the path contains a NUL character")
    key = prefix + path
    _judge(key)
    return key


def fits_xml(key: str) -> bool:
    """Whether a list of keys in XML can be trusted to carry this one unchanged.

    XML 1.0 has no way to write most control characters, and its readers may turn line ends into others or
    trim what stands around a text: the key would be refused, or, worse, become another.
    """
    return UNSAFE.search(key) is None and key == key.strip()


def _judge(key: str) -> None:
    try:
        length = len(key.encode("utf-8"))
    except UnicodeEncodeError:
        raise BadPath("the path is not valid Unicode") from None
    if length > LONGEST_KEY:
        raise BadPath(f"the key has {length:,} bytes; at most {LONGEST_KEY:,} are possible")
    if not {".", ".."}.isdisjoint(key.split("/")):
        raise BadPath("the path contains '.' or '..' between slashes, which some servers resolve")
