"""``pglapse schedule`` and ``pglapse unschedule``: hand the schedule to pg_cron and take it back.

A cluster has one pg_cron, in one database. Where that is the database of pglapse, `lapse.schedule` does all
of it. Where it is another, nothing in our database can reach it, and this module carries the plan of
`lapse.cron_plan` over. The order of the two commits matters: a job is recorded before it exists, and
forgotten after it is gone, so that a downgrade never leaves a job that it did not know of.
"""

import json
import re
from typing import Annotated, Any, LiteralString, NamedTuple

import psycopg
import typer
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from pglapse import schema
from pglapse.connect import connect, dsn
from pglapse.errors import CronJobsElsewhere, CronUnavailable, SettingError, translated

Connection = psycopg.Connection[Any]

TAKE_TURNS: LiteralString = "select pg_advisory_xact_lock(1818324340, 1)"
"""The lock under which `lapse.schedule` and `lapse.unschedule` work too."""

CronDsn = Annotated[
    str | None,
    typer.Option(
        "--cron-dsn",
        metavar="DSN",
        help="The database of this cluster where pg_cron lives (cron.database_name), if it is another one: "
        "dbname=postgres. What it leaves out is taken from DATABASE_URL.",
    ),
]


class Job(NamedTuple):
    """A job that pg_cron runs for us."""

    jobname: str
    schedule: str
    command: str
    in_cron_database: bool = False
    run_as: str | None = None


def schedule(cron_dsn: CronDsn = None) -> None:
    """Let pg_cron keep the schedule: two jobs that run whatever is due. May be repeated at any time."""
    with schema.opened(grant="") as here:
        if cron_dsn is None:
            jobs = schedule_here(here)
        else:
            with connect(beside(cron_dsn)) as there:
                require_same_server(here, there)
                if database(here) == database(there):
                    jobs = schedule_here(here)
                else:
                    jobs = schedule_there(here, there)
    width = max((len(job.jobname) for job in jobs), default=0)
    for job in jobs:
        typer.echo(f"{job.jobname:<{width}}  {job.schedule:<10}  {shortened(job.command)}")


def unschedule(cron_dsn: CronDsn = None) -> None:
    """Take the schedule away from pg_cron. Workers keep it then, unless they run with --tick never."""
    with schema.opened(grant="") as here:
        if cron_dsn is None:
            removed = unschedule_here(here)
        else:
            with connect(beside(cron_dsn)) as there:
                require_same_server(here, there)
                if database(here) == database(there):
                    removed = unschedule_here(here)
                else:
                    removed = unschedule_there(here, there)
    typer.echo("1 job removed" if removed == 1 else f"{removed} jobs removed")


def schedule_here(here: Connection) -> list[Job]:
    """Make the jobs in this database's own pg_cron."""
    with translated(), here.transaction():
        return [Job(*row) for row in here.execute("select jobname, schedule, command from lapse.schedule()")]


def unschedule_here(here: Connection) -> int:
    """Remove this database's own jobs; raises `CronJobsElsewhere` when others remain elsewhere."""
    with translated(), here.transaction():
        removed = number(here, "select lapse.unschedule()")
    elsewhere = here.execute(
        "select cron_database, lapse.cron_command('unschedule', cron_database)"
        "  from lapse.recorded_cron_jobs()"
    ).fetchone()
    if elsewhere:
        raise CronJobsElsewhere(
            f"jobs for this database remain in database {elsewhere[0]}", hint=f"Use: {elsewhere[1]}"
        )
    return removed


def schedule_there(here: Connection, there: Connection) -> list[Job]:
    """Make the jobs in the database of pg_cron, and record them here; all of it or nothing."""
    version = install(there)
    user = text(there, "select current_user")
    target = database(here)
    with translated(), here.transaction():
        here.execute(TAKE_TURNS)
        plan = [
            Job(*row)
            for row in here.execute(
                "select jobname, schedule, command, in_cron_database, run_as from lapse.cron_plan(%s, %s)",
                [version, user],
            )
        ]
        remove(here, there)
        made = [{**job._asdict(), "jobid": make(there, job, target)} for job in plan]
        here.execute("select lapse.record_cron_jobs(%s, %s)", [database(there), json.dumps(made)])
    there.commit()
    return plan


