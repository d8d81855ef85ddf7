"""pg_cron in another database of the cluster: nothing in ours can see whether our jobs there are all right.

Where jobs are recorded elsewhere, that database is asked over a connection of its own, which may be somebody
else's to open: then it says so, and nothing is wrong.
"""

import re
from collections.abc import Iterator
from typing import Any

import psycopg

from pglapse import scheduling
from pglapse.connect import connect
from pglapse.deadline import Connection
from pglapse.doctor.finding import Finding, fail, ok, warn
from pglapse.scheduling import database, identifier
from pglapse.text import one_line, printable

CHECK = "cron_there"
LARGE = 256 * 1024 * 1024
FORGET = "select lapse.forget_cron_jobs(); -- they are the original's, of which this database is a copy"

JOBS = """
select j.jobid, j.jobname, j.schedule, j.command, j.database, j.username, j.active, j.nodeport,
       exists (select from pg_catalog.pg_roles as r where r.rolname = j.username),
       exists (select from pg_catalog.pg_database as d where d.datname = j.database)
  from cron.job as j
 order by j.jobid
"""

SAID = """
select distinct on (d.jobid) d.jobid, d.status, d.return_message
  from (select r.runid, r.jobid, r.status, r.return_message
          from cron.job_run_details as r order by r.runid desc limit 1000) as d
 where d.jobid = any (%s) and d.status in ('succeeded', 'failed')
 order by d.jobid, d.runid desc
"""

OF_A_POLICY = re.compile(r"(ERROR:\s+)?failed: ")
"""What a call of lapse.run_due says that did its work, and found policies that fail."""

SIZE = """
select pg_catalog.pg_total_relation_size(c.oid), greatest(c.reltuples, 0)::bigint
  from pg_catalog.pg_class as c join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
 where n.nspname = 'cron' and c.relname = 'job_run_details'
"""


def elsewhere(here: Connection, cron_dsn: str | None) -> Iterator[Finding]:
    """Look at our jobs in the database where pg_cron lives, if that is another."""
    recorded = {
        jobid: (name, schedule, command)
        for jobid, name, schedule, command, home in here.execute(
            "select c.jobid, c.jobname, c.schedule, c.command, c.cron_database"
            "  from lapse.recorded_cron_jobs() as c"
        )
        if home != here.info.dbname
    }
    homes = {home for (home,) in here.execute("select c.cron_database from lapse.recorded_cron_jobs() as c")}
    homes -= {here.info.dbname}
    if cron_dsn is None and not homes:
        return
    chosen = cron_dsn or psycopg.conninfo.make_conninfo(dbname=min(homes))
    try:
        there = connect(scheduling.beside(chosen), connect_timeout=5, autocommit=True)
    except psycopg.OperationalError as error:
        if cron_dsn is not None:
            yield fail(
                CHECK,
                f"can't reach the database where pg_cron lives: {one_line(error, 300)}",
                "mend --cron-dsn",
            )
        else:
            yield ok(
                CHECK, f"jobs in database {min(homes)} are not to be seen from here: {one_line(error, 200)}"
            )
        return
    with there:
        there.execute("set statement_timeout = '5s'")
        scheduling.require_same_server(here, there)
        if database(here) != database(there):
            yield from _there(here, there, recorded)


def _there(
    here: Connection, there: psycopg.Connection[Any], recorded: dict[int, tuple[str, str, str]]
) -> Iterator[Finding]:
    home, target = database(there), database(here)
    again = str(scheduling.one(here, "select lapse.cron_command('schedule', %s)", [home]))
    if scheduling.installed(there) is None:
        if recorded:
            yield fail(CHECK, f"jobs are recorded in database {home}, which has no pg_cron", again)
        else:
            yield warn(CHECK, f"pg_cron is not installed in database {home}", again)
        return
    if not scheduling.truth(there, "select has_schema_privilege('cron', 'usage')"):
        user = scheduling.text(there, "select current_user")
        yield ok(CHECK, f"role {user} may not look at pg_cron in database {home}")
        return
    troubles = [
        *_jobs(there, target, home, recorded, again),
        *_runs(there, home, recorded),
        *_history(there, home),
    ]
    yield from troubles
    if not troubles:
        seen = (
            ""
            if scheduling.truth(there, "select rolsuper from pg_roles where rolname = current_user")
            else "; of this role's"
        )
        yield ok(CHECK, f"{len(recorded)} jobs in database {home} keep this database's schedule{seen}")


