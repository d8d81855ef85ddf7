"""Statistics: always what counting would give, whoever changes what, and nobody waits for them."""

import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import timedelta
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from tests.support.market import (
    HOUR,
    add,
    add_task,
    add_user,
    column,
    due_now,
    emptied,
    now,
    raises,
    value,
    waiting,
)

NUMBERS = "tasks_posted, tasks_taken, tasks_completed, tasks_cancelled, reviews, rating_sum"
DRIFT = f"""
select count(distinct user_id) from (
    (select user_id, {NUMBERS} from market.user_statistics
     except select user_id, {NUMBERS} from market.user_statistics_recount)
    union all
    (select user_id, {NUMBERS} from market.user_statistics_recount
     except select user_id, {NUMBERS} from market.user_statistics)) as d
"""
FOLD = "select handled from market.fold_user_statistics(10000, now(), '-infinity')"
REFRESH = "select handled from market.refresh_expert_statistics(1000, now(), '-infinity')"
LOST = (psycopg.errors.DeadlockDetected, psycopg.errors.ForeignKeyViolation)  # what applications may meet
REPAIR = "select handled from market.repair_user_statistics(%s, now(), '-infinity')"


@pytest.fixture
def conn(shared: str) -> Iterator[psycopg.Connection]:
    """An autocommit connection to an empty marketplace."""
    with psycopg.connect(shared, autocommit=True, options="-c search_path=") as connection:
        yield emptied(connection)


@pytest.fixture
def other(conn: psycopg.Connection, shared: str) -> Iterator[psycopg.Connection]:
    """A second connection, with transactions that a test ends itself."""
    with psycopg.connect(shared) as connection:
        yield connection


def of(conn: psycopg.Connection, user: int) -> tuple[int, ...]:
    """A user's numbers; that they are what counting gives is seen to at the same time."""
    assert value(conn, DRIFT) == 0
    row = conn.execute(f"select {NUMBERS} from market.user_statistics where user_id = %s", [user]).fetchone()
    return row or (0, 0, 0, 0, 0, 0)


def add_review(conn: psycopg.Connection, subject: int, rating: int, task: int | None = None) -> int:
    author = add_user(conn)
    return add(
        conn,
        "reviews",
        task_id=task or add_task(conn, author),
        author_id=author,
        subject_id=subject,
        rating=rating,
    )


def add_expert(conn: psycopg.Connection) -> int:
    user = add_user(conn)
    conn.execute("insert into market.experts (user_id) values (%s)", [user])
    return user


def invite(conn: psycopg.Connection, expert: int, answer: timedelta | None = None) -> int:
    invited = now(conn)
    return add(
        conn,
        "expert_invitations",
        expert_id=expert,
        task_id=add_task(conn),
        invited_at=invited,
        responded_at=answer and invited + answer,
    )


def expert(conn: psycopg.Connection, user: int) -> tuple[Any, ...] | None:
    return conn.execute(
        "select median_response, response_rate, completion_rate, average_rating"
        "  from market.expert_statistics where user_id = %s",
        [user],
    ).fetchone()


# What counts


def test_tasks_count_for_who_posted_and_who_took_them(tx: psycopg.Connection) -> None:
    poster, taker, third = (add_user(tx) for _ in range(3))
    task = add_task(tx, poster)
    lapsing = add_task(tx, poster, deadline=now(tx))
    assert of(tx, poster) == (2, 0, 0, 0, 0, 0)

    tx.execute("update market.tasks set taker_id = %s, status = 'taken' where id = %s", [taker, task])
    assert (of(tx, poster), of(tx, taker)) == ((2, 0, 0, 0, 0, 0), (0, 1, 0, 0, 0, 0))
    tx.execute("select market.complete_task(%s)", [task])
    assert (of(tx, poster), of(tx, taker)) == ((2, 0, 0, 0, 0, 0), (0, 1, 1, 0, 0, 0))
    tx.execute("select market.reopen_task(%s)", [task])
    assert of(tx, taker) == (0, 1, 0, 0, 0, 0)
    tx.execute("select market.cancel_expired_tasks(10, now(), '-infinity')")
    assert of(tx, poster) == (2, 0, 0, 1, 0, 0)
    tx.execute("update market.tasks set poster_id = %s", [third])
    assert (of(tx, poster), of(tx, third)) == ((0, 0, 0, 0, 0, 0), (2, 0, 0, 1, 0, 0))
    tx.execute("update market.tasks set taker_id = %s, status = 'completed'", [third])
    assert (of(tx, taker), of(tx, third)) == ((0, 0, 0, 0, 0, 0), (2, 2, 2, 0, 0, 0))
    tx.execute("update market.tasks set taker_id = null where id = %s", [task])
    assert of(tx, third) == (2, 1, 1, 0, 0, 0)
    tx.execute("delete from market.tasks where id = %s", [lapsing])
    assert of(tx, third) == (1, 0, 0, 0, 0, 0)


