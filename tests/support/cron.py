"""pglapse in the database where pg_cron lives, for tests that make real jobs, and not for longer."""

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest

from tests.support.databases import cron_home
from tests.support.install import alembic

MARK = "pglapse_test_mark"
"""A schema that says: what pglapse is in this database, a test put there."""


@contextmanager
def installed_at_home(server: str) -> Iterator[str]:
    """The DSN of pg_cron's database with everything installed; skips where there is no pg_cron."""
    with cron_home(server) as home:
        if home is None:
            pytest.skip("this server has no pg_cron (shared_preload_libraries, cron.database_name)")
        with psycopg.connect(home, autocommit=True) as admin:
            left_over = admin.execute("select to_regnamespace(%s)", [MARK]).fetchone() != (None,)
            if not left_over and admin.execute("select to_regnamespace('lapse')").fetchone() != (None,):
                pytest.fail(f"{home} holds a pglapse that no test put there: name another server")
            clean(admin)
            admin.execute(f"create schema {MARK}")
            try:
                alembic(home, "upgrade", "heads")
                yield home
            finally:
                clean(admin)


def clean(admin: psycopg.Connection) -> None:
    """Take everything out by force: what a test broke must not stop the next."""
    admin.execute(
        "select cron.unschedule(jobid) from cron.job where jobname like 'lapse-%' or jobname like 'test-%'"
    )
    for pid in admin.execute(
        "select pid from pg_stat_activity where query like 'call lapse.run_due(%' and pid <> pg_backend_pid()"
        "   and datname = current_database()"  # others' are other tests'
    ).fetchall():
        admin.execute("select pg_terminate_backend(%s, 5000)", pid)
    admin.execute(f"drop schema if exists lapse, market, {MARK} cascade")
    admin.execute(
        "delete from cron.job_run_details"
        " where command like 'call lapse.run_due(%' or command like 'with ours as (%' or command = 'select 1'"
    )


def jobs(connection: psycopg.Connection) -> list[tuple[str, str, str, str, str]]:
    """Every job of pglapse that pg_cron has: name, schedule, command, database, role."""
    return connection.execute(
        "select jobname::text, schedule, command, database, username from cron.job"
        " where jobname like 'lapse-%' order by 1, 5"
    ).fetchall()


def version(connection: psycopg.Connection) -> tuple[int, int]:
    """pg_cron's version, read another way than the product does."""
    row = connection.execute("select extversion from pg_extension where extname = 'pg_cron'").fetchone()
    assert row is not None
    major, minor = row[0].split("-")[0].split(".")[:2]
    return int(major), int(minor)


def wanted(connection: psycopg.Connection) -> tuple[str, str]:
    """The schedule and the command that this version of pg_cron should get."""
    if version(connection) >= (1, 5):
        return "10 seconds", "call lapse.run_due('pg_cron')"
    return "* * * * *", "call lapse.run_due('pg_cron', true)"
