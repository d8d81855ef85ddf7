"""The index proof: what the planner says of a policy's exact statement, and what mends it."""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from psycopg import sql

from tests.support import databases, shed
from tests.support.poll import until
from tests.support.shed import column, one

BIG = 12_000  # rows of a table that no planner reads whole: more than a megabyte


@pytest.fixture(scope="module")
def dsn(server: str, template: str) -> Iterator[str]:
    """One database for this module; every test builds its shed afresh."""
    with databases.database(server, template) as own:
        yield own


@pytest.fixture
def conn(conn: psycopg.Connection) -> psycopg.Connection:
    shed.build(conn)
    conn.execute("alter table shed.things add column note text not null default repeat('x', 100)")
    return conn


def proof(conn: psycopg.Connection, name: str = "sweep") -> tuple:
    """ok, index_name, problem, statement."""
    return conn.execute(
        "select ok, index_name, problem, statement from lapse.index_proof(%s)", [name]
    ).fetchone()


def policy(conn: psycopg.Connection, table: str, key: list[str], due: str = "due", **options) -> None:
    """Policy ``sweep`` over any table; its step never runs here."""
    shed.policy(conn, target=False, p_target=table, p_key_columns=key, p_due_column=due, **options)


def mend(conn: psycopg.Connection, name: str = "sweep") -> list[str]:
    """Send the lines that a proof gives, each by itself, as it says."""
    lines = proof(conn, name)[3].split("\n")
    for line in lines:
        conn.execute(line)
    return lines


def fill(conn: psycopg.Connection, rows: int = BIG, table: str = "shed.things") -> None:
    conn.execute(
        f"insert into {table} (due) select now() + g * interval '1 s' from generate_series(1, {rows}) as g"
    )


def left_behind(conn: psycopg.Connection) -> list[tuple]:
    """Prepared statements, settings and locks that the session holds."""
    return conn.execute(
        "select name from pg_prepared_statements"
        " union all select name from pg_settings"
        "  where source = 'session'"
        "    and name <> all ('{search_path,client_min_messages,transaction_read_only}')"
        " union all select l.relation::regclass::text"
        "  from pg_locks as l join pg_class as c on c.oid = l.relation"
        "  where l.pid = pg_backend_pid() and c.relnamespace = 'shed'::regnamespace"
    ).fetchall()


def test_every_policy_that_comes_with_pglapse_has_its_proof_empty_filled_and_vacuumed(dsn, server, template):
    with (
        databases.database(server, template) as own,
        psycopg.connect(own, autocommit=True, options="-c search_path=") as conn,
    ):
        query = (
            "select p.name, i.problem"
            "  from lapse.policy as p cross join lateral lapse.index_proof(p.name) as i"
            " where p.target_table is not null and i.ok is not true"
        )
        assert conn.execute(query).fetchall() == []
        assert one(conn, "select count(*) from lapse.policy where target_table is not null") >= 14

        conn.execute("vacuum analyze")

        assert conn.execute(query).fetchall() == []


def test_a_proof_names_the_index_and_shows_the_plan_of_the_exact_statement(conn):
    shed.policy(conn)
    fill(conn)
    conn.execute("analyze shed.things")

    assert proof(conn) == (True, "things_due", None, None)
    plan = one(conn, "select plan from lapse.index_proof('sweep')")
    assert re.search(r"LockRows\n.*Index Scan using things_due on things t", plan, re.DOTALL)
    assert "(due >= $1) AND (due <= $2)" in plan


@pytest.mark.parametrize("rows", [0, 10, BIG])
@pytest.mark.parametrize("after", ["select", "vacuum analyze shed.things"])
def test_a_table_of_any_size_is_proved_with_and_without_statistics(conn, rows, after):
    shed.policy(conn)
    conn.execute("alter table shed.things set (autovacuum_enabled = off)")
    fill(conn, rows)
    conn.execute(after)

    assert proof(conn) == (True, "things_due", None, None)


@pytest.mark.parametrize("rows", [0, BIG])
def test_without_an_index_it_says_so_and_the_line_that_it_gives_mends_it(conn, rows):
    shed.policy(conn)
    fill(conn, rows)
    conn.execute("drop index shed.things_due")

    ok, index, problem, statement = proof(conn)

    assert (ok, index) == (False, None)
    assert problem == "shed.things is read from end to end: no index serves"
    assert statement == (
        "create index concurrently things_sweep_due on shed.things (due, id)"
        " where (status = 'active' and kind = 'thing');"
    )
    mend(conn)
    assert proof(conn) == (True, "things_sweep_due", None, None)


