"""A table of things that lapse and step functions over it, for tests of the engine alone.

The step deletes what is due, in the shape that docs recommend. Before it does, it enters itself in
``shed.calls`` and waits for whoever holds ``shed.gate``, so that a test can look at a run from outside.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

SCHEMA = """
drop schema if exists shed cascade;
delete from lapse.policy;
truncate lapse.run_log, lapse.tick_source;
create schema shed;
create table shed.things (
    id     bigint generated always as identity primary key,
    due    timestamptz not null,
    kind   text        not null default 'thing',
    status text        not null default 'active'
);
create index things_due on shed.things (due, id) where status = 'active';
create table shed.calls (id bigint generated always as identity, policy text, rows int, limit_was int);
create table shed.gate ();
"""

STEP = """
create or replace function shed.{policy}(p_limit integer, p_cutoff timestamptz, p_after timestamptz)
    returns lapse.progress language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
    v_progress lapse.progress;
begin
    with due as materialized (
        select t.id, t.due from shed.things as t
         where t.status = 'active' and t.kind = '{kind}' and t.due >= p_after and t.due <= p_cutoff
           and not exists (select from lapse.blocked_row as b
                            where b.policy = '{policy}' and b.key = t.id::text and b.retry_at > p_cutoff)
         order by t.due, t.id limit p_limit for update of t skip locked
    ),
    gone as (
        delete from shed.things as t using due as d where t.id = d.id and t.status = 'active' returning 1
    )
    select (select count(*) from due), (select count(*) from gone), (select max(due) from due)
      into v_progress;
    insert into shed.calls (policy, rows, limit_was) values ('{policy}', v_progress.handled, p_limit);
    {extra}
    return v_progress;
end;
$$;
"""

GATE = "lock table shed.gate in access share mode;"


def build(conn: psycopg.Connection[Any]) -> None:
    """Make the shed afresh, in a database without any other policy and without history."""
    conn.execute("set client_min_messages = warning")
    conn.execute(SCHEMA)
    conn.execute("reset client_min_messages")


def step(conn: psycopg.Connection[Any], policy: str, *, kind: str = "thing", extra: str = "") -> None:
    """Make the step function ``shed.POLICY``; ``extra`` is plpgsql that it runs at its end."""
    conn.execute(STEP.format(policy=policy, kind=kind, extra=extra))


def policy(
    conn: psycopg.Connection[Any],
    name: str = "sweep",
    *,
    kind: str = "thing",
    extra: str = "",
    target: bool = True,
    every: str = "5 min",
    **options: Any,
) -> None:
    """Make a step and a policy that runs it, patient at the gate; ``options`` go to lapse.create_policy."""
    options.setdefault("p_lock_timeout", "30 s")
    step(conn, name, kind=kind, extra=extra)
    if target:
        options |= {
            "p_target": "shed.things",
            "p_key_columns": ["id"],
            "p_due_column": "due",
            "p_predicate": f"status = 'active' and kind = '{kind}'",
        }
    named = "".join(f", {key} => %({key})s" for key in options)
    conn.execute(
        f"select lapse.create_policy(%(name)s, %(step)s, %(every)s::interval{named})",
        {"name": name, "step": f"shed.{name}", "every": every, **options},
    )


def add(conn: psycopg.Connection[Any], count: int, *, kind: str = "thing", ago: str = "1 day") -> list[int]:
    """Add things that fell due one after the other, the first one ``ago``; returns their ids, in order."""
    rows = conn.execute(
        "insert into shed.things (due, kind)"
        " select clock_timestamp() - %s::interval + n * interval '1 ms', %s"
        "  from generate_series(1, %s) as n order by n returning id",
        [ago, kind, count],
    )
    return [id for (id,) in rows]


def left(conn: psycopg.Connection[Any], kind: str = "thing") -> list[int]:
    """The ids of the things that are still there."""
    return column(conn, "select id from shed.things where kind = %s order by id", kind)


def one(conn: psycopg.Connection[Any], query: str, *values: Any) -> Any:
    """The only value of the only row."""
    ((value,),) = conn.execute(query, values).fetchall()
    return value


def column(conn: psycopg.Connection[Any], query: str, *values: Any) -> list[Any]:
    """The only column, as a list."""
    return [value for (value,) in conn.execute(query, values)]


def log(conn: psycopg.Connection[Any], columns: str = "policy, status") -> list[tuple[Any, ...]]:
    """The run history, oldest first."""
    return conn.execute(f"select {columns} from lapse.run_log order by id").fetchall()


def state(conn: psycopg.Connection[Any], what: str, name: str = "sweep") -> Any:
    """One expression over a policy's state."""
    return one(conn, f"select {what} from lapse.policy_state where policy = %s", name)


def run(conn: psycopg.Connection[Any], name: str = "sweep") -> None:
    conn.execute("call lapse.run(%s)", [name])


def fails(conn: psycopg.Connection[Any], command: str, *values: Any) -> psycopg.Error:
    """Run a command that must fail; returns its error."""
    with pytest.raises(psycopg.Error) as caught:
        conn.execute(command, values)
    return caught.value


def make_due(conn: psycopg.Connection[Any]) -> None:
    """Let every policy's next run be due now, as if its time had come."""
    conn.execute("update lapse.policy_state set next_run_at = clock_timestamp(), slot_at = clock_timestamp()")


def run_locks(conn: psycopg.Connection[Any]) -> int:
    """How many runs' advisory locks are held in this database."""
    return one(
        conn,
        "select count(*) from pg_locks where locktype = 'advisory' and classid = 1818324339"
        "   and database = (select oid from pg_database where datname = current_database())",
    )


@contextmanager
def gate_closed(dsn: str) -> Iterator[psycopg.Connection[Any]]:
    """Keep steps that pass the gate waiting, until the end of the block or a commit of the connection."""
    with psycopg.connect(dsn) as keeper:
        keeper.execute("lock table shed.gate in access exclusive mode")
        yield keeper


def waiting_pid(conn: psycopg.Connection[Any]) -> int | None:
    """The process that waits at the gate, if one does."""
    row = conn.execute(
        "select pid from pg_locks where relation = 'shed.gate'::regclass and not granted limit 1"
    ).fetchone()
    return row[0] if row else None
