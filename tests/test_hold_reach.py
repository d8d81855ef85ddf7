"""lapse.hold against what its own policies don't do: cascades, triggers, careless steps, renamed tables."""

import threading
from collections.abc import Iterator

import psycopg
import pytest

from tests.support import databases, shed
from tests.support.poll import until
from tests.support.queue import end_backoff, exchange, waits_for_a_lock


@pytest.fixture(scope="module")
def dsn(server: str, template: str) -> Iterator[str]:
    """One database for this module; every test builds its shed afresh."""
    with databases.database(server, template) as own:
        yield own


@pytest.fixture
def conn(conn: psycopg.Connection) -> psycopg.Connection:
    shed.build(conn)
    conn.execute("truncate lapse.hold, lapse.file_cleanup_queue, lapse.file_cleanup_log")
    return conn


def hold(conn: psycopg.Connection, target: str, key: object) -> None:
    conn.execute("select lapse.hold(%s::regclass, %s, 'case 4711')", [target, str(key)])


def release(conn: psycopg.Connection, target: str, key: object) -> None:
    assert shed.one(conn, "select lapse.release_hold(%s::regclass, %s)", target, str(key)) is True


def parts(conn: psycopg.Connection, things: list[int]) -> None:
    """Give each of these things a part of the same number, which goes along with it."""
    conn.execute(
        "create table shed.parts (id bigint primary key,"
        " thing bigint not null references shed.things on delete cascade);"
        "create index on shed.parts (thing)"
    )
    conn.execute("insert into shed.parts select id, id from unnest(%s::bigint[]) as id", [things])


def kept(conn: psycopg.Connection, policy: str = "sweep") -> list[str]:
    """Rows that the policy leaves out because of a hold."""
    return shed.column(
        conn,
        "select key from lapse.blocked_row where policy = %s and hold_key is not null order by key",
        policy,
    )


def set_aside(conn: psycopg.Connection) -> list[str]:
    return shed.column(conn, "select key from lapse.blocked_row where hold_key is null")


def declared(
    conn: psycopg.Connection, name: str = "sweep", target: str = "shed.things", more: str = ""
) -> None:
    conn.execute(f"select lapse.create_expiry('{name}', '{target}', 'due', p_index => 'build' {more})")


@pytest.mark.parametrize("make", [shed.policy, declared], ids=["by hand", "declared"])
def test_a_held_row_keeps_the_one_that_would_take_it_along(conn, make):
    first, parent, last = shed.add(conn, 3)
    parts(conn, [first, parent, last])
    make(conn)

    hold(conn, "shed.parts", parent)
    shed.run(conn)
    stayed, with_it = shed.left(conn), shed.column(conn, "select id from shed.parts")
    why = conn.execute("select state, says from lapse.why('shed.things', %s)", [str(parent)]).fetchone()
    release(conn, "shed.parts", parent)
    shed.run(conn)

    assert (stayed, with_it) == ([parent], [parent])
    assert why[0] == "held"
    assert f"row {parent} of shed.parts would go along with it: case 4711" in why[1]
    assert shed.left(conn) == []
    assert kept(conn) == set_aside(conn) == []
    assert {status for (status,) in shed.log(conn, "status")} == {"ok"}


def test_over_several_tables_and_a_key_of_two_columns(conn):
    first, parent = shed.add(conn, 2)
    conn.execute(
        """
        create table shed.lists (a int, b text, thing bigint references shed.things on delete cascade,
                                 primary key (a, b));
        create table shed.entries (id int primary key, x text, y int,
                                   foreign key (y, x) references shed.lists (a, b) on delete cascade);
        """
    )
    conn.execute("insert into shed.lists values (1, 'x', %s), (2, 'x,{y}', %s)", [first, parent])
    conn.execute("insert into shed.entries values (7, 'x,{y}', 2), (8, null, null)")
    shed.policy(conn)

    hold(conn, "shed.entries", 7)
    hold(conn, "shed.entries", 8)
    shed.run(conn)

    assert shed.left(conn) == [parent]
    assert kept(conn) == [str(parent)]


