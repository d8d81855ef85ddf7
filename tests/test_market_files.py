"""The file rules: whatever happens to a task or a file's row, the queue follows in the same transaction."""

from datetime import datetime, timedelta

import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.support.market import HOUR, add, add_file, add_task, add_user, claim, column, now, queue, value

KEPT = timedelta(hours=72)


@pytest.fixture
def conn(tx: psycopg.Connection) -> psycopg.Connection:
    """A transaction that is rolled back."""
    return tx


def about_now(conn: psycopg.Connection, when: datetime) -> bool:
    return abs(now(conn) - when) < timedelta(minutes=1)


def outcomes(conn: psycopg.Connection) -> list[tuple[str, str]]:
    return conn.execute("select path, outcome from lapse.file_cleanup_log order by path, id").fetchall()


def in_use(conn: psycopg.Connection, *paths: str) -> dict[str, datetime | None]:
    return dict(
        conn.execute(
            "select path, until from market.files_in_use(%s, %s)", [["public"] * len(paths), list(paths)]
        ).fetchall()
    )


# When a task changes


def test_a_completed_tasks_files_go_72_hours_later(conn: psycopg.Connection) -> None:
    task = add_task(conn, status="taken")
    add_file(conn, task, "a")
    add_file(conn, task, "b", "private")

    conn.execute("update market.tasks set status = 'completed' where id = %s", [task])

    completed = value(conn, "select completed_at from market.tasks")
    assert about_now(conn, completed)
    assert queue(conn) == {"public:a": completed + KEPT, "private:b": completed + KEPT}
    assert column(conn, "select distinct reason || ' ' || source_table from lapse.file_cleanup_queue") == [
        "task completed market.task_files"
    ]


def test_the_72_hours_count_from_the_time_that_the_application_gives(conn: psycopg.Connection) -> None:
    task = add_task(conn)
    add_file(conn, task, "a")
    completed = now(conn) - 10 * HOUR

    conn.execute("update market.tasks set status = 'completed', completed_at = %s", [completed])

    assert queue(conn) == {"public:a": completed + KEPT}


def test_72_hours_are_72_hours_across_a_change_of_the_clocks(conn: psycopg.Connection) -> None:
    add_file(conn, add_task(conn), "a")
    conn.execute("set timezone = 'Europe/Berlin'")

    conn.execute("update market.tasks set status = 'completed', completed_at = '2030-03-30 12:00'")

    assert value(conn, "select not_before = timestamptz '2030-04-02 13:00' from lapse.file_cleanup_queue")


def test_a_cancelled_tasks_files_go_now(conn: psycopg.Connection) -> None:
    add_file(conn, add_task(conn), "a")

    conn.execute("update market.tasks set status = 'cancelled'")

    assert about_now(conn, queue(conn)["public:a"])


def test_a_task_past_its_deadline_is_swept_with_its_files_in_one_transaction(
    own: psycopg.Connection, dsn: str
) -> None:
    add_file(own, add_task(own, deadline=now(own)), "a")

    with psycopg.connect(dsn) as sweeper:
        sweeper.execute("select market.cancel_expired_tasks(10, now(), '-infinity')")
        assert set(queue(sweeper)) == {"public:a"}
        sweeper.rollback()
        assert queue(own) == {}
        sweeper.execute("select market.cancel_expired_tasks(10, now(), '-infinity')")

    assert set(queue(own)) == {"public:a"}


def test_a_taken_task_past_its_deadline_keeps_its_files(conn: psycopg.Connection) -> None:
    add_file(conn, add_task(conn, status="taken", deadline=now(conn) - HOUR), "a")

    conn.execute("select market.cancel_expired_tasks(10, now(), '-infinity')")

    assert queue(conn) == {}


@pytest.mark.parametrize("finished", ["completed", "cancelled"])
@pytest.mark.parametrize("live", ["open", "taken"])
def test_a_reopened_tasks_files_leave_the_queue(conn: psycopg.Connection, finished: str, live: str) -> None:
    reopened, other = add_task(conn), add_task(conn)
    for task in [reopened, other]:
        add_file(conn, task, f"{task}/a")
    conn.execute("update market.tasks set status = %s", [finished])

    conn.execute("update market.tasks set status = %s where id = %s", [live, reopened])

    assert set(queue(conn)) == {f"public:{other}/a"}
    assert outcomes(conn) == [(f"{reopened}/a", "cancelled")]
    assert conn.execute(
        "select completed_at, cancelled_at, cancel_reason, files_go_at from market.tasks where id = %s",
        [reopened],
    ).fetchone() == (None, None, None, None)


