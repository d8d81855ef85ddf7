"""Chats, many at once: none is lost, given twice or left waiting beside a free slot; no event is missed."""

import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import psycopg
import pytest
from psycopg import IsolationLevel

from tests.support.market import add, add_user, column, now, raises, value, waiting


@pytest.fixture
def other(dsn: str) -> Iterator[psycopg.Connection]:
    """A second connection, with transactions that a test ends itself; it never waits long."""
    with psycopg.connect(dsn, options="-c lock_timeout=20s") as connection:
        yield connection


@pytest.fixture
def third(dsn: str) -> Iterator[psycopg.Connection]:
    """A third one."""
    with psycopg.connect(dsn, options="-c lock_timeout=20s") as connection:
        yield connection


def add_agent(conn: psycopg.Connection, max_chats: int = 1, *, online: bool = True) -> int:
    return add(conn, "agents", display_name="Ada", max_chats=max_chats, online=online)


def open_chat(conn: psycopg.Connection, user: int = 1) -> int:
    return value(conn, "select market.open_chat(%s)", user)


def end_chat(conn: psycopg.Connection, chat: int) -> None:
    conn.execute("select market.end_chat(%s)", [chat])


def agents(conn: psycopg.Connection) -> dict[int, int | None]:
    """Chat → agent, of chats that have not ended."""
    return dict(
        conn.execute("select id, agent_id from market.chats where status <> 'ended' order by id").fetchall()
    )


# A chat and a slot, at the same moment


def test_a_slot_that_becomes_free_while_a_chat_is_opened_is_seen_by_who_commits_last(
    conn: psycopg.Connection, other: psycopg.Connection
) -> None:
    user, agent = add_user(conn), add_agent(conn)
    first = open_chat(conn, user)

    end_chat(other, first)
    second = open_chat(conn, user)
    assert agents(conn)[second] is None
    other.commit()
    assert agents(conn) == {second: agent}

    third = open_chat(other, user)
    end_chat(conn, second)
    assert agents(conn) == {}
    other.commit()
    assert agents(conn) == {third: agent}


def test_an_agent_who_comes_online_while_a_chat_is_opened_gets_it(
    conn: psycopg.Connection, other: psycopg.Connection
) -> None:
    user, agent = add_user(conn), add_agent(conn, online=False)

    chat = open_chat(other, user)
    conn.execute("select market.set_agent_online(%s, true)", [agent])
    other.commit()

    assert agents(conn) == {chat: agent}


def test_an_agent_who_is_said_to_be_online_again_hides_from_nobody(
    conn: psycopg.Connection, other: psycopg.Connection
) -> None:
    user, agent = add_user(conn), add_agent(conn)

    other.execute("select market.set_agent_online(%s, true)", [agent])
    chat = open_chat(conn, user)
    assert agents(conn) == {chat: None}
    other.commit()

    assert agents(conn) == {chat: agent}


def test_a_chat_in_which_somebody_writes_is_given_away_when_they_are_done(
    conn: psycopg.Connection, other: psycopg.Connection
) -> None:
    chat, agent = open_chat(conn, add_user(conn)), add_agent(conn, online=False)

    other.execute("select market.post_message(%s, 'user', 'Anybody there?')", [chat])
    conn.execute("select market.set_agent_online(%s, true)", [agent])
    assert agents(conn) == {chat: None}
    other.commit()

    assert agents(conn) == {chat: agent}


def test_what_the_system_writes_hides_no_chat(conn: psycopg.Connection, other: psycopg.Connection) -> None:
    chat, agent = open_chat(conn, add_user(conn)), add_agent(conn, online=False)

    other.execute("select market.post_message(%s, 'system', 'You are number 1')", [chat])
    conn.execute("select market.set_agent_online(%s, true)", [agent])

    assert agents(conn) == {chat: agent}
    other.commit()


def test_of_two_chats_and_one_slot_the_other_waits(
    conn: psycopg.Connection, other: psycopg.Connection
) -> None:
    user, agent = add_user(conn), add_agent(conn)

    first = open_chat(other, user)
    second = open_chat(conn, user)
    other.commit()

    assert agents(conn) == {first: agent, second: None}


