"""An empty run costs the same however many rows lapse later: by buffers, never by time."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import psycopg
import pytest

from tests.support import databases
from tests.support.market import value
from tests.support.poll import until

LATER = "now() + interval '1 hour' + g * interval '1 s'"
# For each step: its table, its index, and how to fill it with rows numbered g that are due later.
STEPS = {
    "expire_coupons": (
        "coupons", "coupons_due",
        f"(code, valid_until) select lpad(g::text, 9, '0'), {LATER}",
    ),
    "expire_invitation_codes": (
        "invitation_codes", "invitation_codes_due",
        f"(code, valid_until) select lpad(g::text, 9, '0'), {LATER}",
    ),
    "expire_points": (
        "point_grants", "point_grants_due",
        f"(user_id, amount, remaining, expires_at) select 1 + g / 1000, 1, 1, {LATER}",
    ),
    "cancel_expired_tasks": (
        "tasks", "tasks_due",
        f"(poster_id, title, deadline) select 1 + g / 1000, 'x', {LATER}",
    ),
    "purge_pending_users": (
        "pending_users", "pending_users_due",
        f"(email, token_hash, expires_at) select 'x', int8send(g), {LATER}",
    ),
}  # fmt: skip
FEW, MANY = 1_000, 1_000_000

pytestmark = pytest.mark.xdist_group("plans")  # a million rows a step are made once


def fill(dsn: str, step: str, first: int, last: int) -> None:
    """Add rows first … last, without triggers: what they do is not the question here."""
    table, _, columns = STEPS[step]
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute("set session_replication_role = replica")
        conn.execute("set synchronous_commit = off")
        conn.execute("set maintenance_work_mem = '256 MB'")
        conn.execute(
            f"insert into market.{table} {columns} from generate_series({first}::bigint, {last}) as g"
        )
        conn.execute(f"vacuum (analyze) market.{table}")


def buffers(conn: psycopg.Connection, step: str) -> int:
    """What an empty run of the real step reads, once this session has its plans."""
    query = f"explain (analyze, buffers, format json) select * from market.{step}(1000, now(), '-infinity')"
    for _ in range(3):
        plan = value(conn, query)
    plan = (json.loads(plan) if isinstance(plan, str) else plan)[0]["Plan"]
    return plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]


def measured(dsn: str) -> dict[tuple[str, str], int]:
    """Buffers by plan cache mode and step, each mode in a session of its own."""
    found = {}
    for mode in ["auto", "force_generic_plan"]:
        with psycopg.connect(dsn, autocommit=True) as conn:
            conn.execute(f"set plan_cache_mode = {mode}")
            found |= {(mode, step): buffers(conn, step) for step in STEPS}
    return found


@pytest.fixture(scope="module")
def crowded(server: str, template: str) -> Iterator[tuple[str, dict[tuple[str, str], int]]]:
    """A database with 1,000,000 live rows a step, and what each step read when there were 1,000."""
    with databases.database(server, template) as dsn:
        with psycopg.connect(dsn, autocommit=True) as conn:
            conn.execute(
                "insert into market.users (email, display_name)"
                f" select g::text, 'x' from generate_series(1, {MANY // 1000 + 1}) as g"
            )
            conn.execute("set session_replication_role = replica")
            conn.execute("insert into market.point_balances select id, 1000 from market.users")
        for step in STEPS:
            fill(dsn, step, 1, FEW)
        few = measured(dsn)
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda step: fill(dsn, step, FEW + 1, MANY), STEPS))
        yield dsn, few


@pytest.mark.slow
def test_an_empty_run_reads_no_more_when_a_million_rows_are_due_later(
    crowded: tuple[str, dict[tuple[str, str], int]],
) -> None:
    dsn, few = crowded

    many = measured(dsn)

    assert {key: read for key, read in many.items() if read > 2 * few[key]} == {}, (few, many)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["auto", "force_generic_plan"])
def test_a_step_uses_its_partial_index_and_scans_no_table(
    crowded: tuple[str, dict[tuple[str, str], int]], mode: str
) -> None:
    dsn, _ = crowded

    def scans(conn: psycopg.Connection, step: str) -> tuple[int, int]:
        conn.execute("select pg_stat_force_next_flush()")
        table, index, _ = STEPS[step]
        return (
            value(conn, "select idx_scan from pg_stat_user_indexes where indexrelname = %s", index),
            value(
                conn,
                "select sum(seq_scan)::bigint from pg_stat_user_tables where relid = any (%s::regclass[])",
                [f"market.{table}", "market.point_balances"],
            ),
        )  # fmt: skip

    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute(f"set plan_cache_mode = {mode}")
        for step in STEPS:
            by_index, by_table = scans(conn, step)
            for _ in range(7):  # more than the five runs after which a plan becomes generic
                assert value(conn, f"select picked from market.{step}(1000, now(), '-infinity')") == 0

            until(lambda: scans(conn, step)[0] >= by_index + 7, what=f"{step} to use its index")  # noqa: B023
            assert scans(conn, step)[1] == by_table, step


@pytest.mark.slow
def test_a_batch_reads_its_own_rows_and_not_the_rest_of_the_backlog(
    crowded: tuple[str, dict[tuple[str, str], int]],
) -> None:
    dsn, _ = crowded

    with psycopg.connect(dsn) as conn:
        for step in STEPS:
            for _ in range(2):  # the second has its plans
                plan = value(
                    conn, "explain (analyze, buffers, format json)"
                    f" select * from market.{step}(10, now() + interval '90 days', '-infinity')",
                )[0]["Plan"]  # fmt: skip
            assert plan["Actual Rows"] == 1
            assert plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] < 1_500, step
        conn.rollback()


DONE = {
    "expire_coupons": "status = 'expired'",
    "expire_invitation_codes": "status = 'expired'",
    "expire_points": "remaining = 0",
    "cancel_expired_tasks": "status = 'taken'",
    "purge_pending_users": "verified_at = now()",
}


def test_a_batch_costs_the_same_when_nothing_was_due_at_the_last_vacuum(dsn: str) -> None:
    rows, batch = 20_000, 200
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute(
            "insert into market.users (email, display_name) select g, 'x' from generate_series(1, 41) g"
        )
        conn.execute("set session_replication_role = replica")
        conn.execute("insert into market.point_balances select id, 1000000 from market.users")
        for step, (table, _, columns) in STEPS.items():
            insert = f"insert into market.{table} {columns} from generate_series(%s::bigint, %s) as g"
            conn.execute(insert, [1, rows])
            conn.execute(f"update market.{table} set {DONE[step]}")
            conn.execute(
                f"vacuum (analyze) market.{table}"
            )  # the partial index has pages, and nothing on them
            conn.execute(insert, [rows + 1, 2 * rows])
        conn.execute("set session_replication_role = origin")

        for step, (_, index, _) in STEPS.items():
            assert (
                value(
                    conn,
                    f"select handled from market.{step}(%s, now() + interval '90 days', '-infinity')",
                    batch,
                )
                == batch
            )
            conn.execute("select pg_stat_force_next_flush()")
            scans = "select idx_scan from pg_stat_user_indexes where indexrelname = %s"
            until(partial(value, conn, scans, index), what=f"{index} to be counted")
            read = value(conn, "select idx_tup_read from pg_stat_user_indexes where indexrelname = %s", index)
            assert read <= 2 * batch, step
