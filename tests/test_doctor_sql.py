"""lapse.doctor(): each check is made to fail for real, says so with a command, and that command mends it."""

import re
import secrets
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from datetime import timedelta
from decimal import Decimal
from threading import Timer
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.support import databases, shed
from tests.support.poll import until
from tests.support.queue import enqueue

Line = tuple[str, str, str | None]

HOUR = timedelta(hours=1)
LEVELS = {"ok", "warn", "fail"}


@pytest.fixture(scope="module")
def dsn(server: str, template: str) -> Iterator[str]:
    """One database for this module; every test leaves it as it was found."""
    with databases.database(server, template) as own:
        yield own


@pytest.fixture
def conn(conn: psycopg.Connection[Any]) -> psycopg.Connection[Any]:
    """A connection to it, just after a worker has ticked."""
    conn.execute("call lapse.run_due('worker')")
    return conn


def said(
    conn: psycopg.Connection[Any], check: str | None = None, ahead: timedelta = timedelta()
) -> list[Line]:
    """What a check says, judged some time ahead."""
    return conn.execute(
        "select level, message, command from lapse.doctor(%s, clock_timestamp() + %s) order by place",
        [check, ahead],
    ).fetchall()


def level(conn: psycopg.Connection[Any], check: str, ahead: timedelta = timedelta()) -> str:
    """The worst that a check says."""
    levels = {line[0] for line in said(conn, check, ahead)}
    return next(one for one in ("fail", "warn", "ok") if one in levels)


def trouble(
    conn: psycopg.Connection[Any],
    check: str,
    words: str,
    expected: str = "fail",
    ahead: timedelta = timedelta(),
) -> str:
    """The command that mends the one thing that a check complains of, in these words."""
    lines = said(conn, check, ahead)
    [(found, message, command)] = [line for line in lines if re.search(words, line[1])] or [
        ("none", str(lines), None)
    ]
    assert found == expected, lines
    assert command, message
    return command


def mend(conn: psycopg.Connection[Any], command: str) -> None:
    """Run a command as it was printed: SQL for psql, up to the comment."""
    statement = command.split(" -- ", maxsplit=1)[0]
    assert statement.endswith(";"), command
    conn.execute(statement)


@contextmanager
def role(conn: psycopg.Connection[Any], *options: str) -> Iterator[str]:
    """A role of the test's own; dropped with all that it has."""
    name = f"pglapse_{secrets.token_hex(5)}"
    conn.execute(f"create role {name} {' '.join(options)}")
    try:
        yield name
    finally:
        if conn.execute("select 1 from pg_roles where rolname = %s", [name]).fetchone():
            conn.execute(f"drop owned by {name}; drop role {name}")


@contextmanager
def replaced(conn: psycopg.Connection[Any], check: str, body: str) -> Iterator[None]:
    """Another function in a check's place."""
    (before,) = conn.execute(
        "select pg_get_functiondef(%s::regprocedure)", [f"lapse.doctor_{check}(timestamptz)"]
    ).fetchone() or ("",)
    conn.execute(
        f"create or replace function lapse.doctor_{check}(p_now timestamptz)"
        " returns table (level text, message text, command text) language plpgsql"
        f" as $$ begin {body} end $$"
    )
    try:
        yield
    finally:
        conn.execute(before)


# ---- the whole -------------------------------------------------------------------------------------


def test_a_sound_database_is_ok_throughout_a_line_a_check(conn):
    rows = conn.execute("select place, check_name, level, message, command from lapse.doctor()").fetchall()

    assert [row for row in rows if row[2] != "ok"] == []
    assert [row[0] for row in rows] == list(range(1, len(rows) + 1))
    assert [row[1] for row in rows] == shed.column(
        conn, "select name from lapse.doctor_checks() order by place"
    )
    assert all(row[3] for row in rows)


def test_it_changes_nothing_not_even_in_a_transaction_that_could(conn):
    with conn.transaction():
        conn.execute("set transaction read only")
        lines = said(conn)

    assert {line[0] for line in lines} == {"ok"}


def test_an_observer_sees_all_of_it(conn):
    names = "select check_name, level from lapse.doctor() order by place"
    as_owner = conn.execute(names).fetchall()
    with role(conn) as observer:
        conn.execute("select lapse.grant_observer(%s)", [observer])
        conn.execute(f"set role {observer}")
        try:
            lines = said(conn)
            assert conn.execute(names).fetchall() == as_owner
        finally:
            conn.execute("reset role")

    assert not [line for line in lines if "could not be looked at" in line[1]]


def test_a_check_that_fails_is_a_line_of_its_own_and_hides_no_other(conn):
    before = [name for (name,) in conn.execute("select check_name from lapse.doctor()")]

    with replaced(conn, "queue", "perform 1/0;"):
        rows = conn.execute("select check_name, level, message, command from lapse.doctor()").fetchall()

    assert [row[0] for row in rows] == before
    [(_, found, message, command)] = [row for row in rows if row[1] != "ok"]
    assert (found, command) == ("warn", "select * from lapse.doctor('queue');")
    assert message == "could not be looked at: division by zero (22012)"
    conn.execute(command)


def test_an_error_of_ours_keeps_its_hint_as_the_command(conn):
    with replaced(conn, "queue", "raise exception 'no' using errcode = 'LP007', hint = 'Do this.';"):
        assert said(conn, "queue") == [("fail", "no", "Do this.")]


