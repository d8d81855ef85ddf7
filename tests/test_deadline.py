"""No call to the server lasts for ever, however silent the line is."""

import os
import socket
from collections.abc import Iterator
from time import monotonic

import psycopg
import pytest

from pglapse import deadline
from pglapse.deadline import Overdue, Patience
from pglapse.errors import HelperDied
from tests.support.running import Door, door


@pytest.fixture
def way(dsn: str) -> Iterator[Door]:
    """A proxy before the test's database, which `deadline.connect` leads through."""
    with door(dsn) as one:
        one.open()
        yield one


@pytest.fixture
def short(way: Door, monkeypatch: pytest.MonkeyPatch) -> Iterator[deadline.Connection]:
    """A connection through the proxy with half a second of patience."""
    monkeypatch.setenv("DATABASE_URL", way.dsn)
    with deadline.connect(Patience(0.5)) as conn:
        yield conn


def test_a_line_that_swallows_everything_is_found_by_the_deadline(
    way: Door, short: deadline.Connection
) -> None:
    way.swallowing = True
    began = monotonic()

    with pytest.raises(Overdue, match=r"has not answered for \d"):
        short.execute("select 1")

    assert 0.5 <= monotonic() - began < 5
    assert short.closed


def test_more_than_the_line_takes_is_cut_off_as_well(way: Door, short: deadline.Connection) -> None:
    way.clog()

    with pytest.raises(Overdue):
        short.execute("select length(%s)", ["x" * 20_000_000])


def test_a_server_at_work_is_cut_off_too_and_the_next_time_gets_longer(
    short: deadline.Connection, way: Door
) -> None:
    patience = short.patience

    with pytest.raises(Overdue):
        short.execute("select pg_sleep(30)")

    with deadline.connect(patience) as again:
        assert again.execute("select 1 from pg_sleep(0.7)").fetchone() == (1,)


def test_a_transaction_that_was_cut_off_ends_with_that_error_alone(
    way: Door, short: deadline.Connection
) -> None:
    def cut_off() -> None:
        with short, short.transaction():
            way.swallowing = True
            short.execute("select 1")

    with pytest.raises(Overdue):
        cut_off()


def test_waiting_for_a_notification_may_take_longer_than_a_call(short: deadline.Connection) -> None:
    short.execute("listen a_test")

    assert list(short.notifies(timeout=0.8)) == []

    assert short.execute("select 1").fetchone() == (1,)


def test_another_patience_holds_for_as_long_as_it_is_asked_for(short: deadline.Connection) -> None:
    with short.within(Patience(30)):
        assert short.execute("select 1 from pg_sleep(0.8)").fetchone() == (1,)

    with pytest.raises(Overdue):
        short.execute("select pg_sleep(30)")


def test_the_socket_is_shut_so_that_the_server_hears_of_it(
    conn: psycopg.Connection, short: deadline.Connection
) -> None:
    pid = short.info.backend_pid
    line = os.dup(short.fileno())

    with pytest.raises(Overdue):
        short.execute("select pg_sleep(30)")

    with socket.socket(fileno=line) as shut:
        assert shut.recv(1) == b""
    conn.execute("select pg_terminate_backend(%s, 5000)", [pid])


def test_a_psycopg_that_keeps_no_deadline_is_not_worked_with(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", dsn)
    monkeypatch.setattr(deadline.Connection, "wait", psycopg.Connection.wait)

    with pytest.raises(HelperDied, match="no deadline can be kept with psycopg"):
        deadline.connect()


def test_who_is_told_to_stop_waits_no_longer_than_there_is_time(
    way: Door, short: deadline.Connection
) -> None:
    left = 0.7
    short.patience = Patience(60, lambda: left - (monotonic() - began))
    way.swallowing = True
    began = monotonic()

    with pytest.raises(Overdue):
        short.execute("select 1")

    assert 1 <= monotonic() - began < 10


def test_a_last_call_gets_its_second_though_no_time_is_left(short: deadline.Connection) -> None:
    short.patience = Patience(60, lambda: 0)

    assert short.execute("select 1 from pg_sleep(0.4)").fetchone() == (1,)


def test_patience_grows_with_each_call_that_took_too_long_up_to_a_bound() -> None:
    patience = Patience(60)
    for expected in (60, 120, 240, 480, 900, 900):
        assert patience.seconds == expected
        patience.ran_out()


def test_patience_is_short_again_after_an_hour_of_calm(monkeypatch: pytest.MonkeyPatch) -> None:
    patience = Patience(60)
    patience.ran_out()
    now = monotonic()

    monkeypatch.setattr(deadline, "monotonic", lambda: now + 3500)
    assert patience.seconds == 120
    monkeypatch.setattr(deadline, "monotonic", lambda: now + 3700)
    assert patience.seconds == 60
