"""The local storage deletes exactly what it was asked to, below its root."""

import errno
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from pglapse import parts
from pglapse.config import LocalSettings, Settings
from pglapse.errors import PglapseError, SettingError
from pglapse.storage import Outcome, local
from pglapse.storage.local import LocalStorage, keeping_roots, open_local
from pglapse.storage.mounts import Place, Surveyor
from tests.support.folders import open_descriptors, put
from tests.support.install import ROOT
from tests.support.storage import delete
from tests.support.trees import snapshot


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as pool:
        yield pool


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    root.mkdir()
    return root


@pytest.fixture
def storage(root: Path, pool: ThreadPoolExecutor) -> LocalStorage:
    return open_local("public", root, pool, threads=4)


def one(storage: LocalStorage, path: str) -> Outcome:
    [outcome] = delete(storage, [path])
    return outcome


def test_files_go_and_each_path_gets_its_own_outcome_in_order(root, storage):
    put(root, "a/1", "a/2", "b/c/3", "top", "stays")

    outcomes = delete(storage, ["a/1", "nowhere/x", "b/c/3", "../top", "top", "a/2", "a/none"])

    assert [outcome.verdict for outcome in outcomes] == [
        "deleted", "missing", "deleted", "refused", "deleted", "deleted", "missing",
    ]  # fmt: skip
    assert [path.name for path in root.iterdir()] == ["stays"]


def test_a_large_folder_is_shared_among_threads_and_every_file_goes(root, storage):
    names = [f"d/{number}" for number in range(500)]
    put(root, *names, "d/stays")

    outcomes = delete(storage, names)

    assert {outcome.verdict for outcome in outcomes} == {"deleted"}
    assert [path.name for path in (root / "d").iterdir()] == ["stays"]


def test_bytes_are_what_the_disk_gives_back(root, storage):
    put(root, "full", content=b"x" * 100_000)
    with (root / "sparse").open("wb") as file:
        file.truncate(10 << 30)
    put(root, "linked", content=b"x" * 100_000)
    os.link(root / "linked", root / "other name")
    full = (root / "full").stat().st_blocks * 512

    outcomes = delete(storage, ["full", "sparse", "linked", "other name"])

    assert [outcome.verdict for outcome in outcomes] == ["deleted"] * 4
    assert outcomes[0].bytes == full >= 100_000
    assert outcomes[1].bytes < 1_000_000
    assert outcomes[2].bytes + outcomes[3].bytes == full  # only the last name frees them


def test_a_hard_link_elsewhere_keeps_its_content(root, storage, tmp_path):
    put(root, "a")
    os.link(root / "a", tmp_path / "elsewhere")

    assert one(storage, "a") == Outcome("deleted", bytes=0)
    assert (tmp_path / "elsewhere").read_bytes() == b"x"


def test_a_symlinked_folder_is_refused_and_named(root, storage, tmp_path):
    put(tmp_path, "outside/victim")
    (root / "d").symlink_to(tmp_path / "outside")
    put(root, "inside/victim")
    (root / "e").symlink_to("inside")

    for path in ("d/victim", "e/victim"):
        outcome = one(storage, path)
        assert outcome.verdict == "refused"
        assert outcome.error == f"'{path[0]}' in the path is a symbolic link, not a folder"
    assert (tmp_path / "outside/victim").exists()
    assert (root / "inside/victim").exists()


def test_what_is_not_a_regular_file_is_refused_and_named(root, storage, tmp_path):
    put(tmp_path, "target")
    (root / "link").symlink_to(tmp_path / "target")
    (root / "dangling").symlink_to("nowhere")
    (root / "folder").mkdir()
    os.mkfifo(root / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(root / "sock"))
    put(root, "file")
    before = snapshot(root)

    outcomes = delete(storage, ["link", "dangling", "folder", "pipe", "sock", "file/below"])

    assert [(outcome.verdict, outcome.error) for outcome in outcomes] == [
        ("refused", "'link' is a symbolic link, not a regular file"),
        ("refused", "'dangling' is a symbolic link, not a regular file"),
        ("refused", "'folder' is a folder, not a regular file"),
        ("refused", "'pipe' is a named pipe, not a regular file"),
        ("refused", "'sock' is a socket, not a regular file"),
        ("refused", "'file' in the path is a file, not a folder"),
    ]
    assert snapshot(root) == before


