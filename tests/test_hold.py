"""lapse.hold: a row and its files stay, whatever is due, until somebody releases them."""

import json
import threading
from collections.abc import Iterator

import psycopg
import pytest

from tests.support import databases, shed
from tests.support.poll import until
from tests.support.queue import end_backoff, exchange, outcomes, waits_for_a_lock
from tests.support.running import pglapse


@pytest.fixture(scope="module")
def dsn(server: str, template: str) -> Iterator[str]:
    """One database for this module; every test builds its shed afresh."""
    with databases.database(server, template) as own:
        yield own


@pytest.fixture
def conn(conn: psycopg.Connection) -> psycopg.Connection:
    shed.build(conn)
    conn.execute(
        "truncate lapse.hold, lapse.file_cleanup_queue, lapse.file_cleanup_log, market.tasks,"
        " market.temp_uploads cascade"
    )
    return conn


def hold(
    conn: psycopg.Connection, key: object, target: str = "shed.things", reason: str = "case 4711"
) -> str:
    return shed.one(conn, "select lapse.hold(%s::regclass, %s, %s)", target, str(key), reason)


def release(conn: psycopg.Connection, key: object, target: str = "shed.things") -> bool:
    return shed.one(conn, "select lapse.release_hold(%s::regclass, %s)", target, str(key))


def test_a_held_row_stays_and_the_others_go_until_it_is_released(conn):
    shed.policy(conn)
    first, held, last = shed.add(conn, 3)

    assert hold(conn, held) == str(held)
    shed.run(conn)
    stayed = shed.left(conn)
    assert release(conn, held)
    shed.run(conn)

    assert first != last
    assert stayed == [held]
    assert shed.left(conn) == []
    assert shed.column(conn, "select key from lapse.blocked_row") == []
    assert shed.column(conn, "select key from lapse.hold") == []


def test_a_held_row_counts_neither_as_blocked_nor_as_due(conn, dsn):
    shed.policy(conn)
    held, _ = shed.add(conn, 2)
    hold(conn, held)

    assert conn.execute(
        "select backlog, blocked_rows, held_rows from lapse.policy_status where policy = 'sweep'"
    ).fetchone() == ("1", 0, 1)
    shown = pglapse(dsn, "status").stdout
    assert "held: 1 " in shown
    assert json.loads(pglapse(dsn, "status", "--json").stdout)["guard"]["holds"] == 1


def test_no_cutoff_reaches_a_held_row(conn):
    shed.policy(conn)
    (held,) = shed.add(conn, 1)
    hold(conn, held)

    conn.execute("call lapse.run('sweep', now() + interval '9999 years', true)")

    assert shed.left(conn) == [held]
    for command in (
        "call lapse.run('sweep', 'infinity', true)",
        "select lapse.due_keys('sweep', 'infinity')",
    ):
        assert shed.fails(conn, command).sqlstate == "LP001"


def test_a_row_that_was_set_aside_is_held_and_not_tried_again(conn):
    shed.policy(conn)
    (held,) = shed.add(conn, 1)
    conn.execute(
        "insert into lapse.blocked_row (policy, key, error, run_id, retry_at)"
        " values ('sweep', %s, 'x', 1, now())",
        [str(held)],
    )

    hold(conn, held)
    shed.run(conn)

    assert shed.left(conn) == [held]
    assert conn.execute("select error, retry_at = 'infinity' from lapse.blocked_row").fetchall() == [
        ("held: case 4711", True)
    ]


def test_a_thousand_holds_leave_room_for_bad_rows(conn):
    shed.policy(conn)
    held = shed.add(conn, 1001)
    (bad,) = shed.add(conn, 1)
    conn.execute("create table shed.refers (id bigint references shed.things)")
    conn.execute("insert into shed.refers values (%s)", [bad])
    conn.execute(
        "select lapse.hold('shed.things', id::text, 'x') from shed.things where id = any (%s)", [held]
    )

    shed.run(conn)

    assert shed.column(conn, "select key from lapse.blocked_row where hold_key is null") == [str(bad)]
    assert len(shed.left(conn)) == 1002


