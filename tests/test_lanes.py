"""A storage that is slow, away or hangs: the others go on, and its files burn no attempts."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import psycopg
import pytest

from pglapse import queue
from pglapse.drain import Worker, drain
from pglapse.errors import HelperDied
from pglapse.queue import Want
from pglapse.storage import Away, Batch, Outcome
from tests.support.poll import until


@dataclass
class Shelf:
    """A storage that does what the test says, one file after the other."""

    name: str = "public"
    act: Callable[[str], None] = lambda path: None
    away: str | None = None
    deleted: list[str] = field(default_factory=list)
    checks: int = 0

    def check(self) -> None:
        self.checks += 1
        if self.away is not None:
            raise Away(self.away, retry_in=0.0)

    def delete(self, batch: Batch) -> None:
        for position, file in enumerate(batch.files):
            if batch.begin(position):
                self.act(file.path)
                self.deleted.append(file.path)
                batch.end(position, Outcome("deleted", bytes=1))


class Stuck:
    """Something that hangs until it is let go."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.let_go = threading.Event()

    def __call__(self, path: str) -> None:
        self.begun.set()
        assert self.let_go.wait(30)


@pytest.fixture
def stuck() -> Iterator[Stuck]:
    one = Stuck()
    yield one
    one.let_go.set()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pglapse.lane.FIRST_REST", 0.05)
    monkeypatch.setattr("pglapse.lane.LONGEST_REST", 0.1)


def worker(*shelves: Shelf, stopping: Callable[[], bool] = lambda: False, **options: Any) -> Worker:
    return Worker("test", {shelf.name: shelf for shelf in shelves}, stopping, **options)


def enqueue(conn: psycopg.Connection, *paths: str, storage: str = "public") -> None:
    conn.execute(
        "select lapse.enqueue_file(%s, path) from unnest(%s::text[]) as path", [storage, list(paths)]
    )


def waiting(conn: psycopg.Connection, storage: str = "public") -> list[tuple]:
    """Path, attempts and whether somebody holds it, of rows that are still queued."""
    return conn.execute(
        "select path, attempts, leased_until > clock_timestamp() from lapse.file_cleanup_queue"
        " where storage = %s order by path",
        [storage],
    ).fetchall()


def turns(who: Worker, conn: psycopg.Connection, done: Callable[[], object]) -> None:
    """Let the worker work until something is true."""

    who.nudge()

    def one() -> object:
        if not who.turn(conn):
            who.rest(conn, 0.05)
        return done()

    until(one, what="the worker to get there")


