"""What can go wrong, as people read it: one line, what to do next, and an exit code.

SQLSTATE class LP is the database's half of this interface; `BY_SQLSTATE` maps it, in one place. Any
other database error passes through untouched.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg


class PglapseError(Exception):
    """Something failed. The text is one clear line; ``hint`` says what to do about it."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None, detail: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint
        self.detail = detail


class SettingError(PglapseError):
    """A setting or an argument is wrong; nothing was started."""

    exit_code = 2


class SchemaError(PglapseError):
    """The database holds no pglapse, or not the one that this version works with."""


class HelperDied(PglapseError):
    """A thread of the worker ended by an error of its own."""


class InvalidArgument(SettingError):
    """LP001."""


class NotFound(SettingError):
    """LP002: no such policy, queue row or file source."""


class Duplicate(PglapseError):
    """LP003."""


class StepBrokeContract(PglapseError):
    """LP004: a step function answered something impossible."""


class PolicyPaused(PglapseError):
    """LP005."""


class RunFailed(PglapseError):
    """LP006: a policy's run failed; all is recorded in lapse.run_log."""


class CronUnavailable(PglapseError):
    """LP007: pg_cron is not here, or lives in another database."""


class QueueNotEmpty(PglapseError):
    """LP008: a downgrade would lose queued files."""


class CronJobsElsewhere(PglapseError):
    """LP009: cron jobs are recorded in a database that can't be reached from here."""


class NotAllowed(PglapseError):
    """LP010."""


class Unjudgeable(PglapseError):
    """LP013: it can't be told which files the database knows."""


class AnotherDatabases(PglapseError):
    """LP011: a storage's root belongs to another database."""


class NotAdopted(PglapseError):
    """LP014: nothing runs in this database, a copy of the one that pglapse works for, or a renamed one."""


class Braked(PglapseError):
    """LP015: more is due than a policy may take at once, and nobody has said that it may go."""


class NoSuchRow(SettingError):
    """LP016: no row has that key, or its table has none."""


class WrongIsolation(PglapseError):
    """LP012: files are exchanged at read committed only."""


class NoIndex(PglapseError):
    """LP030: the statement of a policy is not served by an index."""


class ExpiryRefused(SettingError):
    """LP020 to LP028: rows of this table can't, or may not, lapse in this way; nothing was made."""


class StillThere(PglapseError):
    """LP029: functions made for a declared policy belong to somebody else."""


BY_SQLSTATE: dict[str, type[PglapseError]] = {
    "LP001": InvalidArgument,
    "LP002": NotFound,
    "LP003": Duplicate,
    "LP004": StepBrokeContract,
    "LP005": PolicyPaused,
    "LP006": RunFailed,
    "LP007": CronUnavailable,
    "LP008": QueueNotEmpty,
    "LP009": CronJobsElsewhere,
    "LP010": NotAllowed,
    "LP011": AnotherDatabases,
    "LP012": WrongIsolation,
    "LP013": Unjudgeable,
    "LP030": NoIndex,
    "LP014": NotAdopted,
    "LP015": Braked,
    "LP016": NoSuchRow,
    **dict.fromkeys((f"LP{code:03}" for code in range(20, 29)), ExpiryRefused),
    "LP029": StillThere,
}


@contextmanager
def translated() -> Iterator[None]:
    """Raise our exception in place of a database error that is one of ours."""
    try:
        yield
    except psycopg.Error as error:
        known = BY_SQLSTATE.get(error.sqlstate or "")
        if known is None:
            raise
        said = error.diag
        raise known(
            said.message_primary or str(error), hint=said.message_hint, detail=said.message_detail
        ) from error
