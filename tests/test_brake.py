"""The brake: a run that would take too much of its table takes nothing and asks."""

import json
import threading
from collections.abc import Iterator

import psycopg
import pytest

from tests.support import databases, shed
from tests.support.poll import until
from tests.support.running import pglapse


@pytest.fixture(scope="module")
def dsn(server: str, template: str) -> Iterator[str]:
    """One database for this module; every test builds its shed afresh."""
    with databases.database(server, template) as own:
        yield own


@pytest.fixture
def conn(conn: psycopg.Connection) -> psycopg.Connection:
    shed.build(conn)
    return conn


def policy(conn: psycopg.Connection, *, fraction: float = 0.5, rows: int = 10, **options: object) -> None:
    shed.policy(conn, p_max_fraction=str(fraction), p_brake_rows=rows, **options)


def stands(conn: psycopg.Connection, due: int, later: int = 0) -> None:
    """So many rows are due, and so many more are in the table."""
    shed.add(conn, due)
    shed.add(conn, later, ago="-1 day")


def tick(conn: psycopg.Connection) -> psycopg.Error | None:
    shed.make_due(conn)
    try:
        conn.execute("call lapse.run_due()")
    except psycopg.Error as error:
        return error
    return None


def due(conn: psycopg.Connection) -> int:
    return shed.one(conn, "select count(*) from shed.things where due <= now()")


def release(conn: psycopg.Connection, most: int | None = None) -> tuple[int, int | None]:
    return conn.execute(
        "select released, of_rows from lapse.release_brake('sweep', %s)", [most]
    ).fetchone() or (-1, None)


def statistics(conn: psycopg.Connection, estimate: float, pages: int) -> None:
    """As if the last ANALYZE had found so many rows in so many pages, and nothing had been counted since."""
    conn.execute("select pg_stat_force_next_flush(); select pg_stat_reset()")
    conn.execute(
        "update pg_class set reltuples = %s, relpages = %s where oid = 'shed.things'::regclass",
        [estimate, pages],
    )


@pytest.mark.parametrize(
    ("rows", "later", "brakes"),
    [(21, 20, True), (20, 20, False), (10, 0, False), (11, 0, True)],
    ids=["more than half", "half", "few, though all", "one more than few"],
)
def test_a_run_that_would_take_more_than_its_share_takes_nothing(conn, rows, later, brakes):
    policy(conn)
    stands(conn, rows, later)

    error = tick(conn)

    assert due(conn) == (rows if brakes else 0)
    assert [status for _, status in shed.log(conn)] == ["braked" if brakes else "ok"]
    assert (error is not None) == brakes


def test_it_is_loud_once_and_then_stays_stopped_until_it_is_released(conn):
    policy(conn)
    stands(conn, 30, 10)

    first, again = tick(conn), tick(conn)
    by_hand = shed.fails(conn, "call lapse.run('sweep')")

    assert first is not None
    assert first.sqlstate == "LP006"
    assert "LP015" in first.diag.message_detail
    assert "select lapse.release_brake('sweep')" in first.diag.message_hint
    assert again is None
    assert shed.log(conn, "status, sqlstate, picked, message") == [
        ("braked", "LP015", 0, "30 of 40 rows are due, more than 0.5 of the table")
    ]
    assert by_hand.sqlstate == "LP015"
    assert "30 of 40 rows were due" in by_hand.diag.message_primary
    assert by_hand.diag.message_hint
    assert shed.state(conn, "next_run_at > now() and consecutive_failures = 0")

    assert release(conn) == (30, 40)
    assert shed.state(conn, "next_run_at <= now()")
    assert tick(conn) is None
    assert due(conn) == 0


def test_a_release_holds_for_what_was_shown_and_until_a_run_has_done_it(conn):
    policy(conn)
    stands(conn, 30)
    tick(conn)
    release(conn)
    tick(conn)
    left = due(conn)

    stands(conn, 30)
    error = tick(conn)

    assert left == 0
    assert error is not None
    assert due(conn) == 30