def test_an_open_transaction_keeps_its_agent_and_holds_nobody_else_up(
    conn: psycopg.Connection, other: psycopg.Connection
) -> None:
    user, ada, bob = add_user(conn), add_agent(conn, 2), add_agent(conn, 1)
    conn.execute("set lock_timeout = '5 s'")

    first = open_chat(other, user)  # given to ada, whose other slot can't be counted on until this commits
    second, third, fourth = (open_chat(conn, user) for _ in range(3))
    assert agents(conn) == {second: bob, third: None, fourth: None}
    other.commit()

    assert agents(conn) == {first: ada, second: bob, third: ada, fourth: None}


def test_what_a_transaction_that_rolls_back_hid_is_found_by_the_policy(
    conn: psycopg.Connection, other: psycopg.Connection
) -> None:
    user, agent = add_user(conn), add_agent(conn)

    open_chat(other, user)
    chat = open_chat(conn, user)
    other.rollback()
    assert agents(conn) == {chat: None}
    conn.execute("call lapse.run('assign_waiting_chats')")

    assert agents(conn) == {chat: agent}


@pytest.mark.parametrize("policy", ["assign_waiting_chats", "end_idle_chats"])
def test_a_policy_that_assigns_has_the_turn_from_its_beginning(
    conn: psycopg.Connection, other: psycopg.Connection, policy: str
) -> None:
    """An agent whom it locked in vain would be passed over at commit, with nobody to look again."""
    assert value(other, f"select picked from market.{policy}(10, now(), '-infinity')") == 0
    with waiting(conn, "select market.take_turn()") as answer:
        other.commit()
        answer.result(10)


@pytest.mark.parametrize("level", [IsolationLevel.REPEATABLE_READ, IsolationLevel.SERIALIZABLE])
def test_an_old_snapshot_gives_nobody_too_many_chats_and_leaves_it_to_the_policy(
    conn: psycopg.Connection, other: psycopg.Connection, level: IsolationLevel
) -> None:
    user, agent = add_user(conn), add_agent(conn)
    other.isolation_level = level

    other.execute("select count(*) from market.chats")
    first = open_chat(conn, user)
    second = open_chat(other, user)
    other.commit()
    assert agents(conn) == {first: agent, second: None}

    end_chat(conn, first)
    assert agents(conn) == {second: agent}
    third = open_chat(other, user)
    end_chat(other, second)
    other.commit()
    assert agents(conn) == {third: None}
    conn.execute("call lapse.run('assign_waiting_chats')")
    assert agents(conn) == {third: agent}


def test_an_agent_who_is_deleted_while_given_a_chat_leaves_it_waiting(
    conn: psycopg.Connection, other: psycopg.Connection
) -> None:
    user, agent = add_user(conn), add_agent(conn)

    chat = open_chat(other, user)
    with waiting(conn, "delete from market.agents where id = %s returning id", agent) as answer:
        other.commit()
        assert answer.result(10) == [(agent,)]

    assert agents(conn) == {chat: None}
    assert column(conn, "select kind from market.chat_events_after(0)") == ["assigned", "requeued"]


def test_transactions_of_many_steps_do_not_deadlock(
    conn: psycopg.Connection, other: psycopg.Connection, third: psycopg.Connection
) -> None:
    """With one lock for assignment, taken when it is first needed, these would wait for each other."""
    user = add_user(conn)
    add_agent(conn, 2)
    mine, theirs = open_chat(conn, user), open_chat(conn, user)
    open_chat(other, user)
    third.execute("select market.post_message(%s, 'agent', 'One moment')", [mine])

    with waiting(other, "select market.end_chat(%s)", mine) as answer:
        end_chat(third, theirs)
        third.commit()
        answer.result(10)
    other.commit()

    assert value(conn, "select count(*) from market.chats where status = 'active'") == 1


# A message and the end, at the same moment


def idle(conn: psycopg.Connection) -> int:
    """An active chat whose end is due."""
    add_agent(conn)
    chat = open_chat(conn, add_user(conn))
    conn.execute("update market.chats set last_activity_at = now() - interval '2 min'")
    return chat


def test_a_chat_in_which_somebody_writes_does_not_end(
    conn: psycopg.Connection, other: psycopg.Connection
) -> None:
    chat = idle(conn)

    other.execute("select market.post_message(%s, 'user', 'Wait!')", [chat])
    conn.execute("call lapse.run('end_idle_chats')")
    conn.execute("call lapse.run('warn_idle_chats')")
    other.commit()
    conn.execute("call lapse.run('end_idle_chats')")

    assert conn.execute("select status, warned_at from market.chats").fetchone() == ("active", None)