def test_a_locked_table_is_waited_for_a_moment_only(conn, dsn):
    with psycopg.connect(dsn) as other:
        other.execute("lock table lapse.file_cleanup_queue, lapse.storage in access exclusive mode")
        rows = conn.execute("select check_name, level, message from lapse.doctor()").fetchall()

    stopped = {name for name, _, message in rows if "lock timeout" in message}
    assert {"queue", "storages"} <= stopped
    assert {name: found for name, found, _ in rows}["policies"] == "ok"


def test_where_a_time_limit_strikes_the_rest_is_said_not_to_have_been_looked_at(conn):
    conn.execute("set statement_timeout = '500ms'")
    try:
        with replaced(conn, "clock", "perform pg_sleep(20);"):
            rows = conn.execute("select check_name, level, message, command from lapse.doctor()").fetchall()
    finally:
        conn.execute("reset statement_timeout")

    assert rows[0][1] == "ok"
    assert "statement timeout" in rows[2][2]
    assert {row[2] for row in rows[3:]} == {"not looked at: there was no time left"}
    assert rows[3][3] == "select * from lapse.doctor('pg_cron');"
    assert len(rows) == len(said(conn))


def test_whoever_cancels_it_ends_it(conn):
    with replaced(conn, "clock", "perform pg_sleep(20);"):
        timer = Timer(0.3, conn.cancel)
        timer.start()
        with pytest.raises(psycopg.errors.QueryCanceled):
            said(conn)
        timer.join()


def test_a_check_that_is_none_is_refused_with_those_that_are(conn):
    for query in ("select * from lapse.doctor('nonsense')", "select lapse.doctor_as_owner('nonsense')",
                  "select lapse.doctor_as_owner('checks()), lapse.doctor_span(null')"):  # fmt: skip
        error = shed.fails(conn, query)
        assert error.sqlstate == "LP002"
        assert error.diag.message_hint


def test_a_check_says_no_more_than_ten_lines_and_how_many_more_there_are(conn):
    body = (
        "return query select case when n = 13 then 'fail' else 'warn' end, 'm' || n, 'c'"
        " from generate_series(1, 13) as n;"
    )
    with replaced(conn, "queue", body):
        lines = said(conn, "queue")

    assert lines[0] == ("fail", "m13", "c")
    assert (len(lines), lines[-1][:2]) == (11, ("warn", "and 3 more"))
    assert len(shed.one(conn, "select lapse.doctor_as_owner('queue')")) < 13


@pytest.mark.parametrize(
    ("span", "words"),
    [
        ("0 s", "0 s"), ("59.4 s", "59 s"), ("60 s", "1 min"), ("3 hours", "3 h"), ("200 min", "3 h 20 min"),
        ("50 hours", "2 d 2 h"), ("48 hours", "2 d"), ("-5 s", "5 s"), (None, None),
    ],
)  # fmt: skip
def test_spans_are_in_words(conn, span, words):
    assert shed.one(conn, "select lapse.doctor_span(%s::interval)", span) == words


# ---- what it is, and when ---------------------------------------------------------------------------


def test_a_copy_of_the_database_is_a_failure(conn):
    conn.execute("update lapse.identity set database_name = 'production'")

    mend(
        conn,
        trouble(conn, "identity", "belongs to database production: nothing runs"),
    )

    assert level(conn, "identity") == "ok"


@pytest.mark.parametrize(
    ("words", "expected", "spoil"),
    [
        ("runs every 1 d and is not due before", "fail",
         "update lapse.policy_state set next_run_at = now() + '3 d' where policy = 'prune_file_log'"),
        ("and is not due before ever", "fail",
         "update lapse.policy_state set next_run_at = 'infinity' where policy = 'prune_file_log'"),
        ("others go first", "fail",
         "update lapse.policy_state set last_served_at = now() + '1 h' where policy = 'prune_file_log'"),
        ("the last tick of pg_cron is 1 h", "warn",
         "insert into lapse.tick_source values ('pg_cron', now() + interval '61 min')"),
        ("worker w was last seen", "warn",
         "insert into lapse.worker (id, host, pid, version, last_seen_at)"
         " values ('w', 'h', 1, '1', now() + interval '1 day')"),
        ("sweep of storage s began", "warn",
         "insert into lapse.storage (name, sweep_began_at) values ('s', now() + interval '1 day')"),
    ],
)  # fmt: skip
def test_what_a_clock_that_was_ahead_left_behind_is_found_and_mended(conn, words, expected, spoil):
    with conn.transaction(force_rollback=True):
        conn.execute(spoil)
        mend(conn, trouble(conn, "clock", words, expected))
        assert level(conn, "clock") == "ok"


# ---- the schedule -----------------------------------------------------------------------------------


def test_a_schedule_that_nobody_keeps_is_a_failure_after_three_minutes(conn):
    assert level(conn, "schedule", timedelta(minutes=2)) == "ok"

    command = trouble(
        conn, "schedule", "nobody keeps the schedule: .* 4 min ago, by worker", ahead=timedelta(minutes=4)
    )

    home = shed.one(conn, "select current_setting('cron.database_name', true)")
    assert command == (f"pglapse schedule --cron-dsn dbname={home}" if home else "pglapse worker")


