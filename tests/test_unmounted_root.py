"""A worker and a root that is not mounted: nothing is deleted or missing, and it goes on by itself."""

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from pglapse.drain import Worker, drain
from pglapse.storage.local import open_local
from pglapse.storage.marker import NAME
from tests.support import databases
from tests.support.folders import entries, put
from tests.support.mounts import bound, mount, unmount
from tests.support.poll import until
from tests.support.running import pglapse, worker


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


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as pool:
        yield pool


@dataclass
class Disk:
    """Seen at the root, or not."""

    mount: Callable[[], None]
    unmount: Callable[[], None]


@pytest.fixture(params=["renamed", "mounted"])
def disk(request: pytest.FixtureRequest, root: Path, tmp_path: Path) -> Iterator[Disk]:
    """A disk, which is seen at the root: as a mount is, and, where mounts are not allowed, by its name."""
    there = tmp_path / "disk"
    if request.param == "renamed":

        def swap() -> None:
            root.rename(tmp_path / "swapped")
            there.rename(root)
            (tmp_path / "swapped").rename(there)

        there.mkdir()
        swap()
        yield Disk(swap, swap)
        return
    there.mkdir()
    with bound(there, root):
        yield Disk(lambda: mount("--bind", there, root), lambda: unmount(root))


def enqueue(conn: psycopg.Connection, *paths: str) -> None:
    conn.execute("select lapse.enqueue_file('public', path) from unnest(%s::text[]) as path", [list(paths)])


def queue(conn: psycopg.Connection) -> list[tuple]:
    return conn.execute(
        "select path, attempts, dead_at from lapse.file_cleanup_queue order by path"
    ).fetchall()


def trouble(conn: psycopg.Connection) -> str | None:
    found = conn.execute("select troubles from lapse.storage_status where storage = 'public'").fetchone()
    return found[0][0] if found and found[0] else None


def outcomes(conn: psycopg.Connection) -> dict[str, str]:
    return dict(conn.execute("select path, outcome from lapse.file_cleanup_log").fetchall())


def served_once(dsn: str, config: Path) -> None:
    """A worker has been here, and the root has its marker."""
    done = pglapse(dsn, "worker", "--once", "--config", str(config))
    assert done.returncode == 0, done.stderr


def test_a_worker_that_starts_on_an_unmounted_root_waits_and_goes_on_when_it_is_mounted(
    conn, dsn, disk, root, config
):
    put(root, "a/1", "a/2")
    served_once(dsn, config)
    disk.unmount()
    enqueue(conn, "a/1", "a/2", "a/none")

    with worker(dsn, config) as running:
        said = until(lambda: trouble(conn))
        shown = pglapse(dsn, "status").stdout
        held = queue(conn)
        disk.mount()
        until(lambda: not queue(conn))
        until(lambda: trouble(conn) is None, what="the trouble to be over")
        running.says("storage public works again")

    assert f"{root} of storage public has no marker {NAME}: its disk is not mounted" in said
    assert said in " ".join(shown.split())
    assert held == [("a/1", 0, None), ("a/2", 0, None), ("a/none", 0, None)]
    assert outcomes(conn) == {"a/1": "deleted", "a/2": "deleted", "a/none": "missing"}
    assert entries(root) == []


def test_a_worker_whose_root_is_unmounted_under_it_calls_no_file_missing(conn, dsn, disk, root, config):
    put(root, "a/1", "b/2")
    with worker(dsn, config):
        enqueue(conn, "a/1")
        until(lambda: outcomes(conn) == {"a/1": "deleted"})
        disk.unmount()
        enqueue(conn, "b/2", "b/none")
        until(lambda: trouble(conn))
        held = [(path, dead) for path, _, dead in queue(conn)]
        disk.mount()
        until(lambda: not queue(conn))

    assert held == [("b/2", None), ("b/none", None)]
    assert outcomes(conn) == {"a/1": "deleted", "b/2": "deleted", "b/none": "missing"}


def test_once_says_that_a_storage_is_away_and_fails(conn, dsn, disk, root, config):
    served_once(dsn, config)
    disk.unmount()
    enqueue(conn, "a/1")

    done = pglapse(dsn, "worker", "--once", "--config", str(config))

    assert done.returncode == 1
    assert "storage public is away, its files wait" in done.stderr
    assert "pglapse storage adopt public" in done.stderr
    assert queue(conn) == [("a/1", 0, None)]
    disk.mount()


def test_another_databases_root_is_refused_until_it_is_adopted(conn, dsn, empty, root, config):
    put(root, "a/1", NAME, content=b"11111111-1111-1111-1111-111111111111\n")
    enqueue(conn, "a/1")
    here = ["--config", str(config)]

    with worker(dsn, config) as running:
        said = until(lambda: trouble(conn))
        shown = pglapse(dsn, "storage", "adopt", "public", *here)
        before = (root / NAME).read_text()
        done = pglapse(dsn, "storage", "adopt", "public", *here, "--yes")
        until(lambda: not queue(conn))
        running.says("storage public works again")
    again = pglapse(dsn, "storage", "adopt", "public", *here, "--yes")
    listed = json.loads(pglapse(dsn, "storage", "list", *here, "--json").stdout)

    assert "belongs to" not in said
    assert "a marker that this database does not know, 11111111-1111-1111-1111-111111111111" in said
    assert shown.returncode == 2
    assert "It gets a new one in its place" in shown.stdout
    assert (
        "pglapse: nothing was changed - if this is meant: pglapse storage adopt public --yes" in shown.stderr
    )
    assert before.startswith("11111111")
    assert (done.returncode, done.stderr) == (0, "")
    assert outcomes(conn) == {"a/1": "deleted"}
    assert again.stdout == f"{root} is the root of storage public: nothing to do\n"
    assert [(row["storage"], row["state"]) for row in listed] == [("public", "ok")]
    assert listed[0]["marker"] == listed[0]["found"] == (root / NAME).read_text().splitlines()[0]


