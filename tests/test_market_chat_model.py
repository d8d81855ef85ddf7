"""Chats against a model of them: who is served, warned and ended is what the model says, whatever is done."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support import databases
from tests.support.market import add, add_user, now

MINUTE = timedelta(minutes=1)
EVENT = "select kind, chat_id, agent_id from market.chat_events where id > %s order by id"


@dataclass
class Agent:
    id: int
    online: bool
    max_chats: int
    last: datetime | None = None


@dataclass
class Chat:
    id: int
    opened: datetime
    active: datetime
    status: str = "waiting"
    agent: int | None = None
    warned: bool = False


@dataclass
class Model:
    """What there is, and what time it is in the test: ``start`` is what the server takes for now."""

    start: datetime
    user: int
    time: datetime
    agents: dict[int, Agent] = field(default_factory=dict)
    chats: dict[int, Chat] = field(default_factory=dict)
    events: list[tuple[str, int, int | None]] = field(default_factory=list)

    def having(self, agent: int) -> int:
        return sum(chat.agent == agent and chat.status == "active" for chat in self.chats.values())

    def assign(self, at: datetime) -> None:
        while True:
            queue = sorted((c.opened, c.id) for c in self.chats.values() if c.status == "waiting")
            room = sorted(
                (self.having(a.id), a.last is not None, a.last or self.start, a.id)
                for a in self.agents.values()
                if a.online and self.having(a.id) < a.max_chats
            )
            if not queue or not room:
                return
            chat, agent = self.chats[queue[0][1]], self.agents[room[0][3]]
            when = max(at, chat.opened)
            chat.status, chat.agent, agent.last = "active", agent.id, when
            chat.active = max(chat.active, when)
            self.events.append(("assigned", chat.id, agent.id))

    def end(self, chat: Chat) -> None:
        chat.status = "ended"
        self.events.append(("ended", chat.id, chat.agent))

    def idle(self, longer: timedelta) -> list[Chat]:
        return [c for c in self.chats.values() if c.status == "active" and c.active + longer <= self.time]


@pytest.fixture(scope="module")
def conn(server: str, template: str) -> Iterator[psycopg.Connection]:
    """One transaction at a time, rolled back."""
    with databases.database(server, template) as dsn, psycopg.connect(dsn) as connection:
        yield connection
        connection.rollback()


Draw = Callable[..., Any]


def wait(conn: psycopg.Connection, model: Model, draw: Draw) -> None:
    model.time += timedelta(seconds=draw(st.integers(1, 80)))


def open_chat(conn: psycopg.Connection, model: Model, draw: Draw) -> None:
    row = conn.execute("select market.open_chat(%s, %s)", [model.user, model.time]).fetchone()
    assert row is not None
    model.chats[row[0]] = Chat(row[0], model.time, model.time)
    model.assign(model.time)


def end_chat(conn: psycopg.Connection, model: Model, draw: Draw) -> None:
    if live := [c for c in model.chats.values() if c.status != "ended"]:
        chat = draw(st.sampled_from(live))
        conn.execute("select market.end_chat(%s, 'x', %s)", [chat.id, model.time])
        model.end(chat)
        model.assign(model.time)


def write(conn: psycopg.Connection, model: Model, draw: Draw) -> None:
    if live := [c for c in model.chats.values() if c.status != "ended"]:
        chat, author = draw(st.sampled_from(live)), draw(st.sampled_from(["user", "agent", "system"]))
        conn.execute("select market.post_message(%s, %s, 'x', %s)", [chat.id, author, model.time])
        if author != "system" and model.time > chat.active:
            chat.active, chat.warned = model.time, False


def come_and_go(conn: psycopg.Connection, model: Model, draw: Draw) -> None:
    agent = model.agents[draw(st.sampled_from(sorted(model.agents)))]
    agent.online = draw(st.booleans())
    conn.execute("select market.set_agent_online(%s, %s, %s)", [agent.id, agent.online, model.time])
    if agent.online:
        model.assign(model.time)


def change_agent(conn: psycopg.Connection, model: Model, draw: Draw) -> None:
    """Directly, so that it is followed up when the transaction is about to end."""
    agent = model.agents[draw(st.sampled_from(sorted(model.agents)))]
    agent.max_chats = draw(st.integers(0, 3))
    conn.execute("update market.agents set max_chats = %s where id = %s", [agent.max_chats, agent.id])
    model.assign(model.start)


def lose_agent(conn: psycopg.Connection, model: Model, draw: Draw) -> None:
    if len(model.agents) > 1:
        agent = draw(st.sampled_from(sorted(model.agents)))
        conn.execute("delete from market.agents where id = %s", [agent])
        del model.agents[agent]
        for chat in sorted(model.chats.values(), key=lambda c: c.id):
            if chat.agent == agent:
                chat.agent = None
                if chat.status == "active":
                    chat.status, chat.warned = "waiting", False
                    model.events.append(("requeued", chat.id, agent))
        model.assign(model.start)


def warn(conn: psycopg.Connection, model: Model, draw: Draw) -> None:
    conn.execute("select market.warn_idle_chats(100, %s, '-infinity')", [model.time])
    for chat in model.idle(MINUTE):
        if not chat.warned:
            chat.warned = True
            model.events.append(("warned", chat.id, chat.agent))


def end_idle(conn: psycopg.Connection, model: Model, draw: Draw) -> None:
    conn.execute("select market.end_idle_chats(100, %s, '-infinity')", [model.time])
    for chat in model.idle(2 * MINUTE):
        model.end(chat)
    model.assign(model.time)


STEPS = [wait, wait, open_chat, open_chat, open_chat, end_chat, write, come_and_go, change_agent, lose_agent,
         warn, end_idle]  # fmt: skip


@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_chats_are_what_the_model_says(conn: psycopg.Connection, data: st.DataObject) -> None:
    conn.rollback()
    model = Model(now(conn), add_user(conn), now(conn))
    for online, max_chats in [(True, 1), (False, 2), (True, 2)]:
        agent = add(conn, "agents", display_name="Ada", online=online, max_chats=max_chats)
        model.agents[agent] = Agent(agent, online, max_chats)

    for step in data.draw(st.lists(st.sampled_from(STEPS), min_size=5, max_size=25)):
        (last,) = conn.execute("select coalesce(max(id), 0) from market.chat_events").fetchone() or (0,)
        model.events.clear()

        step(conn, model, data.draw)
        conn.execute("set constraints all immediate; set constraints all deferred")

        assert conn.execute(
            "select id, status, agent_id, last_activity_at, warned_at is not null"
            "  from market.chats order by id"
        ).fetchall() == [
            (c.id, c.status, c.agent, c.active, c.warned)
            for c in sorted(model.chats.values(), key=lambda c: c.id)
        ]
        told = conn.execute(EVENT, [last]).fetchall()
        assert sorted(told, key=str) == sorted(model.events, key=str)
        if step in (open_chat, end_chat, come_and_go, end_idle):
            assert [e for e in told if e[0] == "assigned"] == [e for e in model.events if e[0] == "assigned"]
            assert told == sorted(told, key=lambda event: event[0] == "assigned"), "first what made room"
