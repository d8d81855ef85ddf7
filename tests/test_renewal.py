"""lapse.renew_files, and races for a row between renewing, claiming, cancelling and settling."""

from datetime import timedelta

import psycopg
import pytest

from tests.support.queue import cancel, end_leases, enqueue, exchange, hand_in, outcomes, result, row

RENEW = "select id, token, kind from lapse.renew_files('w1', %s::bigint[], %s::bigint[], %s::interval)"


def renew(conn: psycopg.Connection, *claims, lease: str = "60 s") -> list[tuple[int, int, str]]:
    ids, tokens = [claim.id for claim in claims], [claim.token for claim in claims]
    return conn.execute(RENEW, [ids, tokens, lease]).fetchall()


def left(conn: psycopg.Connection, path: str = "a") -> timedelta:
    (left,) = conn.execute(
        "select leased_until - clock_timestamp() from lapse.file_cleanup_queue where path = %s", [path]
    ).fetchone()
    return left


def test_a_lease_is_made_to_last_from_now(conn):
    enqueue(conn, "a", "b")
    claims = exchange(conn, lease="1 s").claimed

    assert renew(conn, *claims, lease="10 min") == []

    assert timedelta(minutes=9) < left(conn) <= timedelta(minutes=10)
    assert exchange(conn, worker="w2").claimed == []
    assert renew(conn, *claims, lease="1 s") == []
    assert left(conn) <= timedelta(seconds=1)
    assert row(conn, "a")["attempts"] == 1


def test_renewing_writes_nothing_else(conn):
    enqueue(conn, "a")
    claim = exchange(conn).claimed[0]
    before = row(conn, "a")

    renew(conn, claim, lease="10 min")

    after = row(conn, "a")
    assert {key for key in after if after[key] != before[key]} == {"leased_until", "due_in"}


def test_renewals_are_hot_updates(conn):
    enqueue(conn, *(f"{n}" for n in range(50)))
    claims = exchange(conn).claimed

    with conn.transaction():
        renew(conn, *claims)
        (hot,) = conn.execute(
            "select pg_stat_get_xact_tuples_hot_updated('lapse.file_cleanup_queue'::regclass)"
        ).fetchone()

    assert hot > 40


def test_what_is_not_ours_any_more_is_stale_and_left_as_it_is(conn):
    enqueue(conn, "a", "b")
    old = {claim.path: claim for claim in exchange(conn, lease="1 s").claimed}
    end_leases(conn)
    taken = exchange(conn, worker="w2").claimed[0]
    hand_in(conn, result(old["b" if taken.path == "a" else "a"]))
    before = row(conn, taken.path)["leased_until"]

    answer = renew(conn, *old.values(), lease="10 min")

    assert sorted(answer) == sorted((claim.id, claim.token, "stale") for claim in old.values())
    assert row(conn, taken.path)["leased_until"] == before


def test_a_lease_that_is_over_is_renewed_as_long_as_nobody_took_the_row(conn):
    enqueue(conn, "a")
    claim = exchange(conn).claimed[0]
    end_leases(conn)

    assert renew(conn, claim) == []
    assert exchange(conn, worker="w2").claimed == []


def test_unknown_rows_and_the_same_row_twice_do_no_harm(conn):
    enqueue(conn, "a")
    claim = exchange(conn).claimed[0]

    answer = conn.execute(
        RENEW, [[claim.id, claim.id, 2**62, claim.id], [claim.token, claim.token, 1, -5], "1 min"]
    ).fetchall()

    assert sorted(answer) == [(claim.id, -5, "stale"), (2**62, 1, "stale")]
    assert conn.execute(RENEW, [[], [], "1 min"]).fetchall() == []


WRONG = [
    "null, '{1}', '{1}', '1 min'",
    "'', '{1}', '{1}', '1 min'",
    "'w', null, '{1}', '1 min'",
    "'w', '{1}', null, '1 min'",
    "'w', '{1, 2}', '{1}', '1 min'",
    "'w', '{1, null}', '{1, 2}', '1 min'",
    "'w', '{1, 2}', '{null, 1}', '1 min'",
    "'w', '{{1}, {2}}', '{1, 2}', '1 min'",
    "'w', '{1}', '{1}', null",
    "'w', '{1}', '{1}', '0'",
    "'w', '{1}', '{1}', '-1 min'",
    "'w', '{1}', '{1}', '25 hours'",
]


def test_absurd_arguments_are_refused(conn):
    for arguments in WRONG:
        with pytest.raises(psycopg.Error) as caught:
            conn.execute(f"select lapse.renew_files({arguments})")
        assert (caught.value.sqlstate, bool(caught.value.diag.message_hint)) == ("LP001", True), arguments


