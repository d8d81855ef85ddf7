"""Guarded deletion in the database: what a file must still be, from the request to the worker and back."""

import json
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.support.queue import cancel, end_leases, enqueue, exchange, hand_in, outcomes, result, row

A, B, C = {"size": 1}, {"size": 2, "mtime_ns": 3}, {"etag": "x"}


def ask(conn: psycopg.Connection, expected: object, path: str = "a") -> None:
    conn.execute(
        "select lapse.enqueue_file('s', %s, p_expected => %s)",
        [path, None if expected is None else Jsonb(expected)],
    )


def ask_at_once(conn: psycopg.Connection, *requests: tuple[str, object]) -> None:
    conn.execute(
        "select lapse.enqueue_files(array("
        "  select row('s', r.path, null, null, null, null, r.expected)::lapse.file_request"
        "   from rows from (jsonb_to_recordset(%s) as (path text, expected jsonb)) with ordinality as r"
        "   order by r.ordinality))",
        [Jsonb([{"path": path, "expected": expected} for path, expected in requests])],
    )


def guard(conn: psycopg.Connection, path: str = "a") -> Any:
    return row(conn, path)["expected"]


def test_a_claim_says_what_the_file_must_still_be(conn):
    ask(conn, {"size": 5, "mtime_ns": 1764000000123456789, "etag": 'W/"ä"'})
    ask(conn, None, "b")

    claims = {claim.path: claim.expected for claim in exchange(conn).claimed}

    assert claims == {"a": [{"size": 5, "mtime_ns": 1764000000123456789, "etag": 'W/"ä"'}], "b": None}


def test_a_plain_insert_and_a_whole_list_are_guarded_too(conn):
    conn.execute(
        "insert into lapse.file_cleanup_queue (storage, path, expected) values ('s', 'a', %s)", [Jsonb(A)]
    )
    ask_at_once(conn, ("b", [A, B]), ("c", None))

    assert (guard(conn), guard(conn, "b"), guard(conn, "c")) == ([A], [A, B], None)


SAME: list[tuple[object, object]] = [
    (A, [A]),
    ([A, C], [A, C]),
    ({"size": 0}, [{"size": 0}]),
    ({"size": 1, "etag": None}, [A]),
    ({"mtime_ns": -1}, [{"mtime_ns": -1}]),
    ({"mtime_ns": 2**63 - 1}, [{"mtime_ns": 2**63 - 1}]),
    ([{"size": n} for n in range(32)], [{"size": n} for n in range(32)]),
    ({"etag": "x" * 1024}, [{"etag": "x" * 1024}]),
    ({"etag": "two\nlines"}, [{"etag": "two\nlines"}]),
]


def test_a_guard_is_kept_as_an_array_of_alternatives(conn):
    for number, (given, kept) in enumerate(SAME):
        ask(conn, given, f"{number}")
        assert guard(conn, f"{number}") == kept, given


MALFORMED: list[object] = [
    None,
    {},
    [],
    [{}],
    [[]],
    [A, {}],
    5,
    "x",
    True,
    [None],
    {"size": None},
    {"size": -1},
    {"size": 1.5},
    {"size": "1"},
    {"size": 10**18},
    {"size": True},
    {"size": [1]},
    {"mtime_ns": 0.5},
    {"mtime_ns": "1"},
    {"mtime_ns": 10**19},
    {"etag": ""},
    {"etag": 5},
    {"etag": "x" * 1025},
    {"etag": {"a": 1}},
    {"colour": "red"},
    {"size": 1, "Size": 1},
    [{"size": n} for n in range(33)],
]


def test_a_guard_that_can_not_be_one_is_refused_and_nothing_is_queued(conn):
    calls = {
        "select lapse.enqueue_file('s', 'a', p_expected => %s)": "file request 1 ",
        "insert into lapse.file_cleanup_queue (storage, path, expected) values ('s', 'a', %s)": "request 1 ",
        "select lapse.enqueue_files(array[row('s', 'b', null, null, null, null, null),"
        " row('s', 'a', null, null, null, null, %s)]::lapse.file_request[])": "file request 2 ",
    }
    for given in MALFORMED:
        for call, named in calls.items():
            with pytest.raises(psycopg.Error, match=named) as caught:
                conn.execute(call, [Jsonb(given)])
            assert (caught.value.sqlstate, "mtime_ns" in caught.value.diag.message_hint) == ("LP001", True)
    assert conn.execute("select 1 from lapse.file_cleanup_queue").fetchall() == []