@pytest.mark.parametrize("rows", [0, BIG])
@pytest.mark.parametrize(
    ("index", "words"),
    [
        ("(due, id) where status = 'gone'", "no index serves"),
        ("(due, id) where status = 'active' and kind = 'other'", "no index serves"),
        ("(id, due)", "through all of index other: nothing in it leads to due"),
        ("(kind, status)", "nothing in it leads to due"),
        ("using brin (due)", ""),
        ("(lower(kind), due)", ""),
        ("using hash (due)", "no index serves"),
        ("(due nulls first, id)", "gives its rows in no order: all that is due is sorted"),
    ],
)
def test_an_index_that_can_not_lead_to_the_due_rows_does_not_count(conn, rows, index, words):
    shed.policy(conn)
    fill(conn, rows)
    conn.execute("drop index shed.things_due")
    using, columns = ("", index) if not index.startswith("using") else (index, "")
    conn.execute(f"create index other on shed.things {using}{columns}; analyze shed.things")

    ok, name, problem, _ = proof(conn)

    assert (ok, name) == (False, None)
    assert words in problem
    mend(conn)
    assert proof(conn)[:2] == (True, "things_sweep_due")


@pytest.mark.parametrize(
    "index",
    [
        "(due)",
        "(due, id)",
        "(due desc, id desc)",
        "(status, due, id)",
        "(due, note, id)",
        "(due) include (id)",
    ],
)
def test_an_index_of_another_shape_that_leads_there_counts(conn, index):
    shed.policy(conn)
    fill(conn)
    conn.execute(f"drop index shed.things_due; create index other on shed.things {index}")
    conn.execute("analyze shed.things")

    assert proof(conn) == (True, "other", None, None)


def test_an_invalid_index_does_not_count_and_is_built_anew_under_its_name(conn, dsn):
    shed.policy(conn)
    conn.execute("drop index shed.things_due")
    line = proof(conn)[3]
    # The transaction below is to stop the build, and no vacuum that holds the lock before it begins.
    conn.execute("alter table shed.things set (autovacuum_enabled = off)")
    with psycopg.connect(dsn) as blocker:
        blocker.execute("insert into shed.things (due) values (now())")
        conn.execute("set lock_timeout = '50 ms'")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            conn.execute(line)
        conn.execute("reset lock_timeout")

    ok, _, problem, _ = proof(conn)

    assert not ok
    assert "index things_sweep_due is not valid" in problem
    assert mend(conn) == ["reindex index concurrently shed.things_sweep_due;"]
    assert proof(conn) == (True, "things_sweep_due", None, None)


def test_a_name_that_is_taken_by_something_else_is_passed_over(conn):
    shed.policy(conn)
    conn.execute("drop index shed.things_due; create table shed.things_sweep_due ()")

    assert mend(conn)[0].startswith("create index concurrently things_sweep_due_2 on ")
    assert proof(conn)[:2] == (True, "things_sweep_due_2")


def test_quoted_and_long_names_work(conn):
    long = "Ä" * 31
    conn.execute(
        f"""
        create schema "Odd ""schema";
        create table "Odd ""schema"."{long}" ("The Key" text collate "C", "n'" int, "Due At" timestamptz,
                                              primary key ("The Key", "n'"));
        """
    )
    try:
        policy(conn, f'"Odd ""schema"."{long}"', ["The Key", "n'"], "Due At", p_predicate='"n\'" > 0 -- odd')

        line = proof(conn)[3]
        assert f'on "Odd ""schema"."{long}" ("Due At", "The Key", "n\'") where ("n\'" > 0 -- odd\n);' in line
        conn.execute(line)

        ok, index, problem, _ = proof(conn)
        assert (ok, problem) == (True, None)
        assert len(index.encode()) <= 63
    finally:
        conn.execute('drop schema "Odd ""schema" cascade; select lapse.drop_policy(\'sweep\')')