def test_who_writes_when_the_chat_has_just_ended_is_told(
    conn: psycopg.Connection, other: psycopg.Connection
) -> None:
    chat = idle(conn)

    assert value(other, "select handled from market.end_idle_chats(10, now(), '-infinity')") == 1
    with raises("LP120"), waiting(conn, "select market.post_message(%s, 'user', 'Wait!')", chat) as answer:
        other.commit()
        answer.result(10)

    assert value(conn, "select count(*) from market.chat_messages") == 0


def test_of_two_who_end_a_chat_one_does(conn: psycopg.Connection, other: psycopg.Connection) -> None:
    add_agent(conn)
    chat = open_chat(conn, add_user(conn))

    end_chat(other, chat)
    with raises("LP120"), waiting(conn, "select market.end_chat(%s)", chat) as answer:
        other.commit()
        answer.result(10)

    assert column(conn, "select kind from market.chat_events_after(0)") == ["assigned", "ended"]


# Events are numbered in the order of commits


def test_who_reads_on_from_the_last_event_misses_none_that_commits_later(
    conn: psycopg.Connection, other: psycopg.Connection
) -> None:
    user = add_user(conn)
    add_agent(conn, 2)
    early, late = open_chat(conn, user), open_chat(conn, user)
    last = value(conn, "select max(id) from market.chat_events_after(0)")

    end_chat(other, early)  # first to end, last to commit
    end_chat(conn, late)
    seen = conn.execute("select id, chat_id from market.chat_events_after(%s)", [last]).fetchall()
    assert [chat for _, chat in seen] == [late]
    other.commit()

    assert column(conn, "select chat_id from market.chat_events_after(%s)", seen[-1][0]) == [early]


def test_who_has_a_number_holds_up_who_would_have_a_later_one(
    conn: psycopg.Connection, other: psycopg.Connection
) -> None:
    user = add_user(conn)
    add_agent(conn, 2)
    early, late = open_chat(conn, user), open_chat(conn, user)
    last = value(conn, "select max(id) from market.chat_events_after(0)")

    end_chat(other, early)
    other.execute("set constraints all immediate")  # its event has a number now
    with waiting(conn, "select market.end_chat(%s)", late) as answer:
        with psycopg.connect(conn.info.dsn) as reader:
            assert column(reader, "select id from market.chat_events_after(%s)", last) == []
        other.commit()
        answer.result(10)

    assert column(conn, "select chat_id from market.chat_events_after(%s)", last) == [early, late]


# Everybody at once


CONNECTIONS = 20
SECONDS = 2.0
AGENTS = 4
MAX_CHATS = 3


@dataclass
class Crowd:
    """What the threads share: until when, the chats that were opened, and what went wrong."""

    dsn: str
    ends: float
    chats: list[int] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    refused: int = 0
    done: threading.Event = field(default_factory=threading.Event)

    def over(self) -> bool:
        return time.monotonic() > self.ends or bool(self.failures)

    def watched(self, work: Callable[[psycopg.Connection], Any]) -> None:
        """Work on a connection of one's own; any error but a refusal is a failure."""
        try:
            with psycopg.connect(self.dsn, autocommit=True, options="-c statement_timeout=30s") as conn:
                work(conn)
        except (psycopg.Error, AssertionError) as error:
            self.failures.append(f"{type(error).__name__}: {error}")


def act(crowd: Crowd, seed: int) -> Callable[[psycopg.Connection], None]:
    """One of the crowd: opens, ends, writes, comes and goes, until time is up."""
    dice = random.Random(seed)

    def once(conn: psycopg.Connection) -> None:
        match dice.choices(["open", "end", "write", "agent", "end mine"], [30, 30, 15, 20, 5])[0]:
            case "open":
                crowd.chats.append(open_chat(conn, dice.randint(1, 3)))
            case "end" if crowd.chats:
                end_chat(conn, dice.choice(crowd.chats[-40:]))
            case "write" if crowd.chats:
                conn.execute(
                    "select market.post_message(%s, %s, 'x')",
                    [dice.choice(crowd.chats[-40:]), dice.choice(["user", "agent", "system"])],
                )
            case "agent":
                conn.execute(
                    "select market.set_agent_online(%s, %s)",
                    [dice.randint(1, AGENTS), dice.random() < 0.7],
                )
            case "end mine":
                with conn.transaction():
                    chat = open_chat(conn, 1)
                    conn.execute("select market.post_message(%s, 'user', 'x')", [chat])
                    end_chat(conn, chat)
            case _:
                pass

    def work(conn: psycopg.Connection) -> None:
        while not crowd.over():
            try:
                once(conn)
            except psycopg.Error as error:
                if error.sqlstate != "LP120":
                    raise
                crowd.refused += 1

    return work


