"""The worker as it runs: a process of its own, a real database, real files."""

import json
import re
import signal
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from tests.support.folders import entries
from tests.support.poll import until
from tests.support.running import door, pglapse, worker


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "files"
    root.mkdir()
    return root


@pytest.fixture
def config(tmp_path: Path, root: Path) -> Path:
    path = tmp_path / "pglapse.toml"
    path.write_text(f'[storage.public]\nkind = "local"\nroot = "{root}"\n')
    return path


def put(root: Path, *paths: str) -> list[str]:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text("x")
    return list(paths)


def enqueue(conn: psycopg.Connection, *paths: str, storage: str = "public", after: float = 0) -> None:
    conn.execute(
        "select lapse.enqueue_file(%s, path, clock_timestamp() + make_interval(secs => %s))"
        "  from unnest(%s::text[]) as path",
        [storage, after, list(paths)],
    )


def rows(conn: psycopg.Connection, query: str) -> list[tuple]:
    return conn.execute(query).fetchall()


def row(conn: psycopg.Connection, query: str) -> tuple:
    [found] = rows(conn, query)
    return found


def empty(conn: psycopg.Connection) -> bool:
    return not rows(conn, "select 1 from lapse.file_cleanup_queue")


def outcomes(conn: psycopg.Connection) -> dict[str, str]:
    return dict(conn.execute("select path, outcome from lapse.file_cleanup_log").fetchall())


def listening(conn: psycopg.Connection) -> bool:
    """A worker has introduced itself and waits: its last command was not the greeting."""
    return bool(
        rows(
            conn,
            "select 1 from pg_stat_activity where datname = current_database()"
            " and application_name = 'pglapse' and state = 'idle' and query like '%exchange_files%'",
        )
    )


def dead_reason(conn: psycopg.Connection) -> str | None:
    found = rows(conn, "select last_error from lapse.file_cleanup_queue where dead_at is not null")
    return found[0][0] if found else None


def test_a_cancelled_task_s_files_go_and_the_task_knows(conn, dsn, tmp_path):
    for storage in ("public", "private"):
        put(tmp_path / storage, "task/a.jpg", "task/b.jpg", "other.jpg")
    config = tmp_path / "pglapse.toml"
    config.write_text(
        "".join(
            f'[storage.{storage}]\nkind = "local"\nroot = "{tmp_path / storage}"\n'
            for storage in ("public", "private")
        )
    )
    [user] = row(
        conn, "insert into market.users (display_name, email) values ('ann', 'a@example.org') returning id"
    )
    [task] = row(
        conn, f"insert into market.tasks (poster_id, title) values ({user}, 'paint the fence') returning id"
    )
    conn.execute(
        "insert into market.task_files (task_id, storage, path)"
        " select %s, s, p"
        "  from unnest(array['public', 'private']) s, unnest(array['task/a.jpg', 'task/b.jpg']) p",
        [task],
    )

    with worker(dsn, config):
        until(lambda: listening(conn))
        conn.execute("select market.cancel_task(%s)", [task])
        until(lambda: empty(conn))

    for storage in ("public", "private"):
        assert entries(tmp_path / storage) == ["other.jpg"]
    assert rows(conn, "select count(*), count(removed_at) from market.task_files") == [(4, 4)]
    assert rows(conn, "select distinct outcome, bytes > 0 from lapse.file_cleanup_log") == [("deleted", True)]


def test_once_deletes_what_is_due_and_exits_0(conn, dsn, root, config):
    enqueue(conn, *put(root, *(f"d/{number}" for number in range(1100))))
    enqueue(conn, *put(root, "later"), after=3600)

    done = pglapse(dsn, "worker", "--once", "--config", str(config))

    assert done.returncode == 0, done.stderr
    assert entries(root) == ["later"]
    assert row(conn, "select count(*), min(outcome), max(outcome) from lapse.file_cleanup_log") == (
        1100, "deleted", "deleted",
    )  # fmt: skip
    assert rows(conn, "select path, attempts from lapse.file_cleanup_queue") == [("later", 0)]
    assert rows(conn, "select 1 from lapse.worker") == []