def test_a_text_key_whose_index_has_another_collation_is_still_taken_in_order(conn):
    conn.execute(
        """
        create table shed.texts (k text collate "C" primary key, due timestamptz not null, note text);
        create index texts_due on shed.texts (due, k collate "POSIX");
        insert into shed.texts
        select g, now() + g * interval '1 s', repeat('x', 100) from generate_series(1, 12000) as g;
        analyze shed.texts;
        """
    )
    policy(conn, "shed.texts", ["k"])

    assert proof(conn) == (True, "texts_due", None, None)


def partitioned(conn: psycopg.Connection, rows: int = 0) -> None:
    conn.execute(
        """
        create table shed.parts (id bigint, due timestamptz not null, note text default repeat('x', 100))
            partition by range (due);
        create table shed.part_1 partition of shed.parts for values from ('2026-01-01Z') to ('2026-02-01Z');
        create table shed.part_2 partition of shed.parts for values from ('2026-02-01Z') to ('2026-03-01Z')
            partition by hash (id);
        create table shed.part_2_0 partition of shed.part_2 for values with (modulus 2, remainder 0);
        create table shed.part_2_1 partition of shed.part_2 for values with (modulus 2, remainder 1);
        """
    )
    conn.execute(
        "insert into shed.parts select g, timestamptz '2026-01-15Z' + g * interval '100 s'"
        "  from generate_series(1, %s) as g",
        [rows],
    )
    policy(conn, "shed.parts", ["id"])


@pytest.mark.parametrize("rows", [0, 36_000])
def test_of_a_partitioned_table_each_partition_needs_the_index(conn, rows):
    partitioned(conn, rows)
    lines = mend(conn)
    assert [line.split(" on ")[0] for line in lines] == [
        "create index concurrently part_1_sweep_due",
        "create index concurrently part_2_0_sweep_due",
        "create index concurrently part_2_1_sweep_due",
        "create index parts_sweep_due",
    ]
    assert proof(conn) == (True, "part_1_sweep_due, part_2_0_sweep_due, part_2_1_sweep_due", None, None)
    assert one(conn, "select indisvalid from pg_index where indexrelid = 'shed.parts_sweep_due'::regclass")
    assert one(conn, "select count(*) from pg_index where indrelid = 'shed.part_1'::regclass") == 1


@pytest.mark.parametrize("rows", [0, 36_000])
def test_a_partition_without_the_index_is_named_and_no_other(conn, rows):
    partitioned(conn, rows)
    conn.execute(
        "create index on shed.part_1 (due, id); create index on shed.part_2_1 (due, id); analyze shed.parts"
    )

    ok, index, problem, statement = proof(conn)

    assert (ok, index) == (False, None)
    assert problem == "shed.part_2_0 is read from end to end: no index serves"
    assert statement == "create index concurrently part_2_0_sweep_due on shed.part_2_0 (due, id);"
    mend(conn)
    assert proof(conn)[0]


def test_many_partitions_are_summed_up(conn):
    conn.execute("create table shed.many (id bigint, due timestamptz) partition by list (id)")
    for number in range(6):
        conn.execute(f"create table shed.m{number} partition of shed.many for values in ({number})")
    policy(conn, "shed.many", ["id"])

    assert proof(conn)[2].endswith("; and 3 more partitions")
    mend(conn)
    assert proof(conn)[1] == "m0_sweep_due, m1_sweep_due, m2_sweep_due and 3 more"


def test_a_table_without_partitions_is_judged_by_the_index_that_the_first_one_comes_with(conn):
    conn.execute("create table shed.parted (id bigint, due timestamptz) partition by range (due)")
    policy(conn, "shed.parted", ["id"])

    assert proof(conn)[2] == "shed.parted has no partition yet, and no index for one to come with"
    assert mend(conn) == ["create index parted_sweep_due on shed.parted (due, id);"]
    assert proof(conn) == (True, "parted_sweep_due", None, None)


def test_children_by_inheritance_are_looked_at_too(conn):
    conn.execute("create table shed.child () inherits (shed.things)")
    shed.policy(conn)

    ok, _, problem, statement = proof(conn)

    assert (ok, problem) == (False, "shed.child is read from end to end: no index serves")
    assert " on shed.child (due, id) " in statement
    mend(conn)
    assert proof(conn)[:2] == (True, "child_sweep_due, things_due")


