"""Real jobs of a real pg_cron, fired by its own launcher: nothing here calls a job's command.

pg_cron 1.4 fires on the minute only, so the tests share one period of ticks: `ticking` schedules, and each
test waits for its own evidence.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import psycopg
import pytest

from pglapse import scheduling
from tests.support import databases
from tests.support.cron import MARK, installed_at_home, jobs, wanted
from tests.support.install import alembic
from tests.support.poll import until

pytestmark = pytest.mark.cron

PERIOD = 75  # seconds until the launcher has certainly fired: a minute and some
MINUTE = 130  # seconds until a call that stays for its minute has certainly ended, too

THINGS = f"""
create schema if not exists {MARK};
create table {MARK}.thing (id integer primary key, due timestamptz not null);
create table {MARK}.gone (id integer, due timestamptz, at timestamptz not null default clock_timestamp());
create index on {MARK}.thing (due, id);
insert into {MARK}.thing
select n, clock_timestamp() - interval '10 minutes' from generate_series(1, 2500) as n
union all
select 10000 + n, clock_timestamp() + n * interval '5 s' from generate_series(0, 60) as n;

create function {MARK}.lapse_things(p_limit integer, p_cutoff timestamptz, p_after timestamptz)
    returns lapse.progress language sql security definer set search_path = pg_catalog, pg_temp
as $$
    with due as materialized (
        select t.id, t.due from {MARK}.thing as t
         where t.due >= p_after and t.due <= p_cutoff
         order by t.due, t.id limit p_limit for update skip locked
    ),
    gone as (
        delete from {MARK}.thing as t using due as d where t.id = d.id returning t.id, t.due
    ),
    noted as (
        insert into {MARK}.gone (id, due) select g.id, g.due from gone as g
    ),
    filed as (
        select lapse.enqueue_file('test', 'thing/' || g.id) from gone as g where g.id in (1, 10003)
    )
    select row((select count(*) from due), (select count(*) from gone),
               (select max(due) from due))::lapse.progress
      from (select count(*) from filed) as f
$$;

create function {MARK}.fail(p_limit integer, p_cutoff timestamptz, p_after timestamptz)
    returns lapse.progress language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$ begin raise exception 'broken on purpose'; end $$;

select lapse.create_policy('test_failing', '{MARK}.fail', interval '10 s');
select lapse.create_policy('test_things', '{MARK}.lapse_things', interval '10 s');
"""


@dataclass(frozen=True)
class Ticking:
    """Two databases whose schedule pg_cron keeps, and a connection that listened from the beginning."""

    home: psycopg.Connection
    elsewhere: psycopg.Connection
    listening: psycopg.Connection
    home_dsn: str
    elsewhere_dsn: str


@pytest.fixture(scope="module")
def ticking(server, template) -> Iterator[Ticking]:
    with (
        installed_at_home(server) as home_dsn,
        databases.database(server, template) as elsewhere_dsn,
        psycopg.connect(home_dsn, autocommit=True) as home,
        psycopg.connect(elsewhere_dsn, autocommit=True) as elsewhere,
        psycopg.connect(home_dsn, autocommit=True) as listening,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("DATABASE_URL", elsewhere_dsn)
        listening.execute("listen file_cleanup_queue")
        for connection in (home, elsewhere):
            connection.execute(THINGS)
        try:
            home.execute("select lapse.schedule()")
            scheduling.schedule(home_dsn)
            yield Ticking(home, elsewhere, listening, home_dsn, elsewhere_dsn)
        finally:
            home.execute("select cron.unschedule(jobid) from cron.job where jobname like 'lapse-%'")


def old_things(connection: psycopg.Connection) -> int:
    row = connection.execute(f"select count(*) from {MARK}.thing where id < 10000").fetchone()
    assert row is not None
    return int(row[0])


def runs(connection: psycopg.Connection, policy: str) -> list[tuple[str, str, float]]:
    """The policy's runs: who ran it, how it ended, and when, in seconds since the first."""
    return connection.execute(
        "select source, status, extract(epoch from started_at - min(started_at) over ())::float8"
        "  from lapse.run_log where policy = %s order by started_at",
        [policy],
    ).fetchall()


def test_a_policy_lapses_its_rows_through_pg_cron(ticking):
    until(lambda: old_things(ticking.home) == 0, seconds=PERIOD, what="pg_cron to lapse 2,500 rows")

    source, status, _ = until(lambda: runs(ticking.home, "test_things"), what="the run's record")[0]
    assert (source, status) == ("pg_cron", "ok")


