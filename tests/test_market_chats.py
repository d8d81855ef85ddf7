"""Support chats: first come first served, within what an agent takes, warned once, ended in time, told of."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from psycopg import sql

from tests.support.market import HOUR, NUMBER, SECOND, add, add_user, column, now, raises, value

MINUTE = timedelta(minutes=1)


@pytest.fixture
def conn(tx: psycopg.Connection) -> psycopg.Connection:
    """A transaction that is rolled back."""
    return tx


def add_agent(conn: psycopg.Connection, max_chats: int = 1, *, online: bool = True, **columns: Any) -> int:
    return add(conn, "agents", display_name="Ada", max_chats=max_chats, online=online, **columns)


def open_chat(conn: psycopg.Connection, at: datetime | None = None) -> int:
    return value(conn, "select market.open_chat(%s, coalesce(%s, now()))", add_user(conn), at)


def post(conn: psycopg.Connection, chat: int, at: datetime, author: str = "user") -> None:
    conn.execute("select market.post_message(%s, %s, 'Hello?', %s)", [chat, author, at])


def step(conn: psycopg.Connection, policy: str, at: datetime) -> int:
    """Run a policy's step at some time; returns how many rows it handled."""
    return value(conn, f"select handled from market.{policy}(100, %s, '-infinity')", at)


def agents(conn: psycopg.Connection) -> dict[int, int | None]:
    """Chat → agent, of chats that have not ended."""
    return dict(
        conn.execute("select id, agent_id from market.chats where status <> 'ended' order by id").fetchall()
    )


def state(conn: psycopg.Connection, chat: int, *columns: str) -> tuple[Any, ...]:
    row = conn.execute(f"select {', '.join(columns)} from market.chats where id = %s", [chat]).fetchone()
    assert row is not None
    return row


def settle(conn: psycopg.Connection) -> None:
    """Do what is deferred to the commit."""
    conn.execute("set constraints all immediate; set constraints all deferred")


def events(conn: psycopg.Connection, after: int = 0) -> list[tuple[str, int, int | None, str | None]]:
    return conn.execute(
        "select kind, chat_id, agent_id, reason from market.chat_events_after(%s)", [after]
    ).fetchall()


# Assignment


def test_a_chat_goes_at_once_to_an_agent_who_has_room(conn: psycopg.Connection) -> None:
    add_agent(conn, 5, online=False)
    agent = add_agent(conn)

    first, second = open_chat(conn), open_chat(conn)

    assert agents(conn) == {first: agent, second: None}
    assert state(conn, first, "status", "assigned_at = now()", "last_activity_at = now()") == (
        "active",
        True,
        True,
    )
    assert state(conn, second, "status", "assigned_at") == ("waiting", None)


def test_the_one_with_the_fewest_chats_is_next_and_then_the_one_who_waited_longest(
    conn: psycopg.Connection,
) -> None:
    start = now(conn)
    busy = add_agent(conn, 3)
    for second in range(2):
        open_chat(conn, start + second * SECOND)
    old, new = add_agent(conn, 2, last_chat_at=start), add_agent(conn, 2)

    chats = [open_chat(conn, start + (10 + second) * SECOND) for second in range(5)]
    chats.append(open_chat(conn))

    assert [agents(conn)[chat] for chat in chats] == [new, old, new, old, busy, None]


def test_an_agent_who_comes_online_takes_who_came_first(conn: psycopg.Connection) -> None:
    start = now(conn)
    late, early, between = (open_chat(conn, start + minute * MINUTE) for minute in [3, 1, 2])
    agent = add_agent(conn, 2, online=False)

    conn.execute("select market.set_agent_online(%s, true)", [agent])

    assert agents(conn) == {early: agent, between: agent, late: None}


def test_a_freed_slot_goes_to_who_came_first(conn: psycopg.Connection) -> None:
    agent = add_agent(conn)
    first, second, third = (open_chat(conn, now(conn) + second * SECOND) for second in range(3))

    conn.execute("select market.end_chat(%s, 'solved')", [first])

    assert agents(conn) == {second: agent, third: None}
    assert state(conn, first, "status", "end_reason", "agent_id", "ended_at = now()") == (
        "ended", "solved", agent, True,
    )  # fmt: skip