def test_a_large_table_that_the_planner_would_rather_read_whole_is_a_finding(conn, dsn):
    shed.policy(conn)
    fill(conn)
    conn.execute("analyze shed.things")
    name = sql.Identifier(conn.info.dbname)
    conn.execute(sql.SQL("alter database {} set random_page_cost = 1000000").format(name))
    try:
        with psycopg.connect(dsn, autocommit=True) as later:
            ok, index, problem, statement = proof(later)
            assert (ok, index) == (False, None)
            assert re.fullmatch(
                r"shed\.things \(\d+ kB\) is read from end to end although index things_due serves", problem
            )
            assert statement == (
                "alter function shed.sweep(integer,timestamp with time zone,timestamp with time zone)"
                " set enable_seqscan = off;"
            )
            later.execute(statement)
            assert proof(later) == (True, "things_due", None, None)
    finally:
        conn.execute(sql.SQL("alter database {} reset random_page_cost").format(name))


def test_the_settings_of_the_step_count_and_those_of_the_session_do_not(conn):
    shed.policy(conn)
    fill(conn)
    conn.execute("analyze shed.things; set enable_indexscan = off; set enable_bitmapscan = off")

    assert proof(conn)[:2] == (True, "things_due")

    step = "shed.sweep(integer, timestamptz, timestamptz)"
    conn.execute(f"alter function {step} set enable_indexscan = off")
    assert proof(conn)[0] is False
    conn.execute("drop index shed.things_due; set enable_seqscan = off; set enable_sort = off")
    assert "no index serves" in proof(conn)[2]
    conn.execute("reset all; set search_path = ''")


@pytest.mark.parametrize("readonly", [False, True])
def test_it_leaves_no_statement_no_setting_and_no_lock_behind(conn, readonly):
    shed.policy(conn)

    with conn.transaction():
        if readonly:
            conn.execute("set transaction read only")
        assert proof(conn)[0]
        assert left_behind(conn) == []
    assert left_behind(conn) == []


@pytest.mark.parametrize(
    "spoil",
    [
        "alter table shed.things drop column status",
        "alter table shed.things rename to other",
        "drop table shed.things",
        "drop function shed.sweep(integer, timestamptz, timestamptz)",
        "update lapse.policy set predicate = 'nonsense(' where name = 'sweep'",
    ],
)
def test_what_can_not_be_proved_is_said_and_nothing_stays_behind(conn, spoil):
    shed.policy(conn)
    conn.execute(spoil)

    with conn.transaction():
        ok, index, problem, statement = proof(conn)

        assert (ok, index, statement) == (False, None, None)
        assert problem
        assert left_behind(conn) == []


def test_a_proof_that_is_cancelled_leaves_nothing_behind(conn, dsn):
    partitioned(conn)  # partitions are locked by the planner, when the statement is prepared already
    with psycopg.connect(dsn) as other:
        other.execute("lock table shed.part_1 in access exclusive mode")
        conn.execute("set statement_timeout = '100 ms'")
        with pytest.raises(psycopg.errors.QueryCanceled):
            proof(conn)
        conn.execute("reset statement_timeout")

        assert left_behind(conn) == []
        assert proof(conn)[2] == "shed.parts is locked: try again later"
        assert left_behind(conn) == []


def test_a_predicate_that_nothing_can_meet_is_said(conn):
    shed.policy(conn, p_predicate="false")
    conn.execute("select lapse.alter_policy('sweep', p_predicate => 'false')")

    assert proof(conn)[2] == "shed.things is not read at all: no row can ever meet the predicate"


def test_a_policy_without_a_table_has_nothing_to_prove_and_an_unknown_one_is_an_error(conn):
    shed.policy(conn, target=False)

    words = "its step names no table to work on, so there is nothing to prove"
    assert proof(conn) == (None, None, words, None)
    for name in ("nothing", None):
        error = shed.fails(conn, "select lapse.index_proof(%s)", name)
        assert (error.sqlstate, bool(error.diag.message_hint)) == ("LP002", True)


