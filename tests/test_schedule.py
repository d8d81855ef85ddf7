"""Scheduling with pg_cron: which jobs are made, by whom and where, and that all of them go again.

Nothing here waits for a job to run; tests/test_cron.py does.
"""

import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from pglapse import cluster, scheduling
from pglapse.errors import CronJobsElsewhere, CronUnavailable, SettingError
from tests.conftest import on
from tests.support import databases
from tests.support.cron import installed_at_home, jobs, wanted
from tests.support.install import ROOT, alembic

ROLE = "pglapse_test_plain"


def value(connection: psycopg.Connection, query: str, *parameters: Any) -> Any:
    row = connection.execute(query, parameters).fetchone()
    assert row is not None
    return row[0]


def refused(connection: psycopg.Connection, query: str, *parameters: Any) -> psycopg.Error:
    with pytest.raises(psycopg.Error) as caught, connection.transaction():
        connection.execute(query, parameters)
    return caught.value


# ---- what needs no pg_cron -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "seconds"),
    [
        ("1.4-1", False),
        ("1.4", False),
        ("1.5", True),
        ("1.6", True),
        ("1.10", True),
        ("2.0", True),
        ("0.9", False),
        ("vendor_1.6", False),
        ("", False),
        (None, False),
    ],
)
def test_versions_of_pg_cron_are_compared_as_numbers(conn, version, seconds):
    assert value(conn, "select lapse.cron_knows_seconds(%s)", version) is seconds


def test_a_database_that_pg_cron_does_not_serve_says_what_to_type_next(conn):
    home = value(conn, "select current_setting('cron.database_name', true)")

    error = refused(conn, "select lapse.schedule()")

    assert error.sqlstate == "LP007"
    hint = error.diag.message_hint or ""
    if home:
        assert hint == f"pglapse schedule --cron-dsn dbname={home}"
    else:
        assert "not loaded" in str(error)
        assert "apt-get install postgresql-" in hint or "shared_preload_libraries" in hint
    assert value(conn, "select count(*) from lapse.cron_job") == 0


def test_unscheduling_where_nothing_is_scheduled_removes_nothing(conn):
    assert value(conn, "select lapse.unschedule()") == 0


@pytest.mark.parametrize(
    ("database", "command"),
    [
        ("postgres", "pglapse schedule --cron-dsn dbname=postgres"),
        ("my db", """pglapse schedule --cron-dsn "dbname='my db'\""""),
        ("o'clock", """pglapse schedule --cron-dsn "dbname='o\\'clock'\""""),
    ],
)
def test_the_hinted_command_quotes_the_database(conn, database, command):
    assert value(conn, "select lapse.cron_command('schedule', %s)", database) == command


def test_names_of_jobs_elsewhere_fit_pg_cron_and_differ_between_databases(server, template):
    first, second = "pglapse_test_" + "x" * 49 + "a", "pglapse_test_" + "x" * 49 + "b"
    names = []

    with psycopg.connect(server, autocommit=True) as admin:
        for name in (first, second):
            identifier = sql.Identifier(name)
            admin.execute(sql.SQL("drop database if exists {}").format(identifier))
            admin.execute(
                sql.SQL("create database {} template {}").format(identifier, sql.Identifier(template))
            )
            try:
                with psycopg.connect(on(server, name)) as long:
                    names += value(long, "select lapse.cron_job_names(true)")
            finally:
                admin.execute(sql.SQL("drop database {} with (force)").format(identifier))

    assert len({name.encode()[:63] for name in names}) == 6
    assert max(len(name.encode()) for name in names) <= 63


def test_names_of_jobs_elsewhere_name_the_database(conn):
    database = value(conn, "select current_database()")

    assert value(conn, "select lapse.cron_job_names(true)") == [
        f"lapse-1@{database}",
        f"lapse-2@{database}",
        f"lapse-prune@{database}",
    ]


JOB = {"jobname": "lapse-1", "jobid": 5, "schedule": "* * * * *", "command": "select 1"}


@pytest.mark.parametrize(
    ("database", "recorded"),
    [
        (None, "[]"),
        ("", "[]"),
        ("postgres", None),
        ("postgres", "{}"),
        ("postgres", "[1]"),
        ("postgres", json.dumps([{**JOB, "jobid": None}])),
        ("postgres", json.dumps([{**JOB, "jobid": "five"}])),
        ("postgres", json.dumps([{**JOB, "jobname": ""}])),
        ("postgres", json.dumps([{"jobname": "lapse-1", "jobid": 5}])),
    ],
)
def test_recording_what_is_no_job_is_refused_and_changes_nothing(conn, database, recorded):
    conn.execute("select lapse.record_cron_jobs('elsewhere', %s)", [json.dumps([JOB])])

    error = refused(conn, "select lapse.record_cron_jobs(%s, %s)", database, recorded)

    assert error.sqlstate == "LP001"
    assert error.diag.message_hint
    assert value(conn, "select cron_database from lapse.cron_job") == "elsewhere"