def test_a_name_with_a_newline_or_a_quote_is_an_ordinary_name(root, storage):
    put(root, "a\nb/c'\"d", "photo[1].jpg", "photo1.jpg", "*")

    outcomes = delete(storage, ["a\nb/c'\"d", "photo[1].jpg", "*"])

    assert {outcome.verdict for outcome in outcomes} == {"deleted"}
    assert [path.name for path in root.iterdir()] == ["photo1.jpg"]


def test_an_error_names_the_entry_on_one_line_whatever_it_is_called(root, storage):
    (root / "a\nb").symlink_to("/")

    assert one(storage, "a\nb/c").error == r"'a\nb' in the path is a symbolic link, not a folder"


def test_emptied_folders_go_up_to_the_root_and_others_stay(root, storage):
    put(root, "a/b/c/d/1", "a/stays", "x/y/2")

    delete(storage, ["a/b/c/d/1", "x/y/2"])

    assert sorted(path.relative_to(root).as_posix() for path in root.rglob("*")) == ["a", "a/stays"]
    assert root.is_dir()


def test_a_folder_left_empty_by_a_worker_that_died_goes_with_the_next_attempt(root, storage):
    (root / "a/b").mkdir(parents=True)

    assert [outcome.verdict for outcome in delete(storage, ["a/b/1", "a/b/c/2"])] == ["missing"] * 2
    assert list(root.iterdir()) == []


def test_a_folder_stays_when_its_file_could_not_go(root, storage):
    (root / "a/folder").mkdir(parents=True)

    assert one(storage, "a/folder").verdict == "refused"
    assert (root / "a/folder").is_dir()


def test_pruning_can_be_switched_off(root, pool):
    put(root, "a/b/1")

    assert one(open_local("x", root, pool, prune=False), "a/b/1").verdict == "deleted"
    assert (root / "a/b").is_dir()


def test_another_storages_root_stays_even_when_empty(root, pool):
    put(root, "a/inner/1")
    (root / "a/inner2").mkdir()
    outer, inner = keeping_roots(
        [open_local("outer", root, pool), open_local("inner", root / "a/inner", pool)]
    )

    assert one(inner, "1").verdict == "deleted"
    put(root, "a/inner/2")
    assert one(outer, "a/inner/2").verdict == "deleted"
    assert (root / "a/inner").is_dir()


def test_a_path_deeper_than_the_kept_trail_goes_with_few_open_folders(root, storage):
    deep = "/".join(["d"] * 60)
    put(root, f"{deep}/f")
    before = open_descriptors()
    counted: list[int] = []

    def count() -> bool:  # asked when the way down is done
        counted.append(open_descriptors() - before)
        return True

    [outcome] = delete(storage, [f"{deep}/f"], count)

    assert outcome.verdict == "deleted"
    assert not (root / deep).exists()
    assert counted[0] <= 20
    assert open_descriptors() == before


def test_a_mounted_file_system_is_not_entered(pool):
    outside = Path("/dev/shm")  # noqa: S108 (a mount that every Linux has)
    if not outside.is_dir() or outside.stat().st_dev == Path("/").stat().st_dev:
        pytest.skip("nothing is mounted at /dev/shm here")
    with tempfile.NamedTemporaryFile(dir=outside) as file:
        outcome = one(open_local("x", Path("/"), pool), file.name.removeprefix("/"))

        assert outcome.verdict == "refused"
        assert "another file system is mounted at 'dev'" in outcome.error
        assert Path(file.name).exists()