def test_reviews_count_for_who_is_rated(tx: psycopg.Connection) -> None:
    me, they = add_user(tx), add_user(tx)
    review = add_review(tx, me, 4)
    add_review(tx, me, 1)
    assert of(tx, me) == (0, 0, 0, 0, 2, 5)

    tx.execute("update market.reviews set rating = 5 where id = %s", [review])
    assert of(tx, me) == (0, 0, 0, 0, 2, 6)
    tx.execute("update market.reviews set subject_id = %s where id = %s", [they, review])
    assert (of(tx, me), of(tx, they)) == ((0, 0, 0, 0, 1, 1), (0, 0, 0, 0, 1, 5))
    tx.execute("delete from market.reviews where id = %s", [review])
    assert of(tx, they) == (0, 0, 0, 0, 0, 0)
    assert value(tx, "select count(*) from market.user_statistics where user_id = %s", they) == 0


def test_who_leaves_takes_along_what_belongs_to_them(tx: psycopg.Connection) -> None:
    leaves, poster, taker = (add_user(tx) for _ in range(3))
    add_task(tx, leaves, taker_id=taker, status="completed")
    mine = add_task(tx, poster, taker_id=leaves, status="completed")
    add_review(tx, leaves, 5, mine)
    add(tx, "reviews", task_id=mine, author_id=leaves, subject_id=poster, rating=3)
    assert of(tx, poster) == (1, 0, 0, 0, 1, 3)
    tx.execute(FOLD)

    tx.execute("delete from market.users where id = %s", [leaves])

    assert (of(tx, leaves), of(tx, taker)) == ((0, 0, 0, 0, 0, 0),) * 2
    assert of(tx, poster) == (1, 0, 0, 0, 0, 0)
    tx.execute(FOLD)
    assert value(tx, "select count(*) from market.user_statistics_folded where user_id = %s", leaves) == 0


@pytest.mark.parametrize("table", ["tasks", "reviews"])
def test_truncate_takes_off_what_all_rows_counted(tx: psycopg.Connection, table: str) -> None:
    user = add_user(tx)
    add_task(tx, user, taker_id=add_user(tx), status="completed")
    add_review(tx, user, 4)
    tx.execute(FOLD)
    add_task(tx, user, status="cancelled")
    add_review(tx, user, 5)

    tx.execute(f"truncate market.{table} cascade")

    assert of(tx, user) == ((2, 0, 0, 1, 0, 0) if table == "reviews" else (0, 0, 0, 0, 0, 0))


def test_merge_upsert_and_copy_count_too(tx: psycopg.Connection) -> None:
    user, other = add_user(tx), add_user(tx)
    gone, changed = add_task(tx, user), add_task(tx, user)

    tx.execute(
        "merge into market.tasks as t"
        " using (values (%s, 1), (%s, 2), (null, 3)) as n (id, what) on t.id = n.id"
        " when matched and n.what = 1 then delete"
        " when matched then update set status = 'cancelled'"
        " when not matched then insert (poster_id, title) values (%s, 'x')",
        [gone, changed, other],
    )
    with tx.cursor().copy("copy market.tasks (poster_id, title, status) from stdin") as copy:
        for _ in range(3):
            copy.write_row((user, "x", "cancelled"))
    tx.execute(
        "insert into market.tasks (id, poster_id, title) overriding system value values (%s, %s, 'x')"
        " on conflict (id) do update set poster_id = excluded.poster_id",
        [changed, other],
    )

    assert (of(tx, user), of(tx, other)) == ((3, 0, 0, 3, 0, 0), (2, 0, 0, 1, 0, 0))


def test_what_counts_nothing_writes_nothing(tx: psycopg.Connection) -> None:
    user = add_user(tx)
    task, review = add_task(tx, user), add_review(tx, user, 3)
    before = value(tx, "select count(*) from market.user_statistics_deltas")

    tx.execute("update market.tasks set title = 'y', deadline = now() where id = %s", [task])
    tx.execute("update market.reviews set created_at = now(), author_id = author_id where id = %s", [review])
    tx.execute("delete from market.tasks where false")

    assert value(tx, "select count(*) from market.user_statistics_deltas") == before