def test_recorded_jobs_replace_those_before_and_can_be_forgotten(conn):
    conn.execute("select lapse.record_cron_jobs('elsewhere', %s)", [json.dumps([JOB])])
    conn.execute(
        "select lapse.record_cron_jobs('other', %s)", [json.dumps([JOB, {**JOB, "jobname": "lapse-2"}])]
    )
    assert conn.execute("select distinct cron_database from lapse.recorded_cron_jobs()").fetchall() == [
        ("other",)
    ]

    assert value(conn, "select lapse.forget_cron_jobs('elsewhere')") == 0
    assert value(conn, "select lapse.forget_cron_jobs()") == 2


def test_a_downgrade_refuses_while_jobs_elsewhere_are_recorded_and_names_the_command(conn, dsn):
    conn.execute("select lapse.record_cron_jobs('my_cron', %s)", [json.dumps([JOB])])

    done = alembic(dsn, "downgrade", "base", check=False)

    assert done.returncode != 0
    assert "pglapse unschedule --cron-dsn dbname=my_cron" in done.stdout + done.stderr
    assert value(conn, "select count(*) from lapse.cron_job") == 1


def test_pruning_run_details_does_nothing_where_pg_cron_is_not(conn):
    if value(conn, "select to_regclass('cron.job_run_details')") is not None:
        pytest.skip("pg_cron is in the tests' own databases here")

    assert value(conn, "select lapse.prune_cron_details(10, now(), '-infinity')") == "(0,0,-infinity)"


def test_pruning_run_details_is_a_daily_policy(conn):
    row = conn.execute(
        "select step, every::text, at_time::text, enabled from lapse.policy where name = 'prune_cron_details'"
    ).fetchone()

    assert row == ("lapse.prune_cron_details", "1 day", "03:50:00", True)


# ---- in pg_cron's own database ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def installed(server) -> Iterator[str]:
    with installed_at_home(server) as home:
        yield home


@pytest.fixture
def home(installed) -> Iterator[psycopg.Connection]:
    """A connection to pg_cron's database, where pglapse is installed and not scheduled."""
    with psycopg.connect(installed, autocommit=True, options="-c search_path=") as connection:
        yield connection
    with psycopg.connect(installed, autocommit=True) as admin:
        admin.execute("delete from lapse.cron_job")
        admin.execute(
            "select cron.unschedule(jobid) from cron.job"
            " where jobname like 'lapse-%' or jobname like 'test-%'"
        )


@pytest.fixture
def plain(installed) -> Iterator[str]:
    """A role that may log in and nothing else."""
    with psycopg.connect(installed, autocommit=True) as admin:
        forget_role(admin)
        admin.execute(f"create role {ROLE} login")
        yield ROLE
        forget_role(admin)


def forget_role(admin: psycopg.Connection) -> None:
    if admin.execute("select 1 from pg_roles where rolname = %s", [ROLE]).fetchone():
        admin.execute("select cron.unschedule(jobid) from cron.job where username = %s", [ROLE])
        admin.execute(f"drop owned by {ROLE}")
        admin.execute(f"drop role {ROLE}")


def recorded(connection: psycopg.Connection) -> list[tuple[str, int]]:
    return connection.execute("select jobname, jobid from lapse.cron_job order by 1").fetchall()


def ids(connection: psycopg.Connection) -> list[tuple[str, int]]:
    return connection.execute(
        "select jobname::text, jobid from cron.job where jobname like 'lapse-%' order by 1"
    ).fetchall()


def hand_over(connection: psycopg.Connection, role: str) -> None:
    """Make ``role`` the engine's owner, as far as scheduling goes; inside a transaction to be rolled back."""
    connection.execute(f"alter schema lapse owner to {role}")
    connection.execute(f"grant all on all tables in schema lapse to {role}")
    for (routine,) in connection.execute(
        "select oid::regprocedure::text from pg_proc where pronamespace = 'lapse'::regnamespace"
        " and proname ~ 'cron|schedule'"
    ).fetchall():
        connection.execute(f"grant execute on function {routine} to {role}")
        connection.execute(f"alter function {routine} owner to {role}")