def test_failures_that_are_taken_back_leave_holds_alone(conn):
    shed.policy(conn, extra="if v_progress.picked > 0 then raise exception 'broken'; end if;")
    held = shed.add(conn, 12)[0]
    hold(conn, held)

    shed.fails(conn, "call lapse.run('sweep')")

    assert shed.column(conn, "select key from lapse.blocked_row") == [str(held)]


def test_a_hold_waits_for_the_batch_in_progress_and_says_when_the_row_is_gone(conn, dsn):
    """The batch was first: it has deleted the row and not committed yet."""
    shed.policy(conn, extra=shed.GATE)
    (row,) = shed.add(conn, 1)
    errors: list[psycopg.Error] = []

    with psycopg.connect(dsn, autocommit=True) as holder:
        with shed.gate_closed(dsn):
            batch = background(dsn, "call lapse.run('sweep')")
            until(lambda: shed.waiting_pid(conn))
            holding = threading.Thread(
                target=lambda: errors.append(shed.fails(holder, HOLD, str(row))), daemon=True
            )
            holding.start()
            waits_for_a_lock(conn, holder.info.backend_pid)
        batch.join(30)
        holding.join(30)

    assert [error.sqlstate for error in errors] == ["LP016"]
    assert errors[0].diag.message_hint
    assert shed.left(conn) == []
    assert shed.column(conn, "select key from lapse.hold") == []


def test_a_batch_that_begins_while_a_row_is_being_held_leaves_it(conn, dsn):
    """The hold was first: it is written and not committed yet."""
    shed.policy(conn)
    row, other = shed.add(conn, 2)

    with psycopg.connect(dsn) as holder:
        holder.execute(HOLD, [str(row)])
        batch = background(dsn, "call lapse.run('sweep')")
        until(lambda: shed.log(conn) == [("sweep", "skipped")] or shed.state(conn, "run_id is not null"))
        before = shed.left(conn)
        holder.commit()
    batch.join(30)
    shed.run(conn)

    assert before == [row, other]
    assert shed.left(conn) == [row]


def test_a_hold_waits_for_whoever_is_deleting_the_row(conn, dsn):
    shed.policy(conn)
    (row,) = shed.add(conn, 1)
    errors: list[psycopg.Error] = []

    with psycopg.connect(dsn) as application, psycopg.connect(dsn, autocommit=True) as holder:
        application.execute("delete from shed.things")
        holding = threading.Thread(
            target=lambda: errors.append(shed.fails(holder, HOLD, str(row))), daemon=True
        )
        holding.start()
        waits_for_a_lock(conn, holder.info.backend_pid)
        application.commit()
        holding.join(30)

    assert [error.sqlstate for error in errors] == ["LP016"]


def test_a_policy_made_while_a_row_is_being_held_knows_the_hold(conn, dsn):
    (row,) = shed.add(conn, 1)
    shed.step(conn, "sweep")

    with psycopg.connect(dsn) as holder:
        holder.execute(HOLD, [str(row)])
        making = background(
            dsn,
            "select lapse.create_policy('sweep', 'shed.sweep', '5 min', p_target => 'shed.things',"
            " p_key_columns => '{id}', p_due_column => 'due')",
        )
        until(
            lambda: conn.execute(
                "select 1 from pg_stat_activity where wait_event_type = 'Lock'"
                " and query like '%create_policy%' and datname = current_database()"
                " and pid <> pg_backend_pid()"
            ).fetchone()
        )
        holder.commit()
    making.join(30)
    shed.run(conn)

    assert shed.left(conn) == [row]


def test_a_policy_made_while_a_row_is_being_released_does_not_keep_it(conn, dsn):
    (row,) = shed.add(conn, 1)
    shed.step(conn, "sweep")
    hold(conn, row)

    with psycopg.connect(dsn) as maker:
        maker.execute(
            "select lapse.create_policy('sweep', 'shed.sweep', '5 min', p_target => 'shed.things',"
            " p_key_columns => '{id}', p_due_column => 'due')"
        )
        releasing = background(dsn, f"select lapse.release_hold('shed.things', '{row}')")
        until(
            lambda: conn.execute(
                "select 1 from pg_stat_activity where wait_event_type = 'Lock'"
                " and query like '%release_hold%' and datname = current_database()"
                " and pid <> pg_backend_pid()"
            ).fetchone()
        )
        maker.commit()
    releasing.join(30)

    assert shed.column(conn, "select key from lapse.blocked_row") == []
    assert shed.column(conn, "select key from lapse.hold") == []


