"""Attached tables: a file goes with the last row that needs it, in the transaction of the change."""

import psycopg
import pytest

from tests.support.attached import LIVE, UPLOADS, attach, deleted, loose_collation, put, queued
from tests.support.queue import end_backoff, exchange, outcomes, row


@pytest.fixture
def conn(conn: psycopg.Connection) -> psycopg.Connection:
    conn.execute(UPLOADS)
    conn.execute("select lapse.worker_hello('w', 'h', 1, '1', '{s,t}')")
    return conn


def test_the_file_of_a_deleted_row_goes(conn):
    attach(conn)
    put(conn, "a", "b")

    conn.execute("delete from app.uploads where path = 'a'")

    queue_row = row(conn, "a")
    assert (queue_row["storage"], queue_row["reason"], queue_row["is_due"]) == ("s", "row deleted", True)
    assert (queue_row["source_table"], queue_row["source_id"]) == ("app.uploads", "1")
    assert deleted(conn) == {"a"}


def test_a_replaced_path_goes_and_the_one_in_its_place_stays(conn):
    attach(conn)
    put(conn, "a", "b")

    conn.execute("update app.uploads set path = 'c' where path = 'a'")
    conn.execute("update app.uploads set path = null where path = 'b'")

    assert queued(conn) == {"a": "path replaced", "b": "path replaced"}


def test_what_is_rolled_back_leaves_no_trace(conn):
    attach(conn)
    put(conn, "a", "b")
    conn.execute("select lapse.enqueue_file('s', 'c')")

    with conn.transaction(force_rollback=True):
        conn.execute("delete from app.uploads where path = 'a'")
        conn.execute("update app.uploads set path = 'c' where path = 'b'")
        with conn.transaction(force_rollback=True):
            put(conn, "d")
            conn.execute("truncate app.uploads")

    assert queued(conn) == {"c": "requested"}


def test_truncate_queues_all_files_before_it(conn):
    attach(conn)
    put(conn, "a", "b", "", None)

    conn.execute("truncate app.uploads")

    assert queued(conn) == {"a": "table truncated", "b": "table truncated"}


def test_a_path_that_is_named_again_leaves_the_queue(conn):
    attach(conn)
    put(conn, "a", "b", "c")
    conn.execute("delete from app.uploads where path in ('a', 'b')")

    put(conn, "a")
    conn.execute("update app.uploads set path = 'b' where path = 'c'")

    assert queued(conn) == {"c": "path replaced"}
    assert outcomes(conn) == [("a", "cancelled"), ("b", "cancelled")]


def test_a_path_that_a_worker_holds_can_be_named_again_but_not_without_a_warning(conn):
    attach(conn)
    put(conn, "a")
    conn.execute("delete from app.uploads")
    (claim,) = exchange(conn).claimed
    notices: list[str] = []
    conn.add_notice_handler(lambda notice: notices.append(notice.message_primary or ""))

    put(conn, "a")

    assert ["too late to cancel" in said for said in notices] == [True]
    assert row(conn, "a")["cancelled_at"] is not None
    assert claim.path == "a"


def test_a_path_that_several_rows_and_tables_name_goes_with_the_last_of_them(conn):
    attach(conn)
    conn.execute("create table app.covers (id int primary key, file varchar(200), disk text)")
    conn.execute("create index on app.covers (disk, lapse.path_digest(file::text))")
    attach(conn, "app.covers", "file", storage_column="disk")
    put(conn, "a", "a")
    conn.execute(
        "insert into app.covers"
        " values (1, 'a', 's'), (2, 'a', 't'), (3, 'a', null), (4, 'a', repeat('x', 201))"
    )

    conn.execute("delete from app.uploads where id = 1")
    assert deleted(conn) == set()
    conn.execute("delete from app.uploads")
    assert deleted(conn) == set()
    conn.execute("update app.covers set disk = 't' where id = 1")
    assert deleted(conn) == {"a"}
    conn.execute("delete from app.covers")
    assert conn.execute("select storage, path from lapse.file_cleanup_queue").fetchall() == [("t", "a")]