@pytest.mark.cron
def test_schedule_makes_and_records_two_jobs_of_one_call_each(home):
    schedule, command = wanted(home)
    me, database = home.info.user, home.info.dbname

    answer = home.execute("select jobname, schedule, command from lapse.schedule()").fetchall()

    assert answer == [("lapse-1", schedule, command), ("lapse-2", schedule, command)]
    assert jobs(home) == [(name, schedule, command, database, me) for name in ("lapse-1", "lapse-2")]
    assert recorded(home) == ids(home)
    assert value(home, "select distinct cron_database from lapse.cron_job") == database


@pytest.mark.cron
def test_scheduling_again_leaves_the_same_jobs(home):
    home.execute("select lapse.schedule()")
    before = ids(home)

    home.execute("select lapse.schedule()")

    assert ids(home) == before
    assert recorded(home) == before


@pytest.mark.cron
def test_scheduling_from_another_role_leaves_one_set_that_runs_as_the_owner(home, plain):
    home.execute("select lapse.schedule()")
    before = jobs(home)

    with home.transaction(force_rollback=True):
        home.execute(f"grant usage on schema lapse to {plain}")
        home.execute(
            "grant execute on function lapse.schedule(), lapse.schedule_here(), lapse.cron_setting(text)"
            f" to {plain}"
        )
        home.execute(f"set local role {plain}")
        home.execute("select lapse.schedule()")
        home.execute("reset role")

        assert jobs(home) == before


@pytest.mark.cron
def test_two_callers_at_once_leave_one_set(home, installed):
    with psycopg.connect(installed) as first, psycopg.connect(installed) as second:
        first.execute("select lapse.schedule()")
        second.execute("set lock_timeout = '300ms'")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            second.execute("select lapse.schedule()")
        first.commit()
        second.rollback()
        second.execute("select lapse.schedule()")

    assert [name for name, _ in ids(home)] == ["lapse-1", "lapse-2"]


@pytest.mark.cron
@pytest.mark.parametrize(
    "change",
    [
        "active = false",
        "schedule = '0 5 * * *'",
        "command = 'select 1'",
        "nodeport = 1",
        "database = 'template1'",
    ],
)
def test_a_job_that_was_altered_is_made_afresh(home, change):
    home.execute("select lapse.schedule()")
    home.execute(f"update cron.job set {change} where jobname = 'lapse-1'")

    home.execute("select lapse.schedule()")

    schedule, command = wanted(home)
    assert [row[:3] for row in jobs(home)] == [(f"lapse-{n}", schedule, command) for n in (1, 2)]
    assert (
        value(home, "select bool_and(active and nodeport = current_setting('port')::integer) from cron.job")
        is True
    )
    assert recorded(home) == ids(home)


@pytest.mark.cron
def test_a_former_owners_jobs_are_replaced(home, plain):
    _, command = wanted(home)
    home.execute(
        "insert into cron.job (jobname, schedule, command, database, username, nodename, nodeport)"
        " values ('lapse-1', '* * * * *', %s, current_database(), %s, 'localhost', 1)",
        [command, plain],
    )

    home.execute("select lapse.schedule()")

    assert {row[4] for row in jobs(home)} == {home.info.user}
    assert len(jobs(home)) == 2


@pytest.mark.cron
def test_unschedule_removes_ours_and_nobody_elses(home):
    home.execute("select lapse.schedule()")
    home.execute("select cron.schedule('test-other', '0 5 31 12 *', 'select 1')")
    home.execute(
        "select cron.schedule_in_database('lapse-1@elsewhere', '0 5 31 12 *', 'select 1', current_database())"
    )

    assert value(home, "select lapse.unschedule()") == 2

    assert [row[0] for row in jobs(home)] == ["lapse-1@elsewhere"]
    assert value(home, "select count(*) from cron.job where jobname = 'test-other'") == 1
    assert recorded(home) == []
    assert value(home, "select lapse.unschedule()") == 0


@pytest.mark.cron
def test_a_job_removed_by_hand_does_not_stop_unscheduling(home):
    home.execute("select lapse.schedule()")
    home.execute("select cron.unschedule(jobid) from cron.job where jobname = 'lapse-2'")

    assert value(home, "select lapse.unschedule()") == 1
    assert recorded(home) == []


@pytest.mark.cron
def test_a_number_that_now_is_a_strangers_job_is_left_alone(home):
    stranger = value(home, "select cron.schedule('test-stranger', '0 5 31 12 *', 'select 1')")
    home.execute(
        "select lapse.record_cron_jobs(current_database(), %s)", [json.dumps([{**JOB, "jobid": stranger}])]
    )

    assert value(home, "select lapse.unschedule()") == 0

    assert value(home, "select count(*) from cron.job where jobid = %s", stranger) == 1


