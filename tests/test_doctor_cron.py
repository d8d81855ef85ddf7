"""The doctor where pg_cron is: its jobs, its history and its modes, in this database and in another."""

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from pglapse import deadline, scheduling
from pglapse.deadline import Patience
from pglapse.doctor import cron
from pglapse.doctor.finding import Finding
from tests.support import databases, shed
from tests.support.cron import installed_at_home, jobs, version
from tests.test_doctor_sql import level, mend, role, said, trouble

pytestmark = pytest.mark.cron


@pytest.fixture(scope="module")
def installed(server: str) -> Iterator[str]:
    with installed_at_home(server) as home:
        yield home


@pytest.fixture
def home(installed: str) -> Iterator[psycopg.Connection[Any]]:
    """pg_cron's database, with jobs of pglapse; they are gone afterwards."""
    with psycopg.connect(installed, autocommit=True, options="-c search_path=") as connection:
        connection.execute("select lapse.schedule()")
        connection.execute("call lapse.run_due('pg_cron')")
        yield connection
        connection.execute("delete from lapse.cron_job")
        connection.execute("select cron.unschedule(jobid) from cron.job where jobname ~ '^(lapse|test)-'")


def test_where_jobs_are_as_they_should_be_all_is_well(home):
    checks = ["pg_cron", "cron_mode", "cron_jobs", "cron_history", "schedule"]
    levels = {check: level(home, check) for check in checks}

    old = version(home) < (1, 5)
    background = shed.one(home, "select current_setting('cron.use_background_workers', true)") == "on"
    assert levels == {
        check: "warn" if check == "cron_mode" and old and background else "ok" for check in checks
    }
    assert said(home, "cron_jobs")[0][1].startswith("2 of our jobs")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("active = false", "switched off"),
        ("schedule = '0 5 * * *'", "its schedule is 0 5"),
        ("command = 'select 1'", "its command is another"),
        ("database = 'template1'", "runs in database template1"),
        ("nodeport = 1", "goes to port 1"),
    ],
)
def test_a_job_that_was_altered_is_found_and_made_afresh(home, change, words):
    home.execute(f"update cron.job set {change} where jobname = 'lapse-1'")

    mend(home, trouble(home, "cron_jobs", f"job lapse-1 is not as it should be: .*{words}"))

    assert level(home, "cron_jobs") == "ok"


def test_a_job_that_is_gone_is_found_and_made_afresh(home):
    home.execute("select cron.unschedule(jobid) from cron.job where jobname = 'lapse-2'")

    mend(home, trouble(home, "cron_jobs", "job lapse-2 is not as it should be: it is not there"))

    assert [row[0] for row in jobs(home)] == ["lapse-1", "lapse-2"]


def test_a_job_of_a_role_that_is_gone_is_found_and_removed(home):
    with role(home, "login") as gone:
        home.execute(
            "insert into cron.job (jobname, schedule, command, database, username, nodename, nodeport)"
            " values ('test-orphan', '0 5 31 12 *', 'select 1', current_database(), %s, 'localhost', 1)",
            [gone],
        )

    mend(home, trouble(home, "cron_jobs", f"belongs to role {gone}, which does not exist"))

    assert level(home, "cron_jobs") == "ok"


def test_a_job_of_a_database_that_is_gone_is_a_warning(home):
    home.execute(
        "insert into cron.job (jobname, schedule, command, database, username, nodename, nodeport)"
        " values ('test-lost', '0 5 31 12 *', 'select 1', 'no such database', current_user, 'localhost', 1)"
    )

    mend(home, trouble(home, "cron_jobs", "runs in database no such database, which does not exist", "warn"))

    assert level(home, "cron_jobs") == "ok"


@pytest.mark.parametrize("name", ["lapse-1", "test-restored"])
def test_a_job_that_came_with_a_restored_dump_is_found_and_removed(home, name):
    with role(home, "login") as former:
        home.execute(
            "insert into cron.job (jobname, schedule, command, database, username, nodename, nodeport)"
            " values (%s, '0 5 31 12 *', 'call lapse.run_due()', current_database(), %s, 'localhost', 1)",
            [name, former],
        )
        mend(home, trouble(home, "cron_jobs", f"of role {former} calls lapse.run_due here, too", "warn"))
        assert level(home, "cron_jobs") == "ok"
    assert len(jobs(home)) == 2