def test_a_file_queued_now_goes_by_notification_alone(conn, dsn, root, config):
    conn.execute("update lapse.setting set notify_horizon = interval '1 hour'")  # and no poll before that

    with worker(dsn, config):
        until(lambda: listening(conn))
        for number in range(5):
            put(root, f"{number}")
            began = time.monotonic()
            enqueue(conn, f"{number}")
            until(lambda: empty(conn), seconds=5)
            assert time.monotonic() - began < 3
        assert entries(root) == []


def test_a_file_due_later_goes_at_its_time_without_a_poll(conn, dsn, root, config):
    conn.execute("update lapse.setting set notify_horizon = interval '1 hour'")
    enqueue(conn, *put(root, "much later"), after=7200)

    with worker(dsn, config):
        until(lambda: listening(conn))
        enqueue(conn, *put(root, "soon"), after=1.5)
        enqueue(conn, *put(root, "sooner"), after=0.7)
        until(lambda: len(outcomes(conn)) == 2)

    assert rows(conn, "select distinct finished_at >= not_before from lapse.file_cleanup_log") == [(True,)]
    assert entries(root) == ["much later"]


def test_a_waiting_worker_asks_the_database_almost_nothing(conn, dsn, root, config):
    enqueue(conn, *put(root, "later"), after=3600)

    with worker(dsn, config):
        until(lambda: listening(conn))
        asked = (
            "select query_start from pg_stat_activity"
            " where query like '%exchange_files%' and state = 'idle' and datname = current_database()"
        )
        before = rows(conn, asked)
        deadline = time.monotonic() + 3
        while time.monotonic() < deadline:
            assert rows(conn, asked) == before


def test_sigterm_in_the_middle_of_a_batch_finishes_the_file_and_gives_back_the_rest(conn, dsn, root, config):
    enqueue(conn, *put(root, *(f"d/{number:03}" for number in range(200))))

    with worker(dsn, config, "--threads", "1", slow_disk=0.05) as running:
        until(lambda: len(list((root / "d").iterdir())) < 200)
        running.process.send_signal(signal.SIGTERM)
        assert running.ends(5) == 0

    left = {f"d/{path.name}" for path in (root / "d").iterdir()}
    assert 0 < len(left) < 200
    assert set(outcomes(conn).values()) == {"deleted"}
    pending = rows(
        conn, "select path, attempts, leased_until, lease_token, last_error from lapse.file_cleanup_queue"
    )
    assert {path for path, *_ in pending} == left
    assert {tuple(rest) for _, *rest in pending} == {(0, None, None, None)}
    assert rows(conn, "select 1 from lapse.worker") == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_idle_worker_stops_at_once_when_told(conn, dsn, config, number):
    with worker(dsn, config) as running:
        until(lambda: listening(conn))
        running.process.send_signal(number)
        assert running.ends(3) == 0

    assert "stopped after" in running.said
    assert rows(conn, "select 1 from lapse.worker") == []


def test_a_second_signal_ends_the_worker_on_the_spot(conn, dsn, root, config):
    enqueue(conn, *put(root, "slow"))

    with worker(dsn, config, slow_disk=30) as running:
        running.says("deleting slowly")
        running.process.send_signal(signal.SIGTERM)
        with pytest.raises(AssertionError, match="still running"):
            running.ends(0.7)
        running.process.send_signal(signal.SIGTERM)
        # By our own handler, or by the signal itself where Python has put its handlers away already.
        assert running.ends(3) in (128 + signal.SIGTERM, -signal.SIGTERM)


