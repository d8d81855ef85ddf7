"""Text that others wrote, made fit for where it goes: the database, a log line, a terminal."""


def storable(text: str, limit: int = 2000, *, encoding: str = "UTF8") -> str:
    """``text`` as PostgreSQL can hold it: no NUL, no lone surrogate, no novel.

    ``encoding`` is the database's: where it is not UTF8, what is not ASCII is escaped. One character that
    the database can't hold would have it refuse all results that are handed in together.
    """
    known, more = ("utf-8", "…") if encoding == "UTF8" else ("ascii", "...")
    clean = text.replace("\x00", "\\x00").encode(known, "backslashreplace").decode(known)
    return clean if len(clean) <= limit else clean[: limit - len(more)] + more


def printable(text: str, limit: int = 200) -> str:
    """``text`` on one line, control characters and lone surrogates escaped: no path can forge a log line."""
    clean = "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
        for character in text
    )
    return clean if len(clean) <= limit else clean[: limit - 1] + "…"


def size(count: int) -> str:
    """A number of bytes as people say it: ``12.3 MB``."""
    amount = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} TB"


def files(count: int) -> str:
    """``1 file``, ``1,200 files``."""
    return f"{count:,} file" if count == 1 else f"{count:,} files"


def span(seconds: float) -> str:
    """A time span in its two largest units: ``45 s``, ``3 min 20 s``, ``2 d 5 h``."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    for unit, small, big_name, small_name in (
        (86400, 3600, "d", "h"),
        (3600, 60, "h", "min"),
        (60, 1, "min", "s"),
    ):
        if whole >= unit:
            rest = whole % unit // small
            return f"{whole // unit} {big_name}" + (f" {rest} {small_name}" if rest else "")
    raise AssertionError(whole)


def one_line(error: BaseException, limit: int = 400) -> str:
    """What an error says, in one line."""
    return printable(" ".join(str(error).split()) or type(error).__name__, limit)
