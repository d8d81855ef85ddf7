"""Sessions, cache, chats: a step takes the rows of its due query, by its index, and never waits."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import psycopg
import pytest
from psycopg import sql

from tests.support import databases
from tests.support.market import HOUR, NUMBER, add_user, column, now, value
from tests.support.poll import until

MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Case:
    """A policy, its index, and how to add a row that is due at a time."""

    policy: str
    table: str
    key: str
    due: str
    index: str
    every: timedelta
    at_time: str | None
    add: Callable[[psycopg.Connection, datetime | str], Any]
    finished: Callable[[psycopg.Connection, datetime], Any] | None = None
    handled: str = "true"
    """Whether a row that is still there was handled: these steps change rows, the others delete them."""
    many: str = ""
    """How to fill the table with rows numbered g that are due later."""

    @property
    def deletes(self) -> bool:
        return self.handled == "true"

    def left(self, conn: psycopg.Connection) -> set[str]:
        """The keys of the rows that the step has not dealt with."""
        kept = "true" if self.deletes else f"not ({self.handled})"
        return set(
            column(
                conn,
                f"select {self.key}::text from market.{self.table} where {self.due} is not null and {kept}",
            )
        )

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


def add_session(conn: psycopg.Connection, due: datetime | str) -> str:
    return value(
        conn,
        "insert into market.sessions (token_hash, principal_kind, principal_id, expires_at)"
        " values (int8send(%s), 'user', 1, %s) returning token_hash::text",
        next(NUMBER),
        due,
    )


def add_entry(conn: psycopg.Connection, due: datetime | str) -> str:
    return value(
        conn,
        "insert into market.cache_entries (key, value, expires_at) values (%s, '1', %s) returning key",
        f"key {next(NUMBER)}",
        "9999-12-31 00:00Z" if due == "infinity" else due,
    )


def add_event(conn: psycopg.Connection, due: datetime | str) -> str:
    return value(
        conn,
        "insert into market.chat_events (kind, chat_id, user_id, happened_at, expires_at)"
        " values ('ended', 1, 1, now(), %s) returning id::text",
        due,
    )


def add_chat(conn: psycopg.Connection, shift: timedelta, at: datetime | str, **columns: Any) -> str:
    """A chat whose last activity was so long before the time given."""
    given = {
        "user_id": add_user(conn),
        "last_activity_at": at if isinstance(at, str) else at - shift,
    } | columns
    names, places = ", ".join(given), ", ".join(["%s"] * len(given))
    return value(
        conn,
        f"insert into market.chats ({names}) values ({places}) returning id::text",
        *given.values(),
    )


def add_agent(conn: psycopg.Connection, max_chats: int = 1000, *, online: bool = True) -> int:
    return value(
        conn,
        "insert into market.agents (display_name, max_chats, online) values ('x', %s, %s) returning id",
        max_chats,
        online,
    )


def add_waiting(conn: psycopg.Connection, due: datetime | str) -> str:
    if not value(conn, "select count(*) from market.agents"):
        add_agent(conn)
    return add_chat(conn, timedelta(), due, opened_at=due)


def active(shift: timedelta, **columns: Any) -> Callable[[psycopg.Connection, datetime | str], str]:
    return lambda conn, due: add_chat(conn, shift, due, status="active", **columns)


LATER = "now() + interval '1 hour' + g * interval '1 s'"
CHATS = "(user_id, ended_at, status, last_activity_at) select 1"
MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)

CASES = [
    Case("purge_sessions", "sessions", "token_hash", "expires_at", "sessions_due", 15 * MINUTE, None,
         add_session,
         many=f"(token_hash, principal_kind, principal_id, expires_at)"
              f" select int8send(g), 'user', 1, {LATER}"),
    Case("purge_cache", "cache_entries", "key", "expires_at", "cache_entries_due", 15 * MINUTE, None,
         add_entry, many=f"(key, value, expires_at) select g::text, '1', {LATER}"),
    Case("assign_waiting_chats", "chats", "id", "opened_at", "chats_waiting", MINUTE / 2, None,
         add_waiting, lambda conn, due: add_chat(conn, HOUR, due, opened_at=due - HOUR, status="ended"),
         "status <> 'waiting'", many=f"(user_id, opened_at) select 1, {LATER}"),
    Case("warn_idle_chats", "chats", "id", "warn_at", "chats_warn_due", MINUTE / 2, None,
         active(MINUTE), lambda conn, due: active(HOUR, warned_at=due)(conn, due),
         "status <> 'active' or warned_at is not null", many=f"{CHATS}, null, 'active', {LATER}"),
    Case("end_idle_chats", "chats", "id", "end_at", "chats_end_due", MINUTE / 2, None,
         active(2 * MINUTE), lambda conn, due: add_chat(conn, HOUR, due, status="ended"),
         "status = 'ended'", many=f"{CHATS}, null, 'active', {LATER}"),
    Case("purge_inactive_chats", "chats", "id", "purge_at", "chats_purge_due", DAY, "02:00:00",
         active(30 * DAY), many=f"{CHATS}, now(), 'ended', {LATER}"),
    Case("prune_chat_events", "chat_events", "id", "expires_at", "chat_events_due", HOUR, None,
         add_event,
         many=f"(kind, chat_id, user_id, happened_at, expires_at) select 'ended', 1, 1, now(), {LATER}"),
]  # fmt: skip


@pytest.fixture
def conn(tx: psycopg.Connection) -> psycopg.Connection:
    """A transaction that is rolled back."""
    return tx


@pytest.fixture(params=CASES, ids=lambda case: case.policy)
def case(request: pytest.FixtureRequest) -> Case:
    return request.param


def test_a_step_takes_the_rows_of_its_due_query_and_no_others(conn: psycopg.Connection, case: Case) -> None:
    cutoff = now(conn)
    dues = [cutoff - HOUR, cutoff - MICROSECOND, cutoff, "2001-01-01 00:00+00"]
    lapsed = {case.add(conn, due) for due in dues}
    if case.finished:
        case.finished(conn, cutoff)
    for due in [cutoff + 40 * DAY, "infinity"]:
        case.add(conn, due)
    if not case.policy.endswith("chats"):
        case.add(conn, cutoff + MICROSECOND)
    declared = set(column(conn, "select key from lapse.due_keys(%s, %s)", case.policy, cutoff))
    before = case.left(conn)

    picked, handled, reached = case.step(conn, cutoff)

    assert before - case.left(conn) == lapsed == declared
    assert (picked, handled, reached) == (4, 4, cutoff)
    assert case.step(conn, cutoff) == (0, 0, None)


def test_a_step_takes_the_oldest_first_and_goes_on_where_it_stopped(
    conn: psycopg.Connection, case: Case
) -> None:
    cutoff = now(conn)
    late = case.add(conn, cutoff)
    order = [*[case.add(conn, cutoff - HOUR) for _ in range(3)], late]

    reached: Any = "-infinity"
    for place, row in enumerate(order):
        before = case.left(conn)
        picked, handled, reached = case.step(conn, cutoff, limit=1, after=reached)
        assert (picked, handled) == (1, 1)
        assert before - case.left(conn) == {row}
        assert reached == (cutoff if place == 3 else cutoff - HOUR)


def test_a_step_starts_at_its_resume_point(conn: psycopg.Connection, case: Case) -> None:
    cutoff = now(conn)
    case.add(conn, cutoff - HOUR)
    inside = case.add(conn, cutoff - HOUR / 2)
    before = case.left(conn)

    case.step(conn, cutoff, after=cutoff - HOUR / 2)

    assert before - case.left(conn) == {inside}


def test_a_row_locked_elsewhere_is_skipped_not_waited_for(
    own: psycopg.Connection, dsn: str, case: Case
) -> None:
    cutoff = now(own)
    own.execute("set session_replication_role = replica")  # nothing is given away at commit
    locked, free = case.add(own, cutoff - HOUR), case.add(own, cutoff - HOUR)
    own.execute("set session_replication_role = origin")
    before = case.left(own)
    own.execute("set lock_timeout = '5 s'")

    with psycopg.connect(dsn) as other:
        other.execute(f"select from market.{case.table} where {case.key}::text = %s for update", [locked])
        answer = case.step(own, cutoff)

    assert answer == (1, 1, cutoff - HOUR)
    assert before - case.left(own) == {free}


def test_a_row_that_is_set_aside_is_left_out_until_its_retry(conn: psycopg.Connection, case: Case) -> None:
    cutoff = now(conn)
    aside, retry, free = (case.add(conn, cutoff - HOUR) for _ in range(3))
    for row, retry_at in [(aside, cutoff + HOUR), (retry, cutoff)]:
        conn.execute(
            "insert into lapse.blocked_row (policy, key, error, run_id, retry_at)"
            " values (%s, %s, 'x', 1, %s)",
            [case.policy, row, retry_at],
        )
    conn.execute("set local bytea_output = 'escape'")  # keys are written as the engine writes them

    case.step(conn, cutoff)

    conn.execute("set local bytea_output = 'hex'")
    assert (aside in case.left(conn), retry in case.left(conn), free in case.left(conn)) == (
        True,
        False,
        False,
    )


def test_a_row_that_a_trigger_keeps_is_picked_but_not_handled(conn: psycopg.Connection, case: Case) -> None:
    cutoff = now(conn)
    kept, free = case.add(conn, cutoff - HOUR), case.add(conn, cutoff - HOUR)
    conn.execute(
        "create function public.keep() returns trigger language plpgsql as"
        f" $$ begin if old.{case.key}::text = tg_argv[0] then return null; end if;"
        " return coalesce(new, old); end $$"
    )
    conn.execute(
        sql.SQL(
            "create trigger keep before update or delete on market.{} for each row"
            " execute function public.keep({})"
        ).format(sql.Identifier(case.table), sql.Literal(kept))
    )

    picked, handled, _ = case.step(conn, cutoff)

    assert (picked, handled) == (2, 1)
    assert kept in case.left(conn)
    assert free not in case.left(conn)


def test_the_engine_runs_every_policy_to_its_end(own: psycopg.Connection) -> None:
    cutoff = now(own)
    own.execute("set session_replication_role = replica")
    added = {case.policy: {case.add(own, cutoff - HOUR) for _ in range(5)} for case in CASES}
    own.execute("set session_replication_role = origin")
    own.execute("select lapse.pause(name) from lapse.policy")
    for case in CASES:
        own.execute("select lapse.alter_policy(%s, p_batch_size => 2, p_enabled => true)", [case.policy])
    own.execute("update lapse.policy_state set next_run_at = now(), slot_at = now()")

    own.execute("call lapse.run_due()")

    assert {case.policy: left for case in CASES if (left := case.left(own) & added[case.policy])} == {}
    log = own.execute("select policy, status, blocked from lapse.run_log").fetchall()
    assert set(log) == {(case.policy, "ok", 0) for case in CASES}


def test_the_policies_are_registered_with_their_cadence(conn: psycopg.Connection) -> None:
    for case in CASES:
        assert conn.execute(
            "select every, at_time::text, time_zone, enabled, target_table, due_column"
            "  from lapse.policy where name = %s",
            [case.policy],
        ).fetchone() == (case.every, case.at_time, "UTC", True, f"market.{case.table}", case.due)


# Plans: by buffers and counters, never by time.


@pytest.fixture(scope="module")
def crowded(server: str, template: str) -> Iterator[tuple[str, dict[tuple[str, str], int]]]:
    """A database with many rows a step that are due later, and what each step read when there were few."""
    with databases.database(server, template) as dsn:
        with psycopg.connect(dsn, autocommit=True) as conn:
            add_user(conn)
            conn.execute(
                "insert into market.agents (display_name, online) select 'x', true from generate_series(1, 5)"
            )
            fill(conn, 1, 300)
        few = measured(dsn)
        with psycopg.connect(dsn, autocommit=True) as conn:
            fill(conn, 301, 20_000)
        yield dsn, few


def fill(conn: psycopg.Connection, first: int, last: int) -> None:
    conn.execute("set session_replication_role = replica")
    for case in CASES:
        conn.execute(
            f"insert into market.{case.table} {case.many} from generate_series({first}::bigint, {last}) as g"
        )
    conn.execute("vacuum (analyze) market.sessions, market.cache_entries, market.chats, market.chat_events")


def buffers(conn: psycopg.Connection, policy: str) -> int:
    """What an empty run of the real step reads, once this session has its plans."""
    query = f"explain (analyze, buffers, format json) select * from market.{policy}(100, now(), '-infinity')"
    for _ in range(7):
        plan = value(conn, query)
    plan = (json.loads(plan) if isinstance(plan, str) else plan)[0]["Plan"]
    return plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]


def measured(dsn: str) -> dict[tuple[str, str], int]:
    found = {}
    for mode in ["auto", "force_generic_plan"]:
        with psycopg.connect(dsn, autocommit=True) as conn:
            conn.execute(f"set plan_cache_mode = {mode}")
            found |= {(mode, case.policy): buffers(conn, case.policy) for case in CASES}
    return found


def test_an_empty_run_reads_no_more_when_many_rows_are_due_later(
    crowded: tuple[str, dict[tuple[str, str], int]],
) -> None:
    dsn, few = crowded

    many = measured(dsn)

    # Catalogs may add a few pages; each of the tables has hundreds.
    assert {key: (read, few[key]) for key, read in many.items() if read > few[key] + 60} == {}


def scans(conn: psycopg.Connection, tables: list[str], index: str) -> tuple[int, int]:
    """How often an index was used, and how often these tables were read from end to end."""
    conn.execute("select pg_stat_force_next_flush()")
    return (
        value(conn, "select idx_scan from pg_stat_user_indexes where indexrelname = %s", index),
        value(
            conn,
            "select sum(seq_scan)::bigint from pg_stat_user_tables where relid = any (%s::regclass[])",
            [f"market.{table}" for table in tables],
        ),
    )


@pytest.mark.parametrize("mode", ["auto", "force_generic_plan"])
def test_a_step_uses_its_index_and_scans_no_table(
    crowded: tuple[str, dict[tuple[str, str], int]], mode: str, case: Case
) -> None:
    dsn, _ = crowded

    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute(f"set plan_cache_mode = {mode}")
        by_index, by_table = scans(conn, [case.table], case.index)
        for _ in range(7):  # more than the five runs after which a plan becomes generic
            assert case.step(conn, now(conn)) == (0, 0, None)

        until(
            lambda: scans(conn, [case.table], case.index)[0] >= by_index + 7,
            what=f"{case.policy} to use its index",
        )
        assert scans(conn, [case.table], case.index)[1] == by_table


READS = {
    "get_session": ("select count(*) from market.get_session(int8send(17))", "sessions", "sessions_pkey", 1),
    "get_cache": ("select count(market.get_cache('17'))", "cache_entries", "cache_entries_pkey", 1),
    "live_sessions": (
        "select count(*) from market.live_sessions where token_hash = int8send(17)",
        "sessions",
        "sessions_pkey",
        1,
    ),
    "live_cache_entries": (
        "select count(*) from market.live_cache_entries where key = '17'",
        "cache_entries",
        "cache_entries_pkey",
        1,
    ),
    "what lapses first": (
        "select count(*) from (select from market.live_sessions order by expires_at limit 10) as s",
        "sessions",
        "sessions_due",
        10,
    ),
}


@pytest.mark.parametrize("read", READS)
def test_a_read_uses_an_index_and_scans_no_table(
    crowded: tuple[str, dict[tuple[str, str], int]], read: str
) -> None:
    dsn, _ = crowded
    query, table, index, rows = READS[read]

    with psycopg.connect(dsn, autocommit=True) as conn:
        by_index, by_table = scans(conn, [table], index)
        for _ in range(7):
            assert value(conn, query) == rows

        until(lambda: scans(conn, [table], index)[0] >= by_index + 7, what=f"{read} to use its index")
        assert scans(conn, [table], index)[1] == by_table


def test_a_session_that_read_while_the_tables_were_empty_scans_none_later(own: psycopg.Connection) -> None:
    own.execute("vacuum market.sessions, market.cache_entries, market.chats")
    own.execute("set plan_cache_mode = force_generic_plan")
    user = add_user(own)
    calls = [
        "select count(*) from market.get_session(int8send(17))",
        "select count(market.get_cache('17'))",
        f"select count(market.open_chat({user}))",
    ]
    for call in calls:
        own.execute(call)
    with psycopg.connect(own.info.dsn, autocommit=True) as other:
        other.execute("alter table market.chats set (autovacuum_enabled = off)")
        other.execute(
            "insert into market.sessions (token_hash, principal_kind, principal_id, expires_at)"
            " select int8send(g), 'user', 1, now() + interval '1 hour' from generate_series(1, 2000) g"
        )
        other.execute(
            "insert into market.cache_entries (key, value, expires_at)"
            " select g::text, '1', now() + interval '1 hour' from generate_series(1, 2000) g"
        )
        other.execute("set session_replication_role = replica")
        other.execute(
            f"insert into market.chats (user_id, status, ended_at) select {user}, 'ended', now()"
            " from generate_series(1, 2000)"
        )
    tables = ["sessions", "cache_entries", "chats"]
    _, before = scans(own, tables, "sessions_pkey")

    for call in calls:
        assert value(own, call) == 1

    assert scans(own, tables, "sessions_pkey")[1] == before
