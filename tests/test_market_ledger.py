"""The points: balance = what is left of the grants = the sum of the ledger, whoever writes and however."""

from datetime import timedelta
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support import databases
from tests.support.market import HOUR, SECOND, add, add_user, now, raises, value


@pytest.fixture
def conn(tx: psycopg.Connection) -> psycopg.Connection:
    """A transaction that is rolled back."""
    return tx


def entries(conn: psycopg.Connection) -> list[tuple[str, int]]:
    return conn.execute("select kind, delta from market.point_entries order by id").fetchall()


def balances(conn: psycopg.Connection) -> dict[int, int]:
    return dict(conn.execute("select user_id, balance from market.point_balances").fetchall())


def check(conn: psycopg.Connection) -> None:
    """Raise unless the three accounts agree for every user."""
    wrong = conn.execute(
        "select * from (select user_id, sum(remaining) as remaining from market.point_grants group by 1) as g"
        " full join (select user_id, sum(delta) as delta from market.point_entries group by 1) as e"
        " using (user_id)"
        " full join market.point_balances as b using (user_id)"
        " where coalesce(g.remaining, 0) <> coalesce(b.balance, 0)"
        "    or coalesce(e.delta, 0) <> coalesce(b.balance, 0)"
    ).fetchall()
    assert wrong == []


def test_what_is_left_of_a_grant_is_its_amount_unless_given(conn: psycopg.Connection) -> None:
    user = add_user(conn)

    add(conn, "point_grants", user_id=user, amount=7)
    add(conn, "point_grants", user_id=user, amount=7, remaining=2)
    add(conn, "point_grants", user_id=user, amount=7, remaining=0)

    assert entries(conn) == [("granted", 7), ("granted", 2)]
    assert balances(conn) == {user: 9}


def test_each_entry_says_what_happened(conn: psycopg.Connection) -> None:
    user, start = add_user(conn), now(conn)
    grant = add(conn, "point_grants", user_id=user, amount=10, expires_at=start + HOUR)

    conn.execute("update market.point_grants set remaining = 7")
    conn.execute("update market.point_grants set remaining = 8")
    conn.execute("update market.point_grants set expires_at = %s", [start])
    conn.execute("select market.expire_points(10, %s, '-infinity')", [start])
    conn.execute("update market.point_grants set remaining = 1, expired_at = null")
    conn.execute("delete from market.point_grants")

    assert entries(conn) == [
        ("granted", 10), ("spent", -3), ("granted", 1), ("expired", -8), ("granted", 1), ("spent", -1),
    ]  # fmt: skip
    assert value(conn, "select array_agg(distinct grant_id) from market.point_entries") == [grant]
    check(conn)


def test_a_lapsed_grant_leaves_the_balance_exactly_once(conn: psycopg.Connection) -> None:
    user, start = add_user(conn), now(conn)
    add(conn, "point_grants", user_id=user, amount=10, remaining=4, expires_at=start - SECOND)
    add(conn, "point_grants", user_id=user, amount=5)

    for picked in [1, 0]:
        assert value(conn, "select picked from market.expire_points(10, %s, '-infinity')", start) == picked

    assert entries(conn) == [("granted", 4), ("granted", 5), ("expired", -4)]
    assert balances(conn) == {user: 5}


def test_a_grant_given_to_another_user_moves_its_points(conn: psycopg.Connection) -> None:
    giver, taker = add_user(conn), add_user(conn)
    add(conn, "point_grants", user_id=giver, amount=6)

    conn.execute("update market.point_grants set user_id = %s", [taker])

    assert balances(conn) == {giver: 0, taker: 6}
    check(conn)


def test_one_statement_over_many_grants_writes_one_entry_each(conn: psycopg.Connection) -> None:
    users = [add_user(conn) for _ in range(3)]
    for user in users * 4:
        add(conn, "point_grants", user_id=user, amount=5)
    before = len(entries(conn))

    conn.execute("update market.point_grants set remaining = remaining - 2 where user_id <> %s", [users[0]])

    assert len(entries(conn)) - before == 8
    assert balances(conn) == {users[0]: 20, users[1]: 12, users[2]: 12}


def test_a_change_that_rolls_back_leaves_no_entry(conn: psycopg.Connection) -> None:
    user = add_user(conn)

    with conn.transaction(force_rollback=True):
        add(conn, "point_grants", user_id=user, amount=5)

    assert entries(conn) == []
    assert balances(conn) == {}


@pytest.mark.parametrize(
    "statement",
    [
        "update market.point_entries set delta = 1",
        "delete from market.point_entries",
        "delete from market.point_entries where false",
        "truncate market.point_entries",
        "insert into market.point_entries (user_id, grant_id, delta, kind) values (1, 1, 1, 'granted')",
        "update market.point_balances set balance = 1",
        "delete from market.point_balances",
        "insert into market.point_balances values (1, 1)",
        "truncate market.point_balances",
        "truncate market.point_grants",
    ],
)
def test_nobody_writes_the_ledger_or_the_balances_directly(conn: psycopg.Connection, statement: str) -> None:
    add(conn, "point_grants", user_id=add_user(conn), amount=5)

    with raises("LP107"), conn.transaction():
        conn.execute(statement)

    assert entries(conn) == [("granted", 5)]
    check(conn)


