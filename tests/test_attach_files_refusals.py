"""What can't be attached is refused with the reason and what to do, and nothing is made."""

import secrets
from collections.abc import Iterator

import psycopg
import pytest

from tests.support.attached import LIVE, UPLOADS, attach, deleted, loose_collation, put, queued
from tests.support.catalog import catalog
from tests.support.install import alembic
from tests.support.queue import exchange, row
from tests.support.words import WORDS

ODD = """
create view app.seen as select * from app.uploads;
create table app.keyless (path text);
create table app.half (id int, path text, unique (id));
create table app.parent (id int primary key, path text);
create table app.child () inherits (app.parent);
create table app.parts (id int primary key, path text) partition by range (id);
create table app.part_1 partition of app.parts for values from (0) to (9);
create table app.strict (id int primary key, path text);
alter table app.strict enable row level security, force row level security;
create table app.docs (id int primary key, doc jsonb, paths text[], blob bytea, padded character(20),
                       path text, disk int, "when" timestamptz not null, day date);
create foreign data wrapper nothing;
create server nowhere foreign data wrapper nothing;
create foreign table app.far (id int, path text) server nowhere;
create temp table gone (id int primary key, path text);
create function app.rolled() returns boolean language sql volatile as 'select random() > 0.5';
"""

# arguments, SQLSTATE, what the message says
REFUSED = [
    ("'app.seen', 'path', 's'", "LP035", "is a view"),
    ("'app.far', 'path', 's'", "LP035", "is a foreign table"),
    ("'pg_temp.gone', 'path', 's'", "LP035", "is temporary"),
    ("'lapse.worker', 'id', 's'", "LP035", "not yours"),
    ("'app.keyless', 'path', 's'", "LP035", "has no key"),
    ("'app.half', 'path', 's'", "LP035", "has no key"),
    ("'app.parent', 'path', 's'", "LP035", "inherits"),
    ("'app.child', 'path', 's'", "LP035", "inherits"),
    ("'app.part_1', 'path', 's'", "LP035", "is a partition"),
    ("null, 'path', 's'", "LP001", "which table"),
    ("'app.uploads', 'paht', 's'", "LP002", 'no column "paht"'),
    ("'app.uploads', null, 's'", "LP002", "no column"),
    ("'app.docs', 'doc', 's'", "LP035", "jsonb"),
    ("'app.docs', 'paths', 's'", "LP035", "text[]"),
    ("'app.docs', 'blob', 's'", "LP035", "bytea"),
    ("'app.docs', 'padded', 's'", "LP035", "character(20)"),
    ("'app.docs', 'path', p_storage_column => 'disk'", "LP035", "integer"),
    ("'app.docs', 'path', p_storage_column => 'dsik'", "LP002", "dsik"),
    ("'app.docs', 'path', 's', p_live_when => 'true', p_removed_column => 'when'", "LP035", "can't be NULL"),
    ("'app.docs', 'path', 's', p_live_when => 'true', p_removed_column => 'day'", "LP035", "date"),
    ("'app.uploads', 'path', 's', p_removed_column => 'removed'", "LP001", "p_removed_column"),
    ("'app.uploads', 'path', 's', p_due => 'goes_at'", "LP001", "p_due"),
    ("'app.uploads', 'path'", "LP001", "which storage"),
    ("'app.uploads', 'path', 's', 'status'", "LP001", "which storage"),
    ("'app.uploads', 'path', ''", "LP001", "storage"),
    ("'app.uploads', 'path', repeat('s', 201)", "LP001", "storage"),
    ("'app.uploads', 'path', 's', p_grace => '-1 s'", "LP001", "p_grace can't be -00:00:01"),
    ("'app.uploads', 'path', 's', p_grace => null", "LP001", "NULL"),
    ("'app.uploads', 'path', 's', p_grace => '100000000 years'", "LP001", "p_grace"),
    ("""'app.uploads', 'path', 's', p_graces => '{"gone": "1 s"}'""", "LP001", "gone"),
    ("""'app.uploads', 'path', 's', p_graces => '{"deleted": "soon"}'""", "LP001", "deleted"),
    ("""'app.uploads', 'path', 's', p_graces => '{"deleted": null}'""", "LP001", "NULL"),
    ("'app.uploads', 'path', 's', p_graces => '[]'", "LP001", "p_graces"),
    ("'app.uploads', 'path', 's', p_index => 'maybe'", "LP001", "maybe"),
    ("'app.docs', 'path', 's'", "LP037", "has no index"),
]