def test_a_statement_over_many_tasks_adds_one_row_a_user(tx: psycopg.Connection) -> None:
    user = add_user(tx)
    add_task(tx, user)  # the session's plans are made with one row
    tx.execute("update market.tasks set status = 'cancelled'")
    tx.execute("delete from market.tasks")

    tx.execute(
        f"insert into market.tasks (poster_id, title) select {user}, 'x' from generate_series(1, 20000) as g"
    )
    tx.execute("update market.tasks set status = 'cancelled'")
    assert of(tx, user) == (20000, 0, 0, 20000, 0, 0)
    tx.execute("delete from market.tasks")

    assert of(tx, user) == (0, 0, 0, 0, 0, 0)
    assert value(tx, "select count(*) from market.user_statistics_deltas") == 6


# Nobody waits


def test_two_who_change_tasks_of_one_user_do_not_wait_for_each_other(
    conn: psycopg.Connection, other: psycopg.Connection
) -> None:
    user = add_user(conn)
    tasks = [add_task(conn, user) for _ in range(2)]
    conn.execute(FOLD)
    conn.execute("set lock_timeout = '5 s'")

    other.execute("update market.tasks set status = 'cancelled' where id = %s", [tasks[0]])
    conn.execute("update market.tasks set status = 'cancelled' where id = %s", [tasks[1]])
    assert value(conn, FOLD) == 1, "folding does not wait either"
    assert of(conn, user) == (2, 0, 0, 1, 0, 0)
    other.commit()

    assert of(conn, user) == (2, 0, 0, 2, 0, 0)


def test_a_change_and_what_it_adds_are_seen_together(
    conn: psycopg.Connection, other: psycopg.Connection
) -> None:
    user = add_user(conn)

    add_task(other, user)
    assert (of(conn, user)[0], of(other, user)[0]) == (0, 1)
    other.rollback()
    assert of(conn, user)[0] == 0


def test_only_one_folds_at_a_time_and_the_other_does_not_wait(
    conn: psycopg.Connection, other: psycopg.Connection
) -> None:
    user = add_user(conn)
    add_task(conn, user)
    assert value(other, FOLD) == 1
    add_task(conn, user)
    conn.execute("set lock_timeout = '5 s'")

    assert value(conn, FOLD) == 0
    assert of(conn, user) == (2, 0, 0, 0, 0, 0)
    other.commit()

    assert value(conn, FOLD) == 1
    assert of(conn, user) == (2, 0, 0, 0, 0, 0)


def change(conn: psycopg.Connection, rng: random.Random, users: list[int]) -> None:
    """Change something that counts, at random."""
    pick = "(select id from market.{} order by random() limit 1)".format
    changes: list[Callable[[], Any]] = [
        lambda: add_task(conn, rng.choice(users), taker_id=rng.choice([None, *users])),
        lambda: conn.execute(
            "update market.tasks set status = %s where mod(id, 3) = %s",
            [rng.choice(["open", "taken", "completed", "cancelled"]), rng.randrange(3)],
        ),
        lambda: conn.execute(
            f"update market.tasks set taker_id = %s, poster_id = %s where id = {pick('tasks')}",
            [rng.choice([None, *users]), rng.choice(users)],
        ),
        lambda: conn.execute(f"delete from market.tasks where id = {pick('tasks')}"),
        lambda: conn.execute(
            "insert into market.reviews (task_id, author_id, subject_id, rating)"
            " select id, %s, %s, %s from market.tasks order by random() limit 2",
            [*rng.sample(users, 2), rng.randint(1, 5)],
        ),
        lambda: conn.execute(
            f"update market.reviews set rating = %s where id = {pick('reviews')}", [rng.randint(1, 5)]
        ),
        lambda: conn.execute(f"delete from market.reviews where id = {pick('reviews')}"),
    ]
    rng.choice(changes)()


def test_at_every_moment_of_a_storm_the_statistics_are_what_counting_gives(
    conn: psycopg.Connection, shared: str
) -> None:
    users = [add_user(conn) for _ in range(3)]

    def storm(seed: int) -> None:
        rng = random.Random(seed)
        with psycopg.connect(shared, options="-c search_path=") as own:
            for _ in range(40):
                with suppress(*LOST), own.transaction():
                    for _ in range(rng.randint(1, 3)):
                        change(own, rng, users)

    def sweep(query: str, *arguments: Any) -> int:
        with psycopg.connect(shared, autocommit=True, options="-c search_path=") as own:
            return sum(value(own, query, *arguments) for _ in range(60))

    with ThreadPoolExecutor(6) as pool:
        storms = [pool.submit(storm, seed) for seed in range(3)]
        folded = pool.submit(sweep, "select handled from market.fold_user_statistics(7, now(), '-infinity')")
        mended = pool.submit(sweep, REPAIR, 1000)
        drift = pool.submit(sweep, DRIFT)
        for run in storms:
            run.result(60)

    assert (drift.result(60), mended.result(60)) == (0, 0)
    assert folded.result(60) > 0
    assert value(conn, DRIFT) == 0


