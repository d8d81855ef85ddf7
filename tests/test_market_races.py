"""Two connections at once: exactly one of them gets what there is one of."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, repeat

import psycopg
import pytest

from tests.support.market import (
    HOUR,
    SECOND,
    add,
    add_file,
    add_task,
    add_user,
    claim,
    now,
    queue,
    raises,
    value,
    waiting,
)


@pytest.fixture
def other(dsn: str) -> Iterator[psycopg.Connection]:
    """A second connection, with transactions that a test ends itself."""
    with psycopg.connect(dsn) as connection:
        yield connection


def test_of_two_who_redeem_a_coupon_one_gets_it(conn: psycopg.Connection, other: psycopg.Connection) -> None:
    first, second = add_user(conn), add_user(conn)
    add(conn, "coupons", code="c", valid_until=now(conn) + HOUR)

    other.execute("select market.redeem_coupon('c', %s)", [first])
    with raises("LP105"), waiting(conn, "select market.redeem_coupon('c', %s)", second) as answer:
        other.commit()
        answer.result(10)

    assert value(conn, "select user_id from market.coupons") == first


def test_a_coupon_whose_redemption_rolls_back_is_free(
    conn: psycopg.Connection, other: psycopg.Connection
) -> None:
    first, second = add_user(conn), add_user(conn)
    add(conn, "coupons", code="c")

    other.execute("select market.redeem_coupon('c', %s)", [first])
    with waiting(conn, "select market.redeem_coupon('c', %s)", second) as answer:
        other.rollback()
        answer.result(10)

    assert value(conn, "select user_id from market.coupons") == second


def test_a_coupon_is_not_expired_while_it_is_redeemed(
    conn: psycopg.Connection, other: psycopg.Connection
) -> None:
    user, end = add_user(conn), now(conn) + HOUR
    add(conn, "coupons", code="c", valid_until=end)

    other.execute("select market.redeem_coupon('c', %s)", [user])
    assert value(conn, "select picked from market.expire_coupons(10, %s, '-infinity')", end) == 0
    other.commit()
    assert value(conn, "select picked from market.expire_coupons(10, %s, '-infinity')", end) == 0

    assert value(conn, "select status from market.coupons") == "used"


def test_of_two_who_want_the_last_use_of_an_invitation_one_gets_it(
    conn: psycopg.Connection, other: psycopg.Connection
) -> None:
    user = add_user(conn)
    add(conn, "invitation_codes", code="c", max_uses=3, use_count=2)

    other.execute("select market.use_invitation_code('c', %s)", [user])
    with raises("LP103"), waiting(conn, "select market.use_invitation_code('c', %s)", user) as answer:
        other.commit()
        answer.result(10)

    assert value(conn, "select use_count from market.invitation_codes") == 3


def test_of_two_who_spend_the_same_points_one_may(
    conn: psycopg.Connection, other: psycopg.Connection
) -> None:
    user = add_user(conn)
    conn.execute("select market.grant_points(%s, 10)", [user])

    other.execute("select market.spend_points(%s, 7)", [user])
    with raises("LP106"), waiting(conn, "select market.spend_points(%s, 7)", user) as answer:
        other.commit()
        answer.result(10)

    assert value(conn, "select market.point_balance(%s)", user) == 3


def test_expiry_skips_a_user_who_is_spending(conn: psycopg.Connection, other: psycopg.Connection) -> None:
    spender, idle, end = add_user(conn), add_user(conn), now(conn)
    for user in [spender, idle]:
        add(conn, "point_grants", user_id=user, amount=10, expires_at=end)  # no spender locks a lapsed grant
        conn.execute("select market.grant_points(%s, 10)", [user])
    conn.execute("set lock_timeout = '5 s'")

    other.execute("select market.spend_points(%s, 4)", [spender])
    assert value(conn, "select handled from market.expire_points(10, %s, '-infinity')", end) == 1
    other.commit()
    assert value(conn, "select handled from market.expire_points(10, %s, '-infinity')", end) == 1

    balances = conn.execute("select user_id, balance from market.point_balances order by user_id").fetchall()
    assert balances == [(spender, 6), (idle, 10)]


def test_spending_waits_for_expiry_and_then_uses_what_is_left(
    conn: psycopg.Connection, other: psycopg.Connection
) -> None:
    user, end = add_user(conn), now(conn) + HOUR
    conn.execute("select market.grant_points(%s, 10, %s)", [user, end])
    conn.execute("select market.grant_points(%s, 3)", [user])

    other.execute("select market.expire_points(10, %s, '-infinity')", [end])
    with waiting(conn, "select market.spend_points(%s, 3)", user) as answer:
        other.commit()
        assert answer.result(10) == [(0,)]

    assert value(conn, "select balance from market.point_balances") == 0


def test_spending_expiring_and_granting_at_once_never_deadlock_and_add_up(
    conn: psycopg.Connection, dsn: str
) -> None:
    users, start = [add_user(conn) for _ in range(4)], now(conn)
    for user in chain.from_iterable(repeat(users, 30)):
        add(conn, "point_grants", user_id=user, amount=10, expires_at=start - SECOND)
        add(conn, "point_grants", user_id=user, amount=10)

    def spend(order: list[int]) -> None:
        with psycopg.connect(dsn, autocommit=True) as own:
            for user in order * 15:
                own.execute("select market.spend_points(%s, 7)", [user])
                own.execute("select market.grant_points(%s, 1, now() + interval '1 ms')", [user])

    def expire() -> None:
        with psycopg.connect(dsn, autocommit=True) as own:
            for _ in range(150):
                own.execute("select market.expire_points(5, clock_timestamp(), '-infinity')")

    with ThreadPoolExecutor(4) as pool:
        for future in [
            pool.submit(spend, users), pool.submit(spend, users[::-1]),
            pool.submit(expire), pool.submit(expire),
        ]:  # fmt: skip
            future.result(60)

    wrong = conn.execute(
        "select b.user_id from market.point_balances as b where b.balance <>"
        " (select sum(g.remaining) from market.point_grants as g where g.user_id = b.user_id)"
        " or b.balance <> (select sum(e.delta) from market.point_entries as e where e.user_id = b.user_id)"
    ).fetchall()
    assert wrong == []
    assert value(conn, "select -sum(delta) from market.point_entries where kind = 'spent'") == 2 * 4 * 15 * 7


def test_a_sign_up_is_not_purged_while_it_is_verified(
    conn: psycopg.Connection, other: psycopg.Connection
) -> None:
    end = now(conn) + HOUR
    add(conn, "pending_users", email="a@example.org", token_hash=b"1", expires_at=end)

    other.execute("select market.verify_pending_user(%s)", [b"1"])
    assert value(conn, "select picked from market.purge_pending_users(10, %s, '-infinity')", end) == 0
    other.commit()
    assert value(conn, "select picked from market.purge_pending_users(10, %s, '-infinity')", end) == 0

    assert value(conn, "select count(*) from market.pending_users") == 1
    assert value(conn, "select count(*) from market.users") == 1


def test_who_verifies_a_sign_up_that_is_being_purged_learns_that_it_is_gone(
    conn: psycopg.Connection, other: psycopg.Connection
) -> None:
    end = now(conn) + HOUR
    add(conn, "pending_users", email="a@example.org", token_hash=b"1", expires_at=end)

    other.execute("select market.purge_pending_users(10, %s, '-infinity')", [end])
    with raises("LP101"), waiting(conn, "select market.verify_pending_user(%s)", b"1") as answer:
        other.commit()
        answer.result(10)

    assert value(conn, "select count(*) from market.users") == 0


def test_of_two_sign_ups_with_one_address_one_becomes_a_user(
    conn: psycopg.Connection, other: psycopg.Connection
) -> None:
    for token in [b"1", b"2"]:
        add(conn, "pending_users", email="a@example.org", token_hash=token, expires_at=now(conn) + HOUR)

    other.execute("select market.verify_pending_user(%s)", [b"1"])
    with raises("LP107"), waiting(conn, "select market.verify_pending_user(%s)", b"2") as answer:
        other.commit()
        answer.result(10)

    assert value(conn, "select count(*) from market.users") == 1


def test_a_task_taken_while_the_sweep_runs_stays_taken(
    conn: psycopg.Connection, other: psycopg.Connection
) -> None:
    task = add_task(conn, deadline=now(conn))

    other.execute("update market.tasks set status = 'taken' where id = %s", [task])
    assert value(conn, "select picked from market.cancel_expired_tasks(10, now(), '-infinity')") == 0
    other.commit()
    assert value(conn, "select picked from market.cancel_expired_tasks(10, now(), '-infinity')") == 0

    assert value(conn, "select status from market.tasks") == "taken"


def test_a_reopened_task_keeps_files_that_no_worker_has_claimed(
    conn: psycopg.Connection, other: psycopg.Connection
) -> None:
    task = add_task(conn, status="cancelled")
    add_file(conn, task, "a")

    other.execute("select market.reopen_task(%s)", [task])
    assert claim(conn) == {}
    other.commit()

    assert claim(conn) == {}
    assert queue(conn) == {}


def test_a_reopened_task_is_told_of_files_that_a_worker_holds(
    conn: psycopg.Connection, other: psycopg.Connection
) -> None:
    task = add_task(conn, status="cancelled")
    add_file(conn, task, "a")
    claims = claim(other)
    warnings: list[str] = []
    conn.add_notice_handler(lambda diagnostic: warnings.append(diagnostic.message_primary or ""))
    conn.execute("set lock_timeout = '5 s'")

    conn.execute("select market.reopen_task(%s)", [task])  # the claim has not even committed
    other.commit()

    assert list(claims) == ["a"]
    assert len(warnings) == 1
    assert value(conn, "select status from market.tasks") == "open"


def test_a_file_added_while_its_task_is_cancelled_is_queued_whoever_commits_first(
    conn: psycopg.Connection, other: psycopg.Connection
) -> None:
    task = add_task(conn)

    other.execute("update market.tasks set status = 'cancelled' where id = %s", [task])
    insert = "insert into market.task_files (task_id, storage, path) values (%s, 'public', %s) returning id"
    with waiting(conn, insert, task, "late") as answer:
        other.commit()
        answer.result(10)

    conn.execute("update market.tasks set status = 'open' where id = %s", [task])
    other.execute(insert, [task, "early"])
    cancel = "update market.tasks set status = 'cancelled' where id = %s returning id"
    with waiting(conn, cancel, task) as answer:
        other.commit()
        answer.result(10)

    assert set(queue(conn)) == {"public:early", "public:late"}


def test_two_who_add_a_file_and_then_update_the_task_take_turns(
    conn: psycopg.Connection, other: psycopg.Connection, dsn: str
) -> None:
    task = add_task(conn)

    add_file(other, task, "a")
    with (
        psycopg.connect(dsn) as third,
        waiting(
            third,
            "insert into market.task_files (task_id, storage, path) values (%s, 'public', 'b') returning id",
            task,
        ) as answer,
    ):
        other.execute("update market.tasks set title = 'first' where id = %s", [task])
        other.commit()
        answer.result(10)
        third.execute("update market.tasks set title = 'second' where id = %s", [task])

    assert value(conn, "select title from market.tasks") == "second"