def test_a_new_disk_is_adopted(conn, dsn, root, config):
    served_once(dsn, config)
    old = (root / NAME).read_text()
    (root / NAME).unlink()
    here = ["--config", str(config)]

    done = pglapse(dsn, "storage", "adopt", "public", *here, "--yes")

    assert done.returncode == 0, done.stderr
    assert f"{root} has no marker. It gets one" in done.stdout
    assert "The folder is empty. Is its disk mounted?" in done.stdout
    assert (root / NAME).read_text() != old
    served_once(dsn, config)
    (root / NAME).write_text(old)
    assert pglapse(dsn, "worker", "--once", *here).returncode == 1, "the old disk is nobody's"


def test_two_names_may_be_made_to_stand_for_one_folder(conn, dsn, root, config, tmp_path):
    served_once(dsn, config)
    config.write_text(
        config.read_text() + f'[storage.other]\nkind = "local"\nroot = "{tmp_path / "other"}"\n'
        '[storage.plain]\nkind = "local"\nroot = "/srv"\nmarker = false\n'
        '[storage.bucket]\nkind = "s3"\nbucket = "uploads"\n'
    )
    (tmp_path / "other").mkdir()
    text = config.read_text()
    config.write_text(text[: text.index("[storage.plain]")])
    served_once(dsn, config)
    config.write_text(text.replace(str(tmp_path / "other"), str(root)))
    here = ["--config", str(config)]

    states = {
        row["storage"]: row["state"]
        for row in json.loads(pglapse(dsn, "storage", "list", *here, "--json").stdout)
    }
    done = pglapse(dsn, "storage", "adopt", "other", *here, "--yes")

    assert states == {
        "public": "ok",
        "other": "the marker of storage public",
        "plain": "without a marker",
        "bucket": "a bucket",
    }
    assert done.returncode == 0, done.stderr
    assert f"{root} has the marker of storage public." in done.stdout
    for name, reason in (
        ("plain", "says marker = false"),
        ("bucket", "is a bucket"),
        ("nowhere", "names no storage 'nowhere'"),
    ):
        refused = pglapse(dsn, "storage", "adopt", name, *here, "--yes")
        assert (refused.returncode, reason in refused.stderr) == (2, True), refused.stderr


def test_without_a_marker_nothing_is_written_into_the_root(conn, dsn, root, config):
    config.write_text(config.read_text() + "marker = false\n")
    put(root, "a/1")
    enqueue(conn, "a/1")

    served_once(dsn, config)

    assert list(root.iterdir()) == []
    assert outcomes(conn) == {"a/1": "deleted"}


def test_the_list_shows_what_the_database_knows_where_there_is_no_configuration(conn, dsn, config, tmp_path):
    served_once(dsn, config)

    done = pglapse(dsn, "storage", "list", cwd=tmp_path / "files")

    assert done.returncode == 0
    assert "only what the database knows: there is no configuration file" in done.stderr
    assert "public" in done.stdout


@pytest.fixture
def other(server: str, template: str) -> Iterator[psycopg.Connection]:
    """Another database, with everything installed, whose worker serves a storage of the same name."""
    with (
        databases.database(server, template) as dsn,
        psycopg.connect(dsn, autocommit=True, options="-c search_path=") as conn,
    ):
        conn.execute("select lapse.worker_hello('w', 'host', 1, '1', '{public}')")
        yield conn


def test_a_worker_that_is_led_to_another_database_deletes_nothing_for_it(conn, other, root, pool):
    put(root, "a/1", "b/2")
    conn.execute("select lapse.worker_hello('w', 'host', 1, '1', '{public}')")
    who = Worker("w", {"public": open_local("public", root, pool, marker=True)}, lambda: False)
    who.introduce(conn)
    enqueue(conn, "a/1")
    drain(conn, who)
    assert entries(root) == ["b"]

    enqueue(other, "b/2")
    who.introduce(other)  # as with each new connection
    drain(other, who)

    assert "a marker that this database does not know" in who.troubles["public"]
    assert [(path, attempts) for path, attempts, _ in queue(other)] == [("b/2", 0)]
    assert entries(root) == ["b"]
    who.close()


def test_a_worker_hears_that_another_folder_is_the_root_without_losing_its_own(conn, root, pool, monkeypatch):
    monkeypatch.setattr("pglapse.drain.KNOWN_FOR", 0.0)
    monkeypatch.setattr("pglapse.lane.FIRST_REST", 0.01)
    put(root, "a/1")
    conn.execute("select lapse.worker_hello('w', 'host', 1, '1', '{public}')")
    who = Worker("w", {"public": open_local("public", root, pool, marker=True)}, lambda: False)
    drain(conn, who)

    conn.execute("select lapse.adopt_storage('public')")
    enqueue(conn, "a/1")
    drain(conn, who)

    assert "a marker that this database does not know" in who.troubles["public"]
    assert entries(root) == ["a"]
    who.close()
