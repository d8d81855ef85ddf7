"""What the database knows of storages' markers."""

from concurrent.futures import ThreadPoolExecutor
from uuid import UUID, uuid4

import psycopg
import pytest

from tests.support.queue import waits_for_a_lock


@pytest.fixture
def served(conn: psycopg.Connection) -> psycopg.Connection:
    """A database whose worker serves two storages."""
    serve(conn, "public", "private")
    return conn


def serve(conn: psycopg.Connection, *storages: str) -> None:
    conn.execute("select lapse.worker_hello('w', 'host', 1, '1', %s)", [list(storages)])


def ask(
    conn: psycopg.Connection, found: UUID | None = None, storage: str | None = "public"
) -> tuple[UUID, bool]:
    """The number that the root must have, and whether it may be written."""
    answer = conn.execute("select * from lapse.storage_marker(%s, %s)", [storage, found]).fetchone()
    assert answer is not None
    return answer


def adopt(
    conn: psycopg.Connection, found: UUID | None = None, storage: str | None = "public"
) -> tuple[UUID, bool]:
    answer = conn.execute("select * from lapse.adopt_storage(%s, %s)", [storage, found]).fetchone()
    assert answer is not None
    return answer


def marked(conn: psycopg.Connection, storage: str = "public") -> bool:
    """Whether a worker has seen the number in the root."""
    row = conn.execute("select marked_at from lapse.storage_status where storage = %s", [storage]).fetchone()
    assert row is not None
    return row[0] is not None


def test_on_first_use_a_number_is_made_up_and_may_be_written_until_it_was_seen(served):
    number, may_write = ask(served)

    assert may_write
    assert ask(served) == (number, True)
    assert not marked(served)
    assert ask(served, number) == (number, False)
    assert marked(served)
    assert ask(served) == (number, False)


def test_a_number_that_was_seen_stays_whatever_is_found_later(served):
    number, _ = ask(served)
    ask(served, number)
    other, _ = ask(served, storage="private")

    for found in (None, uuid4(), other, number):
        assert ask(served, found) == (number, False)


def test_a_number_that_nobody_knows_is_another_databases(served):
    for _ in range(2):
        with pytest.raises(psycopg.Error, match="a marker that this database does not know") as caught:
            ask(served, uuid4())
        assert caught.value.sqlstate == "LP011"
        assert "pglapse storage adopt public" in str(caught.value.diag.message_hint)
        ask(served)  # a number that was made up, and not seen, changes nothing
    assert not marked(served)


def test_two_names_for_one_root_share_its_number(served):
    number, _ = ask(served)
    ask(served, storage="private")  # made up, and not seen, as when both begin at once

    assert ask(served, number, "private") == (number, False)
    assert ask(served, number, "public") == (number, False)


def test_each_storage_has_a_number_of_its_own(served):
    assert ask(served)[0] != ask(served, storage="private")[0]


@pytest.mark.parametrize("call", [ask, adopt])
@pytest.mark.parametrize(("storage", "code"), [(None, "LP001"), ("unheard-of", "LP002")])
def test_a_storage_that_no_worker_serves_has_no_marker(served, call, storage, code):
    with pytest.raises(psycopg.Error) as caught:
        call(served, None, storage)

    assert (caught.value.sqlstate, bool(caught.value.diag.message_hint)) == (code, True)


def test_workers_that_begin_at_once_get_the_same_number(served, dsn):
    with (
        ThreadPoolExecutor(1) as pool,
        psycopg.connect(dsn) as first,
        psycopg.connect(dsn, autocommit=True) as second,
    ):
        number, _ = ask(first)
        answer = pool.submit(ask, second)
        waits_for_a_lock(served, second.info.backend_pid)
        first.commit()

        assert answer.result(20) == (number, True)


def test_an_adopted_folder_gets_a_new_number_and_the_old_one_is_nobodys(served):
    old, _ = ask(served)
    ask(served, old)

    new, to_write = adopt(served)

    assert to_write
    assert new != old
    assert ask(served) == (new, True)
    with pytest.raises(psycopg.Error, match="does not know"):
        ask(served, old)
    assert ask(served, new) == (new, False)


def test_another_databases_folder_gets_a_new_number_when_it_is_adopted(served):
    theirs = uuid4()

    new, to_write = adopt(served, theirs)

    assert to_write
    assert new != theirs


def test_a_number_that_the_database_knows_is_kept_when_its_folder_is_adopted(served):
    public, _ = ask(served)
    private, _ = ask(served, storage="private")
    for number, storage in ((public, "public"), (private, "private")):
        ask(served, number, storage)

    assert adopt(served, public) == (public, False)
    assert adopt(served, private) == (private, False)
    assert ask(served, private) == (private, False)
    assert ask(served, private, "private") == (private, False)


def test_the_status_of_storages_says_what_is_wrong_with_them(served):
    served.execute("""
        select lapse.worker_beat('w', 0, 0, 0, false, '{"public": "not mounted"}'),
               lapse.worker_hello('v', 'host', 2, '1', '{public}'),
               lapse.worker_beat('v', 0, 0, 0, false, '{"public": "not mounted"}'),
               lapse.worker_hello('dead', 'host', 3, '1', '{public}'),
               lapse.worker_beat('dead', 0, 0, 0, false, '{"public": "long ago"}')
    """)
    served.execute("update lapse.worker set last_seen_at = now() - interval '1 day' where id = 'dead'")
    number, _ = ask(served)

    found = served.execute("select storage, marker, workers, troubles from lapse.storage_status").fetchall()

    assert sorted(found) == [("private", None, 1, []), ("public", number, 2, ["not mounted"])]
