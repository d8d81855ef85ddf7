"""Draining, without a process around it: a real queue, storages that do what the test says."""

import os
import resource
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import psycopg
import pytest

from pglapse import queue
from pglapse.drain import FRESH, MOST, Worker, drain
from pglapse.lane import DEPTH, PACE, Lane
from pglapse.queue import START, Claim, Want
from pglapse.storage import Batch, Outcome
from tests.support.databases import on
from tests.support.install import alembic


@dataclass
class Shelf:
    """A storage that remembers what it was asked to delete."""

    name: str = "public"
    answer: Callable[[str], Outcome] = lambda path: Outcome("deleted", bytes=1)
    asked: list[str] = field(default_factory=list)

    def check(self) -> None:
        pass

    def delete(self, batch: Batch) -> None:
        for position, file in enumerate(batch.files):
            if batch.begin(position):
                self.asked.append(file.path)
                batch.end(position, self.answer(file.path))


def enqueue(conn: psycopg.Connection, paths: Iterable[str], due: str = "now") -> None:
    for path in paths:
        conn.execute("select lapse.enqueue_file('public', %s, %s::timestamptz)", [path, due])


def worker(*shelves: Shelf, **options: Any) -> Worker:
    return Worker("test", {shelf.name: shelf for shelf in shelves}, lambda: False, **options)


def rows(conn: psycopg.Connection, query: str) -> list[tuple]:
    return conn.execute(query).fetchall()


def left(conn: psycopg.Connection) -> list[tuple]:
    return rows(conn, "select path, last_error from lapse.file_cleanup_queue order by path")


def test_a_file_that_is_due_earlier_than_where_the_search_is_goes_in_the_same_drain(conn):
    shelf = Shelf()
    enqueue(conn, ["1", "2", "3", "4"])
    more = iter([["earlier"]])

    drain(conn, worker(shelf, batch=2), lambda: enqueue(conn, next(more, []), "-infinity"))

    assert sorted(shelf.asked) == ["1", "2", "3", "4", "earlier"]
    assert left(conn) == []


def test_everything_is_handed_in_before_a_drain_ends(conn):
    enqueue(conn, [f"{number}" for number in range(7)])
    who = worker(Shelf(), batch=3)

    drain(conn, who)

    assert who.unreported == []
    assert (who.done, who.failed, who.freed) == (7, 0, 7)
    assert left(conn) == []