def test_what_a_killed_worker_held_is_finished_by_another_after_the_lease(conn, dsn, root, config):
    enqueue(conn, *put(root, *(f"d/{number}" for number in range(50))))

    with worker(dsn, config, "--threads", "1", "--lease", "2", slow_disk=0.05) as first:
        until(lambda: len(list((root / "d").iterdir())) < 45)
        with worker(dsn, config) as second:
            first.process.kill()
            first.ends()
            killed, held_until = row(
                conn, "select leased_by, max(leased_until) from lapse.file_cleanup_queue group by leased_by"
            )
            until(lambda: empty(conn), seconds=15)
            second.process.send_signal(signal.SIGTERM)
            assert second.ends() == 0

    assert entries(root) == []
    found = conn.execute(
        "select outcome, attempts, worker = %s or finished_at > %s from lapse.file_cleanup_log",
        [killed, held_until],
    ).fetchall()
    assert len(found) == 50
    # Nobody knows which of them killed it, so for none of them that was an attempt.
    assert {(attempts, in_time) for _, attempts, in_time in found} == {(1, True)}
    assert {outcome for outcome, *_ in found} <= {"deleted", "missing"}


def test_a_batch_longer_than_its_lease_is_leased_anew_and_nobody_else_takes_it(conn, dsn, root, config):
    enqueue(conn, *put(root, *(f"d/{number}" for number in range(30))))

    with (
        worker(dsn, config, "--threads", "1", "--lease", "1", slow_disk=0.1) as running,
        worker(dsn, config) as other,
    ):
        until(lambda: empty(conn), seconds=15)

    assert entries(root) == []
    assert rows(conn, "select distinct outcome, attempts from lapse.file_cleanup_log") == [("deleted", 1)]
    assert "deleting slowly" not in other.said
    assert "too late" not in running.said + other.said


def test_two_workers_share_the_queue_and_no_file_is_done_twice(conn, dsn, root, config):
    paths = put(root, *(f"{number % 7}/{number}" for number in range(2000)))

    with worker(dsn, config, "--batch", "50") as one, worker(dsn, config, "--batch", "50") as two:
        until(lambda: len(rows(conn, "select 1 from lapse.worker")) == 2)
        enqueue(conn, *paths)
        until(lambda: empty(conn), seconds=30)
        one.process.send_signal(signal.SIGTERM)
        two.process.send_signal(signal.SIGTERM)
        assert (one.ends(), two.ends()) == (0, 0)

    assert entries(root) == []
    assert rows(
        conn, "select outcome, count(*), count(distinct path) from lapse.file_cleanup_log group by outcome"
    ) == [("deleted", 2000, 2000)]


def test_backends_that_are_terminated_are_replaced_and_nothing_is_lost(conn, dsn, root, config):
    with worker(dsn, config) as running:
        for number in range(3):
            until(lambda: listening(conn))
            conn.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity"
                " where datname = current_database() and application_name = 'pglapse'"
            )
            enqueue(conn, *put(root, f"{number}"))
            until(lambda: empty(conn))
        running.process.send_signal(signal.SIGTERM)
        assert running.ends() == 0

    assert entries(root) == []
    assert "trying again" in running.said
    assert "is there again" in running.said


def test_a_database_away_at_the_start_is_waited_for_and_spoken_of_once(conn, dsn, root, config):
    enqueue(conn, *put(root, "a"))

    with door(dsn) as way, worker(way.dsn, config) as running:
        running.says("trying again")
        assert running.process.poll() is None
        way.open()
        until(lambda: empty(conn))

    assert running.said.count("can't work with the database") == 1


def test_files_queued_while_the_connection_was_cut_go_after_it_is_back(conn, dsn, root, config):
    conn.execute("update lapse.setting set notify_horizon = interval '1 hour'")
    with door(dsn) as way:
        way.open()
        with worker(way.dsn, config) as running:
            until(lambda: listening(conn))
            way.shut()
            running.says("trying again")
            enqueue(conn, *put(root, "a"))
            way.open()
            until(lambda: empty(conn))


