"""What a claim takes: each storage by itself, most from the front of its queue, some from a random time."""

import psycopg
import pytest

from tests.support.cost import buffers, fill
from tests.support.queue import enqueue, exchange, hand_in, result

START = (None, None)


def taken(answer) -> list[tuple[str, str]]:
    return [(claim.storage, claim.path) for claim in answer.claimed]


def go_on(answer) -> dict[str, tuple]:
    return {point.storage: (point.due, point.id) for point in answer.next}


# Storages


def test_each_storage_is_claimed_by_itself_with_a_limit_of_its_own(conn):
    for storage in "abc":
        enqueue(conn, "1", "2", "3", storage=storage, at="now() - interval '1 s'")

    answer = exchange(conn, storages=["c", "a", "b"], limit=[1, 0, 5])

    assert [storage for storage, _ in taken(answer)] == ["c", "b", "b", "b"]
    assert [wait.storage for wait in answer.wait] == ["b"]
    assert {claim.storage: claim.token for claim in answer.claimed}.keys() == {"b", "c"}
    assert len({(claim.storage, claim.token) for claim in answer.claimed}) == 2


def test_without_names_each_storage_that_has_rows_is_asked(conn):
    enqueue(conn, "1", storage="a")
    enqueue(conn, "1", "2", "3", storage="b")
    enqueue(conn, "1", storage="c", at="now() + interval '1 hour'")
    enqueue(conn, "1", storage="d")
    conn.execute("update lapse.file_cleanup_queue set dead_at = now() where storage = 'd'")

    answer = exchange(conn, limit=2)

    assert [storage for storage, _ in taken(answer)] == ["a", "b", "b"]
    assert [wait.storage for wait in answer.wait] == ["a", "c"]


def test_without_names_and_without_rows_there_is_nothing_to_wait_for(conn):
    assert [(wait.storage, wait.wait_seconds) for wait in exchange(conn).wait] == [(None, None)]
    assert exchange(conn, limit=0).wait == []


def test_without_a_limit_five_hundred_of_each_are_taken(conn):
    fill(conn, 501, "now() - interval '1 s'")
    fill(conn, 3, "now() - interval '1 s'", "t")

    for call in ("'w'", "'w', '[]', '{s, t}'"):
        rows = conn.execute(
            f"select e.storage, count(*) from lapse.exchange_files({call}) as e"
            " where e.kind = 'claimed' group by 1 order by 1"
        ).fetchall()
        assert rows == [("s", 500), ("t", 3)]
        conn.execute("update lapse.file_cleanup_queue set leased_until = null, lease_token = null")


def test_a_storage_that_nobody_queued_for_is_a_short_answer(conn):
    enqueue(conn, "1", storage="a")

    answer = exchange(conn, storages=["nothing", "a", "Ä \n'\"{}", ""])

    assert taken(answer) == [("a", "1")]
    assert [wait.wait_seconds for wait in answer.wait if wait.storage != "a"] == [None] * 3


def test_each_storage_goes_on_from_a_point_of_its_own(conn):
    for n in range(6):
        enqueue(conn, f"{n}", storage="a", at=f"now() - interval '{100 - n} s'")
        enqueue(conn, f"{n}", storage="b", at=f"now() - interval '{100 - n} s'")
    first = exchange(conn, storages=["a", "b"], limit=1)
    points = go_on(first)
    hand_in(conn, *(result(claim, "released") for claim in first.claimed))

    second = exchange(conn, storages=["b", "a"], limit=1, after=[points["b"], START])

    assert taken(second) == [("b", "1"), ("a", "0")]


def test_rows_of_another_storage_cost_a_claim_nothing(conn):
    fill(conn, 100_000, "now() - interval '1 day' + n * interval '1 ms'", "b")
    enqueue(conn, "1", storage="a")
    conn.execute("vacuum analyze lapse.file_cleanup_queue")

    (plan,) = conn.execute(
        "explain (analyze, buffers, format json)"
        " select * from lapse.exchange_files('w', p_storages => '{a}') where kind = 'claimed'"
    ).fetchone()

    assert plan[0]["Plan"]["Actual Rows"] == 1
    assert buffers(conn, "select * from lapse.exchange_files('w', p_storages => '{a}')") < 60
    names = "select * from lapse.exchange_files('w', p_limits => '{0}')"
    assert buffers(conn, names) < 60  # to find out that there are two storages takes no look at each row


