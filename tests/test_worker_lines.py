"""A worker behind PgBouncer, and on lines that die without a word."""

import re
import signal
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from tests.support import roles
from tests.support.files import empty, put, shelf, waiting
from tests.support.poll import until
from tests.support.pooler import pgbouncer
from tests.support.running import door, pglapse, worker

IMPATIENT = """
import pglapse.deadline, pglapse.service
pglapse.deadline.PATIENCE = pglapse.service.BEAT = 1.0
"""
POLLING = "polling every 5 s instead"
KEEPS = "this worker keeps the schedule now"
EXPIRED = """
insert into market.users (email, display_name) values ('a@example.org', 'ann');
insert into market.tasks (poster_id, title, deadline)
select u.id, 'paint the fence', now() - interval '1 minute' from market.users as u;
insert into market.task_files (task_id, storage, path) select t.id, 'public', 'a' from market.tasks as t;
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return shelf(tmp_path, "public")


@pytest.fixture
def root(tmp_path: Path, config: Path) -> Path:
    return tmp_path / "public"


def defaults_to_serializable(conn: psycopg.Connection) -> None:
    conn.execute(
        sql.SQL("alter database {} set default_transaction_isolation = 'serializable'").format(
            sql.Identifier(conn.info.dbname)
        )
    )


def warnings(said: str) -> list[str]:
    return re.findall(r"warning +(.*)", said)


@pytest.mark.parametrize(
    ("mode", "size", "polling"), [("session", 5, 0), ("transaction", 1, 1), ("statement", 2, 1)]
)
def test_a_worker_works_through_pgbouncer_and_says_what_it_can_not_do_there(
    conn: psycopg.Connection,
    dsn: str,
    root: Path,
    config: Path,
    tmp_path: Path,
    mode: Any,
    size: int,
    polling: int,
) -> None:
    """Files go, policies run, notifications are done without where they have to be."""
    (root / "a").write_text("x")
    conn.execute(EXPIRED)

    with (
        pgbouncer(roles.login(dsn, roles.WORKER), tmp_path, mode, size=size) as pooler,
        worker(pooler.dsn, config, tick="always") as running,
    ):
        until(lambda: not (root / "a").exists() and empty(conn))
        until(lambda: running.said.count(POLLING) == polling)
        put(conn, root, "b")
        until(lambda: empty(conn))
        running.process.send_signal(signal.SIGTERM)
        assert running.ends() == 0

    assert len(warnings(running.said)) == polling, running.said
    assert conn.execute("select distinct status from lapse.run_log").fetchall() == [("ok",)]
    assert conn.execute("select 1 from lapse.tick_turn union all select 1 from lapse.worker").fetchall() == []


def test_behind_one_pooled_connection_one_worker_ticks_and_then_the_other(
    conn: psycopg.Connection, dsn: str, config: Path, tmp_path: Path
) -> None:
    """Both share one session of the server, so that a session's lock would be both's."""
    through = roles.login(dsn, roles.WORKER)
    with (
        pgbouncer(through, tmp_path, "transaction", size=1) as pooler,
        worker(pooler.dsn, config, tick="always") as one,
    ):
        one.says(KEEPS)
        with worker(pooler.dsn, config, tick="always") as two:
            until(lambda: conn.execute("select 1 from lapse.worker having count(*) = 2").fetchone())
            until(lambda: two.said.count(POLLING) == 1)  # by now its ticker has asked as well
            assert "keeps the schedule" not in two.said
            one.process.send_signal(signal.SIGTERM)
            assert one.ends() == 0
            two.says(KEEPS)


def test_commands_leave_nothing_behind_in_the_pool_either(dsn: str, tmp_path: Path) -> None:
    left = (
        "select name from pg_settings where source = 'session' and name not in"
        " ('application_name', 'client_encoding')"
        " union all select name from pg_prepared_statements"
    )

    with (
        pgbouncer(roles.login(dsn, roles.OBSERVER), tmp_path, "transaction", size=1) as pooler,
        psycopg.connect(pooler.dsn, autocommit=True, prepare_threshold=None) as other,
    ):
        before = other.execute(left).fetchall()
        for command in (["status"], ["queue", "list"]):
            done = pglapse(pooler.dsn, *command)
            assert done.returncode == 0, done.stderr

        assert other.execute(left).fetchall() == before


def test_no_setting_of_ours_is_left_behind_for_others_in_the_pool(
    conn: psycopg.Connection, dsn: str, root: Path, config: Path, tmp_path: Path
) -> None:
    defaults_to_serializable(conn)
    locks = "select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()"
    settings = "select name, setting from pg_settings where source = 'session' and name like 'default%'"

    with (
        pgbouncer(roles.login(dsn, roles.WORKER), tmp_path, "transaction", size=1) as pooler,
        psycopg.connect(pooler.dsn, autocommit=True) as other,
    ):
        before = other.execute(settings).fetchall()
        with worker(pooler.dsn, config, tick="always") as running:
            running.says(KEEPS)
            put(conn, root, "a")
            until(lambda: empty(conn))
            assert other.execute(settings).fetchall() == before
            assert other.execute("show transaction_isolation").fetchone() == ("serializable",)
        assert other.execute(locks).fetchone() == (0,)


def test_a_line_that_swallows_everything_is_given_up_and_what_was_queued_meanwhile_goes(
    conn: psycopg.Connection, dsn: str, root: Path, config: Path
) -> None:
    conn.execute("update lapse.setting set notify_horizon = interval '1 hour'")
    with door(dsn) as way:
        way.open()
        with worker(
            way.dsn, config, spoilt=IMPATIENT + "import pglapse.service as s; s.BEAT = 1.0"
        ) as running:
            until(lambda: waiting(conn))
            way.swallowing = True
            running.says("has not answered for 1")
            put(conn, root, "a")
            way.swallowing = False
            until(lambda: empty(conn))

    assert not (root / "a").exists()


def test_a_nudge_that_comes_while_files_are_being_deleted_is_not_lost(
    conn: psycopg.Connection, dsn: str, root: Path, config: Path
) -> None:
    """No poll could find the second file, and the first keeps its storage busy when the nudge comes."""
    conn.execute("update lapse.setting set notify_horizon = interval '1 hour'")

    with worker(dsn, config, "--threads", "1", slow_disk=0.5) as running:
        until(lambda: waiting(conn))
        for number in range(3):
            put(conn, root, f"{number}")
            until(lambda: running.said.count("deleting slowly") == number + 1)  # noqa: B023
        until(lambda: empty(conn))


def test_a_nudge_that_comes_with_an_answer_is_not_lost(
    conn: psycopg.Connection, dsn: str, root: Path, config: Path
) -> None:
    """A file source queues another file in the very transaction by which the worker takes the first."""
    conn.execute("update lapse.setting set notify_horizon = interval '1 hour'")
    conn.execute(
        "create function public.one_more(text[], text[])"
        " returns table (storage text, path text, until timestamptz)"
        " language plpgsql security definer as $$ begin"
        "   if 'a' = any ($2) then perform lapse.enqueue_file('public', 'b'); end if;"
        " end $$;"
        "select lapse.register_file_source('more', 'public.one_more')"
    )
    (root / "b").write_text("x")

    with worker(dsn, config):
        until(lambda: waiting(conn))
        put(conn, root, "a")
        until(lambda: empty(conn) and not (root / "b").exists())