def test_results_survive_a_connection_lost_while_files_were_being_deleted(conn, dsn, root, config):
    enqueue(conn, *put(root, *(f"d/{number}" for number in range(20))))

    with door(dsn) as way:
        way.open()
        with worker(way.dsn, config, "--threads", "1", slow_disk=0.05) as running:
            until(lambda: len(list((root / "d").iterdir())) < 18)
            way.shut()
            running.says("trying again")
            way.open()
            until(lambda: empty(conn))

    assert rows(conn, "select distinct outcome, attempts from lapse.file_cleanup_log") == [("deleted", 1)]


def test_a_worker_told_to_stop_while_the_database_is_away_exits_0(conn, dsn, config):
    with door(dsn) as way, worker(way.dsn, config) as running:
        running.says("trying again")
        running.process.send_signal(signal.SIGTERM)
        assert running.ends(5) == 0


def test_a_result_whose_row_is_locked_is_handed_in_again(conn, dsn, root, config):
    enqueue(conn, *put(root, "a", "b"))

    with psycopg.connect(dsn) as application, worker(dsn, config, slow_disk=0.7):
        until(lambda: rows(conn, "select 1 from lapse.file_cleanup_queue where leased_until is not null"))
        application.execute("select 1 from lapse.file_cleanup_queue where path = 'a' for update")
        until(lambda: outcomes(conn) == {"b": "deleted"})
        until(lambda: not (root / "a").exists())
        application.rollback()
        until(lambda: empty(conn))

    assert outcomes(conn) == {"a": "deleted", "b": "deleted"}


def test_a_failing_file_source_is_told_and_its_files_wait(conn, dsn, root, config):
    conn.execute(
        "create function public.needed(p_storages text[], p_paths text[])"
        " returns table (storage text, path text, until timestamptz)"
        " language plpgsql as $$ begin raise exception 'the source is broken'; end $$"
    )
    conn.execute("select lapse.register_file_source('broken', 'public.needed')")
    enqueue(conn, *put(root, "a"))

    with worker(dsn, config) as running:
        running.says("the source is broken")
        assert (root / "a").exists()
        conn.execute("select lapse.unregister_file_source('broken')")
        conn.execute("update lapse.file_cleanup_queue set not_before = now()")
        conn.execute("notify file_cleanup_queue")
        until(lambda: empty(conn))


def test_a_result_that_stays_locked_is_asked_after_less_and_less(conn, dsn, root, config):
    enqueue(conn, *put(root, "a"))
    conn.execute(
        "create table public.told (at timestamptz default clock_timestamp());"
        "create function public.no(text[], text[]) returns table (storage text, path text, until timestamptz)"
        " language sql as $$ select null, null, null::timestamptz where false $$;"
        "create function public.locked(text[], text[], timestamptz[])"
        " returns table (storage text, path text) language sql volatile as $$"
        " insert into public.told default values; select s, p from unnest($1, $2) as f (s, p) $$;"
        "select lapse.register_file_source('locked', 'public.no', 'public.locked')"
    )

    with worker(dsn, config) as running:
        until(lambda: rows(conn, "select count(*) from public.told having count(*) >= 4"))
        running.process.terminate()
        assert running.ends() == 0

    first, second, third, fourth = [at for (at,) in rows(conn, "select at from public.told order by at")][:4]
    assert second - first < fourth - third
    assert (fourth - third).total_seconds() > 1.9


def test_once_does_not_say_all_is_well_while_results_can_t_be_handed_in(conn, dsn, root, config):
    conn.execute(
        "create function public.no(text[], text[]) returns table (storage text, path text, until timestamptz)"
        " language sql as $$ select null, null, null::timestamptz where false $$;"
        "create function public.broken(text[], text[], timestamptz[])"
        " returns table (storage text, path text) language plpgsql as $$ begin raise 'no such luck'; end $$;"
        "select lapse.register_file_source('broken', 'public.no', 'public.broken')"
    )
    enqueue(conn, *put(root, *(f"d/{number}" for number in range(30))))

    done = pglapse(dsn, "worker", "--once", "--batch", "1", "--config", str(config))

    assert done.returncode == 1
    assert re.search(r"the results of 2\d files can't be handed in, so no more were taken", done.stderr)
    assert "no such luck" in done.stderr
    assert len(list((root / "d").iterdir())) >= 8
    assert rows(conn, "select count(*) from lapse.file_cleanup_queue") == [(30,)]