def test_a_worker_that_ticks_in_place_of_pg_cron_is_a_warning(conn):
    with conn.transaction(force_rollback=True):
        conn.execute(
            "insert into lapse.cron_job (cron_database, jobname, jobid, schedule, command, scheduled_at)"
            " values ('elsewhere', 'lapse-1', 1, '* * * * *', 'x', now() - interval '1 day')"
        )
        trouble(conn, "schedule", "has not called lapse.run_due so far; worker does meanwhile", "warn")
        conn.execute("insert into lapse.tick_source values ('pg_cron', now())")
        assert level(conn, "schedule") == "ok"


def test_jobs_that_were_just_made_are_given_time(conn):
    with conn.transaction(force_rollback=True):
        conn.execute("delete from lapse.tick_source")
        conn.execute(
            "insert into lapse.cron_job (cron_database, jobname, jobid, schedule, command)"
            " values ('elsewhere', 'lapse-1', 1, '* * * * *', 'x')"
        )
        assert level(conn, "schedule") == "ok"
        assert level(conn, "schedule", timedelta(minutes=4)) == "fail"


@pytest.mark.parametrize(
    "place", ["role {role} in database {database}", "role {role}", "database {database}"]
)
def test_a_time_limit_below_the_budget_is_found_wherever_it_is_set(conn, place):
    database = conn.info.dbname
    with role(conn, "login") as runner:
        conn.execute("select lapse.grant_runner(%s)", [runner])
        conn.execute(f"alter {place.format(role=runner, database=database)} set statement_timeout = '20s'")
        try:
            mine = rf"statement_timeout of role {runner} is 20 s \(set for {place.split(' {')[0]}"
            mend(conn, trouble(conn, "timeouts", mine, "warn"))
            assert not [line for line in said(conn, "timeouts") if runner in line[1] and line[0] != "ok"]
        finally:
            conn.execute(f"alter database {database} reset statement_timeout")


def test_a_role_setting_that_is_long_enough_hides_the_databases(conn):
    database = conn.info.dbname
    with role(conn, "login") as runner:
        conn.execute("select lapse.grant_runner(%s)", [runner])
        conn.execute(f"alter database {database} set statement_timeout = 5000")
        conn.execute(f"alter role {runner} set statement_timeout = '2min'")
        try:
            lines = said(conn, "timeouts")
        finally:
            conn.execute(f"alter database {database} reset statement_timeout")

    assert not [line for line in lines if runner in line[1]]
    assert [line[1] for line in lines if "is 5 s (set for database)" in line[1]]


# ---- policies ---------------------------------------------------------------------------------------


@pytest.fixture
def sheds(conn: psycopg.Connection[Any], dsn: str) -> Iterator[psycopg.Connection[Any]]:
    """A shed, beside the policies that are there; all is as before afterwards."""
    kept = conn.execute("select to_jsonb(p) from lapse.policy as p").fetchall()
    conn.execute("create temp table kept_state as select * from lapse.policy_state")
    shed.build(conn)
    conn.execute("call lapse.run_due('worker')")
    try:
        yield conn
    finally:
        conn.execute("delete from lapse.policy; drop schema shed cascade")
        for (policy,) in kept:
            conn.execute(
                "insert into lapse.policy select (jsonb_populate_record(null::lapse.policy, %s)).*",
                [Jsonb(policy)],
            )
        conn.execute(
            "delete from lapse.policy_state; insert into lapse.policy_state select * from kept_state;"
            "drop table kept_state"
        )


def test_a_policy_that_fails_is_a_warning_then_a_failure_and_running_it_shows_that_it_is_mended(sheds):
    shed.policy(sheds, target=False, extra="raise exception 'the step is broken';")
    shed.fails(sheds, "call lapse.run('sweep')")
    trouble(sheds, "policies", "policy sweep failed, 1 in a row, .*: P0001: the step is broken", "warn")
    for _ in range(2):
        shed.fails(sheds, "call lapse.run('sweep')")
    command = trouble(sheds, "policies", "3 in a row", "fail")

    shed.step(sheds, "sweep")
    mend(sheds, command)

    assert level(sheds, "policies") == "ok"


def test_a_policy_whose_step_or_table_is_gone_is_a_failure(sheds):
    shed.policy(sheds)
    sheds.execute("alter table shed.things rename to others")
    mend(sheds, trouble(sheds, "policies", "works on table shed.things, which is gone"))
    assert level(sheds, "policies") == "ok"

    sheds.execute("alter table shed.others rename to things")
    shed.policy(sheds)
    sheds.execute("drop function shed.sweep")
    trouble(sheds, "policies", "policy sweep can't run: there is no function shed.sweep")


def test_a_policy_that_is_behind_is_told_from_one_whose_slot_is_still_to_come(sheds):
    shed.policy(sheds, every="1 hour")
    shed.add(sheds, 3, ago="90 min")
    assert level(sheds, "lag") == "ok"
    sheds.execute("update shed.things set due = due - interval '1 hour'")
    command = trouble(sheds, "lag", "policy sweep is behind: 3 rows are due, the oldest for 2 h 3", "warn")
    sheds.execute("update shed.things set due = due - interval '2 hours'")
    trouble(sheds, "lag", "policy sweep is behind", "fail")

    mend(sheds, command)

    assert level(sheds, "lag") == "ok"