def test_later_policies_and_those_that_change_their_key_know_the_holds(conn):
    (row,) = shed.add(conn, 1)
    hold(conn, row)

    shed.policy(conn)
    shed.policy(conn, "second")
    conn.execute("select lapse.alter_policy('second', p_key_columns => '{due,id}')")

    keys = dict(conn.execute("select policy, key from lapse.blocked_row").fetchall())
    assert keys["sweep"] == str(row)
    assert keys["second"].endswith(f",{row}}}")
    assert shed.column(conn, "select key from lapse.due_keys('second')") == []
    assert release(conn, row)
    assert shed.column(conn, "select key from lapse.blocked_row") == []


KEYED = """
create table shed."Odd Names" ({columns}, due timestamptz not null default now() - interval '1 day',
                               primary key ({key}));
insert into shed."Odd Names" ({key}) values ({values});
"""


@pytest.mark.parametrize(
    ("columns", "key", "values", "given", "spelled"),
    [
        ("id bigint", "id", "42", " 42", "42"),
        ("id uuid", "id", "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'",
         "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
        ("id text collate \"C\"", "id", "'it''s {a}, \\b'", "it's {a}, \\b", "it's {a}, \\b"),
        ("id numeric(10,2)", "id", "1.5", "1.50", "1.50"),
        ("id char(4)", "id", "'ab'", "ab", "ab"),
        ("id bytea", "id", "'\\x00ff'", "\\x00FF", "\\x00ff"),
        ("at timestamptz", "at", "'2026-01-02 03:04:05+00'", "2026-01-02 05:04:05+02",
         "2026-01-02 03:04:05+00"),
        ("\"The Id\" int", "\"The Id\"", "7", "7", "7"),
        ("a int, b text", "a, b", "7, 'x,y'", "{07,\"x,y\"}", "{7,\"x,y\"}"),
    ],
    ids=["bigint", "uuid", "text", "numeric", "char", "bytea", "timestamptz", "mixed case", "composite"],
)  # fmt: skip
def test_a_key_may_be_spelled_as_its_type_reads_and_is_kept_as_due_keys_have_it(
    conn, columns, key, values, given, spelled
):
    conn.execute(KEYED.format(columns=columns, key=key, values=values))
    shed.step(conn, "sweep")
    conn.execute(
        "select lapse.create_policy('sweep', 'shed.sweep', '5 min', p_target => 'shed.\"Odd Names\"',"
        " p_key_columns => %s::text[], p_due_column => 'due')",
        [[name.strip().strip('"') for name in key.split(",")]],
    )
    due = shed.column(conn, "select key from lapse.due_keys('sweep')")

    assert hold(conn, given, 'shed."Odd Names"') == spelled == due[0]
    assert shed.column(conn, "select key from lapse.due_keys('sweep')") == []
    assert release(conn, given, 'shed."Odd Names"')


@pytest.mark.parametrize("key", ["43", "forty-two", "", "{42}", "42.5", "1e400"])
def test_a_key_that_no_row_has_is_refused(conn, key):
    shed.policy(conn)
    shed.add(conn, 1)

    error = shed.fails(conn, HOLD, key)

    assert (error.sqlstate, bool(error.diag.message_hint)) == ("LP016", True)
    assert shed.column(conn, "select key from lapse.hold") == []


def test_a_value_that_does_not_fit_its_column_is_no_other_rows(conn):
    conn.execute(
        "create table shed.prices (id numeric(5,1) primary key); insert into shed.prices values (1.3)"
    )

    assert shed.fails(conn, "select lapse.hold('shed.prices', '1.25', 'x')").sqlstate == "LP016"


def test_what_has_no_key_or_is_no_table_is_refused(conn):
    conn.execute("create table shed.keyless (a int); create view shed.seen as select * from shed.things")

    for target, code in (("shed.keyless", "LP016"), ("shed.seen", "LP002")):
        error = shed.fails(conn, "select lapse.hold(%s::regclass, '1', 'x')", target)
        assert (error.sqlstate, bool(error.diag.message_hint)) == (code, True)
    for arguments in ("null, '1', 'x'", "'shed.things', null, 'x'", "'shed.things', '1', null",
                      "'shed.things', '1', ' '"):  # fmt: skip
        assert shed.fails(conn, f"select lapse.hold({arguments})").sqlstate == "LP001"


def test_without_a_policy_a_row_is_named_by_its_primary_key(conn):
    (row,) = shed.add(conn, 1)

    assert hold(conn, row) == str(row)
    assert hold(conn, row, reason="another") == str(row)
    assert shed.column(conn, "select reason from lapse.hold") == ["another"]
    assert (release(conn, row), release(conn, row)) == (True, False)


def test_a_row_that_is_gone_can_be_released(conn):
    shed.policy(conn)
    (row,) = shed.add(conn, 1)
    hold(conn, row)
    conn.execute("delete from shed.things")

    assert release(conn, row)
    assert shed.column(conn, "select key from lapse.blocked_row") == []


def test_a_partition_stands_for_its_table(conn):
    conn.execute(
        """
        drop table shed.things cascade;
        create table shed.things (id bigint generated always as identity, due timestamptz not null,
                                  kind text not null default 'thing', status text not null default 'active',
                                  primary key (id, due)) partition by range (due);
        create table shed.old partition of shed.things for values from (minvalue) to (now());
        create table shed.new partition of shed.things for values from (now()) to (maxvalue);
        """
    )
    shed.policy(conn)
    held, _ = shed.add(conn, 2)

    hold(conn, held, "shed.old")
    shed.run(conn)

    assert shed.left(conn) == [held]
    assert shed.column(conn, "select target_table from lapse.hold") == ["shed.things"]
    assert release(conn, held, "shed.things")


def test_files_that_a_held_row_asked_to_delete_wait_until_it_is_released(conn):
    conn.execute("create table shed.pictures (id bigint primary key, path text)")
    conn.execute("insert into shed.pictures values (1, 'held'), (2, 'not')")
    conn.execute(
        "select lapse.enqueue_file('s', path, p_source_table => 'shed.pictures', p_source_id => id::text)"
        "  from shed.pictures"
    )
    hold(conn, 1, "shed.pictures")

    first = exchange(conn).paths
    waits = conn.execute(
        "select path, last_error, attempts, not_before > now() + interval '9 min'"
        "  from lapse.file_cleanup_queue"
        " where path = 'held'"
    ).fetchall()
    end_backoff(conn)
    second = exchange(conn).paths
    release(conn, 1, "shed.pictures")
    end_backoff(conn)
    third = exchange(conn).paths

    assert (first, second, third) == (["not"], [], ["held"])
    assert waits == [("held", "held: case 4711", 0, True)]
    assert outcomes(conn) == []


def test_the_file_of_a_held_row_is_held_whatever_zone_its_deleter_lives_in(conn):
    conn.execute("create table shed.shots (at timestamptz primary key, path text unique)")
    conn.execute("insert into shed.shots values ('2026-01-02 03:04:05+00', 'shot')")
    conn.execute("select lapse.attach_files('shed.shots', 'path', 's')")
    hold(conn, "2026-01-02 03:04:05+00", "shed.shots")

    conn.execute("set timezone = 'America/New_York'; set datestyle = 'German'")
    conn.execute("delete from shed.shots")
    conn.execute("reset timezone; reset datestyle")

    assert shed.column(conn, "select source_id from lapse.file_cleanup_queue") == ["2026-01-02 03:04:05+00"]
    assert exchange(conn).paths == []
    conn.execute("drop table shed.shots; select lapse.detach_dropped()")


def test_the_file_of_a_held_row_is_held_whichever_key_the_policy_has(conn):
    conn.execute(
        "create table shed.shots (id int primary key, shop int not null, path text unique, due timestamptz,"
        "                         unique (shop, id));"
        "insert into shed.shots values (7, 1, 'shot', now())"
    )
    conn.execute("select lapse.attach_files('shed.shots', 'path', 's')")
    shed.step(conn, "shots")
    conn.execute(
        "select lapse.create_policy('shots', 'shed.shots', '5 min', p_target => 'shed.shots',"
        " p_key_columns => '{shop,id}', p_due_column => 'due')"
    )

    held = hold(conn, "{1,7}", "shed.shots")
    conn.execute("delete from shed.shots")

    assert held == "{1,7}"
    assert shed.column(conn, "select source_id from lapse.file_cleanup_queue") == ["7"]
    assert exchange(conn).paths == []
    conn.execute("drop table shed.shots; select lapse.detach_dropped()")


def test_files_are_held_also_where_no_file_source_is_registered(conn):
    conn.execute("create table shed.pictures (id bigint primary key); insert into shed.pictures values (1)")
    hold(conn, 1, "shed.pictures")

    with conn.transaction(force_rollback=True):
        conn.execute("delete from lapse.file_source")
        conn.execute(
            "select lapse.enqueue_file('s', 'held', p_source_table => 'shed.pictures', p_source_id => '1')"
        )
        assert exchange(conn).paths == []


@pytest.mark.parametrize("target", ["market.tasks", "market.task_files"])
def test_the_files_of_a_held_task_stay_whatever_becomes_of_it(conn, target):
    user = user_of(conn)
    task = shed.one(conn, "insert into market.tasks (poster_id, title) values (%s, 't') returning id", user)
    file = shed.one(
        conn,
        "insert into market.task_files (task_id, storage, path) values (%s, 'public', 'f') returning id",
        task,
    )
    hold(conn, task if target == "market.tasks" else file, target)

    conn.execute("select market.cancel_task(%s)", [task])
    held = exchange(conn).paths
    release(conn, task if target == "market.tasks" else file, target)
    end_backoff(conn)

    assert held == []
    assert outcomes(conn) == []
    assert exchange(conn).paths == ["f"]


def test_the_file_of_a_held_upload_stays(conn):
    user = user_of(conn)
    upload = shed.one(
        conn,
        "insert into market.temp_uploads (user_id, storage, path) values (%s, 'public', 'u') returning id",
        user,
    )
    hold(conn, upload, "market.temp_uploads")
    conn.execute("select lapse.enqueue_file('public', 'u')")
    conn.execute("update market.temp_uploads set expires_at = now()")

    assert exchange(conn).paths == []
    assert outcomes(conn) == []


def test_what_the_marketplace_deletes_on_reading_stays_while_it_is_held(conn, dsn):
    """It is as little to be had as any other lapsed row."""
    conn.execute(
        "truncate market.sessions, market.cache_entries;"
        "insert into market.sessions (token_hash, principal_kind, principal_id, expires_at)"
        " values ('\\x01', 'user', 1, now()), ('\\x02', 'user', 1, now());"
        "insert into market.cache_entries (key, value, expires_at)"
        " values ('held', '1', now()), ('not', '1', now())"
    )
    hold(conn, "\\x01", "market.sessions")
    hold(conn, "held", "market.cache_entries")
    conn.execute("set bytea_output = 'escape'")

    read = [
        conn.execute(f"select * from market.{call}").fetchall()
        for call in ("get_session('\\x01')", "get_session('\\x02')", "get_cache('held')", "get_cache('not')")
    ]
    opened = shed.fails(conn, "select market.open_session('\\x01', 'user', 2, now() + interval '1 hour')")
    conn.execute("reset bytea_output")

    assert read == [[], [], [(None,)], [(None,)]]
    assert opened.sqlstate == "LP121"
    assert shed.column(conn, "select token_hash from market.sessions") == [b"\1"]
    assert shed.column(conn, "select key from market.cache_entries") == ["held"]


@pytest.mark.parametrize("call", ["get_session('\\x01')", "get_cache('key')"])
def test_a_read_that_could_not_see_the_hold_deletes_nothing(conn, dsn, call):
    conn.execute(
        "truncate market.sessions, market.cache_entries;"
        "insert into market.sessions (token_hash, principal_kind, principal_id, expires_at)"
        " values ('\\x01', 'user', 1, now());"
        "insert into market.cache_entries (key, value, expires_at) values ('key', '1', now())"
    )
    with psycopg.connect(dsn) as reader:
        reader.execute("set transaction isolation level repeatable read")
        reader.execute("select from lapse.hold")  # its snapshot is taken
        hold(conn, "\\x01", "market.sessions")
        hold(conn, "key", "market.cache_entries")
        reader.execute(f"select * from market.{call}")
        reader.commit()

    assert (
        shed.one(conn, "select (select count(*) from market.sessions) + count(*) from market.cache_entries")
        == 2
    )


def test_a_held_session_that_is_ended_lapses_and_stays(conn):
    conn.execute("truncate market.sessions")
    conn.execute("select market.open_session('\\x01', 'user', 1, now() + interval '1 hour')")
    hold(conn, "\\x01", "market.sessions")

    ended = [shed.one(conn, "select market.end_session('\\x01')") for _ in range(2)]

    assert ended == [True, False]
    assert conn.execute("select * from market.get_session('\\x01')").fetchall() == []
    assert shed.one(conn, "select count(*) from market.sessions") == 1


def test_posting_a_task_discards_no_held_upload(conn):
    user = user_of(conn)
    held, _ = shed.column(
        conn,
        "insert into market.temp_uploads (user_id, storage, path)"
        " values (%s, 'public', 'held'), (%s, 'public', 'not')"
        " returning id",
        user,
        user,
    )
    hold(conn, held, "market.temp_uploads")

    conn.execute("select market.create_task(%s, 'title')", [user])

    assert shed.column(conn, "select id from market.temp_uploads") == [held]
    assert exchange(conn).paths == ["not"]


def test_a_held_message_keeps_its_chat(conn):
    user = user_of(conn)
    chats = shed.column(
        conn,
        "insert into market.chats (user_id, status, opened_at, last_activity_at, ended_at, end_reason)"
        " select %s, 'ended', at, at, at, 'closed' from (select now() - interval '40 days' as at) as t,"
        " generate_series(1, 3) returning id",
        user,
    )
    message = shed.one(
        conn,
        "insert into market.chat_messages (chat_id, author_kind, body) values (%s, 'user', 'x') returning id",
        chats[1],
    )
    conn.execute("update market.chats set last_activity_at = opened_at where id = any (%s)", [chats])
    hold(conn, message, "market.chat_messages")

    conn.execute(
        "select lapse.create_policy('purge_inactive_chats', 'market.purge_inactive_chats', '1 day',"
        " p_target => 'market.chats', p_key_columns => '{id}', p_due_column => 'purge_at')"
    )

    shed.run(conn, "purge_inactive_chats")

    assert shed.column(conn, "select id from market.chats where id = any (%s)", chats) == [chats[1]]
    assert shed.column(conn, "select id from market.chat_messages where id = %s", message) == [message]


def test_only_the_owner_of_the_engine_holds(conn):
    role = f"pglapse_test_{conn.info.backend_pid}"
    conn.execute(f"create role {role}; grant usage on schema lapse, shed to {role}")
    conn.execute(f"grant execute on all functions in schema lapse to {role}")
    conn.execute(f"grant all on all tables in schema shed to {role}")
    (row,) = shed.add(conn, 1)
    try:
        conn.execute(f"set role {role}")
        for command in (HOLD, "select lapse.release_hold('shed.things', %s)"):
            assert isinstance(shed.fails(conn, command, str(row)), psycopg.errors.InsufficientPrivilege)
        conn.execute(f"reset role; revoke update on shed.things from {role}; set role {role}")
        assert shed.fails(conn, HOLD, str(row)).diag.message_hint == (
            f"As its owner: grant select, update on shed.things to {role}; or hold the row as a superuser."
        )
    finally:
        conn.execute(f"reset role; drop owned by {role}; drop role {role}")


def user_of(conn: psycopg.Connection) -> int:
    return shed.one(
        conn,
        "insert into market.users (display_name, email) values ('ann', gen_random_uuid() || '@example.org')"
        " returning id",
    )


HOLD = "select lapse.hold('shed.things', %s, 'case 4711')"


def background(dsn: str, command: str) -> threading.Thread:
    def call() -> None:
        with psycopg.connect(dsn, autocommit=True) as own:
            own.execute(command)

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    return thread