def test_a_jump_between_release_and_run_brakes_again(conn):
    policy(conn)
    stands(conn, 30)
    tick(conn)
    release(conn)
    stands(conn, 40)

    error = tick(conn)

    assert error is not None
    assert due(conn) == 70


def test_a_release_outlives_a_run_that_ended_before_its_work(conn):
    policy(conn, p_batch_size=4, p_max_runtime="1 s", extra="perform pg_sleep(0.4);")
    stands(conn, 30)
    tick(conn)
    release(conn)

    shed.run(conn)
    left = due(conn)
    shed.step(conn, "sweep")
    tick(conn)

    assert 10 < left < 30
    assert due(conn) == 0
    assert {status for _, status in shed.log(conn)} == {"braked", "ok"}
    assert shed.state(conn, "released_rows") is None


def test_nothing_is_released_that_is_more_than_was_looked_at(conn):
    policy(conn)
    stands(conn, 30)
    tick(conn)
    stands(conn, 1)

    error = shed.fails(conn, "select lapse.release_brake('sweep', 30)")

    assert (error.sqlstate, bool(error.diag.message_hint)) == ("LP015", True)
    assert release(conn, 31) == (31, 30)


def test_releasing_what_is_not_braked_gives_nothing_away(conn):
    policy(conn)
    stands(conn, 30)
    said = []
    conn.add_notice_handler(lambda notice: said.append(notice.message_primary))

    assert release(conn) == (0, None)
    assert tick(conn) is not None
    assert due(conn) == 30
    assert said == ["policy sweep is not braked: there is nothing to release"]
    assert shed.fails(conn, "select lapse.release_brake('nothing')").sqlstate == "LP002"
    assert shed.fails(conn, "select lapse.release_brake('sweep', -1)").sqlstate == "LP001"


def test_it_goes_on_by_itself_once_few_are_due_and_not_because_the_table_grew(conn):
    policy(conn)
    stands(conn, 30)
    tick(conn)

    stands(conn, 0, 1000)
    tick(conn)
    after_growing = due(conn)
    conn.execute("delete from shed.things where due <= now() and id not in (select min(id) from shed.things)")
    tick(conn)

    assert after_growing == 30
    assert due(conn) == 0
    assert shed.state(conn, "num_nulls(braked_at, braked_rows, braked_of)") == 3


@pytest.mark.parametrize("fraction", ["1", "0.9"])
def test_another_brake_judges_anew_and_none_lets_go(conn, fraction):
    policy(conn)
    stands(conn, 30, 10)
    tick(conn)

    conn.execute("select lapse.alter_policy('sweep', p_max_fraction => %s)", [fraction])
    conn.execute("call lapse.run_due()")

    assert due(conn) == 0


def test_rows_that_are_held_back_do_not_count(conn):
    policy(conn)
    stands(conn, 11)
    conn.execute(
        "insert into lapse.blocked_row (policy, key, error, run_id, retry_at)"
        " select 'sweep', min(id)::text, 'x', 0, 'infinity' from shed.things"
    )

    assert tick(conn) is None
    assert len(shed.left(conn)) == 1


def judged(conn: psycopg.Connection) -> bool:
    """Whether the brake stops a run, in a table too large to be counted without ado."""
    return shed.one(
        conn,
        "select (lapse.judge_run(p, now(), 0, false, p_sure => 0)).brakes from lapse.policy as p"
        " where p.name = 'sweep'",
    )


@pytest.mark.parametrize("estimate", [(-1.0, 0), (0.0, 0), (4.0, 1)], ids=["never", "when empty", "long ago"])
@pytest.mark.parametrize(("later", "brakes"), [(40, False), (10, True)], ids=["too few", "too many"])
def test_statistics_that_say_too_little_brake_nothing_wrongly(conn, estimate, later, brakes):
    policy(conn)
    stands(conn, 30, later)
    statistics(conn, *estimate)

    assert judged(conn) == brakes
    assert (tick(conn) is not None) == brakes