def sweep(crowd: Crowd) -> Callable[[psycopg.Connection], None]:
    """The policies, as a tick runs them, over and over; some chats are made to look idle."""

    def work(conn: psycopg.Connection) -> None:
        while not crowd.over():
            conn.execute(
                "update market.chats set last_activity_at = now() - interval '5 min' where id ="
                " (select id from market.chats where status = 'active' order by random() limit 1"
                "     for update skip locked)"
            )
            for policy in ["warn_idle_chats", "end_idle_chats", "assign_waiting_chats"]:
                conn.execute("call lapse.run(%s)", [policy])
        assert column(conn, "select distinct status from lapse.run_log") in ([], ["ok"])

    return work


def count(crowd: Crowd) -> Callable[[psycopg.Connection], None]:
    """Whether anybody ever has too many chats."""

    def work(conn: psycopg.Connection) -> None:
        while not crowd.over():
            assert column(conn, TOO_MANY) == []

    return work


def follow(crowd: Crowd, seen: list[tuple[Any, ...]]) -> Callable[[psycopg.Connection], None]:
    """A push service: reads on from the last event that it saw."""

    def work(conn: psycopg.Connection) -> None:
        while True:
            done = crowd.done.is_set()
            last = seen[-1][0] if seen else 0
            seen.extend(conn.execute("select * from market.chat_events_after(%s, 50)", [last]).fetchall())
            if done and (not seen or seen[-1][0] == last):
                return

    return work


TOO_MANY = """
select a.id from market.agents as a
 where a.max_chats < (select count(*) from market.chats as c where c.agent_id = a.id and c.status = 'active')
"""
FREE_SLOTS = """
select coalesce(sum(a.max_chats - (select count(*) from market.chats as c
                                    where c.agent_id = a.id and c.status = 'active')), 0)::integer
  from market.agents as a where a.online
"""


def test_with_a_crowd_no_chat_is_lost_none_waits_beside_a_free_slot_and_nobody_has_too_many(
    conn: psycopg.Connection, dsn: str
) -> None:
    for _ in range(3):
        add_user(conn)
    for _ in range(AGENTS):
        add_agent(conn, MAX_CHATS, online=False)
    conn.execute("select lapse.alter_policy(name, p_lock_timeout => '20 s') from lapse.policy")
    crowd = Crowd(dsn, time.monotonic() + SECONDS)
    seen: list[tuple[Any, ...]] = []
    started = now(conn)

    with ThreadPoolExecutor(CONNECTIONS + 3) as pool:
        actors = [pool.submit(crowd.watched, act(crowd, seed)) for seed in range(CONNECTIONS)]
        actors += [pool.submit(crowd.watched, sweep(crowd)), pool.submit(crowd.watched, count(crowd))]
        follower = pool.submit(crowd.watched, follow(crowd, seen))
        for actor in actors:
            actor.result(60)
        crowd.done.set()
        follower.result(60)

    assert crowd.failures == []
    assert len(crowd.chats) > CONNECTIONS
    held, free = (
        value(conn, "select count(*) from market.chats where status = 'waiting'"),
        value(conn, FREE_SLOTS),
    )
    assert held == 0 or free == 0, f"{held} chats wait, {free} slots are free"
    assert column(conn, TOO_MANY) == []
    assert set(crowd.chats) <= set(column(conn, "select id from market.chats"))

    # The events tell the same story, in an order in which it can have happened.
    assert seen == conn.execute("select * from market.chat_events_after(0, 1000000)").fetchall()
    assert all(first[0] < second[0] for first, second in pairwise(seen))
    has: dict[int, set[int]] = {agent: set() for agent in range(1, AGENTS + 1)}
    for _, kind, chat, _, agent, _, happened in seen:
        assert happened >= started
        if kind == "assigned":
            assert all(chat not in chats for chats in has.values()), f"chat {chat} was given twice"
            has[agent].add(chat)
            assert len(has[agent]) <= MAX_CHATS
        elif kind == "ended" and agent is not None:
            has[agent].remove(chat)
    ends = [chat for _, kind, chat, *_ in seen if kind == "ended"]
    assert sorted(ends) == column(conn, "select id from market.chats where status = 'ended' order by id")
    assert {chat: agent for agent, chats in has.items() for chat in chats} == {
        chat: agent for chat, agent in agents(conn).items() if agent
    }
