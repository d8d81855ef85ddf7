"""Temporary uploads: a task takes them in time, or they go; never both."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime, timedelta
from threading import Barrier
from typing import Any

import psycopg
import pytest

from tests.support.market import (
    HOUR,
    SECOND,
    add,
    add_file,
    add_task,
    add_user,
    column,
    due_now,
    emptied,
    now,
    queue,
    raises,
    value,
    waiting,
)
from tests.support.queue import exchange, hand_in, result

DAY = timedelta(hours=24)
EXPIRE = "select handled from market.expire_temp_uploads(10, %s, '-infinity')"
CREATE = "select market.create_task(%s, 'Carry a piano', p_upload_ids => %s)"


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


def add_upload(conn: psycopg.Connection, user: int, path: str, **columns: Any) -> int:
    return add(conn, "temp_uploads", user_id=user, storage="public", path=path, **columns)


def create(conn: psycopg.Connection, user: int, uploads: list[int] | None = None, **more: Any) -> int:
    named = "".join(f", p_{name} => %s" for name in more)
    return value(
        conn, f"select market.create_task(%s, 'x', p_upload_ids => %s{named})", user, uploads, *more.values()
    )


def uploads(conn: psycopg.Connection) -> list[str]:
    return column(conn, "select path from market.temp_uploads order by path")


def files(conn: psycopg.Connection, task: int) -> list[str]:
    return column(conn, "select path from market.task_files where task_id = %s order by path", task)


def logged(conn: psycopg.Connection) -> int:
    return value(conn, "select count(*) from lapse.file_cleanup_log")


@contextmanager
def nothing_changes(conn: psycopg.Connection) -> Iterator[None]:
    """What the block tries leaves no trace in the marketplace or the queue."""

    def state() -> list[Any]:
        return [
            conn.execute("select * from market.temp_uploads order by id").fetchall(),
            conn.execute("select * from market.task_files order by id").fetchall(),
            conn.execute("select * from market.tasks order by id").fetchall(),
            queue(conn),
        ]

    before = state()
    with conn.transaction(force_rollback=False):
        yield
    assert state() == before


# Registering


def test_an_upload_lapses_after_24_hours_registered_or_inserted(tx: psycopg.Connection) -> None:
    user = add_user(tx)

    value(tx, "select market.register_temp_upload(%s, 'public', 'a', 7)", user)
    add_upload(tx, user, "b")
    add_upload(tx, user, "c", uploaded_at=now(tx) - HOUR)
    add_upload(tx, user, "d", expires_at=now(tx) + SECOND)
    add_upload(tx, user, "e", expires_at="infinity")

    assert tx.execute(
        "select path, expires_at - now() from market.temp_uploads where isfinite(expires_at) order by path"
    ).fetchall() == [("a", DAY), ("b", DAY), ("c", DAY - HOUR), ("d", SECOND)]
    assert value(tx, "select bytes from market.temp_uploads where path = 'a'") == 7


@pytest.mark.parametrize("zone", ["Asia/Tokyo", "America/New_York", "Europe/Berlin"])
def test_24_hours_are_24_hours_in_any_zone_across_a_change_of_the_clocks(
    tx: psycopg.Connection, zone: str
) -> None:
    user = add_user(tx)
    tx.execute("select set_config('timezone', %s, true)", [zone])

    for number, start in enumerate(["2026-03-08 02:30+00", "2026-03-08 06:30+00", "2026-11-01 05:30+00"]):
        upload = value(
            tx,
            "select market.register_temp_upload(%s, 'public', %s, p_now => %s)",
            user,
            str(number),
            start,
        )
        add_upload(tx, user, f"plain {number}", uploaded_at=start)
        spans = column(tx, "select extract(epoch from expires_at - uploaded_at) from market.temp_uploads")
        assert set(spans) == {86400}
        end = value(tx, "select expires_at from market.temp_uploads where id = %s", upload)
        with raises("LP102"), tx.transaction():
            create(tx, user, [upload], now=end)
        with tx.transaction(force_rollback=True):
            create(tx, user, [upload], now=end - timedelta(microseconds=1))


def test_registering_again_starts_the_time_anew(tx: psycopg.Connection) -> None:
    user = add_user(tx)
    first = value(tx, "select market.register_temp_upload(%s, 'public', 'a')", user)

    again = value(
        tx, "select market.register_temp_upload(%s, 'public', 'a', p_now => %s)", user, now(tx) + HOUR
    )

    assert again == first
    assert value(tx, "select expires_at - now() from market.temp_uploads") == DAY + HOUR


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"user_id": None}, "LP108"),
        ({"user_id": 0}, "LP101"),
        ({"storage": None}, "LP108"),
        ({"storage": "elsewhere"}, "LP108"),
        ({"storage": "e" * 5000}, "LP108"),
        ({"path": None}, "LP108"),
        ({"path": ""}, "LP108"),
        ({"path": "/a"}, "LP108"),
        ({"path": "a/"}, "LP108"),
        ({"path": "a//b"}, "LP108"),
        ({"path": "a/../theirs"}, "LP108"),
        ({"path": ".."}, "LP108"),
        ({"path": "./a"}, "LP108"),
        ({"path": "a" * 4096}, "LP108"),
        ({"path": "theirs"}, "LP105"),
        ({"path": "of their task"}, "LP105"),
        ({"path": "of my task"}, "LP107"),
        ({"bytes": -1}, "LP108"),
        ({"expires_at": "2020-01-01"}, "LP108"),
        ({"now": None}, "LP108"),
    ],
)
def test_what_can_not_be_registered_is_refused_and_changes_nothing(
    tx: psycopg.Connection, arguments: dict[str, Any], reason: str
) -> None:
    me, they = add_user(tx), add_user(tx)
    add_upload(tx, they, "theirs")
    add_file(tx, add_task(tx, they), "of their task")
    add_file(tx, add_task(tx, me, status="cancelled"), "of my task")
    given = {"user_id": me, "storage": "public", "path": "mine"} | arguments
    named = ", ".join(f"p_{name} => %s" for name in given)

    with raises(reason), nothing_changes(tx):
        tx.execute(f"select market.register_temp_upload({named})", list(given.values()))


@pytest.mark.parametrize("path", ["...", ".hidden", "a/..b/c..", "a b/\N{SNOWMAN}", "a" * 4095])
def test_odd_names_are_fine(tx: psycopg.Connection, path: str) -> None:
    value(tx, "select market.register_temp_upload(%s, 'private', %s)", add_user(tx), path)


def test_a_path_that_was_condemned_and_is_uploaded_anew_is_kept(conn: psycopg.Connection) -> None:
    user = add_user(conn)
    conn.execute("select lapse.enqueue_file('public', f) from unnest('{a,b,c,d}'::text[]) as f")
    claims = {claim.path: claim for claim in exchange(conn, limit=1).claimed}  # a is in a worker's hands

    value(conn, "select market.register_temp_upload(%s, 'public', 'b')", user)
    add_upload(conn, user, "c")
    add_upload(conn, user, "d", uploaded_at=now(conn) - DAY)  # lapsed when it came: nobody needs it
    with raises("LP109"):
        conn.execute("select market.register_temp_upload(%s, 'public', 'a')", [user])

    assert list(claims) == ["a"]
    assert set(queue(conn)) == {"public:a", "public:d"}
    assert uploads(conn) == ["b", "c", "d"]


# Claiming


def test_a_task_takes_its_uploads_and_the_users_others_are_discarded(tx: psycopg.Connection) -> None:
    user, they = add_user(tx), add_user(tx)
    mine = [add_upload(tx, user, path, bytes=5) for path in ["a", "b", "left", "old"]]
    tx.execute("update market.temp_uploads set expires_at = now() where path = 'old'")
    add_upload(tx, they, "theirs")

    task = create(tx, user, [mine[1], mine[0], mine[0]])

    assert files(tx, task) == ["a", "b"]
    assert uploads(tx) == ["theirs"]
    assert queue(tx) == {"public:left": now(tx), "public:old": now(tx)}
    assert logged(tx) == 0, "what a task takes is not even queued and taken out again"
    assert tx.execute(
        "select f.bytes, f.uploaded_at = now(), f.removed_at, t.poster_id, t.status"
        "  from market.task_files as f join market.tasks as t on t.id = f.task_id where f.path = 'a'"
    ).fetchone() == (5, True, None, user, "open")


def test_other_drafts_stay_where_the_application_says_so(tx: psycopg.Connection) -> None:
    user = add_user(tx)
    mine, draft = add_upload(tx, user, "a"), add_upload(tx, user, "draft")

    task = create(tx, user, [mine], discard_others=False)

    assert (files(tx, task), uploads(tx), queue(tx)) == (["a"], ["draft"], {})
    assert files(tx, create(tx, user, [draft])) == ["draft"]


@pytest.mark.parametrize("none", [None, []])
def test_a_task_may_have_no_files(tx: psycopg.Connection, none: list[int] | None) -> None:
    user = add_user(tx)
    add_upload(tx, user, "a")

    assert files(tx, create(tx, user, none)) == []

    assert set(queue(tx)) == {"public:a"}


def test_an_upload_that_can_not_be_had_is_named_and_nothing_changes(tx: psycopg.Connection) -> None:
    user, they = add_user(tx), add_user(tx)
    mine, lapsed, gone = (add_upload(tx, user, path) for path in ["mine", "lapsed", "gone"])
    theirs = add_upload(tx, they, "theirs")
    tx.execute("select lapse.pause(name) from lapse.policy")
    tx.execute("update market.temp_uploads set expires_at = now() where id = %s", [lapsed])
    tx.execute("update market.temp_uploads set removed_at = now() where id = %s", [gone])

    for wrong, reason in [(theirs, "LP105"), (lapsed, "LP102"), (gone, "LP109"), (gone + 99, "LP101")]:
        with raises(reason) as caught, nothing_changes(tx):
            create(tx, user, [mine, wrong])
        assert str(wrong) in str(caught.value)
    assert files(tx, create(tx, user, [mine])) == ["mine"]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"poster_id": None}, "LP108"),
        ({"poster_id": 0}, "LP101"),
        ({"title": None}, "LP108"),
        ({"deadline": "2020-01-01"}, "LP108"),
        ({"deadline": "now"}, "LP108"),
        ({"upload_ids": [None]}, "LP108"),
        ({"upload_ids": [[1, 2], [3, 4]]}, "LP108"),
        ({"discard_others": None}, "LP108"),
        ({"now": None}, "LP108"),
    ],
)
def test_a_task_that_makes_no_sense_is_refused_and_changes_nothing(
    tx: psycopg.Connection, arguments: dict[str, Any], reason: str
) -> None:
    user = add_user(tx)
    given = {"poster_id": user, "title": "x", "upload_ids": [add_upload(tx, user, "a")]} | arguments
    named = ", ".join(f"p_{name} => %s" for name in given)

    with raises(reason), nothing_changes(tx):
        tx.execute(f"select market.create_task({named})", list(given.values()))


def test_a_file_queued_by_hand_is_kept_by_the_task_that_takes_it_unless_it_is_too_late(
    conn: psycopg.Connection,
) -> None:
    user = add_user(conn)
    conn.execute("select lapse.enqueue_file('public', 'late')")
    exchange(conn)  # a worker has it, and then the same name is uploaded
    early, late = add_upload(conn, user, "early"), add_upload(conn, user, "late")
    conn.execute("select lapse.enqueue_file('public', 'early')")

    with raises("LP109") as caught:
        create(conn, user, [early, late])
    assert "late" in str(caught.value)
    assert uploads(conn) == ["early", "late"]

    create(conn, user, [early], discard_others=False)
    assert set(queue(conn)) == {"public:late"}


def test_an_application_may_move_an_upload_itself_in_either_order(tx: psycopg.Connection) -> None:
    user = add_user(tx)
    task = add_task(tx, user)
    first, second = add_upload(tx, user, "a"), add_upload(tx, user, "b")

    add_file(tx, task, "a")
    tx.execute("delete from market.temp_uploads where id = %s", [first])
    assert (queue(tx), logged(tx)) == ({}, 0)
    tx.execute("delete from market.temp_uploads where id = %s", [second])
    add_file(tx, task, "b")

    assert (uploads(tx), queue(tx)) == ([], {})


def test_a_deleted_uploads_file_is_queued_when_only_a_finished_task_names_it(tx: psycopg.Connection) -> None:
    user = add_user(tx)
    upload = add_upload(tx, user, "a")
    tx.execute(
        "set session_replication_role = replica"
    )  # the row is there, and the queue knows nothing of it
    task = add_task(tx, user, status="cancelled", cancelled_at=now(tx), files_go_at=now(tx) - HOUR)
    add_file(tx, task, "a")
    tx.execute("set session_replication_role = origin")

    tx.execute("delete from market.temp_uploads where id = %s", [upload])

    assert set(queue(tx)) == {"public:a"}


# Changes by hand


def test_deleted_replaced_and_truncated_uploads_leave_their_files_to_be_deleted(
    tx: psycopg.Connection,
) -> None:
    user, gone = add_user(tx), add_user(tx)
    rows = {path: add_upload(tx, user, path) for path in ["a", "b", "c", "kept", "removed"]}
    add_upload(tx, gone, "of a user who leaves")
    tx.execute("update market.temp_uploads set removed_at = now() where path = 'removed'")
    add_file(tx, add_task(tx, user), "kept")

    tx.execute("delete from market.temp_uploads where id = %s", [rows["a"]])
    assert set(queue(tx)) == {"public:a"}
    tx.execute("update market.temp_uploads set path = 'b2' where id = %s", [rows["b"]])
    assert set(queue(tx)) == {"public:a", "public:b"}
    tx.execute("update market.temp_uploads set path = 'b' where id = %s", [rows["b"]])
    assert set(queue(tx)) == {"public:a", "public:b2"}
    tx.execute("update market.temp_uploads set storage = 'private' where id = %s", [rows["b"]])
    assert set(queue(tx)) == {"public:a", "public:b", "public:b2"}
    tx.execute("delete from market.users where id = %s", [gone])
    assert "public:of a user who leaves" in queue(tx)

    tx.execute("truncate market.temp_uploads")

    assert set(queue(tx)) == {
        "public:a", "public:b", "public:b2", "private:b", "public:c", "public:of a user who leaves",
    }  # fmt: skip


def test_a_change_that_touches_no_file_leaves_the_queue_alone(tx: psycopg.Connection) -> None:
    upload = add_upload(tx, add_user(tx), "a", expires_at="2001-01-01")
    tx.execute("select lapse.enqueue_file('public', 'a')")

    tx.execute("update market.temp_uploads set bytes = 5 where id = %s", [upload])
    assert set(queue(tx)) == {"public:a"}
    tx.execute("update market.temp_uploads set expires_at = now() + interval '1 hour'")  # needed again
    assert queue(tx) == {}


def test_an_upload_given_another_file_has_a_file_again(tx: psycopg.Connection) -> None:
    user = add_user(tx)
    upload = add_upload(tx, user, "a", removed_at=now(tx))

    tx.execute("update market.temp_uploads set path = 'b' where id = %s", [upload])

    assert value(tx, "select removed_at is null and named_at > now() from market.temp_uploads")
    assert queue(tx) == {}
    assert files(tx, create(tx, user, [upload])) == ["b"]


def test_a_storage_that_is_not_there_and_a_second_row_for_a_file_are_refused(tx: psycopg.Connection) -> None:
    user = add_user(tx)
    add_upload(tx, user, "a")

    with raises("23505", hint=False), tx.transaction():
        add_upload(tx, user, "a")
    with raises("23514", hint=False), tx.transaction():
        add(tx, "temp_uploads", user_id=user, storage="elsewhere", path="b")


def test_many_uploads_go_in_one_statement(tx: psycopg.Connection) -> None:
    user = add_user(tx)
    create(tx, user, [add_upload(tx, user, "first")])
    tx.execute(
        "insert into market.temp_uploads (user_id, storage, path)"
        f" select {user}, 'public', g::text from generate_series(1, 10500) as g"
    )

    tx.execute("update market.temp_uploads set path = 'x' || path")
    task = create(tx, user, column(tx, "select id from market.temp_uploads where mod(id, 2) = 0"))

    assert len(files(tx, task)) == 5250
    assert len(queue(tx)) == 10500 + 5250


# Expiry, and the worker


def test_the_policy_deletes_the_row_and_queues_the_file_or_does_neither(conn: psycopg.Connection) -> None:
    user = add_user(conn)
    add_upload(conn, user, "lapsed", expires_at=now(conn))
    add_upload(conn, user, "live")

    with raises("23514", hint=False), conn.transaction():
        conn.execute("alter table lapse.file_cleanup_queue add constraint full_disk check (path <> 'lapsed')")
        conn.execute(EXPIRE, [now(conn)])
    assert (uploads(conn), queue(conn)) == (["lapsed", "live"], {})

    due_now(conn, "expire_temp_uploads")
    conn.execute("call lapse.run_due()")
    assert (uploads(conn), set(queue(conn))) == (["live"], {"public:lapsed"})
    assert column(conn, "select handled from lapse.run_log where policy = 'expire_temp_uploads'") == [1]


def test_a_file_is_kept_from_the_worker_until_its_upload_lapses(conn: psycopg.Connection) -> None:
    user, end = add_user(conn), now(conn) + HOUR
    add_upload(conn, user, "live", expires_at=end)
    add_upload(conn, user, "for ever", expires_at="infinity")
    add_upload(conn, user, "lapsed", expires_at=now(conn))
    conn.execute("select lapse.enqueue_file('public', path) from market.temp_uploads")

    claims = exchange(conn).claimed

    assert [claim.path for claim in claims] == ["lapsed"]
    assert queue(conn)["public:live"] == end
    assert set(queue(conn)) == {"public:live", "public:lapsed"}


def test_an_upload_whose_file_went_is_marked_and_not_queued_again(
    conn: psycopg.Connection, other: psycopg.Connection
) -> None:
    user = add_user(conn)
    upload = add_upload(conn, user, "a", expires_at=now(conn))
    conn.execute("select lapse.enqueue_file('public', 'a')")
    (claim,) = exchange(conn).claimed

    other.execute("select from market.temp_uploads where id = %s for update", [upload])
    with conn.transaction():
        conn.execute("set local lock_timeout = '5 s'")
        told = conn.execute("select * from market.files_removed('{public}', '{a}', array[now()])").fetchall()
    assert told == [("public", "a")]
    hand_in(conn, result(claim))
    assert value(conn, "select removed_at from market.temp_uploads") is None, "locked: told again later"
    other.rollback()
    (claim,) = exchange(conn).claimed or [claim]
    hand_in(conn, result(claim))

    assert value(conn, "select removed_at is not null from market.temp_uploads")
    assert value(conn, EXPIRE, now(conn)) == 1
    assert (uploads(conn), queue(conn)) == ([], {})


def test_an_upload_registered_since_its_name_was_claimed_is_not_marked(conn: psycopg.Connection) -> None:
    conn.execute("select lapse.enqueue_file('public', 'a')")
    (claim,) = exchange(conn).claimed
    add_upload(conn, add_user(conn), "a")

    hand_in(conn, result(claim))

    assert value(conn, "select removed_at from market.temp_uploads") is None


def test_a_sweep_knows_the_files_of_uploads_while_they_become_a_tasks_too(
    conn: psycopg.Connection, other: psycopg.Connection
) -> None:
    user = add_user(conn)
    upload = add_upload(conn, user, "live")
    add_upload(conn, user, "lapsed", uploaded_at=now(conn) - 2 * DAY)
    add_upload(conn, user, "gone", removed_at=now(conn))
    unknown = "select lapse.unknown_files('public', '{live,lapsed,gone,never}')"

    assert set(column(conn, unknown)) == {"gone", "never"}
    pages = "select path from lapse.listed_files('public', 'market', %s, 1)"
    listed = column(conn, pages, None)
    listed += column(conn, pages, listed[-1]) + column(conn, pages, "live") + column(conn, pages, "lapsed")
    assert set(listed) == {"live", "lapsed"}

    create(other, user, [upload], discard_others=False)
    assert set(column(conn, unknown)) == set(column(other, unknown)) == {"gone", "never"}
    other.commit()
    assert set(column(conn, unknown)) == {"gone", "never"}
    assert set(column(conn, "select path from lapse.listed_files('public')")) == {"live", "lapsed"}


# Races


def test_of_two_tasks_that_want_one_upload_one_gets_it(
    conn: psycopg.Connection, other: psycopg.Connection
) -> None:
    user = add_user(conn)
    wanted, more = add_upload(conn, user, "wanted"), add_upload(conn, user, "more")

    task = create(other, user, [wanted], discard_others=False)
    with raises("LP101"), waiting(conn, CREATE, user, [more, wanted]) as answer:
        other.commit()
        answer.result(10)

    assert files(conn, task) == ["wanted"]
    assert (uploads(conn), queue(conn)) == (["more"], {})
    assert value(conn, "select count(*) from market.tasks") == 1


def test_an_upload_whose_claim_rolls_back_is_free(
    conn: psycopg.Connection, other: psycopg.Connection
) -> None:
    user = add_user(conn)
    upload = add_upload(conn, user, "a")

    create(other, user, [upload])
    with waiting(conn, CREATE, user, [upload]) as answer:
        other.rollback()
        ((task,),) = answer.result(10)

    assert (files(conn, task), queue(conn)) == (["a"], {})


def test_two_drafts_of_one_user_at_the_same_moment_do_not_wait_and_do_not_discard_each_other(
    conn: psycopg.Connection, other: psycopg.Connection
) -> None:
    user = add_user(conn)
    first, second = add_upload(conn, user, "first"), add_upload(conn, user, "second")
    conn.execute("set lock_timeout = '5 s'")

    with conn.transaction():
        conn.execute("select from market.temp_uploads where id = %s for update", [second])
        one = create(other, user, [first])
        two = create(conn, user, [second])
    other.commit()

    assert (files(conn, one), files(conn, two)) == (["first"], ["second"])
    assert (uploads(conn), queue(conn)) == ([], {})


def test_expiry_skips_an_upload_that_a_task_is_taking(
    conn: psycopg.Connection, other: psycopg.Connection
) -> None:
    user, end = add_user(conn), now(conn) + HOUR
    upload = add_upload(conn, user, "a", expires_at=end)
    conn.execute("set lock_timeout = '5 s'")

    task = create(other, user, [upload])
    assert value(conn, EXPIRE, end) == 0
    other.commit()
    assert value(conn, EXPIRE, end) == 0

    assert (files(conn, task), queue(conn)) == (["a"], {})


def test_a_task_that_comes_while_its_upload_expires_is_refused(
    conn: psycopg.Connection, other: psycopg.Connection
) -> None:
    user, end = add_user(conn), now(conn) + HOUR
    upload = add_upload(conn, user, "a", expires_at=end)

    assert value(other, EXPIRE, end) == 1
    with raises("LP101"), waiting(conn, CREATE, user, [upload]) as answer:
        other.commit()
        answer.result(10)

    assert set(queue(conn)) == {"public:a"}
    assert value(conn, "select count(*) from market.tasks") == 0


def test_an_upload_that_is_registered_again_while_it_expires_is_kept(
    conn: psycopg.Connection, other: psycopg.Connection
) -> None:
    user, end = add_user(conn), now(conn) + HOUR
    add_upload(conn, user, "a", expires_at=end)

    assert value(other, EXPIRE, end) == 1
    again = "select market.register_temp_upload(%s, 'public', 'a')"
    with waiting(conn, again, user) as answer:
        other.commit()
        answer.result(10)
    assert (uploads(conn), queue(conn)) == (["a"], {})

    other.execute(again, [user])
    assert value(conn, EXPIRE, now(conn) + 2 * DAY) == 0, "it is locked"
    other.commit()


@pytest.mark.parametrize(("who", "reason"), [("another", "LP105"), ("poster", "LP107")])
def test_a_name_that_a_task_is_just_taking_can_not_be_registered(
    conn: psycopg.Connection, other: psycopg.Connection, who: str, reason: str
) -> None:
    users = {"poster": add_user(conn), "another": add_user(conn)}
    upload = add_upload(conn, users["poster"], "a")

    task = create(other, users["poster"], [upload])
    again = "select market.register_temp_upload(%s, 'public', 'a')"
    with raises(reason), waiting(conn, again, users[who]) as answer:
        other.commit()
        answer.result(10)

    assert (uploads(conn), files(conn, task), queue(conn)) == ([], ["a"], {})


@pytest.mark.parametrize("way", ["insert", "update"])
def test_an_upload_that_an_application_moves_itself_is_never_queued_whoever_commits_first(
    conn: psycopg.Connection, other: psycopg.Connection, way: str
) -> None:
    user, end = add_user(conn), now(conn) + HOUR
    task = add_task(conn, user)
    row = add_file(conn, task, "replaced")
    for path in ["first", "second"]:
        add_upload(conn, user, path, expires_at=end)
    move = (
        f"insert into market.task_files (task_id, storage, path) values ({task}, 'public', %s) returning id"
        if way == "insert"
        else f"update market.task_files set path = %s where id = {row} returning id"
    )

    other.execute(move, ["first"])
    assert value(conn, EXPIRE, end) == 1, "the second; the first is held"
    other.commit()
    conn.execute("delete from market.temp_uploads")
    assert "public:first" not in queue(conn)

    add_upload(conn, user, "third", expires_at=end)
    other.execute(EXPIRE, [end])
    with waiting(conn, move, "third") as answer:
        other.commit()
        answer.result(10)
    assert "public:third" not in queue(conn)


def test_claims_and_expiry_at_the_same_moment_never_leave_a_task_whose_file_is_queued(
    conn: psycopg.Connection, shared: str
) -> None:
    users = [add_user(conn) for _ in range(3)]
    start = Barrier(5)
    rounds, refused = 40, 0

    def claim(user: int, turn: int) -> int:
        missed = 0
        with psycopg.connect(shared, autocommit=True) as own:
            for number in range(rounds):
                start.wait(30)
                try:
                    mine = own.execute(
                        "select array_agg(id) from market.temp_uploads where path like %s",
                        [f"{user}/{number}/%"],
                    ).fetchone()
                    create(own, user, mine[0] if mine and mine[0] else [0], discard_others=turn == 0)
                except psycopg.DatabaseError as error:
                    if error.sqlstate != "LP101":
                        raise
                    missed += 1
                start.wait(30)
        return missed

    def expire() -> None:
        with psycopg.connect(shared, autocommit=True) as own:
            for _ in range(rounds):
                start.wait(30)
                own.execute("select market.expire_temp_uploads(5, %s, '-infinity')", [end])
                start.wait(30)

    end = now(conn) + HOUR
    with ThreadPoolExecutor(4) as pool:
        runs = [pool.submit(claim, user, turn) for turn, user in enumerate(users)]
        runs.append(pool.submit(expire))
        for number in range(rounds):
            with conn.transaction():
                for user in users:
                    for part in range(3):
                        add_upload(conn, user, f"{user}/{number}/{part}", expires_at=end)
            start.wait(30)
            start.wait(30)
        refused = sum(run.result(60) or 0 for run in runs)

    wrong = column(
        conn,
        "select f.path from market.task_files as f"
        "  join lapse.file_cleanup_queue as q on q.storage = f.storage and q.path = f.path",
    )
    assert wrong == []
    assert value(conn, "select count(*) from market.tasks") == 3 * rounds - refused
    known = column(conn, "select path from market.task_files union all select path from market.temp_uploads")
    known += [path.removeprefix("public:") for path in queue(conn)]
    assert len(known) == len(set(known)) == 9 * rounds, "each file has one owner, or waits to go"


# Cost


def test_an_empty_run_reads_no_more_however_many_uploads_lapse_later(conn: psycopg.Connection) -> None:
    user = add_user(conn)
    conn.execute("set session_replication_role = replica")

    def read(rows: int) -> int:
        conn.execute(
            "insert into market.temp_uploads (user_id, storage, path, expires_at)"
            " select %s, 'public', gen_random_uuid()::text, now() + interval '1 hour' + g * interval '1 s'"
            "   from generate_series(1, %s) as g",
            [user, rows],
        )
        conn.execute("vacuum (analyze) market.temp_uploads")
        for _ in range(3):
            plan = value(
                conn,
                "explain (analyze, buffers, format json)"
                " select * from market.expire_temp_uploads(1000, now(), '-infinity')",
            )
        return plan[0]["Plan"]["Shared Hit Blocks"] + plan[0]["Plan"]["Shared Read Blocks"]

    few = read(100)
    assert read(50_000) <= 2 * few


def test_the_application_role_may_do_all_of_it(conn: psycopg.Connection) -> None:
    user, role = add_user(conn), "pglapse_uploads_test"
    with conn.transaction(force_rollback=True):
        conn.execute(f"create role {role}")
        conn.execute(f"select market.grant_application('{role}')")
        conn.execute(f"set local role {role}")
        upload = value(conn, "select market.register_temp_upload(%s, 'public', 'a')", user)
        add_upload(conn, user, "b")
        conn.execute("update market.temp_uploads set path = 'c' where path = 'b'")
        task = create(conn, user, [upload])
        assert value(conn, "select id from market.get_task(%s)", task) == task
        conn.execute("select from market.user_statistics, market.open_tasks, market.live_coupons")


def test_nothing_here_depends_on_the_time_of_reading(tx: psycopg.Connection) -> None:
    user = add_user(tx)
    later: datetime = now(tx) + 90 * DAY
    upload = value(tx, "select market.register_temp_upload(%s, 'public', 'a', p_now => %s)", user, later)

    task = create(tx, user, [upload], now=later + HOUR, deadline=later + 2 * HOUR)

    assert value(tx, "select created_at from market.tasks where id = %s", task) == later + HOUR