def test_nothing_is_touched_once_the_lease_is_over(root, storage):
    put(root, *(f"d/{number}" for number in range(10)))
    allowed = iter([True] * 3)

    outcomes = delete(storage, [f"d/{number}" for number in range(10)], lambda: next(allowed, False))

    assert [outcome.verdict for outcome in outcomes] == ["deleted"] * 3 + ["released"] * 7
    assert len(list((root / "d").iterdir())) == 7


@pytest.mark.parametrize("how", ["gone", "replaced", "a file"])
def test_a_root_that_vanishes_takes_the_storage_away_and_its_files_are_never_missing(root, storage, how):
    put(root, "1")
    root.rename(root.with_name("moved"))
    if how == "replaced":
        root.mkdir()
    elif how == "a file":
        root.write_text("")

    outcomes = delete(storage, ["1", "2", ".."])

    assert [outcome.verdict for outcome in outcomes] == ["released", "released", "refused"]
    assert f"the root {root} of storage public" in outcomes[0].error
    assert root.with_name("moved").joinpath("1").exists()


def test_a_root_that_vanishes_in_the_middle_of_a_batch_gives_missing_files_back(root, storage):
    put(root, "a/1", "a/2")

    def vanish() -> bool:  # asked after the root was opened, before each file
        if root.exists():
            (root / "a/2").rename(root.with_name("2"))
            root.rename(root.with_name("moved"))
        return True

    outcomes = delete(storage, ["a/1", "a/2"], vanish)

    assert [outcome.verdict for outcome in outcomes] == ["deleted", "released"]
    assert "can't be used" in outcomes[1].error


def test_a_missing_root_is_refused_at_the_start(tmp_path, pool):
    with pytest.raises(SettingError, match=r"storage.x: can't open the root .*none: there is no such folder"):
        open_local("x", tmp_path / "none", pool)
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingError, match="is not a folder"):
        open_local("x", tmp_path / "file", pool)


UNPRIVILEGED = """
import json, os, sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from pglapse.storage.local import open_local
from tests.support.storage import delete

if os.geteuid() == 0:  # nobody else is kept out by permissions
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
with ThreadPoolExecutor(1) as pool:
    storage = open_local("x", Path(sys.argv[1]), pool)
    outcomes = delete(storage, sys.argv[2:])
print(json.dumps([[outcome.verdict, outcome.error] for outcome in outcomes]))
"""


def test_a_missing_permission_fails_and_may_be_tried_again():
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        put(root, "locked/1", "sealed/2", "free/3")
        if os.geteuid() == 0:
            for path in (root, *root.rglob("*")):
                os.chown(path, 65534, 65534)
        (root / "locked").chmod(0o500)
        (root / "sealed").chmod(0o000)

        done = subprocess.run(
            [sys.executable, "-c", UNPRIVILEGED, folder, "locked/1", "sealed/2", "free/3", "locked/none"],
            env={"PYTHONPATH": f"{ROOT / 'worker'}:{ROOT}"},
            capture_output=True,
            text=True,
            check=False,
        )
        (root / "locked").chmod(0o700)
        (root / "sealed").chmod(0o700)

        assert done.returncode == 0, done.stderr
        locked, sealed, free, none = json.loads(done.stdout)
        assert [locked[0], sealed[0], free, none] == [
            "failed",
            "failed",
            ["deleted", None],
            ["missing", None],
        ]
        assert "no permission" in locked[1]
        assert "'sealed'" in sealed[1]
        assert (root / "locked/1").exists()
        assert (root / "sealed/2").exists()


