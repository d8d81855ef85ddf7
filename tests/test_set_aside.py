"""Rows that make their batch fail: named, set aside, tried again; and a broken step told from bad rows."""

import threading
from datetime import timedelta

import psycopg
import pytest

from tests.support import databases, shed
from tests.support.poll import until


@pytest.fixture(scope="module")
def dsn(server, template):
    """One database for this module; every test builds its shed afresh."""
    with databases.database(server, template) as own:
        yield own


@pytest.fixture
def conn(conn):
    shed.build(conn)
    conn.execute("create table shed.bad (id bigint primary key, veto boolean not null)")
    conn.execute(
        """
        create function shed.judge() returns trigger language plpgsql as $$
        begin
            if exists (select from shed.bad as b where b.id = old.id and b.veto) then
                return null;
            elsif exists (select from shed.bad as b where b.id = old.id) then
                raise exception 'thing % is stuck', old.id;
            end if;
            return old;
        end
        $$;
        create trigger judge before delete on shed.things for each row execute function shed.judge();
        """
    )
    return conn


def bad(conn, ids, *, veto=False):
    conn.execute("insert into shed.bad select unnest(%s::bigint[]), %s", [ids, veto])


def blocked(conn, columns="key::bigint"):
    rows = conn.execute(f"select {columns} from lapse.blocked_row order by key::bigint").fetchall()
    return [row[0] if len(row) == 1 else row for row in rows]


@pytest.mark.parametrize("deferred", ["", "deferrable initially deferred"])
@pytest.mark.parametrize("position", [0, 699, 999])
def test_of_a_thousand_rows_the_one_that_is_referenced_is_set_aside_and_the_others_go(
    conn, deferred, position
):
    conn.execute(f"create table shed.parts (thing bigint references shed.things {deferred})")
    conn.execute("create index on shed.parts (thing)")
    shed.policy(conn)
    ids = shed.add(conn, 1000)
    conn.execute("insert into shed.parts values (%s)", [ids[position]])

    shed.run(conn)

    assert shed.left(conn) == [ids[position]]
    ((sqlstate, error, attempts, waits),) = blocked(conn, "sqlstate, error, attempts, retry_at - touched_at")
    assert (sqlstate, attempts, waits) == ("23503", 1, timedelta(hours=1))
    assert "parts_thing_fkey" in error
    assert shed.log(conn, "status, picked, handled, blocked") == [("ok", 999, 999, 1)]
    # Ten halvings down to the row, ten doublings up from it, and the batches that did the work.
    assert shed.one(conn, "select batches from lapse.run_log") <= 35


def test_rows_that_a_trigger_keeps_are_set_aside_and_nothing_spins(conn):
    shed.policy(conn)
    ids = shed.add(conn, 500)
    kept = [ids[0], ids[250], ids[499]]
    bad(conn, kept, veto=True)

    shed.run(conn)

    assert shed.left(conn) == kept
    assert blocked(conn, "key::bigint, sqlstate, error") == [
        (id, None, "a trigger or rule kept the row") for id in kept
    ]
    assert shed.log(conn, "status, handled, blocked") == [("ok", 497, 3)]
    assert shed.one(conn, "select batches from lapse.run_log") <= 20


def test_bad_rows_at_the_head_do_not_starve_the_rest(conn):
    shed.policy(conn)
    ids = shed.add(conn, 200)
    bad(conn, ids[:9])

    shed.run(conn)

    assert shed.left(conn) == ids[:9] == blocked(conn)
    assert shed.log(conn, "status, handled, blocked") == [("ok", 191, 9)]


def test_many_bad_rows_are_fine_as_long_as_others_go_between_them(conn):
    shed.policy(conn)
    ids = shed.add(conn, 120)
    bad(conn, ids[::4])

    shed.run(conn)

    assert blocked(conn) == ids[::4] == shed.left(conn)
    assert shed.log(conn, "status, handled, blocked") == [("ok", 90, 30)]


@pytest.mark.parametrize("veto", [False, True])
def test_ten_failing_rows_in_a_row_are_a_broken_step_and_are_not_set_aside(conn, veto):
    shed.policy(conn)
    ids = shed.add(conn, 20)
    bad(conn, [ids[0]])
    bad(conn, ids[2:13], veto=veto)

    error = shed.fails(conn, "call lapse.run('sweep')")

    assert error.sqlstate == "LP006"
    assert blocked(conn) == [ids[0]]
    assert ids[2:13] == [id for id in shed.left(conn) if id in ids[2:13]]
    assert ids[1] not in shed.left(conn)
    ((status, message, count),) = shed.log(conn, "status, message, blocked")
    assert (status, count) == ("failed", 1)
    assert "kept the row" in message if veto else "is stuck" in message
    assert shed.run_locks(conn) == 0