def test_a_hand_can_not_write_into_the_queue_what_no_worker_understands(conn):
    ask(conn, A)

    with pytest.raises(psycopg.errors.CheckViolation):
        conn.execute("update lapse.file_cleanup_queue set expected = '5'")


MERGES: list[tuple[list[object], object]] = [
    ([A, B], [A, B]),
    ([A, A], [A]),
    ([B, A, B], [A, B]),
    ([[A, B], [B, C]], [A, B, C]),
    ([A, None], None),
    ([None, A], None),
    ([A, None, B], None),
    ([None, None], None),
    ([[{"size": n} for n in range(32)], {"size": 99}], [{"size": n} for n in [*range(1, 32), 99]]),
]


@pytest.mark.parametrize("at_once", [True, False], ids=["one list", "one by one"])
def test_what_several_requests_say_of_a_file_is_united_and_silence_wins(conn, at_once):
    def unordered(value: Any) -> Any:
        return value and sorted(value, key=json.dumps)

    for number, (requests, merged) in enumerate(MERGES):
        path = f"{number}"
        if at_once:
            ask_at_once(conn, *((path, request) for request in requests), (f"b{number}", C))
            assert guard(conn, f"b{number}") == [C]
        else:
            for request in requests:
                ask(conn, request, path)
        assert unordered(guard(conn, path)) == unordered(merged), requests


def test_a_dead_file_that_is_asked_for_again_takes_the_new_guard(conn):
    for new, kept in ((B, [B]), (None, None)):
        ask(conn, A)
        conn.execute("update lapse.file_cleanup_queue set dead_at = now()")
        ask(conn, new)
        assert guard(conn) == kept
        conn.execute("delete from lapse.file_cleanup_queue")


def test_a_held_file_that_is_asked_for_again_is_then_about_the_new_request_only(conn):
    ask(conn, A)
    claim = exchange(conn).claimed[0]
    ask(conn, B)

    hand_in(conn, result(claim, "changed"))

    assert exchange(conn).claimed[0].expected == [B]


def test_a_held_file_that_was_cancelled_and_is_asked_for_again_is_about_the_new_request_only(conn):
    """Else the guard of the new request would be lost with the old one that had none."""
    ask(conn, None)
    exchange(conn)
    assert cancel(conn, "a") is False
    ask(conn, A)
    ask(conn, B)
    end_leases(conn)

    exchange(conn)  # the cancelled one is taken out, and what was asked for since takes its place

    assert exchange(conn).claimed[0].expected == [A, B]


@pytest.mark.parametrize("outcome", ["failed", "released"])
def test_a_guard_outlives_attempts(conn, outcome):
    ask(conn, A)
    hand_in(conn, result(exchange(conn).claimed[0], outcome))

    assert guard(conn) == [A]


def test_a_file_that_is_another_now_leaves_the_queue_with_that_reason(conn):
    ask(conn, A)

    hand_in(conn, result(exchange(conn).claimed[0], "changed", error="it has 7 bytes, not 1"))

    assert row(conn, "a") == {}
    assert conn.execute("select path, outcome, note, bytes from lapse.file_cleanup_log").fetchall() == [
        ("a", "changed", "it has 7 bytes, not 1", None)
    ]


def test_a_file_that_is_another_now_is_not_reported_gone(conn):
    conn.execute("""
        create table public.gone (path text);
        create function public.needed(text[], text[])
            returns table (storage text, path text, until timestamptz) language sql
            as $$ select null, null, null::timestamptz where false $$;
        create function public.removed(text[], text[], timestamptz[])
            returns table (storage text, path text) language sql
            as $$ insert into public.gone select unnest($2); select null, null where false $$;
        select lapse.register_file_source('test', 'public.needed', 'public.removed');
    """)
    enqueue(conn, "a", "b")
    claims = {claim.path: claim for claim in exchange(conn).claimed}

    hand_in(conn, result(claims["a"], "changed"), result(claims["b"]))

    assert conn.execute("select path from public.gone").fetchall() == [("b",)]
    assert sorted(outcomes(conn)) == [("a", "changed"), ("b", "deleted")]


def test_a_changed_file_that_was_cancelled_while_it_was_held_is_told_as_changed(conn):
    ask(conn, A)
    claim = exchange(conn).claimed[0]
    cancel(conn, "a")

    hand_in(conn, result(claim, "changed", error="it has 7 bytes, not 1"))

    assert outcomes(conn) == [("a", "changed")]
