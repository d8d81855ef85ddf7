"""Is a worker of this host at work? ``python -m pglapse.health`` answers by its exit code, for containers.

The database is asked, not the list of processes: a worker that lost its connection is still a process. It
needs the view that `lapse.grant_observer` gives.
"""

import math
import os
import socket
import sys

import psycopg

from pglapse import text
from pglapse.connect import connect

PATIENCE = 60.0  # seconds without a sign of life; workers give one every 15 s


def check(host: str, patience: float) -> tuple[bool, str]:
    """Whether a worker of ``host`` was seen within ``patience`` seconds, and one line about it."""
    try:
        with connect(autocommit=True, connect_timeout=5) as conn:
            row = conn.execute(
                "select extract(epoch from min(unseen_for))::double precision, lapse.halt_reason()"
                "  from lapse.worker_status where host = %s",
                [host],
            ).fetchone()
    except psycopg.Error as error:
        return False, f"can't ask the database: {text.printable(' '.join(str(error).split()))}"
    age = row[0] if row else None
    if row is None or age is None:
        return False, f"no worker of {host} is on the list"
    line = f"a worker of {host} was seen {text.span(max(age, 0.0))} ago"
    # A worker that waits for an operator is well: another start would not help it.
    return age <= patience, line if row[
        1
    ] is None else f"{line}; {text.printable(row[1])}: nothing is deleted"


def main() -> int:
    """Print the line; PGLAPSE_HEALTH_PATIENCE changes how many seconds may pass."""
    given = os.environ.get("PGLAPSE_HEALTH_PATIENCE") or str(PATIENCE)
    try:
        patience = float(given)
    except ValueError:
        patience = math.nan
    if not patience >= 0:  # nan as well
        print(f"PGLAPSE_HEALTH_PATIENCE must be a number of seconds, not {given!r}", file=sys.stderr)
        return 1
    healthy, line = check(text.storable(socket.gethostname()), patience)
    print(line)
    return 0 if healthy else 1


if __name__ == "__main__":
    sys.exit(main())
