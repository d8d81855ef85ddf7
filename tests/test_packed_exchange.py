"""lapse.exchange_files_packed: the same exchange in few rows; and results of which nothing is to be said."""

import json
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from pglapse import queue
from pglapse.drain import Worker, drain
from pglapse.queue import Report, Want
from pglapse.storage import Batch, Expected, Outcome
from tests.support.cost import fill, scanned
from tests.support.poll import until
from tests.support.queue import cancel, enqueue, exchange, outcomes, row

CALL = """
select * from lapse.exchange_files_packed(
    'w1', p_storages => %s::text[], p_limits => %s::int[], p_gone_ids => %s::bigint[],
    p_gone_tokens => %s::bigint[], p_gone_bytes => %s::bigint[])
"""


def packed(conn: psycopg.Connection, *gone: Any, storages: str = "{}", limits: str = "{}") -> list[dict]:
    """Hand in files that are gone, of four bytes each, and take others."""
    values = [storages, limits, [one.id for one in gone], [one.token for one in gone], [4 for _ in gone]]
    with conn.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(CALL, values).fetchall()


def claimed(conn: psycopg.Connection) -> list[Any]:
    """Take all files, in the order of their paths."""
    return sorted(exchange(conn).claimed, key=lambda claim: claim.path)


def kinds(answer: list[dict]) -> list[tuple[str, int]]:
    return [(one["kind"], one["id"]) for one in answer]


def test_files_of_a_storage_come_in_one_row_in_due_order(conn):
    enqueue(conn, "b", at="now() - interval '1 s'")
    enqueue(conn, "a", at="now() - interval '3 s'")
    enqueue(conn, '"ü\\', at="now() - interval '2 s'")
    enqueue(conn, "c", storage="t")

    first, second, *others = packed(conn, storages="{s,t}", limits="{3,5}")

    assert (first["kind"], first["storage"], first["alone"]) == ("claimed", "s", False)
    assert first["files"]["paths"] == ["a", '"ü\\', "b"]
    assert first["files"]["attempts"] == [1, 1, 1]
    assert first["files"]["expected"] is None
    assert [first["files"]["ids"], first["token"]] == [
        [row(conn, path)["id"] for path in first["files"]["paths"]],
        row(conn, "b")["lease_token"],
    ]
    assert (second["storage"], second["files"]["paths"]) == ("t", ["c"])
    assert [(one["kind"], one["storage"]) for one in others] == [("next", "s"), ("wait", "t")]
    last = first["files"]["paths"][first["files"]["ids"].index(others[0]["id"])]
    assert others[0]["due"] == int(row(conn, last)["not_before"].timestamp() * 1_000_000 + 0.5)


def test_a_guard_comes_with_its_file(conn):
    enqueue(conn, "a")
    conn.execute("select lapse.enqueue_file('s', 'b', p_expected => '{\"size\": 7}')")

    claims = queue.exchange(conn, "w1", [], [Want("s", 5)], lease=60).claims

    assert {claim.path: claim.expected for claim in claims} == {"a": (), "b": (Expected(size=7),)}


@pytest.mark.parametrize("name", ["s", '"', "\\", "a,b", "{}", "NULL", " ü "])
def test_a_storage_may_have_any_name(conn, name):
    enqueue(conn, "a", storage=name)

    answer = queue.exchange(conn, "w1", [], [Want(name, 1)], lease=60)

    assert [(claim.storage, claim.path) for claim in answer.claims] == [(name, "a")]
    assert list(answer.next) == [name]


def test_files_that_are_gone_are_logged(conn):
    enqueue(conn, "a", "b", "c")
    a, b, _ = claimed(conn)

    assert packed(conn, a, b) == []

    assert sorted(outcomes(conn)) == [("a", "deleted"), ("b", "deleted")]
    said = "queue_id, bytes, worker, attempts, reason, source_id"
    assert conn.execute(f"select {said} from lapse.file_cleanup_log where path = 'b'").fetchall() == [
        (b.id, 4, "w1", 1, "test", "2")
    ]
    assert row(conn, "a") == {}


def test_a_result_of_a_lease_that_another_worker_has_taken_over_changes_nothing(conn):
    enqueue(conn, "late", "usual")
    late, usual = claimed(conn)
    conn.execute("update lapse.file_cleanup_queue set leased_until = now() where path = 'late'")
    exchange(conn, worker="w2")

    assert kinds(packed(conn, late)) == [("stale", late.id)]
    assert kinds(packed(conn, late, usual)) == [("stale", late.id)]

    assert outcomes(conn) == [("usual", "deleted")]
    assert row(conn, "late")["leased_by"] == "w2"


