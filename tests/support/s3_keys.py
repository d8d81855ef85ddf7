"""Paths for buckets, and those that somebody careless might take them for."""

from urllib.parse import quote, unquote

from hypothesis import strategies as st

from pglapse.paths import BadPath
from pglapse.storage.s3.keys import key_of

PREFIX = "up/"


def possible(path: str) -> bool:
    """Whether it can be the path of an object."""
    try:
        key_of(PREFIX, path)
    except BadPath:
        return False
    return True


paths = st.text(
    st.one_of(
        st.sampled_from("aA/. %+&<>\"'[]*?#\\~\n\r\t\x01\x7f\u0085\u2028é🗑"),
        st.characters(exclude_categories=["Cs"], exclude_characters="\x00"),
    ),
    min_size=1,
    max_size=20,
).filter(possible)


def neighbours(*wanted: str) -> set[str]:
    """What somebody who reads the paths carelessly might delete in their place."""
    near = {
        other
        for path in wanted
        for other in (
            path + "x", path[:-1], path.swapcase(), unquote(path), quote(path), path.strip(), path + " ",
            "/" + path, path.replace("+", " "), path.replace("\n", ""), path.replace("//", "/"),
            path.replace("[", ""),
        )
    }  # fmt: skip
    return {other for other in near if possible(other)}.difference(wanted)