def test_rows_that_swap_their_files_queue_nothing(conn):
    attach(conn)
    put(conn, "a", "b")

    conn.execute("update app.uploads set path = case path when 'a' then 'b' else 'a' end")

    assert (queued(conn), outcomes(conn)) == ({}, [])


def test_no_path_makes_a_statement_of_the_applications_fail(conn):
    attach(conn)
    odd = ["x" * 20_000, "a\nb\tc\x01\x7f", "../../etc/passwd", "a\\b'c\"d$lapse$", "\N{SNOWMAN}" * 300]
    put(conn, *odd)

    conn.execute("update app.uploads set views = 1")
    conn.execute("update app.uploads set path = path || '2'")
    conn.execute("delete from app.uploads")

    assert queued(conn) == dict.fromkeys(odd, "path replaced") | {f"{path}2": "row deleted" for path in odd}


def test_a_row_that_stops_needing_its_file_gives_it_up_after_its_grace_and_may_have_it_back(conn):
    attach(conn, live_when=LIVE, graces='{"ended": "72 hours"}')
    put(conn, "a", "b")

    conn.execute("update app.uploads set status = 'done'")
    assert queued(conn) == {"a": "not needed", "b": "not needed"}
    assert 71 < row(conn, "a")["due_in"].total_seconds() / 3600 <= 72
    conn.execute("update app.uploads set status = 'taken' where path = 'a'")
    assert queued(conn) == {"b": "not needed"}
    conn.execute("delete from app.uploads where path = 'b'")

    assert deleted(conn) == {"b"}


def test_a_state_that_is_not_known_keeps_the_file(conn):
    attach(conn, live_when="views > nullif(views, 7)")
    put(conn, "a")

    conn.execute("update app.uploads set views = 7")

    assert queued(conn) == {}


def test_a_row_says_when_its_file_goes_and_may_change_its_mind(conn):
    attach(conn, live_when=LIVE, due="goes_at")
    put(conn, "a", "b", "c")

    conn.execute("update app.uploads set status = 'done', goes_at = now() + interval '3 days'")
    conn.execute("update app.uploads set goes_at = now() + interval '5 days' where path = 'a'")
    conn.execute("update app.uploads set goes_at = now() + interval '1 day' where path = 'b'")
    conn.execute("update app.uploads set goes_at = null where path = 'c'")

    hours = {path: row(conn, path)["due_in"].total_seconds() / 3600 for path in "abc"}
    assert (hours["a"] > 119, 23 < hours["b"] <= 24, hours["c"] <= 0) == (True, True, True)


def test_a_file_that_is_kept_until_a_time_is_kept_from_others_too(conn):
    attach(conn, live_when=LIVE, due="goes_at")
    put(conn, "a", status="done")
    conn.execute("update app.uploads set goes_at = now() + interval '3 days'")
    conn.execute("select lapse.cancel_file('s', 'a')")
    conn.execute("select lapse.enqueue_file('s', 'a')")

    assert deleted(conn) == set()
    assert row(conn, "a")["due_in"].total_seconds() > 2 * 86_400


def test_graces_are_by_reason(conn):
    attach(conn, grace="1 hour", graces='{"deleted": "1 day", "truncated": "0"}')
    put(conn, "a", "b", "c")

    conn.execute("delete from app.uploads where path = 'a'")
    conn.execute("update app.uploads set path = null where path = 'b'")
    conn.execute("truncate app.uploads")

    hours = {path: round(row(conn, path)["due_in"].total_seconds() / 3600) for path in "abc"}
    assert hours == {"a": 24, "b": 1, "c": 0}


def test_when_a_file_was_deleted_is_noted_and_a_new_path_is_a_new_file(conn):
    attach(conn, live_when=LIVE, removed_column="removed")
    put(conn, "a", "b")
    conn.execute("update app.uploads set status = 'done' where path = 'a'")

    assert deleted(conn) == {"a"}
    assert conn.execute("select path from app.uploads where removed is not null").fetchall() == [("a",)]
    conn.execute("delete from app.uploads where path = 'a'")
    assert queued(conn) == {}, "it is gone already"
    conn.execute("update app.uploads set status = 'done' where path = 'b'")
    assert deleted(conn) == {"b"}
    conn.execute("update app.uploads set path = 'c', status = 'open' where path = 'b'")
    assert conn.execute("select path, removed from app.uploads").fetchall() == [("c", None)]
    conn.execute("delete from app.uploads")
    assert deleted(conn) == {"c"}