def test_who_goes_offline_keeps_chats_and_gets_no_more(conn: psycopg.Connection) -> None:
    agent = add_agent(conn, 2)
    first = open_chat(conn)

    conn.execute("select market.set_agent_online(%s, false)", [agent])
    second = open_chat(conn)
    conn.execute("select market.set_agent_online(%s, false)", [agent])

    assert agents(conn) == {first: agent, second: None}


def test_an_agent_who_takes_none_gets_none(conn: psycopg.Connection) -> None:
    add_agent(conn, 0)
    chat = open_chat(conn)

    assert agents(conn) == {chat: None}


def test_the_policy_assigns_what_waits_and_no_more_than_there_is_room_for(conn: psycopg.Connection) -> None:
    start, user = now(conn), add_user(conn)
    conn.execute("set session_replication_role = replica")
    chats = [add(conn, "chats", user_id=user, opened_at=start - age * MINUTE) for age in [1, 3, 2]]
    agent = add_agent(conn, 2)
    conn.execute("set session_replication_role = origin")

    assert conn.execute("select * from market.assign_waiting_chats(100, now(), '-infinity')").fetchone() == (
        2, 2, start - 2 * MINUTE,
    )  # fmt: skip
    assert agents(conn) == {chats[0]: None, chats[1]: agent, chats[2]: agent}
    assert step(conn, "assign_waiting_chats", start) == 0


@pytest.mark.parametrize(
    "change",
    [
        "insert into market.chats (user_id) values (1)",
        "update market.agents set online = true where id = 2",
        "update market.agents set max_chats = 2 where id = 1",
        "insert into market.agents (display_name, online) values ('x', true)",
        "update market.chats set status = 'ended' where id = 1",
        "delete from market.chats where id = 1",
        "delete from market.users where id = 1",
        "update market.chats set agent_id = 2 where id = 1",
    ],
)
def test_a_change_made_directly_is_followed_up_at_commit(own: psycopg.Connection, change: str) -> None:
    for _ in range(3):
        add_user(own)
    add_agent(own)
    add_agent(own, 2, online=False)
    own.execute("select market.open_chat(1)")
    if change.startswith("insert into market.chats"):
        own.execute("update market.agents set online = true")
    else:
        own.execute("select market.open_chat(2)")
        assert value(own, "select count(*) from market.chats where status = 'waiting'") == 1

    own.execute(change)

    assert value(own, "select count(*) from market.chats where status = 'waiting'") == 0


def test_a_waiting_chat_with_an_agent_is_active_and_one_whose_agent_is_gone_waits_again(
    conn: psycopg.Connection,
) -> None:
    start = now(conn)
    agent, other = add_agent(conn, online=False), add_agent(conn, online=False)
    chat = open_chat(conn, start - HOUR)
    later = open_chat(conn)

    conn.execute("update market.chats set agent_id = %s where id = %s", [agent, chat])
    assert state(conn, chat, "status", "assigned_at", "last_activity_at") == ("active", start, start)

    conn.execute("delete from market.agents where id = %s", [agent])
    assert state(conn, chat, "status", "agent_id", "assigned_at", "opened_at") == (
        "waiting", None, None, start - HOUR,
    )  # fmt: skip

    conn.execute("select market.set_agent_online(%s, true)", [other])
    assert agents(conn) == {chat: other, later: None}

    conn.execute("update market.chats set status = 'waiting' where id = %s", [chat])
    assert state(conn, chat, "status", "agent_id") == ("waiting", None)