def test_a_policy_that_the_brake_holds_is_a_failure_and_not_behind_as_well(sheds):
    shed.policy(sheds, every="10 s", p_max_fraction=Decimal("0.5"), p_brake_rows=0)
    shed.add(sheds, 3)
    with suppress(psycopg.Error):
        shed.run(sheds)

    mend(sheds, trouble(sheds, "policies", "policy sweep is braked for 0 s and takes nothing: 3 of 3 rows"))
    shed.run(sheds)

    assert (level(sheds, "policies"), shed.left(sheds)) == ("ok", [])
    sheds.execute("update lapse.policy_state set braked_at = now(), braked_rows = 1, braked_of = 1")
    shed.add(sheds, 1)
    assert level(sheds, "lag") == "ok"


def test_a_paused_policy_with_due_rows_is_a_warning(sheds):
    shed.policy(sheds)
    sheds.execute("select lapse.pause('sweep')")
    assert level(sheds, "lag") == "ok"
    shed.add(sheds, 2)

    mend(sheds, trouble(sheds, "lag", "policy sweep is paused, and 2 rows are due", "warn"))

    assert "is paused" not in str(said(sheds, "lag"))


def test_a_policy_that_nobody_serves_is_a_failure(sheds):
    shed.policy(sheds)
    command = trouble(sheds, "lag", "policy sweep was to run (59 min|1 h) ago", ahead=HOUR)

    mend(sheds, command)

    assert level(sheds, "lag") == "ok"


def test_rows_set_aside_are_a_warning_and_held_ones_are_none(sheds):
    shed.policy(sheds)
    [bad, held] = shed.add(sheds, 2)
    for key, retry in ((bad, "1 hour"), (held, "infinity")):
        sheds.execute(
            "insert into lapse.blocked_row (policy, key, error, run_id, retry_at, since)"
            " values ('sweep', %s, 'violates constraint c', 1, "
            + ("'infinity'" if retry == "infinity" else f"now() + interval '{retry}'")
            + ", now() - interval '2 hours')",
            [str(key)],
        )

    mend(
        sheds,
        trouble(
            sheds,
            "blocked_rows",
            f"sweep has set aside 1 rows, the first 2 h ago; row {bad}: violates",
            "warn",
        ),
    )
    shed.run(sheds)

    assert level(sheds, "blocked_rows") == "ok"
    assert shed.left(sheds) == [held]


def test_a_policy_without_its_index_is_a_failure_and_gets_it_back(sheds):
    shed.policy(sheds)
    assert level(sheds, "index_proofs") == "ok"
    sheds.execute("drop index shed.things_due")

    command = trouble(sheds, "index_proofs", "no index serves policy sweep: ")
    assert command.startswith("create index concurrently ")
    mend(sheds, command)

    assert level(sheds, "index_proofs") == "ok"


def test_a_target_that_is_locked_is_no_failure_of_its_index(sheds, dsn):
    shed.policy(sheds)
    with psycopg.connect(dsn) as other:
        other.execute("lock table shed.things in access exclusive mode")
        assert level(sheds, "index_proofs") == "warn"


def test_a_foreign_key_that_makes_deleting_slow_is_a_warning(sheds):
    shed.policy(sheds)
    sheds.execute("create table shed.parts (thing_id bigint references shed.things on delete cascade)")

    mend(sheds, trouble(sheds, "child_indexes", "shed.parts refers to shed.things by .*thing_id", "warn"))

    assert level(sheds, "child_indexes") == "ok"


def test_a_foreign_key_to_a_table_that_nothing_is_deleted_from_is_none(sheds):
    shed.policy(sheds)
    sheds.execute("create table shed.parts (thing_id bigint references shed.things)")
    (body,) = sheds.execute("select prosrc from pg_proc where oid = 'shed.sweep'::regproc").fetchone() or (
        "",
    )
    sheds.execute(
        "create or replace function shed.sweep(p_limit integer, p_cutoff timestamptz, p_after timestamptz)"
        " returns lapse.progress language plpgsql as $body$"
        + body.replace(
            "delete from shed.things as t using due as d",
            "update shed.things as t set kind = '' from due as d",
        )
        + "$body$"
    )

    assert level(sheds, "child_indexes") == "ok"


def test_row_security_that_hides_rows_from_the_one_who_cleans_up_is_a_failure(sheds):
    shed.policy(sheds)
    sheds.execute("alter table shed.things enable row level security")
    assert level(sheds, "row_security") == "ok"
    with role(sheds) as cleaner:
        sheds.execute(
            f"alter function shed.sweep security definer; alter function shed.sweep owner to {cleaner}"
        )
        try:
            mend(
                sheds,
                trouble(sheds, "row_security", f"hides rows from role {cleaner}, which runs policy sweep"),
            )
            assert level(sheds, "row_security") == "ok"
        finally:
            sheds.execute("alter function shed.sweep owner to current_user")


# ---- files and workers ------------------------------------------------------------------------------


def test_files_that_were_given_up_are_a_warning_and_are_tried_again(conn):
    with conn.transaction(force_rollback=True):
        enqueue(conn, "a", "b", storage="public")
        conn.execute("update lapse.file_cleanup_queue set dead_at = now(), last_error = 'the disk is gone'")
        mend(
            conn,
            trouble(conn, "queue", "2 files of storage public are given up, .*: the disk is gone", "warn"),
        )
        assert level(conn, "queue") == "ok"


