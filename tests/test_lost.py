"""Files whose worker never reported back: the one that kills workers is found, and the others are done."""

from math import ceil, log2

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.cost import buffers, fill
from tests.support.queue import (
    cancel,
    end_leases,
    enqueue,
    exchange,
    hand_in,
    outcomes,
    result,
    row,
)


def lose(conn: psycopg.Connection, *paths: str, storage: str = "s", **more) -> list:
    """Queue files, have a worker take them all in one batch, and lose the worker."""
    enqueue(conn, *paths, storage=storage)
    claims = exchange(conn, worker="lost", storages=[storage], **more).claimed
    assert sorted(claim.path for claim in claims) == sorted(paths)
    end_leases(conn)
    return claims


def test_what_was_lost_together_is_taken_again_in_halves_alone_and_without_burning_an_attempt(conn):
    lose(conn, *"abcdefgh")

    one = exchange(conn, worker="w1")
    other = exchange(conn, worker="w2")

    for half in (one, other):
        assert [(claim.attempt, claim.alone) for claim in half.claimed] == [(1, True)] * 4
        assert [wait.wait_seconds for wait in half.wait] == [0]
        assert half.next == []
    assert sorted(one.paths + other.paths) == list("abcdefgh")
    assert {row(conn, path)["lease_size"] for path in "abcdefgh"} == {4}


def test_a_half_that_is_lost_too_is_halved_again(conn):
    lose(conn, *"abcdefgh")
    sizes = []

    for _ in range(3):
        sizes.append(len(exchange(conn).claimed))
        end_leases(conn)

    assert sizes == [4, 2, 1]
    assert {row(conn, path)["attempts"] for path in "abcdefgh"} == {1}


def test_a_claim_of_lost_files_takes_nothing_else_of_any_storage(conn):
    enqueue(conn, "x", storage="a")
    enqueue(conn, "w", storage="d")
    lose(conn, *"abcd", storage="b")
    enqueue(conn, "y", "z", storage="b", at="now() - interval '1 hour'")

    answer = exchange(conn, storages=["a", "b", "c", "d"], limit=[500, 500, 0, 1])

    assert len(answer.claimed) == 2
    assert {claim.storage for claim in answer.claimed} == {"b"}
    assert set(answer.paths) <= set("abcd")
    assert all(claim.alone for claim in answer.claimed)
    assert [(wait.storage, wait.wait_seconds) for wait in answer.wait] == [("a", 0), ("b", 0), ("d", 0)]
    assert {row(conn, path)["attempts"] for path in "wxyz"} == {0}


def test_a_claim_of_lost_files_mixes_no_two_lost_batches(conn):
    lose(conn, *"abcdefgh")
    conn.execute("update lapse.file_cleanup_queue set lease_token = 1000 + id % 2, lease_size = 4")
    tokens = {path: row(conn, path)["lease_token"] for path in "abcdefgh"}

    batches = [exchange(conn) for _ in range(4)]

    assert [len(batch.claimed) for batch in batches] == [2, 2, 2, 2]
    assert [len({tokens[path] for path in batch.paths}) for batch in batches] == [1, 1, 1, 1]


def test_a_claim_of_lost_files_takes_no_more_than_asked_for(conn):
    lose(conn, *"abcdefgh")

    assert len(exchange(conn, limit=3).claimed) <= 3


def test_what_is_not_lost_is_not_alone(conn):
    enqueue(conn, "a", "b", "c")
    first = exchange(conn).claimed
    hand_in(
        conn,
        *(result(claim, how) for claim, how in zip(first, ["failed", "released", "released"], strict=True)),
    )

    second = exchange(conn).claimed

    assert len(second) == 2
    assert not any(claim.alone for claim in [*first, *second])