EXPRESSIONS = [
    ("status = 'open", "unterminated"),
    ("statsu = 'open'", "statsu"),
    ("", "empty"),
    ("status", "is text, not boolean"),
    ("exists (select from app.docs)", "sub-select"),
    ("status in (select 'open')", "sub-select"),
    ("count(*) > 1", "aggregate"),
    ("row_number() over () = 1", "window"),
    ("generate_series(1, 2) = 1", ""),
    ("random() < 0.5", "volatile"),
    ("goes_at > clock_timestamp()", "volatile"),
    ("goes_at > now()", "what time it is"),
    ("goes_at > current_timestamp", "what time it is"),
    ("goes_at::date >= current_date", "what time it is"),
    ("app.rolled()", "volatile"),
    ("docs.id = 1", "docs"),
    ("tableoid = 1", "system column"),
    ("true, true", ""),
    ("true) or (true); drop table app.docs; select (true", ""),
    ("true; drop table app.docs", ""),
    ("true), null); drop table app.docs; select coalesce((true", ""),
    ("true), null) from app.uploads as t; drop table app.docs; select coalesce((true", ""),
    ("true) from app.docs as d, lateral (select true", ""),
    ("true) union all select (true", ""),
    ("$1", ""),
    ("/* status = 'open'", ""),
]


@pytest.fixture
def conn(conn: psycopg.Connection) -> psycopg.Connection:
    conn.execute(UPLOADS)
    conn.execute("select lapse.worker_hello('w', 'h', 1, '1', '{s,t}')")
    return conn


@pytest.fixture
def owner(conn: psycopg.Connection, server: str) -> Iterator[str]:
    """A role that owns the table and may attach."""
    role = f"pglapse_{secrets.token_hex(5)}"
    conn.execute(f"create role {role}")
    try:
        conn.execute(f"select lapse.grant_author('{role}')")
        conn.execute(f"alter schema app owner to {role}; alter table app.uploads owner to {role}")
        yield role
    finally:
        conn.execute("reset session authorization")
        conn.execute(f"drop owned by {role} cascade; drop role {role}")


def refused(conn: psycopg.Connection, arguments: str) -> psycopg.Error:
    with pytest.raises(psycopg.Error) as caught:
        conn.execute(f"select lapse.attach_files({arguments})")
    return caught.value


def traces(conn: psycopg.Connection) -> tuple[int, ...]:
    """Triggers and functions of ours, recorded attachments, views left over."""
    return conn.execute("""
        select (select count(*) from pg_trigger where tgname like 'lapse\\_files%')
               + (select count(*) from pg_proc where proname like 'lapse\\_files%')
               + (select count(*) from lapse.attachment)
               + (select count(*) from pg_class
                   where relname like 'lapse\\_%' and relnamespace <> 'lapse'::regnamespace)
    """).fetchone()


def test_what_can_not_be_attached_is_refused_with_the_reason_and_what_to_do(conn):
    conn.execute(ODD)

    for arguments, code, said in REFUSED:
        error = refused(conn, arguments)
        assert (error.sqlstate, said in str(error)) == (code, True), (arguments, str(error))
        assert error.diag.message_hint, arguments
    assert traces(conn) == (0,)


def test_an_expression_that_is_more_than_one_or_looks_further_than_its_row_is_refused(conn):
    conn.execute(ODD)

    for expression, said in EXPRESSIONS:
        with pytest.raises(psycopg.Error) as caught:
            attach(conn, live_when=expression)
        assert (caught.value.sqlstate, said in str(caught.value)) == ("LP036", True), (
            expression,
            str(caught.value),
        )
        assert "app.uploads" in str(caught.value)
        assert caught.value.diag.message_hint
    with pytest.raises(psycopg.Error) as caught:
        attach(conn, live_when=LIVE, due="goes_at::date")
    assert "is date, not timestamp with time zone" in str(caught.value)
    with pytest.raises(psycopg.Error) as caught:
        attach(conn, live_when=LIVE, due="now() + interval '3 days'")  # always ahead, so it never comes
    assert "what time it is" in str(caught.value)
    assert "p_grace" in str(caught.value.diag.message_hint)
    assert conn.execute("select to_regclass('app.docs') is not null").fetchone() == (True,)
    assert traces(conn) == (0,)


