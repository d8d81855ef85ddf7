"""The demo ends well when all is well, and says what differs when somebody meddles with it from outside."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from pglapse.demo import files, plan
from tests.support.install import ROOT

# One process in a parallel run: the shows are shared by the tests.
pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("demo")]

SCALE = "0.03"
PATIENCE = 120.0


@dataclass
class Running:
    """A demo under way in a process of its own; what it says goes to a file that can be read meanwhile."""

    process: subprocess.Popen[bytes]
    folder: Path
    output: Path

    def said(self) -> str:
        return self.output.read_text(encoding="utf-8")

    def told(self) -> str:
        """What it said, and its worker's log: for a test that fails."""
        log = self.folder / "worker.log"
        return self.said() + (f"\nworker.log:\n{log.read_text(encoding='utf-8')}" if log.exists() else "")

    def until(self, ready: Callable[[], object]) -> object:
        """Poll until ``ready`` gives something true; fails when the demo ends before."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            if found := ready():
                return found
            assert self.process.poll() is None, self.told()
            time.sleep(0.02)
        raise AssertionError(f"waited too long; so far it said:\n{self.told()}")

    def says(self, pattern: str) -> re.Match[str]:
        """Wait until it has said something like ``pattern``."""
        found = self.until(lambda: re.search(pattern, self.said()))
        assert isinstance(found, re.Match)
        return found

    def ends(self) -> int:
        return self.process.wait(PATIENCE)

    def processes(self) -> list[str]:
        """Command lines of everything alive that has to do with its folder."""
        return [line for line in command_lines() if str(self.folder) in line]


def command_lines() -> Iterator[str]:
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = place.read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        except OSError:
            continue
        if line:
            yield line


@pytest.fixture(scope="module")
def spare() -> Iterator[Path]:
    """A folder right below /tmp: others may enter it, as the embedded server's user must."""
    folder = Path("/tmp") / f"pglapse-test-{os.getpid()}"  # noqa: S108
    folder.mkdir(mode=0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def start(spare: Path, named: str) -> Iterator[Callable[..., Running]]:
    """Start demos; whatever still runs at the end is ended, before the database that it was given goes."""
    started: list[Running] = []

    def begin(*options: str, url: str = "", **more: str) -> Running:
        folder = spare / f"demo-{len(started)}"
        output = spare / f"said-{len(started)}"
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
        environment |= {"DATABASE_URL": url, "PYTHONPATH": str(ROOT / "worker"), **more}
        with output.open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", "pglapse.demo", "--scale", SCALE, "--folder", str(folder), *options],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        started.append(Running(process, folder, output))
        return started[-1]

    yield begin
    for running in started:
        if running.process.poll() is None:
            running.process.terminate()
            running.ends()


@pytest.fixture(scope="module")
def named(server: str) -> Iterator[str]:
    """A database that DATABASE_URL names: the demo must leave it as it is."""
    name = f"pglapse_named_{os.getpid()}"
    with psycopg.connect(server, autocommit=True) as admin:
        admin.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
        yield psycopg.conninfo.make_conninfo(server, dbname=name)
        admin.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


def databases(demo: Running, server: str) -> list[str]:
    """The databases that ``demo`` made and that are still there."""
    mine = f"pglapse\\_demo\\_{demo.process.pid}\\_%"
    with psycopg.connect(server) as conn:
        return [
            name for (name,) in conn.execute("select datname from pg_database where datname like %s", [mine])
        ]


def own_database(demo: Running, server: str) -> str:
    name = demo.says(r"database (pglapse_demo_\w+)")[1]
    return psycopg.conninfo.make_conninfo(server, dbname=name)


def listed(demo: Running, *, goes: bool, why: str) -> list[files.Listed]:
    demo.says("manifest.csv")
    return [f for f in files.read(demo.folder / "manifest.csv") if f.goes == goes and why in f.why]


def kill_the_worker(demo: Running, _server: str) -> None:
    pid = int(demo.says(r"a worker, process (\d+)")[1])
    os.kill(pid, signal.SIGKILL)


def put_a_file_back(demo: Running, _server: str) -> None:
    victim = demo.folder / listed(demo, goes=True, why="the deadline had passed")[0].name
    content = victim.read_bytes()
    demo.until(lambda: not victim.exists())
    victim.parent.mkdir(parents=True, exist_ok=True)
    victim.write_bytes(content)


def remove_one_more(demo: Running, _server: str) -> None:
    demo.says("a worker, process")
    (demo.folder / listed(demo, goes=False, why="the task is open")[0].name).unlink()


def change_a_file(demo: Running, _server: str) -> None:
    """Same size, same time, another content."""
    demo.says("a worker, process")
    victim = demo.folder / listed(demo, goes=False, why="the task is open")[0].name
    before = victim.stat()
    victim.write_bytes(bytes(byte ^ 1 for byte in victim.read_bytes()))
    os.utime(victim, ns=(before.st_atime_ns, before.st_mtime_ns))


def change_rows(demo: Running, server: str) -> None:
    dsn = own_database(demo, server)
    demo.says("a worker, process")
    with psycopg.connect(dsn) as conn:
        conn.execute(
            """
            update market.coupons set status = 'expired', expired_at = now()
             where id = (select min(id) from market.coupons where status = 'active' and valid_until is null)
            """
        )
        conn.execute(
            """
            update market.point_grants set remaining = remaining - 1
             where id = (select min(id) from market.point_grants where remaining > 1 and expires_at is null)
            """
        )
        conn.execute("insert into market.user_statistics_deltas (user_id, tasks_posted) values (1, 100)")
        conn.execute(
            "delete from market.cache_entries where key ="
            " (select max(key) from market.cache_entries where expires_at > now() + interval '1 hour')"
        )


SABOTAGE: dict[str, tuple[Callable[[Running, str], None], list[str]]] = {
    "kill the worker": (kill_the_worker, [r"the worker ended in the middle of the show \(exit code -9\)"]),
    "put a file back": (put_a_file_back, [r"file \S.* is still there \(the deadline had passed\)"]),
    "remove one more": (remove_one_more, [r"1 difference\.", r"file \S.* is gone \(the task is open\)"]),
    "change a file": (change_a_file, [r"1 difference\.", r"file \S.* has another content"]),
    "change rows": (
        change_rows,
        [
            r"coupon \d+: expired, expected active",
            r"balance of user \d+: \d+, expected \d+",
            r"statistics of user 1: \(10\d, ",
            r"cache entry page:\d+ is gone",
        ],
    ),
}


@pytest.fixture(scope="module")
def shows(start: Callable[..., Running], server: str, named: str) -> dict[str, Running]:
    """Every demo that plays to its end, all at the same time, since most of a demo is waiting."""
    demos = {name: start(url=named) for name in SABOTAGE}
    demos |= {"embedded": start(), "borrowed": start(url=named), "stay": start("--stay", url=named)}
    for name, (act, _) in SABOTAGE.items():
        act(demos[name], server)
    return demos


@pytest.mark.slow
@pytest.mark.parametrize("name", SABOTAGE)
def test_sabotage_is_seen(shows: dict[str, Running], server: str, name: str) -> None:
    demo = shows[name]

    code = demo.ends()

    assert code == 1, demo.told()
    for pattern in SABOTAGE[name][1]:
        assert re.search(pattern, demo.said()), demo.told()
    assert demo.processes() == []
    assert databases(demo, server) == []


@pytest.mark.slow
def test_the_embedded_server_is_enough(shows: dict[str, Running]) -> None:
    demo = shows["embedded"]

    code = demo.ends()

    assert code == 0, demo.told()
    assert "The proof holds." in demo.said()
    assert f"are in {demo.folder}" in demo.said()
    left = {path.name for path in demo.folder.iterdir()}
    assert left == {"public", "private", "manifest.csv", "pglapse.toml", "worker.log"}
    assert files.differences(demo.folder, demo.folder / "manifest.csv") == []
    assert demo.processes() == []


@pytest.mark.slow
def test_a_named_database_is_left_as_it_was(shows: dict[str, Running], server: str, named: str) -> None:
    demo = shows["borrowed"]

    code = demo.ends()

    assert code == 0, demo.told()
    with psycopg.connect(named) as conn:
        ours = conn.execute("select from pg_namespace where nspname in ('lapse', 'market')").fetchall()
        tables = conn.execute("select from pg_class where oid >= 16384").fetchall()
    assert (ours, tables) == ([], [])
    assert demo.says(r"database (pglapse_demo_\w+)")
    assert databases(demo, server) == []


@pytest.mark.slow
def test_with_stay_everything_is_up_until_ctrl_c(shows: dict[str, Running], server: str) -> None:
    demo = shows["stay"]
    demo.says("stay up until Ctrl-C")
    with psycopg.connect(own_database(demo, server)) as conn:
        rows = conn.execute("select count(*) from lapse.policy_status").fetchone()

    demo.process.send_signal(signal.SIGINT)

    assert demo.ends() == 0, demo.told()
    assert rows is not None
    assert rows[0] > 0
    assert demo.processes() == []
    assert databases(demo, server) == []
    assert (demo.folder / "manifest.csv").exists()


PHASES = {
    "files": "",
    "server": "wrote",
    "install": "started PostgreSQL",
    "show": "a worker, process",
    "files going": r"files gone [1-9]",
}


@pytest.mark.parametrize(
    ("where", "phase"),
    [*(("embedded", phase) for phase in PHASES), ("borrowed", "install"), ("borrowed", "files going")],
)
@pytest.mark.slow
def test_ctrl_c_leaves_nothing(
    start: Callable[..., Running], server: str, named: str, where: str, phase: str
) -> None:
    demo = start(url=named if where == "borrowed" else "")
    if PHASES[phase]:
        demo.says(PHASES[phase])
    else:
        demo.until((demo.folder / "private").exists)

    os.killpg(demo.process.pid, signal.SIGINT)  # a terminal's Ctrl-C reaches the whole group
    demo.says("cleaning up")
    os.killpg(demo.process.pid, signal.SIGINT)  # an impatient second one must not break the clean-up off
    code = demo.ends()

    # The signal itself ends a process that is over but for Python's own clean-up.
    assert code in (130, -signal.SIGINT), demo.told()
    assert "Traceback" not in demo.said()
    assert demo.processes() == []
    assert databases(demo, server) == []
    assert not demo.folder.exists()


@pytest.mark.slow
def test_a_service_manager_may_end_it_too(start: Callable[..., Running]) -> None:
    demo = start()
    demo.says("a worker, process")

    demo.process.send_signal(signal.SIGTERM)

    assert demo.ends() == 143
    assert demo.processes() == []


def test_a_folder_with_something_in_it_is_not_touched(start: Callable[..., Running], spare: Path) -> None:
    taken = spare / "taken"
    taken.mkdir()
    (taken / "mine.txt").write_text("mine")

    demo = start("--folder", str(taken))

    assert demo.ends() == 2
    assert "is not empty" in demo.said()
    assert [path.name for path in taken.iterdir()] == ["mine.txt"]


def test_a_server_that_is_not_there_is_one_clear_line(start: Callable[..., Running]) -> None:
    demo = start(url="postgresql://nobody@127.0.0.1:1/none")

    assert demo.ends() == 2
    assert "can't use the server of DATABASE_URL" in demo.said()
    assert "Traceback" not in demo.said()
    assert not demo.folder.exists()


def test_a_role_that_may_not_create_databases_is_told_so(
    start: Callable[..., Running], server: str, named: str
) -> None:
    role = f"pglapse_demo_role_{os.getpid()}"
    with psycopg.connect(server, autocommit=True) as admin:
        admin.execute(sql.SQL("create role {} login password 'secret'").format(sql.Identifier(role)))
        try:
            demo = start(url=psycopg.conninfo.make_conninfo(named, user=role, password="secret"))
            code = demo.ends()
        finally:
            admin.execute(sql.SQL("drop role {}").format(sql.Identifier(role)))

    assert code == 2, demo.told()
    assert "CREATEDB" in demo.said()
    assert "secret" not in demo.said()


@pytest.fixture
def written(tmp_path: Path) -> tuple[Path, Path]:
    """A small plan's files, those that go already gone: as they must be found at the end."""
    story = plan.make(0.01)
    manifest = files.write(tmp_path, story.files, story.seed)
    for file in files.read(manifest):
        if file.goes:
            (tmp_path / file.name).unlink()
    prune(tmp_path)
    return tmp_path, manifest


def prune(folder: Path) -> None:
    """Remove emptied folders, as the worker does."""
    for storage in files.STORAGES:
        for at, _, _ in os.walk(folder / storage, topdown=False):
            if not any(Path(at).iterdir()) and Path(at) != folder / storage:
                Path(at).rmdir()


def test_files_as_the_manifest_says_are_no_difference(written: tuple[Path, Path]) -> None:
    assert files.differences(*written) == []


def test_a_touched_file_an_unknown_file_and_an_empty_folder_are_differences(
    written: tuple[Path, Path],
) -> None:
    folder, manifest = written
    touched = next(file for file in files.read(manifest) if not file.goes)
    os.utime(folder / touched.name, ns=(0, 0))
    (folder / "public" / "stranger").write_text("?")
    (folder / "private" / "empty").mkdir()

    assert files.differences(folder, manifest) == [
        f"file {touched.name} was touched ({touched.why})",
        "file public/stranger is there, though nobody made it",
        "folder private/empty is empty and still there",
    ]


def test_the_smallest_demo_still_has_every_story_and_the_same_one_each_time() -> None:
    story = plan.make(0.01)

    assert {task.story for task in story.tasks} == set(plan.STORIES)
    assert {upload.fate for upload in story.uploads} == {"lapses", "stays", "taken", "discarded"}
    assert story == plan.make(0.01)
    assert story != plan.make(0.01, seed=3)


def test_a_file_goes_only_if_every_task_that_names_it_lets_it_go() -> None:
    story = plan.make(0.2)
    lets_go = {task.id: task.story.goes for task in story.tasks}
    named: dict[tuple[str, str], list[bool]] = {}
    for row in story.task_files:
        named.setdefault((row.storage, row.path), []).append(lets_go[row.task] or bool(row.replaced_by))

    wrong = [file for file in story.files if file.key in named and file.goes != all(named[file.key])]

    assert wrong == []
    assert any(len(votes) > 1 for votes in named.values())
