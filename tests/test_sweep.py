"""Sweeps queue old files that no row knows, and nothing else; where the find looks wrong, they stop."""

import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest

from pglapse import markers
from pglapse.errors import PglapseError, SettingError
from pglapse.storage import Away
from pglapse.storage.local import LocalStorage, open_local
from pglapse.storage.marker import NAME
from pglapse.storage.mounts import Surveyor
from pglapse.sweep import missing, orphans
from pglapse.sweep.orphans import Found, Limits
from pglapse.sweep.schedule import Sweeper, turn
from pglapse.sweep.walk import Area
from tests.support.mounts import bound, tmpfs
from tests.support.poll import until
from tests.support.running import pglapse

DAY = 86_400


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "private"
    (root / "tmp").mkdir(parents=True)
    return root


@pytest.fixture
def storage(conn: psycopg.Connection, root: Path) -> Iterator[LocalStorage]:
    """A storage that a worker has served, with one file that the database knows."""
    with ThreadPoolExecutor(1) as pool:
        local = open_local("private", root, pool, marker=True)
        conn.execute("select lapse.worker_hello('w', 'h', 1, '1', array['private'])")
        local.introduce(lambda found: markers.asked(conn, "private", found))
        local.check()
        local.introduce(lambda found: markers.asked(conn, "private", found))
        know(conn, "task/known")
        yield local


def know(conn: psycopg.Connection, *paths: str) -> tuple[str, ...]:
    """Give files to an open task."""
    conn.execute(
        "with u as (insert into market.users (display_name, email)"
        "           values ('ann', gen_random_uuid() || '@example.org') returning id),"
        "     t as (insert into market.tasks (poster_id, title) select id, 'paint' from u returning id)"
        " insert into market.task_files (task_id, storage, path)"
        " select t.id, 'private', p from t, unnest(%s::text[]) as p",
        [list(paths)],
    )
    return paths


def put(root: Path, *paths: str, content: str = "x") -> list[str]:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(content)
    return list(paths)


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two days later: nobody can set the time of a file's last change, so the clock is moved."""
    now = time.time
    monkeypatch.setattr("pglapse.sweep.orphans.time.time", lambda: now() + 2 * DAY)


@contextmanager
def not_almighty() -> Iterator[None]:
    """For a moment, what others may not look into is closed to root as well."""
    before = os.geteuid()
    if before == 0:
        try:
            os.seteuid(65534)
        except OSError as error:
            pytest.skip(f"root can't become anybody else here: {error}")
    try:
        yield
    finally:
        os.seteuid(before)


def sweep(
    conn: psycopg.Connection, storage: LocalStorage, *, limits: Limits | None = None, dry_run: bool = False
) -> Found:
    return orphans.sweep(conn, storage, ["tmp"], limits or Limits(), dry_run=dry_run)


def queued(conn: psycopg.Connection) -> list[str]:
    return [
        path
        for (path,) in conn.execute(
            "select path from lapse.file_cleanup_queue where reason = 'orphan' order by path"
        )
    ]


@pytest.mark.usefixtures("later")
def test_old_files_that_no_row_knows_are_queued_and_all_others_stay(conn, root, storage):
    put(root, "tmp/a", "tmp/deep/er/b", "tmp/known", "tmp/upload", "tmp/queued", "outside")
    know(conn, "tmp/known")
    conn.execute(
        "insert into market.temp_uploads (user_id, storage, path)"
        " select min(id), 'private', 'tmp/upload' from market.users"
    )
    conn.execute("select lapse.enqueue_file('private', 'tmp/queued', now() + interval '1 day')")

    found = sweep(conn, storage)

    assert queued(conn) == ["tmp/a", "tmp/deep/er/b"]
    assert (found.files, found.orphans, found.queued, found.stopped) == (5, 2, 2, None)
    again = sweep(conn, storage)
    assert (again.orphans, again.queued) == (0, 0)


def test_a_file_younger_than_the_age_stays_whatever_its_modification_time_says(conn, root, storage):
    put(root, "tmp/fresh")
    os.utime(root / "tmp/fresh", (0, 0))

    found = sweep(conn, storage)

    assert (found.young, found.orphans) == (1, 0)
    assert queued(conn) == []


@pytest.mark.usefixtures("later")
def test_a_file_whose_modification_time_is_young_stays(conn, root, storage):
    put(root, "tmp/touched")
    os.utime(root / "tmp/touched", (time.time() + 1.9 * DAY,) * 2)

    assert sweep(conn, storage).young == 1
    assert queued(conn) == []


