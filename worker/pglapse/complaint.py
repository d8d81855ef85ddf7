"""Say on standard error what failed, in one line."""

import sys

import psycopg

from pglapse.errors import PglapseError
from pglapse.text import printable


def complain(error: Exception) -> int:
    """Say what an error is about; returns the exit code that it means."""
    if isinstance(error, PglapseError):
        say(str(error), error.detail, error.hint)
        return error.exit_code
    if isinstance(error, psycopg.Error):
        said = error.diag
        say(f"the database: {said.message_primary or error}", said.message_detail, said.message_hint)
    else:
        say(f"an unexpected error: {type(error).__name__}: {error}", None, None)
    return 1


def say(message: str, detail: str | None, hint: str | None) -> None:
    """One line on standard error, whatever line ends the parts have."""
    line = " ".join(message.split())
    if detail:
        line += f" ({' '.join(detail.split())})"
    if hint:
        line += f" - {' '.join(hint.split())}"
    print(f"pglapse: {printable(line, 2000)}", file=sys.stderr)
