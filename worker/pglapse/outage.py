"""The database is away: keep trying, ever more slowly, and say so once a minute."""

import logging
import random
from time import monotonic

import psycopg

from pglapse import text

log = logging.getLogger(__name__)

FIRST_PAUSE = 0.1
LONGEST_PAUSE = 5.0
SAY_EVERY = 60.0


class Outage:
    """From the first failure to the next success."""

    def __init__(self, whose: str) -> None:
        self.whose = whose
        self.since: float | None = None
        self.failures = 0
        self.said_at = 0.0

    def noted(self, error: psycopg.Error) -> float:
        """Note a failure; return the seconds to wait before the next try, with jitter against stampedes."""
        now = monotonic()
        reason = text.one_line(error)
        if self.since is None:
            self.since = self.said_at = now
            log.warning("%s: can't work with the database: %s; trying again", self.whose, reason)
        elif now - self.said_at >= SAY_EVERY:
            self.said_at = now
            log.warning(
                "%s: still can't work with the database, for %s now: %s",
                self.whose,
                text.span(now - self.since),
                reason,
            )
        self.failures += 1
        longest: float = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(self.failures - 1, 10))
        return longest * random.uniform(0.5, 1)  # noqa: S311 (jitter, not a secret)

    def over(self) -> None:
        """Note a success."""
        if self.since is not None:
            log.info(
                "%s: the database is there again after %s", self.whose, text.span(monotonic() - self.since)
            )
        self.since = None
        self.failures = 0
