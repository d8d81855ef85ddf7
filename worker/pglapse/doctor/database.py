"""What the database can see of itself: the checks of lapse.doctor(), each with a time limit of its own."""

from collections.abc import Iterator
from functools import partial

from pglapse.deadline import Connection
from pglapse.doctor.finding import Finding, Level
from pglapse.doctor.guarded import guarded

LIMIT = "10s"  # the longest that a check may take; it hides no other
AGAIN = "psql: select * from lapse.doctor('{}');"


def checks(conn: Connection) -> list[str]:
    """The names of the checks that this database knows."""
    return [
        name for (name,) in conn.execute("select c.name from lapse.doctor_checks() as c order by c.place")
    ]


def examined(conn: Connection) -> Iterator[Finding]:
    """All that the database finds; a check that takes too long says so, and the next is made."""
    for check in checks(conn):
        yield from guarded(check, partial(_look, conn, check), AGAIN.format(check))


def _look(conn: Connection, check: str) -> list[Finding]:
    """One check, in a transaction that can't write; its settings end with it, also behind a pooler."""
    with conn.transaction():
        conn.execute("set transaction read only")
        conn.execute(
            "select set_config('statement_timeout', %s, true), set_config('lock_timeout', '500ms', true)",
            [LIMIT],
        )
        rows = conn.execute(
            "select d.check_name, d.level, d.message, d.command from lapse.doctor(%s) as d order by d.place",
            [check],
        ).fetchall()
    return [Finding(name, _level(level), message, command) for name, level, message, command in rows]


def _level(said: str) -> Level:
    if said == "ok":
        return "ok"
    return "warn" if said == "warn" else "fail"


def missing(conn: Connection) -> str | None:
    """Why nothing of ours can be asked here: not installed, or older; None where all is there."""
    row = conn.execute(
        "select to_regnamespace('lapse') is not null,"
        "       exists (select from pg_catalog.pg_proc as p"
        "                where p.pronamespace = to_regnamespace('lapse') and p.proname = 'doctor')"
    ).fetchone()
    schema, doctor = row or (False, False)
    if not schema:
        return "pglapse is not installed in this database"
    return None if doctor else "pglapse in this database is older than this version: it has no lapse.doctor()"