def unschedule_there(here: Connection, there: Connection) -> int:
    """Remove this database's jobs from the database of pg_cron, and forget them here."""
    with translated(), here.transaction():
        here.execute(TAKE_TURNS)
        removed = remove(here, there) if installed(there) else 0
        there.commit()
        here.execute("select lapse.forget_cron_jobs(%s)", [database(there)])
    return removed


def make(there: Connection, job: Job, target: str) -> int:
    """Make one job; raises `CronUnavailable` with pg_cron's own reason."""
    # A role is named only where it is another: naming one at all takes a superuser.
    sql: LiteralString = "select cron.schedule_in_database(%s, %s, %s, %s)"
    values: list[str] = [job.jobname, job.schedule, job.command]
    values.append(database(there) if job.in_cron_database else target)
    if job.run_as is not None:
        sql = "select cron.schedule_in_database(%s, %s, %s, %s, %s)"
        values.append(job.run_as)
    try:
        with there.transaction():  # a savepoint: what follows an error asks the server again
            return number(there, sql, values)
    except psycopg.errors.InsufficientPrivilege as error:
        signature = "cron.schedule_in_database(text, text, text, text, text, boolean)"
        user = identifier(there, text(there, "select current_user"))
        raise CronUnavailable(
            f"pg_cron refuses job {job.jobname}: {error.diag.message_primary}",
            hint=f"As a superuser, in database {database(there)}: "
            f"grant execute on function {signature} to {user};",
        ) from error
    except psycopg.Error as error:
        raise CronUnavailable(
            f"pg_cron refuses job {job.jobname}: {error.diag.message_primary or error}",
            detail=f"SQLSTATE {error.sqlstate}",
        ) from error


def remove(here: Connection, there: Connection) -> int:
    """Remove every job that keeps this database's schedule; returns how many. Leaves its transaction open."""
    target = database(here)
    home = database(there)
    ours = {name for (name,) in here.execute("select unnest(lapse.cron_job_names(true))")}
    recorded: dict[int, str] = dict(
        here.execute(
            "select jobid, jobname from lapse.recorded_cron_jobs() where cron_database = %s", [home]
        ).fetchall()
    )
    databases = {name for (name,) in there.execute("select datname from pg_database")}
    visible = there.execute("select jobid, jobname, database from cron.job order by jobid").fetchall()

    def is_ours(jobid: int, name: str | None, runs_in: str) -> bool:
        # One that was moved to another database by hand is still the one that was recorded.
        if name in ours and (runs_in in (target, home) or recorded.get(jobid) == name):
            return True
        # This database bore another name when the job was made, and nobody bears that one now.
        return name is not None and recorded.get(jobid) == name and former(name) not in {None, *databases}

    removed = 0
    for jobid, name, runs_in in visible:
        if is_ours(jobid, name, runs_in):
            there.execute("select cron.unschedule(%s::bigint)", [jobid])
            removed += 1
    # pg_cron shows a role its own jobs only; with DELETE on the table it would remove anybody's, unasked.
    if not truth(there, "select has_table_privilege('cron.job', 'delete')"):
        for jobid in sorted(recorded.keys() - {row[0] for row in visible}):
            removed += remove_unseen(there, jobid, recorded[jobid])
    return removed


def remove_unseen(there: Connection, jobid: int, name: str) -> int:
    """Remove a recorded job that this role can't see: 0 when it is gone already."""
    try:
        with there.transaction():
            there.execute("select cron.unschedule(%s::bigint)", [jobid])
    except psycopg.errors.InternalError_:  # "could not find valid entry for job"
        return 0
    except psycopg.errors.InsufficientPrivilege as error:
        raise CronUnavailable(
            f"job {name} (number {jobid}) in database {database(there)} belongs to another role",
            hint="Connect with --cron-dsn as that role or as a superuser, "
            f"or there: select cron.unschedule({jobid});",
        ) from error
    return 1