def test_a_file_lost_alone_for_the_third_time_is_dead_and_says_why(conn):
    lose(conn, "a", "b")
    seen = []

    for turn in range(10):
        answer = exchange(conn, worker=f"w{turn}")
        if not answer.claimed:
            break
        assert len(answer.claimed) == 1
        if answer.paths == ["a"]:
            hand_in(conn, result(answer.claimed[0]))
        else:
            seen.append((answer.claimed[0].attempt, row(conn, "b")["lost"], f"w{turn}"))
            end_leases(conn)

    # Lost once with company, which counts for nothing, and then three times with none.
    assert [(attempt, lost) for attempt, lost, _ in seen] == [(1, 0), (2, 1), (3, 2)]
    assert outcomes(conn) == [("a", "deleted")]
    dead = row(conn, "b")
    assert dead["dead_at"]
    assert dead["last_error"] == (
        f"worker {seen[-1][2]} took it for attempt 3 and never reported back: "
        "the 3. time that a worker is lost over this file alone"
    )
    assert [dead[column] for column in ("leased_at", "leased_until", "lease_token", "lease_size")] == [
        None
    ] * 4


def test_how_often_a_file_may_be_lost_alone_is_a_setting(conn):
    conn.execute("update lapse.setting set max_lost = 1")
    lose(conn, "a")
    assert exchange(conn).claimed[0].alone
    end_leases(conn)

    assert exchange(conn).claimed == []
    assert row(conn, "a")["dead_at"]


def test_a_file_that_was_the_only_one_of_a_batch_was_not_alone_in_its_worker_s_hands(conn):
    """There may have been a batch of another storage, or an earlier one."""
    conn.execute("update lapse.setting set max_lost = 1, max_attempts = 1")
    lose(conn, "a")

    answer = exchange(conn)

    assert [(claim.alone, claim.attempt) for claim in answer.claimed] == [(True, 1)]
    assert row(conn, "a")["lost"] == 0


@pytest.mark.parametrize("outcome", ["failed", "refused", "changed"])
def test_a_file_that_is_reported_is_under_no_suspicion_any_more(conn, outcome):
    lose(conn, "a")
    exchange(conn)
    end_leases(conn)
    claim = exchange(conn).claimed[0]
    assert row(conn, "a")["lost"] == 1

    hand_in(conn, result(claim, outcome))

    assert row(conn, "a").get("lost", 0) == 0


def test_a_file_that_is_given_back_untried_stays_under_suspicion(conn):
    lose(conn, "a")
    exchange(conn)
    end_leases(conn)

    hand_in(conn, result(exchange(conn).claimed[0], "released"))

    assert (row(conn, "a")["lost"], row(conn, "a")["attempts"]) == (1, 1)


@pytest.mark.parametrize("how", ["retry_files()", "enqueue_file('s', 'a')"])
def test_a_dead_file_that_is_revived_is_under_no_suspicion(conn, how):
    conn.execute("update lapse.setting set max_lost = 1")
    lose(conn, "a")
    exchange(conn)
    end_leases(conn)
    exchange(conn)
    assert row(conn, "a")["dead_at"]

    conn.execute(f"select lapse.{how}")

    assert (row(conn, "a")["lost"], row(conn, "a")["dead_at"]) == (0, None)
    assert exchange(conn).claimed[0].alone is False


def test_used_up_attempts_do_not_bury_what_was_lost_in_company(conn):
    conn.execute("update lapse.setting set max_attempts = 1")
    lose(conn, "a", "b", "c")

    one, two, three = (exchange(conn) for _ in range(3))

    assert sorted(one.paths + two.paths + three.paths) == ["a", "b", "c"]
    assert {claim.attempt for claim in [*one.claimed, *two.claimed, *three.claimed]} == {1}


def test_results_of_a_lost_worker_count_until_its_files_are_taken_again(conn):
    claims = lose(conn, *"abcd")
    again = exchange(conn).paths

    answer = hand_in(conn, *(result(claim) for claim in claims))

    assert sorted(claim.path for claim in claims if claim.id in {late.id for late in answer.stale}) == sorted(
        again
    )
    assert sorted(path for path, _ in outcomes(conn)) == sorted(set("abcd") - set(again))


