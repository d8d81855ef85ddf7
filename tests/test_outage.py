"""While the database is away: patience that grows, and a word once a minute."""

import logging

import psycopg
import pytest

from pglapse import outage
from pglapse.outage import Outage


@pytest.fixture
def clock(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(outage, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def said(caplog):
    logging.getLogger("pglapse").propagate = True
    caplog.set_level(logging.INFO, "pglapse")
    return caplog


GONE = psycopg.OperationalError("connection failed:\n  no such host")


def test_it_says_so_at_once_and_then_once_a_minute(clock, said):
    one = Outage("queue")

    for _ in range(181):
        one.noted(GONE)
        clock[0] += 1

    assert len(said.messages) == 4
    assert (
        said.messages[0]
        == "queue: can't work with the database: connection failed: no such host; trying again"
    )
    assert said.messages[3].startswith("queue: still can't work with the database, for 3 min now")


def test_when_it_is_over_it_says_so_once_and_starts_afresh(clock, said):
    one = Outage("queue")

    one.over()
    one.noted(GONE)
    clock[0] += 90
    one.over()
    one.over()
    one.noted(GONE)

    assert len(said.messages) == 3
    assert said.messages[1] == "queue: the database is there again after 1 min 30 s"


def test_pauses_grow_to_a_few_seconds_and_differ(clock):
    first = [Outage("x").noted(GONE) for _ in range(20)]
    one = Outage("x")
    long_after = [one.noted(GONE) for _ in range(2000)][-20:]

    assert max(first) <= 0.1
    assert 2.5 <= min(long_after) <= max(long_after) <= 5
    assert len(set(long_after)) > 10