def test_a_task_completed_again_counts_its_72_hours_anew(conn: psycopg.Connection) -> None:
    task = add_task(conn)
    add_file(conn, task, "a")
    conn.execute("update market.tasks set status = 'completed', completed_at = now() - interval '90 hours'")
    conn.execute("update market.tasks set status = 'taken'")

    conn.execute("update market.tasks set status = 'completed'")

    assert about_now(conn, queue(conn)["public:a"] - KEPT)


def test_a_moved_completion_moves_the_files_both_ways(conn: psycopg.Connection) -> None:
    add_file(conn, add_task(conn), "a")
    start = now(conn)

    for completed in [start, start - 20 * HOUR, start + 20 * HOUR, start - 80 * HOUR]:
        conn.execute("update market.tasks set status = 'completed', completed_at = %s", [completed])
        assert queue(conn) == {"public:a": completed + KEPT}


def test_a_completed_task_that_is_cancelled_loses_its_files_now_and_back(conn: psycopg.Connection) -> None:
    add_file(conn, add_task(conn), "a")
    conn.execute("update market.tasks set status = 'completed'")

    conn.execute("update market.tasks set status = 'cancelled', cancel_reason = 'fraud'")
    assert about_now(conn, queue(conn)["public:a"])
    assert value(conn, "select completed_at is null and cancelled_at is not null from market.tasks")

    conn.execute("update market.tasks set status = 'completed'")
    assert about_now(conn, queue(conn)["public:a"] - KEPT)
    assert value(conn, "select cancelled_at is null and cancel_reason is null from market.tasks")


def test_a_change_that_is_no_change_of_state_leaves_the_queue_alone(own: psycopg.Connection) -> None:
    live, cancelled = add_task(own), add_task(own)
    add_file(own, live, "live")
    add_file(own, cancelled, "cancelled")
    own.execute("update market.tasks set status = 'cancelled' where id = %s", [cancelled])
    own.execute("delete from lapse.file_cleanup_queue")

    own.execute("update market.tasks set title = 'Carry two pianos'")
    own.execute("update market.tasks set cancelled_at = now() where id = %s", [cancelled])
    own.execute("update market.task_files set bytes = 7")

    assert queue(own) == {}


def test_a_time_that_does_not_fit_the_state_is_cleared(conn: psycopg.Connection) -> None:
    task = add_task(conn, completed_at="2001-01-01", cancelled_at="2001-01-01", cancel_reason="x")
    add_file(conn, task, "a")

    assert conn.execute("select completed_at, cancelled_at, cancel_reason from market.tasks").fetchone() == (
        None, None, None,
    )  # fmt: skip
    conn.execute("update market.tasks set status = 'completed'")

    assert about_now(conn, queue(conn)["public:a"] - KEPT)


def test_one_statement_may_finish_reopen_and_move_many_tasks(conn: psycopg.Connection) -> None:
    tasks = [add_task(conn, status=status) for status in ["open", "open", "completed", "cancelled", "open"]]
    for task in tasks:
        add_file(conn, task, f"{task}")
    completed, cancelled, reopened, revived, untouched = tasks

    conn.execute(
        "update market.tasks set status = (array['completed', 'cancelled', 'open', 'taken', status])"
        "[array_position(%s, id)]",
        [tasks],
    )

    assert set(queue(conn)) == {f"public:{completed}", f"public:{cancelled}"}
    assert queue(conn)[f"public:{completed}"] - queue(conn)[f"public:{cancelled}"] == KEPT
    assert set(in_use(conn, *map(str, tasks))) == {str(t) for t in [completed, reopened, revived, untouched]}


def test_on_conflict_and_merge_follow_the_same_rules(conn: psycopg.Connection) -> None:
    task = add_task(conn)
    add_file(conn, task, "a")
    upsert = (
        "insert into market.tasks (id, poster_id, title, status) overriding system value"
        " select id, poster_id, title, %s from market.tasks"
        " on conflict (id) do update set status = excluded.status"
    )
    merge = (
        "merge into market.tasks as t using (values (%s::bigint, %s)) as v (id, status) on t.id = v.id"
        " when matched then update set status = v.status"
    )

    conn.execute(upsert, ["cancelled"])
    assert set(queue(conn)) == {"public:a"}
    conn.execute(merge, [task, "open"])
    assert queue(conn) == {}
    conn.execute(merge, [task, "completed"])
    assert set(queue(conn)) == {"public:a"}
    conn.execute(upsert, ["taken"])
    assert queue(conn) == {}