def test_a_row_that_an_application_has_locked_is_told_apart_and_never_waited_for(conn, dsn):
    enqueue(conn, "a", "b")
    claims = {claim.path: claim for claim in exchange(conn, lease="1 s").claimed}

    with psycopg.connect(dsn) as application:
        enqueue(application, "a")
        conn.execute("set statement_timeout = '2 s'")
        answer = renew(conn, *claims.values())

    assert answer == [(claims["a"].id, claims["a"].token, "locked")]
    assert left(conn, "b") > timedelta(seconds=50)
    assert renew(conn, claims["a"]) == []


# Races, one step at a time, each side in a transaction that the other can't see the end of


def test_a_claim_passes_by_a_row_that_is_just_being_renewed(conn, dsn):
    enqueue(conn, "a", "b")
    claims = {claim.path: claim for claim in exchange(conn).claimed}
    end_leases(conn)

    with psycopg.connect(dsn) as slow:
        renew(slow, claims["a"])
        conn.execute("set statement_timeout = '2 s'")
        assert exchange(conn, worker="w2").paths == ["b"]

    assert exchange(conn, worker="w2").paths == []
    assert hand_in(conn, result(claims["a"])).stale == []


def test_a_renewal_that_comes_while_the_row_is_being_claimed_is_locked_and_then_stale(conn, dsn):
    enqueue(conn, "a")
    claim = exchange(conn).claimed[0]
    end_leases(conn)

    with psycopg.connect(dsn) as other:
        assert exchange(other, worker="w2").paths == ["a"]
        conn.execute("set statement_timeout = '2 s'")
        assert renew(conn, claim) == [(claim.id, claim.token, "locked")]

    assert renew(conn, claim) == [(claim.id, claim.token, "stale")]


def test_two_claims_of_one_lost_batch_share_it(conn, dsn):
    enqueue(conn, *"abcdef")
    exchange(conn)
    end_leases(conn)

    with psycopg.connect(dsn) as other:
        theirs = exchange(other, worker="w2")
        conn.execute("set statement_timeout = '2 s'")
        ours = exchange(conn, worker="w3")
        locked = exchange(conn, worker="w3")
        assert 0 < locked.wait[0].wait_seconds <= 1

    # The first has locked all that it saw, to choose from; what it left is free once it is through.
    assert (len(theirs.claimed), ours.claimed) == (3, [])
    rest = exchange(conn, worker="w3")
    assert sorted(theirs.paths + rest.paths) == list("abcdef")
    assert all(claim.alone for claim in [*theirs.claimed, *rest.claimed])


def test_a_cancel_that_comes_while_the_row_is_being_claimed_again_is_too_late_but_not_forgotten(conn, dsn):
    enqueue(conn, "a")
    exchange(conn)
    end_leases(conn)

    with psycopg.connect(dsn) as other:
        assert exchange(other, worker="w2").claimed[0].alone
        assert cancel(conn, "a") is False  # it waits 100 ms for the row, not longer
    assert cancel(conn, "a") is False
    end_leases(conn)

    assert exchange(conn, worker="w3").paths == []
    assert outcomes(conn) == [("a", "cancelled")]


def test_a_cancel_that_is_not_committed_yet_keeps_a_lost_row_from_being_claimed(conn, dsn):
    enqueue(conn, "a", "b", "c", "d")
    exchange(conn)
    end_leases(conn)

    with psycopg.connect(dsn) as application:
        assert cancel(application, "a") is True
        conn.execute("set statement_timeout = '2 s'")
        assert "a" not in exchange(conn, worker="w2").paths

    assert row(conn, "a") == {}
    assert ("a", "cancelled") in outcomes(conn)


def test_a_late_result_and_a_new_claim_of_the_same_row_never_both_count(conn, dsn):
    enqueue(conn, "a")
    late = exchange(conn).claimed[0]
    end_leases(conn)

    with psycopg.connect(dsn) as other:
        new = exchange(other, worker="w2").claimed[0]
        conn.execute("set statement_timeout = '2 s'")
        assert [open_.id for open_ in hand_in(conn, result(late)).unsettled] == [late.id]
    assert [open_.id for open_ in hand_in(conn, result(late)).stale] == [late.id]

    end_leases(conn)
    with psycopg.connect(dsn) as other:
        assert hand_in(other, result(new)).stale == []
        assert exchange(conn, worker="w3").paths == []
    assert outcomes(conn) == [("a", "deleted")]