def test_a_step_that_is_broken_for_every_row_fails_however_few_are_due(conn):
    shed.policy(conn, extra="perform from shed.no_such_table;")
    shed.add(conn, 3)

    error = shed.fails(conn, "call lapse.run('sweep')")

    assert "42P01" in error.diag.message_detail
    assert blocked(conn) == []
    assert shed.log(conn, "status, sqlstate, blocked") == [("failed", "42P01", 0)]


def test_a_row_set_aside_is_left_out_until_its_retry_and_waits_twice_as_long_after_each(conn):
    shed.policy(conn)
    (id,) = shed.add(conn, 1)
    bad(conn, [id])
    waits = []

    for _ in range(7):
        shed.run(conn)
        shed.run(conn)
        waits += blocked(conn, "retry_at - touched_at")
        conn.execute("update lapse.blocked_row set retry_at = clock_timestamp()")

    assert [wait.total_seconds() / 3600 for wait in waits] == [1, 2, 4, 8, 16, 24, 24]
    assert blocked(conn, "attempts") == [7]
    assert shed.log(conn, "status, blocked") == [("ok", 1)] * 7


def test_a_row_that_goes_at_its_retry_is_forgotten_and_so_is_one_that_is_gone_by_then(conn):
    shed.policy(conn)
    ids = shed.add(conn, 3)
    bad(conn, ids)
    shed.run(conn)
    conn.execute("delete from shed.bad where id <> %s", [ids[2]])
    conn.execute("delete from shed.things where id = %s", [ids[1]])
    conn.execute("update lapse.blocked_row set retry_at = clock_timestamp()")

    shed.run(conn)

    assert shed.left(conn) == [ids[2]]
    assert blocked(conn, "key::bigint, attempts") == [(ids[2], 2)]


def test_retries_of_rows_already_set_aside_do_not_make_the_run_fail(conn):
    shed.policy(conn)
    ids = shed.add(conn, 30)
    bad(conn, ids[::2])
    shed.run(conn)
    conn.execute("update lapse.blocked_row set retry_at = clock_timestamp()")

    shed.run(conn)

    assert blocked(conn, "attempts") == [2] * 15
    assert [status for (status,) in shed.log(conn, "status")] == ["ok", "ok"]


def test_a_cutoff_in_the_future_does_not_meet_the_same_bad_row_again_and_again(conn):
    shed.policy(conn)
    ids = shed.add(conn, 5, ago="-1 hour")
    bad(conn, ids[:1])

    conn.execute("call lapse.run('sweep', now() + interval '30 days', true)")

    assert blocked(conn, "key::bigint, attempts") == [(ids[0], 1)]
    assert shed.left(conn) == ids[:1]


def test_beyond_a_thousand_blocked_rows_a_policy_fails(conn):
    shed.policy(conn)
    conn.execute(
        "insert into lapse.blocked_row (policy, key, error, run_id, retry_at)"
        " select 'sweep', -n, 'x', 0, 'infinity' from generate_series(1, 1000) n"
    )
    ids = shed.add(conn, 2)
    bad(conn, ids[:1])

    error = shed.fails(conn, "call lapse.run('sweep')")

    assert "1,000 rows are set aside already" in error.diag.message_detail
    assert len(blocked(conn)) == 1000


def test_a_key_too_long_to_be_set_aside_fails_its_policy_and_no_other(conn):
    shed.policy(conn, target=False, extra="perform 1 / (select count(*) - 1 from shed.long);")
    conn.execute(
        """
        create table shed.long (key bytea, due timestamptz not null);
        insert into shed.long
        select string_agg(sha256(n::text::bytea), '' order by n), now() from generate_series(1, 80) as n;
        select lapse.alter_policy('sweep', p_target => 'shed.long', p_key_columns => '{key}',
                                  p_due_column => 'due');
        """
    )
    shed.policy(conn, "other", kind="other")
    shed.add(conn, 3, kind="other")

    error = shed.fails(conn, "call lapse.run_due()")

    assert error.sqlstate == "LP006"
    assert "too long to set it aside" in error.diag.message_detail
    assert "division by zero" in error.diag.message_detail
    assert sorted(shed.log(conn)) == [("other", "ok"), ("sweep", "failed")]
    assert blocked(conn) == []