def test_a_history_that_grows_is_a_warning_and_whose_it_is_is_told(home):
    body = shed.one(
        home, "select prosrc from pg_proc where oid = 'lapse.doctor_cron_history(timestamptz)'::regprocedure"
    )
    with home.transaction(force_rollback=True):
        home.execute("delete from cron.job_run_details")
        home.execute(
            "insert into cron.job_run_details"
            " (jobid, runid, database, username, command, status, start_time, end_time)"
            " select 1, -n, current_database(), current_user,"
            "        case when n <= 3 then 'call lapse.run_due()' else 'select 1' end, 'succeeded',"
            "        now() - interval '90 days', now() - interval '90 days' from generate_series(1, 10) as n"
        )
        assert "of the newest 10, 7 are not ours" in said(home, "cron_history")[0][1]
        home.execute(
            "create or replace function lapse.doctor_cron_history(p_now timestamptz)"
            " returns table (level text, message text, command text) language plpgsql stable"
            " set search_path = pg_catalog, pg_temp as $body$"
            + body.replace("256 * 1024 * 1024", "1024")
            + "$body$"
        )
        mend(home, trouble(home, "cron_history", "which pg_cron never removes", "warn"))
        assert shed.one(home, "select count(*) from cron.job_run_details") == 0
        home.execute("select lapse.pause('prune_cron_details')")
        mend(home, trouble(home, "cron_history", "prune_cron_details is paused", "warn"))


def test_without_a_tick_the_jobs_are_made_anew_or_the_server_is_to_be_restarted(home):
    home.execute("update lapse.cron_job set scheduled_at = now() - interval '1 day'")
    home.execute("update lapse.tick_source set last_tick_at = now() - interval '1 hour'")

    command = trouble(home, "schedule", "nobody keeps the schedule: .*60 min ago|1 h ago")

    assert command == "select * from lapse.schedule();"


def test_what_pg_cron_says_of_a_job_that_can_not_connect_is_passed_on(home):
    with home.transaction(force_rollback=True):
        home.execute("update lapse.cron_job set scheduled_at = now() - interval '1 day'")
        home.execute("update lapse.tick_source set last_tick_at = now() - interval '1 hour'")
        home.execute(
            "insert into cron.job_run_details"
            " (jobid, runid, database, username, command, status, return_message)"
            " select c.jobid, 1000000 + c.jobid, 'x', 'x', 'x', 'failed', 'connection failed'"
            "   from lapse.cron_job as c"
        )
        command = trouble(home, "schedule", "nobody keeps the schedule: .*; pg_cron says: connection failed")

    assert "pg_hba.conf" in command


def test_an_owner_who_is_no_superuser_is_told_what_he_can_not_see(home):
    """As the engine's owner would find it: under row security, and without the right to see settings."""
    with role(home, "login") as owner, home.transaction(force_rollback=True):
        home.execute(
            f"grant usage on schema cron, lapse to {owner}; grant select on lapse.cron_job to {owner}"
        )
        home.execute(f"grant execute on all functions in schema lapse to {owner}")
        home.execute(f"set local role {owner}")
        lines = home.execute("select level, message from lapse.doctor_cron_jobs(now())").fetchall()
        mode = home.execute("select level, message from lapse.doctor_cron_mode(now())").fetchall()

    assert "other roles' are not to be seen" in lines[-1][1]
    assert mode[0][0] == "ok"


# ---- pg_cron in another database ---------------------------------------------------------------------


