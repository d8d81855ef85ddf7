"""Where a database was restored, cloned, renamed or disowned nothing runs and no file goes."""

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from tests.support import databases, shed
from tests.support.poll import until
from tests.support.queue import enqueue, exchange, hand_in, listening, nudges, outcomes, result
from tests.support.running import environment, pglapse, worker

HINT = "select lapse.adopt_database();"


@pytest.fixture
def original(dsn: str) -> str:
    """A database at work: five rows are due, and two files."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        shed.build(conn)
        shed.policy(conn)
        shed.add(conn, 5)
        enqueue(conn, "a", "b")
    return dsn


@contextmanager
def opened(dsn: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(dsn, autocommit=True, options="-c search_path=") as conn:
        yield conn


@contextmanager
def cloned(server: str, dsn: str) -> Iterator[str]:
    with databases.database(server, name_of(dsn), adopted=False) as copy:
        yield copy


def name_of(dsn: str) -> str:
    return psycopg.conninfo.conninfo_to_dict(dsn)["dbname"]


def halted(conn: psycopg.Connection) -> str | None:
    return shed.one(conn, "select lapse.halt_reason()")


def adopted(conn: psycopg.Connection, *, dry_run: bool = False) -> list[str]:
    return shed.column(conn, "select * from lapse.adopt_database(%s)", dry_run)


def stands_still(conn: psycopg.Connection) -> None:
    """Nothing of what the original has to do is done here, whoever asks for it."""
    for command in (
        "call lapse.run('sweep')",
        "select lapse.sweep_begin('s', '1 hour')",
        "select lapse.enqueue_orphans('s', '{x}', array['{\"size\": 1}'::jsonb])",
    ):
        error = shed.fails(conn, command)
        assert (error.sqlstate, HINT in error.diag.message_hint) == ("LP014", True)
    shed.make_due(conn)
    conn.execute("truncate lapse.tick_source")
    conn.execute("call lapse.run_due()")
    answer = exchange(conn, storages=["s"])

    assert len(shed.left(conn)) == 5
    assert shed.log(conn) == []
    assert shed.column(conn, "select source from lapse.tick_source") == ["manual"], "the tick is seen to live"
    assert answer.claimed == []
    assert [row.note for row in answer.halted] == [halted(conn)]
    assert [(row.storage, row.wait_seconds) for row in answer.wait] == [("s", 10)]


def works(conn: psycopg.Connection) -> None:
    conn.execute("call lapse.run_due()")
    assert shed.left(conn) == []
    assert sorted(exchange(conn).paths) == ["a", "b"]


def test_a_clone_stands_still_until_it_is_adopted(server, original):
    with cloned(server, original) as copy, opened(copy) as conn:
        assert halted(conn) == (
            f"database {name_of(copy)} is not adopted: its pglapse belongs to database {name_of(original)}"
        )
        stands_still(conn)

        lines = adopted(conn)

        assert lines[
            0
        ] == f"database {name_of(copy)} is adopted; before: database {name_of(copy)} is not " + (
            f"adopted: its pglapse belongs to database {name_of(original)}"
        )
        assert "rows due now, to be taken by the next tick: sweep 5" in lines
        assert "files due now, to be deleted as soon as a worker serves their storage: s 2" in lines
        works(conn)
    with opened(original) as conn:
        works(conn)


def test_a_renamed_database_stands_still_until_it_is_adopted_or_has_its_name_back(server, original):
    old = name_of(original)
    new = f"{old}_renamed"

    with opened(server) as admin:
        rename = sql.SQL("alter database {} rename to {}")
        admin.execute(rename.format(sql.Identifier(old), sql.Identifier(new)))
        try:
            with opened(databases.on(server, new)) as conn:
                stands_still(conn)
        finally:
            admin.execute(rename.format(sql.Identifier(new), sql.Identifier(old)))
    with opened(original) as conn:
        works(conn)


def test_a_restored_dump_stands_still_until_it_is_adopted(server, original, tmp_path):
    dump, load = program("pg_dump", original), program("psql", original)
    script = tmp_path / "dump.sql"

    run([dump, "--file", str(script), original])
    with databases.database(server) as copy:
        run([load, "--quiet", "--set", "ON_ERROR_STOP=1", "--file", str(script), copy])
        with opened(copy) as conn:
            stands_still(conn)
            adopted(conn)
            works(conn)


def test_the_same_name_on_another_server_stands_still(original):
    """Restored under its own name into another cluster, or made by pg_upgrade."""
    with opened(original) as conn:
        conn.execute("update lapse.identity set system_identifier = 7")

        assert "of another server (system 7, and this is " in halted(conn)
        stands_still(conn)
        adopted(conn)
        works(conn)


def test_a_physical_copy_is_told_that_it_is_one(original):
    with opened(original) as conn:
        said = shed.one(conn, "select lapse.disown_database()")
        again = shed.one(conn, "select lapse.disown_database()")

        assert said == again == halted(conn)
        assert " disowned it at " in said
        stands_still(conn)
        adopted(conn)
        works(conn)


def test_without_its_identity_a_database_stands_still(original):
    with opened(original) as conn:
        conn.execute("delete from lapse.identity")

        stands_still(conn)
        adopted(conn)
        works(conn)


def test_looking_first_changes_nothing_and_adopting_twice_neither(server, original):
    with cloned(server, original) as copy, opened(copy) as conn:
        looked = adopted(conn, dry_run=True)
        still = halted(conn)
        first = adopted(conn)
        identity = conn.execute("select * from lapse.identity").fetchall()
        second = adopted(conn)

        assert looked[0] == still
        assert looked[2:] == first[1:] == second[1:]
        assert second[0] == f"database {name_of(copy)} is adopted already: nothing is changed"
        assert conn.execute("select * from lapse.identity").fetchall() == identity


def test_adopting_speaks_of_what_came_along_from_the_original(server, original):
    with opened(original) as conn:
        conn.execute("select lapse.worker_hello('w', 'host', 1, '1', '{public}')")
        conn.execute(
            "insert into lapse.cron_job (cron_database, jobname, jobid, schedule, command)"
            " values ('cron_home', 'lapse-1', 1, '10 seconds', 'call lapse.run_due(''pg_cron'')')"
        )
    with cloned(server, original) as copy, opened(copy) as conn:
        lines = "\n".join(adopted(conn))

    assert "storages: public; their roots' markers came along" in lines
    assert "lapse-1 in database cron_home" in lines
    assert "lapse.forget_cron_jobs()" in lines


def test_adopting_nudges_the_workers_that_wait_for_it(server, original):
    with cloned(server, original) as copy, opened(copy) as conn, listening(copy) as ear:
        adopted(conn, dry_run=True)
        looked = nudges(conn, ear)
        adopted(conn)

        assert (looked, nudges(conn, ear)) == (0, 1)


def test_only_the_owner_of_the_engine_adopts_and_disowns(original):
    with opened(original) as conn:
        role = f"pglapse_test_{conn.info.backend_pid}"
        conn.execute(f"create role {role}; grant usage on schema lapse to {role}")
        conn.execute(f"grant execute on all functions in schema lapse to {role}")
        try:
            conn.execute(f"set role {role}")
            for command in ("select lapse.adopt_database()", "select lapse.disown_database()"):
                assert isinstance(shed.fails(conn, command), psycopg.errors.InsufficientPrivilege)
        finally:
            conn.execute(f"reset role; drop owned by {role}; drop role {role}")


def test_what_applications_call_goes_on_working_in_a_copy(server, original):
    with cloned(server, original) as copy, opened(copy) as conn:
        user = shed.one(
            conn,
            "insert into market.users (display_name, email) values ('ann', 'a@example.org') returning id",
        )
        task = shed.one(
            conn, "insert into market.tasks (poster_id, title) values (%s, 't') returning id", user
        )
        conn.execute(
            "insert into market.task_files (task_id, storage, path) values (%s, 'public', 'task/1')", [task]
        )
        conn.execute("select market.cancel_task(%s)", [task])

        assert shed.one(conn, "select status from market.tasks where id = %s", task) == "cancelled"
        assert shed.column(conn, "select path from lapse.file_cleanup_queue order by path") == [
            "a",
            "b",
            "task/1",
        ]


def test_results_of_files_that_are_deleted_already_are_taken_all_the_same(original):
    with opened(original) as conn:
        first, second = sorted(exchange(conn).claimed, key=lambda claim: claim.path)
        conn.execute("select lapse.disown_database()")

        hand_in(conn, result(first))
        answer = exchange(conn, [result(second, "failed", error="x")])

        assert outcomes(conn) == [("a", "deleted")]
        assert (answer.claimed, len(answer.halted)) == ([], 1)


def test_a_run_under_way_stops_within_one_batch(original):
    with opened(original) as conn, opened(original) as other:
        shed.policy(conn, "slow", kind="slow", extra=shed.GATE, p_batch_size=2)
        shed.add(conn, 6, kind="slow")

        with shed.gate_closed(original):
            call = threading.Thread(target=lambda: run_quietly(original, "slow"), daemon=True)
            call.start()
            until(lambda: shed.waiting_pid(other))
            conn.execute("select lapse.disown_database()")
        call.join(30)

        assert len(shed.left(conn, "slow")) == 4
        ((status, message),) = shed.log(conn, "status, message")
        assert (status, message) == ("stopped", halted(conn))


def test_a_tick_under_way_begins_nothing_more(original):
    with opened(original) as conn:
        conn.execute("select lapse.disown_database()")
        shed.make_due(conn)

        assert conn.execute(
            "select run_id, rest from lapse.next_due('manual', now() + interval '10 s', true)"
        ).fetchone() == (None, None)


def test_a_worker_says_it_once_waits_and_goes_on_after_the_adoption(server, dsn, tmp_path):
    root, config = storage(tmp_path)
    (root / "a").write_text("x")
    with opened(dsn) as conn:
        conn.execute("select lapse.enqueue_file('public', 'a')")
    with cloned(server, dsn) as copy, opened(copy) as conn, worker(copy, config) as running:
        reason = halted(conn)
        running.says("nothing is deleted")
        trouble = until(
            lambda: shed.one(conn, "select troubles from lapse.worker_status where alive"), what="a trouble"
        )
        conn.execute("notify file_cleanup_queue; notify file_cleanup_queue")
        shown = pglapse(copy, "status")
        for_programs = json.loads(pglapse(copy, "status", "--json").stdout)
        healthy = health(copy)
        left = (root / "a").exists()

        done = pglapse(copy, "adopt")

        until(lambda: not (root / "a").exists(), what="the file to go")
        until(lambda: shed.one(conn, "select troubles from lapse.worker_status") == {}, what="no trouble")
        assert running.process.poll() is None
        assert running.said.count("nothing is deleted") == 1
        assert "files are deleted again" in running.said

    assert left
    assert trouble == {"public": reason}
    assert shown.stdout.splitlines()[1].strip() == reason
    assert "pglapse adopt" in shown.stdout.splitlines()[2]
    assert (for_programs["guard"]["adopted"], for_programs["guard"]["trouble"]) == (False, reason)
    assert (healthy.returncode, "nothing is deleted" in healthy.stdout) == (0, True)
    assert (done.returncode, "public 1" in done.stdout) == (0, True), done.stderr


def test_a_worker_that_works_once_ends_with_an_error(server, dsn, tmp_path):
    _, config = storage(tmp_path)
    with cloned(server, dsn) as copy:
        done = pglapse(copy, "worker", "--once", "--tick", "always", "--config", str(config))

    assert done.returncode == 1
    assert "is not adopted" in done.stderr.splitlines()[-1]
    assert HINT.removesuffix(";") in done.stderr


def test_looking_before_adopting_from_the_command_line(server, original):
    with cloned(server, original) as copy:
        looked = pglapse(copy, "adopt", "--dry-run")

        assert (looked.returncode, looked.stderr) == (0, "")
        assert "sweep 5" in looked.stdout
        with opened(copy) as conn:
            assert halted(conn)


def test_a_sweep_of_a_copy_queues_nothing(server, dsn, tmp_path):
    root, config = storage(tmp_path, 'temp = ["tmp"]\n')
    (root / "tmp").mkdir()
    with opened(dsn) as conn:
        conn.execute("select lapse.worker_hello('w', 'host', 1, '1', '{public}')")
    assert pglapse(dsn, "worker", "--once", "--config", str(config)).returncode == 0  # the root is known
    with cloned(server, dsn) as copy:
        done = pglapse(copy, "sweep", "--config", str(config))

    assert done.returncode == 1
    assert "is not adopted" in done.stdout


def storage(folder: Path, more: str = "") -> tuple[Path, Path]:
    root = folder / "files"
    root.mkdir()
    config = folder / "pglapse.toml"
    config.write_text(f'[storage.public]\nkind = "local"\nroot = "{root}"\n{more}')
    return root, config


def health(dsn: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pglapse.health"],
        env=environment(dsn),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def run_quietly(dsn: str, policy: str) -> None:
    with opened(dsn) as conn:
        shed.run(conn, policy)


def program(name: str, dsn: str) -> str:
    """A client program of the server's version, or the test is skipped."""
    with opened(dsn) as conn:
        major = conn.info.server_version // 10000
    places = [f"/usr/lib/postgresql/{version}/bin/{name}" for version in range(major, major + 5)]
    for found in filter(None, [*places, shutil.which(name)]):
        if Path(found).exists():
            said = subprocess.run([found, "--version"], capture_output=True, text=True, check=False).stdout
            if said and int(said.split()[2].split(".")[0]) >= major:
                return found
    pytest.skip(f"no {name} of version {major} or newer")


def run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