def test_a_row_that_is_locked_is_told_again_that_its_file_is_gone(conn, dsn):
    attach(conn, live_when=LIVE, removed_column="removed")
    put(conn, "a", status="done")
    (claim,) = exchange(conn).claimed
    done = [{"id": claim.id, "token": claim.token, "outcome": "deleted"}]

    with psycopg.connect(dsn) as other:
        other.execute("select from app.uploads for update")
        assert [kept.id for kept in exchange(conn, done, limit=0).unsettled] == [claim.id]
        other.rollback()
    assert exchange(conn, done, limit=0).unsettled == []

    assert conn.execute("select removed is not null from app.uploads").fetchall() == [(True,)]


def test_a_live_row_is_not_marked_though_its_file_was_deleted_under_it(conn):
    attach(conn, live_when=LIVE, removed_column="removed")
    put(conn, "a", status="done")
    (claim,) = exchange(conn).claimed
    conn.execute("update app.uploads set status = 'open'")

    exchange(conn, [{"id": claim.id, "token": claim.token, "outcome": "deleted"}], limit=0)

    assert conn.execute("select removed from app.uploads").fetchall() == [(None,)]


def test_an_insert_at_the_same_moment_keeps_the_file(conn, dsn):
    attach(conn)
    put(conn, "a")

    with psycopg.connect(dsn) as one, psycopg.connect(dsn) as two:
        one.execute("delete from app.uploads where path = 'a'")
        two.execute("insert into app.uploads (path) values ('a')")
        one.commit()
        assert exchange(conn).paths == [], "the other one has not ended"
        assert "has not ended" in row(conn, "a")["last_error"]
        two.commit()
    end_backoff(conn)

    assert deleted(conn) == set()
    assert outcomes(conn) == [("a", "in_use")]


def test_an_insert_that_is_rolled_back_in_the_end_only_delays_the_file(conn, dsn):
    attach(conn)
    put(conn, *"abcdefghijklmnopqrstuvwxyz")

    with psycopg.connect(dsn) as two:
        two.execute("insert into app.uploads (path) select path from app.uploads")
        conn.execute("delete from app.uploads")
        assert exchange(conn).paths == []
        two.rollback()
    end_backoff(conn)

    assert deleted(conn) == set("abcdefghijklmnopqrstuvwxyz")


def test_a_transaction_of_many_inserts_fills_no_lock_table(conn, dsn):
    attach(conn)

    with psycopg.connect(dsn) as two:
        for number in range(100):
            two.execute("insert into app.uploads (path) values (%s)", [f"{number}"])
        (locks,) = two.execute(
            "select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()"
        ).fetchone()

    assert locks <= 17


def test_upserts_merges_cascades_and_copies_count(conn):
    attach(conn)
    conn.execute("create unique index on app.uploads (views) where views > 0")
    conn.execute("create table app.parents (id bigint primary key)")
    conn.execute("alter table app.uploads add parent bigint references app.parents on delete cascade")
    conn.execute("insert into app.parents values (1)")
    conn.execute("insert into app.uploads (path, views) values ('a', 1), ('b', 2)")

    conn.execute(
        "insert into app.uploads (path, views) values ('a2', 1), ('c', 3)"
        " on conflict (views) where views > 0 do update set path = excluded.path"
    )
    conn.execute(
        "merge into app.uploads as u"
        " using (values (2, 'b2'), (3, null), (4, 'd')) as n (views, path) on n.views = u.views"
        " when matched and n.path is null then delete"
        " when matched then update set path = n.path"
        " when not matched then insert (path, views, parent) values (n.path, n.views, 1)"
    )
    conn.execute("select lapse.enqueue_file('s', 'e')")
    with conn.cursor().copy("copy app.uploads (path) from stdin") as copy:
        copy.write_row(["e"])
    conn.execute("delete from app.parents")

    assert queued(conn) == {
        "a": "path replaced",
        "b": "path replaced",
        "c": "row deleted",
        "d": "row deleted",
    }