def test_files_that_wait_although_a_worker_serves_them_are_noticed(conn):
    with conn.transaction(force_rollback=True):
        conn.execute("select lapse.worker_hello('w', 'h', 1, '1', '{public}')")
        enqueue(conn, "a", storage="public", at="now() - interval '20 min'")
        trouble(
            conn,
            "queue",
            "1 files of storage public are due, the oldest for 20 min, although 1 workers",
            "warn",
        )
        conn.execute(
            "update lapse.file_cleanup_queue set not_before = now() - interval '2 hours', last_error = 'EIO'"
        )
        trouble(conn, "queue", "although 1 workers serve it; the last error: EIO", "fail")


def test_a_worker_that_went_away_without_a_word_is_noticed_and_can_be_forgotten(conn):
    with conn.transaction(force_rollback=True):
        conn.execute("select lapse.worker_hello('w', 'h', 1, '1', '{public}')")
        assert level(conn, "workers") == "ok"
        trouble(
            conn,
            "workers",
            "no worker is alive: no file is deleted; the last was seen 5 min ago",
            ahead=timedelta(minutes=5),
        )
        mend(conn, trouble(conn, "workers", "worker w went away", "warn", timedelta(minutes=5)))
        trouble(conn, "workers", "no worker is alive")
        conn.execute("select lapse.worker_hello('x', 'h', 2, '1', '{public}')")
        assert level(conn, "workers") == "ok"


def test_workers_of_different_versions_are_noticed(conn):
    with conn.transaction(force_rollback=True):
        conn.execute(
            "select lapse.worker_hello(v, 'h', 1, v || '.0', '{}') from unnest('{1, 2}'::text[]) as v"
        )
        trouble(conn, "workers", "different versions are at work: 1.0, 2.0", "warn")


def test_storages_that_nobody_serves_and_those_in_trouble_are_told(conn):
    with conn.transaction(force_rollback=True):
        enqueue(conn, "a", storage="lonely")
        mend(conn, trouble(conn, "storages", "no worker has ever served storage lonely, and 1 of its files"))
        conn.execute("delete from lapse.file_cleanup_queue")

        conn.execute("select lapse.worker_hello('w', 'h', 1, '1', '{public, private}')")
        conn.execute(
            "select lapse.worker_beat('w', 0, 0, 0, false, %s)", [Jsonb({"public": "read-only file system"})]
        )
        trouble(conn, "storages", "storage public is away, and its files wait: read-only")
        conn.execute("select lapse.worker_beat('w', 0, 0, 0, false, '{}')")
        assert level(conn, "storages") == "ok"

        conn.execute(
            "insert into lapse.storage (name, last_served_at) values ('old', now() - interval '9 days')"
        )
        mend(
            conn,
            trouble(conn, "storages", "no living worker serves storage old, the last did 9 d ago", "warn"),
        )
        assert level(conn, "storages") == "ok"

        enqueue(conn, "b", storage="public")
        conn.execute("select lapse.worker_bye('w')")
        trouble(conn, "storages", "no living worker serves storage public, .*; 1 of its files are due")


def test_a_sweep_that_stopped_or_never_ended_is_told(conn):
    with conn.transaction(force_rollback=True):
        conn.execute("select lapse.worker_hello('w', 'h', 1, '1', '{public}')")
        conn.execute("select lapse.sweep_begin('public', '1 s')")
        assert level(conn, "sweeps") == "ok"
        command = trouble(
            conn, "sweeps", "storage public began 8 h ago and has not ended", "warn", timedelta(hours=8)
        )
        assert command == "pglapse sweep --storage public"
        found: dict[str, Any] = {"files": 7, "orphans": 5, "queued": 0, "stopped": "5 files would go"}
        conn.execute("select lapse.sweep_end('public', %s)", [Jsonb(found)])
        command = trouble(conn, "sweeps", "stopped: 5 files would go", "warn")
        assert command.startswith("pglapse sweep --dry-run --storage public")
        conn.execute("select lapse.sweep_end('public', %s)", [Jsonb(found | {"stopped": None})])
        assert said(conn, "sweeps")[0][:2] == ("ok", "public: 0 s ago, 7 files, 5 orphans, 0 queued")


# ---- the server and its tables ----------------------------------------------------------------------


def test_who_holds_an_old_snapshot_is_named_and_can_be_ended(conn, dsn):
    with closing(psycopg.connect(dsn, application_name="report", autocommit=True)) as other:
        other.execute("begin isolation level repeatable read; select 1")
        pid = other.info.backend_pid
        assert f"process {pid} of role" in said(conn, "snapshots")[0][1]
        trouble(
            conn,
            "snapshots",
            f"process {pid} .*report, idle in transaction.* for 20 min",
            "warn",
            timedelta(minutes=20),
        )
        command = trouble(conn, "snapshots", f"process {pid} ", "fail", 2 * HOUR)

        mend(conn, command)

        until(lambda: level(conn, "snapshots", 2 * HOUR) == "ok", what="the session to be gone")


def test_what_an_observer_can_not_see_of_others_is_said(conn):
    with role(conn) as observer:
        conn.execute("select lapse.grant_observer(%s)", [observer])
        conn.execute(f"set role {observer}")
        try:
            with psycopg.connect(conn.info.dsn, autocommit=True) as plain:
                plain.execute(f"set role {observer}")
                direct = plain.execute(
                    "select message from lapse.doctor_snapshots(now()) where level = 'ok'"
                ).fetchone()
        finally:
            conn.execute("reset role")

    assert direct is not None
    assert "not to be seen" in direct[0]