def test_one_chat_that_can_not_be_assigned_fails_nobody_and_the_policy_sets_it_aside(
    own: psycopg.Connection,
) -> None:
    bad = open_chat(own)
    own.execute(
        "create function public.no() returns trigger language plpgsql as"
        " $$ begin raise 'not this one'; end $$;"
        f"create trigger no before update on market.chats for each row when (old.id = {bad})"
        " execute function public.no()"
    )
    agent = add_agent(own, 5, online=False)
    warnings: list[str] = []
    own.add_notice_handler(lambda diagnostic: warnings.append(diagnostic.message_primary or ""))

    own.execute("select market.set_agent_online(%s, true)", [agent])
    good = open_chat(own)

    assert agents(own) == {bad: None, good: None}
    assert all("not this one" in warning for warning in warnings)
    assert warnings
    own.execute("call lapse.run('assign_waiting_chats')")
    assert agents(own) == {bad: None, good: agent}
    assert column(own, "select key from lapse.blocked_row") == [str(bad)]

    warnings.clear()
    another = open_chat(own)
    assert agents(own) == {bad: None, good: agent, another: agent}
    assert warnings == []


# Idle chats


def test_a_warning_once_an_idle_period_and_the_end_after_two_minutes(conn: psycopg.Connection) -> None:
    start = now(conn)
    agent = add_agent(conn)
    chat, waiting = open_chat(conn, start), open_chat(conn, start)
    settle(conn)

    assert step(conn, "warn_idle_chats", start + MINUTE - SECOND) == 0
    assert step(conn, "warn_idle_chats", start + MINUTE) == 1
    assert state(conn, chat, "warned_at") == (start + MINUTE,)
    assert step(conn, "warn_idle_chats", start + 1.5 * MINUTE) == 0

    post(conn, chat, start + 1.6 * MINUTE, "user")
    assert state(conn, chat, "warned_at", "last_activity_at") == (None, start + 1.6 * MINUTE)
    assert step(conn, "end_idle_chats", start + 3 * MINUTE) == 0
    assert step(conn, "warn_idle_chats", start + 3 * MINUTE) == 1
    post(conn, chat, start + 3.1 * MINUTE, "agent")
    assert step(conn, "warn_idle_chats", start + 4.1 * MINUTE) == 1
    post(conn, chat, start + 4.2 * MINUTE, "system")
    assert step(conn, "warn_idle_chats", start + 5 * MINUTE) == 0, "the system keeps no chat alive"

    assert step(conn, "end_idle_chats", start + 5.1 * MINUTE - SECOND) == 0
    assert step(conn, "end_idle_chats", start + 5.1 * MINUTE) == 1
    assert state(conn, chat, "status", "end_reason", "ended_at") == ("ended", "idle", start + 5.1 * MINUTE)
    settle(conn)
    assert agents(conn) == {waiting: agent}
    assert [(kind, which) for kind, which, _, _ in events(conn)] == [
        ("assigned", chat), ("warned", chat), ("warned", chat), ("warned", chat), ("ended", chat),
        ("assigned", waiting),
    ]  # fmt: skip


def test_chats_that_end_are_told_of_before_those_that_take_their_place(own: psycopg.Connection) -> None:
    add_agent(own, 2)
    idle = [open_chat(own) for _ in range(2)]
    waiting = [open_chat(own) for _ in range(2)]
    last = value(own, "select max(id) from market.chat_events")
    own.execute("update market.chats set last_activity_at = now() - interval '2 min' where status = 'active'")

    own.execute("call lapse.run('end_idle_chats')")

    assert [(kind, chat) for kind, chat, _, _ in events(own, last)] == [
        *[("ended", chat) for chat in idle],
        *[("assigned", chat) for chat in waiting],
    ]


def test_who_waits_is_not_idle_and_the_clock_starts_with_the_agent(conn: psycopg.Connection) -> None:
    start = now(conn)
    chat = open_chat(conn, start)
    assert step(conn, "warn_idle_chats", start + HOUR) + step(conn, "end_idle_chats", start + HOUR) == 0

    agent = add_agent(conn, online=False)
    conn.execute("select market.set_agent_online(%s, true, %s)", [agent, start + HOUR])

    assert state(conn, chat, "status", "last_activity_at") == ("active", start + HOUR)
    assert step(conn, "end_idle_chats", start + HOUR + 2 * MINUTE - SECOND) == 0
    assert step(conn, "end_idle_chats", start + HOUR + 2 * MINUTE) == 1


