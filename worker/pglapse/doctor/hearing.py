"""Does LISTEN deliver here, and does a pooler stand in between?

Tried as a worker tries it, by `pglapse.listening`: a notification of one connection has to arrive at another.
"""

from collections.abc import Iterator

from pglapse.deadline import Connection
from pglapse.doctor.finding import Finding, ok, warn
from pglapse.listening import POLL, Listening, is_pooled

DIRECT = (
    "give workers a way around the pooler, or pool_mode = session: DATABASE_URL=postgresql://host:5432/..."
)


def hearing(conn: Connection, deadline: float | None = None) -> Iterator[Finding]:
    """A round trip of a notification, and what it says about what stands in between."""
    if conn.execute("select pg_is_in_recovery()").fetchone() == (True,):
        yield ok("listen", "a standby delivers no notification; workers are connected to its primary")
        return
    pooled = is_pooled(conn)
    ear = Listening(deadline=deadline)
    ear.begin(conn)
    try:
        ear.look(conn)
    finally:
        conn.execute("unlisten *")  # behind a pooler the next may be somebody else
    if not ear.deaf:
        yield ok("listen", "a notification arrives: workers hear at once what is queued")
    else:
        yield warn(
            "listen",
            f"no notification arrives here: workers look into the queue every {POLL:g} s instead",
            DIRECT if pooled else "connect directly to the server: what stands in between swallows LISTEN",
        )
    if pooled and ear.deaf:
        yield warn(
            "pooler",
            "a pooler stands before the database and lends out connections by the transaction",
            DIRECT,
        )
    elif pooled:
        yield ok("pooler", "a pooler stands before the database and keeps sessions together")
    else:
        yield ok("pooler", "no pooler stands before the database")