def test_statistics_from_before_a_great_deletion_let_nothing_through(conn):
    policy(conn)
    stands(conn, 30, 4000)
    conn.execute("select pg_stat_force_next_flush()")
    conn.execute("vacuum analyze shed.things")
    conn.execute("delete from shed.things where due > now()")
    conn.execute("select pg_stat_force_next_flush()")

    assert judged(conn)
    assert tick(conn) is not None
    assert due(conn) == 30


def test_a_table_that_was_truncated_and_filled_again_is_judged_by_what_it_holds(conn):
    policy(conn)
    stands(conn, 30, 4000)
    conn.execute("vacuum analyze shed.things")
    conn.execute("truncate shed.things")
    conn.execute("select pg_stat_force_next_flush()")
    stands(conn, 30)

    assert judged(conn)
    assert tick(conn) is not None
    assert due(conn) == 30


def test_the_parts_of_a_partitioned_table_are_summed(conn):
    conn.execute(
        """
        drop table shed.things cascade;
        create table shed.things (id bigint generated always as identity, due timestamptz not null,
                                  kind text not null default 'thing', status text not null default 'active',
                                  primary key (id, due)) partition by range (due);
        create table shed.old partition of shed.things for values from (minvalue) to (now());
        create table shed.new partition of shed.things for values from (now()) to (maxvalue);
        """
    )
    policy(conn)
    stands(conn, 30, 40)
    conn.execute("analyze shed.old; analyze shed.new")

    assert shed.one(conn, "select lapse.rows_estimated('shed.things')") == 70
    assert tick(conn) is None
    assert due(conn) == 0


def test_a_declared_policy_has_a_brake_too(conn):
    conn.execute("create index on shed.things (due, id)")
    conn.execute("select lapse.create_expiry('sweep', 'shed.things', 'due', p_brake_rows => 10)")
    stands(conn, 30, 10)
    conn.execute("select pg_stat_force_next_flush()")

    braked = tick(conn)
    left = due(conn)
    released = release(conn)
    tick(conn)

    assert braked is not None
    assert left == 30
    assert released == (30, 40)
    assert due(conn) == 0


def test_few_due_rows_cost_no_look_at_the_table(conn):
    policy(conn)
    stands(conn, 5, 100)
    conn.execute("select pg_stat_force_next_flush()")
    before = shed.one(conn, "select coalesce(seq_scan, 0) from pg_stat_user_tables where relname = 'things'")

    tick(conn)

    conn.execute("select pg_stat_force_next_flush()")
    assert due(conn) == 0
    assert (
        shed.one(conn, "select coalesce(seq_scan, 0) from pg_stat_user_tables where relname = 'things'")
        - before
        <= 2  # the step's, whose plan for so small a table is a scan; the brake adds none
    )


def test_a_count_that_fails_keeps_the_brake(conn):
    policy(conn)
    stands(conn, 30)
    tick(conn)
    conn.execute("alter table shed.things rename column kind to sort")
    tick(conn)
    conn.execute("alter table shed.things rename column sort to kind")

    assert shed.state(conn, "last_status") == "failed"
    assert shed.state(conn, "braked_at is not null")
    assert tick(conn) is None
    assert due(conn) == 30


def test_a_release_waits_for_the_run_that_is_being_judged(conn, dsn):
    """Somebody who saw it coming releases at the same moment: that is after it, or not at all."""
    policy(conn)
    stands(conn, 30)
    run = shed.one(conn, "select lapse.begin_run('sweep', null, false)")
    answers = []
    with psycopg.connect(dsn, autocommit=True) as other, conn.transaction():
        conn.execute("select * from lapse.run_batch(%s)", [run])
        waiter = threading.Thread(target=lambda: answers.append(release(other)), daemon=True)
        waiter.start()
        until(
            lambda: psycopg_waits(dsn, other.info.backend_pid),
            what="the release to wait",
        )
    waiter.join(30)

    assert answers == [(30, 30)]
    assert tick(conn) is None
    assert due(conn) == 0