def test_a_row_that_never_was_is_stale_and_the_others_are_done(conn):
    enqueue(conn, "a")
    [a] = claimed(conn)

    assert kinds(packed(conn, a, a._replace(id=2**62))) == [("stale", 2**62)]
    assert outcomes(conn) == [("a", "deleted")]


def test_a_row_asked_for_again_stays_and_the_others_are_done(conn):
    enqueue(conn, "a", "again")
    claims = claimed(conn)
    enqueue(conn, "again")

    assert packed(conn, *claims) == []

    assert sorted(outcomes(conn)) == [("a", "deleted"), ("again", "deleted")]
    assert (row(conn, "again")["lease_token"], row(conn, "again")["attempts"]) == (None, 0)


def test_a_row_cancelled_too_late_says_so(conn):
    enqueue(conn, "a", "cancelled")
    claims = claimed(conn)
    cancel(conn, "cancelled")

    assert packed(conn, *claims) == []

    notes = dict(conn.execute("select path, note from lapse.file_cleanup_log").fetchall())
    assert notes == {"a": None, "cancelled": "cancelled too late: a worker held it already"}


def test_a_file_handed_in_twice_at_once_is_logged_once(conn):
    enqueue(conn, "a", "b")
    a, b = claimed(conn)

    assert packed(conn, a, b, a) == []
    assert kinds(packed(conn, a)) == [("stale", a.id)]
    assert sorted(outcomes(conn)) == [("a", "deleted"), ("b", "deleted")]


@pytest.mark.parametrize("lock", ["for update", "for key share"])
def test_a_row_that_an_application_has_locked_is_not_waited_for(conn, dsn, lock):
    enqueue(conn, "a", "b")
    a, b = claimed(conn)
    with psycopg.connect(dsn) as application:
        application.execute(f"select 1 from lapse.file_cleanup_queue where path = 'a' {lock}")
        conn.execute("set statement_timeout = '10 s'")  # it would wait for ever
        answer = packed(conn, a, b)

    assert kinds(answer) == [("unsettled", a.id)]
    assert outcomes(conn) == [("b", "deleted")]
    assert packed(conn, a) == []
    assert len(outcomes(conn)) == 2


def test_a_row_that_is_locked_after_the_look_at_it_is_left_to_the_careful_way(conn, dsn):
    enqueue(conn, "a", "b")
    a, b = claimed(conn)
    look = "and (q.xmax = q.xmin or q.xmax = '0')"
    [text] = conn.execute("select pg_get_functiondef('lapse.finish_gone'::regproc)").fetchone()
    assert look in text
    conn.execute(text.replace(look, ""))  # as if the lock came a moment later
    with psycopg.connect(dsn) as application:
        application.execute("select 1 from lapse.file_cleanup_queue where path = 'b' for update")
        answer = packed(conn, a, b)

    assert kinds(answer) == [("unsettled", b.id)]
    assert outcomes(conn) == [("a", "deleted")]


def test_a_file_source_is_told_and_one_that_can_not_record_it_yet_keeps_the_row(conn):
    conn.execute("""
        create schema app;
        create table app.told (path text);
        create table app.stuck (path text);
        create function app.needed(text[], text[]) returns table (storage text, path text, until timestamptz)
        language sql as $$ select null, null, null::timestamptz where false $$;
        create function app.gone(text[], text[], timestamptz[]) returns table (storage text, path text)
        language sql as $$
            insert into app.told
            select f.path from unnest($2) as f (path) where f.path not in (select s.path from app.stuck as s);
            select f.* from unnest($1, $2) as f (storage, path) join app.stuck using (path)
        $$;
        insert into app.stuck values ('b');
        select lapse.register_file_source('app', 'app.needed', 'app.gone');
    """)
    enqueue(conn, "a", "b")
    a, b = claimed(conn)

    answer = packed(conn, a, b)

    assert kinds(answer) == [("unsettled", b.id)]
    assert "locked" in answer[0]["note"]
    assert outcomes(conn) == [("a", "deleted")]
    conn.execute("truncate app.stuck")
    assert packed(conn, b) == []
    assert sorted(conn.execute("select path from app.told").fetchall()) == [("a",), ("b",)]


