"""Rows due by age, and by a clock without a zone: never early, never lost, in order; over a plain index."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support import databases, shed

# Half an hour, two hours, a whole day that never was, and changes in both halves of the year.
CHANGES = [
    ("Europe/Berlin", datetime(2026, 3, 29, 1, tzinfo=UTC), timedelta(hours=1)),
    ("Europe/Berlin", datetime(2026, 10, 25, 1, tzinfo=UTC), timedelta(hours=1)),
    ("America/New_York", datetime(2026, 11, 1, 6, tzinfo=UTC), timedelta(hours=1)),
    ("Australia/Lord_Howe", datetime(2026, 4, 4, 15, tzinfo=UTC), timedelta(minutes=30)),
    ("Antarctica/Troll", datetime(2026, 3, 29, 1, tzinfo=UTC), timedelta(hours=2)),
    ("Antarctica/Troll", datetime(2026, 10, 25, 1, tzinfo=UTC), timedelta(hours=2)),
    ("Pacific/Apia", datetime(2011, 12, 30, 10, tzinfo=UTC), timedelta(hours=24)),
    ("UTC", datetime(2026, 2, 28, 23, tzinfo=UTC), timedelta(0)),
]
AGES = st.builds(
    lambda months, days, seconds: f"{months} months {days} days {seconds} seconds",
    st.sampled_from([0, 0, 1, 2, 12, 13]),
    st.integers(0, 40),
    st.sampled_from([0, 1, 3600, 86399]),
)
TIMES = st.datetimes(datetime(2024, 1, 1), datetime(2028, 12, 31, 23, 59, 59), timezones=st.just(UTC))  # noqa: DTZ001


def around(hours: int) -> st.SearchStrategy[timedelta]:
    """Near, where a change of the clock is felt, or farther away."""
    near, far = timedelta(minutes=70), timedelta(hours=hours)
    return st.one_of(st.timedeltas(-near, near), st.timedeltas(-far, far))


EPOCH = datetime.fromtimestamp(0, UTC)
EXAMPLES = settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture(scope="module")
def dsn(server, template):
    with databases.database(server, template) as own:
        yield own


@pytest.fixture(scope="module")
def shared(dsn):
    with psycopg.connect(dsn, autocommit=True, options="-c search_path=") as connection:
        yield connection


def aged(conn: psycopg.Connection[Any], *, column: str = "made timestamptz", **options: Any) -> None:
    """A table whose rows are due by ``column``, and a policy over it that is never run."""
    shed.build(conn)
    shed.step(conn, "aging")
    name = column.split(maxsplit=1)[0]
    conn.execute(f"create table shed.aged (id bigint generated always as identity primary key, {column})")
    conn.execute(f"create index aged_by on shed.aged ({name}, id)")
    options = {"p_target": "shed.aged", "p_key_columns": ["id"], "p_due_column": name} | options
    named = "".join(f", {key} => %({key})s{'::interval' if key == 'p_older_than' else ''}" for key in options)
    conn.execute(f"select lapse.create_policy('aging', 'shed.aging', '1 hour'{named})", options)


@EXAMPLES
@given(cutoff=TIMES, age=AGES.filter(lambda age: age != "0 months 0 days 0 seconds"), back=st.data())
def test_no_row_goes_before_its_age_and_each_goes_soon_after(shared, cutoff, age, back):
    near = back.draw(st.timedeltas(timedelta(days=-5), timedelta(days=5)))
    made, due, over, long_over = shared.execute(
        """
        select m.made, m.made <= %(cutoff)s - s.shift, m.made + a.age <= %(cutoff)s,
               m.made + a.age <= %(cutoff)s - interval '3 days'
          from (select %(age)s::interval as age) as a
         cross join lateral lapse.due_shift(timezone('UTC', %(cutoff)s::timestamp), a.age) as s (shift)
         cross join lateral (select %(cutoff)s::timestamp - a.age + %(near)s::interval as made) as m
        """,
        {"cutoff": cutoff.replace(tzinfo=None), "age": age, "near": near},
    ).fetchone()

    assert over or not due, f"{made} is not yet {age} old at {cutoff}"
    assert due or not long_over, f"{made} has been {age} old for days at {cutoff}"


@EXAMPLES
@given(
    change=st.sampled_from(CHANGES),
    away=around(hours=30),
    near=around(hours=26),
    age=st.one_of(st.none(), AGES),
    session=st.sampled_from(["UTC", "America/New_York", "Asia/Kathmandu"]),
)
def test_a_clock_without_a_zone_is_read_late_rather_than_early_whenever_it_is_changed(
    shared, change, away, near, age, session
):
    zone, at, by = change
    age = None if age == "0 months 0 days 0 seconds" else age
    shared.execute("select set_config('timezone', %s, false)", [session])
    wall, due, over, long_over = shared.execute(
        """
        select w.wall, w.wall <= c.clock - s.shift, u.ends <= c.clock,
               u.ends <= c.clock - %(by)s - interval '3 days'
          from (select timezone('UTC', %(at)s::timestamptz)
                       + coalesce(%(age)s::interval, '0') + %(away)s::interval as clock) as c
         cross join lateral lapse.due_shift(
               timezone('UTC', c.clock), %(age)s::interval, %(zone)s) as s (shift)
         cross join lateral (
               select timezone(%(zone)s, %(at)s::timestamptz)
                      + %(away)s::interval + %(near)s::interval as wall) as w
         cross join lateral (
               select timezone('UTC', timezone(%(zone)s, w.wall))
                      + coalesce(%(age)s::interval, '0') as ends) as u
        """,
        {"zone": zone, "at": at, "by": by, "away": away, "near": near, "age": age},
    ).fetchone()

    assert over or not due, f"{wall} in {zone} is not over"
    assert due or not long_over, f"{wall} in {zone} has long been over"


@settings(parent=EXAMPLES, max_examples=15)
@given(
    rows=st.lists(st.timedeltas(timedelta(days=-4), timedelta(days=70)), min_size=1, max_size=40),
    change=st.sampled_from(CHANGES),
    away=st.timedeltas(timedelta(hours=-30), timedelta(days=40)),
    age=st.sampled_from([None, "1 hour", "1 day", "1 month", "1 month 1 day"]),
    local=st.booleans(),
)
def test_due_times_come_in_order_up_to_the_cutoff_and_a_batch_can_go_on_from_each(
    shared, rows, change, away, age, local
):
    zone, at, _ = change
    aged(
        shared,
        column="made timestamp" if local else "made timestamptz",
        **({"p_older_than": age} if age else {}),
        **({"p_due_zone": zone} if local else {}),
    )
    shared.execute("insert into shed.aged (made) values ('infinity'), ('-infinity'), (null)")
    with shared.cursor() as cursor:
        cursor.executemany(
            "insert into shed.aged (made) values (%s)",
            [((at - back).replace(tzinfo=None) if local else at - back,) for back in rows],
        )
    query = """
        select d.key, (extract(epoch from nullif(d.due, '-infinity')) * 1000000)::bigint
          from lapse.policy as p cross join lateral lapse.due_rows(p, %s, %s, 1000) as d
    """
    cutoff = at + away

    found = shared.execute(query, ["-infinity", cutoff]).fetchall()

    times = [time for _, time in found if time is not None]
    assert len(found) == len(times) + 1, (
        "the row due since ever is the first, and one that is never due is none"
    )
    assert all(one <= other for one, other in pairwise(times))
    assert all(time <= (cutoff - EPOCH) // timedelta(microseconds=1) for time in times)
    for since in times[::7]:
        rest = shared.execute(query, [EPOCH + timedelta(microseconds=since), cutoff]).fetchall()
        assert rest == [(key, time) for key, time in found if time is not None and time >= since]


@pytest.mark.parametrize(
    ("column", "options"),
    [
        ("made timestamptz", {}),
        ("made timestamptz", {"p_older_than": "1 month"}),
        ("made timestamp", {"p_due_zone": "Europe/Berlin"}),
        ("made timestamp", {"p_due_zone": "Europe/Berlin", "p_older_than": "30 days"}),
    ],
    ids=str,
)
def test_a_plain_index_on_the_column_serves_an_age_and_a_zone_under_the_generic_plan(shared, column, options):
    aged(shared, column=column, **options)
    shared.execute(
        "insert into shed.aged (made) select '2026-01-01'::timestamp + n * interval '1 min'"
        " from generate_series(1, 5000) as n; analyze shed.aged"
    )
    (query,) = shared.execute("select lapse.due_query(p) from lapse.policy as p").fetchone()
    with shared.transaction(force_rollback=True):
        shared.execute("set local plan_cache_mode = force_generic_plan; set local enable_seqscan = off")
        shared.execute(
            f"prepare asked (timestamptz, timestamptz, integer) as {query} for update of t skip locked"
        )
        lines = [line for (line,) in shared.execute("explain (costs off) execute asked (null, null, null)")]
        shared.execute("deallocate asked")

    (condition,) = [line for line in lines if "Index Cond: ((made" in line]
    assert "(made >= " in condition
    assert "(made <= " in condition
    assert not any("Sort" in line for line in lines)


def test_a_row_is_due_at_the_very_moment_that_it_has_the_age(shared):
    aged(shared, p_older_than="30 days 12 hours")
    shared.execute("insert into shed.aged (made) values ('2026-01-01 00:00:00.000001+00')")

    def due_at(moment: str) -> list[Any]:
        return shed.column(shared, f"select due from lapse.due_keys('aging', '{moment}')")

    assert due_at("2026-01-31 12:00:00+00") == []
    assert due_at("2026-01-31 12:00:00.000001+00") == [datetime(2026, 1, 31, 12, 0, 0, 1, tzinfo=UTC)]


def test_a_bad_row_is_named_and_set_aside_also_where_rows_are_due_by_age(shared):
    aged(shared, p_older_than="1 hour")
    shared.execute(
        """
        create or replace function shed.aging(p_limit integer, p_cutoff timestamptz, p_after timestamptz)
            returns lapse.progress language plpgsql as $$
        declare
            v_shift    interval := lapse.due_shift(p_cutoff, '1 hour');
            v_progress lapse.progress;
        begin
            with due as materialized (
                select t.id, t.made + v_shift as due from shed.aged as t
                 where t.made >= p_after - v_shift and t.made <= p_cutoff - v_shift
                   and t.id::text not in (select lapse.blocked_keys('aging', p_cutoff))
                 order by t.made, t.id limit p_limit for update of t skip locked
            ),
            gone as (delete from shed.aged as t using due as d where t.id = d.id returning 1 / (t.id - 3))
            select (select count(*) from due), (select count(*) from gone), (select max(due) from due)
              into v_progress;
            return v_progress;
        end
        $$;
        insert into shed.aged (made) select now() - interval '2 hours' from generate_series(1, 5);
        insert into shed.aged (made) values (now() - interval '30 min');
        """
    )

    shed.run(shared, "aging")

    assert shed.column(shared, "select id from shed.aged order by id") == [3, 6]
    assert shed.column(shared, "select key from lapse.blocked_row") == ["3"]


def test_blocked_rows_are_shown_to_the_owner_of_their_table_and_to_nobody_else(shared):
    aged(shared)
    roles = [f"pglapse_{shared.info.backend_pid}_{name}" for name in ("owner", "other")]
    shared.execute(
        "insert into lapse.blocked_row (policy, key, error, run_id, retry_at)"
        " values ('aging', '1', 'x', 1, now() + interval '1 hour'), ('aging', '2', 'x', 1, now())"
    )
    try:
        for role in roles:
            shared.execute(f"create role {role}; grant usage on schema lapse to {role}")
            shared.execute(f"grant select on lapse.own_blocked_row to {role}")
            shared.execute(f"grant execute on function lapse.blocked_keys to {role}")
        shared.execute(f"alter table shed.aged owner to {roles[0]}")
        for role, keys in zip(roles, (["1"], []), strict=True):
            shared.execute(f"set role {role}")
            assert shed.column(shared, "select lapse.blocked_keys('aging', now())") == keys
            shared.execute("reset role")
    finally:
        shared.execute("reset role")
        for role in roles:
            shared.execute(
                f"reassign owned by {role} to current_user; drop owned by {role}; drop role {role}"
            )
