"""The preview: what a policy would do, what goes along, what stands in the way, and what can't be told."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from pglapse import preview
from tests.support import databases, pages, shed
from tests.support.install import ROOT
from tests.support.running import pglapse
from tests.support.shed import one


@pytest.fixture(scope="module")
def dsn(server: str, template: str) -> Iterator[str]:
    """One database for this module; every test builds its shed afresh."""
    with databases.database(server, template) as own:
        yield own


@pytest.fixture
def conn(conn: psycopg.Connection) -> psycopg.Connection:
    shed.build(conn)
    shed.policy(conn)
    return conn


def look(conn: psycopg.Connection, name: str = "sweep", bound: int = 100_000) -> dict[str, Any]:
    """The preview as programs get it, in a transaction that may not write and keeps no lock of ours."""
    with conn.transaction():
        conn.execute("set transaction read only")
        document = one(conn, "select lapse.preview_json(%s, %s)", name, bound)
        held = conn.execute(
            "select l.relation::regclass::text, l.mode"
            "  from pg_locks as l join pg_class as c on c.oid = l.relation"
            " where l.pid = pg_backend_pid() and c.relnamespace = 'shed'::regnamespace"
        ).fetchall()
    assert held == []
    return document


def along(document: dict[str, Any]) -> dict[str, tuple]:
    """What goes along: table → (effect, rows, at least)."""
    return {
        child["relation"]: (child["on_delete"], child["rows"], child["at_least"])
        for child in document["children"]
    }


def due(document: dict[str, Any]) -> dict[str, Any]:
    return {
        horizon: f"at least {count['rows']}" if count["at_least"] else count["rows"]
        for horizon, count in document["due"].items()
    }


def lines(conn: psycopg.Connection, name: str = "sweep") -> dict[str, str]:
    """The preview as people get it in psql; of several lines about one thing, the last."""
    return dict(conn.execute("select what, says from lapse.preview(%s)", [name]).fetchall())


def test_it_counts_what_is_due_now_and_soon(conn):
    shed.add(conn, 2, ago="3 days")
    shed.add(conn, 1, ago="-30 min")
    shed.add(conn, 1, ago="-5 hours")
    shed.add(conn, 1, ago="-6 days")
    shed.add(conn, 3, ago="-8 days")
    shed.add(conn, 2, kind="other")

    found = look(conn)

    assert due(found) == {"now": 2, "1 hour": 3, "24 hours": 4, "7 days": 5}
    assert found["table"] == {"rows": 10, "estimated": False}
    assert found["share"] == 0.2
    assert one(conn, "select %s::timestamptz between now() - '73 h'::interval and now() - '71 h'::interval",
               found["oldest_due"])  # fmt: skip
    assert (found["findings"], found["not_known"], found["deletes"]) == ([], [], True)
    assert found["index"]["index_name"] == "things_due"
    assert preview.clear(found)


def test_nothing_is_changed_and_no_row_is_gone(conn):
    ids = shed.add(conn, 3)

    look(conn)

    assert shed.left(conn) == ids
    assert shed.column(conn, "select rows from shed.calls") == []


def test_counting_stops_at_the_bound(conn):
    shed.add(conn, 20)
    conn.execute("create table shed.child (thing bigint references shed.things on delete cascade)")
    conn.execute("insert into shed.child select id from shed.things, generate_series(1, 3)")
    conn.execute("create index on shed.child (thing)")
    conn.execute("create table shed.a_few (thing bigint references shed.things on delete cascade)")
    conn.execute("insert into shed.a_few select id from shed.things order by id limit 5")
    conn.execute("create index on shed.a_few (thing)")
    conn.execute("vacuum analyze shed.things")

    found = look(conn, bound=10)

    assert due(found) == dict.fromkeys(("now", "1 hour", "24 hours", "7 days"), "at least 10")
    assert along(found) == {"shed.child": ("cascade", 10, True), "shed.a_few": ("cascade", 5, True)}
    assert found["table"] == {"rows": 20, "estimated": True}
    assert found["estimate"]["at_least"] is True
    assert due(look(conn, bound=20))["now"] == 20


@pytest.mark.parametrize("bound", [0, -1, 1_000_001, None])
def test_a_bound_out_of_range_is_refused(conn, bound):
    error = shed.fails(conn, "select lapse.preview_json('sweep', %s::integer)", bound)

    assert (error.sqlstate, bool(error.diag.message_hint)) == ("LP001", True)


def test_an_unknown_policy_is_an_error(conn):
    for name in ("nothing", None):
        for function in ("preview", "preview_json"):
            assert shed.fails(conn, f"select lapse.{function}(%s)", name).sqlstate == "LP002"


def test_cascades_are_counted_three_deep_and_by_what_they_do(conn):
    ids = shed.add(conn, 2)
    conn.execute(
        """
        create table shed.a (id int primary key, thing bigint references shed.things on delete cascade);
        create table shed.b (id int primary key, a int references shed.a on delete cascade);
        create table shed."C d" (id int primary key, "B id" int references shed.b on delete set null);
        create table shed.e (b int references shed.b on delete restrict);
        create table shed.f (a int references shed.a on delete set default);
        create table shed.g (g_to_c int references shed."C d" on delete cascade);
        create index on shed.a (thing); create index on shed.b (a); create index on shed."C d" ("B id");
        create index on shed.e (b); create index on shed.f (a);
        """
    )
    conn.execute("insert into shed.a select g, %s from generate_series(1, 3) as g", [ids[0]])
    conn.execute("insert into shed.a values (100, null)")
    conn.execute("insert into shed.b select g, 1 + g %% 3 from generate_series(1, 10) as g", [])
    conn.execute('insert into shed."C d" select g, 1 + g % 10 from generate_series(1, 25) as g')
    conn.execute("insert into shed.e values (1), (null); insert into shed.f values (1), (100)")
    conn.execute('insert into shed.g select id from shed."C d"')

    found = look(conn)

    assert along(found) == {
        "shed.a": ("cascade", 3, False),
        "shed.b": ("cascade", 10, False),
        'shed."C d"': ("set null", 25, False),
        "shed.e": ("restrict", 1, False),
        "shed.f": ("set default", 1, False),
    }
    assert found["findings"] == [
        "1 rows of shed.e stand in the way (e_b_fkey, restrict):"
        " the rows that they refer to will be set aside"
    ]


def test_a_row_that_goes_by_another_way_is_not_in_the_way(conn):
    ids = shed.add(conn, 1)
    conn.execute(
        """
        create table shed.a (id int primary key, thing bigint references shed.things on delete cascade);
        create table shed.b (a int references shed.a, thing bigint references shed.things on delete cascade);
        create index on shed.a (thing); create index on shed.b (a); create index on shed.b (thing);
        """
    )
    conn.execute("insert into shed.a values (1, %s)", [ids[0]])
    conn.execute("insert into shed.b values (1, %s)", [ids[0]])
    assert look(conn)["findings"] == []
    conn.execute("insert into shed.b values (1, null)")

    (finding,) = look(conn)["findings"]

    assert finding.startswith("1 rows of shed.b stand in the way (b_a_fkey, no action)")
    assert isinstance(shed.fails(conn, "delete from shed.things"), psycopg.errors.ForeignKeyViolation)


def test_a_table_that_refers_to_itself_is_followed_to_its_end(conn):
    conn.execute(
        """
        create table shed.tree (id int primary key, due timestamptz not null default 'infinity',
                                up int references shed.tree on delete cascade);
        create index on shed.tree (due, id); create index on shed.tree (up);
        insert into shed.tree (id, up) select g, nullif(g / 2, 0) from generate_series(1, 63) as g;
        update shed.tree set up = 63 where id = 1;
        update shed.tree set due = now() - interval '1 h' where id = 2;
        select lapse.create_policy('trees', 'shed.sweep', '1 min', p_target => 'shed.tree',
                                   p_key_columns => '{id}', p_due_column => 'due');
        alter function shed.sweep rename to sweep_trees;
        create or replace function shed.sweep(p_limit integer, p_cutoff timestamptz, p_after timestamptz)
            returns lapse.progress language sql
            as $$ delete from shed.tree; select (0, 0, null)::lapse.progress $$;
        """
    )

    found = look(conn, "trees")
    conn.execute("delete from shed.tree where id = 2")

    gone = 63 - one(conn, "select count(*) from shed.tree")
    assert along(found) == {"shed.tree": ("cascade", gone - 1, False)}


def test_partitions_and_keys_of_several_columns_are_followed(conn):
    conn.execute(
        """
        create table shed.parts (tenant text collate "C", id uuid default gen_random_uuid(),
                                 due timestamptz not null, primary key (tenant, id, due))
            partition by range (due);
        create table shed.part_1 partition of shed.parts for values from ('-infinity') to ('2026-01-01');
        create table shed.part_2 partition of shed.parts default;
        create index on shed.parts (due, tenant, id);
        create table shed.kids (id int, due timestamptz, tenant text, parent uuid,
                                foreign key (tenant, parent, due) references shed.parts on delete cascade)
            partition by hash (id);
        create table shed.kids_1 partition of shed.kids for values with (modulus 2, remainder 0);
        create table shed.kids_2 partition of shed.kids for values with (modulus 2, remainder 1);
        create index on shed.kids (tenant, parent, due);
        insert into shed.parts (tenant, due)
        select 'it''s {"' || g, timestamptz '2025-12-30' + g * interval '6 h'
          from generate_series(1, 20) as g;
        insert into shed.kids
        select g, p.due, p.tenant, p.id from shed.parts as p, generate_series(1, 4) as g;
        """
    )
    conn.execute(
        "select lapse.create_policy('parts', 'shed.sweep', '1 min', p_target => 'shed.parts',"
        " p_key_columns => '{tenant,id}', p_due_column => 'due', p_predicate => $$tenant <> 'it''s {\"1'$$)"
    )
    conn.execute("update lapse.policy set step = 'shed.sweep'")

    conn.execute(
        "create or replace function shed.sweep(p_limit integer, p_cutoff timestamptz, p_after timestamptz)"
        ' returns lapse.progress language plpgsql as $$ begin delete from only shed . "parts"; end $$'
    )
    found = look(conn, "parts")

    assert found["due"]["now"]["rows"] == 19
    assert along(found) == {"shed.kids": ("cascade", 76, False)}


def test_a_step_that_deletes_nothing_takes_nothing_along(conn):
    shed.add(conn, 1)
    conn.execute("create table shed.child (thing bigint references shed.things)")
    conn.execute(
        "create or replace function shed.sweep(p_limit integer, p_cutoff timestamptz, p_after timestamptz)"
        " returns lapse.progress language sql as"
        " $$ update shed.things set status = 'gone'; select (0, 0, null)::lapse.progress $$"
    )

    found = look(conn)

    assert (found["deletes"], found["children"], found["findings"]) == (False, None, [])


def test_where_it_can_not_be_read_what_a_step_does_children_are_shown_and_no_fault_is_found(conn):
    shed.add(conn, 1)
    conn.execute("create table shed.child (thing bigint references shed.things on delete cascade)")
    conn.execute(
        "create or replace function shed.sweep(p_limit integer, p_cutoff timestamptz, p_after timestamptz)"
        " returns lapse.progress language plpgsql as"
        " $$ begin delete from shed.things_of_others; return (0, 0, null)::lapse.progress; end $$"
    )

    found = look(conn)

    assert (found["deletes"], found["findings"]) == (None, [])
    assert along(found) == {"shed.child": ("cascade", 0, False)}


def test_an_unindexed_child_and_a_lost_index_are_findings_with_the_line_that_mends_them(conn):
    shed.add(conn, 1)
    conn.execute("create table shed.child (thing bigint references shed.things on delete cascade)")
    conn.execute("drop index shed.things_due")

    first, second = look(conn)["findings"]

    assert first.startswith("shed.things is read from end to end: no index serves Mend: create index conc")
    assert second == (
        "no index serves child_thing_fkey of shed.child, which is read whole for each row deleted."
        " Mend: create index concurrently on shed.child (thing);"
    )


def test_a_large_child_without_an_index_is_not_counted(conn):
    shed.add(conn, 1)
    conn.execute("create table shed.child (thing bigint references shed.things on delete cascade, x text)")
    conn.execute("alter table shed.child alter x set storage plain")
    conn.execute(
        "insert into shed.child select null, repeat('x', 8000) from generate_series(1, 8500)"
    )  # a page each

    found = look(conn)

    assert [child["note"] for child in found["children"]] == ["not counted: it is large, and no index serves"]
    assert found["not_known"] == [
        "rows of shed.child (child_thing_fkey): not counted: it is large, and no index serves"
    ]
    conn.execute("create index on shed.child (thing)")
    assert along(look(conn)) == {"shed.child": ("cascade", 0, False)}


def test_rows_that_are_set_aside_are_not_due_and_are_told(conn):
    ids = shed.add(conn, 3)
    conn.execute(
        "insert into lapse.blocked_row (policy, key, error, run_id, retry_at)"
        " values ('sweep', %s, 'x', 1, now() + interval '2 hours')",
        [str(ids[0])],
    )

    found = look(conn)

    assert due(found) == {"now": 2, "1 hour": 2, "24 hours": 3, "7 days": 3}
    assert found["blocked_rows"] == 1


def test_the_estimate_comes_from_the_history_or_from_a_rule_that_it_names(conn):
    conn.execute("select lapse.alter_policy('sweep', p_batch_size => 10, p_max_runtime => '1 s')")
    shed.add(conn, 95)
    conn.execute("update lapse.policy_state set batch_limit = 10 where policy = 'sweep'")
    assert look(conn)["estimate"] == {
        "batches": 10,
        "seconds": 2.0,
        "runs": 2,
        "at_least": False,
        "basis": "no run that changed rows is on record; 200 ms for a batch of 10",
    }

    conn.execute(
        """
        insert into lapse.run_log (policy, source, status, started_at, finished_at, batches, handled)
        values ('sweep', 'manual', 'ok', now() - interval '30 s', now() - interval '20 s', 4, 100),
               ('sweep', 'manual', 'failed', now() - interval '30 s', now() - interval '20 s', 4, 1),
               ('other', 'manual', 'ok', now() - interval '30 s', now() - interval '20 s', 4, 1)
        """
    )

    found = look(conn)["estimate"]
    assert (found["batches"], found["seconds"], found["runs"]) == (4, 9.5, 10)
    assert found["basis"] == "the last runs on record (1): 10.00 rows a second, 25.00 a batch"


def test_triggers_that_queue_files_by_rules_of_their_own_are_named_and_not_guessed_at(server, template):
    with databases.database(server, template) as own, psycopg.connect(own, autocommit=True) as conn:
        conn.execute(
            """
            insert into market.users (email, display_name) values ('x', 'x');
            insert into market.temp_uploads (user_id, storage, path, expires_at)
            select id, 'public', 'a', now() - interval '1 s' from market.users
            """
        )
        (uploads,) = one(conn, "select lapse.preview_json('expire_temp_uploads')")["not_known"]
        tasks = one(conn, "select lapse.preview_json('cancel_expired_tasks')")

    assert uploads == (
        "files: trigger queue_left_uploads_delete of market.temp_uploads queues some, by a rule of its own"
    )
    assert tasks["not_known"] == [], "nothing is due"


def test_a_policy_without_a_table_says_so_and_is_not_in_anybodys_way(conn):
    conn.execute("select lapse.create_policy('blind', 'shed.sweep', '1 min')")

    found = look(conn, "blind")

    assert (found["due"], found["findings"]) == ({}, [])
    assert found["not_known"][0].startswith("what is due: the policy names no table")
    assert preview.clear(found)


def test_a_table_that_is_gone_is_a_finding(conn):
    conn.execute("drop table shed.things")

    found = look(conn)

    assert found["findings"] == ["there is no table shed.things"]
    assert lines(conn)["table"] == "shed.things"
    assert not preview.clear(found)


def test_a_locked_table_is_told_and_waited_for_no_longer_than_a_moment(conn, dsn):
    shed.add(conn, 1)
    with psycopg.connect(dsn) as other:
        other.execute("lock table shed.things in access exclusive mode")
        found = look(conn)

    assert found["due"] == {}
    assert "rows due: shed.things can't be counted now: locked, or closed to the engine" in found["not_known"]
    assert "shed.things is locked: try again later" in found["findings"]
    assert not preview.clear(found)


def test_a_child_that_is_locked_is_waited_for_no_longer_than_a_moment(conn, dsn):
    shed.add(conn, 1)
    conn.execute("create table shed.child (thing bigint references shed.things on delete cascade)")
    conn.execute("create index on shed.child (thing)")
    with psycopg.connect(dsn) as other:
        other.execute("lock table shed.child in access exclusive mode")
        conn.execute("set statement_timeout = '30 s'")
        found = look(conn)
        conn.execute("reset statement_timeout")

    assert due(found)["now"] == 1
    assert [line.split(":")[0] for line in found["not_known"]] == ["what refers to the table"]
    assert preview.clear(found)


def test_a_statement_timeout_is_told_and_what_was_found_is_shown(conn, dsn):
    shed.add(conn, 1)
    conn.execute("create table shed.child (thing bigint references shed.things on delete cascade)")
    conn.execute("create index on shed.child (thing)")
    with psycopg.connect(dsn) as other:
        other.execute("lock table shed.child in access exclusive mode")
        conn.execute("set statement_timeout = '900 ms'")
        found = look(conn)
        conn.execute("reset statement_timeout")

    (line,) = found["not_known"]
    assert line.endswith(", and what comes after it: statement_timeout (00:00:00.9) struck")
    assert line.startswith("what refers to the table") or due(found).get("now", 1) == 1  # a busy machine
    assert found["children"] is None


def test_a_cancel_is_obeyed(conn, dsn):
    with psycopg.connect(dsn, autocommit=True) as other:
        other.execute("set statement_timeout = '20 s'")
        with psycopg.connect(dsn) as blocker, ThreadPoolExecutor(1) as pool:
            blocker.execute("lock table shed.things in access exclusive mode")
            asked = pool.submit(other.execute, "select lapse.preview_json('sweep')")
            databases.until(
                conn,
                "select count(*) from pg_stat_activity where wait_event_type = 'Lock'"
                f" and pid = {other.info.backend_pid}",
                1,
            )
            conn.execute("select pg_cancel_backend(%s)", [other.info.backend_pid])

            assert isinstance(asked.exception(timeout=20), psycopg.errors.QueryCanceled)


def test_an_observer_sees_counts_that_the_status_shows_and_nothing_of_other_tables(conn):
    role = f"pglapse_see_{conn.info.backend_pid}"
    shed.add(conn, 2)
    conn.execute("create table shed.child (thing bigint references shed.things on delete cascade)")
    conn.execute("insert into shed.child select id from shed.things; create index on shed.child (thing)")
    conn.execute(f"create role {role}; select lapse.grant_observer('{role}')")
    try:
        conn.execute(f"set role {role}")
        found = look(conn)
    finally:
        conn.execute(f"reset role; drop owned by {role}; drop role {role}")

    assert due(found)["now"] == 2
    assert found["index"]["ok"]
    assert found["children"] is None
    assert any(line.startswith("what refers to the table: permission denied") for line in found["not_known"])
    assert preview.clear(found)


def test_rows_that_row_level_security_hides_from_the_engine_are_told(conn):
    role = f"pglapse_rls_{conn.info.backend_pid}"
    conn.execute(
        f"""
        create role {role};
        alter table shed.things enable row level security;
        alter function shed.sweep(integer, timestamptz, timestamptz) security definer;
        alter function shed.sweep(integer, timestamptz, timestamptz) owner to {role};
        """
    )
    try:
        (finding,) = look(conn)["findings"]
        assert finding.startswith(
            "row-level security (no policy lets any through) would hide rows of shed.things"
        )
        assert finding.endswith(f" Mend: alter role {role} bypassrls;")
    finally:
        conn.execute(f"drop schema shed cascade; drop role {role}")


def test_in_psql_it_is_lines_for_people(conn):
    shed.add(conn, 2)
    conn.execute("create table shed.child (thing bigint references shed.things)")

    found = lines(conn)

    assert found["due now"] == "2 rows, 100.00 % of the table"
    assert found["refers to it"] == "shed.child: 0 rows stand in the way (child_thing_fkey, no action)"
    assert found["index"] == "things_due"
    assert found["it takes"].startswith("about 0.2 s, 1 batches in 1 runs (")
    assert found["beware"].startswith("no index serves child_thing_fkey of shed.child")


def test_the_command_is_readable_and_says_by_its_exit_code_whether_all_is_well(conn, dsn):
    shed.add(conn, 1234)
    conn.execute("create table shed.child (thing bigint references shed.things on delete cascade)")
    conn.execute("insert into shed.child select id from shed.things; create index on shed.child (thing)")

    done = pglapse(dsn, "preview", "sweep", "--bound", "5000")

    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    text = " ".join(done.stdout.split())
    assert "now 1,234 100.0% of the table, which has 1,234 rows" in text
    assert "shed.child 1,234 rows go with it child_thing_fkey, cascade" in text
    assert "by index things_due" in text

    conn.execute("drop index shed.things_due")
    broken = pglapse(dsn, "preview", "sweep")
    assert broken.returncode == 1
    assert "create index concurrently things_sweep_due on shed.things" in broken.stdout.replace("\n", " ")

    program = pglapse(dsn, "preview", "sweep", "--json")
    assert program.returncode == 1
    assert json.loads(program.stdout)["due"]["now"]["rows"] == 1234

    unknown = pglapse(dsn, "preview", "nothing")
    assert (unknown.returncode, len(unknown.stderr.splitlines())) == (2, 1)


def test_the_page_of_the_documentation_is_true(server, template):
    with databases.database(server, template) as own:
        assert pages.run(ROOT / "docs" / "preview.md", own) == 8


def test_files_are_counted_where_an_attachment_declares_them(conn):
    ids = shed.add(conn, 3)
    conn.execute(
        """
        create table shed.photos (id int primary key, thing bigint references shed.things on delete cascade,
                                  path text);
        create index on shed.photos (thing);
        select lapse.attach_files('shed.photos', 'path', 'public', p_index => 'build');
        """
    )
    conn.execute(
        "insert into shed.photos select g, (%s::bigint[])[1 + g %% 2], nullif('p' || g / 2, 'p0')"
        "  from generate_series(1, 9) as g",
        [ids],
    )
    try:
        found = look(conn)

        assert [(file["relation"], file["name"], file["rows"], file["note"]) for file in found["files"]] == [
            ("shed.photos", "path", 4, None)
        ]
        assert found["not_known"] == []
        assert lines(conn)["files"] == "shed.photos: at most 4 by column path"
        conn.execute("delete from shed.things")
        assert one(conn, "select count(*) from lapse.file_cleanup_queue") == 4
    finally:
        conn.execute("select lapse.detach_files('shed.photos', 'path'); delete from lapse.file_cleanup_queue")


def test_whether_the_brake_would_stop_it_is_said_and_after_a_run_that_it_holds(conn):
    conn.execute("select lapse.alter_policy('sweep', p_max_fraction => 0.5, p_brake_rows => 3)")
    shed.add(conn, 3)
    assert look(conn)["brake"] == {
        "max_fraction": 0.5,
        "brake_rows": 3,
        "released": 0,
        "holds": False,
        "would_stop": False,
    }

    shed.add(conn, 2)
    found = look(conn)
    assert found["brake"]["would_stop"] is True
    assert found["findings"] == [
        "the brake would stop it: 5 rows are due, more than 3 and more than 50.00 % of the table."
        " Let them go: select lapse.release_brake('sweep');"
    ]

    open_question = look(conn, bound=2)
    assert open_question["brake"]["would_stop"] is None
    assert open_question["not_known"] == [
        "whether the brake would stop it: more rows are due than were counted"
    ]

    shed.fails(conn, "call lapse.run('sweep')")
    assert look(conn)["findings"][0].startswith("the brake holds it: 5 rows are due")
    conn.execute("select lapse.release_brake('sweep')")
    assert look(conn)["brake"]["would_stop"] is False


def test_held_rows_are_told_apart_and_a_database_that_is_not_adopted_is_a_finding(conn):
    ids = shed.add(conn, 2)
    conn.execute("select lapse.hold('shed.things', %s, 'a lawsuit')", [str(ids[0])])

    found = look(conn)
    assert (due(found)["now"], found["blocked_rows"], found["held_rows"]) == (1, 0, 1)
    assert lines(conn)["held"] == "1 rows: see lapse.hold"

    conn.execute("select lapse.disown_database()")
    try:
        (finding,) = look(conn)["findings"]
        assert " is not adopted: " in finding
    finally:
        conn.execute("select lapse.adopt_database()")