def test_a_queue_that_is_locked_as_a_whole_is_waited_for(conn, dsn, root, config):
    with psycopg.connect(dsn) as operator, worker(dsn, config) as running:
        until(lambda: listening(conn))
        enqueue(conn, *put(root, "a"))
        until(lambda: empty(conn))
        enqueue(conn, *put(root, "b"), after=0.5)
        operator.execute("lock table lapse.file_cleanup_queue in access exclusive mode")
        running.says("lock timeout")
        operator.rollback()
        until(lambda: empty(conn))

    assert entries(root) == []


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("../a", "the path contains '..'"),
        ("/etc/passwd", "the path is absolute; it must be relative to the storage's root"),
        ("", "the path is empty"),
        ("x" * 5000, "the path has 5,000 bytes; at most 4,095 are possible"),
        ("folder", "'folder' is a folder, not a regular file"),
        ("link/a", "'link' in the path is a symbolic link, not a folder"),
        ("new\nline/", "the path ends in a slash"),
    ],
)
def test_what_can_never_be_deleted_is_dead_with_the_reason(conn, dsn, root, config, path, reason):
    put(root, "folder/a")
    (root / "link").symlink_to("folder")
    enqueue(conn, path)

    done = pglapse(dsn, "worker", "--once", "--config", str(config))

    assert done.returncode == 0
    assert dead_reason(conn) == reason
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 3  # the root's marker, the batch and the reason, whatever the path holds
    assert max(map(len, lines)) < 500
    assert (root / "folder/a").exists()


def test_files_of_a_storage_that_nobody_serves_are_dead_with_the_reason(conn, dsn, config):
    enqueue(conn, "a", storage="elsewhere")

    assert pglapse(dsn, "worker", "--once", "--config", str(config)).returncode == 0

    assert dead_reason(conn) == "no worker has ever served storage elsewhere; served: public"


def test_a_root_that_vanishes_while_running_leaves_its_files_in_the_queue(conn, dsn, root, config):
    conn.execute("update lapse.setting set backoff_base = '100 ms', backoff_cap = '1 s'")

    with worker(dsn, config) as running:
        until(lambda: listening(conn))
        put(root, "a")
        root.rename(root.with_name("moved"))
        enqueue(conn, "a")
        running.says("can't be used: there is no such folder")
        root.mkdir()
        running.says("has no marker")
        assert outcomes(conn) == {}
        root.rmdir()
        root.with_name("moved").rename(root)
        until(lambda: empty(conn))

    assert outcomes(conn) == {"a": "deleted"}