def test_a_condition_that_would_be_compared_as_text_without_a_word_is_refused(conn):
    conn.execute(WORDS + "alter table app.uploads add kind words.word")

    with pytest.raises(psycopg.Error) as caught:
        attach(conn, live_when="kind = 'open'")

    assert caught.value.sqlstate == "LP036"
    assert "uses =(text,text) and not words.=(words.word,words.word)" in str(caught.value)
    assert traces(conn) == (0,)
    attach(conn, live_when="kind operator(words.=) 'open'")
    put(conn, "a")
    conn.execute("update app.uploads set kind = 'OPEN'; update app.uploads set kind = 'done'")
    assert queued(conn) == {"a": "not needed"}


def test_a_virtual_column_is_refused_since_triggers_do_not_see_it(conn):
    if conn.info.server_version < 180000:
        pytest.skip("PostgreSQL 18 brought virtual columns")
    conn.execute(
        "create table app.virtual (id int primary key, doc jsonb, path text, "
        "seen text generated always as (doc ->> 'path') virtual)"
    )

    assert "is a virtual column" in str(refused(conn, "'app.virtual', 'seen', 's'"))
    assert "column seen is a virtual one" in str(
        refused(conn, "'app.virtual', 'path', 's', p_live_when => 'seen is null'")
    )


def test_the_hint_for_a_missing_index_is_the_statement_that_creates_it(conn):
    conn.execute(
        'create table app.plain (id int primary key, "Path" varchar, disk text) partition by range (id)'
    )
    conn.execute("create table app.plain_1 partition of app.plain for values from (0) to (9)")
    conn.execute("create table app.plain_2 partition of app.plain for values from (9) to (19)")

    hint = refused(conn, "'app.plain', 'Path', p_storage_column => 'disk'").diag.message_hint

    assert hint.splitlines()[0] == (
        'create index concurrently on app.plain_1 (disk, lapse.path_digest(("Path")::text));'
    )
    for statement in hint.splitlines():
        conn.execute(statement)
    attach(conn, "app.plain", "Path", storage_column="disk")


def test_an_index_that_takes_different_paths_for_equal_does_not_serve(conn):
    loose_collation(conn)
    conn.execute("create table app.plain (id int primary key, path text collate app.loose unique)")

    assert refused(conn, "'app.plain', 'path', 's'").sqlstate == "LP037"


def test_without_an_index_nothing_is_deleted_until_there_is_one(conn):
    conn.execute("create table app.plain (id int primary key, path text, status text)")
    notices: list[str] = []
    conn.add_notice_handler(lambda notice: notices.append(f"{notice.message_primary} {notice.message_hint}"))

    attach(conn, "app.plain", index="later")
    assert "create index concurrently on app.plain (lapse.path_digest(path));" in notices[0]
    conn.execute("insert into app.plain values (1, 'a', ''), (2, 'b', '')")
    conn.execute("delete from app.plain where id = 1")
    conn.execute("insert into app.plain values (3, 'a', '')")
    conn.execute("delete from app.plain where id = 2")
    conn.execute("select lapse.enqueue_file('t', 'c')")
    assert deleted(conn) == {"c"}, "another storage's files go on"
    assert "has no index yet" in row(conn, "b")["last_error"]
    assert "nothing uses it" not in str(conn.execute("select * from lapse.attachment_findings()").fetchall())
    conn.execute("create index on app.plain (lapse.path_digest(path))")
    assert "nothing uses it" in str(conn.execute("select * from lapse.attachment_findings()").fetchall())
    attach(conn, "app.plain", replace=True)
    conn.execute("update lapse.file_cleanup_queue set not_before = now()")

    assert deleted(conn) == {"b"}
    assert conn.execute("select * from lapse.attachment_findings()").fetchall() == []


def test_an_index_is_built_when_asked_for_unless_a_writer_would_fail_for_it(conn, owner):
    conn.execute("drop index app.uploads_path_digest_idx")
    writer = f"{owner}_w"
    conn.execute(f"create role {writer}; grant insert on app.uploads to {writer}")
    try:
        error = refused(conn, "'app.uploads', 'path', 's', p_index => 'build'")
        assert (error.sqlstate, error.diag.message_hint) == (
            "LP037", f"As the owner of schema lapse: select lapse.grant_application('{writer}');",
        )  # fmt: skip
        conn.execute(f"select lapse.grant_application('{writer}')")
        attach(conn, index="build")
        assert conn.execute("select to_regclass('app.lapse_files_uploads_path_idx') is null").fetchone() == (
            False,
        )
    finally:
        conn.execute(f"drop owned by {writer}; drop role {writer}")


