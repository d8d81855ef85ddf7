"""pglapse index: builds a policy's index beside the application, also after an interrupted try."""

import psycopg
import pytest

from tests.support import databases, shed
from tests.support.expiry import build, declare, running
from tests.support.running import pglapse

TABLES = """
create table app.sessions (
    id bigint generated always as identity primary key, expires_at timestamptz, state text
);
create table app.parts (id bigint, due timestamptz, primary key (id)) partition by hash (id);
create table app.parts_1 partition of app.parts for values with (modulus 2, remainder 0);
create table app.parts_2 partition of app.parts for values with (modulus 2, remainder 1)
    partition by hash (id);
create table app.parts_2_1 partition of app.parts_2 for values with (modulus 1, remainder 0);
"""


@pytest.fixture(scope="module")
def dsn(server, template):
    with databases.database(server, template) as own:
        yield own


@pytest.fixture
def conn(conn):
    build(conn, TABLES)
    return conn


def runs(conn: psycopg.Connection, name: str) -> bool:
    ok, enabled = conn.execute(
        "select i.ok, p.enabled from lapse.policy as p, lapse.index_proof(p.name) as i where p.name = %s",
        [name],
    ).fetchone()
    assert ok in (True, False)
    return bool(ok and enabled)


def test_an_index_left_for_later_is_built_and_the_policy_resumed(conn, dsn):
    declare(conn, p_predicate="state = 'open'", p_index="later")
    before = runs(conn, "sessions")

    done = pglapse(dsn, "index", "sessions")
    again = pglapse(dsn, "index", "sessions")

    assert not before
    assert done.returncode == 0, done.stderr
    assert "create index concurrently" in done.stdout
    assert "policy sessions runs" in done.stdout
    assert runs(conn, "sessions")
    assert again.returncode == 0
    assert "create index" not in again.stdout


def test_what_an_interrupted_try_left_behind_is_removed(conn, dsn):
    declare(conn, p_index="later")
    (line,) = shed.column(conn, "select statement from lapse.index_proof('sessions')")
    with psycopg.connect(dsn) as writer, psycopg.connect(dsn, autocommit=True) as builder:
        # A build waits for transactions that began before it; this one is cut short while it does.
        writer.execute("insert into app.sessions (expires_at) values (now())")
        with running(builder, line, fails="57014"):
            databases.until(conn, "select count(*) from pg_index where not indisvalid", 1)
            conn.execute("select pg_cancel_backend(%s)", [builder.info.backend_pid])
    left = shed.column(conn, "select indexrelid::regclass::text from pg_index where not indisvalid")

    done = pglapse(dsn, "index", "sessions")

    assert len(left) == 1
    assert done.returncode == 0, done.stderr
    assert "drop index concurrently" in done.stdout
    assert shed.column(conn, "select count(*) from pg_index where not indisvalid") == [0]
    assert runs(conn, "sessions")


def test_partitions_get_theirs_one_by_one(conn, dsn):
    declare(conn, p_name="parts", p_target="app.parts", p_due_column="due", p_index="later")

    done = pglapse(dsn, "index", "parts", "--no-resume")

    assert done.returncode == 0, done.stderr
    assert done.stdout.count("create index concurrently") == 2
    assert not runs(conn, "parts")
    assert shed.column(conn, "select ok from lapse.index_proof('parts')") == [True]


def test_what_can_not_be_is_said_in_one_line(conn, dsn):
    conn.execute("select lapse.create_policy('plain', 'lapse.prune_workers', '1 hour')")
    declare(conn, p_index="later")
    with psycopg.connect(dsn) as other:
        other.execute("select pg_advisory_lock(1818324343, hashtext('sessions'))")
        busy = pglapse(dsn, "index", "sessions")

    for done, code, words in (
        (pglapse(dsn, "index", "nothing"), 2, "there is no policy nothing"),
        (pglapse(dsn, "index", "plain"), 1, "names no table"),
        (busy, 1, "being built by another session"),
    ):
        assert (done.returncode, done.stdout) == (code, "")
        assert words in done.stderr
        assert done.stderr.count("\n") == 1