def test_a_lost_file_that_was_cancelled_meanwhile_is_not_tried_again(conn):
    enqueue(conn, "a", "b")
    exchange(conn)
    assert cancel(conn, "a") is False
    end_leases(conn)

    assert exchange(conn).paths == ["b"]
    assert outcomes(conn) == [("a", "cancelled")]


def test_a_file_lost_alone_too_often_that_was_asked_for_again_starts_anew(conn):
    conn.execute("update lapse.setting set max_lost = 1")
    enqueue(conn, "a")
    exchange(conn)
    end_leases(conn)
    exchange(conn)
    enqueue(conn, "a", at="now() + interval '1 hour'")
    end_leases(conn)

    assert exchange(conn).claimed == []

    anew = row(conn, "a")
    assert (anew["dead_at"], anew["attempts"], anew["lost"], anew["lease_token"]) == (None, 0, 0, None)
    assert anew["due_in"].total_seconds() > 3500


def test_lost_files_before_a_long_queue_are_found_at_once(conn):
    fill(conn, 50_000, "now() - interval '1 day' + n * interval '1 ms'")
    conn.execute("vacuum analyze lapse.file_cleanup_queue")
    exchange(conn, limit=200)
    end_leases(conn)

    call = "select * from lapse.exchange_files('w', p_storages => '{s}', p_limits => '{200}')"
    assert (
        buffers(conn, call, before=0) < 3000
    )  # for 200 rows locked and 100 updated; the table has 1,500 pages
    (alone,) = conn.execute(
        "select count(*) from lapse.file_cleanup_queue where lease_size = 100"
    ).fetchone() or (0,)
    assert alone in range(60, 101)  # of the lost ones, 20 were taken from somewhere behind the front


@settings(
    max_examples=20, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.integers(1, 16).flatmap(lambda n: st.tuples(st.just(n), st.sets(st.integers(0, n - 1), max_size=3))),
    st.sampled_from([1, 2, 7, 500]),
    st.integers(1, 3),
)
def test_in_the_end_exactly_the_guilty_are_dead_and_all_others_done(conn, files, limit, max_lost):
    """A worker dies as soon as it has a guilty file in its hands, and reports everything else."""
    count, guilty = files
    conn.execute("delete from lapse.file_cleanup_queue; delete from lapse.file_cleanup_log")
    conn.execute("update lapse.setting set max_lost = %s, max_attempts = 2", [max_lost])
    conn.execute("set synchronous_commit = off")
    for n in range(count):
        enqueue(conn, f"{n}", storage="st"[n % 2], at=f"now() - interval '{n % 3} s'")

    # All batches, and for each guilty file: both batches lost with it down to itself by halves, each time
    # with the other half to be done, and then its deaths.
    batch = min(limit, ceil(count / 2))
    most = 2 * ceil(count / limit) + len(guilty) * (4 * ceil(log2(batch) + 1) + max_lost) + 2
    for _turn in range(most + 1):
        answer = exchange(conn, storages=["s", "t"], limit=limit)
        if not answer.claimed and all(wait.wait_seconds is None for wait in answer.wait):
            break
        if guilty.isdisjoint(int(path) for path in answer.paths):
            hand_in(conn, *(result(claim) for claim in answer.claimed))
        else:
            end_leases(conn)
    else:
        pytest.fail(f"no end after {most} claims")

    dead = conn.execute(
        "select path, lost, attempts from lapse.file_cleanup_queue where dead_at is not null"
    ).fetchall()
    done = conn.execute("select path, attempts from lapse.file_cleanup_log").fetchall()
    assert {int(path) for path, *_ in dead} == guilty
    assert sorted(int(path) for path, _ in done) == [n for n in range(count) if n not in guilty]
    assert {attempts for _, attempts in done} <= {1}