def test_the_wait_is_that_of_the_storage_itself(conn):
    enqueue(conn, "1", storage="a", at="now() + interval '20 s'")
    enqueue(conn, "1", storage="b", at="now() + interval '40 s'")

    waits = {wait.storage: wait.wait_seconds for wait in exchange(conn, storages=["b", "a", "c"]).wait}

    assert 15 < waits["a"] <= 20
    assert 35 < waits["b"] <= 40
    assert waits["c"] is None


# Where to go on


def test_going_on_where_the_last_claim_said_meets_every_row_once(conn):
    fill(conn, 1000, "now() - interval '1 hour' + n * interval '3 s'")
    point, ids, exchanges = START, [], 0

    while True:
        answer = exchange(conn, storages=["s"], limit=70, after=[point])
        exchanges += 1
        if not answer.claimed:
            break
        ids += [claim.id for claim in answer.claimed]
        point = go_on(answer).get("s", START)

    assert len(ids) == len(set(ids)) == 1000
    assert exchanges == 16  # 15 batches, the last one short, and one look that finds nothing


def test_a_claim_that_comes_back_short_has_looked_from_the_start(conn):
    """Rows given back, or queued with an earlier time, lie before the point where the search goes on."""
    fill(conn, 5, "now() - interval '1 hour' + n * interval '3 s'")
    first = exchange(conn, storages=["s"], limit=2)
    hand_in(conn, *(result(claim, "released") for claim in first.claimed))
    enqueue(conn, "early", at="'-infinity'")

    answer = exchange(conn, storages=["s"], after=[go_on(first)["s"]])

    assert len(answer.claimed) == 6
    assert answer.next == []
    assert answer.wait[0].wait_seconds > 50  # the lease of what was just taken


def test_a_claim_that_is_filled_up_from_the_start_goes_on_there(conn):
    fill(conn, 9, "now() - interval '1 hour' + n * interval '3 s'")
    last = conn.execute(
        "select not_before, id from lapse.file_cleanup_queue order by id offset 7 limit 1"
    ).fetchone()

    answer = exchange(conn, storages=["s"], limit=4, after=[last])

    assert [claim.path for claim in answer.claimed] == [f"later/{n}" for n in (1, 2, 3, 9)]
    (third,) = conn.execute("select id from lapse.file_cleanup_queue where path = 'later/3'").fetchone()
    assert go_on(answer)["s"][1] == third


def test_rows_due_before_1970_are_no_point_to_go_on_from(conn):
    enqueue(conn, "1", "2", at="'-infinity'")

    answer = exchange(conn, storages=["s"], limit=1)

    assert (len(answer.claimed), answer.next, answer.wait) == (1, [], [])


def test_nothing_that_is_not_due_yet_is_taken(conn):
    """Neither by the front nor by what begins at a random time, nor by what makes up for too few of those."""
    storages = [f"{n}" for n in range(20)]
    for storage in storages:
        fill(conn, 2, "clock_timestamp()", storage)
        enqueue(conn, "later", storage=storage, at="clock_timestamp() + interval '1 hour'")

    answer = exchange(conn, storages=storages, limit=3)

    assert sorted(set(answer.paths)) == ["later/1", "later/2"]
    assert len(answer.claimed) == 40


def test_where_to_go_on_is_the_end_of_what_was_taken_without_a_gap(conn):
    """What was taken beyond, from a random time on, is behind that point and will be stepped over."""
    fill(conn, 2000, "now() - interval '2 hours' + n * interval '3 s'")
    point, reached = START, 0

    for _ in range(12):
        answer = exchange(conn, storages=["s"], limit=100, after=[point])
        point = go_on(answer)["s"]
        taken_up_to, before = conn.execute(
            "select count(*) filter (where lease_token is not null), count(*)"
            "  from lapse.file_cleanup_queue where (not_before, id) <= (%s, %s)",
            point,
        ).fetchone()
        assert taken_up_to == before
        assert reached + 90 <= before
        reached = before


def test_a_claim_is_full_also_where_there_is_nothing_later_than_the_front(conn):
    fill(conn, 250, "now() - interval '1 minute'")

    assert [len(exchange(conn, limit=100).claimed) for _ in range(4)] == [100, 100, 50, 0]


# Fairness


@pytest.mark.parametrize("behind", ["1 minute", "1 s"])
def test_a_single_file_is_not_held_up_by_many_queued_before_it(conn, behind):
    """It takes half of the claims or more at a minute, a quarter or more at a second: never 150 of them."""
    fill(conn, 20_000, "clock_timestamp() - interval '70 s'")
    enqueue(conn, "single", at=f"clock_timestamp() - interval '70 s' + interval '{behind}'")
    point = START

    for _turn in range(150):
        answer = exchange(conn, storages=["s"], limit=100, after=[point])
        assert len(answer.claimed) == 100
        if "single" in answer.paths:
            break
        point = go_on(answer)["s"]
    else:
        pytest.fail("the single file was not taken before 15,000 others")


