"""Run a check so that no error of its own hides what the others found."""

from collections.abc import Callable, Iterable

import psycopg

from pglapse import text
from pglapse.doctor.finding import Finding, fail, warn
from pglapse.errors import PglapseError
from pglapse.storage import Away


def guarded(
    check: str,
    look: Callable[[], Iterable[Finding]],
    again: str = "pglapse doctor",
    denied: str | None = None,
) -> list[Finding]:
    """What a check finds, or in its place that it could not be made.

    ``again`` is what to type then, ``denied`` what to type where it is for want of a right, if that is
    something else.
    """
    try:
        return list(look())
    except PglapseError as error:
        said = f"{error}" + (f" ({error.detail})" if error.detail else "")
        return [fail(check, " ".join(said.split()), error.hint or again)]
    except Away as away:
        return [fail(check, away.reason, again)]
    except psycopg.errors.InsufficientPrivilege as error:
        return [warn(check, f"not to be seen by this role: {error.diag.message_primary}", denied or again)]
    except psycopg.Error as error:
        return [warn(check, f"could not be looked at: {text.one_line(error, 300)}", again)]
    except Exception as error:
        said = f"{type(error).__name__}: {text.one_line(error, 300)}"
        return [warn(check, f"could not be looked at: {said}", again)]
