"""A worker knows whether notifications reach it: directly, through PgBouncer in each mode, on a dead line."""

import logging
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from pglapse import deadline
from pglapse.deadline import Connection, Overdue, Patience
from pglapse.listening import Listening, is_pooled
from pglapse.queue import nudged
from tests.support.pooler import pgbouncer
from tests.support.queue import CHANNEL
from tests.support.running import door

NOT_HEARD = "no notification arrives here"
NOT_KNOWN = "can't find out whether notifications arrive here"

Use = Callable[[str], Connection]
Told = Callable[[], list[str]]


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> Told:
    """What was logged since the last look, as far as the colon or the bracket."""
    monkeypatch.setattr(logging.getLogger("pglapse"), "propagate", True)
    caplog.set_level(logging.INFO, "pglapse.listening")

    def look() -> list[str]:
        said = [record.getMessage().split(":")[0].split(" (")[0] for record in caplog.records]
        caplog.clear()
        return said

    return look


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Iterator[Use]:
    """Connect as the worker does; what probes are sent over goes the same way."""
    opened: list[Connection] = []

    def connect(dsn: str) -> Connection:
        monkeypatch.setenv("DATABASE_URL", dsn)
        opened.append(deadline.connect(Patience(5)))
        return opened[-1]

    yield connect
    for one in opened:
        one.close()


def ear(conn: Connection, **more: Any) -> Listening:
    """A worker's hearing that sends a probe at each look."""
    one = Listening(**{"deadline": 0.5, "every": 0, "again": 0, **more})
    one.begin(conn)
    return one


def test_without_a_pooler_probes_are_heard_and_nothing_is_said(dsn: str, use: Use, told: Told) -> None:
    conn = use(dsn)
    own = ear(conn, deadline=5)

    assert [own.look(conn) for _ in range(3)] == [False] * 3

    assert (own.deaf, own.longest(30), told()) == (False, 30, [])
    assert not is_pooled(conn)


def test_a_pooler_that_keeps_the_session_is_no_obstacle(
    dsn: str, tmp_path: Path, use: Use, told: Told
) -> None:
    with pgbouncer(dsn, tmp_path, "session") as pooler:
        conn = use(pooler.dsn)
        own = ear(conn, deadline=5)

        assert [own.look(conn) for _ in range(3)] == [False] * 3

        assert (own.deaf, own.longest(30), told()) == (False, 30, [])
        assert is_pooled(conn)


@pytest.mark.parametrize("mode", ["transaction", "statement"])
@pytest.mark.parametrize("size", [1, 5])
def test_a_pooler_that_swallows_listen_is_found_out_and_told_of_once(
    dsn: str, tmp_path: Path, use: Use, told: Told, mode: Any, size: int
) -> None:
    with pgbouncer(dsn, tmp_path, mode, size=size) as pooler:
        conn = use(pooler.dsn)
        own = ear(conn)

        for _ in range(3):
            own.look(conn)

        assert own.deaf
        assert (own.longest(30), own.longest(1)) == (5, 1)
        assert told() == [NOT_HEARD]


def test_where_notifications_arrive_again_that_is_said_and_polling_ends(
    dsn: str, tmp_path: Path, use: Use, told: Told
) -> None:
    with pgbouncer(dsn, tmp_path, "transaction") as pooler:
        conn = use(pooler.dsn)
        own = ear(conn)
        own.look(conn)
        pooler.ask("set pool_mode = 'session'")

        own.look(conn)

        assert (own.deaf, own.longest(30)) == (False, 30)
        assert told() == [NOT_HEARD, "notifications arrive again"]


def test_a_new_connection_is_tried_at_once_whatever_is_known_of_the_one_before(
    dsn: str, tmp_path: Path, use: Use, told: Told
) -> None:
    own = ear(use(dsn), every=300, again=300)
    with pgbouncer(dsn, tmp_path, "transaction") as pooler:
        conn = use(pooler.dsn)
        own.begin(conn)

        own.look(conn)

        assert own.deaf
    conn = use(dsn)
    own.begin(conn)
    own.look(conn)

    assert not own.deaf
    assert told() == [NOT_HEARD, "notifications arrive again"]


@pytest.fixture
def alone(conn: psycopg.Connection, dsn: str) -> Iterator[str]:
    """The DSN of a role that may have one connection and no more."""
    name = f"pglapse_{secrets.token_hex(5)}"
    conn.execute(f"create role {name} login connection limit 1 password 'secret'")
    yield make_conninfo(dsn, user=name, password="secret")
    conn.execute(
        "select pg_terminate_backend(pid, 5000) from pg_stat_activity where usename = %s::name", [name]
    )
    conn.execute(f"drop role {name}")


def test_one_connection_is_enough_where_it_leads_to_the_server_itself(
    alone: str, use: Use, told: Told
) -> None:
    conn = use(alone)
    own = ear(conn, deadline=5)

    own.look(conn)

    assert (own.deaf, told()) == (False, [])


def test_where_a_pooler_has_no_second_connection_to_give_the_worker_polls_and_says_why(
    dsn: str, tmp_path: Path, use: Use, told: Told
) -> None:
    with pgbouncer(dsn, tmp_path, "session", size=1) as pooler:
        conn = use(pooler.dsn)
        own = ear(conn, another=lambda: deadline.connect(Patience(0.5)))

        own.look(conn)
        own.look(conn)

        assert own.deaf
        assert told() == [NOT_KNOWN]


def test_a_nudge_that_comes_while_waiting_for_the_probe_is_handed_on(
    conn: psycopg.Connection, dsn: str, use: Use
) -> None:
    def another() -> Connection:
        conn.execute(f"notify {CHANNEL}")
        return deadline.connect()

    used = use(dsn)
    own = ear(used, deadline=5, another=another)

    assert own.look(used) is True
    assert not own.deaf


def test_a_probe_is_nothing_to_other_workers(dsn: str, use: Use) -> None:
    conn, other = use(dsn), use(dsn)
    own = ear(conn, deadline=5)
    ear(other)

    own.look(conn)

    assert not nudged(other, 0.5)
    conn.execute(f"notify {CHANNEL}, 'probe of somebody'")
    conn.execute(f"notify {CHANNEL}")
    assert nudged(other, 5)


def test_between_two_probes_the_server_is_not_asked(conn: psycopg.Connection, dsn: str, use: Use) -> None:
    used = use(dsn)
    own = ear(used, deadline=5, every=300)
    own.look(used)
    asked = "select query_start from pg_stat_activity where pid = %s"
    before = conn.execute(asked, [used.info.backend_pid]).fetchone()

    own.look(used)

    assert conn.execute(asked, [used.info.backend_pid]).fetchone() == before


def test_one_who_is_told_to_stop_waits_for_nothing_and_concludes_nothing(
    dsn: str, use: Use, told: Told
) -> None:
    conn = use(dsn)
    own = ear(conn, deadline=300, stopping=lambda: True)

    own.look(conn)

    assert (own.deaf, told()) == (False, [])


def test_a_dead_line_is_no_pooler_but_a_lost_connection(dsn: str, use: Use, told: Told) -> None:
    def nobody() -> Connection:
        raise psycopg.OperationalError("no route")

    with door(dsn) as way:
        way.open()
        conn = use(way.dsn)
        conn.patience = Patience(0.5)
        own = ear(conn, another=nobody)
        way.swallowing = True

        with pytest.raises(Overdue):
            own.look(conn)

    assert told() == []
