"""Reads show what is so by now and never fail for a clean-up; what every event missed is found in the end."""

import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from tests.support import databases
from tests.support.market import (
    HOUR,
    NUMBER,
    SECOND,
    add,
    add_file,
    add_task,
    add_user,
    claim,
    column,
    due_now,
    emptied,
    now,
    queue,
    raises,
    value,
)

KEPT = timedelta(hours=72)
MICROSECOND = timedelta(microseconds=1)
QUEUED = ["queued", "dead"]
REQUEUE = "select handled from market.requeue_task_files(%s, now(), '-infinity')"


@pytest.fixture
def conn(shared: str) -> Iterator[psycopg.Connection]:
    """An autocommit connection to an empty marketplace."""
    with psycopg.connect(shared, autocommit=True, options="-c search_path=") as connection:
        yield emptied(connection)


@pytest.fixture
def other(conn: psycopg.Connection, shared: str) -> Iterator[psycopg.Connection]:
    """A second connection, with transactions that a test ends itself."""
    with psycopg.connect(shared) as connection:
        yield connection


def add_finished(
    conn: psycopg.Connection, *paths: str, ago: timedelta = KEPT, status: str = "completed"
) -> int:
    """A task that ended a while ago, whose files nothing queued: as from a dump, say."""
    ended = now(conn) - ago
    column_of = {"completed": "completed_at", "cancelled": "cancelled_at"}[status]
    with conn.transaction():
        conn.execute("set local session_replication_role = replica")
        task = add_task(
            conn,
            status=status,
            **{column_of: ended},
            files_go_at=ended + (KEPT if status == "completed" else timedelta(0)),
        )
        for path in paths:
            add_file(conn, task, path)
        conn.execute("set local session_replication_role = origin")
    return task


def get(conn: psycopg.Connection, task: int, at: Any = None) -> tuple[Any, ...]:
    row = conn.execute(
        "select id, status, cancelled_at, cancel_reason from market.get_task(%s, coalesce(%s, now()))",
        [task, at],
    ).fetchone()
    assert row is not None
    return row


@contextmanager
def soon() -> Iterator[None]:
    """The block takes no longer than a machine under load needs for 50 ms."""
    began = time.monotonic()
    yield
    assert time.monotonic() - began < 2


# Reading a task


def test_a_task_is_read_as_it_is(tx: psycopg.Connection) -> None:
    task = add_task(tx, deadline=now(tx) + HOUR)
    cancelled = add_task(tx, status="cancelled", cancel_reason="x")

    assert (
        tx.execute("select * from market.get_task(%s)", [task]).fetchone()
        == tx.execute("select * from market.tasks where id = %s", [task]).fetchone()
    )
    assert get(tx, cancelled) == (cancelled, "cancelled", now(tx), "x")


def test_an_unknown_task_and_no_task_are_refused(tx: psycopg.Connection) -> None:
    for arguments, code in [((0, None), "LP101"), ((None, None), "LP108")]:
        with raises(code), tx.transaction():
            get(tx, *arguments)


@pytest.mark.parametrize("zone", ["Asia/Tokyo", "America/New_York"])
def test_an_open_task_past_its_deadline_reads_as_cancelled_with_every_policy_paused(
    tx: psycopg.Connection, zone: str
) -> None:
    tx.execute("select lapse.pause(name) from lapse.policy")
    tx.execute("select set_config('timezone', %s, true)", [zone])
    task = add_task(tx, deadline="2026-11-01 01:30-05")  # the hour that New York has twice
    taken = add_task(tx, deadline="2026-11-01 01:30-05", status="taken")
    end = value(tx, "select deadline from market.tasks where id = %s", task)

    assert get(tx, task, end - MICROSECOND) == (task, "open", None, None)
    assert get(tx, task, end) == (task, "cancelled", end, "deadline")
    assert get(tx, taken, end + HOUR) == (taken, "taken", None, None)
    assert value(tx, "select status from market.tasks where id = %s", task) == "open"


