"""Guarded operations look at the time themselves, and say why they refuse."""

from datetime import timedelta

import psycopg
import pytest
from psycopg import sql

from tests.support.market import (
    HOUR,
    NUMBER,
    SECOND,
    add,
    add_file,
    add_task,
    add_user,
    column,
    now,
    queue,
    raises,
    value,
)


@pytest.fixture
def conn(tx: psycopg.Connection) -> psycopg.Connection:
    """A transaction that is rolled back."""
    return tx


@pytest.fixture
def paused(conn: psycopg.Connection) -> psycopg.Connection:
    """Every policy is paused: nothing but the operations themselves can refuse what has lapsed."""
    conn.execute("select lapse.pause(name) from lapse.policy")
    return conn


def code() -> str:
    return f"CODE-{next(NUMBER)}"


# Coupons


def test_a_coupon_is_redeemed_once(conn: psycopg.Connection) -> None:
    user, other, word = add_user(conn), add_user(conn), code()
    coupon = add(conn, "coupons", code=word, valid_until=now(conn) + HOUR)

    assert value(conn, "select market.redeem_coupon(%s, %s)", word, user) == coupon

    assert conn.execute("select status, user_id, used_at is not null from market.coupons").fetchone() == (
        "used",
        user,
        True,
    )
    with raises("LP103"), conn.transaction():
        conn.execute("select market.redeem_coupon(%s, %s)", [word, user])
    with raises("LP105"), conn.transaction():
        conn.execute("select market.redeem_coupon(%s, %s)", [word, other])


def test_a_coupon_that_lapsed_a_second_ago_redeems_nothing_with_every_policy_paused(
    paused: psycopg.Connection,
) -> None:
    user = add_user(paused)
    words = [code() for _ in range(3)]
    for word, age in zip(words, [SECOND, timedelta(0), 90 * 24 * HOUR], strict=True):
        add(paused, "coupons", code=word, valid_until=now(paused) - age)

    for word in words:
        with raises("LP102"), paused.transaction():
            paused.execute("select market.redeem_coupon(%s, %s)", [word, user])

    assert column(paused, "select distinct status from market.coupons") == ["active"]


def test_a_coupon_lapses_at_its_time_and_not_before(conn: psycopg.Connection) -> None:
    user, word = add_user(conn), code()
    end = now(conn) + HOUR
    add(conn, "coupons", code=word, valid_until=end)

    with raises("LP102"), conn.transaction():
        conn.execute("select market.redeem_coupon(%s, %s, %s)", [word, user, end])
    conn.execute("select market.redeem_coupon(%s, %s, %s)", [word, user, end - timedelta(microseconds=1)])


@pytest.mark.parametrize("operation", ["redeem_coupon", "use_invitation_code"])
def test_a_refusal_repeats_no_more_than_the_beginning_of_what_somebody_typed(
    conn: psycopg.Connection, operation: str
) -> None:
    with raises("LP101") as caught:
        conn.execute(f"select market.{operation}(%s, %s)", ["x" * 100_000, add_user(conn)])

    assert len(caught.value.diag.message_primary or "") < 200


@pytest.mark.parametrize("never", [None, "infinity"])
def test_a_coupon_without_end_never_lapses(conn: psycopg.Connection, never: str | None) -> None:
    user, word = add_user(conn), code()
    add(conn, "coupons", code=word, valid_until=never)

    conn.execute("select market.redeem_coupon(%s, %s, now() + interval '900 years')", [word, user])


def test_a_coupon_is_refused_with_its_reason(conn: psycopg.Connection) -> None:
    user, other = add_user(conn), add_user(conn)
    theirs, early, expired = code(), code(), code()
    add(conn, "coupons", code=theirs, user_id=other)
    add(conn, "coupons", code=early, valid_from=now(conn) + HOUR)
    add(conn, "coupons", code=expired, status="expired")

    for word, who, reason in [
        ("no such code", user, "LP101"),
        (theirs, other + 1000, "LP101"),
        (theirs, user, "LP105"),
        (early, user, "LP104"),
        (expired, user, "LP102"),
        (None, user, "LP108"),
        (theirs, None, "LP108"),
    ]:
        with raises(reason), conn.transaction():
            conn.execute("select market.redeem_coupon(%s, %s)", [word, who])
    conn.execute("select market.redeem_coupon(%s, %s)", [theirs, other])


# Invitation codes


def test_an_invitation_is_good_for_its_number_of_uses(conn: psycopg.Connection) -> None:
    user, word = add_user(conn), code()
    invitation = add(conn, "invitation_codes", code=word, owner_id=add_user(conn), max_uses=2)

    for status in ["active", "exhausted"]:
        assert value(conn, "select market.use_invitation_code(%s, %s)", word, user) == invitation
        assert value(conn, "select status from market.invitation_codes") == status

    with raises("LP103"), conn.transaction():
        conn.execute("select market.use_invitation_code(%s, %s)", [word, user])
    assert value(conn, "select use_count from market.invitation_codes") == 2