@pytest.mark.usefixtures("later")
def test_a_row_that_comes_while_the_sweep_runs_keeps_its_file(conn, root, storage, monkeypatch):
    put(root, "tmp/a", "tmp/b")
    judged = orphans._too_much

    def meanwhile(found: Found, limits: Limits) -> str | None:
        know(conn, "tmp/a")
        return judged(found, limits)

    monkeypatch.setattr(orphans, "_too_much", meanwhile)
    found = sweep(conn, storage)

    assert (found.orphans, found.queued) == (2, 1)
    assert queued(conn) == ["tmp/b"]


@pytest.mark.usefixtures("later")
def test_what_is_queued_is_the_file_that_was_seen_and_no_later_one(conn, root, storage):
    put(root, "tmp/a")
    sweep(conn, storage)

    [(expected,)] = conn.execute("select expected from lapse.file_cleanup_queue")
    seen = (root / "tmp/a").stat()
    assert expected == [{"size": seen.st_size, "mtime_ns": seen.st_mtime_ns}]


@pytest.mark.usefixtures("later")
def test_links_pipes_and_names_that_are_no_text_are_counted_and_left_alone(conn, root, storage, tmp_path):
    put(tmp_path, "elsewhere/canary")
    put(root, "tmp/a", "tmp/.nfs000123", f"tmp/{NAME.upper()}")
    (root / "tmp/link").symlink_to(tmp_path / "elsewhere")
    (root / "tmp/file").symlink_to(tmp_path / "elsewhere/canary")
    os.mkfifo(root / "tmp/pipe")
    (root / "tmp" / os.fsdecode(b"\xff")).write_text("x")

    found = sweep(conn, storage)

    assert queued(conn) == ["tmp/a"]
    assert found.skipped == {"link": 2, "special": 1, "name": 1, "leftover": 1, "marker": 1}


@pytest.mark.usefixtures("later")
def test_an_area_that_became_a_link_is_not_entered(conn, root, storage, tmp_path):
    put(tmp_path, "elsewhere/canary")
    (root / "tmp").rmdir()
    (root / "tmp").symlink_to(tmp_path / "elsewhere")

    found = sweep(conn, storage)

    assert (found.files, found.skipped) == (0, {"link": 1})


@pytest.mark.usefixtures("later")
def test_a_mount_in_an_area_or_at_its_place_is_not_entered(conn, root, storage, tmp_path):
    put(tmp_path, "elsewhere/canary")
    put(root, "tmp/a", "tmp/bound/b", "tmp/memory/c", "incoming/d")
    with (
        bound(tmp_path / "elsewhere", root / "tmp/bound"),
        tmpfs(root / "tmp/memory"),
        bound(tmp_path / "elsewhere", root / "incoming"),
    ):
        put(root, "tmp/memory/canary")

        found = orphans.sweep(conn, storage, ["tmp", "incoming"], Limits())

    assert queued(conn) == ["tmp/a"]
    assert found.summary()["skipped"] == {"other file systems": 3}


@pytest.mark.usefixtures("later")
def test_folders_swapped_for_links_during_the_walk_lead_nowhere(conn, root, storage, tmp_path):
    put(tmp_path, *(f"elsewhere/canary{number}" for number in range(20)))
    put(root, *(f"tmp/d/f{number}" for number in range(20)))
    ended = threading.Event()

    def swap() -> None:
        while not ended.is_set():
            (root / "tmp/d").rename(root / "tmp-d")
            (root / "tmp/d").symlink_to(tmp_path / "elsewhere")
            (root / "tmp/d").unlink()
            (root / "tmp-d").rename(root / "tmp/d")

    swapper = threading.Thread(target=swap)
    swapper.start()
    try:
        for _ in range(50):
            sweep(conn, storage)
    finally:
        ended.set()
        swapper.join()

    assert not [path for path in queued(conn) if "canary" in path]


@pytest.mark.usefixtures("later")
@pytest.mark.parametrize(
    ("limits", "words"),
    [
        (Limits(most=2), "3 files would go, more than 2"),
        (Limits(few=1, share=0.5), "75% of the files would go"),
    ],
)
def test_a_sweep_that_would_take_much_stops_and_asks(conn, root, storage, limits, words):
    put(root, "tmp/a", "tmp/b", "tmp/c", "tmp/known")
    know(conn, "tmp/known")

    found = sweep(conn, storage, limits=limits)

    assert words in (found.stopped or "")
    assert queued(conn) == []
    error = orphans.stopped({"private": found})
    assert error is not None
    assert "--most-files" in (error.hint or "")


@pytest.mark.usefixtures("later")
def test_an_area_that_is_none_hides_behind_no_other(conn, root, storage):
    put(root, *know(conn, *(f"tmp/{number}" for number in range(6))))
    put(root, "assets/a", "assets/b")

    found = orphans.sweep(conn, storage, ["tmp", "assets"], Limits(few=1))

    assert "100% of the files in assets would go" in (found.stopped or "")
    assert queued(conn) == []