@pytest.mark.cron
def test_an_owner_who_is_no_superuser_schedules_and_unschedules(home, plain):
    with home.transaction(force_rollback=True):
        hand_over(home, plain)
        home.execute(f"grant usage on schema cron to {plain}")
        home.execute(f"set local role {plain}")

        home.execute("select lapse.schedule()")
        home.execute("select lapse.schedule()")
        home.execute("reset role")
        assert [(row[0], row[4]) for row in jobs(home)] == [("lapse-1", plain), ("lapse-2", plain)]

        home.execute(f"set local role {plain}")
        assert value(home, "select lapse.unschedule()") == 2
        home.execute("reset role")
        assert jobs(home) == []


@pytest.mark.cron
def test_an_owner_whom_pg_cron_does_not_let_in_is_told_which_grant_is_missing(home, plain):
    with home.transaction(force_rollback=True):
        hand_over(home, plain)

        error = refused(home, "select lapse.schedule()")

    assert error.sqlstate == "LP007"
    hint = error.diag.message_hint or ""
    assert hint.endswith(f"grant usage on schema cron to {plain};")


@pytest.mark.cron
def test_an_owner_who_may_not_log_in_is_told_so(home, plain):
    with home.transaction(force_rollback=True):
        hand_over(home, plain)
        home.execute(f"grant usage on schema cron to {plain}")
        home.execute(f"alter role {plain} nologin")

        error = refused(home, "select lapse.schedule()")

    assert (error.sqlstate, error.diag.message_hint) == (
        "LP007",
        f"As a superuser: alter role {plain} login;",
    )


@pytest.mark.cron
def test_a_job_that_went_to_another_role_is_named_with_what_to_do(home, plain):
    """The engine got another owner, who can neither see nor remove the former one's jobs."""
    home.execute("select lapse.schedule()")
    numbers = [number for _, number in ids(home)]

    with home.transaction(force_rollback=True):
        hand_over(home, plain)
        home.execute(f"grant usage on schema cron to {plain}")
        home.execute(f"set local role {plain}")
        error = refused(home, "select lapse.schedule()")

    assert error.sqlstate == "LP007"
    assert f"select cron.unschedule({numbers[0]})" in (error.diag.message_hint or "")
    assert [number for _, number in ids(home)] == numbers


@pytest.mark.cron
def test_schedule_makes_the_extension_where_the_caller_may_and_lets_the_owner_in(home, plain):
    with home.transaction(force_rollback=True):
        home.execute("drop extension pg_cron")
        hand_over(home, plain)

        home.execute("select lapse.schedule()")

        assert [(row[0], row[4]) for row in jobs(home)] == [("lapse-1", plain), ("lapse-2", plain)]


@pytest.mark.cron
def test_a_caller_who_may_not_make_the_extension_is_told_who_may_and_how(home, plain):
    with home.transaction(force_rollback=True):
        home.execute("drop extension pg_cron")
        hand_over(home, plain)
        home.execute(f"set local role {plain}")

        error = refused(home, "select lapse.schedule()")

    assert error.sqlstate == "LP007"
    assert "create extension pg_cron;" in (error.diag.message_hint or "")
    assert value(home, "select count(*) from pg_extension where extname = 'pg_cron'") == 1


@pytest.mark.cron
def test_an_error_of_pg_cron_itself_keeps_its_words(home, plain):
    with home.transaction(force_rollback=True):
        hand_over(home, plain)
        home.execute(f"grant usage on schema cron to {plain}")
        home.execute("revoke execute on function cron.schedule(text, text, text) from public")

        error = refused(home, "select lapse.schedule()")

    assert error.sqlstate == "LP007"
    assert "42501" in (error.diag.message_detail or "")


# ---- run details -----------------------------------------------------------------------------------


def details(connection: psycopg.Connection, *rows: tuple[Any, ...]) -> None:
    """Add entries: (number, job, database, role, command, status, age of its end in days or None)."""
    for number, job, database, role, command, status, age in rows:
        connection.execute(
            "insert into cron.job_run_details"
            " (runid, jobid, database, username, command, status, start_time, end_time)"
            " values (%s, %s, %s, %s, %s, %s, now() - %s * interval '1 day', now() - %s * interval '1 day')",
            [-1000 + number, job, database, role, command, status, age, age],
        )


TICK = "call lapse.run_due('pg_cron')"