def test_an_invitation_that_lapsed_a_second_ago_admits_nobody_with_every_policy_paused(
    paused: psycopg.Connection,
) -> None:
    user, word = add_user(paused), code()
    add(paused, "invitation_codes", code=word, valid_until=now(paused) - SECOND)

    with raises("LP102"), paused.transaction():
        paused.execute("select market.use_invitation_code(%s, %s)", [word, user])

    assert value(paused, "select use_count from market.invitation_codes") == 0


def test_an_invitation_is_refused_with_its_reason(conn: psycopg.Connection) -> None:
    user, expired, good = add_user(conn), code(), code()
    add(conn, "invitation_codes", code=expired, status="expired")
    add(conn, "invitation_codes", code=good, max_uses=9, valid_until="infinity")

    for word, who, reason in [
        ("no such code", user, "LP101"),
        (good, user + 1000, "LP101"),
        (expired, user, "LP102"),
        (None, user, "LP108"),
        (good, None, "LP108"),
    ]:
        with raises(reason), conn.transaction():
            conn.execute("select market.use_invitation_code(%s, %s)", [word, who])
    conn.execute("select market.use_invitation_code(%s, %s)", [good, user])


# Points


def test_points_are_spent_by_earliest_expiry_and_all_or_nothing(conn: psycopg.Connection) -> None:
    user, start = add_user(conn), now(conn)
    never = value(conn, "select market.grant_points(%s, 10)", user)
    later = value(conn, "select market.grant_points(%s, 10, %s)", user, start + 2 * HOUR)
    soon = value(conn, "select market.grant_points(%s, 10, %s)", user, start + HOUR)

    def left() -> dict[int, int]:
        return dict(conn.execute("select id, remaining from market.point_grants").fetchall())

    assert value(conn, "select market.spend_points(%s, 13)", user) == 17
    assert left() == {soon: 0, later: 7, never: 10}
    with raises("LP106") as refused, conn.transaction():
        conn.execute("select market.spend_points(%s, 18)", [user])
    assert "17" in (refused.value.diag.message_detail or "")
    assert left() == {soon: 0, later: 7, never: 10}
    assert value(conn, "select market.spend_points(%s, 17)", user) == 0
    assert left() == {soon: 0, later: 0, never: 0}


def test_lapsed_points_are_never_spent_with_every_policy_paused(paused: psycopg.Connection) -> None:
    user, start = add_user(paused), now(paused)
    paused.execute("select market.grant_points(%s, 5, 'infinity')", [user])
    for age in [SECOND, timedelta(0)]:
        add(paused, "point_grants", user_id=user, amount=100, expires_at=start - age)

    with raises("LP106"), paused.transaction():
        paused.execute("select market.spend_points(%s, 6)", [user])
    assert value(paused, "select market.point_balance(%s)", user) == 5
    assert value(paused, "select balance from market.point_balances") == 205
    assert value(paused, "select market.spend_points(%s, 5)", user) == 0


def test_points_are_refused_with_their_reason(conn: psycopg.Connection) -> None:
    user, start = add_user(conn), now(conn)
    stranger = user + 1000

    for reason, call, arguments in [
        ("LP101", "grant_points(%s, 1)", [stranger]),
        ("LP101", "spend_points(%s, 1)", [stranger]),
        ("LP101", "point_balance(%s)", [stranger]),
        ("LP106", "spend_points(%s, 1)", [user]),
        ("LP108", "grant_points(%s, 0)", [user]),
        ("LP108", "grant_points(%s, -1)", [user]),
        ("LP108", "grant_points(%s, null)", [user]),
        ("LP108", "grant_points(%s, 1, %s, %s)", [user, start, start]),
        ("LP108", "grant_points(null, 1)", []),
        ("LP108", "spend_points(%s, 0)", [user]),
        ("LP108", "spend_points(%s, -1)", [user]),
        ("LP108", "spend_points(%s, null)", [user]),
        ("LP108", "spend_points(null, 1)", []),
        ("LP108", "point_balance(null)", []),
    ]:
        with raises(reason), conn.transaction():
            conn.execute(f"select market.{call}", arguments)
    assert value(conn, "select market.point_balance(%s)", user) == 0


# Sign-ups


def test_a_sign_up_becomes_a_user_once(conn: psycopg.Connection) -> None:
    add(conn, "pending_users", email="ada@example.org", token_hash=b"1", expires_at=now(conn) + HOUR)

    user = value(conn, "select market.verify_pending_user(%s)", b"1")

    assert conn.execute("select email, display_name from market.users where id = %s", [user]).fetchone() == (
        "ada@example.org",
        "ada",
    )
    with raises("LP103"), conn.transaction():
        conn.execute("select market.verify_pending_user(%s)", [b"1"])


