"""lapse.exchange_files: claims, leases, results, the reference check; and what it must never wait for."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import psycopg
import pytest

from tests.support.cost import QUEUE, buffers, fill, scanned
from tests.support.queue import (
    end_backoff,
    end_leases,
    enqueue,
    exchange,
    hand_in,
    listening,
    nudges,
    outcomes,
    result,
    row,
)


def refused(conn: psycopg.Connection, call: str, values: list[str] | None = None) -> psycopg.Error:
    """The error that a call raises; fails the test when there is none."""
    with pytest.raises(psycopg.Error) as caught:
        conn.execute(call, values)
    return caught.value


def settings(conn: psycopg.Connection, **values: object) -> None:
    for name, value in values.items():
        conn.execute(f"update lapse.setting set {name} = %s", [value])


@pytest.fixture
def source(conn):
    """A file source over a table of references; ``app.ref`` is empty."""
    conn.execute("""
        create schema app;
        create table app.ref (storage text, path text, until timestamptz, gone_at timestamptz);
        create function app.needed(text[], text[]) returns table (storage text, path text, until timestamptz)
        language sql volatile set search_path = pg_catalog, pg_temp as $$
            select r.storage, r.path, r.until from app.ref as r
              join unnest($1, $2) as f (storage, path) on f.storage = r.storage and f.path = r.path
             where r.gone_at is null
        $$;
        create function app.gone(text[], text[], timestamptz[]) returns table (storage text, path text)
        language sql volatile set search_path = pg_catalog, pg_temp as $$
            with named as materialized (
                select r.ctid as at, r.storage, r.path
                  from app.ref as r
                  join unnest($1, $2) as f (storage, path) on f.storage = r.storage and f.path = r.path),
            free as materialized (
                select r.ctid as at from app.ref as r where r.ctid in (select n.at from named as n)
                   for update skip locked),
            told as (update app.ref as r set gone_at = now() from free as f where r.ctid = f.at returning 1)
            select n.storage, n.path from named as n where n.at not in (select f.at from free as f)
        $$;
        select lapse.register_file_source('app', 'app.needed', 'app.gone');
    """)


# Claims


def test_a_claim_gives_out_what_is_due_oldest_first_and_no_more_than_asked_for(conn):
    for n, at in enumerate(["now() - interval '1 s'", "now() - interval '3 s'", "now() - interval '2 s'"]):
        enqueue(conn, f"p{n}", at=at)
    enqueue(conn, "later", at="now() + interval '1 s'")

    assert [exchange(conn, limit=1).paths for _ in range(4)] == [["p1"], ["p2"], ["p0"], []]


def test_a_claim_counts_the_attempt_and_names_the_worker(conn):
    enqueue(conn, "a")

    claim = exchange(conn, worker="host:7:x", lease="90 s").claimed[0]

    held = row(conn, "a")
    assert (claim.storage, claim.path, claim.attempt) == ("s", "a", 1)
    assert (held["attempts"], held["leased_by"], held["lease_token"]) == (1, "host:7:x", claim.token)
    (left,) = conn.execute("select leased_until - clock_timestamp() from lapse.file_cleanup_queue").fetchone()
    assert timedelta(seconds=80) < left <= timedelta(seconds=90)


def test_a_row_that_is_held_is_given_to_nobody_else_until_its_lease_ends(conn):
    enqueue(conn, "a")
    first = exchange(conn).claimed[0]

    assert exchange(conn, worker="w2").paths == []
    end_leases(conn)
    second = exchange(conn, worker="w2").claimed[0]

    assert (second.id, second.attempt) == (first.id, 1)  # whatever became of the first worker
    assert second.token > first.token


def test_workers_at_once_never_get_the_same_file(conn, dsn):
    enqueue(conn, *(str(n) for n in range(600)))

    def drain(worker: str) -> list[str]:
        with psycopg.connect(dsn, autocommit=True) as own:
            paths: list[str] = []
            while answer := exchange(own, worker=worker, limit=7):
                paths += answer.paths
                if answer.wait:
                    return paths
            return paths

    with ThreadPoolExecutor() as pool:
        shares = [share.result(timeout=60) for share in [pool.submit(drain, f"w{n}") for n in range(4)]]

    assert sorted(path for share in shares for path in share) == sorted(str(n) for n in range(600))


def test_a_resume_point_skips_what_was_due_before(conn):
    enqueue(conn, "a", at="now() - interval '3 s'")
    enqueue(conn, "b", at="now() - interval '2 s'")
    first = exchange(conn, limit=1).claimed[0]
    hand_in(conn, result(first, "released"))

    assert exchange(conn, storages=["s"], limit=1, after=[(first.due, first.id)]).paths == ["b"]
    assert exchange(conn, limit=1).paths == ["a"]


def test_a_row_due_before_time_began_is_given_a_time_that_every_language_knows(conn):
    enqueue(conn, "a", at="'-infinity'")

    assert exchange(conn).claimed[0].due.year == 1970


# Results


@pytest.mark.parametrize("outcome", ["deleted", "missing"])
def test_a_finished_file_moves_to_the_log(conn, outcome):
    enqueue(conn, "a")
    claim = exchange(conn).claimed[0]

    hand_in(conn, result(claim, outcome, bytes=42), worker="w1")

    assert row(conn, "a") == {}
    logged = conn.execute(
        "select queue_id, storage, path, reason, source_table, source_id, outcome, bytes, worker, attempts"
        "  from lapse.file_cleanup_log"
    ).fetchall()
    assert logged == [(claim.id, "s", "a", "test", "t", "1", outcome, 42, "w1", 1)]


def test_a_failed_file_waits_twice_as_long_each_time_up_to_a_cap_and_not_all_alike(conn):
    settings(conn, backoff_base="8 s", backoff_cap="20 s")
    enqueue(conn, *(str(n) for n in range(30)))

    for longest in (8, 16, 20, 20):
        claims = exchange(conn).claimed
        assert len(claims) == 30
        hand_in(conn, *(result(claim, "failed", error="EBUSY") for claim in claims))
        waits = [row(conn, claim.path)["due_in"].total_seconds() for claim in claims]
        assert longest / 2 - 1 < min(waits) < max(waits) <= longest
        assert max(waits) - min(waits) > longest / 6
        end_backoff(conn)

    assert row(conn, "0")["last_error"] == "EBUSY"


def test_a_backoff_of_many_attempts_does_not_overflow(conn):
    (wait,) = conn.execute("select lapse.file_backoff(2147483647, '1 hour', '7 days', 1)").fetchone()

    assert wait == timedelta(days=7)


def test_a_file_is_dead_after_the_last_attempt_with_its_error(conn):
    settings(conn, max_attempts=3)
    enqueue(conn, "a")

    for attempt in (1, 2, 3):
        assert not row(conn, "a")["dead_at"]
        hand_in(conn, result(exchange(conn).claimed[0], "failed", error=f"try {attempt}"))
        end_backoff(conn)

    dead = row(conn, "a")
    assert dead["dead_at"]
    assert (dead["attempts"], dead["last_error"], dead["lease_token"]) == (3, "try 3", None)
    assert exchange(conn).paths == []


def test_a_file_whose_worker_dies_each_time_comes_to_an_end(conn):
    settings(conn, max_attempts=3)
    enqueue(conn, "a")

    for _ in range(4):
        assert exchange(conn, worker="w9").paths == ["a"]
        end_leases(conn)

    assert exchange(conn).paths == []
    dead = row(conn, "a")
    assert dead["dead_at"]
    assert "w9" in dead["last_error"]
    assert "attempt 3" in dead["last_error"]


def test_a_refused_file_is_dead_at_once_with_the_reason(conn):
    enqueue(conn, "../a")

    hand_in(conn, result(exchange(conn).claimed[0], "refused", error="leads out of the root"))

    assert row(conn, "../a")["dead_at"]
    assert row(conn, "../a")["last_error"] == "leads out of the root"


def test_a_released_file_burns_no_attempt_and_is_due_again_at_once(conn, dsn):
    enqueue(conn, "a")
    claim = exchange(conn).claimed[0]

    with listening(dsn) as ear:
        hand_in(conn, result(claim, "released"))
        assert nudges(conn, ear) == 1

    assert exchange(conn, worker="w2").claimed[0].attempt == 1


def test_results_and_the_next_claim_go_in_one_call(conn):
    enqueue(conn, "a", "b")
    first = exchange(conn, limit=1).claimed

    second = exchange(conn, [result(first[0])], limit=1).claimed

    assert {first[0].path, second[0].path} == {"a", "b"}
    assert len(outcomes(conn)) == 1


def test_results_of_a_lease_that_another_worker_has_taken_over_change_nothing(conn):
    enqueue(conn, "a")
    late = exchange(conn, worker="w1").claimed[0]
    end_leases(conn)
    exchange(conn, worker="w2")
    before = row(conn, "a")

    for outcome in ("deleted", "failed", "refused", "released"):
        answer = hand_in(conn, result(late, outcome))
        assert [(stale.id, stale.token) for stale in answer.stale] == [(late.id, late.token)]

    after = row(conn, "a")
    assert {**after, "due_in": None} == {**before, "due_in": None}
    assert outcomes(conn) == []


def test_a_result_counts_after_its_lease_ended_as_long_as_nobody_else_took_the_row(conn):
    enqueue(conn, "a")
    claim = exchange(conn).claimed[0]
    end_leases(conn)

    assert hand_in(conn, result(claim)).stale == []
    assert outcomes(conn) == [("a", "deleted")]


def test_a_result_handed_in_twice_counts_once(conn):
    enqueue(conn, "a")
    claim = exchange(conn).claimed[0]

    assert hand_in(conn, result(claim), result(claim, "failed")).stale == []
    assert len(hand_in(conn, result(claim)).stale) == 1
    assert outcomes(conn) == [("a", "deleted")]


def test_a_result_for_a_row_that_never_was_is_stale(conn):
    answer = hand_in(conn, {"id": 2**62, "token": -5, "outcome": "failed"})

    assert [stale.id for stale in answer.stale] == [2**62]


def test_a_very_long_error_is_cut(conn):
    enqueue(conn, "a")
    hand_in(conn, result(exchange(conn).claimed[0], "failed", error="x" * 100_000))

    assert len(row(conn, "a")["last_error"]) == 2000


# Waiting


def test_the_wait_ends_when_the_next_row_is_due(conn):
    enqueue(conn, "a", at="now() + interval '40 s'")
    enqueue(conn, "b", at="now() + interval '20 s'")

    assert 15 < exchange(conn).wait[0].wait_seconds <= 20


def test_the_wait_ends_when_the_first_lease_ends(conn):
    enqueue(conn, "a", "b")
    enqueue(conn, "c", at="now() + interval '1 hour'")
    exchange(conn, worker="w1", limit=1, lease="40 s")
    exchange(conn, worker="w1", limit=1, lease="20 s")

    assert 15 < exchange(conn, worker="w2").wait[0].wait_seconds <= 20


def test_nothing_pending_means_no_end_to_the_wait(conn):
    enqueue(conn, "a", at="'infinity'")

    assert exchange(conn).wait[0].wait_seconds is None


def test_no_wait_is_told_when_there_were_as_many_files_as_asked_for(conn):
    enqueue(conn, "a", "b")

    assert exchange(conn, limit=2).wait == []
    assert exchange(conn, limit=0).wait == []


def test_a_lease_without_end_is_not_waited_for(conn):
    """A hand wrote it; the other rows go on."""
    enqueue(conn, "a")
    conn.execute("update lapse.file_cleanup_queue set leased_until = 'infinity'")
    enqueue(conn, "b", at="clock_timestamp() + interval '10 s'")

    [wait] = exchange(conn).wait
    conn.execute("delete from lapse.file_cleanup_queue where path = 'b'")

    assert 9 < wait.wait_seconds < 10
    assert [row.wait_seconds for row in exchange(conn).wait] == [None]


def test_a_due_row_that_somebody_has_locked_is_looked_at_again_soon(conn, dsn):
    enqueue(conn, "a")

    with psycopg.connect(dsn) as application:
        enqueue(application, "a")
        answer = exchange(conn)

    assert answer.paths == []
    assert 0 < answer.wait[0].wait_seconds <= 1


# What it never waits for


def test_an_application_that_has_a_row_locked_stalls_neither_results_nor_claims(conn, dsn):
    enqueue(conn, "a")
    claim = exchange(conn).claimed[0]
    enqueue(conn, "b", "c")

    with psycopg.connect(dsn) as application:
        enqueue(application, "a", "b")
        conn.execute("set statement_timeout = '2s'")
        answer = exchange(conn, [result(claim)])
        assert answer.paths == ["c"]
        assert [left.id for left in answer.unsettled] == [claim.id]
        application.commit()

    # The second request came before the result, so it is still to be done.
    assert hand_in(conn, result(claim)).unsettled == []
    assert sorted(exchange(conn).paths) == ["a", "b"]


def test_a_reference_row_that_is_locked_leaves_the_result_unsettled(conn, dsn, source):
    conn.execute("insert into app.ref values ('s', 'a', 'epoch'), ('s', 'b', 'epoch')")
    enqueue(conn, "a", "b")
    claims = {claim.path: claim for claim in exchange(conn).claimed}

    with psycopg.connect(dsn) as application:
        application.execute("select from app.ref where path = 'a' for update")
        conn.execute("set statement_timeout = '2s'")
        answer = hand_in(conn, *(result(claim) for claim in claims.values()))
        assert [(left.id, left.note) for left in answer.unsettled] == [
            (claims["a"].id, "rows of file source app are locked")
        ]

    assert outcomes(conn) == [("b", "deleted")]
    assert hand_in(conn, result(claims["a"])).unsettled == []
    assert conn.execute("select count(*) from app.ref where gone_at is null").fetchone() == (0,)


def test_a_source_that_waits_for_a_lock_is_cut_off(conn, dsn, source):
    conn.execute("""
        create or replace function app.gone(text[], text[], timestamptz[])
            returns table (storage text, path text)
        language sql volatile as $$
            update app.ref as r set gone_at = now() where r.path = any ($2) returning null, null
        $$
    """)
    conn.execute("insert into app.ref values ('s', 'a', 'epoch')")
    enqueue(conn, "a")
    claim = exchange(conn).claimed[0]

    with psycopg.connect(dsn) as application:
        application.execute("select from app.ref for update")
        began = time.monotonic()
        answer = hand_in(conn, result(claim))
        assert time.monotonic() - began < 2

    assert len(answer.unsettled) == 1
    assert "app failed" in answer.unsettled[0].note
    assert outcomes(conn) == []


# The reference check


def test_a_file_that_a_row_still_needs_leaves_the_queue_undeleted(conn, source):
    enqueue(conn, "a", "b", "c")
    conn.execute("insert into app.ref values ('s', 'a', null), ('s', 'b', 'infinity'), ('other', 'c', null)")

    assert exchange(conn).paths == ["c"]
    assert sorted(outcomes(conn)) == [("a", "in_use"), ("b", "in_use")]
    assert row(conn, "a") == row(conn, "b") == {}


def test_a_file_that_is_needed_until_a_time_waits_until_then(conn, source):
    enqueue(conn, "a", "b")
    conn.execute(
        "insert into app.ref values ('s', 'a', now() + interval '2 days'), ('s', 'b', now() - interval '1 s')"
    )

    assert exchange(conn).paths == ["b"]
    waiting = row(conn, "a")
    assert waiting["due_in"].days == 1
    assert (waiting["attempts"], waiting["leased_until"], waiting["lease_token"]) == (0, None, None)


def test_a_source_that_needs_a_file_for_a_moment_again_and_again_keeps_no_worker_busy(conn, source):
    enqueue(conn, "a")
    conn.execute("insert into app.ref values ('s', 'a', clock_timestamp() + interval '100 ms')")

    answer = exchange(conn)

    assert answer.claimed == []
    assert 0.9 < answer.wait[0].wait_seconds < 2


def test_the_longest_need_holds(conn, source):
    enqueue(conn, "a")
    conn.execute("insert into app.ref values ('s', 'a', now() + interval '2 days'), ('s', 'a', null)")

    assert exchange(conn).paths == []
    assert outcomes(conn) == [("a", "in_use")]


def test_every_source_is_asked_and_told(conn, source):
    conn.execute("""
        create function app.other(text[], text[]) returns table (storage text, path text, until timestamptz)
        language sql as $$ select 's', 'b', null::timestamptz $$;
        select lapse.register_file_source('another', 'app.other');
    """)
    enqueue(conn, "a", "b", "c")
    conn.execute("insert into app.ref values ('s', 'a', null)")

    assert exchange(conn).paths == ["c"]
    notes = conn.execute("select path, note from lapse.file_cleanup_log order by path").fetchall()
    assert notes == [("a", "needed, says file source app"), ("b", "needed, says file source another")]


def test_a_batch_that_was_all_needed_is_followed_by_another_at_once(conn, source):
    enqueue(conn, "a", "b", "c")
    conn.execute("insert into app.ref select 's', p, null from unnest('{a,b,c}'::text[]) as p")

    assert exchange(conn, limit=2).wait[0].wait_seconds == 0


def test_a_needed_file_that_was_asked_for_again_waits_for_that_time(conn, source):
    enqueue(conn, "a")
    exchange(conn)
    enqueue(conn, "a", at="now() + interval '3 days'")
    end_leases(conn)
    conn.execute("insert into app.ref values ('s', 'a', null)")

    assert exchange(conn).paths == []
    assert row(conn, "a")["due_in"].days == 2
    assert row(conn, "a")["attempts"] == 0


def test_a_source_that_fails_counts_as_needed(conn, source):
    conn.execute("""
        create or replace function app.needed(text[], text[])
            returns table (storage text, path text, until timestamptz)
        language plpgsql as $$ begin raise exception 'out of order'; end $$
    """)
    enqueue(conn, "a", "b")

    answer = exchange(conn)

    assert answer.paths == []
    assert 20 < answer.wait[0].wait_seconds < 31
    assert row(conn, "a")["last_error"] == "file source app failed: out of order"
    assert (row(conn, "a")["attempts"], row(conn, "a")["lease_token"]) == (0, None)


def test_a_source_whose_rows_are_hidden_fails_loudly(conn, source, server):
    conn.execute("""
        alter table app.ref enable row level security;
        alter table app.ref force row level security;
        insert into app.ref values ('s', 'a', null);
    """)
    enqueue(conn, "a")
    # A superuser passes by row security, so the engine's functions are given to an ordinary role.
    role = "pglapse_" + conn.info.dbname[-8:]
    with psycopg.connect(server, autocommit=True) as admin:
        admin.execute(f"create role {role}")
        try:
            conn.execute(f"grant all on schema lapse, app to {role}")
            conn.execute(f"grant all on all tables in schema lapse, app to {role}")
            conn.execute(f"grant all on all sequences in schema lapse to {role}")
            conn.execute(f"grant all on all functions in schema lapse, app to {role}")
            conn.execute(
                "alter function lapse.exchange_files("
                "text, jsonb, text[], integer[], interval, timestamptz[], bigint[])"
                f" owner to {role}"
            )
            answer = exchange(conn)
        finally:
            conn.execute(f"reassign owned by {role} to current_user; drop owned by {role}")
            admin.execute(f"drop role {role}")

    assert answer.paths == []
    assert "row-level security" in row(conn, "a")["last_error"]


def test_a_reference_that_commits_before_the_claim_is_seen(conn, dsn, source):
    enqueue(conn, "a")

    with psycopg.connect(dsn) as worker:
        worker.execute("select 1")  # its transaction is older than the reference
        conn.execute("insert into app.ref values ('s', 'a', null)")
        assert exchange(worker).paths == []


def test_a_second_file_under_the_same_path_is_not_reported_gone_with_the_first(conn, source):
    enqueue(conn, "a")
    claim = exchange(conn).claimed[0]
    conn.execute("insert into app.ref values ('s', 'a', 'epoch')")
    enqueue(conn, "a")

    hand_in(conn, result(claim))
    assert conn.execute("select gone_at from app.ref").fetchone() == (None,)

    hand_in(conn, result(exchange(conn).claimed[0]))
    assert conn.execute("select gone_at from app.ref").fetchone() != (None,)


def test_a_source_is_told_when_each_file_was_taken(conn, source):
    conn.execute("""
        create table app.told (path text, claimed_at timestamptz);
        create or replace function app.gone(text[], text[], timestamptz[])
            returns table (storage text, path text)
        language sql volatile set search_path = pg_catalog, pg_temp as $$
            insert into app.told select p, t from unnest($2, $3) as f (p, t);
            select null, null where false
        $$;
    """)
    enqueue(conn, "a")
    enqueue(conn, "b")
    before = conn.execute("select clock_timestamp()").fetchone()[0]
    first = exchange(conn, limit=1).claimed[0]
    between = conn.execute("select clock_timestamp()").fetchone()[0]
    second = exchange(conn, limit=1).claimed[0]
    after = conn.execute("select clock_timestamp()").fetchone()[0]

    hand_in(conn, result(first), result(second))

    told = dict(conn.execute("select path, claimed_at from app.told").fetchall())
    assert before < told[first.path] < between < told[second.path] < after


@pytest.mark.parametrize("end", ["failed", "refused", "released", "needed", "deleted, but asked for again"])
def test_a_row_that_nobody_holds_has_no_lease(conn, source, end):
    enqueue(conn, "a")
    claim = exchange(conn).claimed[0]
    assert row(conn, "a")["leased_at"]

    if end == "needed":
        conn.execute("insert into app.ref values ('s', 'a', now() + interval '1 hour')")
        end_leases(conn)
        assert exchange(conn).claimed == []
    else:
        if "again" in end:
            enqueue(conn, "a")
        hand_in(conn, result(claim, end.split(",")[0]))

    free = row(conn, "a")
    assert [free[column] for column in ["leased_at", "leased_until", "leased_by", "lease_token"]] == [
        None
    ] * 4


# Sources


WRONG_SOURCES = [
    ("'x', 'app.nothing'", "LP001"),
    ("'x', 'needed'", "LP001"),
    ("'x', 'app.gone'", "LP001"),
    ("'x', 'app.needed', 'app.needed'", "LP001"),
    ("'x', 'app.needed', 'app.gone_untimed'", "LP001"),
    ("'x', null", "LP001"),
    ("'x', 'a b.c'", "LP001"),
    ("null, 'app.needed'", "LP001"),
    ("'X y', 'app.needed'", "LP001"),
    ("'app', 'app.needed'", "LP003"),
]


def test_a_source_with_wrong_arguments_is_refused(conn, source):
    conn.execute(
        "create function app.gone_untimed(text[], text[]) returns table (storage text, path text)"
        " language sql as $$ select null, null $$"
    )
    for arguments, code in WRONG_SOURCES:
        error = refused(conn, f"select lapse.register_file_source({arguments})")
        assert (error.sqlstate, bool(error.diag.message_hint)) == (code, True), arguments


def test_a_source_of_another_role_would_run_with_our_rights_and_is_refused(conn, source):
    conn.execute("alter function app.needed(text[], text[]) owner to pg_monitor")
    with pytest.raises(psycopg.Error) as caught:
        conn.execute("select lapse.register_file_source('x', 'app.needed')")
    assert caught.value.sqlstate == "LP010"

    conn.execute("alter function app.needed(text[], text[]) security definer")
    conn.execute("select lapse.register_file_source('x', 'app.needed')")


def test_a_source_that_was_unregistered_is_asked_no_more(conn, source):
    enqueue(conn, "a")
    conn.execute("insert into app.ref values ('s', 'a', null)")

    conn.execute("select lapse.unregister_file_source('app')")

    assert exchange(conn).paths == ["a"]
    with pytest.raises(psycopg.Error) as caught:
        conn.execute("select lapse.unregister_file_source('app')")
    assert caught.value.sqlstate == "LP002"


def test_a_source_with_a_name_that_needs_quotes_works(conn):
    conn.execute("""
        create schema "My App";
        create function "My App"."In use"(text[], text[])
            returns table (storage text, path text, until timestamptz)
        language sql as $$ select unnest($1), unnest($2), null::timestamptz $$;
        select lapse.register_file_source('mine', '"My App"."In use"');
    """)
    enqueue(conn, "a")

    assert exchange(conn).paths == []
    assert outcomes(conn) == [("a", "in_use")]


# Bad input

GOOD = {"id": 1, "token": 1, "outcome": "deleted"}


MALFORMED: list[object] = [
    {},
    "deleted",
    None,
    [1],
    [None],
    [[]],
    [{}],
    [{**GOOD, "id": "x"}],
    [{**GOOD, "id": 1.5}],
    [{**GOOD, "id": None}],
    [{**GOOD, "id": 2**64}],
    [{**GOOD, "token": {}}],
    [{**GOOD, "outcome": "exploded"}],
    [{**GOOD, "outcome": None}],
    [{**GOOD, "bytes": -1}],
    [{**GOOD, "bytes": "many"}],
    [GOOD, GOOD, {"id": 1}],
]


def test_malformed_results_are_refused_and_nothing_happens(conn):
    enqueue(conn, "a", "b")
    claim = exchange(conn, limit=1).claimed[0]

    for results in MALFORMED:
        handed = [result(claim), *results] if isinstance(results, list) else results
        error = refused(conn, "select lapse.exchange_files('w1', %s::jsonb)", [json.dumps(handed)])
        assert (error.sqlstate, bool(error.diag.message_hint)) == ("LP001", True), results
        assert outcomes(conn) == []
        assert row(conn, claim.path)["lease_token"] == claim.token


ABSURD = [
    "null",
    "''",
    "'w', null",
    "'w', '[]', '{a, null}'",
    "'w', '[]', '{a, b, a}'",
    "'w', '[]', '{{a}, {b}}'",
    "'w', '[]', '[0:1]={a, b}'",
    "'w', '[]', array(select n::text from generate_series(1, 1001) as n)",
    "'w', '[]', null, '{-1}'",
    "'w', '[]', null, '{10001}'",
    "'w', '[]', null, '{null}'",
    "'w', '[]', null, '{1, 2}'",
    "'w', '[]', '{}', '{1}'",
    "'w', '[]', '{a, b}', '{1}'",
    "'w', '[]', '{a}', '{1, 2}'",
    "'w', '[]', '{a, b}', '{1, -2147483648}'",
    "'w', '[]', '{a, b}', '[2:3]={1, 2}'",
    "'w', '[]', '{a}', '{1}', '0'",
    "'w', '[]', '{a}', '{1}', '-1 s'",
    "'w', '[]', '{a}', '{1}', '25 hours'",
    "'w', '[]', '{a}', '{1}', '1 month'",
    "'w', '[]', '{a}', '{1}', null",
    "'w', '[]', null, null, '60 s', '{now}', '{1}'",
    "'w', '[]', '{a}', null, '60 s', '{now}', null",
    "'w', '[]', '{a}', null, '60 s', null, '{1}'",
    "'w', '[]', '{a}', null, '60 s', '{now, now}', '{1, 2}'",
    "'w', '[]', '{a, b}', null, '60 s', '{now, now}', '{{1, 2}}'",
]


def test_absurd_arguments_are_refused(conn):
    for arguments in ABSURD:
        error = refused(conn, f"select lapse.exchange_files({arguments})")
        assert (error.sqlstate, bool(error.diag.message_hint)) == ("LP001", True), arguments


def test_an_isolation_level_that_would_miss_references_is_refused(conn):
    conn.execute("set default_transaction_isolation = 'repeatable read'")

    with pytest.raises(psycopg.Error, match="read committed") as caught:
        exchange(conn)

    assert caught.value.sqlstate == "LP012"


def test_a_null_resume_point_is_the_start(conn):
    enqueue(conn, "a")

    assert exchange(conn, storages=["s"], after=[(None, None)]).paths == ["a"]


# Cost


def test_claims_are_hot_updates(conn):
    enqueue(conn, *(f"tasks/{n}/photo-{n * 7919}.jpg" for n in range(3000)))

    with conn.transaction():
        for _ in range(3):
            assert len(exchange(conn, worker="worker-host-17.example:12345:9f2c", limit=1000).claimed) == 1000
        updated, hot = conn.execute(
            f"select pg_stat_get_xact_tuples_updated({QUEUE}), pg_stat_get_xact_tuples_hot_updated({QUEUE})"
        ).fetchone()

    assert updated == 3000
    assert hot / updated > 0.9


@pytest.mark.parametrize("analyzed", [False, True])
@pytest.mark.parametrize("mode", ["auto", "force_generic_plan"])
def test_rows_due_later_cost_a_claim_nothing(conn, mode, analyzed):
    conn.execute(f"set plan_cache_mode = {mode}")
    fill(conn, 100_000, "now() + interval '1 day' + n * interval '1 s'")
    if analyzed:
        conn.execute("vacuum analyze lapse.file_cleanup_queue")

    assert buffers(conn, "select * from lapse.exchange_files('w1')") < 60


def test_a_batch_from_a_long_queue_costs_what_the_batch_costs(conn):
    fill(conn, 100_000, "now() - interval '1 day' + n * interval '1 s'")
    conn.execute("vacuum analyze lapse.file_cleanup_queue")

    # Each file: an index entry, its lock, its update, and their pages; far below the table's 3,000 pages.
    assert buffers(conn, "select * from lapse.exchange_files('w1', p_limits => array[10])") < 300


def test_statistics_taken_while_a_large_transaction_fills_the_queue_slow_nobody_down(conn, dsn, source):
    """They say that the queue is empty; each row of it was then compared with each result."""
    rows, batch = 40_000, 1_000
    with psycopg.connect(dsn) as other:
        fill(other, rows, "now() - interval '1 day'")  # nothing later: all comes in order
        conn.execute("vacuum analyze lapse.file_cleanup_queue")
        other.commit()
    conn.execute("insert into app.ref select 's', 'later/' || n from generate_series(1001, 2000) n")
    conn.execute("set statement_timeout = '4 s'")  # a tenth of what it took

    claimed = exchange(conn, limit=batch).claimed
    answer = exchange(conn, [result(claim) for claim in claimed], limit=batch)
    others = exchange(conn, limit=batch).claimed
    hand_in(conn, *(result(claim, "failed", error="x") for claim in others))
    few = buffers(conn, "select lapse.cancel_files('{s, s}', '{later/5001, later/5002}')", before=0)
    ids = [id for (id,) in conn.execute("select id from lapse.file_cleanup_queue order by id desc limit 500")]
    conn.execute("select lapse.discard_files(%s, 'test')", [ids])
    conn.execute("update lapse.file_cleanup_queue set dead_at = now() where id = any(%s)", [[min(ids) - 1]])
    conn.execute("select lapse.retry_files()")

    assert (len(claimed), answer.claimed, len(others)) == (batch, [], batch)
    assert conn.execute(
        "select outcome, count(*) from lapse.file_cleanup_log group by 1 order by 1"
    ).fetchall() == [("cancelled", 2), ("deleted", batch), ("discarded", 500), ("in_use", batch)]
    assert conn.execute("select 1 from lapse.file_cleanup_queue where attempts = 1").rowcount == batch
    assert few < 100


def test_a_plan_made_for_an_empty_queue_does_not_read_a_full_one(conn, dsn):
    """A worker, and an application, connect long before the queue grows."""

    def work() -> None:
        conn.execute("select lapse.enqueue_file('s', 'a')")
        [claim] = exchange(conn, limit=1).claimed
        hand_in(conn, result(claim, "failed"))
        conn.execute("select lapse.cancel_file('s', 'a')")
        conn.execute("select lapse.discard_files(array[lapse.enqueue_file('s', 'b')], 'test')")

    conn.execute("vacuum analyze lapse.file_cleanup_queue")
    for _ in range(7):
        work()
    with psycopg.connect(dsn, autocommit=True) as other:
        fill(other, 50_000, "now() + interval '1 day'")
    before = scanned(conn)
    work()

    assert scanned(conn) - before < 100