def test_messages_written_directly_count_and_older_ones_do_not(conn: psycopg.Connection) -> None:
    start = now(conn)
    add_agent(conn, 3)
    first, second, ended = (open_chat(conn, start) for _ in range(3))
    conn.execute("select market.end_chat(%s)", [ended])
    conn.execute("update market.chats set warned_at = now() where id <> %s", [ended])

    conn.execute(
        "insert into market.chat_messages (chat_id, author_kind, body, created_at) values"
        " (%(first)s, 'user', 'a', %(late)s), (%(first)s, 'agent', 'b', %(later)s),"
        " (%(first)s, 'system', 'b', %(last)s),"
        " (%(second)s, 'user', 'c', %(old)s), (%(ended)s, 'user', 'd', %(late)s)",
        {
            "first": first, "second": second, "ended": ended, "old": start - HOUR, "late": start + SECOND,
            "later": start + MINUTE, "last": start + HOUR,
        },
    )  # fmt: skip

    assert state(conn, first, "warned_at", "last_activity_at") == (None, start + MINUTE)
    assert state(conn, second, "warned_at", "last_activity_at") == (start, start)
    assert state(conn, ended, "status", "last_activity_at") == ("ended", start)


@pytest.mark.parametrize("zone", ["Asia/Tokyo", "America/New_York"])
def test_nothing_depends_on_the_time_zone_of_a_session(conn: psycopg.Connection, zone: str) -> None:
    conn.execute("select set_config('TimeZone', %s, true)", [zone])
    start = datetime(2026, 3, 8, 6, 59, 30, tzinfo=UTC)  # New York's clocks go forward at 7:00
    agent = add_agent(conn)
    chat = open_chat(conn, start)

    assert state(conn, chat, "warn_at", "end_at", "purge_at") == (
        start + MINUTE, start + 2 * MINUTE, start + timedelta(hours=720),
    )  # fmt: skip
    assert step(conn, "warn_idle_chats", start + MINUTE) == 1
    assert step(conn, "end_idle_chats", start + 2 * MINUTE) == 1
    settle(conn)
    assert events(conn)[-1] == ("ended", chat, agent, "idle")
    assert value(conn, "select max(expires_at) - now() from market.chat_events") == timedelta(days=7)
    assert step(conn, "purge_inactive_chats", start + timedelta(hours=719)) == 0
    assert step(conn, "purge_inactive_chats", start + timedelta(hours=720)) == 1


def test_a_chat_that_was_inactive_for_30_days_goes_with_its_messages(own: psycopg.Connection) -> None:
    add_agent(own, 2)
    old, recent = open_chat(own), open_chat(own)
    for chat, days in [(old, 30), (recent, 29)]:
        for _ in range(3):
            own.execute("select market.post_message(%s, 'user', 'x')", [chat])
        own.execute("select market.end_chat(%s)", [chat])
        own.execute(
            "update market.chats set last_activity_at = now() - %s where id = %s",
            [timedelta(days=days), chat],
        )

    own.execute("call lapse.run('purge_inactive_chats')")

    assert column(own, "select id from market.chats") == [recent]
    assert column(own, "select distinct chat_id from market.chat_messages") == [recent]


# Events


def test_what_happens_is_told_at_commit_in_rows_and_by_notification(own: psycopg.Connection) -> None:
    own.execute("listen market_chat_events")
    agent = add_agent(own)
    first, second = open_chat(own), open_chat(own)
    own.execute("update market.chats set last_activity_at = now() - interval '1 min' where id = %s", [first])
    own.execute("call lapse.run('warn_idle_chats')")
    own.execute("select market.end_chat(%s, 'solved')", [first])
    own.execute("delete from market.agents where id = %s", [agent])
    own.execute("delete from market.chats where id = %s", [second])

    told = [
        ("assigned", first, agent, None),
        ("warned", first, agent, None),
        ("ended", first, agent, "solved"),
        ("assigned", second, agent, None),
        ("requeued", second, agent, None),
        ("ended", second, None, "deleted"),
    ]
    assert events(own) == told
    sent = [json.loads(notice.payload) for notice in own.notifies(timeout=10, stop_after=len(told))]
    assert [(s["kind"], s["chat"], s["agent"], s["reason"]) for s in sent] == told
    rows = own.execute("select id, user_id, happened_at from market.chat_events order by id").fetchall()
    assert [(s["id"], s["user"], datetime.fromisoformat(s["at"])) for s in sent] == rows