def test_not_even_another_trigger_changes_an_entry(conn: psycopg.Connection) -> None:
    add(conn, "point_grants", user_id=add_user(conn), amount=5)
    conn.execute(
        "create function public.forget() returns trigger language plpgsql as"
        " $$ begin delete from market.point_entries; return null; end $$"
    )
    conn.execute("create trigger forget after update on market.users execute function public.forget()")

    with raises("LP107"), conn.transaction():
        conn.execute("update market.users set display_name = 'x'")

    assert entries(conn) == [("granted", 5)]


@pytest.mark.parametrize(("amount", "remaining"), [(0, 0), (-1, -1), (5, 6), (5, -1), (2**31 - 1, 2**31 - 2)])
def test_a_grant_has_between_nothing_and_all_of_it_left(
    conn: psycopg.Connection, amount: int, remaining: int
) -> None:
    user = add_user(conn)
    if 0 <= remaining <= amount > 0:
        add(conn, "point_grants", user_id=user, amount=amount, remaining=remaining)
        add(conn, "point_grants", user_id=user, amount=amount, remaining=remaining)
        assert balances(conn) == {user: 2 * remaining}
    else:
        with raises("23514", hint=False), conn.transaction():
            add(conn, "point_grants", user_id=user, amount=amount, remaining=remaining)


# Any sequence of changes

USERS = st.integers(0, 2)
POINTS = st.integers(1, 30)
HOURS = st.one_of(st.none(), st.integers(-2, 4))
CHANGE = st.one_of(
    st.tuples(st.just("grant"), USERS, POINTS, HOURS),
    st.tuples(st.just("spend"), USERS, POINTS, st.integers(0, 4)),
    st.tuples(st.just("expire"), st.integers(1, 5), st.integers(0, 4)),
    st.tuples(st.just("set"), st.integers(0, 9), st.integers(0, 100)),
    st.tuples(st.just("take"), USERS, st.integers(1, 3)),
    st.tuples(st.just("move"), st.integers(0, 9), USERS),
    st.tuples(st.just("delete"), st.integers(0, 9)),
    st.tuples(st.just("upsert"), st.integers(0, 9), POINTS),
)


def apply(conn: psycopg.Connection, users: list[int], change: tuple[Any, ...]) -> None:
    """Do one change as an application might: by the operations, or directly on the table."""
    nth = "(select id from market.point_grants order by id offset %s limit 1)"
    match change:
        case ("grant", user, points, hours):
            expiry = None if hours is None else value(conn, "select now()") + timedelta(hours=hours)
            add(conn, "point_grants", user_id=users[user], amount=points, expires_at=expiry)
        case ("spend", user, points, hours):
            when = value(conn, "select now()") + timedelta(hours=hours)
            free = value(conn, "select market.point_balance(%s, %s)", users[user], when)
            if points > free:
                with raises("LP106"), conn.transaction(), conn.transaction():
                    conn.execute("select market.spend_points(%s, %s, %s)", [users[user], points, when])
            else:
                left = value(conn, "select market.spend_points(%s, %s, %s)", users[user], points, when)
                assert left == free - points
        case ("expire", limit, hours):
            conn.execute(
                "select market.expire_points(%s, now() + %s, '-infinity')", [limit, timedelta(hours=hours)]
            )
        case ("set", place, percent):
            conn.execute(
                "update market.point_grants set remaining = amount * %s / 100, expired_at = null"
                f" where id = {nth}",
                [percent, place],
            )
        case ("take", user, points):
            conn.execute(
                "update market.point_grants set remaining = greatest(0, remaining - %s) where user_id = %s",
                [points, users[user]],
            )
        case ("move", place, user):
            conn.execute(
                f"update market.point_grants set user_id = %s where id = {nth}", [users[user], place]
            )
        case ("delete", place):
            conn.execute(f"delete from market.point_grants where id = {nth}", [place])
        case ("upsert", place, points):
            conn.execute(
                "insert into market.point_grants (id, user_id, amount) overriding system value"
                f" select id, user_id, amount from market.point_grants where id = {nth}"
                " on conflict (id) do update set amount = point_grants.amount + %s,"
                " remaining = point_grants.remaining + %s, expired_at = null",
                [place, points, points],
            )


@pytest.fixture(scope="module")
def ledger(server: str, template: str) -> Any:
    """One connection for all sequences; each is rolled back."""
    with databases.database(server, template) as dsn, psycopg.connect(dsn) as connection:
        users = [add_user(connection) for _ in range(3)]
        connection.commit()
        yield connection, users
        connection.rollback()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
@given(changes=st.lists(CHANGE, min_size=1, max_size=12))
def test_the_three_accounts_agree_after_any_sequence_of_changes(
    ledger: tuple[psycopg.Connection, list[int]], changes: list[tuple[Any, ...]]
) -> None:
    conn, users = ledger

    with conn.transaction(force_rollback=True):
        for change in changes:
            apply(conn, users, change)
            check(conn)