@pytest.mark.parametrize("status", ["completed", "cancelled"])
def test_reading_a_finished_task_queues_files_that_nothing_queued(
    tx: psycopg.Connection, status: str
) -> None:
    task = add_finished(tx, "a", "b", "removed", "queued", "dead", ago=KEPT + HOUR, status=status)
    tx.execute("update market.task_files set removed_at = now() where path = 'removed'")
    tx.execute(
        "select lapse.enqueue_file('public', f, now() + interval '1 day') from unnest(%s::text[]) as f",
        [QUEUED],
    )
    tx.execute("update lapse.file_cleanup_queue set dead_at = now() where path = 'dead'")
    before = {path: at for path, at in queue(tx).items() if path[7:] in {"queued", "dead"}}

    get(tx, task)
    get(tx, task)

    goes = value(tx, "select files_go_at from market.tasks where id = %s", task)
    assert queue(tx) == {"public:a": goes, "public:b": goes} | before
    assert tx.execute(
        "select reason, source_table, dead_at is null from lapse.file_cleanup_queue where path = 'a'"
    ).fetchone() == ("lazy check", "market.task_files", True)
    assert value(tx, "select dead_at is not null from lapse.file_cleanup_queue where path = 'dead'")


def test_reading_a_task_queues_nothing_before_its_time(tx: psycopg.Connection) -> None:
    recent = add_finished(tx, "recent", ago=KEPT - HOUR)
    live = add_task(tx, deadline=now(tx) - HOUR)
    add_file(tx, live, "live")
    goes = value(tx, "select files_go_at from market.tasks where id = %s", recent)

    get(tx, live)
    get(tx, recent)
    get(tx, recent, goes - MICROSECOND)
    assert queue(tx) == {}
    get(tx, recent, goes)
    assert queue(tx) == {"public:recent": goes}


@pytest.mark.parametrize("zone", ["Asia/Tokyo", "America/New_York"])
def test_3_days_are_72_hours_across_a_change_of_the_clocks(tx: psycopg.Connection, zone: str) -> None:
    tx.execute("select set_config('timezone', %s, true)", [zone])
    task = add_task(tx, status="completed", completed_at="2026-03-07 12:00-05")
    add_file(tx, task, "a")
    tx.execute("truncate lapse.file_cleanup_queue")

    get(tx, task, "2026-03-10 11:59-05")
    assert queue(tx) == {}
    get(tx, task, "2026-03-10 12:00-05")
    assert set(queue(tx)) == {"public:a"}


def test_a_file_that_something_else_needs_is_not_queued_again_and_again(tx: psycopg.Connection) -> None:
    task = add_finished(tx, *(f"shared {number}" for number in range(5)), "upload", "lost", ago=2 * KEPT)
    live = add_task(tx)
    for number in range(5):
        add_file(tx, live, f"shared {number}")
    add(tx, "temp_uploads", user_id=add_user(tx), storage="public", path="upload")

    get(tx, task)
    assert set(queue(tx)) == {"public:lost"}
    tx.execute("truncate lapse.file_cleanup_queue")
    assert value(tx, REQUEUE, 2) == 1, "also where more are needed than the limit"
    assert set(queue(tx)) == {"public:lost"}

    tx.execute("select market.cancel_task(%s)", [live])
    assert len(queue(tx)) == 6, "it is queued when the other task ends"


# ... never fails


@pytest.mark.parametrize("level", ["read committed", "repeatable read", "serializable"])
def test_a_transaction_of_any_kind_reads(
    conn: psycopg.Connection, other: psycopg.Connection, level: str
) -> None:
    task = add_finished(conn, "a")

    other.execute(f"set transaction isolation level {level}, read only")
    assert get(other, task)[1] == "completed"
    other.rollback()
    assert queue(conn) == {}

    other.execute(f"set transaction isolation level {level}")
    assert get(other, task)[1] == "completed"
    other.commit()
    # A serializable reader that wrote could fail at its end, where nothing can be caught.
    assert set(queue(conn)) == (set() if level == "serializable" else {"public:a"})