def test_merge_on_files_may_add_replace_and_delete_at_once(conn: psycopg.Connection) -> None:
    task = add_task(conn)
    replaced, deleted = add_file(conn, task, "old"), add_file(conn, task, "deleted")
    conn.execute("select lapse.enqueue_file('public', 'added')")

    conn.execute(
        "merge into market.task_files as f using (values (%s::bigint), (%s), (null)) as v (id) on f.id = v.id"
        " when matched and f.path = 'old' then update set path = 'new'"
        " when matched then delete"
        " when not matched then insert (task_id, storage, path) values (%s, 'public', 'added')",
        [replaced, deleted, task],
    )

    assert set(queue(conn)) == {"public:old", "public:deleted"}


def test_a_change_that_rolls_back_leaves_the_queue_alone(conn: psycopg.Connection) -> None:
    task = add_task(conn)
    add_file(conn, task, "a")

    with conn.transaction(force_rollback=True):
        conn.execute("update market.tasks set status = 'cancelled'")
        assert set(queue(conn)) == {"public:a"}
    with conn.transaction():
        conn.execute("update market.tasks set status = 'cancelled'")
        conn.execute("update market.tasks set status = 'open'")

    assert queue(conn) == {}


# When rows go


def test_a_deleted_tasks_files_go_now_also_after_completion(conn: psycopg.Connection) -> None:
    for status in ["open", "completed"]:
        task = add_task(conn)
        add_file(conn, task, status)
        conn.execute("update market.tasks set status = %s where id = %s", [status, task])

    conn.execute("delete from market.tasks")

    assert all(about_now(conn, when) for when in queue(conn).values())
    assert set(queue(conn)) == {"public:open", "public:completed"}


def test_a_deleted_users_tasks_take_their_files_along(conn: psycopg.Connection) -> None:
    poster, other = add_user(conn), add_user(conn)
    for number in range(3):
        add_file(conn, add_task(conn, poster), f"gone/{number}")
    add_file(conn, add_task(conn, other, taker_id=poster, status="taken"), "stays")
    for table, columns in [
        ("coupons", {"code": "c", "user_id": poster}),
        ("invitation_codes", {"code": "c", "owner_id": poster}),
        ("point_grants", {"user_id": poster, "amount": 5}),
    ]:  # fmt: skip
        add(conn, table, **columns)

    conn.execute("delete from market.users where id = %s", [poster])

    assert set(queue(conn)) == {f"public:gone/{number}" for number in range(3)}
    assert column(conn, "select taker_id from market.tasks") == [None]
    assert column(conn, "select sum(delta) from market.point_entries") == [0]
    assert column(conn, "select count(*) from market.point_balances") == [0]


def test_a_deleted_row_leaves_its_file_to_be_deleted(conn: psycopg.Connection) -> None:
    task = add_task(conn)
    add_file(conn, task, "a")
    add_file(conn, task, "gone already", removed_at=now(conn))

    conn.execute("delete from market.task_files")

    assert set(queue(conn)) == {"public:a"}


@pytest.mark.parametrize("statement", ["truncate market.task_files", "truncate market.tasks cascade"])
def test_truncate_queues_every_file(conn: psycopg.Connection, statement: str) -> None:
    task = add_task(conn)
    for path in ["a", "b"]:
        add_file(conn, task, path)
    add_file(conn, task, "gone already", removed_at=now(conn))

    with conn.transaction(force_rollback=True):
        conn.execute(statement)
    assert queue(conn) == {}
    conn.execute(statement)

    assert set(queue(conn)) == {"public:a", "public:b"}


# When a row gets another file


def test_a_replaced_path_goes_now_and_the_new_one_stays(conn: psycopg.Connection) -> None:
    row = add_file(conn, add_task(conn), "old")
    conn.execute("select lapse.enqueue_file('private', 'new')")

    conn.execute("update market.task_files set storage = 'private', path = 'new' where id = %s", [row])

    assert set(queue(conn)) == {"public:old"}
    assert value(conn, "select reason from lapse.file_cleanup_queue") == "path replaced"