@pytest.mark.usefixtures("later")
def test_areas_with_few_files_each_are_many_together(conn, root, storage):
    put(root, "tmp/a", "incoming/b")

    found = orphans.sweep(conn, storage, ["tmp", "incoming"], Limits(few=1))

    assert "100% of the files would go" in (found.stopped or "")
    assert queued(conn) == []


@pytest.mark.usefixtures("later")
def test_another_storage_s_root_in_an_area_is_not_entered(conn, root, storage):
    put(root, "tmp/a", "tmp/public/photo", f"tmp/public/{NAME}", "shared/b", f"shared/{NAME}")

    found = orphans.sweep(conn, storage, ["tmp", "shared"], Limits())

    assert queued(conn) == ["tmp/a"]
    assert found.summary()["skipped"] == {"roots of other storages": 2}


def test_a_folder_that_may_not_be_looked_into_holds_up_no_other(tmp_path):
    put(tmp_path, "tmp/closed/a", "tmp/listed only/b", "tmp/open/c")
    for folder, mode in [
        (".", 0o755),
        ("tmp", 0o755),
        ("tmp/open", 0o755),
        ("tmp/closed", 0),
        ("tmp/listed only", 0o444),
    ]:
        (tmp_path / folder).chmod(mode)
    root = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)

    try:
        area = Area(root, Surveyor().place(root), (b"tmp",))
        with not_almighty():
            seen = [one.path for one in area.files()]
    finally:
        os.close(root)

    assert seen == ["tmp/open/c"]
    assert area.skipped == {"denied": 2}


@pytest.mark.usefixtures("later")
def test_a_database_that_knows_no_file_sweeps_nothing(conn, root, storage):
    put(root, "tmp/a")
    conn.execute("delete from market.task_files")
    conn.execute("delete from lapse.file_cleanup_queue")

    assert "knows no file" in (sweep(conn, storage).stopped or "")
    assert queued(conn) == []


@pytest.mark.usefixtures("later")
def test_a_root_without_its_marker_sweeps_nothing(conn, root, storage):
    put(root, "tmp/a")
    (root / NAME).unlink()

    with pytest.raises(Away, match="has no marker"):
        sweep(conn, storage)
    assert queued(conn) == []


@pytest.mark.usefixtures("later")
def test_a_root_that_is_not_marked_on_purpose_is_not_swept(conn, root, storage):
    put(root, "tmp/a")
    with ThreadPoolExecutor(1) as pool:
        assert "no marker" in (sweep(conn, open_local("private", root, pool)).stopped or "")


@pytest.mark.parametrize("known", [None, "market.files_known"])
def test_a_source_that_can_t_say_what_it_knows_is_no_no(conn, storage, known):
    conn.execute("select lapse.unregister_file_source('market')")
    conn.execute("select lapse.register_file_source('market', 'market.files_in_use', null, %s)", [known])

    with pytest.raises(PglapseError, match="can't say which files it knows") as caught:
        sweep(conn, storage)
    assert caught.value.hint


def test_without_any_source_nothing_is_an_orphan(conn, storage):
    conn.execute("select lapse.unregister_file_source(name) from lapse.file_source")

    for call in ("unknown_files('private', '{a}')", "enqueue_orphans('private', '{a}', array[null::jsonb])"):
        with pytest.raises(psycopg.DatabaseError) as refused:
            conn.execute(f"select lapse.{call}")
        assert refused.value.sqlstate == "LP013"
    with pytest.raises(PglapseError, match="no file source is registered"):
        sweep(conn, storage)


@pytest.mark.usefixtures("later")
def test_a_dry_run_finds_the_same_and_queues_nothing(conn, root, storage):
    put(root, "tmp/a", "tmp/b", content="12345")

    found = sweep(conn, storage, dry_run=True)

    assert (found.orphans, found.bytes, found.queued, found.stopped) == (2, 10, 0, None)
    assert sorted(found.examples) == ["tmp/a", "tmp/b"]
    assert queued(conn) == []


@pytest.mark.usefixtures("later")
def test_a_sweep_told_to_stop_queues_nothing_and_the_next_one_does_all(conn, root, storage):
    put(root, "tmp/a")

    stopped = orphans.sweep(conn, storage, ["tmp"], Limits(), stopping=lambda: True)
    assert (stopped.stopped, queued(conn)) == ("told to stop", [])
    assert sweep(conn, storage).queued == 1


def test_a_sweep_that_finds_nothing_old_says_how_far_it_is_and_can_be_stopped(
    conn, root, storage, monkeypatch
):
    put(root, "tmp/a", "tmp/b", "tmp/c")
    monkeypatch.setattr(orphans, "BATCH", 2)
    told: list[int] = []

    found = orphans.sweep(
        conn,
        storage,
        ["tmp"],
        Limits(),
        progress=lambda found: told.append(found.files),
        stopping=lambda: len(told) == 1,
    )

    assert (told, found.stopped) == ([2], "told to stop")