def former(jobname: str) -> str | None:
    """The database in a job's name; None where the name was shortened."""
    name = jobname.partition("@")[2]
    return None if not name or re.search(r"~[0-9a-f]{16}$", name) else name


def installed(there: Connection) -> str | None:
    """The version of pg_cron in this database, or None."""
    row = there.execute("select extversion from pg_extension where extname = 'pg_cron'").fetchone()
    return str(row[0]) if row else None


def install(there: Connection) -> str:
    """The version of pg_cron in its database, which this role may use; makes the extension where it may."""
    name = database(there)
    if installed(there) is None:
        try:
            with there.transaction():
                there.execute("create extension pg_cron")
        except psycopg.Error as error:
            user = identifier(there, text(there, "select current_user"))
            command = (
                f"As a superuser, in database {identifier(there, name)}: create extension pg_cron; "
                f"grant usage on schema cron to {user};"
            )
            if isinstance(error, psycopg.errors.InsufficientPrivilege):
                hint = f"{command} It goes into the database that cron.database_name names, and no other."
            else:
                hint = error.diag.message_hint or command
            raise CronUnavailable(
                f"pg_cron is not installed in database {name}, and can't be: {error.diag.message_primary}",
                hint=hint,
            ) from error
    if not truth(there, "select has_schema_privilege('cron', 'usage')"):
        user = text(there, "select current_user")
        raise CronUnavailable(
            f"role {user} may not use schema cron in database {name}",
            hint=f"As the owner of pg_cron, there: grant usage on schema cron to {identifier(there, user)};",
        )
    return installed(there) or ""


def require_same_server(here: Connection, there: Connection) -> None:
    """Refuse a cron database of another server: its pg_cron would run another database of the same name."""
    identity: LiteralString = "select system_identifier::text from pg_control_system()"
    if text(here, identity) != text(there, identity):
        raise SettingError(
            f"--cron-dsn names another server ({there.info.host}:{there.info.port}) than "
            f"DATABASE_URL ({here.info.host}:{here.info.port})",
            hint="Give the database of the same server that cron.database_name names: "
            "--cron-dsn dbname=postgres",
        )


def beside(cron_dsn: str) -> str:
    """``cron_dsn``, completed from our own connection string unless it names a server itself."""
    try:
        given = conninfo_to_dict(cron_dsn)
        if given.keys() & {"host", "hostaddr", "service"}:
            return cron_dsn
        return make_conninfo(dsn(), **given)
    except psycopg.ProgrammingError as error:
        raise SettingError(
            f"--cron-dsn is no connection string: {str(error).strip()}",
            hint="Use dbname=postgres or postgresql://user@host/postgres",
        ) from error


def database(connection: Connection) -> str:
    """The database that a connection is to."""
    return text(connection, "select current_database()")


def identifier(connection: Connection, name: str) -> str:
    """A name as it is written in SQL."""
    return str(one(connection, "select quote_ident(%s)", [name]))


def shortened(command: str, width: int = 60) -> str:
    """A command that fits on a line."""
    return command if len(command) <= width else command[: width - 1] + "…"


def text(connection: Connection, sql: LiteralString) -> str:
    """The one value of a query, as text."""
    return str(one(connection, sql))


def number(connection: Connection, sql: LiteralString, values: list[str] | None = None) -> int:
    """The one value of a query, as a number."""
    return int(one(connection, sql, values))


def truth(connection: Connection, sql: LiteralString) -> bool:
    """The one value of a query, as true or false."""
    return bool(one(connection, sql))


def one(connection: Connection, sql: LiteralString, values: list[str] | None = None) -> Any:
    row = connection.execute(sql, values).fetchone()
    assert row is not None  # noqa: S101 - every query here has exactly one row
    return row[0]