@pytest.mark.cron
@pytest.mark.parametrize("as_superuser", [True, False], ids=["superuser", "under row security"])
def test_pruning_run_details_takes_our_old_ones_and_nobody_elses(home, plain, as_superuser):
    here = home.info.dbname
    owner, other = (home.info.user, plain) if as_superuser else (plain, home.info.user)
    with home.transaction(force_rollback=True):
        home.execute("delete from cron.job_run_details")
        home.execute(
            "select lapse.record_cron_jobs(current_database(), %s)", [json.dumps([{**JOB, "jobid": 70}])]
        )
        details(
            home,
            (1, 70, here, owner, "anything", "succeeded", 9),
            (2, 71, here, owner, TICK, "failed", 9),
            (3, 71, here, owner, TICK, "running", 9),
            (4, 71, here, other, TICK, "succeeded", 9),
            (5, 72, "another", owner, TICK, "succeeded", 9),
            (6, 73, here, owner, "select 1", "succeeded", 9),
            (7, 71, here, owner, TICK, "failed", None),
            (8, 71, here, owner, TICK, "succeeded", 8),
            (9, 71, here, owner, TICK, "failed", None),
            (10, 71, here, owner, TICK, "succeeded", 6),
        )
        if not as_superuser:
            home.execute(f"grant usage on schema cron, lapse to {plain}")
            home.execute(f"grant select on lapse.setting, lapse.cron_job to {plain}")
            home.execute(
                f"alter function lapse.prune_cron_details(integer, timestamptz, timestamptz) owner to {plain}"
            )
            home.execute("set local row_security = off")  # as the engine has it

        prune = "select (lapse.prune_cron_details(3, now(), '-infinity')).picked"
        taken = [value(home, prune) for _ in range(3)]

        left = [row[0] for row in home.execute("select runid + 1000 from cron.job_run_details order by 1")]
    assert taken == [3, 1, 0]
    assert left == [3, 4, 5, 6, 9, 10]


@pytest.mark.cron
def test_pruning_goes_through_the_engine_in_batches_whatever_the_order_of_times(home):
    here, me = home.info.dbname, home.info.user
    ages = (20, None, 30, 9, 25)
    details(home, *((n, 71, here, me, TICK, "succeeded", age) for n, age in enumerate(ages, start=1)))
    home.execute("select lapse.alter_policy('prune_cron_details', p_batch_size => 2)")

    home.execute("call lapse.run('prune_cron_details')")

    assert value(home, "select count(*) from cron.job_run_details where runid < 0") == 0
    last = home.execute(
        "select status, handled, batches from lapse.run_log where policy = 'prune_cron_details'"
        " order by id desc limit 1"
    ).fetchone()
    assert last == ("ok", 5, 3)


# ---- where pg_cron lives in another database --------------------------------------------------------


@pytest.fixture
def elsewhere(dsn, installed, monkeypatch) -> Iterator[psycopg.Connection]:
    """A second database with pglapse, named by DATABASE_URL as a user would."""
    monkeypatch.setenv("DATABASE_URL", dsn)
    with psycopg.connect(dsn, autocommit=True) as connection:
        yield connection
    with psycopg.connect(installed, autocommit=True) as admin:
        admin.execute("select cron.unschedule(jobid) from cron.job where jobname like 'lapse-%'")


@pytest.mark.cron
def test_jobs_for_another_database_are_made_once_recorded_and_removed(elsewhere, home, capsys):
    schedule, command = wanted(home)
    target, database, me = elsewhere.info.dbname, home.info.dbname, home.info.user

    scheduling.schedule(f"dbname={database}")
    scheduling.schedule(f"dbname={database}")

    made = jobs(home)
    assert [row[:2] + row[3:] for row in made] == [
        (f"lapse-1@{target}", schedule, target, me),
        (f"lapse-2@{target}", schedule, target, me),
        (f"lapse-prune@{target}", "17 * * * *", database, me),
    ]
    assert [row[2] for row in made[:2]] == [command, command]
    assert recorded(elsewhere) == ids(home)
    assert f"lapse-1@{target}" in capsys.readouterr().out

    scheduling.unschedule(f"dbname={database}")

    assert jobs(home) == []
    assert recorded(elsewhere) == []
    assert "3 jobs removed" in capsys.readouterr().out