def test_nothing_is_told_of_what_is_rolled_back(own: psycopg.Connection) -> None:
    add_agent(own, 2)
    chat = open_chat(own)

    with own.transaction(force_rollback=True):
        own.execute("select market.end_chat(%s)", [chat])
        open_chat(own)
        settle(own)

    assert [kind for kind, *_ in events(own)] == ["assigned"]


REASONS = {
    "long": "x" * 1_000_000,
    "control characters": "\x01" * 10_000,
    "four bytes each": "\N{PILE OF POO}" * 10_000,
    "to be escaped": '"\\' * 5_000,
}


@pytest.mark.parametrize("reason", REASONS.values(), ids=REASONS)
def test_an_event_is_small_whatever_the_reason(own: psycopg.Connection, reason: str) -> None:
    own.execute("listen market_chat_events")
    add_agent(own)
    chat = open_chat(own)

    own.execute("select market.end_chat(%s, %s)", [chat, reason])

    *_, sent = own.notifies(timeout=10, stop_after=2)
    assert len(sent.payload.encode()) < 2_000
    assert json.loads(sent.payload)["reason"] == reason[:100]
    assert events(own)[-1] == ("ended", chat, 1, reason[:100])
    assert value(own, "select end_reason = %s from market.chats", reason)


def test_who_was_away_catches_up_from_the_last_event_seen(conn: psycopg.Connection) -> None:
    add_agent(conn, 9)
    chats = [open_chat(conn) for _ in range(5)]
    settle(conn)
    ids = column(conn, "select id from market.chat_events_after(0)")

    assert ids == sorted(ids)
    assert [chat for _, chat, _, _ in events(conn)] == chats
    assert column(conn, "select chat_id from market.chat_events_after(%s, 2)", ids[1]) == chats[2:4]
    assert events(conn, ids[-1]) == []
    for reason, arguments in [
        ("LP101", [ids[-1] + 1, 1]),
        ("LP108", [None, 1]),
        ("LP108", [0, None]),
        ("LP108", [0, 0]),
    ]:
        with raises(reason), conn.transaction():
            conn.execute("select market.chat_events_after(%s, %s)", arguments)


def test_events_are_kept_for_a_week(own: psycopg.Connection) -> None:
    add_agent(own, 2)
    for _ in range(2):
        open_chat(own)
    last = value(own, "select max(id) from market.chat_events")
    own.execute(
        "update market.chat_events set expires_at = expires_at - interval '1 week' where id < %s", [last]
    )

    own.execute("call lapse.run('prune_chat_events')")

    assert column(own, "select id from market.chat_events") == [last]
    assert events(own, last - 1) == events(own, 0)


# Rights