def test_an_area_that_is_not_there_is_empty(conn, root, storage):
    (root / "tmp").rmdir()

    assert (sweep(conn, storage).files, sweep(conn, storage).stopped) == (0, None)


@pytest.mark.parametrize("age", [timedelta(0), timedelta(minutes=59), timedelta(days=-1)])
def test_no_limit_makes_files_younger_than_an_hour_orphans(age):
    with pytest.raises(SettingError, match="younger than an hour"):
        Limits(age)


def test_missing_files_are_reported_page_by_page_and_nothing_changes(conn, root, storage, monkeypatch):
    monkeypatch.setattr(missing, "PAGE", 3)
    know(conn, *(f"task/{number}" for number in range(10)), "../evil")
    put(root, *(f"task/{number}" for number in range(0, 10, 2)))

    gone = sorted(path for _, path in missing.missing(conn, storage))

    assert gone == ["../evil", "task/1", "task/3", "task/5", "task/7", "task/9", "task/known"]
    (root / NAME).unlink()
    with pytest.raises(Away):
        list(missing.missing(conn, storage))


@pytest.mark.usefixtures("later")
def test_of_several_workers_one_sweeps_and_the_outcome_is_kept(conn, root, storage):
    put(root, "tmp/a")
    every = timedelta(hours=6)

    first = turn(conn, storage, ["tmp"], every, threading.Event())
    second = turn(conn, storage, ["tmp"], every, threading.Event())

    assert first is not None
    assert second is None
    [(result,)] = conn.execute("select sweep_result from lapse.storage where name = 'private'")
    assert (result["orphans"], result["queued"], result["stopped"]) == (1, 1, None)


def test_a_root_that_is_away_is_the_sweep_s_outcome(conn, root, storage):
    (root / NAME).unlink()

    found = turn(conn, storage, ["tmp"], timedelta(hours=6), threading.Event())

    assert found is not None
    assert "has no marker" in (found.stopped or "")


@pytest.mark.usefixtures("later")
def test_the_sweeper_s_thread_sweeps_by_itself(conn, dsn, root, storage, monkeypatch):
    monkeypatch.setenv("DATABASE_URL", dsn)
    put(root, "tmp/a")
    sweeper = Sweeper({"private": storage}, {"private": ["tmp"]}, first=0.0)

    sweeper.start()
    try:
        until(lambda: queued(conn) == ["tmp/a"])
    finally:
        sweeper.stop()
    sweeper.check()


def test_the_command_sums_up_and_says_why_it_stopped(conn, dsn, root, storage, tmp_path):
    put(root, "tmp/a")
    config = tmp_path / "pglapse.toml"
    config.write_text(f'[storage.private]\nkind = "local"\nroot = "{root}"\ntemp = ["tmp"]\n')

    done = pglapse(dsn, "sweep", "--dry-run", "--config", str(config))
    assert (done.returncode, done.stderr) == (0, "")
    assert "1 file looked at, 1 too young, 0 known to no row (0 B)" in done.stdout

    gone = pglapse(dsn, "sweep", "--missing", "--config", str(config))
    assert gone.returncode == 0
    assert "private: task/known (file source market)" in gone.stdout

    conn.execute("delete from market.task_files")
    conn.execute("delete from lapse.file_cleanup_queue")
    stopped = pglapse(dsn, "sweep", "--config", str(config))
    assert stopped.returncode == 1
    assert "the database knows no file" in stopped.stdout
    assert "stopped before it queued all" in stopped.stderr
    assert "--most-files" not in stopped.stderr, "no limit is in the way"


@pytest.mark.parametrize(
    ("areas", "words"),
    [
        ('"tmp"', "must be a list of folders"),
        ('["../tmp"]', "is no folder below the root"),
        ('["/"]', "is no folder below the root"),
        ('["tmp", "tmp/a"]', "lies in 'tmp'"),
        ('[""]', "is no folder below the root"),
        (
            '["tmp"]\n[storage.public]\nkind = "local"\nroot = "{root}/tmp/public"',
            "root of storage public overlap",
        ),
        ('["a/b"]\n[storage.public]\nkind = "local"\nroot = "{root}/./a/"', "root of storage public overlap"),
        ('["tmp"]\n[storage.public]\nkind = "local"\nroot = "{root}"', "root of storage public overlap"),
    ],
)
def test_doubtful_areas_are_refused(server, tmp_path, areas, words):
    config = tmp_path / "pglapse.toml"
    config.write_text(
        f'[storage.private]\nkind = "local"\nroot = "{tmp_path}"\ntemp = {areas}\n'.replace(
            "{root}", str(tmp_path)
        )
    )

    done = pglapse(server, "sweep", "--config", str(config))

    assert done.returncode == 2
    assert words in done.stderr