def test_a_prepared_transaction_that_was_forgotten_is_named(conn, dsn):
    if shed.one(conn, "select current_setting('max_prepared_transactions')") == "0":
        pytest.skip("this server prepares no transactions")
    with psycopg.connect(dsn, autocommit=True) as other:
        other.execute("begin; create table public.prepared (); prepare transaction 'it''s lost'")

    command = trouble(
        conn, "snapshots", "transaction it's lost of role .* was prepared", "warn", timedelta(minutes=20)
    )
    mend(conn, command)

    assert not [line for line in said(conn, "snapshots", timedelta(minutes=20)) if "it's lost" in line[1]]


def test_autovacuum_that_is_off_for_a_table_of_ours_is_a_failure(conn):
    with conn.transaction(force_rollback=True):
        conn.execute("alter table lapse.file_cleanup_queue set (autovacuum_enabled = off)")
        mend(conn, trouble(conn, "autovacuum", "off for table lapse.file_cleanup_queue"))
        assert level(conn, "autovacuum") == "ok"


def test_dead_rows_that_pile_up_are_noticed_and_vacuumed(sheds):
    shed.policy(sheds)
    sheds.execute("alter table shed.things set (autovacuum_vacuum_threshold = 100000000)")
    shed.add(sheds, 10_500, ago="-1 day")
    sheds.execute("delete from shed.things")
    sheds.execute("select pg_stat_force_next_flush()")

    until(lambda: level(sheds, "autovacuum") == "warn", what="the statistics to tell of dead rows")
    mend(sheds, trouble(sheds, "autovacuum", "shed.things has 10500 dead rows beside", "warn"))

    sheds.execute("select pg_stat_force_next_flush()")
    until(lambda: level(sheds, "autovacuum") == "ok", what="the statistics to tell of the vacuum")


def test_an_index_that_a_broken_build_left_is_found_and_rebuilt(sheds):
    shed.policy(sheds)
    sheds.execute("update pg_index set indisvalid = false where indexrelid = 'shed.things_due'::regclass")

    mend(
        sheds, trouble(sheds, "invalid_indexes", "index shed.things_due on shed.things is not valid", "warn")
    )

    assert level(sheds, "invalid_indexes") == "ok"


# ---- triggers and references -------------------------------------------------------------------------


def test_a_trigger_that_is_switched_off_is_a_failure(conn):
    with conn.transaction(force_rollback=True):
        conn.execute("alter table market.tasks disable trigger queue_files_of_tasks")
        mend(conn, trouble(conn, "triggers", "queue_files_of_tasks on market.tasks is switched off"))
        assert level(conn, "triggers") == "ok"


def test_triggers_of_statistics_count_as_ours_and_strangers_do_not(conn):
    with conn.transaction(force_rollback=True):
        conn.execute("alter table market.tasks disable trigger count_tasks_delete")
        trouble(conn, "triggers", "count_tasks_delete on market.tasks is switched off")
        conn.execute("alter table market.tasks enable trigger count_tasks_delete")
        conn.execute(
            "create function public.mine() returns trigger language plpgsql as $$ begin return null; end $$;"
            "create trigger mine after delete on market.tasks execute function public.mine();"
            "alter table market.tasks disable trigger mine"
        )
        assert level(conn, "triggers") == "ok"


@pytest.mark.parametrize(
    "place", ["role {role} in database {database}", "role {role}", "database {database}"]
)
def test_a_setting_under_which_no_trigger_fires_is_a_failure(conn, place):
    with role(conn) as somebody, conn.transaction(force_rollback=True):  # others' doctors would see it, too
        where = place.format(role=somebody, database=conn.info.dbname)
        conn.execute(f"alter {where} set session_replication_role = replica")
        mend(conn, trouble(conn, "triggers", "session_replication_role is replica for"))
        assert level(conn, "triggers") == "ok"


PARTS = """
create schema parts;
create function parts.queue_files() returns trigger language plpgsql security definer
    set search_path = pg_catalog, pg_temp as $$
begin
    perform lapse.enqueue_file('s', g.path) from gone as g;
    return null;
end $$;
create table parts."Up loads" (id int, at date, path text) partition by range (at);
create table parts.y25 partition of parts."Up loads" for values from ('2025-01-01') to ('2026-01-01');
create trigger queue_files after delete on parts."Up loads" referencing old table as gone
    for each statement execute function parts.queue_files();
create trigger queue_files after delete on parts.y25 referencing old table as gone
    for each statement execute function parts.queue_files();
"""


def test_a_partition_that_was_made_later_is_found_and_gets_its_sisters_triggers(conn):
    with conn.transaction(force_rollback=True):
        conn.execute(PARTS)
        assert level(conn, "partitions") == "ok"
        conn.execute(
            'create table parts."y 26" partition of parts."Up loads"'
            " for values from ('2026-01-01') to ('2027-01-01')"
        )
        conn.execute("""insert into parts."Up loads" values (1, '2026-05-05', 'a')""")

        mend(conn, trouble(conn, "partitions", """parts."y 26" has not the trigger queue_files"""))

        assert level(conn, "partitions") == "ok"
        conn.execute('delete from parts."y 26"')
        assert shed.column(conn, "select path from lapse.file_cleanup_queue where storage = 's'") == ["a"]