def test_a_sign_up_is_refused_with_its_reason(paused: psycopg.Connection) -> None:
    start = now(paused)
    for token, end in [(b"1", start + HOUR), (b"2", start + HOUR), (b"3", start - SECOND)]:
        add(paused, "pending_users", email="ada@example.org", token_hash=token, expires_at=end)
    paused.execute("select market.verify_pending_user(%s)", [b"1"])

    for token, reason in [(b"2", "LP107"), (b"3", "LP102"), (b"4", "LP101"), (None, "LP108")]:
        with raises(reason), paused.transaction():
            paused.execute("select market.verify_pending_user(%s)", [token])

    assert value(paused, "select count(*) from market.pending_users where verified_at is not null") == 1


# Tasks


def test_a_task_is_completed_cancelled_and_reopened(conn: psycopg.Connection) -> None:
    task = add_task(conn, deadline=now(conn) + HOUR)

    def state() -> tuple[object, ...] | None:
        return conn.execute(
            "select status, completed_at is not null, cancelled_at is not null, cancel_reason"
            " from market.tasks"
        ).fetchone()

    conn.execute("select market.complete_task(%s)", [task])
    assert state() == ("completed", True, False, None)
    conn.execute("select market.reopen_task(%s)", [task])
    assert state() == ("open", False, False, None)
    conn.execute("select market.cancel_task(%s, 'changed my mind')", [task])
    assert state() == ("cancelled", False, True, "changed my mind")
    conn.execute("update market.tasks set taker_id = %s", [add_user(conn)])
    conn.execute("select market.reopen_task(%s)", [task])
    assert state() == ("taken", False, False, None)


def test_a_task_is_refused_with_its_reason(paused: psycopg.Connection) -> None:
    start = now(paused)
    live = add_task(paused)
    done = add_task(paused, status="completed")
    cancelled = add_task(paused, status="cancelled")
    lapsed = add_task(paused, deadline=start - SECOND)
    lapsed_then_cancelled = add_task(paused, status="cancelled", deadline=start - SECOND)

    for reason, call, task in [
        ("LP101", "complete_task(%s)", 0),
        ("LP101", "cancel_task(%s)", 0),
        ("LP101", "reopen_task(%s)", 0),
        ("LP107", "complete_task(%s)", done),
        ("LP107", "complete_task(%s)", cancelled),
        ("LP107", "cancel_task(%s)", done),
        ("LP107", "cancel_task(%s)", cancelled),
        ("LP107", "reopen_task(%s)", live),
        ("LP102", "complete_task(%s)", lapsed),
        ("LP102", "reopen_task(%s)", lapsed_then_cancelled),
        ("LP108", "complete_task(%s)", None),
        ("LP108", "cancel_task(%s)", None),
        ("LP108", "reopen_task(%s)", None),
    ]:
        with raises(reason), paused.transaction():
            paused.execute(f"select market.{call}", [task])

    paused.execute("select market.reopen_task(%s, %s)", [lapsed_then_cancelled, start + HOUR])
    assert (
        value(paused, "select deadline from market.tasks where id = %s", lapsed_then_cancelled)
        == start + HOUR
    )


# Rights


def test_an_application_needs_its_grant_and_no_right_on_the_engine(own: psycopg.Connection, dsn: str) -> None:
    role = f"pglapse_test_app_{next(NUMBER)}_{own.info.backend_pid}"
    user, task, word = add_user(own), add_task(own), code()
    own.execute(sql.SQL("create role {}").format(sql.Identifier(role)))
    try:
        with psycopg.connect(dsn, autocommit=True) as app:
            app.execute(sql.SQL("set role {}").format(sql.Identifier(role)))
            with raises("42501", hint=False), app.transaction():
                app.execute("select market.point_balance(%s)", [user])

            own.execute("select market.grant_application(%s)", [role])
            own.execute("select market.grant_application(%s)", [role])

            add(app, "coupons", code=word)
            app.execute("select market.redeem_coupon(%s, %s)", [word, user])
            add(app, "point_grants", user_id=user, amount=3)
            app.execute("select market.spend_points(%s, 1)", [user])
            add_file(app, task, "a")
            app.execute("update market.tasks set status = 'cancelled'")
            app.execute("delete from market.task_files")
            for forbidden in [
                "update market.point_balances set balance = 0",
                "delete from market.point_entries",
                "select * from lapse.file_cleanup_queue",
                "select market.expire_coupons(1, now(), '-infinity')",
                "select * from market.files_removed(array['public'], array['a'], array[now()])",
                "truncate market.task_files",
            ]:
                with raises("42501", hint=False), app.transaction():
                    app.execute(forbidden)
    finally:
        own.execute(sql.SQL("drop owned by {0}; drop role {0}").format(sql.Identifier(role)))

    assert set(queue(own)) == {"public:a"}
    for sqlstate, given in [("LP108", None), ("LP108", "public"), ("LP101", "nobody of that name")]:
        with raises(sqlstate), own.transaction():
            own.execute("select market.grant_application(%s)", [given])