@pytest.fixture
def elsewhere(dsn: str, installed: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[deadline.Connection]:
    """Another database, scheduled from pg_cron's, as the command connects to it."""
    monkeypatch.setenv("DATABASE_URL", dsn)
    with deadline.connect(Patience(20)) as connection:
        yield connection
    with psycopg.connect(installed, autocommit=True) as admin:
        admin.execute("select cron.unschedule(jobid) from cron.job where jobname ~ '^(lapse-.*@|test-)'")


def found(here: deadline.Connection, dsn: str | None = None) -> list[Finding]:
    return list(cron.elsewhere(here, dsn))


def test_jobs_in_another_database_are_looked_at_there_without_being_told_where(elsewhere, home):
    assert found(elsewhere) == []
    scheduling.schedule(f"dbname={home.info.dbname}")

    [line] = found(elsewhere)

    assert (line.level, line.message) == (
        "ok",
        f"3 jobs in database {home.info.dbname} keep this database's schedule",
    )
    assert level(elsewhere, "pg_cron") == "ok"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("active = false", "is switched off"),
        ("schedule = '0 5 * * *'", "is not as pglapse made it"),
        ("database = 'template1'", "runs in database template1"),
        ("nodeport = 1", "goes to port 1"),
        ("username = 'nobody of that name'", "belongs to role nobody of that name"),
    ],
)
def test_a_job_there_that_was_altered_is_found_and_made_afresh(elsewhere, home, change, words):
    scheduling.schedule(f"dbname={home.info.dbname}")
    home.execute(f"update cron.job set {change} where jobname like 'lapse-1@%%'", [])

    [line] = found(elsewhere)

    assert (line.level, words in line.message) == ("fail", True), line
    if line.command == f"pglapse schedule --cron-dsn dbname={home.info.dbname}":
        scheduling.schedule(f"dbname={home.info.dbname}")
    else:
        mend(home, (line.command or "").partition(": ")[2])
        assert "is not in database" in found(elsewhere)[0].message
        scheduling.schedule(f"dbname={home.info.dbname}")
    assert [one.level for one in found(elsewhere)] == ["ok"]


@pytest.mark.parametrize(
    ("said", "level"), [("connection failed", "fail"), ("ERROR:  failed: expire_coupons", "ok")]
)
def test_a_job_there_that_can_not_connect_is_a_failure_and_one_that_met_a_failing_policy_is_none(
    elsewhere, home, said, level
):
    scheduling.schedule(f"dbname={home.info.dbname}")
    home.execute(
        "insert into cron.job_run_details (jobid, runid, database, username, command, status, return_message)"
        " select c.jobid, 1000000 + c.jobid, 'x', 'x', 'x', 'failed', %s from cron.job as c"
        "  where c.jobname like 'lapse-1@%%'",
        [said],
    )
    try:
        [line] = found(elsewhere)
    finally:
        home.execute("delete from cron.job_run_details where runid > 1000000")

    assert line.level == level, line
    assert level == "ok" or "connection failed" in line.message


def test_a_cron_database_without_our_jobs_says_what_to_type(elsewhere, home):
    [line] = found(elsewhere, f"dbname={home.info.dbname}")

    assert (line.level, line.command) == ("warn", f"pglapse schedule --cron-dsn dbname={home.info.dbname}")


def test_a_copy_whose_jobs_are_the_originals_is_told_so(elsewhere, home, server, monkeypatch):
    """A restored dump brings what was recorded along: those jobs run in the original, and not here."""
    scheduling.schedule(f"dbname={home.info.dbname}")
    original = elsewhere.info.dbname
    elsewhere.close()

    with databases.database(server, original) as copy:
        monkeypatch.setenv("DATABASE_URL", copy)
        with deadline.connect(Patience(20)) as here:
            lines = found(here)
            mend(here, lines[0].command or "")
            assert found(here) == []

    assert {line.level for line in lines} == {"fail"}
    assert all(f"runs in database {original}" in line.message for line in lines)


def test_a_cron_database_that_can_not_be_reached_is_no_failure_unless_it_was_named(elsewhere, home):
    elsewhere.execute(
        'select lapse.record_cron_jobs(\'no such database\', \'[{"jobname": "lapse-1", "jobid": 5,'
        ' "schedule": "* * * * *", "command": "x"}]\')'
    )

    assert [line.level for line in found(elsewhere)] == ["ok"]
    assert [line.level for line in found(elsewhere, make_conninfo(dbname="no such database"))] == ["fail"]