def test_uploads_into_a_folder_that_is_being_emptied_all_arrive(root, storage):
    """Writers do what the documentation asks of them: make the folder and open the file, again if need be."""

    def upload(number: int) -> None:
        while True:
            try:
                (root / "a/b").mkdir(parents=True, exist_ok=True)
                (root / f"a/b/new{number}").write_bytes(b"new")
            except (FileNotFoundError, FileExistsError):  # mkdir looks again, and the folder is gone
                continue
            return

    with ThreadPoolExecutor(1) as writer:
        for number in range(400):
            put(root, "a/b/old")
            job = writer.submit(upload, number)
            assert one(storage, "a/b/old").verdict == "deleted"
            job.result()
            assert (root / f"a/b/new{number}").read_bytes() == b"new"
            assert one(storage, f"a/b/new{number}").verdict == "deleted"

    assert list(root.iterdir()) == []


def test_a_worker_with_a_strange_locale_deletes_the_same_names(root, storage):
    put(root, "Ünïcode/é.jpg")
    script = (
        "import sys\nfrom concurrent.futures import ThreadPoolExecutor\nfrom pathlib import Path\n"
        "from pglapse.storage.local import open_local\nfrom tests.support.storage import delete\n"
        "with ThreadPoolExecutor(1) as pool:\n"
        "    [outcome] = delete(open_local('x', Path(sys.argv[1]), pool), ['\\xdcn\\xefcode/\\xe9.jpg'])\n"
        "print(outcome.verdict)\n"
    )

    done = subprocess.run(
        [sys.executable, "-X", "utf8=0", "-c", script, str(root)],
        env={"PYTHONPATH": f"{ROOT / 'worker'}:{ROOT}", "LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.stdout, done.stderr) == ("deleted\n", "")


@pytest.mark.parametrize("code", [errno.ESTALE, errno.EIO])
@pytest.mark.parametrize("which", ["root", "folder"])
def test_a_folder_that_is_lost_once_it_is_open_stops_nothing_but_its_files(
    root, storage, monkeypatch, which, code
):
    put(root, "a/1", "b/2")
    lost = (root if which == "root" else root / "a").stat().st_ino
    place, before = Surveyor.place, open_descriptors()

    def unlucky(surveyor: Surveyor, descriptor: int) -> Place:
        found = place(surveyor, descriptor)
        if found[1] == lost:
            raise OSError(code, "lost")
        return found

    monkeypatch.setattr(Surveyor, "place", unlucky)
    outcomes = delete(storage, ["a/1", "b/2"])
    monkeypatch.undo()

    assert [outcome.verdict for outcome in outcomes] == (
        ["released"] * 2 if which == "root" else ["failed", "deleted"]
    )
    assert (root / "a/1").exists()
    assert open_descriptors() == before


def test_a_folder_that_can_t_be_closed_properly_was_emptied_all_the_same(root, storage, monkeypatch):
    put(root, "a/1")
    close = os.close

    def grudging(descriptor: int) -> None:
        close(descriptor)
        raise OSError(errno.EIO, "said while closing")

    monkeypatch.setattr(os, "close", grudging)

    assert one(storage, "a/1").verdict == "deleted"


def test_an_error_of_our_own_fails_the_files_it_leaves_undone_alone(root, storage, monkeypatch, caplog):
    put(root, "a/1", "a/2", "a/3", "b/4")
    unlink = os.unlink

    def broken(name: bytes, **options: int) -> None:
        if name == b"2":
            raise ZeroDivisionError("a bug")
        unlink(name, **options)

    monkeypatch.setattr(os, "unlink", broken)
    outcomes = delete(storage, ["a/1", "a/2", "a/3", "b/4"])

    assert [outcome.verdict for outcome in outcomes] == ["deleted", "failed", "failed", "deleted"]
    assert "ZeroDivisionError: a bug" in outcomes[1].error
    assert "an unexpected error in storage public" in caplog.text


def test_the_root_stays_open_until_every_thread_is_done_with_it(root, monkeypatch):
    """Its number would be another folder's next, and files would go from there."""

    class Exhausted(ThreadPoolExecutor):
        """Takes one job; for the second, the machine has no thread."""

        jobs = 0

        def submit(self, *job: Any, **options: Any) -> Future[Any]:
            self.jobs += 1
            if self.jobs > 1:
                raise RuntimeError("can't start new thread")
            return super().submit(*job, **options)

    names = [f"{number}/f" for number in range(20)]
    put(root, *names)
    closed: list[str] = []
    close = os.close

    def noted(descriptor: int) -> None:
        closed.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        close(descriptor)

    def slowly() -> bool:
        if threading.current_thread() is not threading.main_thread():
            time.sleep(0.1)  # time enough for the caller to close the root, if it does not wait
        return str(root) not in closed

    with Exhausted(1) as pool:
        storage = open_local("public", root, pool, threads=3)
        monkeypatch.setattr(local, "BLOCKED", 0)  # as on a disk, where helpers are worth their while
        monkeypatch.setattr(os, "close", noted)
        outcomes = delete(storage, names, slowly)

    assert {outcome.verdict for outcome in outcomes} == {"deleted"}
    assert pool.jobs == 2
    assert closed.count(str(root)) == 1


def test_the_root_stays_open_for_helpers_also_when_the_first_thread_fails(root, pool, monkeypatch):
    names = [f"{number}/f" for number in range(40)]
    put(root, *names)
    closed: list[str] = []
    close, begun, looks, late = os.close, threading.Event(), [], []

    def noted(descriptor: int) -> None:
        closed.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        close(descriptor)

    def waits() -> int:
        looks.append(1)
        if len(looks) > 2:  # helpers were invited after the second look
            assert begun.wait(20)
            raise ZeroDivisionError("a bug")
        return 0

    def slowly() -> bool:
        if threading.current_thread() is not threading.main_thread():
            begun.set()
            time.sleep(0.02)  # time enough for the first thread to close the root, if it does not wait
        late.append(str(root) in closed)
        return True

    storage = open_local("public", root, pool, threads=3)
    monkeypatch.setattr(local, "BLOCKED", 0)
    monkeypatch.setattr(local, "_waits", waits)
    monkeypatch.setattr(os, "close", noted)
    with pytest.raises(ZeroDivisionError):
        delete(storage, names, slowly)
    pool.shutdown()

    assert not any(late)
    assert closed.count(str(root)) == 1


def test_helpers_come_where_the_disk_makes_us_wait_and_only_there(root, storage, monkeypatch):
    names = [f"d/{number}" for number in range(200)]
    unlink, slow, waits, threads = os.unlink, True, 0, set()

    def noted(name: bytes, **options: int) -> None:
        nonlocal waits
        if slow:
            waits += 1
            time.sleep(0.001)
        threads.add(threading.current_thread())
        unlink(name, **options)

    monkeypatch.setattr(os, "unlink", noted)
    monkeypatch.setattr(local, "_waits", lambda: waits)
    put(root, *names)
    delete(storage, names)
    crowd = set(threads)
    slow = False
    for _ in range(local.CROWDED):  # a slow disk is believed to be one for a while
        threads.clear()
        put(root, *names)
        delete(storage, names)

    assert len(crowd) > 1
    assert threads == {threading.main_thread()}


def test_all_threads_are_there_before_the_first_file_is_touched(root):
    settings = Settings(Path("x"), {"public": LocalSettings("public", root)})
    before = threading.active_count()

    with parts.storages(settings, 7):
        assert threading.active_count() == before + 7


def test_a_machine_without_threads_to_spare_is_told_of_at_the_start(root, monkeypatch):
    settings = Settings(Path("x"), {"public": LocalSettings("public", root)})
    start, started = threading.Thread.start, []

    def third_fails(thread: threading.Thread) -> None:
        started.append(thread)
        if len(started) > 2:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", third_fails)
    with pytest.raises(PglapseError, match="can't start 4 threads"), parts.storages(settings, 4):
        pass