def test_a_second_attachment_of_a_column_is_refused_unless_it_replaces_the_first(conn):
    attach(conn)
    error = refused(conn, "'app.uploads', 'path', 's'")
    assert (error.sqlstate, "p_replace" in error.diag.message_hint) == ("LP038", True)

    attach(conn, storage="t", live_when=LIVE, removed_column="removed", replace=True)
    assert conn.execute("select storage, live_when from lapse.attachment").fetchall() == [("t", LIVE)]
    attach(conn, replace=True)
    put(conn, "a")
    conn.execute("update app.uploads set status = 'done'")

    assert queued(conn) == {}
    assert conn.execute("select count(*) from pg_proc where proname like 'lapse_files_%'").fetchone() == (4,)


def test_an_owner_who_is_no_superuser_attaches_and_the_application_needs_no_right_on_the_queue(
    conn, dsn, owner
):
    conn.execute(f"set session authorization {owner}")
    attach(conn, live_when=LIVE, removed_column="removed")
    conn.execute("reset session authorization")
    app = f"{owner}_app"
    conn.execute(f"create role {app}; grant usage on schema app to {app}")
    conn.execute(
        f"grant select, insert, update, delete, truncate on app.uploads to {app};"
        f"select lapse.grant_application('{app}')"
    )
    try:
        conn.execute(f"set session authorization {app}")
        put(conn, "a", "b", "c")
        conn.execute("delete from app.uploads where path = 'a'")
        conn.execute("update app.uploads set status = 'done' where path = 'b'")
        conn.execute("truncate app.uploads")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            conn.execute("select app.lapse_files_uploads_path_in_use('{s}', '{a}')")
        conn.execute("reset session authorization")
        assert set(queued(conn)) == {"a", "b", "c"}
        owners = conn.execute(
            "select distinct proowner::regrole::text, prosecdef from pg_proc"
            " where proname like 'lapse_files_%'"
        ).fetchall()
        assert owners == [(owner, True)]
        assert deleted(conn) == {"a", "b", "c"}
    finally:
        conn.execute("reset session authorization")
        conn.execute(f"drop owned by {app}; drop role {app}")


def test_only_the_owner_may_and_only_one_who_may_queue_files(conn, owner):
    stranger = f"{owner}_s"
    conn.execute(
        f"create role {stranger};"
        f"grant all on schema app to {stranger}; grant all on app.uploads to {stranger}"
    )
    conn.execute(f"select lapse.grant_author('{stranger}')")
    try:
        attach(conn)
        conn.execute(f"set session authorization {stranger}")
        error = refused(conn, "'app.uploads', 'path', 's', p_replace => true")
        assert (error.sqlstate, f"belongs to {owner}" in str(error)) == ("LP035", True)
        for call in (
            "lapse.detach_files('app.uploads', 'path')",
            "lapse.release_attachment('app.lapse_files_uploads_path()'::regprocedure)",
        ):
            with pytest.raises(psycopg.Error, match=r"not yours|does not own"):
                conn.execute(f"select {call}")
        conn.execute("reset session authorization")
        conn.execute("select lapse.detach_files('app.uploads', 'path')")

        conn.execute(f"revoke execute on function lapse.need_files from {owner}")
        error = refused(conn, "'app.uploads', 'path', 's'")
        assert (
            error.diag.message_hint == f"As the owner of schema lapse: select lapse.grant_author('{owner}');"
        )
        conn.execute(f"select lapse.grant_author('{owner}')")
        conn.execute(f"revoke create on schema app from {owner}; alter schema app owner to postgres")
        assert "may create no function" in str(refused(conn, "'app.uploads', 'path', 's'"))
        conn.execute(f"grant create, usage on schema app to {owner}")
        conn.execute("alter table app.uploads force row level security")
        assert "row security is forced" in str(refused(conn, "'app.uploads', 'path', 's'"))
    finally:
        conn.execute("reset session authorization")
        conn.execute(f"drop owned by {stranger}; drop role {stranger}")