def test_a_row_that_gets_another_parent_after_the_hold_keeps_that_one(conn):
    """More of them than the ten failures in a row that make a policy take its step for broken."""
    things = shed.add(conn, 40)
    parts(conn, things[:20])
    declared(conn)
    for thing in things[:20]:
        hold(conn, "shed.parts", thing)

    conn.execute("update shed.parts set thing = thing + 20")
    shed.run(conn)

    assert shed.column(conn, "select id from shed.parts order by id") == things[:20]
    assert shed.left(conn) == things  # those that they have left are kept until the release
    assert set_aside(conn) == []
    assert shed.log(conn, "status, blocked") in ([], [("ok", 0)])
    for thing in things[:20]:
        release(conn, "shed.parts", thing)
    shed.run(conn)
    assert shed.left(conn) == []


def test_a_parent_stays_until_the_last_row_that_needs_it_is_released(conn):
    (parent,) = shed.add(conn, 1)
    parts(conn, [parent])
    conn.execute("insert into shed.parts values (0, %s)", [parent])
    shed.policy(conn)

    hold(conn, "shed.parts", parent)
    hold(conn, "shed.parts", 0)
    hold(conn, "shed.things", parent)
    shed.run(conn)
    seen = []
    for target, key in (("shed.things", parent), ("shed.parts", parent), ("shed.parts", 0)):
        release(conn, target, key)
        shed.run(conn)
        seen.append(shed.left(conn))

    assert seen == [[parent], [parent], []]


def test_a_row_that_refers_to_another_of_its_own_table(conn):
    conn.execute("alter table shed.things add above bigint references shed.things on delete cascade")
    root, middle, leaf, other = shed.add(conn, 4)
    conn.execute("update shed.things set above = %s where id = %s", [root, middle])
    conn.execute("update shed.things set above = %s where id = %s", [middle, leaf])
    declared(conn)

    hold(conn, "shed.things", leaf)
    shed.run(conn)

    assert shed.left(conn) == [root, middle, leaf]
    assert other not in shed.left(conn)


def test_partitions_above_and_below(conn):
    conn.execute(
        """
        create table shed.years (id int, due timestamptz, primary key (id, due)) partition by range (due);
        create table shed.old partition of shed.years for values from (minvalue) to ('2020-01-01');
        create table shed.new partition of shed.years for values from ('2020-01-01') to (maxvalue);
        create table shed.days (id int, year int, due timestamptz, primary key (id),
                                foreign key (year, due) references shed.years on delete cascade)
            partition by range (id);
        create table shed.few partition of shed.days for values from (0) to (10);
        create table shed.many partition of shed.days for values from (10) to (maxvalue);
        insert into shed.years
        select n, '2019-12-30'::timestamptz + n * interval '1 day' from generate_series(1, 5) as n;
        insert into shed.days select id * 3, id, due from shed.years;
        """
    )
    declared(conn, target="shed.years")

    hold(conn, "shed.few", 3)
    hold(conn, "shed.days", 12)
    conn.execute("update shed.days set year = 5, due = '2020-01-04' where id = 12")
    shed.run(conn)

    assert shed.column(conn, "select id from shed.days order by id") == [3, 12, 15]
    assert shed.column(conn, "select id from shed.years order by id") == [1, 4, 5]


