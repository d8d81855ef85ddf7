"""The cache: every entry has an expiry, a lapsed one is never returned, and no read fails for tidying up."""

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import IsolationLevel

from pglapse.doctor.examination import examined
from tests.support import standby
from tests.support.install import alembic
from tests.support.market import HOUR, SECOND, now, raises, value, waiting


@pytest.fixture
def conn(tx: psycopg.Connection) -> psycopg.Connection:
    """A transaction that is rolled back."""
    return tx


@pytest.fixture
def own(dsn: str) -> Iterator[psycopg.Connection]:
    """A database of the test's own, where changes commit; no statement may wait for long."""
    with psycopg.connect(
        dsn, autocommit=True, options="-c search_path= -c statement_timeout=15s"
    ) as connection:
        yield connection


def put(conn: psycopg.Connection, key: str, what: str, until: datetime) -> None:
    conn.execute("select market.put_cache(%s, %s, %s)", [key, what, until])


def get(conn: psycopg.Connection, key: str, at: datetime | None = None) -> Any:
    return value(conn, "select market.get_cache(%s, coalesce(%s, now()))", key, at)


def put_lapsed(conn: psycopg.Connection, key: str = "key") -> None:
    """An entry that lapsed a second ago and that no policy has been at."""
    conn.execute(
        "insert into market.cache_entries (key, value, expires_at)"
        " values (%s, '\"old\"', now() - interval '1 s')",
        [key],
    )


def keys(conn: psycopg.Connection) -> list[str]:
    return [key for (key,) in conn.execute("select key from market.cache_entries order by key")]


def test_what_was_put_is_got_until_it_lapses_with_every_policy_paused(conn: psycopg.Connection) -> None:
    conn.execute("select lapse.pause(name) from lapse.policy")
    end = now(conn) + HOUR

    put(conn, "key", '{"a": [1, 2]}', end)
    put(conn, "Kéy " + "x" * 990, "null", end)

    assert get(conn, "key", end - timedelta(microseconds=1)) == {"a": [1, 2]}
    assert value(conn, "select market.get_cache(%s) = 'null'", "Kéy " + "x" * 990) is True
    assert get(conn, "no such key") is None
    assert value(conn, "select count(*) from market.live_cache_entries") == 2
    assert get(conn, "key", end) is None


def test_a_value_takes_the_place_of_another_lapsed_or_not(conn: psycopg.Connection) -> None:
    put_lapsed(conn)
    for what, hours in [("1", 2), ("2", 1), ("3", 3)]:
        end = now(conn) + hours * HOUR
        put(conn, "key", what, end)
        assert conn.execute("select value, expires_at from market.cache_entries").fetchall() == [
            (int(what), end)
        ]


def test_a_lapsed_entry_is_gone_once_it_was_asked_for(conn: psycopg.Connection) -> None:
    put_lapsed(conn, "a")
    put_lapsed(conn, "b")

    assert get(conn, "a") is None

    assert keys(conn) == ["b"]
    assert value(conn, "select count(*) from market.live_cache_entries") == 0


def test_an_entry_without_an_expiry_is_refused_and_so_is_what_makes_no_sense(
    conn: psycopg.Connection,
) -> None:
    start = now(conn)
    good = {"key": "key", "value": "1", "until": start + HOUR, "at": start}

    for wrong in [
        {"until": None},
        {"until": "infinity"},
        {"until": "-infinity"},
        {"until": start},
        {"until": start - SECOND},
        {"key": ""},
        {"key": "x" * 1001},
        {"key": "é" * 501},
        {"key": "x" * 1_000_000},
        {"key": None},
        {"value": None},
        {"at": None},
    ]:
        with raises("LP108") as refused, conn.transaction():
            conn.execute("select market.put_cache(%(key)s, %(value)s, %(until)s, %(at)s)", good | wrong)
        assert len(str(refused.value)) < 2000
        if wrong == {"until": None}:
            assert "expiry" in str(refused.value)
    for call in ["get_cache(null)", "get_cache('x', null)"]:
        with raises("LP108"), conn.transaction():
            conn.execute(f"select market.{call}")
    for columns in [("key", "1", None), ("key", "1", "infinity"), ("", "1", start), ("x" * 1001, "1", start)]:
        with pytest.raises(psycopg.errors.IntegrityError), conn.transaction():
            conn.execute(
                "insert into market.cache_entries (key, value, expires_at) values (%s, %s, %s)", columns
            )
    assert keys(conn) == []


def test_the_cache_costs_no_wal(conn: psycopg.Connection) -> None:
    assert (
        value(conn, "select relpersistence from pg_catalog.pg_class where relname = 'cache_entries'") == "u"
    )


def test_who_puts_a_key_that_is_being_put_waits_and_wins(own: psycopg.Connection, dsn: str) -> None:
    end = now(own) + HOUR
    with psycopg.connect(dsn) as other:
        put(other, "key", "1", end)
        with waiting(own, "select market.put_cache('key', '2', %s)", end) as answer:
            other.commit()
            answer.result(10)

    assert get(own, "key") == 2


Trouble = Callable[[psycopg.Connection, psycopg.Connection], None]


def locked(own: psycopg.Connection, other: psycopg.Connection) -> None:
    other.execute("select from market.cache_entries for update")