def test_changes_of_partitions_count_whichever_table_they_name(conn):
    conn.execute("""
        create table app.parts (region text, id int, path text, primary key (region, id))
            partition by list (region);
        create table app.parts_a partition of app.parts for values in ('a') partition by range (id);
        create table app.parts_a1 partition of app.parts_a for values from (0) to (100);
        create table app.parts_b (path text, id int not null, region text not null);
        alter table app.parts attach partition app.parts_b for values in ('b');
        create index on app.parts (lapse.path_digest(path));
    """)
    attach(conn, "app.parts")
    conn.execute("insert into app.parts select 'a', n, 'a' || n from generate_series(1, 6) as n")
    conn.execute("insert into app.parts select 'b', n, 'b' || n from generate_series(1, 3) as n")

    conn.execute("delete from app.parts where path = 'a1'")
    conn.execute("delete from app.parts_a where path = 'a2'")
    conn.execute("delete from app.parts_a1 where path = 'a3'")
    conn.execute("update app.parts_a1 set path = 'x' where path = 'a4'")
    conn.execute("update app.parts set region = 'b' where path = 'a5'")
    assert queued(conn) == {
        "a1": "row deleted", "a2": "row deleted", "a3": "row deleted", "a4": "path replaced",
    }  # fmt: skip
    conn.execute("truncate app.parts_b")
    assert set(queued(conn)) == {"a1", "a2", "a3", "a4", "a5", "b1", "b2", "b3"}
    conn.execute("insert into app.parts_a1 (region, id, path) values ('a', 50, 'b1')")
    conn.execute("truncate app.parts")

    assert set(queued(conn)) == {"a1", "a2", "a3", "a4", "a5", "a6", "b1", "b2", "b3", "x"}


def test_a_new_partition_is_found_and_mended(conn):
    conn.execute("create table app.parts (id int primary key, path text) partition by range (id)")
    conn.execute("create table app.parts_1 partition of app.parts for values from (0) to (100)")
    conn.execute("create index on app.parts (lapse.path_digest(path))")
    attach(conn, "app.parts", grace="1 hour")
    assert conn.execute("select * from lapse.attachment_findings()").fetchall() == []
    conn.execute("create table app.parts_2 partition of app.parts for values from (100) to (200)")

    found = conn.execute("select problem, command from lapse.attachment_findings()").fetchall()
    assert len(found) == 4
    assert "app.parts_2 queue no file" in found[0][0]
    conn.execute(found[0][1])

    assert conn.execute("select * from lapse.attachment_findings()").fetchall() == []
    conn.execute("insert into app.parts values (150, 'a')")
    conn.execute("delete from app.parts_2")
    assert round(row(conn, "a")["due_in"].total_seconds() / 3600) == 1


def test_names_may_be_anything(conn):
    conn.execute("""
        create schema "My ""App"" x";
        create table "My ""App"" x"."Up%loads {path}" (
            "Key 1" uuid default gen_random_uuid(), "Key'2" numeric default 1, "Pa th{of_a}" varchar(300),
            "Disk" text,
            "When" timestamptz, "storage" int, path int, tg_op text default 'x',
            primary key ("Key 1", "Key'2"));
        create index on "My ""App"" x"."Up%loads {path}" ("Disk", lapse.path_digest("Pa th{of_a}"::text));
    """)
    table = '"My ""App"" x"."Up%loads {path}"'
    attach(
        conn,
        table,
        "Pa th{of_a}",
        storage_column="Disk",
        live_when="tg_op = 'x' -- {path} % $code$ '",
        removed_column="When",
    )
    insert = f"""insert into {table} ("Pa th{{of_a}}", "Disk") values ('a', 's'), ('b', 's'), ('c', 's')"""
    conn.execute(insert)

    conn.execute(f"""delete from {table} where "Pa th{{of_a}}" = 'a'""")
    conn.execute(f"""update {table} set tg_op = 'y' where "Pa th{{of_a}}" = 'b'""")
    assert deleted(conn) == {"a", "b"}
    assert conn.execute(f"""select "Pa th{{of_a}}" from {table} where "When" is not null""").fetchall() == [
        ("b",)
    ]
    conn.execute(f"truncate {table}")
    assert deleted(conn) == {"c"}
    conn.execute("select lapse.detach_files(%s::regclass, 'Pa th{of_a}')", [table])