def psycopg_waits(dsn: str, pid: int) -> bool:
    with psycopg.connect(dsn, autocommit=True) as look:
        return bool(
            look.execute(
                "select 1 from pg_stat_activity where pid = %s and wait_event_type = 'Lock'", [pid]
            ).fetchone()
        )


def test_of_two_ticks_at_once_one_brakes_and_neither_takes_anything(conn, dsn):
    policy(conn)
    stands(conn, 30)
    shed.make_due(conn)
    errors: list[psycopg.Error] = []

    def ticking() -> None:
        with psycopg.connect(dsn, autocommit=True) as own:
            try:
                own.execute("call lapse.run_due()")
            except psycopg.Error as error:
                errors.append(error)

    calls = [threading.Thread(target=ticking, daemon=True) for _ in range(2)]
    for call in calls:
        call.start()
    for call in calls:
        call.join(30)

    assert len(errors) == 1
    assert due(conn) == 30
    assert shed.log(conn) == [("sweep", "braked")]


def test_the_doctor_says_so_too(conn):
    policy(conn)
    stands(conn, 30, 10)
    tick(conn)

    found = conn.execute(
        "select level, message, command from lapse.doctor('policies') where level <> 'ok'"
    ).fetchall()

    assert [level for level, _, _ in found] == ["fail"]
    assert "policy sweep is braked for " in found[0][1]
    assert "and takes nothing: 30 of 40 rows were due" in found[0][1]
    assert found[0][2].startswith("select * from lapse.release_brake('sweep');")


def test_status_says_so_in_red_before_all_else(conn, dsn):
    policy(conn)
    stands(conn, 30, 10)
    tick(conn)

    shown = pglapse(dsn, "status").stdout.splitlines()
    [row] = json.loads(pglapse(dsn, "status", "--json").stdout)["policies"]

    assert shown[1].strip() == "policy sweep is braked and takes nothing: 30 of 40 rows were due"
    assert "select lapse.release_brake('sweep')" in shown[2]
    assert (row["last_status"], row["braked_rows"], row["braked_of"]) == ("braked", 30, 40)
    assert row["braked_at"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"p_max_fraction": "0"}, "braked at 0"),
        ({"p_max_fraction": "1.5"}, "braked at 1.5"),
        ({"p_max_fraction": "-0.1"}, "braked at -0.1"),
        ({"p_max_fraction": "NaN"}, "braked at NaN"),
        ({"p_max_fraction": "0.5", "p_brake_rows": -1}, "-1 rows"),
        ({"p_brake_rows": 5}, "p_max_fraction"),
        ({"p_max_fraction": "0.5", "target": False}, "target"),
    ],
    ids=str,
)
def test_a_brake_that_makes_no_sense_is_refused(conn, options, words):
    with pytest.raises(psycopg.Error) as caught:
        shed.policy(conn, **options)

    assert caught.value.sqlstate == "LP001"
    assert words in caught.value.diag.message_primary
    assert caught.value.diag.message_hint
    assert shed.column(conn, "select name from lapse.policy") == []


def test_ten_thousand_rows_may_go_unless_another_number_is_given(conn):
    shed.policy(conn, p_max_fraction="0.25")
    shed.policy(conn, "none", kind="none")
    conn.execute("select lapse.alter_policy('none', p_max_fraction => 0.75)")

    assert conn.execute(
        "select name, max_fraction::float8, brake_rows from lapse.policy order by name"
    ).fetchall() == [("none", 0.75, 10_000), ("sweep", 0.25, 10_000)]