def test_an_application_needs_its_grant_and_nothing_else(own: psycopg.Connection, dsn: str) -> None:
    role = sql.Identifier(f"pglapse_test_app_{next(NUMBER)}_{own.info.backend_pid}")
    user, agent = add_user(own), add_agent(own, 2, online=False)
    own.execute(sql.SQL("create role {}").format(role))
    try:
        own.execute(
            sql.SQL("select market.grant_application({})").format(sql.Literal(role.as_string()[1:-1]))
        )
        with psycopg.connect(dsn, autocommit=True) as app:
            app.execute(sql.SQL("set role {}").format(role))
            app.execute("select market.set_agent_online(%s, true)", [agent])
            chat = value(app, "select market.open_chat(%s)", user)
            app.execute("select market.post_message(%s, 'user', 'x')", [chat])
            app.execute(
                "insert into market.chat_messages (chat_id, author_kind, body) values (%s, 'user', 'x')",
                [chat],
            )
            app.execute("select market.end_chat(%s)", [chat])
            app.execute("insert into market.chats (user_id) values (%s)", [user])
            app.execute("update market.chats set status = 'ended'")
            app.execute("delete from market.chats")
            kinds = column(app, "select kind from market.chat_events_after(0)")
            assert kinds == ["assigned", "ended", "assigned", "ended"]
            app.execute("select market.open_session('x', 'user', 1, now() + interval '1 hour')")
            app.execute("update market.sessions set expires_at = now()")
            assert app.execute("select * from market.get_session('x')").fetchall() == []
            assert value(app, "select count(*) from market.live_sessions") == 0
            app.execute("select market.put_cache('x', '1', now() + interval '1 hour')")
            assert value(app, "select value from market.live_cache_entries where key = 'x'") == 1
            assert value(app, "select market.get_cache('x')") == 1
            for forbidden in [
                "insert into market.chat_events (kind, chat_id, user_id, happened_at)"
                " values ('ended', 1, 1, now())",
                "delete from market.chat_events",
                "select market.take_turn()",
                "select market.assign_chats(1, now(), now(), now())",
                "select market.end_idle_chats(1, now(), now())",
                "select market.forget_session('x', now())",
                "select market.extend_session('x', now(), now())",
                "truncate market.chats cascade",
            ]:
                with raises("42501", hint=False):
                    app.execute(forbidden)
    finally:
        own.execute(sql.SQL("drop owned by {0}; drop role {0}").format(role))


# Bad input


def test_what_makes_no_sense_is_refused_and_changes_nothing(conn: psycopg.Connection) -> None:
    agent = add_agent(conn)
    chat, ended = open_chat(conn), open_chat(conn)
    conn.execute("select market.end_chat(%s)", [ended])

    def rows() -> list[Any]:
        return conn.execute(
            "select c::text from market.chats as c union all select a::text from market.agents as a"
            " union all select m::text from market.chat_messages as m"
        ).fetchall()

    before = rows()
    for reason, call, arguments in [
        ("LP101", "open_chat(%s)", [10_000_000]),
        ("LP101", "end_chat(%s)", [ended + 1]),
        ("LP101", "post_message(%s, 'user', 'x')", [ended + 1]),
        ("LP101", "post_message(%s, 'system', 'x')", [ended + 1]),
        ("LP101", "set_agent_online(%s, true)", [agent + 1]),
        ("LP120", "end_chat(%s)", [ended]),
        ("LP120", "post_message(%s, 'user', 'x')", [ended]),
        ("LP120", "post_message(%s, 'system', 'x')", [ended]),
        ("LP108", "post_message(%s, 'robot', 'x')", [chat]),
        ("LP108", "post_message(%s, 'user', '')", [chat]),
        ("LP108", "post_message(%s, 'user', null)", [chat]),
        ("LP108", "post_message(%s, null, 'x')", [chat]),
        ("LP108", "post_message(null, 'user', 'x')", []),
        ("LP108", "open_chat(null)", []),
        ("LP108", "open_chat(1, null)", []),
        ("LP108", "end_chat(null)", []),
        ("LP108", "end_chat(%s, null)", [chat]),
        ("LP108", "set_agent_online(null, true)", []),
        ("LP108", "set_agent_online(%s, null)", [agent]),
    ]:
        with raises(reason), conn.transaction():
            conn.execute(f"select market.{call}", arguments)
    for broken in [
        "update market.agents set max_chats = -1",
        "update market.chats set status = 'paused'",
        "insert into market.chats (user_id, status) select id, 'gone' from market.users limit 1",
        "update market.chats set agent_id = 10000000 where status = 'active'",
    ]:
        with pytest.raises(psycopg.errors.IntegrityError), conn.transaction():
            conn.execute(broken)
    assert rows() == before


def test_a_negative_number_of_chats_is_named_in_the_error(conn: psycopg.Connection) -> None:
    with raises("23514", hint=False) as refused, conn.transaction():
        add_agent(conn, -1)
    assert "agents_max_chats_is_not_negative" in str(refused.value)