@pytest.mark.parametrize(
    ("text", "options", "words"),
    [
        ('[storage.a]\nkind = "local"\nroot = "{folder}/none"\n', (), "storage.a: can't open the root"),
        ('[storage.a]\nkind = "local"\nroot = "files"\n', (), "must be an absolute path"),
        ('[storage.a]\nkind = "local"\nroot = "{folder}"\ncolour = 1\n', (), "unknown key 'colour'"),
        (None, (), "there is no configuration file"),
        ('[storage.a]\nkind = "local"\nroot = "{folder}"\n', ("--tick", "often"), "'--tick'"),
        ('[storage.a]\nkind = "local"\nroot = "{folder}"\n', ("--threads", "0"), "'--threads'"),
        ('[storage.a]\nkind = "local"\nroot = "{folder}"\n', ("--lease", "nan"), "'--lease'"),
    ],
)
def test_a_wrong_setting_is_exit_code_2_and_a_clear_line(server, tmp_path, text, options, words):
    config = tmp_path / "x.toml"
    if text is not None:
        config.write_text(text.replace("{folder}", str(tmp_path)))

    done = pglapse(server, "worker", "--once", "--config", str(config), *options)

    assert done.returncode == 2, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "url",
    ["postgresql://ann:s3cret%zz@host/x", "host=x s3cret", "postgresql://ann:s3cret@host/x?nonsense=s3cret"],
)
def test_a_connection_string_that_is_none_never_shows_its_password(config, url):
    done = pglapse(url, "worker", "--config", str(config))

    assert done.returncode == 2, done.stderr
    assert "s3cret" not in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("version", "words", "command"),
    [
        (0, "is older than this version", "pglapse upgrade"),
        (2, "is newer than this version", "pip install --upgrade"),
    ],
)
def test_another_version_of_the_schema_is_refused_with_the_command_to_type(
    conn, dsn, config, version, words, command
):
    conn.execute(
        "create or replace function lapse.api_version() returns integer"
        f" language sql immutable as 'select {version}'"
    )

    done = pglapse(dsn, "worker", "--config", str(config))

    assert done.returncode == 1
    assert words in done.stderr
    assert command in done.stderr


def test_a_database_without_pglapse_is_refused_with_the_command_to_type(empty, config):
    done = pglapse(empty, "worker", "--config", str(config))

    assert done.returncode == 1
    assert "pglapse is not installed" in done.stderr
    assert "pglapse upgrade" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture
def role(conn: psycopg.Connection) -> Iterator[str]:
    name = f"pglapse_test_{uuid.uuid4().hex[:8]}"
    conn.execute(sql.SQL("create role {} login").format(sql.Identifier(name)))
    yield name
    conn.execute(sql.SQL("drop owned by {}").format(sql.Identifier(name)))
    conn.execute(sql.SQL("drop role {}").format(sql.Identifier(name)))


def test_a_role_with_a_worker_s_grant_alone_does_all_of_it(conn, dsn, root, config, role):
    enqueue(conn, *put(root, "a", "b"))
    as_role = psycopg.conninfo.make_conninfo(dsn, options=f"-c role={role}")

    refused = pglapse(as_role, "worker", "--once", "--config", str(config))
    conn.execute("select lapse.grant_worker(%s)", [role])
    with worker(as_role, config, tick="auto") as running:
        until(lambda: empty(conn))
        running.process.send_signal(signal.SIGTERM)
        assert running.ends() == 0

    assert refused.returncode == 1
    assert "select lapse.grant_worker(" in refused.stderr
    assert entries(root) == []
    assert "warning" not in running.said


def test_a_database_with_another_isolation_level_is_served_all_the_same(conn, dsn, root, config):
    conn.execute(
        sql.SQL("alter database {} set default_transaction_isolation = 'serializable'").format(
            sql.Identifier(conn.info.dbname)
        )
    )
    enqueue(conn, *put(root, "a"))

    done = pglapse(dsn, "worker", "--once", "--config", str(config))

    assert done.returncode == 0, done.stderr
    assert entries(root) == []


def test_a_due_time_that_python_can_t_hold_is_no_trouble(conn, dsn, root, config):
    put(root, "a", "b")
    conn.execute("select lapse.enqueue_file('public', 'a', '-infinity')")
    conn.execute("select lapse.enqueue_file('public', 'b', 'infinity')")

    done = pglapse(dsn, "worker", "--once", "--config", str(config))

    assert done.returncode == 0, done.stderr
    assert outcomes(conn) == {"a": "deleted"}


def test_a_worker_is_on_the_list_while_it_runs_with_what_it_did(conn, dsn, root, config):
    with worker(dsn, config):
        until(lambda: listening(conn))
        [listed] = rows(conn, "select id, pid, version from lapse.worker")

    assert re.fullmatch(r".+-\d+-[0-9a-f]{6}", listed[0])
    assert f"-{listed[1]}-" in listed[0]