@pytest.mark.cron
def test_the_pruning_job_elsewhere_takes_our_old_ones_and_nobody_elses(elsewhere, home):
    scheduling.schedule(f"dbname={home.info.dbname}")
    target, database, me = elsewhere.info.dbname, home.info.dbname, home.info.user
    number, command = home.execute(
        "select jobid, command from cron.job where jobname like 'lapse-prune@%'"
    ).fetchone() or (0, "")

    with home.transaction(force_rollback=True):
        home.execute("delete from cron.job_run_details")
        details(
            home,
            (1, 71, target, me, TICK, "succeeded", 9),
            (2, 71, target, me, TICK, "running", 9),
            (3, 72, database, me, TICK, "succeeded", 9),
            (4, 71, target, ROLE, TICK, "succeeded", 9),
            (5, number, database, me, command, "succeeded", 9),
            (6, 73, target, me, "select 1", "succeeded", 9),
            (7, 71, target, me, TICK, "failed", None),
            (8, 71, target, me, TICK, "failed", 8),
            (9, 71, target, me, TICK, "failed", None),
        )

        home.execute(command)

        left = [row[0] for row in home.execute("select runid + 1000 from cron.job_run_details order by 1")]
    assert left == [2, 3, 4, 6, 9]


@pytest.mark.cron
def test_unscheduling_without_the_cron_database_names_the_command_that_can(elsewhere, home):
    scheduling.schedule(f"dbname={home.info.dbname}")

    with pytest.raises(CronJobsElsewhere) as caught:
        scheduling.unschedule()

    assert f"pglapse unschedule --cron-dsn dbname={home.info.dbname}" in (caught.value.hint or "")
    assert len(jobs(home)) == 3


@pytest.mark.cron
def test_a_copy_of_a_scheduled_database_does_not_remove_the_originals_jobs(
    elsewhere, home, server, monkeypatch
):
    scheduling.schedule(f"dbname={home.info.dbname}")
    made = ids(home)
    elsewhere.close()

    with databases.database(server, made[0][0].partition("@")[2]) as copy:
        monkeypatch.setenv("DATABASE_URL", copy)
        scheduling.unschedule(f"dbname={home.info.dbname}")

        with psycopg.connect(copy) as connection:
            assert recorded(connection) == []
    assert ids(home) == made


@pytest.mark.cron
def test_a_database_that_was_renamed_finds_its_old_jobs(elsewhere, home, server, monkeypatch):
    scheduling.schedule(f"dbname={home.info.dbname}")
    old = elsewhere.info.dbname
    elsewhere.close()

    with psycopg.connect(server, autocommit=True) as admin:
        rename = sql.SQL("alter database {} rename to {}")
        admin.execute(rename.format(sql.Identifier(old), sql.Identifier(f"{old}_new")))
        try:
            monkeypatch.setenv("DATABASE_URL", on(server, f"{old}_new"))
            scheduling.schedule(f"dbname={home.info.dbname}")
        finally:
            admin.execute(rename.format(sql.Identifier(f"{old}_new"), sql.Identifier(old)))

    assert [row[0] for row in jobs(home)] == [
        f"lapse-1@{old}_new",
        f"lapse-2@{old}_new",
        f"lapse-prune@{old}_new",
    ]


@pytest.mark.cron
def test_naming_its_own_database_schedules_here(home, installed, monkeypatch, capsys):
    monkeypatch.setenv("DATABASE_URL", installed)

    scheduling.schedule(f"dbname={home.info.dbname}")
    assert [row[0] for row in jobs(home)] == ["lapse-1", "lapse-2"]

    scheduling.unschedule(f"dbname={home.info.dbname}")
    assert jobs(home) == []


@pytest.mark.cron
def test_a_role_that_pg_cron_does_not_let_in_is_told_each_grant_in_turn(elsewhere, home, plain, server):
    database = home.info.dbname
    as_plain = psycopg.conninfo.make_conninfo(on(server, database), user=plain)
    in_database = "cron.schedule_in_database(text, text, text, text, text, boolean)"
    elsewhere.execute(f"grant usage on schema lapse to {plain}")
    elsewhere.execute(f"grant execute on procedure lapse.run_due(text, boolean, interval) to {plain}")
    try:
        for grant in (
            f"grant usage on schema cron to {plain}",
            f"grant execute on function {in_database} to {plain}",
        ):
            with pytest.raises(CronUnavailable) as caught:
                scheduling.schedule(as_plain)
            assert (caught.value.hint or "").endswith(f"{grant};")
            assert recorded(elsewhere) == []
            home.execute(grant)

        scheduling.schedule(as_plain)
        assert {row[4] for row in jobs(home)} == {plain}

        home.execute("update cron.job set username = current_user where username = %s", [plain])
        with pytest.raises(CronUnavailable) as hidden:
            scheduling.unschedule(as_plain)
        assert "select cron.unschedule(" in (hidden.value.hint or "")
        assert len(recorded(elsewhere)) == 3
    finally:
        elsewhere.execute(f"drop owned by {plain}")


