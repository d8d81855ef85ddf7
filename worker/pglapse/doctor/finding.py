"""One line of a report: what was looked at, how it is, and what to do."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warn", "fail"]

EXIT_CODES: dict[Level, int] = {"ok": 0, "warn": 1, "fail": 2}


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found. ``command`` mends it; None where nothing is wrong."""

    check: str
    level: Level
    message: str
    command: str | None = None


def ok(check: str, message: str) -> Finding:
    """All is well."""
    return Finding(check, "ok", message)


def warn(check: str, message: str, command: str) -> Finding:
    """It works, and something is not as it should be."""
    return Finding(check, "warn", message, command)


def fail(check: str, message: str, command: str) -> Finding:
    """Something does not work."""
    return Finding(check, "fail", message, command)


def exit_code(findings: Iterable[Finding]) -> int:
    """0 where all is well, 1 with a warning, 2 with a failure."""
    return max((EXIT_CODES[one.level] for one in findings), default=0)