def test_a_table_that_refers_to_files_and_that_no_source_asks_is_a_warning(conn):
    with conn.transaction(force_rollback=True):
        conn.execute(
            "create table public.letter"
            " (id int, upload_id bigint constraint kept references market.temp_uploads)"
        )
        conn.execute("comment on constraint kept on public.letter is 'Mine.'")

        command = trouble(conn, "foreign_keys", "public.letter refers to market.temp_uploads, .*kept", "warn")
        mend(conn, command)

        assert level(conn, "foreign_keys") == "ok"
        comment = shed.one(
            conn, "select obj_description(oid, 'pg_constraint') from pg_constraint where conname = 'kept'"
        )
        assert comment.startswith("Mine. pglapse: ")


def test_a_table_that_a_source_asks_may_refer_to_files(conn):
    with conn.transaction(force_rollback=True):
        conn.execute("create table public.letter (id int, upload_id bigint references market.temp_uploads)")
        conn.execute(
            "create function public.in_use(text[], text[])"
            " returns table (storage text, path text, until timestamptz)"
            " language sql security definer as $$ select '', '', now() from public.letter where false $$"
        )
        conn.execute("select lapse.register_file_source('letters', 'public.in_use')")

        assert level(conn, "foreign_keys") == "ok"


ATTACHED = """
create table public.photos (id bigint primary key, file text, state text not null default 'shown');
create index on public.photos (lapse.path_digest(file));
create table public.albums (id int, cover bigint references public.photos);
create index on public.albums (cover);
"""


def test_an_attached_table_that_lost_a_trigger_is_a_failure_and_gets_it_back(conn):
    with conn.transaction(force_rollback=True):
        conn.execute(ATTACHED)
        conn.execute("select lapse.worker_hello('w', 'h', 1, '1', '{public}')")
        conn.execute("select lapse.attach_files('public.photos', 'file', p_storage => 'public')")
        assert [level(conn, check) for check in ("attachments", "partitions", "triggers")] == ["ok"] * 3
        [[name]] = conn.execute(
            "select tgname from pg_trigger where tgname like 'lapse_files_photos%delete'"
        ).fetchall()
        conn.execute(f"drop trigger {name} on public.photos")

        mend(conn, trouble(conn, "attachments", "public.photos.file: changes of .* queue no file"))

        assert level(conn, "attachments") == "ok"


def test_who_refers_to_an_attached_table_is_asked_only_where_a_row_can_outlive_its_file(conn):
    with conn.transaction(force_rollback=True):
        conn.execute(ATTACHED)
        conn.execute("select lapse.attach_files('public.photos', 'file', p_storage => 'public')")
        assert level(conn, "foreign_keys") == "ok"
        conn.execute(
            "select lapse.attach_files('public.photos', 'file', p_storage => 'public',"
            " p_live_when => $$state = 'shown'$$, p_replace => true)"
        )
        mend(conn, trouble(conn, "foreign_keys", "public.albums refers to public.photos", "warn"))
        assert level(conn, "foreign_keys") == "ok"


def test_a_state_that_nothing_names_is_a_warning_until_somebody_says_that_it_may_stay(sheds):
    shed.policy(sheds)
    shed.add(sheds, 2)
    assert level(sheds, "statuses") == "ok"
    sheds.execute("update shed.things set status = 'archi''ved' where id = (select min(id) from shed.things)")

    command = trouble(sheds, "statuses", "shed.things has rows whose status is 'archi''ved'", "warn")
    mend(sheds, command)

    assert level(sheds, "statuses") == "ok"
    assert "archi''ved" in shed.one(sheds, "select description from lapse.policy where name = 'sweep'")


def test_a_view_that_took_a_targets_place_is_not_read_with_the_owners_rights(sheds):
    shed.policy(sheds)
    sheds.execute(
        "drop table shed.things;"
        "create function shed.planted() returns text language plpgsql"
        " as $$ begin raise exception 'read as %', current_user; end $$;"
        "create view shed.things as"
        " select 1::bigint as id, now() as due, 'thing' as kind, shed.planted() as status"
    )
    try:
        assert said(sheds, "statuses")[0][0] == "ok"
        assert "read as" not in str(said(sheds))
    finally:
        sheds.execute("drop view shed.things")


