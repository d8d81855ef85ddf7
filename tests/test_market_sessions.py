"""Sessions: a lapsed one is never returned, a read never fails for tidying up, and reads are cheap."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from psycopg import IsolationLevel, sql

from tests.support.market import HOUR, NUMBER, SECOND, now, raises, value

MINUTE = timedelta(minutes=1)


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


def token() -> bytes:
    return f"token {next(NUMBER)}".encode()


def opened(conn: psycopg.Connection, expires: datetime | str | None, **arguments: Any) -> bytes:
    """Open a session of user 7; returns its token."""
    word = token()
    given = {"p_expires_at": expires} | arguments
    names = "".join(f", {name} => %({name})s" for name in given)
    conn.execute(f"select market.open_session(%(word)s, 'user', 7{names})", {"word": word} | given)
    return word


def lapsed(conn: psycopg.Connection) -> bytes:
    """A session that lapsed a second ago and that no policy has been at."""
    word = token()
    conn.execute(
        "insert into market.sessions (token_hash, principal_kind, principal_id, expires_at)"
        " values (%s, 'user', 7, now() - interval '1 s')",
        [word],
    )
    return word


def got(conn: psycopg.Connection, word: bytes, at: datetime | None = None, *, touch: bool = True) -> Any:
    """What a read returns: when the session lapses, or None."""
    rows = conn.execute(
        "select principal_kind, principal_id, expires_at"
        "  from market.get_session(%s, %s, coalesce(%s, now()))",
        [word, touch, at],
    ).fetchall()
    assert len(rows) <= 1
    for kind, principal, expires in rows:
        assert (kind, principal) == ("user", 7)
        return expires
    return None


def there(conn: psycopg.Connection, word: bytes) -> bool:
    return value(conn, "select exists (select from market.sessions where token_hash = %s)", word)


def version(conn: psycopg.Connection, word: bytes) -> Any:
    """Changes whenever the row is written or locked."""
    return conn.execute(
        "select ctid, xmin, xmax from market.sessions where token_hash = %s", [word]
    ).fetchone()


# What is returned


def test_a_session_is_opened_read_and_ended(conn: psycopg.Connection) -> None:
    end = now(conn) + HOUR
    word = opened(conn, end, p_data='{"theme": "dark"}')

    assert conn.execute("select * from market.get_session(%s)", [word]).fetchall() == [
        ("user", 7, {"theme": "dark"}, now(conn), end)
    ]
    assert value(conn, "select market.end_session(%s)", word) is True
    assert got(conn, word) is None
    assert value(conn, "select market.end_session(%s)", word) is False


def test_a_session_lapses_at_its_time_and_not_before_with_every_policy_paused(
    conn: psycopg.Connection,
) -> None:
    conn.execute("select lapse.pause(name) from lapse.policy")
    end = now(conn) + HOUR
    word = opened(conn, end)

    assert got(conn, word, end - timedelta(microseconds=1)) == end
    assert value(conn, "select count(*) from market.live_sessions where token_hash = %s", word) == 1
    assert got(conn, word, end) is None


def test_a_lapsed_session_is_gone_once_it_was_asked_for(conn: psycopg.Connection) -> None:
    word, other = lapsed(conn), lapsed(conn)

    assert got(conn, word) is None

    assert not there(conn, word)
    assert there(conn, other)
    assert value(conn, "select count(*) from market.live_sessions") == 0


def test_logging_out_of_a_lapsed_session_says_that_there_was_none(conn: psycopg.Connection) -> None:
    word = lapsed(conn)

    assert value(conn, "select market.end_session(%s)", word) is False
    assert not there(conn, word)


def test_a_token_has_one_session_and_a_lapsed_one_makes_room(conn: psycopg.Connection) -> None:
    end = now(conn) + HOUR
    word = opened(conn, end, p_idle_timeout="30 min", p_ends_at=end)

    with raises("LP121"), conn.transaction():
        conn.execute("select market.open_session(%s, 'admin', 1, %s)", [word, end + HOUR])
    assert got(conn, word) == end

    conn.execute("select market.open_session(%s, 'admin', 1, %s, p_now => %s)", [word, end + HOUR, end])
    assert conn.execute(
        "select principal_kind, principal_id, expires_at, idle_timeout, ends_at from market.sessions"
        " where token_hash = %s",
        [word],
    ).fetchone() == ("admin", 1, end + HOUR, None, None)


def test_what_makes_no_sense_is_refused_and_changes_nothing(conn: psycopg.Connection) -> None:
    start = now(conn)
    end = start + HOUR
    good = {
        "word": b"x",
        "kind": "user",
        "id": 1,
        "end": end,
        "data": "{}",
        "idle": None,
        "last": None,
        "at": start,
    }

    for wrong in [
        {"kind": "robot"},
        {"kind": "User"},
        {"kind": "x" * 100_000},
        {"end": start},
        {"end": start - SECOND},
        {"end": "-infinity"},
        {"end": None},
        {"idle": "1 min"},
        {"idle": "0"},
        {"idle": "-1 h"},
        {"idle": "400 days"},
        {"last": start},
        {"word": b""},
        {"word": b"x" * 129},
        {"word": None},
        {"kind": None},
        {"id": None},
        {"data": None},
        {"at": None},
    ]:
        with raises("LP108") as refused, conn.transaction():
            conn.execute(
                "select market.open_session("
                "%(word)s, %(kind)s, %(id)s, %(end)s, %(data)s, %(idle)s, %(last)s, %(at)s)",
                good | wrong,
            )
        assert len(str(refused.value)) < 2000
    for call in ["get_session(null)", "get_session('x', null)", "end_session(null)"]:
        with raises("LP108"), conn.transaction():
            conn.execute(f"select market.{call}")
    assert value(conn, "select count(*) from market.sessions") == 0

    conn.execute("select market.open_session('x', 'agent', 1, 'infinity')")
    assert value(conn, "select expires_at::text from market.get_session('x')") == "infinity"


def test_the_table_refuses_what_the_function_refuses(conn: psycopg.Connection) -> None:
    for columns in [
        "token_hash = ''",
        "principal_kind = 'robot'",
        "expires_at = null",
        "idle_timeout = '1 s'",
        "ends_at = now()",
    ]:
        word = opened(conn, now(conn) + HOUR)
        with pytest.raises(psycopg.errors.IntegrityError), conn.transaction():
            conn.execute(f"update market.sessions set {columns} where token_hash = %s", [word])


# Sliding


def test_a_sliding_session_moves_once_a_minute_at_most(conn: psycopg.Connection) -> None:
    start = now(conn)
    word = opened(conn, None, p_idle_timeout="30 min")
    end = start + 30 * MINUTE

    assert got(conn, word) == end
    fresh = version(conn, word)
    for second in range(0, 60, 7):
        assert got(conn, word, start + second * SECOND) == end
    assert version(conn, word) == fresh, "a read within the minute writes nothing"

    assert got(conn, word, start + MINUTE) == end + MINUTE
    moved = version(conn, word)
    assert moved != fresh
    assert got(conn, word, start + 1.99 * MINUTE) == end + MINUTE
    assert version(conn, word) == moved
    assert got(conn, word, start + 25 * MINUTE) == end + 25 * MINUTE


def test_a_session_slides_only_when_it_is_touched_and_made_to_slide(conn: psycopg.Connection) -> None:
    start = now(conn)
    sliding = opened(conn, start + HOUR, p_idle_timeout="2 h")
    fixed = opened(conn, start + HOUR)

    assert got(conn, sliding, start + MINUTE, touch=False) == start + HOUR
    assert got(conn, fixed, start + MINUTE) == start + HOUR
    assert got(conn, sliding, start + MINUTE) == start + MINUTE + 2 * HOUR


def test_a_session_never_slides_back_nor_beyond_its_end_nor_into_life_again(
    conn: psycopg.Connection,
) -> None:
    start = now(conn)
    long = opened(conn, start + 9 * HOUR, p_idle_timeout="30 min")
    word = opened(conn, None, p_idle_timeout="30 min", p_ends_at=start + HOUR)
    short = opened(conn, None, p_idle_timeout="30 min", p_ends_at=start + MINUTE)

    assert got(conn, long, start + HOUR) == start + 9 * HOUR
    assert got(conn, short) == start + MINUTE
    for minute in [20, 40, 59]:
        assert got(conn, word, start + minute * MINUTE) == min(start + (minute + 30) * MINUTE, start + HOUR)
    assert got(conn, word, start + HOUR) is None

    word = opened(conn, None, p_idle_timeout="30 min")
    assert got(conn, word, start + 30 * MINUTE) is None
    assert got(conn, word, start + 29 * MINUTE) is None, "it is gone"


def test_extending_a_session_judges_it_again_under_the_lock(conn: psycopg.Connection) -> None:
    start = now(conn)
    word = opened(conn, start + HOUR, p_idle_timeout="2 h")

    for until, at, moved in [
        (start + HOUR + 59 * SECOND, start, False),
        (start + 3 * HOUR, start + HOUR, False),
        (start + 2 * HOUR, start, True),
        (start + 2 * HOUR + SECOND, start, False),
    ]:
        assert value(conn, "select market.extend_session(%s, %s, %s)", word, until, at) is moved
    assert value(conn, "select market.extend_session('unknown', %s, %s)", start + HOUR, start) is False


def test_of_two_reads_at_once_one_moves_the_session_and_neither_waits(
    own: psycopg.Connection, dsn: str
) -> None:
    start = now(own)
    word = opened(own, start + HOUR, p_idle_timeout="2 h")

    with psycopg.connect(dsn) as other:
        assert got(other, word, start) == start + 2 * HOUR
        assert got(own, word, start) == start + HOUR, "the other has not committed"
        other.commit()

    assert got(own, word, start) == start + 2 * HOUR


@pytest.mark.parametrize("zone", ["Asia/Tokyo", "America/New_York", "UTC"])
def test_a_day_has_24_hours_in_every_time_zone(conn: psycopg.Connection, zone: str) -> None:
    conn.execute("select set_config('TimeZone', %s, true)", [zone])
    for before in [
        datetime(2026, 3, 8, 5, 30, tzinfo=UTC),  # New York's clocks go forward at 7:00
        datetime(2026, 11, 1, 4, 30, tzinfo=UTC),  # and back at 6:00
    ]:
        word = opened(conn, None, p_idle_timeout="1 day", p_now=before)

        assert got(conn, word, before, touch=False) == before + 24 * HOUR
        assert got(conn, word, before + HOUR) == before + 25 * HOUR
        assert got(conn, word, before + 25 * HOUR - SECOND, touch=False) is not None
        assert got(conn, word, before + 25 * HOUR) is None


# Reads that can't tidy up answer all the same


Trouble = Callable[[psycopg.Connection, psycopg.Connection], None]


def locked(own: psycopg.Connection, other: psycopg.Connection) -> None:
    other.execute("select from market.sessions for update")


def being_indexed(own: psycopg.Connection, other: psycopg.Connection) -> None:
    other.execute("lock table market.sessions in share mode")


def kept_by_a_trigger(own: psycopg.Connection, other: psycopg.Connection) -> None:
    own.execute(
        "create function public.no() returns trigger language plpgsql as $$ begin raise 'no'; end $$;"
        "create trigger no before update or delete on market.sessions"
        " for each row execute function public.no()"
    )


def referenced(own: psycopg.Connection, other: psycopg.Connection) -> None:
    own.execute("create table public.visit (token bytea references market.sessions)")
    own.execute("insert into public.visit select token_hash from market.sessions")


def referenced_until_commit(own: psycopg.Connection, other: psycopg.Connection) -> None:
    own.execute("create table public.visit (token bytea references market.sessions initially deferred)")
    own.execute("alter table public.visit alter constraint visit_token_fkey deferrable initially deferred")
    own.execute("insert into public.visit select token_hash from market.sessions")


TROUBLES: list[Trouble] = [locked, being_indexed, kept_by_a_trigger, referenced, referenced_until_commit]


@pytest.mark.parametrize("trouble", TROUBLES)
def test_a_read_that_can_not_delete_a_lapsed_session_answers_all_the_same(
    own: psycopg.Connection, dsn: str, trouble: Trouble
) -> None:
    word = lapsed(own)
    with psycopg.connect(dsn) as other:
        trouble(own, other)

        with own.transaction():
            assert got(own, word) is None
            own.execute("create table public.the_rest_of_the_transaction ()")

        other.rollback()
    assert there(own, word)
    assert value(own, "select count(*) from public.the_rest_of_the_transaction") == 0


@pytest.mark.parametrize("trouble", [locked, being_indexed, kept_by_a_trigger])
def test_a_read_that_can_not_extend_a_session_answers_all_the_same(
    own: psycopg.Connection, dsn: str, trouble: Trouble
) -> None:
    end = now(own) + HOUR
    word = opened(own, end, p_idle_timeout="2 h")
    with psycopg.connect(dsn) as other:
        trouble(own, other)

        with own.transaction():
            assert got(own, word) == end
            own.execute("create table public.the_rest_of_the_transaction ()")


def test_a_read_only_transaction_reads_and_leaves_the_rest_to_others(own: psycopg.Connection) -> None:
    old, end = lapsed(own), now(own) + HOUR
    word = opened(own, end, p_idle_timeout="2 h")

    with own.transaction():
        own.execute("set transaction read only")
        assert got(own, old) is None
        assert got(own, word) == end

    assert there(own, old)
    assert got(own, old) is None
    assert not there(own, old)


@contextmanager
def run_as(own: psycopg.Connection, functions: list[str], rights: str) -> Iterator[None]:
    """Let these functions run with these rights on the sessions alone."""
    role = sql.Identifier(f"pglapse_test_reader_{next(NUMBER)}_{own.info.backend_pid}")
    own.execute(sql.SQL("create role {}").format(role))
    try:
        own.execute(sql.SQL("grant usage on schema market to {}").format(role))
        own.execute(sql.SQL("grant " + rights + " on market.sessions to {}").format(role))
        for function in functions:
            own.execute(sql.SQL("alter function " + function + " owner to {}").format(role))
            own.execute(sql.SQL("grant execute on all functions in schema market to {}").format(role))
        yield
    finally:
        own.execute(
            sql.SQL("reassign owned by {0} to current_user; drop owned by {0}; drop role {0}").format(role)
        )


@pytest.mark.parametrize("rights", ["select", "select, update"])
def test_an_owner_without_the_right_to_delete_reads_all_the_same(
    own: psycopg.Connection, rights: str
) -> None:
    old, end = lapsed(own), now(own) + HOUR
    word = opened(own, end, p_idle_timeout="2 h")
    names = ["market.get_session", "market.forget_session", "market.extend_session"]

    with run_as(own, names, rights), own.transaction():
        assert got(own, old) is None
        assert got(own, word) == (end if rights == "select" else now(own) + 2 * HOUR)

    assert there(own, old)


def test_a_repeatable_read_transaction_survives_a_session_renewed_meanwhile(
    own: psycopg.Connection, dsn: str
) -> None:
    word = lapsed(own)
    with psycopg.connect(dsn) as other:
        other.isolation_level = IsolationLevel.REPEATABLE_READ
        other.execute("create table public.before ()")
        own.execute("update market.sessions set expires_at = now() + interval '1 hour'")

        assert got(other, word) is None
        other.execute("create table public.after ()")
        other.commit()

    assert there(own, word)
    assert value(own, "select count(*) from public.before, public.after") == 0


def test_serializable_transactions_that_read_lapsed_sessions_do_not_fail_each_other(
    own: psycopg.Connection, dsn: str
) -> None:
    first, second = lapsed(own), lapsed(own)
    own.execute("create table public.page (id integer primary key, hits integer)")
    own.execute("insert into public.page values (1, 0), (2, 0)")
    with psycopg.connect(dsn) as one, psycopg.connect(dsn) as other:
        for session in (one, other):
            session.isolation_level = IsolationLevel.SERIALIZABLE
        # Were sessions deleted, each would have read what the other wrote.
        assert got(one, first) is None
        assert got(other, first) is None
        assert got(other, second) is None
        assert got(one, second) is None
        one.execute("update public.page set hits = hits + 1 where id = 1")
        other.execute("update public.page set hits = hits + 1 where id = 2")
        one.commit()
        other.commit()

    assert there(own, first)
    assert there(own, second)


def test_a_session_that_was_renewed_since_it_was_read_is_not_deleted(conn: psycopg.Connection) -> None:
    word = opened(conn, now(conn) + HOUR)

    conn.execute("select market.forget_session(%s, now())", [word])

    assert there(conn, word)


def test_a_session_that_is_renewed_while_the_purge_is_at_it_stays(own: psycopg.Connection, dsn: str) -> None:
    word = lapsed(own)
    with psycopg.connect(dsn) as other:
        other.execute("update market.sessions set expires_at = now() + interval '1 hour'")
        assert value(own, "select picked from market.purge_sessions(10, now(), '-infinity')") == 0
        other.commit()
    assert value(own, "select picked from market.purge_sessions(10, now(), '-infinity')") == 0

    assert got(own, word) is not None