def test_two_serializable_readers_of_one_task_both_commit(
    conn: psycopg.Connection, other: psycopg.Connection, shared: str
) -> None:
    task = add_finished(conn, "a")
    with psycopg.connect(shared) as third:
        for reader in [other, third]:
            reader.execute("set transaction isolation level serializable")
            get(reader, task)
        other.commit()
        third.commit()


def test_a_reader_does_not_fail_at_its_end_for_a_deferred_trigger(conn: psycopg.Connection) -> None:
    task = add_finished(conn, "a")
    conn.execute(
        "create function public.refuse() returns trigger language plpgsql as $$ begin raise 'no'; end $$"
    )
    conn.execute(
        "create constraint trigger refuse after insert on lapse.file_cleanup_queue"
        " deferrable initially deferred for each row execute function public.refuse()"
    )
    try:
        assert get(conn, task)[1] == "completed"
    finally:
        conn.execute("drop function public.refuse cascade")


def test_a_reader_without_any_right_on_the_queue_reads(conn: psycopg.Connection) -> None:
    task = add_finished(conn, "a")
    role = f"pglapse_{secrets.token_hex(5)}"
    with conn.transaction(force_rollback=True):
        conn.execute(f"create role {role}")
        conn.execute(f"grant usage, create on schema market to {role}")
        conn.execute(f"grant select on market.tasks to {role}")
        conn.execute(f"alter function market.get_task owner to {role}")
        assert get(conn, task)[1] == "completed"
        assert queue(conn) == {}


@pytest.mark.parametrize(
    "damage",
    [
        "alter table lapse.file_cleanup_queue add constraint full_disk check (false) not valid",
        "alter table lapse.file_cleanup_queue rename to gone",
        "drop function lapse.enqueue_file",
        "drop function market.queue_forgotten_files",
        "alter table market.task_files rename to gone",
    ],
)
def test_whatever_is_broken_in_the_queue_the_task_is_read(tx: psycopg.Connection, damage: str) -> None:
    task = add_finished(tx, "a")
    tx.execute(damage)

    assert get(tx, task)[1] == "completed"


@pytest.mark.parametrize(
    "hold",
    [
        "select lapse.enqueue_files(array("
        "  select row('public', f, now(), 'x', null, null, null)::lapse.file_request"
        "    from unnest('{a,b,c}'::text[]) as f))",
        "lock table lapse.file_cleanup_queue in access exclusive mode",
        "lock table market.task_files in access exclusive mode",
    ],
)
def test_a_lock_that_somebody_holds_is_waited_for_a_moment_only(
    conn: psycopg.Connection, other: psycopg.Connection, hold: str
) -> None:
    task = add_finished(conn, "a", "b", "c")
    other.execute(hold)

    with soon():
        assert get(conn, task)[1] == "completed"
    assert value(conn, "show lock_timeout") == "0", "the caller's own setting is as it was"
    other.rollback()

    get(conn, task)
    assert set(queue(conn)) == {"public:a", "public:b", "public:c"}


def test_a_statement_timeout_that_strikes_in_there_is_no_failure(tx: psycopg.Connection) -> None:
    task = add_finished(tx, "a")
    tx.execute(
        "create function public.dawdle() returns trigger language plpgsql as"
        " $$ begin perform pg_sleep(60); return new; end $$"
    )
    tx.execute(
        "create trigger dawdle before insert on lapse.file_cleanup_queue"
        " for each row execute function public.dawdle()"
    )

    tx.execute("set local statement_timeout = '1 s'")
    assert get(tx, task)[1] == "completed"