@pytest.mark.parametrize(
    "lists",
    ["'{1}', '{}', '{}'", "'{1}', '{1}', '{1,2}'", "'{null}', '{1}', '{1}'", "'{1}', '{null}', '{1}'",
     "'{1}', '{1}', '{-1}'", "'{{1}}', '{1}', '{1}'", "'{1}', null, '{1}'", "'{1}', '{1}', null"],
)  # fmt: skip
def test_lists_that_do_not_match_are_refused_and_nothing_happens(conn, lists):
    enqueue(conn, "a")

    with pytest.raises(psycopg.Error) as caught:
        conn.execute(
            "select lapse.exchange_files_packed('w1', '[]', '{s}', '{1}', '60 s', null, null, " + lists + ")"
        )

    assert (caught.value.sqlstate, bool(caught.value.diag.message_hint)) == ("LP001", True)
    assert row(conn, "a")["lease_token"] is None


def test_statistics_that_call_the_queue_empty_do_not_have_it_read_for_each_file(conn, dsn):
    rows = 20_000
    with psycopg.connect(dsn) as other:
        fill(other, rows, "now() - interval '1 day'")
        conn.execute("vacuum analyze lapse.file_cleanup_queue")
        other.commit()
    claimed = exchange(conn, limit=500).claimed
    conn.execute("set statement_timeout = '4 s'")

    assert packed(conn, *claimed) == []

    assert len(outcomes(conn)) == 500
    assert scanned(conn) < rows


# The client's half


class Slow:
    """A storage that deletes when it is told to."""

    name = "s"

    def __init__(self) -> None:
        self.open = False

    def check(self) -> None:
        pass

    def delete(self, batch: Batch) -> None:
        until(lambda: self.open, what="the word")
        for position in range(len(batch.files)):
            if batch.begin(position):
                batch.end(position, Outcome("deleted", bytes=1))


def test_results_come_back_with_another_isolation_level_by_default(conn):
    conn.execute("set default_transaction_isolation = 'serializable'")
    enqueue(conn, "a")

    [claim] = queue.exchange(conn, "w1", [], [Want("s", 1)], lease=60).claims
    queue.exchange(conn, "w1", [queue.Result(claim, Outcome("deleted"))], [], lease=60)

    assert outcomes(conn) == [("a", "deleted")]


def test_what_was_taken_is_deleted_also_when_the_connection_is_lost_before_the_next_request(conn, dsn):
    enqueue(conn, *"abcd")
    storage = Slow()
    storage.open = True
    worker = Worker("w1", {"s": storage}, lambda: False, batch=2)
    line = psycopg.connect(dsn, autocommit=True)
    until(lambda: worker.turn(line) and worker.in_hand, what="files in hand")
    line.close()
    with pytest.raises(psycopg.OperationalError):
        worker.turn(line)

    [hand] = worker.lanes["s"].hands
    until(lambda: hand.done_at, what="the lane to be done")


def test_an_answer_is_read_while_the_server_works_on_the_next_request(conn, monkeypatch):
    events: list[str] = []
    send, read = queue.send, queue.Taken.claims
    monkeypatch.setattr(queue, "send", lambda *a, **o: events.append("asked") or send(*a, **o))
    monkeypatch.setattr(queue.Taken, "claims", lambda taken: events.append("read") or read(taken))
    enqueue(conn, *"abcdef")
    storage = Slow()
    storage.open = True

    drain(conn, Worker("w1", {"s": storage}, lambda: False, batch=2))

    assert events[:3] == ["asked", "asked", "read"]  # later the lane may have no room for a third batch yet
    assert len(outcomes(conn)) == 6


def test_results_said_in_json_are_those_that_need_words(conn):
    enqueue(conn, "a", "b", "c")
    claims = queue.exchange(conn, "w1", [], [Want("s", 3)], lease=60).claims
    results = [
        queue.Result(claims[0], Outcome("deleted", bytes=1)),
        queue.Result(claims[1], Outcome("deleted", bytes=2, error="with a word")),
        queue.Result(claims[2], Outcome("missing")),
    ]

    report = Report(conn, results)

    assert (report.ids, report.bytes) == (f"{{{claims[0].id}}}", "{1}")
    assert [json.loads(said)["id"] for said in report.others] == [claims[1].id, claims[2].id]


@pytest.mark.parametrize("sent", [b"select 1; select 1/0", b"select 1; select 2"])
def test_an_answer_with_something_after_it_is_an_error_of_the_connection_and_not_the_workers_end(conn, sent):
    call = queue.Call.__new__(queue.Call)
    call._conn = conn
    conn.pgconn.send_query(sent)

    with pytest.raises(psycopg.Error):
        call._received()