def test_columns_that_are_called_like_parts_of_what_is_written_change_nothing(conn):
    names = (
        "p_storage p_storages p_paths p_after p_limit p_claimed_at v_paths v_storages storage id k1 live due"
    )
    columns = ", ".join(f"{name} text" for name in names.split())
    conn.execute(f"create table app.odd (key int primary key, path text unique, {columns})")
    attach(conn, "app.odd")
    conn.execute("insert into app.odd (key, path) values (1, 'a'), (2, 'b')")
    conn.execute("update app.odd set path = 'c' where key = 2; delete from app.odd where key = 1")

    assert queued(conn) == {"a": "row deleted", "b": "path replaced"}
    assert conn.execute("select * from app.lapse_files_odd_path_listed('s', null, 5)").fetchall() == [("c",)]
    assert conn.execute("select * from app.lapse_files_odd_path_known('{s}', '{c}')").fetchall() == [
        ("s", "c")
    ]
    assert deleted(conn) == {"a", "b"}


def test_paths_and_storages_that_a_collation_takes_for_equal_are_others(conn):
    loose_collation(conn)
    conn.execute("""
        create table app.docs (id int primary key, disk text collate app.loose, path text collate app.loose);
        create index on app.docs (disk, lapse.path_digest(path));
    """)
    attach(conn, "app.docs", storage_column="disk")
    conn.execute("""
        insert into app.docs values
            (1, 's', 'a'), (2, 's', 'b'), (3, 's', 'c'), (4, 's', 'C'), (5, 's', 'd'), (6, 'S', 'd');
        update app.docs set path = 'A' where id = 1;
        update app.docs set disk = 'S' where id = 2;
        delete from app.docs where id in (3, 5, 6);
    """)

    asked = conn.execute("select storage || path from lapse.file_cleanup_queue").fetchall()
    assert {file for (file,) in asked} == {"sa", "sb", "sc", "Sd", "sd"}
    assert deleted(conn) == {"a", "b", "c", "d"}


def test_whatever_a_session_takes_a_backslash_or_null_for_its_statements_are_served(conn, dsn):
    attach(conn, live_when=r"path !~ '\.tmp$' and (status = null) is null")
    put(conn, "a", r"b\c")
    digests = "select lapse.path_digest(path) from app.uploads where id <= 2 order by id"
    odd = "-c standard_conforming_strings=off -c escape_string_warning=off -c transform_null_equals=on"

    with psycopg.connect(dsn, autocommit=True, options=f"-c search_path= {odd}") as other:
        assert other.execute(digests).fetchall() == conn.execute(digests).fetchall()
        put(other, "z", "xtmp", "y.tmp")
        assert queued(conn) == {"y.tmp": "not needed"}
        other.execute("update app.uploads set path = 'a2' where path = 'a'")
        other.execute("delete from app.uploads where path = 'z'")

    assert queued(conn) == {"y.tmp": "not needed", "a": "path replaced", "z": "row deleted"}


def test_a_stored_generated_column_can_hold_paths(conn):
    conn.execute("""
        create table app.docs (id int primary key, doc jsonb,
            path text generated always as (doc ->> 'path') stored);
        create index on app.docs (lapse.path_digest(path));
    """)
    attach(conn, "app.docs")
    conn.execute('insert into app.docs (id, doc) values (1, \'{"path": "a"}\')')

    conn.execute('update app.docs set doc = \'{"path": "b"}\'')

    assert queued(conn) == {"a": "path replaced"}


def test_two_columns_of_a_row_and_case_insensitive_text_can_hold_paths(conn):
    if not conn.execute("select 1 from pg_available_extensions where name = 'citext'").fetchone():
        pytest.skip("this server has no citext")
    conn.execute("create extension citext schema public")
    conn.execute("""
        create table app.docs (name public.citext primary key, path text, other public.citext);
        create index on app.docs (lapse.path_digest(path));
        create index on app.docs (lapse.path_digest(other::text));
    """)
    attach(conn, "app.docs")
    attach(conn, "app.docs", "other")
    conn.execute("insert into app.docs values ('n', 'a', 'A')")

    conn.execute("update app.docs set path = 'b', other = 'a'")

    assert deleted(conn) == {"A"}, "a is named by the other column now"
    conn.execute("delete from app.docs")
    assert deleted(conn) == {"a", "b"}