@pytest.fixture
def crowded() -> Iterator[None]:
    """A process whose next descriptors have numbers above 1,023."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2048) if soft > 0 else soft, hard))
    opened = [os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC) for _ in range(1100)]
    try:
        yield
    finally:
        for descriptor in opened:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_worker_that_has_very_many_files_open_goes_on(dsn, crowded):
    with psycopg.connect(dsn, autocommit=True) as conn:
        assert conn.fileno() > 1023
        enqueue(conn, map(str, range(300)))
        shelf = Shelf()

        drain(conn, worker(shelf, batch=100))

        assert len(shelf.asked) == 300
        assert left(conn) == []


def test_the_answer_is_the_time_until_the_next_file_is_due(conn):
    enqueue(conn, ["later"], "2999-01-01")
    conn.execute("select lapse.enqueue_file('public', 'soon', clock_timestamp() + interval '10 min')")

    wait = drain(conn, worker(Shelf()))

    assert wait is not None
    assert 590 < wait <= 600


def test_files_that_are_all_in_use_do_not_end_the_drain(conn):
    conn.execute(
        "create function public.needed(p_storages text[], p_paths text[])"
        " returns table (storage text, path text, until timestamptz) language sql as"
        " $$ select s, p, null::timestamptz from unnest(p_storages, p_paths) as f (s, p)"
        "  where p like 'used%' $$"
    )
    conn.execute("select lapse.register_file_source('test', 'public.needed')")
    enqueue(conn, ["used 1", "used 2", "used 3", "used 4", "free"])
    shelf = Shelf()

    drain(conn, worker(shelf, batch=2))

    assert shelf.asked == ["free"]
    assert left(conn) == []


@pytest.mark.parametrize("error", ["a\x00b", "a\ud800b", "x" * 100_000, "\udcff", "'; drop table x; --"])
def test_whatever_an_error_says_it_can_be_handed_in(conn, error):
    enqueue(conn, ["a"])

    drain(conn, worker(Shelf(answer=lambda path: Outcome("failed", error=error))))

    [(path, said)] = left(conn)
    assert path == "a"
    assert 0 < len(said) <= 2000


def test_results_stay_with_the_worker_until_they_are_handed_in(conn, dsn):
    enqueue(conn, ["a"])
    who = worker(Shelf())

    with psycopg.connect(dsn, autocommit=True) as lost, pytest.raises(psycopg.OperationalError):
        drain(lost, who, lost.close)
    drain(conn, who)

    assert who.unreported == []
    assert conn.execute("select path, outcome, attempts from lapse.file_cleanup_log").fetchall() == [
        ("a", "deleted", 1)
    ]


def test_results_of_a_lease_that_another_took_over_are_forgotten(conn):
    enqueue(conn, ["a"])
    who = worker(Shelf())

    def taken_over() -> None:
        if rows(conn, "select 1 from lapse.file_cleanup_queue where leased_by = 'another'"):
            return
        conn.execute("update lapse.file_cleanup_queue set leased_until = now() - interval '1 s'")
        conn.execute("select lapse.exchange_files('another')")

    drain(conn, who, taken_over)

    assert who.unreported == []
    assert conn.execute("select leased_by from lapse.file_cleanup_queue").fetchall() == [("another",)]
    assert conn.execute("select 1 from lapse.file_cleanup_log").fetchall() == []


def test_told_to_stop_it_takes_nothing(conn):
    enqueue(conn, ["a"])
    shelf = Shelf()

    drain(conn, Worker("test", {"public": shelf}, lambda: True))

    assert shelf.asked == []
    assert conn.execute("select attempts, leased_until from lapse.file_cleanup_queue").fetchall() == [
        (0, None)
    ]


def test_a_slow_storage_is_given_smaller_batches_and_a_quick_one_larger_again():
    lane = Lane(Shelf(), batch=500, wake=lambda: None, stopping=lambda: False)
    taken = [lane.take]

    for seconds in (PACE / 100, PACE / 100, PACE / 100, PACE * 10, PACE * 100, PACE / 100):
        claims = [Claim(number, 1, "public", f"{number}", 1) for number in range(lane.take)]
        hand = lane.hold(claims, float("inf"), alone=False)
        for position in range(len(claims)):
            hand.batch.begin(position)
            hand.batch.end(position, Outcome("deleted"))
        hand.began_at, hand.done_at = 0.0, seconds
        hand.collect()
        lane.judge(hand)
        taken.append(lane.take)

    assert taken == [100, 200, 400, 500, 50, 1, 2]


@pytest.mark.parametrize(
    ("style", "zone"),
    [
        ("ISO", "UTC"),
        ("SQL, DMY", "Asia/Kolkata"),
        ("German", "America/St_Johns"),
        ("Postgres, MDY", "Asia/Kolkata"),
    ],
)
def test_files_come_in_the_order_they_are_due_whatever_the_session_s_time_looks_like(conn, style, zone):
    conn.execute("select set_config('datestyle', %s, false)", [style])
    conn.execute("select set_config('timezone', %s, false)", [zone])
    dues = [
        "-infinity",
        "1970-02-01 00:00:00.000001+00",
        "2025-10-26 00:59:59.1+00",
        "2025-10-26 00:59:59.101+00",
        "2025-11-02 01:30:00+00",
        "2025-12-01 00:00:00+00",
    ]
    for number in (3, 1, 0, 5, 2, 4):
        enqueue(conn, [str(number)], dues[number])

    paths: list[str] = []
    after = START
    for _ in dues:  # one by one, since a part of a larger claim is no matter of order
        answer = queue.exchange(conn, "w", [], [Want("public", 1, after)], lease=60)
        paths += [claim.path for claim in answer.claims]
        after = answer.next.get("public", START)

    assert paths == ["0", "1", "2", "3", "4", "5"]
    assert after[0] == 1764547200 * 1_000_000  # a due time is told in microseconds, whatever it looks like


def test_no_error_is_too_strange_for_a_database_with_another_encoding(server, template):
    name = f"pglapse_test_{os.environ['PGLAPSE_TEST_SESSION']}_latin1"
    with psycopg.connect(server, autocommit=True) as admin:
        admin.execute(f"create database {name} template template0 encoding 'LATIN1' locale 'C'")
        alembic(on(server, name), "upgrade", "heads")
        with psycopg.connect(on(server, name), autocommit=True, client_encoding="utf8") as conn:
            enqueue(conn, ["é", "a"])
            shelf = Shelf(answer=lambda path: Outcome("failed", error=f"{path} ≠ 日本 …" + 2000 * "…"))

            drain(conn, worker(shelf))

            assert sorted(shelf.asked) == ["a", "é"]
            assert [(path, error[:20].split()[:2]) for path, error in left(conn)] == [
                ("a", ["a", "\\u2260"]),
                ("é", ["\\xe9", "\\u2260"]),
            ]
        admin.execute(f"drop database {name} with (force)")


def test_a_storage_that_breaks_down_fails_its_files_and_no_others(conn, caplog):
    enqueue(conn, ["a", "b"])
    conn.execute("select lapse.enqueue_file('private', 'c')")

    def broken(path: str) -> Outcome:
        raise ZeroDivisionError("a bug")

    private = Shelf("private")
    drain(conn, worker(Shelf(answer=broken), private))

    assert private.asked == ["c"]
    assert left(conn) == [(path, "an unexpected error: ZeroDivisionError: a bug") for path in "ab"]
    assert "Traceback" in caplog.text


def test_results_that_can_t_be_handed_in_stop_the_worker_from_taking_more(conn, monkeypatch):
    enqueue(conn, [f"{number:03}" for number in range(100)])
    shelf = Shelf()
    who = worker(shelf, batch=2)
    handed_in: list[int] = []
    send = queue.send

    def noted(*arguments: Any, **options: Any) -> queue.Call:
        handed_in.append(len(arguments[2].results) + len(options["held"]))
        return send(*arguments, **options)

    monkeypatch.setattr(queue, "send", noted)
    monkeypatch.setattr("pglapse.drain.LONG_HELD", 0.05)
    monkeypatch.setattr("pglapse.drain.HELD", 0.05)
    with held(conn.info.dsn):
        drain(conn, who)
        assert who.clogged
        asked = len(shelf.asked)
        assert 2 * MOST <= asked == len(who.unreported) <= 2 * (MOST + DEPTH)
        assert max(handed_in) <= 2 * (1 + FRESH)
        drain(conn, who)
        assert len(shelf.asked) == asked
    while who.unreported:
        drain(conn, who)

    assert len(shelf.asked) == 100
    assert left(conn) == []


def test_results_that_can_t_be_handed_in_hold_up_no_others(conn, monkeypatch):
    monkeypatch.setattr("pglapse.drain.LONG_HELD", 0.05)
    enqueue(conn, [f"{number:02}" for number in range(10)])
    shelf = Shelf()
    who = worker(shelf, batch=1)

    with held(conn.info.dsn, "path < '05'"):
        drain(conn, who)
        assert sorted(path for path, _ in left(conn)) == [f"{number:02}" for number in range(5)]
        drain(conn, who)
    while who.unreported:
        drain(conn, who)

    assert len(shelf.asked) == 10
    assert left(conn) == []


@contextmanager
def held(dsn: str, which: str = "true") -> Iterator[None]:
    """A file source whose rows somebody has locked, for the files of a condition."""
    with psycopg.connect(dsn, autocommit=True) as other:
        other.execute(
            "create function public.no(text[], text[])"
            " returns table (storage text, path text, until timestamptz)"
            " language sql as $$ select null, null, null::timestamptz where false $$"
        )
        other.execute(
            "create function public.told(text[], text[], timestamptz[])"
            " returns table (storage text, path text)"
            f" language sql as $$ select s, path from unnest($1, $2) as f (s, path) where {which} $$"
        )
        other.execute("select lapse.register_file_source('held', 'public.no', 'public.told')")
        yield
        other.execute("select lapse.unregister_file_source('held')")
