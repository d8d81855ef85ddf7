"""Each policy's step takes exactly the rows of its declared due query, in order, and never waits."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import psycopg
import pytest

from tests.support.install import alembic
from tests.support.market import HOUR, NUMBER, add, add_task, add_user, now, value

MICROSECOND = timedelta(microseconds=1)


@pytest.fixture
def conn(tx: psycopg.Connection) -> psycopg.Connection:
    """A transaction that is rolled back."""
    return tx


@dataclass(frozen=True, slots=True)
class Case:
    """A policy, the table it works on, and rows that lapse or must not."""

    policy: str
    table: str
    due: str
    live: str
    never: bool
    finished: tuple[dict[str, Any], ...]

    def add(self, conn: psycopg.Connection, due: datetime | str | None, **columns: Any) -> int:
        columns[self.due] = due
        if self.table == "tasks":
            return add_task(conn, **columns)
        if self.table == "point_grants":
            return add(conn, self.table, user_id=add_user(conn), **({"amount": 7} | columns))
        if self.table == "pending_users":
            token = str(next(NUMBER)).encode()
            return add(conn, self.table, email="new@example.org", token_hash=token, **columns)
        if self.table == "temp_uploads":
            return add(
                conn, self.table, user_id=add_user(conn), storage="public", path=str(next(NUMBER)), **columns
            )
        return add(conn, self.table, code=f"code {next(NUMBER)}", **columns)

    def alive(self, conn: psycopg.Connection) -> set[int]:
        return {number for (number,) in conn.execute(f"select id from market.{self.table} where {self.live}")}

    def step(
        self,
        conn: psycopg.Connection,
        cutoff: datetime,
        limit: int = 1000,
        after: datetime | str = "-infinity",
    ) -> tuple[int, int, datetime | None]:
        row = conn.execute(
            f"select * from market.{self.policy}(%s, %s, %s)", [limit, cutoff, after]
        ).fetchone()
        assert row is not None
        return row


CASES = [
    Case("expire_coupons", "coupons", "valid_until", "status = 'active'", True,
         ({"status": "used"}, {"status": "expired"})),
    Case("expire_invitation_codes", "invitation_codes", "valid_until", "status = 'active'", True,
         ({"status": "exhausted"}, {"status": "expired"})),
    Case("expire_points", "point_grants", "expires_at", "remaining > 0", True, ({"remaining": 0},)),
    Case("cancel_expired_tasks", "tasks", "deadline", "status = 'open'", True,
         ({"status": "taken"}, {"status": "completed"}, {"status": "cancelled"})),
    Case("purge_pending_users", "pending_users", "expires_at", "verified_at is null", False,
         ({"verified_at": "2020-01-01"},)),
    Case("expire_temp_uploads", "temp_uploads", "expires_at", "true", False, ()),
]  # fmt: skip


@pytest.fixture(params=CASES, ids=lambda case: case.policy)
def case(request: pytest.FixtureRequest) -> Case:
    return request.param


def test_a_step_takes_the_rows_of_its_due_query_and_no_others(conn: psycopg.Connection, case: Case) -> None:
    cutoff = now(conn)
    lapsed = {case.add(conn, cutoff - HOUR), case.add(conn, cutoff - MICROSECOND), case.add(conn, cutoff)}
    lapsed.add(case.add(conn, "2001-01-01 00:00+00"))
    for due in [cutoff + MICROSECOND, cutoff + HOUR, "infinity", *([None] if case.never else [])]:
        case.add(conn, due)
    for columns in case.finished:
        case.add(conn, cutoff - HOUR, **columns)
    declared = {
        int(key) for (key,) in conn.execute("select key from lapse.due_keys(%s, %s)", [case.policy, cutoff])
    }
    before = case.alive(conn)

    picked, handled, reached = case.step(conn, cutoff)

    assert before - case.alive(conn) == lapsed == declared
    assert (picked, handled, reached) == (4, 4, cutoff)
    assert case.step(conn, cutoff) == (0, 0, None)


def test_a_step_takes_the_oldest_first_and_goes_on_where_it_stopped(
    conn: psycopg.Connection, case: Case
) -> None:
    cutoff = now(conn)
    late = case.add(conn, cutoff)
    twins = [case.add(conn, cutoff - HOUR) for _ in range(3)]
    order = [*twins, late]

    reached: Any = "-infinity"
    for place, row in enumerate(order):
        before = case.alive(conn)
        picked, handled, reached = case.step(conn, cutoff, limit=1, after=reached)
        assert (picked, handled) == (1, 1)
        assert before - case.alive(conn) == {row}
        assert reached == (cutoff if place == 3 else cutoff - HOUR)


def test_a_step_starts_at_its_resume_point(conn: psycopg.Connection, case: Case) -> None:
    cutoff = now(conn)
    case.add(conn, cutoff - HOUR)
    inside = case.add(conn, cutoff - HOUR / 2)
    before = case.alive(conn)

    case.step(conn, cutoff, after=cutoff - HOUR / 2)

    assert before - case.alive(conn) == {inside}


def test_a_row_locked_elsewhere_is_skipped_not_waited_for(
    own: psycopg.Connection, dsn: str, case: Case
) -> None:
    cutoff = now(own)
    locked = case.add(own, cutoff - HOUR)
    free = case.add(own, cutoff - HOUR)
    before = case.alive(own)
    own.execute("set lock_timeout = '5 s'")

    with psycopg.connect(dsn) as other:
        other.execute(f"select from market.{case.table} where id = %s for update", [locked])
        answer = case.step(own, cutoff)

    assert answer == (1, 1, cutoff - HOUR)
    assert before - case.alive(own) == {free}


def test_a_row_that_is_set_aside_is_left_out_until_its_retry(conn: psycopg.Connection, case: Case) -> None:
    cutoff = now(conn)
    aside, retry, free = (case.add(conn, cutoff - HOUR) for _ in range(3))
    for row, retry_at in [(aside, cutoff + HOUR), (retry, cutoff)]:
        conn.execute(
            "insert into lapse.blocked_row (policy, key, error, run_id, retry_at)"
            " values (%s, %s, 'x', 1, %s)",
            [case.policy, str(row), retry_at],
        )
    before = case.alive(conn)

    case.step(conn, cutoff)

    assert before - case.alive(conn) == {retry, free}


def test_a_row_that_a_trigger_keeps_is_picked_but_not_handled(conn: psycopg.Connection, case: Case) -> None:
    cutoff = now(conn)
    kept = case.add(conn, cutoff - HOUR)
    case.add(conn, cutoff - HOUR)
    conn.execute(
        "create function public.keep() returns trigger language plpgsql as"
        " $$ begin if old.id = tg_argv[0]::bigint then return null; end if; return coalesce(new, old); end $$"
    )
    conn.execute(
        f"create trigger keep before update or delete on market.{case.table}"
        f" for each row execute function public.keep({kept})"
    )

    picked, handled, _ = case.step(conn, cutoff)

    assert (picked, handled) == (2, 1)
    assert kept in case.alive(conn)


def test_a_row_renewed_before_the_step_locks_it_stays(own: psycopg.Connection, dsn: str, case: Case) -> None:
    cutoff = now(own)
    renewed = case.add(own, cutoff - HOUR)

    # The step's snapshot is older than the renewal: repeatable read keeps it old, so it must refuse or skip.
    with psycopg.connect(dsn) as sweeper:
        sweeper.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        sweeper.execute("select 1")
        own.execute(f"update market.{case.table} set {case.due} = %s where id = %s", [cutoff + HOUR, renewed])
        with pytest.raises(psycopg.errors.SerializationFailure):
            case.step(sweeper, cutoff)

    assert case.step(own, cutoff)[0] == 0
    assert renewed in case.alive(own)


def test_a_step_stamps_what_it_did(conn: psycopg.Connection) -> None:
    cutoff = now(conn)
    rows = {case.policy: case.add(conn, cutoff - HOUR) for case in CASES}

    for case in CASES:
        case.step(conn, cutoff)

    for table in ["coupons", "invitation_codes"]:
        row = rows["expire_coupons" if table == "coupons" else "expire_invitation_codes"]
        assert conn.execute(
            f"select status, expired_at >= %s from market.{table} where id = %s", [cutoff, row]
        ).fetchone() == ("expired", True)
    assert conn.execute(
        "select status, cancel_reason, cancelled_at >= %s from market.tasks where id = %s",
        [cutoff, rows["cancel_expired_tasks"]],
    ).fetchone() == ("cancelled", "deadline", True)
    assert conn.execute(
        "select remaining, expired_at >= %s from market.point_grants where id = %s",
        [cutoff, rows["expire_points"]],
    ).fetchone() == (0, True)


def test_the_engine_runs_every_policy_to_its_end(own: psycopg.Connection) -> None:
    own.execute(
        "select lapse.alter_policy(name, p_batch_size => 2) from lapse.policy where step like 'market.%'"
    )
    for case in CASES:
        for _ in range(5):
            case.add(own, now(own) - HOUR)

    for case in CASES:
        own.execute("call lapse.run(%s)", [case.policy])

    assert {case.policy: case.alive(own) for case in CASES if case.alive(own)} == {}
    assert own.execute("select distinct status, handled, blocked from lapse.run_log").fetchall() == [
        ("ok", 5, 0)
    ]


def test_the_policies_are_registered_with_their_cadence(conn: psycopg.Connection) -> None:
    policies = conn.execute(
        "select name, every, at_time::text, time_zone, enabled from lapse.policy where name = any (%s)"
        " order by name",
        [[case.policy for case in CASES]],
    ).fetchall()

    assert policies == [
        ("cancel_expired_tasks", timedelta(minutes=1), None, "UTC", True),
        ("expire_coupons", timedelta(minutes=5), None, "UTC", True),
        ("expire_invitation_codes", timedelta(minutes=5), None, "UTC", True),
        ("expire_points", timedelta(minutes=5), None, "UTC", True),
        ("expire_temp_uploads", timedelta(hours=1), None, "UTC", True),
        ("purge_pending_users", timedelta(days=1), "03:00:00", "UTC", True),
    ]


def test_nothing_in_the_marketplace_is_executable_by_public(conn: psycopg.Connection) -> None:
    assert value(conn, "select count(*) from pg_proc where pronamespace = 'market'::regnamespace") > 20
    open_to_all = conn.execute(
        "select p.oid::regprocedure from pg_proc as p,"
        " aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) as a"
        " where p.pronamespace = 'market'::regnamespace and a.grantee = 0"
    ).fetchall()
    assert open_to_all == []


def test_removing_the_marketplace_takes_its_policies_and_its_file_source_along(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute("select lapse.create_policy('mine', 'market.expire_coupons', '1 hour')")
        before = value(conn, "select count(*) from lapse.policy where not starts_with(step, 'market.')")

        alembic(dsn, "downgrade", "market@base")

        assert value(conn, "select to_regnamespace('market')") is None
        assert value(conn, "select count(*) from lapse.policy") == before
        assert value(conn, "select count(*) from lapse.file_source") == 0