def test_without_a_target_a_failing_row_fails_the_run(conn):
    shed.policy(conn, target=False)
    ids = shed.add(conn, 5)
    bad(conn, ids[2:3])

    error = shed.fails(conn, "call lapse.run('sweep')")

    assert "is stuck" in error.diag.message_detail
    assert shed.left(conn) == ids
    assert blocked(conn) == []


@pytest.mark.parametrize("size", [2, 100])
def test_without_a_target_rows_that_a_trigger_keeps_fail_the_run_once_nothing_moves(conn, size):
    shed.policy(conn, target=False, p_batch_size=size)
    ids = shed.add(conn, 5)
    bad(conn, ids[1:2], veto=True)

    error = shed.fails(conn, "call lapse.run('sweep')")

    assert "were not changed" in error.diag.message_detail
    assert shed.left(conn) == ids[1:2]
    assert shed.one(conn, "select batches from lapse.run_log") < 10


def test_a_step_that_fails_on_a_row_outside_its_declared_target_fails_the_run(conn):
    shed.policy(conn)
    conn.execute("select lapse.alter_policy('sweep', p_predicate => 'false')")
    ids = shed.add(conn, 3)
    bad(conn, ids[:1])

    error = shed.fails(conn, "call lapse.run('sweep')")

    assert error.sqlstate == "LP006"
    assert blocked(conn) == []


def test_a_row_renewed_while_the_batch_waits_for_it_stays(conn, dsn):
    shed.policy(conn)
    ids = shed.add(conn, 2)

    with psycopg.connect(dsn) as renewer:
        renewer.execute("update shed.things set due = 'infinity' where id = %s", [ids[0]])
        shed.run(conn)
    shed.run(conn)

    assert shed.left(conn) == ids[:1]


def test_a_bad_row_that_is_unlocked_just_before_the_step_is_not_taken_for_the_next_one(conn, dsn):
    shed.policy(conn, p_batch_size=1)
    conn.execute("alter function shed.sweep rename to then_sweep")
    conn.execute(
        f"""
        create function shed.sweep(p_limit integer, p_cutoff timestamptz, p_after timestamptz)
            returns lapse.progress language plpgsql
        as $$ begin {shed.GATE} return shed.then_sweep(p_limit, p_cutoff, p_after); end $$
        """
    )
    ids = shed.add(conn, 3)
    bad(conn, ids[:1])

    with psycopg.connect(dsn) as holder, shed.gate_closed(dsn):
        holder.execute("select from shed.things where id = %s for update", [ids[0]])
        run = threading.Thread(target=call, args=[dsn, "call lapse.run('sweep')"])
        run.start()
        until(lambda: shed.waiting_pid(conn))
        holder.rollback()
    run.join()

    assert blocked(conn) == shed.left(conn) == ids[:1]


def call(dsn, command):
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(command)


def test_a_key_of_several_columns_names_the_row_too(conn):
    conn.execute(
        """
        create table shed.pairs (a text, b bytea, due timestamptz, primary key (a, b));
        insert into shed.pairs select 'a,"' || n, '\\x00ff', now() - interval '1 day' + n * interval '1 s'
          from generate_series(1, 3) n;
        create table shed.refs (a text, b bytea, foreign key (a, b) references shed.pairs);
        insert into shed.refs values ('a,"2', '\\x00ff');
        create function shed.pairs(p_limit integer, p_cutoff timestamptz, p_after timestamptz)
            returns lapse.progress language sql
        as $$
            with due as materialized (
                select p.a, p.b, p.due from shed.pairs as p
                 where p.due >= p_after and p.due <= p_cutoff
                   and not exists (select from lapse.blocked_row as b
                                    where b.policy = 'pairs' and b.key = array[p.a::text, p.b::text]::text
                                      and b.retry_at > p_cutoff)
                 order by p.due, p.a, p.b limit p_limit for update of p skip locked
            ), gone as (
                delete from shed.pairs as p using due as d where (p.a, p.b) = (d.a, d.b) returning 1
            )
            select (select count(*) from due)::integer, (select count(*) from gone)::integer,
                   (select max(due) from due)
        $$;
        select lapse.create_policy('pairs', 'shed.pairs', '1 min', p_target => 'shed.pairs',
                                   p_key_columns => '{a,b}', p_due_column => 'due');
        """
    )
    conn.execute("set bytea_output = 'escape'")

    shed.run(conn, "pairs")

    assert shed.column(conn, "select a from shed.pairs") == ['a,"2']
    assert shed.column(conn, "select key from lapse.blocked_row") == [r'{"a,\"2","\\x00ff"}']