def test_what_a_trigger_would_take_stays_as_well(conn):
    """No foreign key says so, so the row is set aside like any that can't be deleted."""
    first, parent = shed.add(conn, 2)
    conn.execute("create table shed.notes (id bigint primary key)")
    conn.execute("insert into shed.notes values (%s), (%s)", [first, parent])
    conn.execute(
        "create function shed.drop_note() returns trigger language plpgsql as"
        " 'begin delete from shed.notes where id = old.id; return null; end';"
        "create trigger drop_note after delete on shed.things for each row execute function shed.drop_note()"
    )
    shed.policy(conn)

    hold(conn, "shed.notes", parent)
    shed.run(conn)

    assert shed.left(conn) == shed.column(conn, "select id from shed.notes") == [parent]
    assert conn.execute(
        "select key, sqlstate, error from lapse.blocked_row where hold_key is null"
    ).fetchall() == [(str(parent), "LP016", f"row {parent} of shed.notes is held, and would be gone")]


@pytest.mark.parametrize("target", [True, False], ids=["with a target", "without"])
def test_a_step_that_does_not_look_takes_nothing(conn, target):
    shed.policy(conn, target=target, extra="delete from shed.things;")
    held = shed.add(conn, 3)[1]
    hold(conn, "shed.things", held)

    shed.fails(conn, "call lapse.run('sweep')")

    assert shed.log(conn, "status, sqlstate, message") == [
        ("failed", "LP016", f"row {held} of shed.things is held, and would be gone")
    ]
    assert len(shed.left(conn)) == 3
    assert set_aside(conn) == []


def test_a_policy_that_deletes_nothing_is_not_kept_from_its_rows(conn):
    first, parent = shed.add(conn, 2)
    parts(conn, [first, parent])
    declared(
        conn,
        more=", p_predicate => $$status = 'active'$$, p_action => 'update', p_set => '{\"status\": \"old\"}'",
    )

    hold(conn, "shed.parts", parent)
    shed.run(conn)

    assert shed.column(conn, "select status from shed.things") == ["old", "old"]
    assert kept(conn) == []


def test_a_hold_waits_for_a_batch_that_may_reach_the_row_from_above(conn, dsn):
    """The batch was first, and has not come to the parent yet when the child is held."""
    (parent,) = shed.add(conn, 1)
    parts(conn, [parent])
    shed.policy(conn)
    shed.step(conn, "sweep", extra=shed.GATE + " delete from shed.things;", kind="none")
    errors: list[psycopg.Error] = []

    with psycopg.connect(dsn, autocommit=True) as holder:
        with shed.gate_closed(dsn):
            batch = background(dsn, "call lapse.run('sweep')")
            until(lambda: shed.waiting_pid(conn))
            holding = threading.Thread(
                target=lambda: errors.append(
                    shed.fails(holder, "select lapse.hold('shed.parts', %s, 'x')", str(parent))
                ),
                daemon=True,
            )
            holding.start()
            waits_for_a_lock(conn, holder.info.backend_pid)
        batch.join(30)
        holding.join(30)

    assert [error.sqlstate for error in errors] == ["LP016"]
    assert shed.column(conn, "select key from lapse.hold") == []


def test_a_batch_that_is_undone_while_another_row_is_being_held_waits_for_no_one(conn, dsn):
    """The hold has its lock and waits for the batch, which needs that lock for what it has just found out."""
    first, parent = shed.add(conn, 2)
    parts(conn, [first, parent])
    shed.policy(conn, extra=shed.GATE)
    hold(conn, "shed.parts", parent)

    with psycopg.connect(dsn, autocommit=True) as holder:
        with shed.gate_closed(dsn):
            batch = background(dsn, "call lapse.run('sweep')")
            until(lambda: shed.waiting_pid(conn))
            holding = threading.Thread(
                target=lambda: holder.execute("select lapse.hold('shed.parts', %s, 'x')", [str(first)]),
                daemon=True,
            )
            holding.start()
            waits_for_a_lock(conn, holder.info.backend_pid)
        batch.join(30)
        holding.join(30)

    assert shed.left(conn) == [first, parent]
    assert {status for (status,) in shed.log(conn, "status")} <= {"ok"}
    assert len(shed.column(conn, "select key from lapse.hold")) == 2


