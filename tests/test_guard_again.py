"""What a file must still be, when it is asked for again while a worker holds it.

Found by a random campaign: a request without a guard, held by a worker, took away the guard of the one made
meanwhile, and a file that had been written anew in the end went for a request that had not meant it.
"""

from itertools import product
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.support.queue import end_leases, exchange, hand_in, result, row

A, B, C = {"size": 1}, {"size": 2}, {"etag": "x"}
LATER = "now() + interval '1 day'"

MEANWHILE: list[tuple[object, list[object], object]] = [
    (None, [A], [A]),
    (A, [B], [B]),
    (A, [None], None),
    (None, [A, B], [A, B]),
    (A, [B, None], None),
    (A, [None, B], None),
    (C, [A, B, A], [B, A]),
]


def ask(conn: psycopg.Connection, expected: object, path: str = "a", at: str = "now()") -> None:
    guard = None if expected is None else Jsonb(expected)
    conn.execute(f"select lapse.enqueue_file('s', %s, {at}, p_expected => %s)", [path, guard])


def claim(conn: psycopg.Connection) -> Any:
    (claimed,) = exchange(conn).claimed
    return claimed


def test_once_the_held_file_is_done_only_those_who_asked_meanwhile_are_heard(conn):
    for (held, meanwhile, then), outcome in product(MEANWHILE, ("deleted", "missing", "changed")):
        ask(conn, held)
        first = claim(conn)
        for guard in meanwhile:
            ask(conn, guard)
        assert first.expected == (None if held is None else [held])

        hand_in(conn, result(first, outcome))

        second = claim(conn)
        assert second.expected == then, (held, meanwhile, outcome)
        hand_in(conn, result(second))
        assert row(conn, "a") == {}


@pytest.mark.parametrize("how", ["lost", "failed", "released"])
def test_a_held_file_that_is_not_done_may_be_what_either_said(conn, how):
    for held, meanwhile, then in ((None, A, None), (A, None, None), (A, A, [A]), (A, B, [A, B])):
        ask(conn, held)
        first = claim(conn)
        ask(conn, meanwhile)
        if how == "lost":
            end_leases(conn)
        else:
            hand_in(conn, result(first, how))
            conn.execute("update lapse.file_cleanup_queue set not_before = now()")

        second = claim(conn)

        assert second.expected == then, (held, meanwhile)
        hand_in(conn, result(second))
        assert row(conn, "a") == {}


def test_what_was_asked_for_later_is_not_heard_before_its_time(conn):
    ask(conn, A)
    claim(conn)
    ask(conn, B, at=LATER)
    end_leases(conn)

    second = claim(conn)

    assert second.expected == [A]
    hand_in(conn, result(second))
    assert row(conn, "a")["expected"] == [B]


@pytest.mark.parametrize("lost", [False, True])
def test_a_held_file_that_was_cancelled_leaves_nothing_of_its_guard(conn, lost):
    ask(conn, None)
    first = claim(conn)
    ask(conn, C)
    conn.execute("select from lapse.cancel_files('{s}', '{a}')")
    ask(conn, A)
    ask(conn, B)

    if lost:
        end_leases(conn)
        exchange(conn)  # the cancelled one is taken out, and what was asked for since takes its place
    else:
        hand_in(conn, result(first))

    assert claim(conn).expected == [A, B]


@pytest.mark.parametrize(
    ("at", "until", "kept"),
    [
        (LATER, "null", [B]),
        ("now()", "null", [B]),
        (LATER, "now() + interval '1 hour'", [A]),
        ("now()", "now() + interval '1 hour'", [A, B]),
    ],
)
def test_a_file_that_turns_out_to_be_needed_keeps_the_guard_of_the_request_that_stays(conn, at, until, kept):
    conn.execute(f"""
        create function public.needed(text[], text[])
            returns table (storage text, path text, until timestamptz) language sql
            as $$ select 's', 'a', ({until})::timestamptz $$
    """)
    ask(conn, A)
    claim(conn)
    ask(conn, B, at=at)
    end_leases(conn)
    conn.execute("select lapse.register_file_source('test', 'public.needed')")

    assert exchange(conn).claimed == []

    assert row(conn, "a")["expected"] == kept