def test_rows_that_row_level_security_hides_from_the_step_are_said(conn):
    role = f"pglapse_rls_{conn.info.backend_pid}"
    shed.policy(conn)
    conn.execute(
        f"""
        create role {role};
        grant usage on schema shed to {role};
        grant all on shed.things to {role};
        alter table shed.things enable row level security;
        create policy only_mine on shed.things using (kind = 'mine');
        alter function shed.sweep(integer, timestamptz, timestamptz) security definer;
        alter function shed.sweep(integer, timestamptz, timestamptz) owner to {role};
        """
    )
    try:
        ok, _, problem, statement = proof(conn)

        assert ok is False
        assert problem == f"row-level security (only_mine) would hide rows of shed.things from {role}"
        assert statement == f"alter role {role} bypassrls;"
        conn.execute(statement)
        assert proof(conn)[0]

        conn.execute(f"alter role {role} nobypassrls; alter table shed.things owner to {role}")
        assert proof(conn)[0], "an owner sees all"
        conn.execute("alter table shed.things force row level security")
        assert proof(conn)[3] == "alter table shed.things no force row level security;"
        conn.execute(proof(conn)[3])
        assert proof(conn)[0]
    finally:
        conn.execute("drop schema shed cascade")
        conn.execute(f"drop role {role}")


def test_an_observer_may_ask_without_any_right_on_the_table(conn):
    role = f"pglapse_see_{conn.info.backend_pid}"
    shed.policy(conn)
    conn.execute(f"create role {role}; select lapse.grant_observer('{role}')")
    try:
        conn.execute(f"set role {role}")
        assert proof(conn)[:2] == (True, "things_due")
    finally:
        conn.execute(f"reset role; drop owned by {role}; drop role {role}")


def test_the_daily_policy_fails_loudly_and_no_other_with_it(conn):
    for name in ("good", "bad", "resting"):
        shed.policy(conn, name)
    step = "lapse.prove_indexes"
    conn.execute(f"select lapse.create_policy('prove_indexes', '{step}', '1 day')")
    shed.run(conn, "prove_indexes")
    assert shed.state(conn, "last_status", "prove_indexes") == "ok"
    assert shed.log(conn) == []

    conn.execute("select lapse.alter_policy('bad', p_predicate => $$status = 'gone'$$)")
    conn.execute("select lapse.alter_policy('resting', p_predicate => $$status = 'gone'$$)")
    conn.execute("select lapse.pause('resting')")
    shed.make_due(conn)
    error = shed.fails(conn, "call lapse.run_due()")

    assert error.sqlstate == "LP006"
    assert shed.log(conn) == [("prove_indexes", "failed")]
    assert [shed.state(conn, "last_status", name) for name in ("good", "bad")] == ["ok", "ok"]
    ((code, message, hint),) = shed.log(conn, "sqlstate, message, hint")
    assert code == "LP030"
    assert message == "policy bad: shed.things is read from end to end: no index serves"
    line = "create index concurrently things_bad_due on shed.things (due, id) where (status = 'gone');"
    assert hint == f"Send each of these by itself: {line}"
    assert one(conn, "select last_error from lapse.policy_status where policy = 'prove_indexes'") == (
        f"LP030: {message}"
    )

    conn.execute(line)
    shed.run(conn, "prove_indexes")
    assert shed.state(conn, "last_status", "prove_indexes") == "ok"


def test_the_daily_policy_is_there_after_an_installation(server, template):
    with databases.database(server, template) as own, psycopg.connect(own, autocommit=True) as conn:
        conn.execute("call lapse.run('prove_indexes')")

        assert (
            conn.execute(
                "select s.last_status, p.every, p.at_time is not null from lapse.policy as p"
                "  join lapse.policy_state as s on s.policy = p.name where p.name = 'prove_indexes'"
            ).fetchone()[0]
            == "ok"
        )


def own_step(conn: psycopg.Connection, body: str, language: str = "sql") -> None:
    conn.execute(
        "create or replace function shed.sweep(p_limit integer, p_cutoff timestamptz, p_after timestamptz)"
        f" returns lapse.progress language {language} as $step$ {body} $step$"
    )


PICK = """
    with due as materialized (
        select t.id, t.due from shed.things as t
         where {state} and t.due >= p_after and t.due <= p_cutoff
         order by t.due, t.id limit p_limit for update of t skip locked
    ),
    gone as (delete from shed.things as t using due as d where {found} returning 1)
    select (select count(*) from due)::integer, (select count(*) from gone)::integer,
           (select max(due) from due)
"""
GOOD = PICK.format(state="t.status = 'active'", found="t.id = d.id")
REMARK = "The step's own statement was looked at, too."


def remark(conn: psycopg.Connection) -> str:
    return one(conn, "select plan from lapse.index_proof('sweep')").splitlines()[-1]