def test_a_run_that_can_not_note_whom_it_keeps_ends_with_its_time(conn, dsn):
    """Somebody makes a policy meanwhile, and does not commit."""
    first, parent = shed.add(conn, 2)
    parts(conn, [first, parent])
    shed.policy(conn, p_max_runtime="1 s")
    hold(conn, "shed.parts", parent)

    with psycopg.connect(dsn) as maker:
        shed.policy(maker, "second", kind="other")
        conn.execute("set statement_timeout = '20 s'")
        shed.run(conn)
        conn.execute("reset statement_timeout")
        undone = shed.left(conn)
    shed.run(conn)

    assert undone == [first, parent]
    assert shed.left(conn) == [parent]
    assert {status for (status,) in shed.log(conn, "status")} == {"ok"}


def test_a_renamed_table_is_held_and_so_are_its_files(conn):
    (held,) = shed.add(conn, 1)
    hold(conn, "shed.things", held)
    conn.execute("alter table shed.things rename to goods")
    declared(conn, target="shed.goods")
    known = kept(conn)

    shed.run(conn)
    conn.execute(
        "select lapse.enqueue_file('s', 'old', p_source_table => 'shed.things', p_source_id => %s)",
        [str(held)],
    )
    conn.execute(
        "select lapse.enqueue_file('s', 'new', p_source_table => 'shed.goods', p_source_id => %s)",
        [str(held)],
    )
    stayed, given = shed.column(conn, "select id from shed.goods"), exchange(conn).paths
    why = conn.execute("select state from lapse.why('shed.goods', %s)", [str(held)]).fetchall()
    release(conn, "shed.goods", held)
    end_backoff(conn)
    shed.run(conn)

    assert (known, stayed, given, why[0]) == ([str(held)], [held], [], ("held",))
    assert shed.column(conn, "select id from shed.goods") == []
    assert sorted(exchange(conn).paths) == ["new", "old"]


def test_what_takes_a_tables_name_is_held_too(conn):
    """As a table does that was built anew under the old one's name, with the same rows."""
    (held,) = shed.add(conn, 1)
    hold(conn, "shed.things", held)
    conn.execute(
        "alter table shed.things rename to before;"
        "create table shed.things (like shed.before including all);"
        "insert into shed.things overriding system value select * from shed.before"
    )
    shed.policy(conn)
    declared(conn, "before", "shed.before")

    shed.run(conn)
    shed.run(conn, "before")

    assert shed.left(conn) == shed.column(conn, "select id from shed.before") == [held]
    release(conn, "shed.before", held)
    shed.run(conn)
    assert shed.left(conn) == []


def test_after_a_restore_names_count_and_today_s_numbers_are_noted(conn):
    """In a restored database each table has another number, which may be some other table's here."""
    held, other = shed.add(conn, 2)
    conn.execute("create table shed.innocent (id bigint primary key, due timestamptz)")
    conn.execute("insert into shed.innocent values (%s, now() - interval '1 day')", [held])
    hold(conn, "shed.things", held)
    conn.execute("alter table shed.things rename to goods")
    hold(conn, "shed.goods", held)
    conn.execute("update lapse.hold set target_oid = 'shed.innocent'::regclass, oids_of = 1")
    for name in ("goods", "innocent"):
        declared(conn, name, f"shed.{name}")
    known = [kept(conn, "goods"), kept(conn, "innocent")]
    for name in ("goods", "innocent"):
        shed.run(conn, name)

    assert known == [[str(held)], []]
    assert shed.column(conn, "select id from shed.goods") == [held]
    assert shed.column(conn, "select id from shed.innocent") == []
    assert conn.execute(
        "select target_oid = 'shed.goods'::regclass, oids_of = 'lapse.hold'::regclass, target_names"
        "  from lapse.hold"
    ).fetchall() == [(True, True, ["shed.things", "shed.goods"])]
    assert other != held