@pytest.mark.cron
def test_a_role_that_may_not_tick_there_is_told_the_grant(elsewhere, home, plain, server):
    home.execute(f"grant usage on schema cron to {plain}")

    with pytest.raises(CronUnavailable) as caught:
        scheduling.schedule(psycopg.conninfo.make_conninfo(on(server, home.info.dbname), user=plain))

    assert f"select lapse.grant_runner('{plain}')" in (caught.value.hint or "")


@pytest.mark.cron
def test_a_second_role_is_told_whose_the_jobs_are_and_nothing_changes(elsewhere, home, plain, server):
    """Of two roles that schedule, the second may see neither the first one's jobs nor remove them."""
    elsewhere.execute(f"select lapse.grant_runner('{plain}')")
    home.execute(f"grant usage on schema cron to {plain}")
    in_database = "cron.schedule_in_database(text, text, text, text, text, boolean)"
    home.execute(f"grant execute on function {in_database} to {plain}")
    scheduling.schedule(f"dbname={home.info.dbname}")
    made, kept = jobs(home), recorded(elsewhere)
    as_plain = psycopg.conninfo.make_conninfo(on(server, home.info.dbname), user=plain)
    try:
        with pytest.raises(CronUnavailable) as caught:
            scheduling.schedule(as_plain)

        assert "belongs to another role" in str(caught.value)
        first = min(jobid for _, jobid in kept)
        assert f"select cron.unschedule({first});" in (caught.value.hint or "")
        assert (jobs(home), recorded(elsewhere)) == (made, kept)
    finally:
        elsewhere.execute(f"drop owned by {plain}")


@pytest.mark.cron
def test_a_superuser_takes_over_what_another_role_scheduled(elsewhere, home, plain, server):
    elsewhere.execute(f"select lapse.grant_runner('{plain}')")
    home.execute(f"grant usage on schema cron to {plain}")
    in_database = "cron.schedule_in_database(text, text, text, text, text, boolean)"
    home.execute(f"grant execute on function {in_database} to {plain}")
    try:
        scheduling.schedule(psycopg.conninfo.make_conninfo(on(server, home.info.dbname), user=plain))
        assert {row[4] for row in jobs(home)} == {plain}

        scheduling.schedule(f"dbname={home.info.dbname}")

        assert {row[4] for row in jobs(home)} == {home.info.user}
        assert recorded(elsewhere) == ids(home)
        assert len(ids(home)) == 3
    finally:
        elsewhere.execute(f"drop owned by {plain}")


@pytest.mark.cron
@pytest.mark.parametrize("known", [True, False], ids=["recorded", "not recorded"])
def test_jobs_that_a_restored_dump_brought_along_are_replaced(elsewhere, home, plain, known):
    """pg_dump carries cron.job: its rows come with the port, the role and the numbers of another server."""
    target = elsewhere.info.dbname
    home.execute(
        "insert into cron.job (jobname, schedule, command, database, username, nodename, nodeport, jobid)"
        " select v.name || '@' || %s, '* * * * *', 'call lapse.run_due()', %s, %s, 'old-host', 1, v.id"
        "   from (values ('lapse-1', 900001), ('lapse-2', 900002), ('lapse-prune', 900003)) as v (name, id)",
        [target, target, plain],
    )
    if known:
        old = [{**JOB, "jobname": f"lapse-{n}@{target}", "jobid": 900000 + n} for n in (1, 2)]
        elsewhere.execute("select lapse.record_cron_jobs(%s, %s)", [home.info.dbname, json.dumps(old)])

    scheduling.schedule(f"dbname={home.info.dbname}")

    assert [row[0] for row in jobs(home)] == [f"lapse-{n}@{target}" for n in (1, 2, "prune")]
    assert {row[4] for row in jobs(home)} == {home.info.user}
    assert recorded(elsewhere) == ids(home)
    port = value(home, "select current_setting('port')::integer")
    assert value(
        home, "select array_agg(distinct nodeport) from cron.job where jobname like 'lapse-%%@%%'"
    ) == [port]


@pytest.mark.cron
def test_a_job_that_was_moved_to_another_database_by_hand_is_made_afresh(elsewhere, home):
    scheduling.schedule(f"dbname={home.info.dbname}")
    home.execute("update cron.job set database = 'template1' where jobname like 'lapse-1@%%'", [])

    scheduling.schedule(f"dbname={home.info.dbname}")

    assert [row[3] for row in jobs(home)] == [elsewhere.info.dbname] * 2 + [home.info.dbname]