def being_indexed(own: psycopg.Connection, other: psycopg.Connection) -> None:
    other.execute("lock table market.cache_entries in share mode")


def kept_by_a_trigger(own: psycopg.Connection, other: psycopg.Connection) -> None:
    own.execute(
        "create function public.no() returns trigger language plpgsql as $$ begin raise 'no'; end $$;"
        "create trigger no before delete on market.cache_entries for each row execute function public.no()"
    )


def looked_at_until_commit(own: psycopg.Connection, other: psycopg.Connection) -> None:
    own.execute(
        "create function public.no() returns trigger language plpgsql as $$ begin raise 'no'; end $$;"
        "create constraint trigger no after delete on market.cache_entries deferrable initially deferred"
        " for each row execute function public.no()"
    )


def without_the_right(own: psycopg.Connection, other: psycopg.Connection) -> None:
    """A lack of rights can't be had as a superuser: what it raises can."""
    own.execute(
        "create function public.no() returns trigger language plpgsql as"
        " $$ begin raise 'no' using errcode = 'insufficient_privilege'; end $$;"
        "create trigger no before delete on market.cache_entries execute function public.no()"
    )


@pytest.mark.parametrize(
    "trouble", [locked, being_indexed, kept_by_a_trigger, looked_at_until_commit, without_the_right]
)
def test_a_read_that_can_not_delete_a_lapsed_entry_answers_all_the_same(
    own: psycopg.Connection, dsn: str, trouble: Trouble
) -> None:
    put_lapsed(own)
    with psycopg.connect(dsn) as other:
        trouble(own, other)

        with own.transaction():
            assert get(own, "key") is None
            own.execute("create table public.the_rest_of_the_transaction ()")

        other.rollback()
    assert keys(own) == ["key"]
    assert value(own, "select count(*) from public.the_rest_of_the_transaction") == 0


def test_a_read_only_transaction_reads_and_leaves_the_rest_to_others(own: psycopg.Connection) -> None:
    put_lapsed(own, "old")
    put(own, "key", "1", now(own) + HOUR)

    with own.transaction():
        own.execute("set transaction read only")
        assert get(own, "old") is None
        assert get(own, "key") == 1

    assert keys(own) == ["key", "old"]


def test_a_repeatable_read_transaction_survives_an_entry_put_meanwhile(
    own: psycopg.Connection, dsn: str
) -> None:
    put_lapsed(own)
    with psycopg.connect(dsn) as other:
        other.isolation_level = IsolationLevel.REPEATABLE_READ
        other.execute("create table public.before ()")
        put(own, "key", "1", now(own) + HOUR)

        assert get(other, "key") is None
        other.commit()

    assert get(own, "key") == 1
    assert value(own, "select count(*) from public.before") == 0


def test_a_serializable_transaction_deletes_nothing(own: psycopg.Connection, dsn: str) -> None:
    put_lapsed(own)
    with psycopg.connect(dsn) as other:
        other.isolation_level = IsolationLevel.SERIALIZABLE
        assert get(other, "key") is None
        other.commit()

    assert keys(own) == ["key"]


def test_an_entry_that_was_put_since_it_was_read_is_not_deleted(conn: psycopg.Connection) -> None:
    put(conn, "key", "1", now(conn) + HOUR)

    conn.execute("select market.forget_cache('key', now())")

    assert get(conn, "key") == 1


def test_an_entry_that_is_put_while_the_purge_is_at_it_stays(own: psycopg.Connection, dsn: str) -> None:
    put_lapsed(own)
    with psycopg.connect(dsn) as other:
        put(other, "key", "1", now(own) + HOUR)
        assert value(own, "select picked from market.purge_cache(10, now(), '-infinity')") == 0
        other.commit()
    assert value(own, "select picked from market.purge_cache(10, now(), '-infinity')") == 0

    assert get(own, "key") == 1


def test_on_a_standby_sessions_are_read_and_the_cache_is_empty(tmp_path: Path) -> None:
    with standby.pair() as dsns:
        if dsns is None:
            pytest.skip("no programs of a PostgreSQL server here to make a standby with")
        alembic(dsns[0], "upgrade", "heads")
        with (
            psycopg.connect(dsns[0], autocommit=True) as primary,
            psycopg.connect(dsns[1], autocommit=True) as replica,
        ):
            end = now(primary) + HOUR
            primary.execute(
                "select market.open_session('live', 'user', 7, %s, p_idle_timeout => '2 h')", [end]
            )
            primary.execute(
                "select market.open_session('old', 'user', 7, now() - interval '1 s',"
                " p_now => now() - interval '1 h')"
            )
            put(primary, "key", "1", end)
            standby.caught_up(primary, replica)

            assert value(replica, "select pg_is_in_recovery()")
            assert value(replica, "select expires_at from market.get_session('live')") == end
            assert value(replica, "select count(*) from market.get_session('old')") == 0
            assert get(replica, "key") is None
            assert get(primary, "key") == 1
            assert value(replica, "select count(*) from market.chat_events_after(0)") == 0

            primary.execute("call lapse.run_due('worker')")
            standby.caught_up(primary, replica)
            with pytest.MonkeyPatch.context() as patch:
                patch.chdir(tmp_path)
                patch.setenv("DATABASE_URL", dsns[1])
                found = [one.check for one in examined(None, None) if one.level != "ok"]
            assert found == ["schema"]