class Statistics(RuleBasedStateMachine):
    """Three connections that change things at random; whatever each can see adds up at every moment."""

    dsn = ""
    conns = st.integers(0, 2)
    who = st.integers(0, 2)

    def __init__(self) -> None:
        super().__init__()
        self.concerned: set[int] = set()
        self.open = [
            psycopg.connect(self.dsn, options="-c search_path= -c lock_timeout=10ms") for _ in range(3)
        ]
        with psycopg.connect(self.dsn, autocommit=True, options="-c search_path=") as first:
            first.execute("delete from market.users")
            self.users = [add_user(first) for _ in range(3)]
            self.tasks = [add_task(first, user) for user in self.users]

    def teardown(self) -> None:
        for conn in self.open:
            conn.close()

    @contextmanager
    def on(self, number: int) -> Iterator[psycopg.Connection]:
        """A connection, within its open transaction; what would have to wait doesn't happen."""
        self.concerned = {number}
        with suppress(psycopg.errors.LockNotAvailable), self.open[number].transaction():
            yield self.open[number]

    @rule(
        number=conns, user=who, taker=st.none() | who, status=st.sampled_from(["open", "taken", "completed"])
    )
    def post(self, number: int, user: int, taker: int | None, status: str) -> None:
        with self.on(number) as conn:
            add_task(
                conn, self.users[user], status=status, taker_id=None if taker is None else self.users[taker]
            )

    @rule(number=conns, status=st.sampled_from(["open", "taken", "completed", "cancelled"]), part=who)
    def end(self, number: int, status: str, part: int) -> None:
        with self.on(number) as conn:
            conn.execute("update market.tasks set status = %s where mod(id, 3) = %s", [status, part])

    @rule(number=conns, poster=who, taker=who, part=who)
    def hand_over(self, number: int, poster: int, taker: int, part: int) -> None:
        with self.on(number) as conn:
            conn.execute(
                "update market.tasks set poster_id = %s, taker_id = %s where mod(id, 3) = %s",
                [self.users[poster], self.users[taker], part],
            )

    @rule(number=conns, subject=who, rating=st.integers(1, 5))
    def review(self, number: int, subject: int, rating: int) -> None:
        with self.on(number) as conn:
            conn.execute(
                "insert into market.reviews (task_id, author_id, subject_id, rating)"
                " select id, %s, %s, %s from market.tasks limit 2",
                [self.users[subject - 1], self.users[subject], rating],
            )

    @rule(number=conns, subject=who, rating=st.integers(1, 5))
    def review_again(self, number: int, subject: int, rating: int) -> None:
        with self.on(number) as conn:
            conn.execute(
                "update market.reviews set rating = %s, subject_id = %s, author_id = %s where mod(id, 2) = 0",
                [rating, self.users[subject], self.users[subject - 1]],
            )

    @rule(number=conns, table=st.sampled_from(["tasks", "reviews"]), part=who)
    def delete(self, number: int, table: str, part: int) -> None:
        with self.on(number) as conn:
            conn.execute(f"delete from market.{table} where mod(id, 3) = %s", [part])

    @rule(number=conns, table=st.sampled_from(["tasks", "reviews"]))
    def truncate(self, number: int, table: str) -> None:
        with self.on(number) as conn:
            conn.execute(f"truncate market.{table} cascade")

    @rule(number=conns, limit=st.sampled_from([1, 100]))
    def fold(self, number: int, limit: int) -> None:
        with self.on(number) as conn:
            conn.execute("select market.fold_user_statistics(%s, now(), '-infinity')", [limit])

    @rule(number=conns)
    def repair(self, number: int) -> None:
        with self.on(number) as conn:
            assert value(conn, REPAIR, 100) == 0

    @rule(number=conns, keep=st.booleans())
    def finish(self, number: int, keep: bool) -> None:
        self.concerned = {0, 1, 2}
        if keep:
            self.open[number].commit()
        else:
            self.open[number].rollback()

    @invariant()
    def all_add_up(self) -> None:
        for number in list(self.concerned):
            with self.on(number) as conn:
                assert value(conn, DRIFT) == 0
        self.concerned = set()