def test_a_row_given_another_file_has_a_file_again(conn: psycopg.Connection) -> None:
    task = add_task(conn)
    add_file(conn, task, "old", removed_at=now(conn))

    conn.execute("update market.task_files set path = 'new'")
    assert queue(conn) == {}
    conn.execute("update market.tasks set status = 'cancelled'")

    assert set(queue(conn)) == {"public:new"}


def test_two_rows_may_swap_their_files(conn: psycopg.Connection) -> None:
    task = add_task(conn)
    add_file(conn, task, "a")
    add_file(conn, task, "b")

    conn.execute("update market.task_files set path = case path when 'a' then 'b' else 'a' end")

    assert queue(conn) == {}
    assert set(in_use(conn, "a", "b")) == {"a", "b"}


def test_a_file_moved_to_another_task_follows_that_tasks_state(conn: psycopg.Connection) -> None:
    live, cancelled = add_task(conn), add_task(conn, status="cancelled")
    row = add_file(conn, live, "a")

    conn.execute("update market.task_files set task_id = %s where id = %s", [cancelled, row])
    assert set(queue(conn)) == {"public:a"}
    conn.execute("update market.task_files set task_id = %s where id = %s", [live, row])
    assert queue(conn) == {}


def test_a_file_put_back_is_kept_or_queued_by_its_tasks_state(conn: psycopg.Connection) -> None:
    task = add_task(conn, status="cancelled")
    add_file(conn, task, "a", removed_at=now(conn))
    assert queue(conn) == {}

    conn.execute("update market.task_files set removed_at = null")

    assert set(queue(conn)) == {"public:a"}


# When a file arrives


def test_a_file_for_a_finished_task_is_queued_by_its_state(conn: psycopg.Connection) -> None:
    completed = now(conn) - 10 * HOUR
    done = add_task(conn, status="completed", completed_at=completed)
    cancelled = add_task(conn, status="cancelled", cancelled_at="2020-01-01")

    add_file(conn, done, "a")
    add_file(conn, cancelled, "b")

    assert queue(conn)["public:a"] == completed + KEPT
    assert about_now(conn, queue(conn)["public:b"])


def test_a_path_that_a_live_task_names_again_leaves_the_queue(conn: psycopg.Connection) -> None:
    task = add_task(conn)
    add_file(conn, task, "a")
    conn.execute("delete from market.task_files")
    assert set(queue(conn)) == {"public:a"}

    add_file(conn, task, "a")

    assert queue(conn) == {}


def test_one_statement_may_bring_files_of_live_and_finished_tasks(conn: psycopg.Connection) -> None:
    live, cancelled = add_task(conn), add_task(conn, status="cancelled")
    conn.execute("select lapse.enqueue_file('public', 'live')")

    conn.execute(
        "insert into market.task_files (task_id, storage, path)"
        " values (%s, 'public', 'live'), (%s, 'public', 'done')",
        [live, cancelled],
    )

    assert set(queue(conn)) == {"public:done"}


# Shared files


def test_a_file_that_a_live_row_still_names_is_never_handed_out(conn: psycopg.Connection) -> None:
    first, second = add_task(conn), add_task(conn)
    for task in [first, second]:
        add_file(conn, task, "shared")

    conn.execute("update market.tasks set status = 'cancelled' where id = %s", [first])
    assert claim(conn) == {}
    assert outcomes(conn) == [("shared", "in_use")]

    conn.execute("update market.tasks set status = 'cancelled' where id = %s", [second])
    assert set(claim(conn)) == {"shared"}


def test_a_shared_file_waits_for_the_last_completed_task(conn: psycopg.Connection) -> None:
    first, second = add_task(conn), add_task(conn)
    for task in [first, second]:
        add_file(conn, task, "shared")
    completed = now(conn) - 10 * HOUR

    conn.execute(
        "update market.tasks set status = 'completed', completed_at = %s where id = %s", [completed, second]
    )
    conn.execute("update market.tasks set status = 'cancelled' where id = %s", [first])

    assert claim(conn) == {}
    assert queue(conn) == {"public:shared": completed + KEPT}


