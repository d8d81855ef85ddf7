"""After a burst the queue's indexes come back to size, and nobody waits for it."""

import psycopg
import pytest

from tests.support.poll import until

INDEXES = "select pg_indexes_size('lapse.file_cleanup_queue')"


@pytest.fixture
def burst(conn: psycopg.Connection) -> int:
    """A queue whose indexes have grown, with ten rows left in it: their size."""
    # Autovacuum would be somebody at the table, at any moment.
    conn.execute("alter table lapse.file_cleanup_queue set (autovacuum_enabled = off)")
    conn.execute(
        "insert into lapse.file_cleanup_queue (storage, path, not_before)"
        " select 'public', 'burst/' || n, 'infinity' from generate_series(1, 10) as n"
    )
    with conn.transaction():  # as many entries as a burst leaves, without the rest of what a burst does
        conn.execute("set local session_replication_role = replica")
        conn.execute(
            "insert into lapse.file_cleanup_queue (storage, path, not_before)"
            " select 's', md5(n::text) || repeat('x', 100), now() from generate_series(1, 90000) as n"
        )
    conn.execute("delete from lapse.file_cleanup_queue where storage = 's'")

    def shrunk() -> bool:  # not before whoever analyzes another table of this database is done
        conn.execute("vacuum lapse.file_cleanup_queue")
        [(small,)] = conn.execute("select pg_relation_size('lapse.file_cleanup_queue') < 1000000")
        return bool(small)

    until(shrunk, what="vacuum to give the table's end back")
    [(size,)] = conn.execute(INDEXES)
    assert size > 8 * 1024 * 1024
    return size


def compact(conn: psycopg.Connection) -> int:
    """Run the policy; how much it says it did."""
    conn.execute("call lapse.run('compact_queue')")
    [(rows,)] = conn.execute("select last_rows from lapse.policy_state where policy = 'compact_queue'")
    return rows


def test_the_indexes_come_back_to_size_and_the_rows_stay(conn, burst):
    assert compact(conn) == 1

    [(size,)] = conn.execute(INDEXES)
    assert size < burst / 100
    conn.execute("set enable_seqscan = off")
    assert conn.execute(
        "select count(*) from lapse.file_cleanup_queue where storage = 'public'"
    ).fetchone() == (10,)
    assert compact(conn) == 0


def test_nobody_is_waited_for(conn, dsn, burst):
    with psycopg.connect(dsn) as application:
        application.execute("select lapse.enqueue_file('public', 'a')")

        conn.execute("select lapse.alter_policy('compact_queue', p_lock_timeout => '60 s')")
        conn.execute("set statement_timeout = '5 s'")
        assert compact(conn) == 0
        assert conn.execute(INDEXES).fetchone() == (burst,)

    assert conn.execute(
        "select last_status, consecutive_failures from lapse.policy_state where policy = 'compact_queue'"
    ).fetchone() == ("ok", 0)
    assert compact(conn) == 1


def test_a_queue_that_is_full_is_left_alone(conn, burst):
    conn.execute(
        "insert into lapse.file_cleanup_queue (storage, path, not_before)"
        " select 'public', 'later/' || n, 'infinity' from generate_series(1, 10000) as n"
    )

    assert compact(conn) == 0