def test_any_sequence_of_changes_by_several_connections_adds_up(shared: str) -> None:
    run_state_machine_as_test(
        type("Statistics", (Statistics,), {"dsn": shared}),
        settings=settings(
            max_examples=15,
            stateful_step_count=18,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )


# Folding and repairing


def test_folding_changes_nothing_but_the_cost_of_reading(tx: psycopg.Connection) -> None:
    user, other = add_user(tx), add_user(tx)
    for _ in range(5):
        add_task(tx, user, taker_id=other, status="completed")
    add_review(tx, user, 2)
    before = tx.execute("select * from market.user_statistics order by 1").fetchall()

    assert value(tx, "select picked from market.fold_user_statistics(3, now(), '-infinity')") == 3
    assert tx.execute("select * from market.user_statistics order by 1").fetchall() == before
    tx.execute(FOLD)

    assert tx.execute("select * from market.user_statistics order by 1").fetchall() == before
    assert value(tx, "select count(*) from market.user_statistics_deltas") == 0
    assert value(tx, "select count(*) from market.user_statistics_folded") == len(before)


def test_the_policies_of_the_statistics_run_by_the_schedule(conn: psycopg.Connection) -> None:
    cadences = conn.execute(
        "select name, every, at_time::text, time_zone, enabled from lapse.policy"
        " where name ~ '_statistics$' order by name"
    ).fetchall()
    assert cadences == [
        ("fold_user_statistics", timedelta(minutes=1), None, "UTC", True),
        ("refresh_expert_statistics", timedelta(days=1), "04:00:00", "UTC", True),
        ("repair_user_statistics", timedelta(days=1), "03:30:00", "UTC", True),
    ]

    user = add_expert(conn)
    add_task(conn, user)
    conn.execute("update market.user_statistics_folded set reviews = 7")
    with conn.transaction():
        conn.execute("alter table market.tasks disable trigger count_tasks_insert")
        add_task(conn, user)
        conn.execute("alter table market.tasks enable trigger count_tasks_insert")

    for name, *_ in reversed(cadences):
        due_now(conn, name)
        conn.execute("call lapse.run_due()")

    assert conn.execute("select policy, status, handled from lapse.run_log order by id").fetchall() == [
        ("repair_user_statistics", "ok", 1),
        ("refresh_expert_statistics", "ok", 2),
    ]
    assert of(conn, user) == (2, 0, 0, 0, 0, 0)


def test_a_change_of_the_statistics_due_later_or_set_aside_or_locked_is_left_out(
    conn: psycopg.Connection, other: psycopg.Connection
) -> None:
    ids = [
        value(
            conn,
            "insert into market.user_statistics_deltas (user_id, reviews, changed_at)"
            " values (%s, 1, now() + %s) returning id",
            number,
            age,
        )
        for number, age in enumerate([-HOUR, -HOUR, -HOUR, timedelta(0), HOUR])
    ]
    conn.execute(
        "insert into lapse.blocked_row (policy, key, error, run_id, retry_at)"
        " values ('fold_user_statistics', %s, 'x', 1, now() + interval '1 hour')",
        [str(ids[1])],
    )
    other.execute("select from market.user_statistics_deltas where id = %s for update", [ids[2]])
    conn.execute("set lock_timeout = '5 s'")
    cutoff = value(conn, "select changed_at from market.user_statistics_deltas where id = %s", ids[3])
    due = {
        key for (key,) in conn.execute("select key from lapse.due_keys('fold_user_statistics', %s)", [cutoff])
    }

    answer = conn.execute(
        "select * from market.fold_user_statistics(10, %s, '-infinity')", [cutoff]
    ).fetchone()

    assert answer == (2, 2, cutoff)
    assert due == {str(ids[place]) for place in [0, 2, 3]}
    left = column(conn, "select id from market.user_statistics_deltas order by id")
    assert left == [ids[1], ids[2], ids[4]]


def test_drift_is_found_repaired_and_counted(conn: psycopg.Connection) -> None:
    users = [add_user(conn) for _ in range(6)]
    for user in users:
        add_task(conn, user, taker_id=users[0], status="completed")
        add_review(conn, user, 3)
    value(conn, FOLD)
    conn.execute("call lapse.run('repair_user_statistics')")
    assert value(conn, "select count(*) from lapse.run_log") == 0, "nothing to repair leaves no entry"

    conn.execute("update market.user_statistics_folded set tasks_posted = 99 where user_id = %s", [users[1]])
    conn.execute("delete from market.user_statistics_folded where user_id = %s", [users[2]])
    conn.execute("insert into market.user_statistics_deltas (user_id, rating_sum) values (%s, 5)", [users[3]])
    conn.execute("insert into market.user_statistics_folded (user_id, reviews) values (-7, 1)")
    conn.execute("insert into market.user_statistics_folded (user_id, reviews) values (1000000007, 1)")
    with conn.transaction():
        conn.execute("set local session_replication_role = replica")
        conn.execute("delete from market.reviews where subject_id = %s", [users[4]])
    assert value(conn, DRIFT) == 6

    conn.execute("call lapse.run('repair_user_statistics')")

    assert value(conn, DRIFT) == 0
    assert column(conn, "select handled from lapse.run_log") == [6]
    assert value(conn, REPAIR, 1000) == 0


def test_a_repair_goes_on_where_it_stopped(tx: psycopg.Connection) -> None:
    first = add_user(tx)
    tx.execute(
        "insert into market.users (email, display_name)"
        " select 'm' || g, 'x' from generate_series(1, 2500) as g"
    )
    tx.execute("insert into market.user_statistics_folded (user_id, reviews) select id, 1 from market.users")
    tx.execute(
        "create or replace function lapse.statement_time_left() returns interval"
        " language sql as $$ select interval '0' $$"
    )

    assert [value(tx, REPAIR, limit) for limit in [3, 700, 10000, 10000, 10000]] == [3, 700, 1000, 798, 0]

    assert value(tx, DRIFT) == 0
    tx.execute("update market.user_statistics_folded set reviews = 5 where user_id = %s", [first])
    assert [value(tx, REPAIR, 10) for _ in range(3)] == [0, 0, 1], "the pass ends, and the next one begins"


def test_what_is_not_committed_is_no_drift(conn: psycopg.Connection, other: psycopg.Connection) -> None:
    user = add_user(conn)
    add_task(other, user)

    assert value(conn, REPAIR, 10) == 0
    assert value(other, REPAIR, 10) == 0
    assert value(conn, REPAIR, 10) == 0, "two passes at once: the second leaves it to the first"
    other.commit()

    assert of(conn, user) == (1, 0, 0, 0, 0, 0)


# Experts


def test_an_experts_numbers(tx: psycopg.Connection) -> None:
    user, idle = add_expert(tx), add_expert(tx)
    for answer in [timedelta(minutes=10), timedelta(minutes=30), timedelta(days=9), None]:
        invite(tx, user, answer)
    for status in ["completed", "completed", "taken", "cancelled"]:
        add_task(tx, taker_id=user, status=status)
    for rating in [5, 4]:
        add_review(tx, user, rating)

    tx.execute(REFRESH)

    assert expert(tx, user) == (timedelta(minutes=30), Decimal("0.75"), Decimal("0.5"), Decimal("4.5"))
    assert expert(tx, idle) == (None, None, None, None)


def test_only_experts_of_whom_something_changed_are_worked_out_anew(conn: psycopg.Connection) -> None:
    changes: dict[str, Callable[[int], Any]] = {
        "invited": lambda user: invite(conn, user),
        "answered": lambda user: conn.execute(
            "update market.expert_invitations set responded_at = now() where expert_id = %s", [user]
        ),
        "invitation moved": lambda user: conn.execute(
            "update market.expert_invitations set expert_id = %s where expert_id = %s",
            [experts["idle"], user],
        ),
        "invitation gone": lambda user: conn.execute(
            "delete from market.expert_invitations where expert_id = %s", [user]
        ),
        "task completed": lambda user: conn.execute(
            "update market.tasks set status = 'completed' where taker_id = %s", [user]
        ),
        "reviewed": lambda user: add_review(conn, user, 2),
    }
    still = ["bio", "task renamed", "invitation touched"]
    experts = {name: add_expert(conn) for name in [*changes, *still, "idle"]}
    for user in experts.values():
        invite(conn, user)
        add_task(conn, taker_id=user, status="taken")
    assert value(conn, REFRESH) > 0
    assert value(conn, "select count(*) from market.expert_statistics") == len(experts)
    first = value(conn, "select max(refreshed_at) from market.expert_statistics")

    for name, act in changes.items():
        act(experts[name])
    conn.execute("update market.experts set bio = 'x' where user_id = %s", [experts["bio"]])
    conn.execute("update market.tasks set title = 'x' where taker_id = %s", [experts["task renamed"]])
    conn.execute(
        "update market.expert_invitations set task_id = task_id where expert_id = %s",
        [experts["invitation touched"]],
    )
    conn.execute(REFRESH)

    fresh = set(column(conn, "select user_id from market.expert_statistics where refreshed_at > %s", first))
    assert fresh == {experts[name] for name in [*changes, "idle"]}
    assert value(conn, "select count(*) from market.expert_changes") == 0
    assert value(conn, REFRESH) == 0


def test_truncated_invitations_and_removed_experts(tx: psycopg.Connection) -> None:
    user, gone = add_expert(tx), add_expert(tx)
    for who in [user, gone]:
        invite(tx, who, HOUR)
    tx.execute(REFRESH)

    tx.execute("truncate market.expert_invitations")
    tx.execute("delete from market.experts where user_id = %s", [gone])
    tx.execute(REFRESH)

    assert (expert(tx, user), expert(tx, gone)) == ((None, None, None, None), None)
    assert value(tx, "select count(*) from market.expert_changes") == 0


def test_a_change_that_commits_during_a_refresh_is_not_forgotten(
    conn: psycopg.Connection, other: psycopg.Connection
) -> None:
    user = add_expert(conn)
    invitation = invite(conn, user)
    answer = "update market.expert_invitations set responded_at = invited_at where id = %s"

    other.execute(answer, [invitation])  # not committed when the refresh looks
    conn.execute(REFRESH)
    assert expert(conn, user) == (None, 0, None, None)
    other.commit()
    conn.execute(REFRESH)
    assert expert(conn, user) == (timedelta(0), 1, None, None)

    conn.execute("update market.expert_invitations set responded_at = null")
    other.execute(REFRESH)  # has not committed when the change comes
    conn.execute(answer, [invitation])
    other.commit()
    assert expert(conn, user) == (None, 0, None, None)
    conn.execute(REFRESH)
    assert expert(conn, user) == (timedelta(0), 1, None, None)


def test_a_task_that_changes_while_its_taker_becomes_an_expert_is_not_forgotten(
    conn: psycopg.Connection, other: psycopg.Connection
) -> None:
    user = add_user(conn)

    add_task(other, taker_id=user, status="completed")
    conn.execute("insert into market.experts (user_id) values (%s)", [user])
    conn.execute(REFRESH)
    assert expert(conn, user) == (None, None, None, None)
    other.commit()
    conn.execute(REFRESH)

    assert expert(conn, user) == (None, None, 1, None)


def test_an_expert_who_is_removed_during_a_refresh_is_left_out(
    conn: psycopg.Connection, other: psycopg.Connection
) -> None:
    gone, stays = add_expert(conn), add_expert(conn)

    other.execute("delete from market.experts where user_id = %s", [gone])
    with waiting(conn, REFRESH) as answer:
        other.commit()
        assert answer.result(10) == [(2,)]

    assert column(conn, "select user_id from market.expert_statistics") == [stays]


def test_an_expert_who_is_marked_often_is_worked_out_once(tx: psycopg.Connection) -> None:
    user = add_expert(tx)
    for _ in range(5):
        invite(tx, user)

    assert tx.execute(
        "select picked, handled from market.refresh_expert_statistics(2, now(), '-infinity')"
    ).fetchone() == (
        2,
        2,
    )

    assert value(tx, "select count(*) from market.expert_changes") == 0


@pytest.mark.parametrize("zone", ["Asia/Tokyo", "America/New_York"])
def test_a_median_is_the_same_in_any_zone_across_a_change_of_the_clocks(
    tx: psycopg.Connection, zone: str
) -> None:
    tx.execute("select set_config('timezone', %s, true)", [zone])
    user, task = add_expert(tx), add_task(tx)
    for invited in ["2026-03-07 12:00-05", "2026-10-31 12:00-04", "2026-06-01 12:00-04"]:
        tx.execute(
            "insert into market.expert_invitations (expert_id, task_id, invited_at, responded_at)"
            " values (%s, %s, %s, %s::timestamptz + interval '24 hours')",
            [user, task, invited, invited],
        )

    tx.execute(REFRESH)

    assert value(tx, "select extract(epoch from median_response) from market.expert_statistics") == 86400


# Bad input, rights and cost


@pytest.mark.parametrize(
    ("columns", "code"),
    [
        ({"rating": 0}, "23514"),
        ({"rating": 6}, "23514"),
        ({"rating": None}, "23502"),
        ({"rating": -1}, "23514"),
        ({"author_id": "subject"}, "23514"),
        ({"subject_id": 0}, "23503"),
        ({"task_id": 0}, "23503"),
    ],
)
def test_a_review_that_makes_no_sense_is_refused_and_counts_nothing(
    tx: psycopg.Connection, columns: dict[str, Any], code: str
) -> None:
    subject = add_user(tx)
    given = {"task_id": add_task(tx), "author_id": add_user(tx), "subject_id": subject, "rating": 3} | columns
    if given["author_id"] == "subject":
        given["author_id"] = subject

    with raises(code, hint=False), tx.transaction():
        add(tx, "reviews", **given)

    assert of(tx, subject) == (0, 0, 0, 0, 0, 0)


def test_an_answer_before_the_invitation_is_refused(tx: psycopg.Connection) -> None:
    with raises("23514", hint=False):
        invite(tx, add_expert(tx), -HOUR)


def test_an_application_may_change_what_is_counted_and_not_the_numbers(conn: psycopg.Connection) -> None:
    role = "pglapse_statistics_test"
    user, task = add_user(conn), add_task(conn)
    with conn.transaction(force_rollback=True):
        conn.execute(f"create role {role}")
        conn.execute(f"select market.grant_application('{role}')")
        conn.execute(f"set local role {role}")
        add(conn, "reviews", task_id=task, author_id=add_user(conn), subject_id=user, rating=4)
        conn.execute("insert into market.experts (user_id) values (%s)", [user])
        add(conn, "expert_invitations", expert_id=user, task_id=task)
        assert of(conn, user) == (0, 0, 0, 0, 1, 4)
        for table in [
            "user_statistics_deltas",
            "user_statistics_folded",
            "expert_changes",
            "expert_statistics",
        ]:
            with raises("42501", hint=False), conn.transaction():
                conn.execute(f"delete from market.{table}")


def read(conn: psycopg.Connection, query: str) -> int:
    """Buffers that a query reads once its plans are made; never a scan of a whole table."""
    for _ in range(3):
        plan = value(conn, f"explain (analyze, buffers, format json) {query}")
    assert "Seq Scan" not in str(plan) or "Function Scan" in str(plan), plan
    return plan[0]["Plan"]["Shared Hit Blocks"] + plan[0]["Plan"]["Shared Read Blocks"]


def test_empty_runs_and_the_numbers_of_one_user_cost_the_same_however_many_there_are(
    conn: psycopg.Connection,
) -> None:
    def fill(rows: int) -> None:
        with conn.transaction():
            conn.execute("set local session_replication_role = replica")
            conn.execute(
                "insert into market.user_statistics_folded (user_id, reviews)"
                f" select g, 1 from generate_series(1, {rows}) as g on conflict do nothing"
            )
            for table, of in [("user_statistics_deltas", "user_id"), ("expert_changes", "expert_id")]:
                conn.execute(
                    f"insert into market.{table} ({of}, changed_at)"
                    " select g, now() + interval '1 hour' + g * interval '1 s'"
                    f"  from generate_series(1, {rows}) as g"
                )
        conn.execute(
            "vacuum (analyze)"
            " market.user_statistics_folded, market.user_statistics_deltas, market.expert_changes"
        )

    def costs() -> list[int]:
        return [
            read(conn, "select * from market.fold_user_statistics(1000, now(), '-infinity')"),
            read(conn, "select * from market.refresh_expert_statistics(1000, now(), '-infinity')"),
            read(conn, "select * from market.user_statistics where user_id = 500"),
        ]

    fill(1000)
    few = costs()
    fill(30_000)

    assert [many for many, was in zip(costs(), few, strict=True) if many > 2 * was + 5] == []


def test_a_repair_reads_windows_through_indexes(conn: psycopg.Connection) -> None:
    user = add_user(conn)
    with conn.transaction():
        conn.execute("set local session_replication_role = replica")
        conn.execute(
            "insert into market.tasks (poster_id, taker_id, title)"
            f" select {user} + 1 + g, {user} + 1 + g, 'x' from generate_series(1, 30000) as g"
        )
    conn.execute("vacuum (analyze) market.tasks")

    window = f"select * from market.user_statistics_recount where user_id > {user} and user_id <= {user} + 20"

    assert read(conn, window) < 300


def test_two_who_fold_and_refresh_at_the_same_time_do_not_deadlock(
    conn: psycopg.Connection, other: psycopg.Connection
) -> None:
    users = [add_expert(conn) for _ in range(2)]

    other.execute(REFRESH)
    for user in reversed(users):
        invite(conn, user)
    with waiting(conn, REFRESH) as answer:  # the same experts, so it waits
        other.commit()
        answer.result(10)

    conn.execute(REFRESH)
    assert value(conn, "select count(*) from market.expert_statistics where response_rate = 0") == 2