@contextmanager
def second(dsn: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(dsn, autocommit=True) as other:
        yield other


def test_a_slow_storage_does_not_hold_up_another(conn, stuck):
    slow, quick = Shelf("slow", stuck), Shelf("quick")
    enqueue(conn, *"abc", storage="slow")
    who = worker(slow, quick)
    turns(who, conn, stuck.begun.is_set)

    enqueue(conn, *"xyz", storage="quick")
    turns(who, conn, lambda: not waiting(conn, "quick"))

    assert slow.deleted == []
    stuck.let_go.set()
    drain(conn, who)
    assert (slow.deleted, quick.deleted) == ([*"abc"], [*"xyz"])


def test_the_next_batch_is_there_while_one_is_being_deleted(conn):
    def first_waits(path: str) -> None:
        if path == "0":
            until(lambda: len(who.lanes["public"].hands) == 2, what="a second batch")

    shelf = Shelf(act=first_waits)
    enqueue(conn, *"012345")
    who = worker(shelf, batch=2)

    drain(conn, who)

    assert shelf.deleted == [*"012345"]
    assert waiting(conn) == []


def test_a_lane_that_is_never_idle_keeps_no_other_from_hearing_of_its_files(conn, dsn):
    busy, other = Shelf("busy"), Shelf("other")
    with second(dsn) as source:
        busy.act = lambda path: enqueue(source, f"{len(busy.deleted)}", storage="busy")
        queue.listen(conn)
        enqueue(conn, *"abc", storage="busy")
        who = worker(busy, other, batch=1)
        turns(who, conn, lambda: len(busy.deleted) > 3)

        enqueue(source, "x", storage="other")
        until(lambda: who.turn(conn) and other.deleted, what="the other storage's file to go")
        busy.act = lambda path: None
        drain(conn, who)

    assert waiting(conn) == []


def test_files_nobody_told_of_are_looked_for_all_the_same(conn):
    shelf = Shelf()
    who = worker(shelf)
    who.horizon = 0.1
    drain(conn, who)

    enqueue(conn, "a")
    until(lambda: who.turn(conn) and shelf.deleted, what="the file to go")
    drain(conn, who)


def test_a_lease_is_renewed_while_a_slow_storage_works(conn, dsn, stuck):
    enqueue(conn, "slow", "waiting behind it")
    who = worker(Shelf(act=stuck), lease=0.5)
    turns(who, conn, stuck.begun.is_set)
    [(first,)] = conn.execute("select max(leased_until) from lapse.file_cleanup_queue").fetchall()

    def renewed() -> bool:
        [(now,)] = conn.execute("select min(leased_until) from lapse.file_cleanup_queue").fetchall()
        return (now - first).total_seconds() > 1.5

    with second(dsn) as other:
        taken: list[queue.Claim] = []

        def tried() -> bool:
            taken.extend(queue.exchange(other, "other", [], [Want("public", 10)], lease=5).claims)
            return renewed()

        turns(who, conn, tried)
        stuck.let_go.set()
        drain(conn, who)

    assert taken == []
    assert [
        row[:2] for row in conn.execute("select path, attempts from lapse.file_cleanup_log order by 1")
    ] == [
        ("slow", 1),
        ("waiting behind it", 1),
    ]


def test_what_a_hanging_storage_has_not_begun_is_given_back_and_burns_no_attempt(conn, dsn, stuck):
    enqueue(conn, *"abcdef")
    hanging = Shelf(act=stuck)
    who = worker(hanging, batch=3, patience=0.3)

    turns(who, conn, lambda: [row[1:] for row in waiting(conn)].count((0, None)) == 5)

    assert [row for row in waiting(conn) if row[2]] == [("a", 1, True)]
    assert "hangs" in who.troubles["public"]
    with second(dsn) as other:
        healthy = Shelf()
        drain(other, worker(healthy))
        assert sorted(healthy.deleted) == [*"bcdef"]
    stuck.let_go.set()
    turns(who, conn, lambda: not waiting(conn))
    assert hanging.deleted == ["a"]
    enqueue(conn, "g")
    turns(who, conn, lambda: not waiting(conn))
    assert who.troubles == {}


def test_a_storage_whose_check_hangs_counts_as_hanging_too(conn, stuck):
    class Deaf(Shelf):
        def check(self) -> None:
            stuck("")

    enqueue(conn, "a")
    who = worker(Deaf(), Shelf("other"), patience=0.2)

    turns(who, conn, lambda: "hangs" in who.troubles.get("public", ""))

    assert waiting(conn) == [("a", 0, None)]
    stuck.let_go.set()
    turns(who, conn, lambda: not waiting(conn))


def test_a_storage_that_is_away_gets_no_files_and_another_goes_on(conn):
    away, well = Shelf("away", away="unplugged"), Shelf("well")
    enqueue(conn, "a", storage="away")
    enqueue(conn, "b", storage="well")
    who = worker(away, well)

    turns(who, conn, lambda: away.checks > 2 and not waiting(conn, "well"))

    assert who.troubles == {"away": "unplugged"}
    assert waiting(conn, "away") == [("a", 0, None)]
    away.away = None
    turns(who, conn, lambda: not waiting(conn, "away"))
    assert who.troubles == {}


def test_a_storage_that_goes_away_in_the_middle_of_a_batch_loses_no_attempt_for_the_rest(conn):
    def unplug(path: str) -> None:
        if path == "c":
            shelf.away = "unplugged"
            raise Away("unplugged", retry_in=0.0)

    shelf = Shelf(act=unplug)
    enqueue(conn, *"abcde")
    who = worker(shelf)

    turns(who, conn, lambda: who.troubles and not who.busy and not who.fresh)

    assert waiting(conn) == [(path, 0, None) for path in "cde"]
    assert shelf.deleted == ["a", "b"]
    shelf.act, shelf.away = (lambda path: None), None
    turns(who, conn, lambda: not waiting(conn))


def test_a_throttling_storage_is_left_alone_for_as_long_as_it_says(conn):
    def busy(path: str) -> None:
        raise Away("slow down", retry_in=3600.0)

    shelf, other = Shelf(act=busy), Shelf("other")
    enqueue(conn, "a")
    who = worker(shelf, other)
    turns(who, conn, lambda: who.troubles and not who.fresh)

    enqueue(conn, *"xyz", storage="other")
    turns(who, conn, lambda: not waiting(conn, "other"))

    assert shelf.checks == 1
    assert waiting(conn) == [("a", 0, None)]


def test_a_lane_whose_thread_dies_takes_the_worker_with_it(conn):
    def die(path: str) -> None:
        raise SystemExit("an end")

    enqueue(conn, "a")
    who = worker(Shelf(act=die))

    with pytest.raises(HelperDied, match="thread of storage public died: SystemExit"):
        turns(who, conn, lambda: False)


@pytest.mark.parametrize(("soon", "kept"), [(float("inf"), [*"abc"]), (0.0, [*"c"])], ids=["soon", "at last"])
def test_results_of_a_batch_under_way_are_handed_in_together_or_after_a_moment(
    conn, stuck, monkeypatch, soon, kept
):
    monkeypatch.setattr("pglapse.drain.SOON", soon)
    enqueue(conn, *"abc")
    who = worker(Shelf(act=lambda path: stuck(path) if path == "c" else None))
    turns(who, conn, stuck.begun.is_set)

    while who.turn(conn):
        pass

    assert [path for path, *_ in waiting(conn)] == kept
    stuck.let_go.set()
    drain(conn, who)
    assert waiting(conn) == []


def test_told_to_stop_it_finishes_the_file_in_hand_and_gives_back_the_rest(conn, stuck):
    stop: list[bool] = []
    enqueue(conn, *"abcdef")
    shelf = Shelf(act=stuck)
    who = worker(shelf, stopping=lambda: bool(stop), batch=3)
    turns(who, conn, stuck.begun.is_set)

    stop.append(True)
    stuck.let_go.set()
    drain(conn, who)

    assert shelf.deleted == ["a"]
    assert waiting(conn) == [(path, 0, None) for path in "bcdef"]


def test_rows_lost_with_a_worker_wait_until_our_hands_are_empty(conn, stuck):
    enqueue(conn, "x", storage="slow")
    seen: list[tuple[str, int]] = []
    slow = Shelf("slow", stuck)
    shelf = Shelf(act=lambda path: seen.append((path, sum(len(lane.hands) for lane in who.lanes.values()))))
    who = worker(slow, shelf)
    turns(who, conn, stuck.begun.is_set)
    enqueue(conn, *"abcd")
    queue.exchange(conn, "lost", [], [Want("public", 4)], lease=60)
    conn.execute(
        "update lapse.file_cleanup_queue set leased_until = clock_timestamp() where storage = 'public'"
    )

    turns(who, conn, lambda: who.waiting or seen)
    for _ in range(5):
        who.turn(conn)

    assert seen == []
    stuck.let_go.set()
    drain(conn, who)
    assert sorted(path for path, _ in seen) == [*"abcd"]
    assert [hands for path, hands in seen if path in "ab"] == [1, 1]
    assert (waiting(conn), waiting(conn, "slow")) == ([], [])


def test_a_storage_without_files_is_found_well_again_by_looking(conn, caplog):
    caplog.set_level("INFO")
    shelf = Shelf(away="not mounted")
    who = worker(shelf)
    turns(who, conn, lambda: who.troubles == {"public": "not mounted"})

    shelf.away = None
    turns(who, conn, lambda: not who.troubles)

    assert "storage public works again" in caplog.text


def test_a_look_does_not_clear_a_storage_that_fails_only_when_it_deletes(conn):
    refusing = Shelf(act=lambda path: raised(Away("nothing may be deleted", retry_in=0.0)))
    enqueue(conn, "a")
    who = worker(refusing)
    turns(who, conn, lambda: who.troubles)
    checks = refusing.checks
    seen = set()

    def looked() -> bool:
        seen.add(who.troubles.get("public"))
        return refusing.checks >= checks + 3

    turns(who, conn, looked)

    assert seen == {"nothing may be deleted"}


def raised(error: Exception) -> None:
    raise error