def test_the_longest_lasting_reference_counts(conn: psycopg.Connection) -> None:
    start = now(conn)
    for status, completed, path in [
        ("completed", start - HOUR, "completed"), ("completed", start - 2 * HOUR, "completed"),
        ("completed", start, "live"), ("taken", None, "live"), ("completed", start, "live"),
        ("completed", start - KEPT, "over"), ("cancelled", None, "cancelled"),
    ]:  # fmt: skip
        add_file(conn, add_task(conn, status=status, completed_at=completed), path)
    add_file(conn, add_task(conn), "removed", removed_at=start)

    asked = in_use(conn, "completed", "live", "over", "cancelled", "removed", "unknown", "live")

    assert asked == {"completed": start - HOUR + KEPT, "live": None}
    assert value(conn, "select count(*) from market.files_in_use('{private}', '{live}')") == 0
    assert value(conn, "select count(*) from market.files_in_use('{}', '{}')") == 0


# When files are gone


def test_a_deleted_file_is_marked_on_every_row_that_names_it(conn: psycopg.Connection) -> None:
    for path in ["a", "a", "b"]:
        add_file(conn, add_task(conn, status="cancelled"), path)
    claims = claim(conn)
    results = [{"id": claims["a"][0], "token": claims["a"][1], "outcome": "deleted", "bytes": 1}]

    conn.execute("select * from lapse.exchange_files('w', %s, '{}')", [Jsonb(results)])

    assert column(conn, "select path from market.task_files where removed_at is not null") == ["a", "a"]
    assert set(queue(conn)) == {"public:b"}


def test_rows_locked_elsewhere_are_reported_not_waited_for(own: psycopg.Connection, dsn: str) -> None:
    task = add_task(own, status="cancelled")
    locked = add_file(own, task, "locked")
    for path in ["locked", "free"]:
        add_file(own, task, path)
    own.execute("set lock_timeout = '5 s'")
    removed = "select * from market.files_removed(%s, %s, array_fill(clock_timestamp(), '{4}'))"
    arguments = [["public"] * 4, ["locked", "free", "free", "unknown"]]

    with psycopg.connect(dsn) as other:
        other.execute("select from market.task_files where id = %s for update", [locked])
        assert own.execute(removed, arguments).fetchall() == [("public", "locked")]
        assert column(own, "select id from market.task_files where removed_at is null") == [locked]

    assert own.execute(removed, arguments).fetchall() == []
    assert column(own, "select id from market.task_files where removed_at is null") == []


def hand_in(conn: psycopg.Connection, claims: dict[str, tuple[int, int]], path: str) -> None:
    """Report a file as deleted."""
    number, token = claims[path]
    results = [{"id": number, "token": token, "outcome": "deleted", "bytes": 1}]
    assert (
        conn.execute("select * from lapse.exchange_files('w', %s, '{}')", [Jsonb(results)]).fetchall() == []
    )


NAMED_AGAIN = {
    "a new row": (
        "insert into market.task_files (task_id, storage, path, uploaded_at)"
        " values (%s, 'public', 'a', 'epoch')"
    ),
    "a row given the path": (
        "update market.task_files set task_id = %s, path = 'a', uploaded_at = 'epoch' where path = 'b'"
    ),
    "a row whose file is back": (
        "update market.task_files set task_id = %s, removed_at = null, uploaded_at = 'epoch'"
        " where path = 'a' and removed_at is not null"
    ),
}


@pytest.mark.parametrize("statement", NAMED_AGAIN.values(), ids=NAMED_AGAIN)
def test_a_file_written_anew_before_its_deletion_is_settled_keeps_its_protection(
    own: psycopg.Connection, statement: str
) -> None:
    live, ended = add_task(own), add_task(own, status="cancelled")
    add_file(own, live, "a", removed_at="epoch")
    add_file(own, live, "b")
    add_file(own, ended, "a")
    claims = claim(own)

    own.execute(statement, [live])  # the worker has deleted a, and the application has written it again
    hand_in(own, claims, "a")

    assert column(own, "select path from market.task_files where task_id = %s", ended) == ["a"]
    assert value(own, "select removed_at is not null from market.task_files where task_id = %s", ended)
    assert set(in_use(own, "a")) == {"a"}
    own.execute("select lapse.enqueue_file('public', 'a')")
    assert "a" not in claim(own)
    own.execute("update market.tasks set status = 'cancelled'")
    assert "a" in claim(own)