def test_of_two_who_read_at_once_one_queues_and_neither_holds_up_a_writer(
    conn: psycopg.Connection, other: psycopg.Connection
) -> None:
    task = add_finished(conn, "a")
    conn.execute("set lock_timeout = '5 s'")

    get(other, task)
    with soon(), conn.transaction():
        get(conn, task)
        assert value(conn, "select pg_current_xact_id_if_assigned()") is None, "it did not even try"
    conn.execute("select market.reopen_task(%s)", [task])  # does not wait for the reader's transaction
    other.commit()

    assert set(queue(conn)) == {"public:a"}, "queued by a reader who did not see that the task came back"
    assert claim(conn) == {}, "and kept all the same"
    assert queue(conn) == {}


# Views


def rows(conn: psycopg.Connection, view: str) -> set[int]:
    return set(column(conn, f"select id from market.{view}"))


def test_views_show_what_has_not_lapsed_with_every_policy_paused(tx: psycopg.Connection) -> None:
    tx.execute("select lapse.pause(name) from lapse.policy")
    user, at = add_user(tx), now(tx)

    def code() -> str:
        return f"code {next(NUMBER)}"

    live: dict[str, set[int]] = {}
    for due in [None, "infinity", at + MICROSECOND, at + 900 * HOUR]:
        live.setdefault("live_coupons", set()).add(add(tx, "coupons", code=code(), valid_until=due))
        live.setdefault("live_invitation_codes", set()).add(
            add(tx, "invitation_codes", code=code(), valid_until=due)
        )
        live.setdefault("live_point_grants", set()).add(
            add(tx, "point_grants", user_id=user, amount=5, expires_at=due)
        )
        live.setdefault("open_tasks", set()).add(add_task(tx, user, deadline=due))
    for due in [at, at - SECOND, "-infinity"]:
        add(tx, "coupons", code=code(), valid_until=due)
        add(tx, "invitation_codes", code=code(), valid_until=due)
        add(tx, "point_grants", user_id=user, amount=5, expires_at=due)
        add_task(tx, user, deadline=due)
    for status in ["used", "expired"]:
        add(tx, "coupons", code=code(), status=status)
    add(tx, "invitation_codes", code=code(), status="exhausted")
    add(tx, "invitation_codes", code=code(), status="expired")
    add(tx, "invitation_codes", code=code(), max_uses=2, use_count=2)
    add(tx, "point_grants", user_id=user, amount=5, remaining=0)
    for status in ["taken", "completed", "cancelled"]:
        add_task(tx, user, status=status)

    assert {view: rows(tx, view) for view in live} == live
    assert value(tx, "select sum(remaining) from market.live_point_grants") == value(
        tx, "select market.point_balance(%s)", user
    )


def nodes(plan: Any) -> Iterator[tuple[str, str]]:
    """Every node of a plan: its type, and the index it goes through."""
    yield plan["Node Type"], plan.get("Index Name", "")
    for part in plan.get("Plans", []):
        yield from nodes(part)


@pytest.fixture(scope="module")
def crowded(server: str, template: str) -> Iterator[psycopg.Connection]:
    """A marketplace with a past: few rows of each table are live."""
    with (
        databases.database(server, template) as dsn,
        psycopg.connect(dsn, autocommit=True, options="-c search_path=") as conn,
    ):
        with conn.transaction():
            conn.execute("set local session_replication_role = replica")
            for table, columns, live, done in [
                ("coupons", "code, user_id, valid_until, status) select 'c' || g, g,", "'active'", "'used'"),
                ("invitation_codes", "code, owner_id, valid_until, status) select 'c' || g, g,",
                 "'active'", "'expired'"),
                ("point_grants", "amount, user_id, expires_at, remaining) select 1, mod(g, 1000),", "1", "0"),
                ("tasks", "title, poster_id, deadline, status) select 'x', mod(g, 1000),",
                 "'open'", "'taken'"),
            ]:  # fmt: skip
                conn.execute(
                    f"insert into market.{table} ({columns} now() + interval '1 h' * (mod(g, 200) - 50),"
                    f" case when mod(g, 100) = 0 then {live} else {done} end"
                    "   from generate_series(1, 20000) as g"
                )
        for table in ["coupons", "invitation_codes", "point_grants", "tasks"]:
            conn.execute(f"vacuum (analyze) market.{table}")
        yield conn