def test_a_table_that_the_engine_may_not_read_blinds_it_to_no_other(sheds):
    conn = sheds
    shed.policy(conn)
    conn.execute("insert into shed.things (due, status) values (now(), 'frozen')")
    with role(conn) as owner, role(conn) as engine:
        conn.execute(
            f"create schema ours authorization {owner}; grant usage on schema ours, lapse, shed to {engine};"
            f"create table ours.a (id int primary key, due timestamptz, status text);"
            f"alter table ours.a owner to {owner}; select lapse.grant_author('{owner}');"
            f"grant select on shed.things, lapse.policy, ours.a to {engine};"
            f"grant execute on all routines in schema lapse to {engine};"
            f"set role {owner};"
            "select lapse.create_expiry('ours', 'ours.a', 'due', p_predicate => $$status = 'x'$$,"
            " p_index => 'build'); reset role"
        )
        try:
            looked = []
            for change in (
                "select",
                f"revoke select on ours.a from {engine}",
                f"grant select on ours.a to {engine};"
                f" create function ours.odd(int) returns int immutable language sql as 'select 1';"
                f" alter function ours.odd owner to {owner}; create index on ours.a (ours.odd(id))",
            ):
                conn.execute(change)
                conn.execute(f"set role {engine}")
                looked.append(
                    conn.execute("select level, message from lapse.doctor_statuses(now())").fetchall()
                )
                conn.execute("reset role")
        finally:
            conn.execute("reset role; select lapse.drop_policy('ours')")

    unseen = "; not looked at, since their rows are not the engine's to read: ours.a"
    for lines, remark in zip(looked, ("", unseen, unseen), strict=True):
        assert lines[0][0] == "warn"
        assert "shed.things has rows whose status is 'frozen'" in lines[0][1]
        assert (lines[-1][0], lines[-1][1].partition(";")[2]) == ("ok", remark[1:])


def test_a_table_of_an_odd_name_is_read_all_the_same(sheds):
    sheds.execute(
        """create table shed."odd(name '" (id int primary key, due timestamptz not null, "st*te" text);"""
        """insert into shed."odd(name '" values (1, now(), 'lost')"""
    )
    shed.policy(
        sheds,
        target=False,
        p_target="""shed."odd(name '\"""",
        p_key_columns=["id"],
        p_due_column="due",
        p_predicate="""t."st*te" = 'known'""",
    )

    assert "whose st*te is 'lost'" in said(sheds, "statuses")[0][1]


@pytest.mark.parametrize(
    ("text", "word"),
    [("a-b_1.c/d=e", "a-b_1.c/d=e"), ("", "''"), ("a b", "'a b'"), ("it's; rm", "'it'\\''s; rm'")],
)
def test_names_are_one_word_for_a_shell(conn, text, word):
    assert shed.one(conn, "select lapse.shell_word(%s)", text) == word


def test_the_marketplaces_states_are_all_named(conn):
    with conn.transaction(force_rollback=True):
        conn.execute(
            "set local session_replication_role = replica"
        )  # rows as they are, whatever triggers want
        conn.execute("alter table market.tasks drop constraint tasks_times_fit_status")
        conn.execute("insert into market.users (email, display_name) values ('a@example.org', 'ann')")
        conn.execute(
            "insert into market.coupons (code, status)"
            " select v, v from unnest('{active,used,expired}'::text[]) as v"
        )
        conn.execute(
            "insert into market.tasks (poster_id, title, status)"
            " select u.id, v, v"
            "   from market.users as u, unnest('{open,taken,completed,cancelled}'::text[]) as v"
        )
        assert said(conn, "statuses")[0][:2] == (
            "ok",
            "4 status columns of policies' targets: each value is named by a policy or a rule",
        )
        conn.execute("alter table market.tasks drop constraint tasks_status_check")
        conn.execute("update market.tasks set status = 'frozen' where status = 'taken'")
        trouble(conn, "statuses", "market.tasks has rows whose status is 'frozen'", "warn")


# ---- rights -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("grant", "right", "words"),
    [
        ("grant_worker", "execute on routine lapse.renew_files", "call lapse.renew_files"),
        ("grant_runner", "execute on routine lapse.raise_failures", "call lapse.raise_failures"),
        ("grant_application", "execute on routine lapse.cancel_file", "call lapse.cancel_file"),
        ("grant_application", "insert (expected) on lapse.file_cleanup_queue", "insert into lapse.file_c"),
        ("grant_observer", "execute on routine lapse.doctor_span", "call lapse.doctor_span"),
        ("grant_observer", "select on lapse.queue_detail", "read lapse.queue_detail"),
        ("grant_author", "execute on routine lapse.due_shift", "call lapse.due_shift"),
        ("grant_author", "select on lapse.own_blocked_row", "read lapse.own_blocked_row"),
        ("grant_author", "insert (generation) on lapse.file_cleanup_queue", "insert into lapse.file_c"),
        ("grant_author", "usage on schema lapse", "use schema lapse"),
    ],
)
def test_a_role_that_lost_a_right_of_its_job_is_a_failure(conn, grant, right, words):
    with role(conn) as worker:
        conn.execute(f"select lapse.{grant}(%s)", [worker])
        assert level(conn, "grants") == "ok"
        conn.execute(f"revoke {right} from {worker}")

        mend(conn, trouble(conn, "grants", f"role {worker} may not {re.escape(words)}"))

        assert level(conn, "grants") == "ok"


def test_an_owner_whose_steps_lost_a_right_is_a_failure(conn):
    """Also one that may not declare policies any more: those that it declared run on."""
    with role(conn) as owner:
        conn.execute(f"create schema ours authorization {owner}; select lapse.grant_author('{owner}')")
        conn.execute(
            f"set role {owner}; create table ours.things (id int primary key, due timestamptz);"
            "select lapse.create_expiry('ours', 'ours.things', 'due', p_index => 'build'); reset role"
        )
        try:
            conn.execute(f"revoke all on all routines in schema lapse from {owner}")

            mend(conn, trouble(conn, "grants", f"role {owner} may not call lapse.blocked_keys"))

            assert level(conn, "grants") == "ok"
            conn.execute("call lapse.run('ours')")
        finally:
            conn.execute("select lapse.drop_policy('ours')")