def test_what_is_queued_already_is_merged_whatever_gives_it_up(conn):
    attach(conn, live_when=LIVE)
    put(conn, *"abcdef")
    conn.execute(
        "select lapse.enqueue_file('s', p, now() + interval '1 day')"
        "  from unnest('{a,b,c,d,e,f}'::text[]) as p"
    )

    conn.execute("update app.uploads set status = 'done' where path in ('a', 'b')")
    conn.execute("delete from app.uploads where path in ('c', 'd')")
    conn.execute("truncate app.uploads")

    assert deleted(conn) == set("abcdef")


def test_a_plain_index_on_the_path_serves_as_well(conn):
    conn.execute("create table app.plain (id int primary key, path varchar(500) unique, status text)")
    attach(conn, "app.plain")
    conn.execute("insert into app.plain select n, 'p' || n, 'open' from generate_series(1, 5) as n")
    conn.execute("select lapse.enqueue_file('s', 'p1'), lapse.enqueue_file('s', 'q')")

    assert deleted(conn) == {"q"}
    listed = conn.execute("select path from app.lapse_files_plain_path_listed('s', 'p2', 2)").fetchall()
    assert listed == [("p3",), ("p4",)]


def test_a_trigger_of_the_applications_own_may_change_a_row_again(conn):
    conn.execute("""
        create function app.again() returns trigger language plpgsql as $$
        begin
            update app.uploads set path = 'x' || path where id = new.id and path !~ '^x';
            return null;
        end; $$;
        create trigger again after insert or update of path on app.uploads
            for each row execute function app.again();
    """)
    attach(conn)
    conn.execute("select lapse.enqueue_file('s', 'a')")

    put(conn, "a")

    assert set(queued(conn)) == {"a"}, "no row names it, whatever the statement said first"
    conn.execute("update app.uploads set path = 'b'")
    assert deleted(conn) == {"a", "b", "xa"}


def test_another_storage_leaves_no_file_of_a_row_condemned_in_the_former_one(conn):
    attach(conn)
    put(conn, "a", "a", "b")
    conn.execute("delete from app.uploads where id in (1, 3)")

    attach(conn, storage="t", replace=True)

    assert queued(conn) == {"b": "row deleted"}, "a is named by row 2, which nobody would ask any more"
    conn.execute("delete from app.uploads")
    assert conn.execute("select storage, path from lapse.file_cleanup_queue order by 1").fetchall() == [
        ("s", "b"),
        ("t", "a"),
    ]


def test_sweeps_and_missing_ask_the_table(conn):
    attach(conn, live_when=LIVE)
    put(conn, "a", "b")
    put(conn, "c", status="done")
    conn.execute("delete from lapse.file_cleanup_queue")

    unknown = conn.execute("select path from lapse.unknown_files('s', '{a,b,c,d}')").fetchall()
    listed = conn.execute("select path from lapse.listed_files('s') order by 1").fetchall()

    assert (unknown, listed) == ([("d",)], [("a",), ("b",), ("c",)])


def test_an_update_that_changes_nothing_of_files_queues_and_locks_nothing(conn):
    attach(conn, live_when=LIVE)
    put(conn, *"abc")

    with conn.transaction():
        conn.execute("update app.uploads set views = views + 1, path = path")
        locks = conn.execute(
            "select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()"
        ).fetchone()

    assert (queued(conn), outcomes(conn), locks) == ({}, [], (0,))


def test_a_bulk_change_after_a_small_one_is_planned_for_its_size(conn):
    attach(conn, live_when=LIVE)
    put(conn, "a")
    conn.execute("update app.uploads set status = 'done'")
    put(conn, *(f"{number}" for number in range(25_000)))

    conn.execute("set statement_timeout = '60s'")
    conn.execute("update app.uploads set status = 'done', path = 'n' || path where status = 'open'")
    conn.execute("update app.uploads set status = 'open'")
    conn.execute("delete from app.uploads")

    assert conn.execute("select count(*) from lapse.file_cleanup_queue").fetchone() == (50_001,)