def test_the_oldest_get_nine_tenths_of_a_claim_and_all_of_it_when_there_are_no_more(conn):
    fill(conn, 1000, "now() - interval '1 hour' + n * interval '3 s'")

    numbers = sorted(int(path.removeprefix("later/")) for path in exchange(conn, limit=100).paths)
    assert numbers[:90] == list(range(1, 91))

    hand_in(conn)
    conn.execute("delete from lapse.file_cleanup_queue where id % 1000 > 150")
    conn.execute("update lapse.file_cleanup_queue set leased_until = null, lease_token = null")
    left = conn.execute("select count(*) from lapse.file_cleanup_queue").fetchone()[0]
    assert len(exchange(conn, limit=left).claimed) == left


def test_a_claim_of_one_is_the_oldest(conn):
    fill(conn, 50, "now() - interval '1 hour' + n * interval '3 s'")

    paths = [exchange(conn, limit=1).paths for _ in range(50)]

    assert paths == [[f"later/{n}"] for n in range(1, 51)]


# Odd rows


ODD = {
    "attempts = -5": ("claimed", 1),
    "attempts = -2147483648": ("claimed", 1),
    "attempts = 2147483647": ("dead", None),
    "lost = 2147483647": ("claimed", 1),
    "lost = -1": ("claimed", 1),
    "leased_until = now() - interval '1 year'": ("claimed", 1),
    "leased_until = '-infinity'": ("claimed", 1),
    "leased_until = 'infinity'": ("left", None),
    "lease_token = 7": ("alone", 1),
    "lease_token = 7, lease_size = 0": ("alone", 1),
    "lease_token = 7, lease_size = -2147483648": ("alone", 1),
    "lease_token = 7, lease_size = 2147483647": ("alone", 1),
    "lease_token = 7, lease_size = 1, lost = 2147483647": ("dead", None),
    "lease_token = 7, lease_size = 1, lost = -2147483648": ("alone", 1),
    "lease_token = 7, lease_size = 9, attempts = 2147483647": ("alone", 2147483647),
    "lease_token = 7, lease_size = 1, attempts = 2147483647": ("dead", None),
    "generation = 2147483647": ("claimed", 1),
    "generation = -7": ("claimed", 1),
    "cancelled_at = now()": ("gone", None),
    "again_at = now()": ("claimed", 1),
    "again_at = 'infinity'": ("claimed", 1),
    "leased_by = ''": ("claimed", 1),
    "enqueued_at = '-infinity'": ("claimed", 1),
}


def test_rows_with_odd_values_in_them_are_worked_off_like_any_others(conn):
    """A hand wrote them: whatever they are, no claim fails, and no request for the file either."""
    for change, (what, attempt) in ODD.items():
        conn.execute("delete from lapse.file_cleanup_queue")
        enqueue(conn, "odd")
        conn.execute(f"update lapse.file_cleanup_queue set {change}")

        answer = exchange(conn)
        enqueue(conn, "odd")
        conn.execute("select * from lapse.queue_status, lapse.queue_detail")

        expected = [] if attempt is None else [(attempt, what == "alone")]
        assert [(claim.attempt, claim.alone) for claim in answer.claimed] == expected, change
        if expected:
            assert hand_in(conn, result(answer.claimed[0])).stale == [], change
        elif what == "dead":  # and revived by the request
            assert exchange(conn).claimed[0].attempt == 1, change


def test_results_for_odd_rows_are_taken(conn):
    enqueue(conn, *"abcd")
    claims = {claim.path: claim for claim in exchange(conn).claimed}
    conn.execute("update lapse.file_cleanup_queue set attempts = -2147483648, lost = -1, lease_size = -1")

    answer = hand_in(
        conn,
        result(claims["a"], "failed"),
        result(claims["b"], "released"),
        result(claims["c"], "refused"),
        result(claims["d"], "changed"),
    )

    assert answer.stale == answer.unsettled == []


def test_a_storage_s_name_that_can_not_be_one_is_refused_where_it_is_queued(conn):
    for name in ("x" * 201, "ä" * 101):
        with pytest.raises(psycopg.Error, match="longer than 200 bytes") as caught:
            conn.execute("insert into lapse.file_cleanup_queue (storage, path) values (%s, 'a')", [name])
        assert (caught.value.sqlstate, bool(caught.value.diag.message_hint)) == ("LP001", True)
    enqueue(conn, "a", storage="x" * 200)