def _jobs(
    there: psycopg.Connection[Any],
    target: str,
    home: str,
    recorded: dict[int, tuple[str, str, str]],
    again: str,
) -> Iterator[Finding]:
    port = int(scheduling.text(there, "select current_setting('port')"))
    everything = scheduling.truth(
        there, "select rolsuper or rolbypassrls from pg_roles where rolname = current_user"
    )
    seen = set()
    if not recorded:
        yield warn(CHECK, f"no job in database {home} is recorded for this one", again)
    for (
        jobid,
        name,
        schedule,
        command,
        runs_in,
        user,
        active,
        nodeport,
        has_role,
        has_database,
    ) in there.execute(JOBS):
        seen.add(jobid)
        label = f"job {printable(name or str(jobid))} in database {home}"
        drop = f"in database {identifier(there, home)}: select cron.unschedule({jobid});"
        if not has_role:
            yield fail(
                CHECK,
                f"{label} belongs to role {printable(user)}, which does not exist: pg_cron may crash over it",
                drop,
            )
        elif active and not has_database:
            yield warn(CHECK, f"{label} runs in database {printable(runs_in)}, which does not exist", drop)
        elif jobid in recorded:
            wanted = recorded[jobid]
            if not active:
                yield fail(CHECK, f"{label} is switched off", again)
            elif (name, schedule, command) != wanted:
                yield fail(CHECK, f"{label} is not as pglapse made it", again)
            elif runs_in not in (target, home):
                # What a dump brought along, or a job that somebody moved.
                copied = scheduling.former(wanted[0]) not in (None, target)
                yield fail(
                    CHECK,
                    f"{label} runs in database {printable(runs_in)}, not in {target}",
                    FORGET if copied else again,
                )
            elif nodeport != port:
                yield fail(CHECK, f"{label} goes to port {nodeport}, and the server listens on {port}", again)
        elif active and runs_in == target and "lapse.run_due" in command:
            yield warn(CHECK, f"{label} of role {printable(user)} calls lapse.run_due here, too", drop)
    for jobid in sorted(recorded.keys() - seen) if everything else ():
        yield fail(CHECK, f"job {printable(recorded[jobid][0])} is not in database {home} any more", again)


def _runs(
    there: psycopg.Connection[Any], home: str, recorded: dict[int, tuple[str, str, str]]
) -> Iterator[Finding]:
    """Jobs whose last run failed, but for a policy of ours: what can't connect is silent elsewhere."""
    for jobid, status, said in there.execute(SAID, [list(recorded)]):
        if status == "failed" and not OF_A_POLICY.match(said or ""):
            yield fail(
                CHECK,
                f"job {printable(recorded[jobid][0])} in database {home} fails: {printable(said or '?')}",
                "let pg_cron's own connections in (pg_hba.conf, .pgpass of the server's user), or set "
                "cron.use_background_workers = on, and restart PostgreSQL",
            )


def _history(there: psycopg.Connection[Any], home: str) -> Iterator[Finding]:
    row = there.execute(SIZE).fetchone()
    if row and row[0] > LARGE:
        yield warn(
            "cron_history_there",
            f"cron.job_run_details in database {home} has {row[0] / 1e6:,.0f} MB and about {row[1]:,} rows",
            f"in database {home}: "
            "delete from cron.job_run_details where end_time < now() - interval '7 days';",
        )