def test_a_file_of_a_task_reopened_too_late_is_marked_as_gone(own: psycopg.Connection) -> None:
    task = add_task(own, status="cancelled")
    add_file(own, task, "a")
    claims = claim(own)

    own.execute("select market.reopen_task(%s)", [task])
    own.execute("update market.task_files set bytes = 1")
    hand_in(own, claims, "a")

    assert value(own, "select removed_at is not null from market.task_files")


# Size


def test_a_path_too_long_for_an_index_is_a_path_like_any_other(conn: psycopg.Connection) -> None:
    path = "".join(chr(0x4E00 + number % 20000) for number in range(9000))
    task = add_task(conn)
    add_file(conn, task, path)
    assert set(in_use(conn, path)) == {path}

    conn.execute("update market.tasks set status = 'cancelled'")

    assert set(claim(conn)) == {path}


def test_a_statement_over_many_files_queues_them_in_chunks(conn: psycopg.Connection) -> None:
    task, kept = add_task(conn), add_task(conn)
    conn.execute(
        "insert into market.task_files (task_id, storage, path)"
        " select case when g %% 2 = 0 then %s else %s end, 'public', g::text"
        " from generate_series(1, 30000) as g",
        [task, kept],
    )
    conn.execute("create table public.calls (kind text, files integer)")
    for routine, kind, given in [
        ("enqueue_files(lapse.file_request[])", "enqueue", "p_files"),
        ("cancel_files(text[], text[])", "cancel", "p_paths"),
    ]:
        body = value(conn, "select pg_get_functiondef(%s::regprocedure)", f"lapse.{routine}")
        count = f"insert into public.calls values ('{kind}', cardinality({given}));"
        conn.execute(body.replace("\nbegin\n", f"\nbegin\n    {count}\n", 1))

    conn.execute("update market.tasks set status = 'cancelled' where id = %s", [task])
    conn.execute("update market.tasks set status = 'open' where id = %s", [task])
    conn.execute("update market.tasks set status = 'cancelled'")
    assert value(conn, "select count(*) from lapse.file_cleanup_queue") == 30000
    conn.execute("delete from market.task_files")

    calls = conn.execute("select kind, files from public.calls").fetchall()
    assert calls == [
        ("enqueue", 10000), ("enqueue", 5000),
        ("cancel", 10000), ("cancel", 5000),
        *[("enqueue", 10000)] * 3, *[("enqueue", 10000)] * 3,
    ]  # fmt: skip


def test_a_session_that_began_with_one_row_is_not_slow_with_many(conn: psycopg.Connection) -> None:
    user, task = add_user(conn), add_task(conn)
    add_file(conn, task, "one")
    statements = [
        "update market.tasks set status = 'completed'",
        "update market.task_files set bytes = 1",
        "update market.point_grants set remaining = 0",
    ]
    add(conn, "point_grants", user_id=user, amount=1)
    for statement in statements:
        conn.execute(statement)  # plans are made here, for one row, and kept

    conn.execute(
        "insert into market.tasks (poster_id, title) select %s, 'x' from generate_series(1, 20000)", [user]
    )
    conn.execute(
        "insert into market.task_files (task_id, storage, path)"
        " select %s, 'public', g::text from generate_series(1, 20000) as g",
        [task],
    )
    conn.execute(
        "insert into market.point_grants (user_id, amount) select %s, 1 from generate_series(1, 20000)",
        [user],
    )

    conn.execute("set statement_timeout = '20 s'")  # each takes a second; a nested loop takes minutes
    for statement in statements:
        conn.execute(statement)

    assert value(conn, "select balance from market.point_balances") == 0


def test_a_session_that_began_when_the_tables_were_empty_is_not_slow_with_many(
    own: psycopg.Connection,
) -> None:
    many = "from generate_series(1, 20000) as g"
    statements = [
        f"insert into market.users (email, display_name) select g, 'x' {many}",
        "insert into market.tasks (poster_id, title) select id, 'x' from market.users",
        "insert into market.task_files (task_id, storage, path) select id, 'public', id from market.tasks",
        "update market.tasks set status = 'completed'",
        "update market.tasks set status = 'open'",
        "update market.task_files set path = path || 'x'",
        "update market.task_files set path = left(path, -1)",
        "update market.tasks set status = 'cancelled'",
        "insert into market.point_grants (user_id, amount) select id, 2 from market.users",
        "update market.point_grants set remaining = 1",
        "delete from market.point_grants",
        "delete from market.users",
    ]
    few = [statement.replace("20000", "1") for statement in statements]
    for statement in few:
        own.execute(statement)
    own.execute("delete from lapse.file_cleanup_queue")
    own.execute("vacuum (analyze)")
    for statement in few:
        own.execute(statement)  # plans are made here, for one row in empty tables, and kept

    own.execute("set statement_timeout = '20 s'")  # each takes a second or two; a scan a row takes minutes
    for statement in statements:
        own.execute(statement)

    assert len(queue(own)) == 2 * 20001