def test_each_batch_is_one_line_for_people_or_one_object_for_programs(conn, dsn, root, config):
    enqueue(conn, *put(root, "a\nb", "c"), "gone")
    text = pglapse(dsn, "worker", "--once", "--config", str(config))
    enqueue(conn, *put(root, "d"), "../\x1b[31m")
    as_json = pglapse(dsn, "worker", "--once", "--config", str(config), "--log-format", "json")

    assert re.fullmatch(
        r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d info +2 files deleted, 8\.2 kB freed, 1 missing in \d+\.\d\d s\n",
        text.stderr.splitlines(keepends=True)[-1].replace(
            "0 B freed", "8.2 kB freed"
        ),  # where the file system keeps small files elsewhere
    ), text.stderr
    batch, refused = map(json.loads, as_json.stderr.splitlines())
    assert (batch["level"], batch["deleted"], batch["refused"]) == ("info", 1, 1)
    assert (refused["level"], refused["attempt"]) == ("warning", 1)
    assert "\x1b" not in as_json.stderr


EXPIRED = """
insert into market.users (email, display_name) values ('a@example.org', 'ann');
insert into market.tasks (poster_id, title, deadline)
select u.id, 'paint the fence', now() - interval '1 minute' from market.users as u;
insert into market.task_files (task_id, storage, path) select t.id, 'public', 'a' from market.tasks as t;
"""


def test_without_pg_cron_the_worker_keeps_the_schedule_and_rows_and_files_go(conn, dsn, root, config):
    put(root, "a")
    conn.execute(EXPIRED)

    with worker(dsn, config, tick="auto") as running:
        running.says("this worker keeps the schedule now")
        until(lambda: outcomes(conn) == {"a": "deleted"})
        until(lambda: row(conn, "select ticking from lapse.worker") == (True,), seconds=40)
        running.process.send_signal(signal.SIGTERM)
        assert running.ends() == 0

    assert entries(root) == []
    assert rows(conn, "select distinct source from lapse.run_log where policy = 'cancel_expired_tasks'") == [
        ("worker",)
    ]


def test_where_pg_cron_ticks_the_worker_does_not(conn, dsn, config):
    conn.execute("insert into lapse.tick_source values ('pg_cron', clock_timestamp(), 1)")

    with worker(dsn, config, tick="auto") as running:
        until(
            lambda: rows(
                conn,
                "select 1 from pg_stat_activity where query like '%tick_release%'"
                " and datname = current_database() and pid <> pg_backend_pid()",
            )
        )
        assert "keeps the schedule" not in running.said
        conn.execute("update lapse.tick_source set last_tick_at = last_tick_at - interval '3 minutes'")
        running.says("this worker keeps the schedule now")
        conn.execute("update lapse.tick_source set last_tick_at = clock_timestamp() where source = 'pg_cron'")
        running.says("pg_cron keeps the schedule again")


def test_one_of_two_workers_ticks_and_the_other_takes_over(conn, dsn, config):
    with worker(dsn, config, tick="always") as one:
        one.says("this worker keeps the schedule now")
        with worker(dsn, config, tick="always") as two:
            until(lambda: rows(conn, "select 1 from lapse.worker having count(*) = 2"))
            assert "keeps the schedule" not in two.said
            one.process.kill()
            one.ends()
            conn.execute(
                "update lapse.worker set last_seen_at = last_seen_at - interval '1 minute'"
                " where id = (select worker from lapse.tick_turn)"
            )
            two.says("this worker keeps the schedule now")


def test_a_failing_policy_is_told_and_draining_goes_on(conn, dsn, root, config):
    conn.execute(
        "create function lapse.broken(p_limit integer, p_cutoff timestamptz, p_after timestamptz)"
        " returns lapse.progress language plpgsql as $$ begin raise exception 'this step is broken'; end $$"
    )
    conn.execute("select lapse.create_policy('broken', 'lapse.broken', '10 s')")

    with worker(dsn, config, tick="always") as running:
        running.says("this step is broken")
        enqueue(conn, *put(root, "a"))
        until(lambda: outcomes(conn) == {"a": "deleted"})