@pytest.mark.parametrize(
    ("query", "index"),
    [
        ("live_coupons", "coupons_due"),
        ("live_coupons where code = 'c7'", "coupons_code_key"),
        ("live_coupons where user_id = 7", "coupons_user"),
        ("live_invitation_codes", "invitation_codes_due"),
        ("live_invitation_codes where code = 'c7'", "invitation_codes_code_key"),
        ("live_invitation_codes where owner_id = 7", "invitation_codes_owner"),
        ("live_point_grants", "point_grants_due"),
        ("live_point_grants where user_id = 7", "point_grants_spendable"),
        ("open_tasks", "tasks_due"),
        ("open_tasks order by deadline limit 10", "tasks_due"),
        ("open_tasks where poster_id = 7", "tasks_poster"),
        ("open_tasks where id = 7", "tasks_pkey"),
    ],
)
def test_a_view_uses_the_indexes(crowded: psycopg.Connection, query: str, index: str) -> None:
    plan = value(crowded, f"explain (format json) select * from market.{query}")[0]["Plan"]

    used = set(nodes(plan))
    assert index in {name for _, name in used}, used
    assert "Seq Scan" not in {kind for kind, _ in used}, used


# The backstop


def test_the_backstop_queues_what_nothing_queued_and_nothing_else(tx: psycopg.Connection) -> None:
    completed = add_finished(tx, "completed 1", "completed 2", "removed", "queued", "dead", ago=KEPT)
    add_finished(tx, "recent", ago=KEPT - MICROSECOND)
    add_finished(tx, "cancelled", ago=timedelta(0), status="cancelled")
    for path, status in [("open", "open"), ("taken", "taken")]:
        add_file(tx, add_task(tx, status=status, deadline=now(tx) - HOUR), path)
    tx.execute("update market.task_files set removed_at = now() where path = 'removed'")
    tx.execute(
        "select lapse.enqueue_file('public', f, now() + interval '1 day') from unnest(%s::text[]) as f",
        [QUEUED],
    )
    tx.execute("update lapse.file_cleanup_queue set dead_at = now() where path = 'dead'")
    before = queue(tx)

    assert tx.execute("select * from market.requeue_task_files(10, now(), '-infinity')").fetchone() == (
        3,
        3,
        now(tx),
    )

    goes = value(tx, "select files_go_at from market.tasks where id = %s", completed)
    found = {"public:completed 1": goes, "public:completed 2": goes, "public:cancelled": now(tx)}
    assert queue(tx) == found | before
    assert value(tx, REQUEUE, 10) == 0
    assert set(column(tx, "select reason from lapse.file_cleanup_queue where path ~ 'c'")) == {"backstop"}


def test_it_runs_each_week_and_finds_what_a_disabled_trigger_and_a_truncated_queue_left(
    conn: psycopg.Connection,
) -> None:
    assert conn.execute(
        "select every, at_time::text, time_zone, enabled from lapse.policy where name = 'requeue_task_files'"
    ).fetchall() == [(timedelta(days=7), "04:30:00", "UTC", True)]
    add_file(conn, add_task(conn, status="cancelled"), "truncated")
    conn.execute("truncate lapse.file_cleanup_queue")
    task = add_task(conn)
    add_file(conn, task, "unseen")
    with conn.transaction():
        conn.execute("alter table market.tasks disable trigger queue_files_of_tasks")
        conn.execute("update market.tasks set status = 'cancelled' where id = %s", [task])
        conn.execute("alter table market.tasks enable trigger queue_files_of_tasks")

    due_now(conn, "requeue_task_files")
    conn.execute("call lapse.run_due()")

    assert set(queue(conn)) == {"public:truncated", "public:unseen"}
    assert conn.execute("select policy, status, handled from lapse.run_log").fetchall() == [
        ("requeue_task_files", "ok", 2)
    ]