@pytest.mark.parametrize("rows", [0, BIG])
@pytest.mark.parametrize(
    ("state", "found", "words"),
    [
        ("t.status = lower('ACTIVE' || p_limit)", "t.id = d.id", "no index serves"),
        ("t.status = 'active'", "t.note = d.id::text", "no index serves"),
    ],
)
def test_a_step_that_picks_or_finds_its_rows_in_another_way_is_a_finding(conn, rows, state, found, words):
    shed.policy(conn)
    fill(conn, rows)
    own_step(conn, PICK.format(state=state, found=found))

    ok, _, problem, _ = proof(conn)

    assert ok is False
    assert problem.startswith("in a statement of step shed.sweep, shed.things is read from end to end")
    assert words in problem


@pytest.mark.parametrize(
    ("body", "language", "said"),
    [
        (GOOD, "sql", REMARK),
        (f"-- (a comment\n{GOOD};", "sql", REMARK),
        (f"declare v lapse.progress; begin {GOOD.rstrip()} into v; return v; end", "plpgsql", REMARK),
        ("begin return (0, 0, null)::lapse.progress; end", "plpgsql", "none was found that could be planned"),
        (
            "declare v_x int; begin perform 1 from (select from shed.things as t where t.id > v_x"
            " for update skip locked) as x; return (0, 0, null)::lapse.progress; end",
            "plpgsql",
            'column "v_x" does not exist',
        ),
        ("select (1, 1, null)::lapse.progress", "sql", "what was found of them does not read the table"),
    ],
)
def test_what_could_be_looked_at_of_a_step_is_said(conn, body, language, said):
    shed.policy(conn)
    fill(conn)
    own_step(conn, body, language)

    assert proof(conn) == (True, "things_due", None, None)
    assert said in remark(conn)
    assert left_behind(conn) == []


def test_somebody_elses_step_is_not_planned_with_the_rights_of_the_engine(conn):
    role = f"pglapse_else_{conn.info.backend_pid}"
    shed.policy(conn)
    own_step(conn, GOOD)
    conn.execute(f"create role {role}; alter function shed.sweep security definer")
    try:
        conn.execute(f"alter function shed.sweep owner to {role}")
        assert remark(conn).endswith("it is somebody else's.")
    finally:
        conn.execute(f"drop schema shed cascade; drop role {role}")


# Foreign keys without an index


def children(conn: psycopg.Connection, target: str) -> list[tuple]:
    return conn.execute(
        "select child::text, columns, statement from lapse.unindexed_children(%s::regclass)", [target]
    ).fetchall()


def test_children_of_the_marketplace_all_have_their_index(server, template):
    with databases.database(server, template) as own, psycopg.connect(own, autocommit=True) as conn:
        found = column(
            conn,
            "select u.statement from pg_class as c cross join lateral lapse.unindexed_children(c.oid) as u"
            " where c.relnamespace = 'market'::regnamespace and c.relkind = 'r'",
        )

    assert found == []


def test_a_foreign_key_without_an_index_is_named_with_the_line_that_mends_it(conn):
    conn.execute('create table shed."Odd Child" (id int, "Thing Id" bigint references shed.things)')

    assert children(conn, "shed.things") == [
        (
            'shed."Odd Child"',
            ["Thing Id"],
            'create index concurrently on shed."Odd Child" ("Thing Id");',
        )
    ]
    conn.execute(children(conn, "shed.things")[0][2])
    assert children(conn, "shed.things") == []


@pytest.mark.parametrize("action", ["no action", "restrict", "set null", "set default", "cascade"])
def test_whatever_the_foreign_key_does_it_needs_an_index(conn, action):
    conn.execute(f"create table shed.child (thing bigint references shed.things on delete {action})")

    assert [name for name, _, _ in children(conn, "shed.things")] == ["shed.child"]


@pytest.mark.parametrize(
    ("index", "serves"),
    [
        ("(thing)", True),
        ("(thing, id)", True),
        ("(thing) where thing is not null", True),
        ("using hash (thing)", True),
        ("(id, thing)", False),
        ("(thing) where id > 0", False),
        ("(thing) where thing is not null and id > 0", False),
        ("((thing + 0))", False),
        ("(id) include (thing)", False),
        ("using brin (thing)", False),
    ],
)
def test_only_an_index_that_serves_counts(conn, index, serves):
    conn.execute("create table shed.child (id int, thing bigint references shed.things)")
    conn.execute(f"create index on shed.child {index}")

    assert (children(conn, "shed.things") == []) is serves