def test_nobody_registers_functions_that_are_none_of_ours(conn, owner):
    conn.execute(
        f"create table app.theirs (id int primary key, path text); grant trigger on app.theirs to {owner}"
    )
    conn.execute(f"set session authorization {owner}")
    for name in "xyz":
        declared = '{"path_column": "path", "storage": "s", "grace": {}}'
        conn.execute(
            f"create function app.lapse_files_{name}() returns trigger language plpgsql security definer as"
            f" $$\n-- Declared: {declared}\nbegin return null; end; $$"
        )
    for name in "yz":  # the functions of a source, whose names and arguments are all that is asked for
        conn.execute(f"""
            create function app.lapse_files_{name}_in_use(p_storages text[], p_paths text[]) returns text
                language sql security definer return '';
            create function app.lapse_files_{name}_known(p_storages text[], p_paths text[]) returns text
                language sql security definer return '';
            create function app.lapse_files_{name}_listed(p_storage text, p_after text, p_limit integer)
                returns text language sql security definer return '';
        """)
    conn.execute(
        "create trigger lapse_files_x_delete after delete on app.uploads execute function app.lapse_files_x()"
    )
    conn.execute(
        "create trigger lapse_files_z_delete after delete on app.theirs execute function app.lapse_files_z()"
    )

    for name in "xyz":  # without a source, without a table, on the table of another
        with pytest.raises(psycopg.Error) as caught:
            conn.execute(f"select lapse.record_attachment('app.lapse_files_{name}()'::regprocedure)")
        assert caught.value.sqlstate == "LP035", name


def test_detaching_leaves_no_trace(conn, dsn):
    conn.execute("drop index app.uploads_path_digest_idx")
    before = catalog(dsn)
    attach(conn, live_when=LIVE, removed_column="removed", index="build")
    attach(conn, live_when=LIVE, due="goes_at", replace=True, index="build")

    assert conn.execute("select lapse.detach_files('app.uploads', 'path')").fetchone() == (True,)

    assert catalog(dsn) == before
    assert conn.execute("select lapse.detach_files('app.uploads', 'path', true)").fetchone() == (False,)
    assert conn.execute("select lapse.detach_files(to_regclass('app.nothing'), 'path', true)").fetchone() == (
        False,
    )
    with pytest.raises(psycopg.Error) as caught:
        conn.execute("select lapse.detach_files('app.uploads', 'path')")
    assert caught.value.sqlstate == "LP039"


def test_what_rows_still_name_leaves_the_queue_when_nobody_would_ask_them_any_more(conn):
    attach(conn, live_when=LIVE, grace="1 day")
    put(conn, "a", "b", "c", "c")
    conn.execute("update app.uploads set status = 'done' where path = 'a'")
    conn.execute("delete from app.uploads where path = 'b'")
    conn.execute("delete from app.uploads where id = 3")

    conn.execute("select lapse.detach_files('app.uploads', 'path')")

    assert queued(conn) == {"b": "row deleted"}


PARTED = """
create table app.logs (id int, kind text, path text, primary key (id, kind)) partition by list (kind);
create table app.logs_x partition of app.logs for values in ('x');
create table app.logs_y partition of app.logs for values in ('y');
create index on app.logs (lapse.path_digest(path));
"""


def triggers(conn: psycopg.Connection, table: str) -> int:
    (count,) = conn.execute(
        "select count(*) from pg_trigger where tgrelid = %s::regclass and not tgisinternal", [table]
    ).fetchone()
    return count


def test_a_detached_partition_is_told_of_and_does_not_stand_for_its_table(conn):
    conn.execute(PARTED)
    attach(conn, "app.logs")
    conn.execute("alter table app.logs detach partition app.logs_x")
    ((problem, command),) = conn.execute(
        "select problem, command from lapse.attachment_findings() where target_table = 'app.logs'"
    ).fetchall()

    assert "app.logs_x was detached" in problem
    with pytest.raises(psycopg.Error) as caught:
        conn.execute("select lapse.detach_files('app.logs_x', 'path')")
    assert caught.value.sqlstate == "LP039"
    assert traces(conn) == (3 + 4 + 4 + 4 + 1,), (
        "what belongs to the table it was taken from is not its to remove"
    )

    conn.execute(command)
    assert (triggers(conn, "app.logs_x"), triggers(conn, "app.logs_y")) == (0, 4)
    attach(conn, "app.logs_x")
    conn.execute("insert into app.logs_x values (1, 'x', 'a'); insert into app.logs values (1, 'y', 'a')")
    conn.execute("delete from app.logs_x")
    assert queued(conn) == {"a": "row deleted"}
    assert deleted(conn) == set(), "app.logs needs it"
    conn.execute("select lapse.detach_files('app.logs_x', 'path'), lapse.detach_files('app.logs', 'path')")
    assert traces(conn) == (0,)