def test_it_goes_in_batches_and_a_pass_goes_on_where_it_stopped(tx: psycopg.Connection) -> None:
    add_finished(tx, *(f"of one task {number}" for number in range(7)), ago=2 * KEPT)
    for number in range(5):
        add_finished(tx, f"{number}", ago=KEPT + number * HOUR)

    assert [value(tx, REQUEUE, 3) for _ in range(5)] == [3, 3, 3, 3, 0]
    assert len(queue(tx)) == 12

    tx.execute("truncate lapse.file_cleanup_queue")
    tx.execute(
        "create or replace function lapse.statement_time_left() returns interval"
        " language sql as $$ select interval '0' $$"
    )
    tx.execute("set local session_replication_role = replica")
    tx.execute(
        "insert into market.tasks (poster_id, title, status, cancelled_at, files_go_at)"
        " select poster_id, 'x', 'cancelled', now(), now() - interval '1 year'"
        "   from market.tasks, generate_series(1, 400)"
    )
    tx.execute("set local session_replication_role = origin")

    # 2,400 old tasks without files come first: two windows of nothing, then what there is, then the end.
    assert [value(tx, REQUEUE, 100) for _ in range(4)] == [0, 0, 12, 0]
    assert value(tx, "select not isfinite(after_at) from market.backstop_positions where policy ~ 'requeue'")


def test_a_pass_that_begins_in_the_middle_looks_at_what_lies_before_as_well(tx: psycopg.Connection) -> None:
    for number in range(4):
        add_finished(tx, f"{number}", ago=KEPT + number * HOUR)
    middle = value(tx, "select files_go_at from market.tasks order by files_go_at offset 1 limit 1")
    tx.execute(
        "insert into market.backstop_positions values ('requeue_task_files', %s, 0),"
        " ('repair_user_statistics', default, %s)",
        [middle, add_user(tx)],
    )
    tx.execute("insert into market.user_statistics_folded (user_id, reviews) select id, 1 from market.users")

    assert value(tx, REQUEUE, 100) == 4
    assert value(tx, "select handled from market.repair_user_statistics(100, now(), '-infinity')") == 5


def test_a_task_that_is_just_being_reopened_is_left_to_its_own_trigger(
    conn: psycopg.Connection, other: psycopg.Connection
) -> None:
    reopened = add_finished(conn, "reopened")
    add_finished(conn, "lost")
    conn.execute("set lock_timeout = '5 s'")

    other.execute("select market.reopen_task(%s)", [reopened])
    assert value(conn, REQUEUE, 10) == 1
    other.commit()

    assert set(queue(conn)) == {"public:lost"}


def test_two_passes_at_once_do_not_wait_for_each_other(
    conn: psycopg.Connection, other: psycopg.Connection
) -> None:
    add_finished(conn, "a")
    conn.execute("set lock_timeout = '5 s'")

    assert value(other, REQUEUE, 10) == 1
    assert value(conn, REQUEUE, 10) == 0
    other.rollback()

    assert value(conn, REQUEUE, 10) == 1


def test_live_tasks_cost_the_backstop_nothing(conn: psycopg.Connection) -> None:
    def read(tasks: int) -> int:
        with conn.transaction():
            conn.execute("set local session_replication_role = replica")
            conn.execute(
                "insert into market.tasks (poster_id, title, status)"
                f" select 1, 'x', 'open' from generate_series(1, {tasks}) as g"
            )
            conn.execute(
                "insert into market.task_files (task_id, storage, path)"
                " select id, 'public', id::text from market.tasks"
            )
        conn.execute("vacuum (analyze) market.tasks, market.task_files")
        for _ in range(3):
            plan = value(conn, "explain (analyze, buffers, format json) " + REQUEUE.replace("%s", "100"))
        return plan[0]["Plan"]["Shared Hit Blocks"] + plan[0]["Plan"]["Shared Read Blocks"]

    few = read(100)
    assert read(20_000) <= 2 * few
