"""Do this machine and the server agree on what time it is?

Workers compare times of files with times of rows: an upload looks old, or a guard fails, where they differ.
"""

import time
from collections.abc import Iterator

from pglapse.deadline import Connection
from pglapse.doctor.finding import Finding, fail, ok, warn

WARN, FAIL = 2.0, 60.0  # seconds
MEND = "timedatectl set-ntp true  # on the machine whose clock is wrong"


def clock(conn: Connection) -> Iterator[Finding]:
    """Compare the clocks, in the middle of the quickest of three round trips."""
    ahead, span = min((_asked(conn) for _ in range(3)), key=lambda asked: asked[1])
    if abs(ahead) <= WARN + span / 2:
        yield ok("client_clock", f"this machine and the server agree to {max(abs(ahead), span / 2):.2g} s")
        return
    said = f"this machine's clock is {abs(ahead):.1f} s {'ahead of' if ahead > 0 else 'behind'} the server's"
    yield (fail if abs(ahead) > FAIL else warn)("client_clock", said, MEND)


def _asked(conn: Connection) -> tuple[float, float]:
    """How far we are ahead, and how long the question took."""
    before = time.time()
    row = conn.execute("select extract(epoch from pg_catalog.clock_timestamp())::float8").fetchone()
    after = time.time()
    assert row is not None  # noqa: S101 (a function in the select list always answers one row)
    return (before + after) / 2 - row[0], after - before