def test_what_a_detached_partition_keeps_goes_when_its_table_was_dropped(conn):
    conn.execute(PARTED)
    attach(conn, "app.logs")
    conn.execute("alter table app.logs detach partition app.logs_x; drop table app.logs")

    assert conn.execute("select * from lapse.detach_dropped()").fetchall() == [("app.logs",)]

    conn.execute("insert into app.logs_x values (1, 'x', 'a')")
    assert traces(conn) == (0,)


def test_a_renamed_table_or_column_is_attached_anew(conn):
    attach(conn)
    put(conn, "a", "b")
    conn.execute("alter table app.uploads rename to files; alter table app.files rename column path to name")
    found = conn.execute("select problem from lapse.attachment_findings()").fetchall()
    assert "renamed" in found[0][0]

    attach(conn, "app.files", "name", replace=True)
    conn.execute("delete from app.files where name = 'a'")

    assert queued(conn) == {"a": "row deleted"}
    assert conn.execute("select target_table, path_column from lapse.attachment").fetchall() == [
        ("app.files", "name")
    ]
    assert conn.execute("select count(*) from pg_proc where proname like 'lapse_files_%'").fetchone() == (4,)
    assert conn.execute("select * from lapse.attachment_findings()").fetchall() == []


def test_a_dropped_table_stops_only_the_files_that_could_have_been_its_own(conn):
    attach(conn)
    conn.execute("create table app.others (id int primary key, path text unique, status text)")
    attach(conn, "app.others", storage="t")
    conn.execute("insert into app.others values (1, 'x', '')")
    put(conn, "a")
    conn.execute("delete from app.uploads")
    conn.execute("drop table app.uploads")
    conn.execute("delete from app.others")

    assert deleted(conn) == {"x"}
    assert "select lapse.detach_dropped()" in row(conn, "a")["last_error"]
    assert "not there" in conn.execute("select problem from lapse.attachment_findings()").fetchone()[0]
    assert conn.execute("select * from lapse.detach_dropped()").fetchall() == [("app.uploads",)]
    conn.execute("update lapse.file_cleanup_queue set not_before = now()")

    assert deleted(conn) == {"a"}
    assert conn.execute(
        "select count(*) from pg_proc where proname like 'lapse_files_uploads%'"
    ).fetchone() == (0,)


def test_a_dropped_schema_stops_the_same_files_and_says_the_same(conn):
    attach(conn)
    conn.execute("select lapse.enqueue_file('s', 'a')")
    conn.execute("drop schema app cascade")

    assert deleted(conn) == set()
    assert "select lapse.detach_dropped()" in row(conn, "a")["last_error"]
    assert conn.execute("select * from lapse.detach_dropped()").fetchall() == [("app.uploads",)]
    conn.execute("update lapse.file_cleanup_queue set not_before = now()")

    assert deleted(conn) == {"a"}


def test_a_downgrade_of_the_engine_detaches_everything_and_not_while_files_are_pending(conn, dsn):
    before = [line for line in catalog(dsn) if "app" in line and "lapse" not in line]
    conn.execute("drop index app.uploads_path_digest_idx")
    attach(conn, index="build")
    put(conn, "a")
    conn.execute("delete from app.uploads")
    refused = alembic(dsn, "downgrade", "base", check=False)
    assert "files are still queued" in refused.stderr
    assert conn.execute("select count(*) from pg_trigger where tgname like 'lapse_files%'").fetchone() == (4,)
    put(conn, "b")

    alembic(dsn, "-x", "discard-queue", "downgrade", "base")

    assert not any("lapse" in line for line in catalog(dsn))
    conn.execute("delete from app.uploads")
    assert [line for line in before if "path_digest" not in line]


def test_a_warning_says_that_no_worker_serves_the_storage(conn):
    notices: list[str] = []
    conn.add_notice_handler(lambda notice: notices.append(notice.message_primary or ""))

    attach(conn, storage="nowhere")

    assert notices == ["no worker has ever served storage 'nowhere'"]
    assert exchange(conn).claimed == []
