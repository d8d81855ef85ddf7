"""A file source's functions never run with the engine's rights, whatever their owner makes of them later."""

import secrets
from collections.abc import Iterator
from contextlib import suppress

import psycopg
import pytest

from tests.support import shed
from tests.support.queue import enqueue, exchange, hand_in, result

PAIRS = "p_storages text[], p_paths text[]"
SPY = """
create or replace function {function}({arguments}) returns {result} language plpgsql security invoker as $$
begin
    insert into yard.seen values (current_user);
    return;
end;
$$
"""
KINDS = {
    "in_use": (PAIRS, "table (storage text, path text, until timestamptz)"),
    "known": (PAIRS, "table (storage text, path text)"),
    "listed": ("p_storage text, p_after text, p_limit integer", "table (path text)"),
    "removed": (f"{PAIRS}, p_claimed_at timestamptz[]", "table (storage text, path text)"),
}


@pytest.fixture
def author(conn: psycopg.Connection) -> Iterator[str]:
    """A role with a table of its own whose files are attached."""
    role = f"pglapse_test_author_{secrets.token_hex(4)}"
    conn.execute(f"create role {role}; create schema yard authorization {role}")
    conn.execute("select lapse.grant_author(%s)", [role])
    conn.execute(f"set role {role}")
    conn.execute(
        "create table yard.files (id int primary key, path text unique, state text, gone_at timestamptz);"
        "create table yard.seen (who name); grant insert on yard.seen to public;"
        "select lapse.attach_files('yard.files', 'path', 's', p_live_when => 'state is null',"
        "                          p_removed_column => 'gone_at')"
    )
    conn.execute("reset role")
    try:
        yield role
    finally:
        conn.execute(f"reset role; drop schema yard cascade; drop owned by {role}; drop role {role}")


@pytest.mark.parametrize("kind", KINDS)
def test_a_function_that_its_owner_makes_run_with_the_callers_rights_is_not_run(conn, author, kind):
    arguments, answer = KINDS[kind]
    (function,) = shed.column(
        conn, f"select {kind} from lapse.file_source where name = 'files_yard_files_path'"
    )
    conn.execute(f"set role {author}")
    conn.execute(SPY.format(function=function, arguments=arguments, result=answer))
    conn.execute("reset role")
    enqueue(conn, "a", "b")

    claimed = exchange(conn).claimed
    hand_in(conn, *(result(claim) for claim in claimed))
    for command in (
        "select lapse.unknown_files('s', '{x}')",
        "select lapse.listed_files('s')",
        f"set session authorization {author}; select lapse.detach_files('yard.files', 'path')",
    ):
        with suppress(psycopg.errors.DatabaseError):
            conn.execute(command)
        conn.execute("reset session authorization")

    assert shed.column(conn, "select who from yard.seen") == []
    if kind == "in_use":
        assert claimed == [], "a source that can't be asked is not taken for a no"


ARGUMENTS = "p_what text, p_after timestamptz, p_cutoff timestamptz, p_limit integer"


@pytest.mark.parametrize(
    "arguments",
    [
        f"{ARGUMENTS}, p_relation regclass default null, p_settings text[] default null",
        ARGUMENTS,
        f"{ARGUMENTS}, p_relation text default null, p_settings text[] default null",
    ],
    ids=["itself", "one with fewer arguments", "one with other types"],
)
def test_a_function_that_names_due_rows_is_not_run_with_the_engines_rights(conn, author, arguments):
    conn.execute(f"set role {author}")
    conn.execute("create table yard.due (id int primary key, due timestamptz)")
    conn.execute("create index on yard.due (due, id); insert into yard.due values (1, now())")
    conn.execute("select lapse.create_expiry('sweep_yard', 'yard.due', 'due')")
    conn.execute("reset role")
    function = shed.one(conn, "select lapse.due_function(p) from lapse.policy as p where name = 'sweep_yard'")
    conn.execute(f"set role {author}")
    conn.execute(SPY.format(function=function, arguments=arguments, result="setof lapse.due_row"))
    conn.execute("reset role")

    for command in (
        "select * from lapse.policy_status",
        "call lapse.run('sweep_yard')",
        "select lapse.due_keys('sweep_yard')",
        "select * from lapse.index_proof('sweep_yard')",
        "select * from lapse.preview('sweep_yard')",
        "select * from lapse.doctor()",
        "update lapse.policy_state set braked_at = now() where policy = 'sweep_yard'",
        "select * from lapse.release_brake('sweep_yard')",
    ):
        with suppress(psycopg.errors.DatabaseError):
            conn.execute(command)

    assert set(shed.column(conn, "select who from yard.seen")) <= {author}
    conn.execute("delete from lapse.policy where name = 'sweep_yard'")
