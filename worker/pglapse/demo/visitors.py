"""Sessions, a cache and support chats in the demo: the plan of them, how they get in, and the proof.

As in `pglapse.demo.plan`, times are distances from the moment the show begins, and what must become of each
row is decided before anything runs. Chats are proved by their events and not by their state: on a machine
where the show lasts long, a chat that was served in it may have fallen silent and ended since.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from random import Random
from typing import Any

import psycopg

Conn = psycopg.Connection[Any]

_SLOTS = 3
_WARNED_AFTER, _ENDS_AFTER = 60.0, 120.0
_DAY = 86_400.0

COUNTS = """
(select count(*) from market.sessions) + (select count(*) from market.cache_entries),
(select count(*) from market.chat_events as e where e.kind = 'ended' and e.reason = 'idle'),
(select count(*) from market.chat_events as e where e.kind = 'warned' and e.chat_id = any (%(silent)s)),
(select count(*) from market.chat_events as e where e.kind = 'assigned' and e.chat_id > %(placed)s)
"""


@dataclass(frozen=True, slots=True)
class Kept:
    """A session or a cache entry, and whether it must be gone at the end."""

    key: str
    expires: timedelta
    goes: bool


@dataclass(frozen=True, slots=True)
class Chat:
    """A chat; ``told`` is what must be told of it in the show: it ends, is warned or gets an agent."""

    id: int
    user: int
    agent: int | None
    opened: timedelta
    active: timedelta
    told: str


@dataclass(frozen=True, slots=True)
class Visitors:
    """All of them; chats in the order in which they were opened."""

    sessions: list[Kept]
    entries: list[Kept]
    agents: int
    chats: list[Chat]

    @property
    def rows(self) -> int:
        """Rows that are loaded."""
        return len(self.sessions) + len(self.entries) + self.agents + len(self.chats)

    @property
    def placed(self) -> int:
        """Chats that have an agent when the show begins; those with higher numbers wait for one."""
        return sum(chat.agent is not None for chat in self.chats)

    @property
    def silent(self) -> list[int]:
        """Chats in which a warning is due in the show."""
        return [chat.id for chat in self.chats if chat.told == "warned"]

    def bars(self, counts: Iterable[int]) -> list[tuple[str, int, int]]:
        """Names, what is done and what there is to do, by what `COUNTS` found."""
        kept, ended, warned, served = counts
        loaded = [*self.sessions, *self.entries]
        bars = [
            ("sessions, cache gone", len(loaded) - kept, sum(each.goes for each in loaded)),
            ("idle chats ended", ended, sum(chat.told == "ended" for chat in self.chats)),
            ("silent chats warned", warned, len(self.silent)),
            ("waiting chats served", served, sum(chat.told == "assigned" for chat in self.chats)),
        ]
        return [(name, min(done, total), total) for name, done, total in bars]


def make(seed: int, scale: float, window: float, users: int) -> Visitors:
    """Draw them up; ``window`` is how many seconds after its beginning the last row of the show lapses."""
    random = Random(seed)  # noqa: S311 - for believable data, not for secrets
    many, agents = max(50, round(3_000 * scale)), max(2, round(40 * scale))

    def at(first: float, last: float) -> timedelta:
        return timedelta(seconds=round(random.uniform(first, last), 3))

    def kept(key: str) -> Kept:
        lot = random.random()
        if lot < 0.3:
            return Kept(key, at(-2 * _DAY, -1.0), True)
        return Kept(key, at(0, window), True) if lot < 0.6 else Kept(key, at(_DAY / 2, 9 * _DAY), False)

    chats: list[Chat] = []
    for agent in range(1, agents + 1):
        for after, told in [(_ENDS_AFTER, "ended"), (_ENDS_AFTER, "ended"), (_WARNED_AFTER, "warned")]:
            active = at(-after, window - after)
            chats.append(
                Chat(len(chats) + 1, random.randint(1, users), agent, active - at(60, 600), active, told)
            )
    for place in range(2 * agents):
        opened = timedelta(seconds=place - 3_600)
        chats.append(Chat(len(chats) + 1, random.randint(1, users), None, opened, opened, "assigned"))
    return Visitors(
        [kept(f"token {number}") for number in range(many)],
        [kept(f"page:{number}") for number in range(many)],
        agents,
        chats,
    )


def load(conn: Conn, visitors: Visitors, at: Callable[[timedelta], object]) -> None:
    """Put them into the database, by COPY, in the caller's transaction."""
    _copy(
        conn,
        "sessions (token_hash, principal_kind, principal_id, expires_at)",
        ((s.key.encode(), "user", 1, at(s.expires)) for s in visitors.sessions),
    )
    _copy(
        conn,
        "cache_entries (key, value, expires_at)",
        ((e.key, '{"html": "..."}', at(e.expires)) for e in visitors.entries),
    )
    _copy(
        conn,
        "agents (id, display_name, online, max_chats)",
        ((id, f"Agent {id}", True, _SLOTS) for id in range(1, visitors.agents + 1)),
    )
    _copy(
        conn,
        "chats (id, user_id, agent_id, status, opened_at, assigned_at, last_activity_at)",
        (
            (
                c.id,
                c.user,
                c.agent,
                "active" if c.agent else "waiting",
                at(c.opened),
                at(c.opened) if c.agent else None,
                at(c.active),
            )
            for c in visitors.chats
        ),
    )
    # COPY brings its own numbers; the application goes on after them.
    for table in ("agents", "chats"):
        conn.execute(
            f"select setval(pg_get_serial_sequence('market.{table}', 'id'), max(id)) from market.{table}"
        )


def differences(conn: Conn, visitors: Visitors) -> list[str]:
    """Everything that is not as it should be, one line each."""
    found = [
        ("session", visitors.sessions, "select convert_from(token_hash, 'UTF8') from market.sessions"),
        ("cache entry", visitors.entries, "select key from market.cache_entries"),
    ]
    wrong = []
    for what, kept, query in found:
        there = {key for (key,) in conn.execute(query)}
        expected = {each.key for each in kept if not each.goes}
        wrong += [f"{what} {key} is still there" for key in sorted(there - expected)]
        wrong += [f"{what} {key} is gone" for key in sorted(expected - there)]

    events = conn.execute("select kind, chat_id, reason from market.chat_events order by id").fetchall()
    told = {(kind, chat) for kind, chat, reason in events if kind != "ended" or reason == "idle"}
    wrong += [
        f"chat {chat.id} was not {chat.told}" for chat in visitors.chats if (chat.told, chat.id) not in told
    ]
    served = [chat for kind, chat, _ in events if kind == "assigned" and chat > visitors.placed]
    if served != sorted(served):
        wrong.append(f"chats were not served in the order in which they came: {served}")
    for agent, chats in conn.execute(
        "select agent_id, count(*) from market.chats where status = 'active'"
        " group by agent_id having count(*) > %s",
        [_SLOTS],
    ):
        wrong.append(f"agent {agent} has {chats} chats")
    return wrong


def _copy(conn: Conn, into: str, rows: Iterable[tuple[object, ...]]) -> None:
    with conn.cursor() as cursor, cursor.copy(f"copy market.{into} from stdin") as copy:
        for row in rows:
            copy.write_row(row)