def test_an_invalid_index_of_a_child_is_built_anew(conn):
    conn.execute(
        """
        create table shed.child (thing bigint references shed.things);
        create index child_thing on shed.child (thing);
        update pg_index set indisvalid = false where indexrelid = 'shed.child_thing'::regclass;
        """
    )

    assert children(conn, "shed.things")[0][2] == "reindex index concurrently shed.child_thing;"
    conn.execute(children(conn, "shed.things")[0][2])
    assert children(conn, "shed.things") == []


def test_of_several_columns_all_must_lead_in_any_order(conn):
    conn.execute(
        """
        create table shed.pair (a int, b text collate "C", primary key (a, b));
        create table shed.child (x int, b text collate "C", a int, foreign key (a, b) references shed.pair);
        create index on shed.child (a, x, b);
        create index on shed.child (a);
        create index on shed.child (b collate "POSIX", a);
        create index on shed.child (a, b) where a is not null and x is not null;
        """
    )
    assert [(name, names) for name, names, _ in children(conn, "shed.pair")] == [("shed.child", ["a", "b"])]

    conn.execute("create index on shed.child (b, a) where a is not null and b is not null")
    assert children(conn, "shed.pair") == []


def test_cascades_are_followed_and_nothing_else_is(conn):
    conn.execute(
        """
        create table shed.a (id int primary key, thing bigint references shed.things on delete cascade);
        create table shed.b (id int primary key, a int references shed.a on delete cascade);
        create table shed.c (id int primary key, b int references shed.b on delete set null);
        create table shed.d (id int primary key, c int references shed.c on delete cascade);
        """
    )

    assert [name for name, _, _ in children(conn, "shed.things")] == ["shed.a", "shed.b", "shed.c"]


def test_a_table_that_refers_to_itself_is_named_once(conn):
    conn.execute("create table shed.tree (id int primary key, up int references shed.tree on delete cascade)")

    assert [name for name, _, _ in children(conn, "shed.tree")] == ["shed.tree"]


def test_partitions_are_named_one_by_one_on_both_sides(conn):
    conn.execute(
        """
        create table shed.parent (id int primary key) partition by range (id);
        create table shed.parent_1 partition of shed.parent for values from (0) to (10);
        create table shed.kids (gone int, parent int references shed.parent on delete cascade)
            partition by list (parent);
        create table shed.kids_1 (parent int, gone int);
        alter table shed.kids attach partition shed.kids_1 for values in (1);
        create table shed.kids_2 partition of shed.kids for values in (2);
        create index on shed.kids_2 (parent);
        create table shed.toys (kid_parent int references shed.parent_1);
        """
    )

    found = children(conn, "shed.parent")
    assert found == [
        ("shed.kids_1", ["parent"], "create index concurrently on shed.kids_1 (parent);"),
        ("shed.toys", ["kid_parent"], "create index concurrently on shed.toys (kid_parent);"),
    ]
    for _, _, statement in found:
        conn.execute(statement)
    assert children(conn, "shed.parent") == []


def test_asking_takes_no_lock(conn, dsn):
    conn.execute("create table shed.child (thing bigint references shed.things)")
    with psycopg.connect(dsn) as other, ThreadPoolExecutor(1) as pool:
        other.execute("lock table shed.child, shed.things in access exclusive mode")

        assert pool.submit(children, conn, "shed.things").result(timeout=20)


def test_an_index_that_serves_only_later_transactions_is_built_all_the_same(conn, dsn):
    """Rows were updated while an older transaction looks on: whoever is as old may not use the index."""
    conn.execute("drop index shed.things_due")
    shed.add(conn, 3)
    with psycopg.connect(dsn) as older:
        older.execute("select pg_current_xact_id()")
        conn.execute("update shed.things set note = 'y'")
        conn.execute("select lapse.create_expiry('sweep', 'shed.things', 'due', p_index => 'build')")

        ok, _, problem, statement = proof(conn)
        assert (ok, statement) == (False, None)
        assert "serves as soon as the transactions that are older than it have ended" in problem

    # Those of other tests on this server count, too.
    until(lambda: proof(conn)[:2] == (True, "things_sweep_due"))