def test_a_declared_policy_that_moves_to_another_table_knows_the_holds_there(conn):
    held, other = shed.add(conn, 2)
    conn.execute("create table shed.first (id bigint primary key, due timestamptz)")
    declared(conn, target="shed.first")
    hold(conn, "shed.things", held)
    conn.execute("drop table shed.first")

    declared(conn, more=", p_replace => true")
    known = kept(conn)
    shed.run(conn)

    assert known == [str(held)]
    assert shed.left(conn) == [held]
    assert other not in shed.left(conn)


def test_where_the_engine_can_not_see_the_row_a_hold_says_so(conn):
    role = f"pglapse_test_{conn.info.backend_pid}"
    conn.execute(f"create role {role}; grant all on schema shed to {role}")
    (row,) = shed.add(conn, 1)
    said: list[str] = []
    conn.add_notice_handler(lambda notice: said.append(notice.message_primary))
    try:
        conn.execute(
            f"set role {role};"
            "create function shed.odd(bigint) returns bigint immutable language sql as 'select $1';"
            "create table shed.theirs (id bigint primary key); create index on shed.theirs (shed.odd(id));"
            "insert into shed.theirs values (1); reset role"
        )
        hold(conn, "shed.theirs", 1)
        hold(conn, "shed.things", row)
    finally:
        conn.execute(f"reset role; drop owned by {role} cascade; drop role {role}")

    assert len(said) == 1
    assert "can't see row 1 of shed.theirs" in said[0]


def test_while_a_held_table_is_locked_only_those_who_could_reach_it_wait(conn, dsn):
    (parent,) = shed.add(conn, 1)
    parts(conn, [parent])
    declared(conn)
    conn.execute("create table shed.others (id int primary key, due timestamptz)")
    conn.execute("insert into shed.others values (1, now()), (2, now())")
    declared(conn, "others", "shed.others")
    hold(conn, "shed.others", 2)
    shed.policy(conn, "by_hand", kind="none", p_lock_timeout="100 ms")
    hold(conn, "shed.parts", parent)

    with psycopg.connect(dsn) as other:
        other.execute("lock table shed.parts in access exclusive mode")
        shed.run(conn, "others")
        for policy in ("sweep", "by_hand"):
            shed.fails(conn, "call lapse.run(%s)", policy)
        other.rollback()

    assert shed.column(conn, "select id from shed.others") == [2]
    assert shed.log(conn, "policy, status, sqlstate, message") == [
        ("others", "ok", None, None),
        *(
            (policy, "failed", "55P03", "table shed.parts is locked, and rows of it are held")
            for policy in ("sweep", "by_hand")
        ),
    ]
    assert shed.left(conn) == [parent]


def test_the_owner_of_a_kept_row_is_not_told_for_which_row_of_somebody_elses(conn):
    role = f"pglapse_test_{conn.info.backend_pid}"
    conn.execute(f"create role {role}; grant usage on schema shed to {role}")
    (parent,) = shed.add(conn, 1)
    parts(conn, [parent])
    try:
        conn.execute(
            f"select lapse.grant_author('{role}'); alter table shed.things owner to {role};"
            f"grant create on schema shed to {role}"
        )
        declared(conn)
        hold(conn, "shed.parts", parent)
        told = [shed.column(conn, "select error from lapse.own_blocked_row")]
        for change in ("select", f"alter table shed.parts owner to {role}"):
            conn.execute(f"reset role; {change}")
            conn.execute(f"set role {role}")
            told.append(shed.column(conn, "select error from lapse.own_blocked_row"))
    finally:
        conn.execute("reset role; select lapse.drop_policy('sweep')")
        conn.execute(f"reassign owned by {role} to current_user; drop owned by {role}; drop role {role}")

    whole = [f"held: row {parent} of shed.parts would go along with it: case 4711"]
    assert told == [whole, ["held: a row that would go along with it is held"], whole]


def background(dsn: str, command: str) -> threading.Thread:
    def call() -> None:
        with psycopg.connect(dsn, autocommit=True) as own:
            own.execute(command)

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    return thread