RUNS_FOR_MINUTES = """
create function lapse.slow(p_limit integer, p_cutoff timestamptz, p_after timestamptz)
    returns lapse.progress language plpgsql as $$
begin
    perform pg_advisory_lock(3141592);
    perform pg_sleep(300);
    return (0, 0, null);
end $$;
select lapse.create_policy('slow', 'lapse.slow', '10 s');
"""
AT_IT = """
select 1 from pg_locks join pg_stat_activity as a using (pid)
 where locktype = 'advisory' and objid = 3141592 and a.datname = current_database()
"""


def test_draining_does_not_wait_for_a_policy_and_a_stop_ends_its_run(conn, dsn, root, config):
    conn.execute(RUNS_FOR_MINUTES)

    with worker(dsn, config, tick="always") as running:
        until(lambda: rows(conn, AT_IT + " and wait_event = 'PgSleep'"))
        enqueue(conn, *put(root, "a"))
        until(lambda: outcomes(conn) == {"a": "deleted"}, seconds=5)
        running.process.send_signal(signal.SIGTERM)
        assert running.ends(8) == 0

    # The run is on record as failed, or as lost by the next one; nobody is at it any more.
    until(lambda: not rows(conn, AT_IT))


def test_a_run_is_ended_although_the_server_got_the_first_word_too_early(conn, dsn, config):
    conn.execute(RUNS_FOR_MINUTES)
    early = """
import os
from pglapse.deadline import Connection
cancel = Connection.cancel_safe
def too_early(*arguments, **options):
    Connection.cancel_safe = cancel
    os.write(2, b"too early\\n")
Connection.cancel_safe = too_early
"""

    with worker(dsn, config, tick="always", spoilt=early) as running:
        until(lambda: rows(conn, AT_IT + " and wait_event = 'PgSleep'"))
        running.process.send_signal(signal.SIGTERM)
        assert running.ends(15) == 0

    assert "too early" in running.said
    until(lambda: not rows(conn, AT_IT))


def test_a_run_that_has_not_begun_when_the_worker_is_told_to_stop_does_not_begin(conn, dsn, config):
    conn.execute(RUNS_FOR_MINUTES)
    slow = """
import os
from pglapse.ticker import Ticker
run = Ticker.run
def late(self, conn):
    os.write(2, b"about to run\\n")
    self._stop.wait()
    run(self, conn)
Ticker.run = late
"""

    with worker(dsn, config, tick="always", spoilt=slow) as running:
        running.says("about to run")
        running.process.send_signal(signal.SIGTERM)
        assert running.ends(8) == 0

    assert rows(conn, "select 1 from lapse.run_log where policy = 'slow'") == []
    assert not rows(conn, AT_IT)


def test_a_worker_whose_schedule_thread_can_t_go_on_exits_1(conn, dsn, config):
    conn.execute("alter function lapse.tick_wanted(text) rename to tick_wanted_once")

    with worker(dsn, config, tick="auto") as running:
        assert running.ends() == 1

    assert "tick_wanted" in running.said
    assert "pglapse upgrade" in running.said


def test_a_worker_whose_schema_goes_away_stops_and_says_so(conn, dsn, config):
    with worker(dsn, config) as running:
        until(lambda: listening(conn))
        conn.execute("alter schema lapse rename to lapsed")
        conn.execute("notify file_cleanup_queue")
        assert running.ends() == 1

    assert "pglapse is not installed" in running.said


def test_once_with_tick_always_runs_what_is_due_first(conn, dsn, root, config):
    put(root, "a")
    conn.execute(EXPIRED)

    done = pglapse(dsn, "worker", "--once", "--tick", "always", "--config", str(config))

    assert done.returncode == 0, done.stderr
    assert entries(root) == []