# Triggers of the application's own


def trigger(conn: psycopg.Connection, table: str, when: str, body: str) -> None:
    """A trigger of the application's, once a statement of the client, fired after ours of its kind."""
    conn.execute(f"""
        create function public.own() returns trigger language plpgsql as $$
        begin
            if pg_trigger_depth() = 1 then
                {body};
            end if;
            return new;
        end
        $$
    """)
    conn.execute(f"create trigger z_own {when} on market.{table} for each row execute function public.own()")


@pytest.mark.parametrize("last", ["open", "taken", "completed", "cancelled"])
@pytest.mark.parametrize("then", ["open", "taken", "completed", "cancelled"])
@pytest.mark.parametrize("first", ["open", "completed", "cancelled"])
def test_a_task_that_a_trigger_changes_again_is_judged_by_its_last_state(
    conn: psycopg.Connection, first: str, then: str, last: str
) -> None:
    add_file(conn, add_task(conn, completed_at=now(conn) - HOUR, status="completed"), "a")
    conn.execute("update market.tasks set status = %s", [first])
    trigger(conn, "tasks", "after update", f"update market.tasks set status = '{last}' where id = new.id")

    conn.execute("update market.tasks set status = %s", [then])

    goes = value(conn, "select files_go_at from market.tasks")
    assert (goes is None) == (last in ["open", "taken"])
    assert queue(conn) == ({} if goes is None else {"public:a": goes})


@pytest.mark.parametrize("status", ["open", "cancelled"])
@pytest.mark.parametrize("change", ["update market.task_files set path = 'new'", "insert"])
def test_a_path_that_a_trigger_changes_again_leaves_no_file_behind(
    conn: psycopg.Connection, change: str, status: str
) -> None:
    task = add_task(conn, status=status)
    if change != "insert":
        add_file(conn, task, "old")
    rename = "update market.task_files set path = new.path || '.png' where id = new.id"
    trigger(conn, "task_files", "after insert or update", rename)

    if change == "insert":
        add_file(conn, task, "new")
    else:
        conn.execute(change)

    gone = {"public:new"} | ({"public:old"} if change != "insert" else set())
    assert set(queue(conn)) == gone | ({"public:new.png"} if status == "cancelled" else set())


@pytest.mark.parametrize("change", ["update market.task_files set path = 'new'", "insert"])
def test_a_row_that_a_trigger_deletes_again_leaves_no_file_behind(
    conn: psycopg.Connection, change: str
) -> None:
    task = add_task(conn)
    add_file(conn, task, "old")
    trigger(
        conn, "task_files", "after insert or update", "delete from market.task_files where path = new.path"
    )

    if change == "insert":
        add_file(conn, task, "new")
    else:
        conn.execute(change)

    assert set(queue(conn)) - {"public:old"} == {"public:new"}


@pytest.mark.parametrize(
    "body", ["new.status := 'cancelled'", "new.status := 'completed'", "new.completed_at := now()"]
)
def test_a_trigger_that_leaves_a_task_without_its_times_is_refused(
    conn: psycopg.Connection, body: str
) -> None:
    add_task(conn)
    trigger(conn, "tasks", "before update", body)

    with pytest.raises(psycopg.errors.CheckViolation) as caught:
        conn.execute("update market.tasks set title = 'x'")

    assert caught.value.diag.constraint_name == "tasks_times_fit_status"


def test_a_file_that_many_rows_name_is_decided_as_a_whole(conn: psycopg.Connection) -> None:
    live, cancelled = add_task(conn), add_task(conn, status="cancelled")
    conn.execute(
        "insert into market.task_files (task_id, storage, path)"
        " select case when g %% 2 = 0 then %s else %s end, 'public', 'shared'"
        " from generate_series(1, 20001) as g",
        [live, cancelled],
    )
    assert queue(conn) == {}

    conn.execute("update market.task_files set path = 'shared again'")
    assert set(queue(conn)) == {"public:shared"}