@pytest.mark.cron
def test_a_database_of_an_odd_name_is_scheduled_and_unscheduled_from_elsewhere(
    home, server, template, monkeypatch
):
    name = "pglapse_test_ Ä 'b\" %s\\"
    with psycopg.connect(server, autocommit=True) as admin:
        admin.execute(sql.SQL("drop database if exists {}").format(sql.Identifier(name)))
        admin.execute(
            sql.SQL("create database {} template {}").format(sql.Identifier(name), sql.Identifier(template))
        )
        try:
            monkeypatch.setenv("DATABASE_URL", on(server, name))
            scheduling.schedule(f"dbname={home.info.dbname}")
            made = jobs(home)
            (prune,) = [row[2] for row in made if "prune" in row[0]]
            home.execute(sql.SQL(prune))
            scheduling.unschedule(f"dbname={home.info.dbname}")
        finally:
            admin.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))

    assert [row[3] for row in made] == [name, name, home.info.dbname]
    assert jobs(home) == []


@pytest.mark.cron
def test_an_owner_who_may_not_connect_is_told_so(elsewhere, home, plain, server):
    database = elsewhere.info.dbname
    elsewhere.execute(f"select lapse.grant_runner('{plain}')")
    elsewhere.execute(f"revoke connect on database {database} from public")
    home.execute(f"grant usage on schema cron to {plain}")
    try:
        with pytest.raises(CronUnavailable) as caught:
            scheduling.schedule(psycopg.conninfo.make_conninfo(on(server, home.info.dbname), user=plain))
        assert (caught.value.hint or "").endswith(f"grant connect on database {database} to {plain};")
    finally:
        elsewhere.execute(f"drop owned by {plain}")


def command(dsn: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pglapse", *arguments],
        env={**os.environ, "DATABASE_URL": dsn, "PYTHONPATH": str(ROOT / "worker")},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("verb", ["schedule", "unschedule"])
def test_a_database_without_pglapse_is_one_clear_line(empty, verb):
    done = command(empty, verb)

    assert done.returncode == 1
    assert "pglapse is not installed" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_the_command_says_what_to_type_next(conn, dsn):
    done = command(dsn, "schedule")

    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "pg_cron" in done.stderr
    if home := value(conn, "select current_setting('cron.database_name', true)"):
        assert f"pglapse schedule --cron-dsn dbname={home}" in done.stderr


def test_unscheduling_by_command_where_nothing_is_scheduled_is_fine(dsn):
    done = command(dsn, "unschedule")

    assert (done.returncode, done.stdout) == (0, "0 jobs removed\n")


@pytest.mark.parametrize("dsn_given", ["dbname", "postgresql://[", "=", "nonsense=1"])
def test_a_malformed_dsn_is_a_wrong_setting(conn, dsn, monkeypatch, dsn_given):
    monkeypatch.setenv("DATABASE_URL", dsn)

    with pytest.raises(SettingError):
        scheduling.schedule(dsn_given)


@pytest.fixture(scope="module")
def other_server() -> Iterator[str]:
    """A second server, without pg_cron."""
    bindir = cluster.find_local() or cluster.find_embedded()
    folder = Path(tempfile.gettempdir()) / f"pglapse-test-{secrets.token_hex(4)}"
    try:
        with cluster.throwaway(bindir, folder) as dsn:
            yield dsn
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def test_a_server_that_does_not_load_pg_cron_says_how_it_would(other_server):
    alembic(other_server, "upgrade", "engine@head")

    with psycopg.connect(other_server, autocommit=True) as there:
        error = refused(there, "select lapse.schedule()")
        available = value(there, "select count(*) from pg_available_extensions where name = 'pg_cron'")
        assert value(there, "select lapse.unschedule()") == 0

    alembic(other_server, "downgrade", "base")
    assert (error.sqlstate, error.diag.message_primary) == ("LP007", "pg_cron is not loaded on this server")
    next_step = "shared_preload_libraries" if available else "apt-get install postgresql-"
    assert next_step in (error.diag.message_hint or "")
    assert "pglapse worker --tick auto" in (error.diag.message_detail or "")


def test_a_cron_database_of_another_server_is_refused(dsn, other_server, monkeypatch):
    monkeypatch.setenv("DATABASE_URL", dsn)

    with pytest.raises(SettingError) as caught:
        scheduling.schedule(other_server)

    assert "names another server" in str(caught.value)


def test_what_the_dsn_leaves_out_comes_from_our_own(monkeypatch):
    monkeypatch.setenv("DATABASE_URL", "postgresql://me:secret@db.example:5433/app")

    assert psycopg.conninfo.conninfo_to_dict(scheduling.beside("dbname=postgres")) == {
        "user": "me",
        "password": "secret",
        "host": "db.example",
        "port": "5433",
        "dbname": "postgres",
    }
    assert scheduling.beside("host=other dbname=postgres") == "host=other dbname=postgres"