def test_notifications_from_there_reach_a_listener(ticking):
    until(lambda: old_things(ticking.home) == 0, seconds=PERIOD)

    heard = list(ticking.listening.notifies(timeout=10, stop_after=1))

    assert {(n.channel, n.payload) for n in heard} == {("file_cleanup_queue", "")}
    assert ticking.home.execute(
        "select count(*) from lapse.file_cleanup_queue where path = 'thing/1'"
    ).fetchone() == (1,)


def test_jobs_made_from_another_database_run_there(ticking):
    until(
        lambda: old_things(ticking.elsewhere) == 0, seconds=PERIOD, what="pg_cron to reach the other database"
    )

    until(lambda: runs(ticking.elsewhere, "test_things"), what="the run's record")
    assert runs(ticking.elsewhere, "test_things")[0][:2] == ("pg_cron", "ok")


def test_a_worker_sees_that_pg_cron_ticks(ticking):
    until(lambda: old_things(ticking.home) == 0, seconds=PERIOD)

    assert ticking.home.execute("select lapse.tick_wanted('auto')").fetchone() == (False,)
    assert ticking.elsewhere.execute("select lapse.tick_wanted('auto')").fetchone() == (False,)


def test_a_policy_of_ten_seconds_is_served_within_the_minute(ticking):
    """Rows fall due every 5 s, so every slot of the policy finds some; pg_cron 1.4 fires once a minute."""

    def three() -> list[float]:
        times = [at for _, _, at in runs(ticking.home, "test_things")]
        return times if len(times) >= 3 else []

    first, second, third, *_ = until(three, seconds=PERIOD + 30, what="three runs")

    assert second - first < 22
    assert third - second < 22
    # From the first run on, no row waits longer than a slot and the ticks' own grid.
    late = ticking.home.execute(
        f"select id, at - due from {MARK}.gone"
        f" where due > (select min(at) from {MARK}.gone) and at > due + interval '22 s'"
    ).fetchall()
    assert late == []


def test_a_failing_policy_shows_in_pg_crons_own_history_while_others_go_on(ticking):
    def failures() -> list[str]:
        return [
            message
            for (message,) in ticking.home.execute(
                "select return_message from cron.job_run_details"
                " where status = 'failed' and command like 'call lapse.run_due(%'"
                "   and database = current_database() and return_message like '%test_failing%'"
            )
        ]

    messages = until(failures, seconds=MINUTE, what="a failed job in cron.job_run_details")

    assert "test_failing" in messages[0]
    assert "test_things" not in messages[0]
    sources = {run[:2] for run in runs(ticking.home, "test_failing")}
    assert ("pg_cron", "failed") in sources
    assert {run[1] for run in runs(ticking.home, "test_things")} == {"ok"}


def test_a_downgrade_takes_the_jobs_along_while_they_tick(ticking):
    schedule, _ = wanted(ticking.home)
    home, elsewhere = ticking.home.info.dbname, ticking.elsewhere.info.dbname
    assert [(row[0], row[1], row[3]) for row in jobs(ticking.home)][:2] == [
        ("lapse-1", schedule, home),
        ("lapse-1@" + elsewhere, schedule, elsewhere),
    ]
    # A call is under way: on 1.4 most of the minute, on newer ones for a moment.
    for connection in (ticking.home, ticking.elsewhere):
        connection.execute("select lapse.drop_policy('test_things'), lapse.drop_policy('test_failing')")
        connection.execute(f"drop function {MARK}.lapse_things, {MARK}.fail")
        connection.execute("delete from lapse.file_cleanup_queue")

    refused = alembic(ticking.elsewhere_dsn, "downgrade", "base", check=False)
    assert refused.returncode != 0
    assert f"pglapse unschedule --cron-dsn dbname={home}" in refused.stdout + refused.stderr

    scheduling.unschedule(ticking.home_dsn)
    alembic(ticking.elsewhere_dsn, "downgrade", "base")
    alembic(ticking.home_dsn, "downgrade", "base")

    assert jobs(ticking.home) == []
    assert ticking.home.execute("select to_regnamespace('lapse')").fetchone() == (None,)
    assert ticking.elsewhere.execute("select to_regnamespace('lapse')").fetchone() == (None,)
