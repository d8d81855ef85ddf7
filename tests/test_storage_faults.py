"""A storage in trouble: one file's trouble is that file's, the storage's is nobody's attempt."""

import errno
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from pglapse.storage import Away, denial
from pglapse.storage.local import LocalStorage, open_local
from tests.support.folders import files, immutable, open_descriptors, put
from tests.support.install import ROOT
from tests.support.mounts import bound, mount, tmpfs, unmount
from tests.support.storage import delete


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as pool:
        yield pool


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    root.mkdir()
    return root


Opened = Callable[[Path], LocalStorage]


@pytest.fixture
def opened(pool: ThreadPoolExecutor) -> Opened:
    return lambda root: open_local("public", root, pool, threads=4)


def verdicts(storage: LocalStorage, paths: list[str], **options: Any) -> list[str]:
    return [outcome.verdict for outcome in delete(storage, paths, **options)]


def away(storage: LocalStorage) -> str | None:
    """What `check` says."""
    try:
        storage.check()
    except Away as reason:
        return reason.reason
    return None


def failing(monkeypatch: pytest.MonkeyPatch, call: str, code: int, *names: bytes) -> None:
    """Have a system call fail for entries of these names, or for all."""
    real = getattr(os, call)

    def broken(name: Any, *arguments: Any, **options: Any) -> Any:
        if options.get("dir_fd") is not None and (not names or name in names):
            raise OSError(code, os.strerror(code), name)
        return real(name, *arguments, **options)

    monkeypatch.setattr(os, call, broken)


def test_a_file_system_that_turns_read_only_is_away_until_it_is_writable_again(root, opened):
    with tmpfs(root):
        put(root, "a/1", "a/2", "b/3")
        storage = opened(root)

        def first_only() -> bool:
            if not (root / "a/1").exists():
                mount("-o", "remount,ro", root)
            return True

        [first, *others] = delete(storage, ["a/1", "a/2", "b/3", "b/none"], first_only)
        said = away(storage)
        mount("-o", "remount,rw", root)

        assert first.verdict == "deleted"
        assert {outcome.verdict for outcome in others} == {"released"}
        assert said == others[0].error
        assert said == (
            f"the root {root} of storage public can't be used: it is mounted read-only "
            "(after an error of the disk? the kernel's log says)"
        )
        assert away(storage) is None
        assert verdicts(storage, ["a/2", "b/3", "b/none"]) == ["deleted", "deleted", "missing"]


def test_a_root_that_is_a_read_only_view_of_a_writable_disk_is_away_too(root, opened, tmp_path):
    put(root, "a/1")
    with bound(root, root):
        mount("-o", "remount,ro,bind", root)
        storage = opened(root)

        assert verdicts(storage, ["a/1"]) == ["released"]
        assert "mounted read-only" in str(away(storage))


def test_a_file_that_is_read_only_on_a_writable_disk_fails_alone(root, opened, monkeypatch):
    put(root, "a/1", "a/2")
    storage = opened(root)
    failing(monkeypatch, "unlink", errno.EROFS, b"1")

    assert verdicts(storage, ["a/1", "a/2"]) == ["failed", "deleted"]


def test_a_file_that_something_is_mounted_on_fails_alone_and_goes_later(root, opened, tmp_path):
    put(root, "a/1", "a/2")
    put(tmp_path, "other")
    storage = opened(root)
    with bound(tmp_path / "other", root / "a/1"):
        busy, free = delete(storage, ["a/1", "a/2"])
        unmount(root / "a/1")

        assert busy.verdict == "failed"
        assert busy.error == "the file is in use by the system (something is mounted on it?) ('1')"
        assert free.verdict == "deleted"
        assert verdicts(storage, ["a/1"]) == ["deleted"]
        assert (tmp_path / "other").exists()


def test_files_go_from_a_full_disk(root, opened):
    with tmpfs(root, "size=64k"):
        put(root, "a/1", "a/2")
        with (root / "filler").open("wb") as filler, pytest.raises(OSError, match="No space"):
            os.posix_fallocate(filler.fileno(), 0, 1 << 20)
        with (root / "filler").open("wb", buffering=0) as filler:
            assert filler.write(bytes(1 << 20)) < 64 << 10
        storage = opened(root)

        assert verdicts(storage, ["a/1", "a/2", "filler"]) == ["deleted"] * 3


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EBUSY, errno.EACCES, errno.EPERM])
def test_trouble_with_one_file_is_that_files_alone(root, opened, monkeypatch, code):
    put(root, "a/1", "a/2")
    storage = opened(root)
    failing(monkeypatch, "unlink", code, b"1")

    assert verdicts(storage, ["a/1", "a/2"]) == ["failed", "deleted"]
    assert away(storage) is None


@pytest.mark.parametrize("code", [errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT, errno.ENXIO])
@pytest.mark.parametrize("call", ["open", "lstat", "unlink"])
def test_an_error_of_the_disk_is_one_files_as_long_as_the_root_answers(root, opened, monkeypatch, call, code):
    put(root, "a/1", "b/2")
    storage, before = opened(root), open_descriptors()
    failing(monkeypatch, call, code, b"1", b"a")

    assert verdicts(storage, ["a/1", "b/2"]) == ["failed", "deleted"]
    assert open_descriptors() == before


@pytest.mark.parametrize("code", [errno.EIO, errno.ESTALE, errno.ENOTCONN])
def test_an_error_of_the_disk_is_the_storages_when_the_root_has_it_too(root, opened, monkeypatch, code):
    put(root, "a/1", "a/2", "b/3")
    storage, before = opened(root), open_descriptors()
    failing(monkeypatch, "unlink", code, b"2")
    real, lost = os.open, False

    def broken(path: Any, *arguments: Any, **options: Any) -> int:
        if lost and path == root:
            raise OSError(code, os.strerror(code), path)
        return real(path, *arguments, **options)

    def lose() -> bool:
        nonlocal lost
        lost = True
        return True

    monkeypatch.setattr(os, "open", broken)
    gone, *others = delete(storage, ["a/1", "a/2", "b/3"], lose)

    assert gone.verdict == "deleted"
    assert [outcome.verdict for outcome in others] == ["released"] * 2
    assert others[0].error == others[1].error == away(storage)
    assert others[0].error.startswith(f"the root {root} of storage public can't be used: the ")
    assert open_descriptors() == before


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
@pytest.mark.parametrize("call", ["open", "unlink"])
def test_what_the_machine_has_run_out_of_is_no_files_fault(root, opened, monkeypatch, call, code):
    put(root, "a/1", "b/2")
    storage = opened(root)
    failing(monkeypatch, call, code)

    outcomes = delete(storage, ["a/1", "b/2"])

    assert [outcome.verdict for outcome in outcomes] == ["released"] * 2
    assert outcomes[0].error in (
        "this worker has too many files open; raise its limit (LimitNOFILE=, ulimit -n)",
        "this machine has too many files open (fs.file-max)",
        "this machine is out of memory",
    )
    assert files(root) == ["a/1", "b/2"]


PROGRAM = """
import json, os, resource, sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from pglapse.storage import Away
from pglapse.storage.local import open_local
from tests.support.storage import delete

root, user, spare, *paths = sys.argv[1:]
if int(user) and os.geteuid() == 0:  # nobody else is kept out by permissions
    os.setgroups([])
    os.setgid(int(user))
    os.setuid(int(user))
with ThreadPoolExecutor(1) as pool:
    storage = open_local("public", Path(root), pool)
    if int(spare):
        taken = [os.open("/dev/null", os.O_RDONLY) for _ in range(50)]
        limit = max(taken) + 1 + int(spare)
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    first = delete(storage, paths)
    if int(spare):
        for descriptor in taken:
            os.close(descriptor)
    second = delete(storage, paths)
print(json.dumps([[[one.verdict, one.error] for one in outcomes] for outcomes in (first, second)]))
"""
NOBODY = 65534


def elsewhere(root: Path, *paths: str, user: int = 0, spare: int = 0) -> list[list[list[str]]]:
    """Delete twice in a process of its own: as another user, or at first with few files to be opened."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(root), str(user), str(spare), *paths],
        env={"PYTHONPATH": f"{ROOT / 'worker'}:{ROOT}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    outcomes: list[list[list[str]]] = json.loads(done.stdout)
    return outcomes


def test_a_worker_at_its_limit_of_open_files_deletes_nothing_and_goes_on_later(root):
    put(root, "a/b/c/1", "a/b/2")

    without, again = elsewhere(root, "a/b/c/1", "a/b/2", "a/none", spare=2)

    assert [verdict for verdict, _ in without] == ["released"] * 3
    assert "too many files open" in without[0][1]
    assert [verdict for verdict, _ in again] == ["deleted", "deleted", "missing"]


@pytest.fixture
def public() -> Iterator[Path]:
    """A root that other users can reach."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        root.chmod(0o755)
        try:
            yield root
        finally:
            for path in root.rglob("*"):
                if path.is_dir():
                    path.chmod(0o755)


def test_a_worker_that_is_the_wrong_user_is_away_instead_of_failing_every_file(public):
    if os.geteuid() != 0:
        pytest.skip("only root may become another user")
    paths = [f"{number % 3}/{number}" for number in range(30)]
    put(public, *paths)

    first, second = elsewhere(public, *paths, "3/none", user=NOBODY)

    assert [verdict for verdict, _ in first[:30]] == ["released"] * 30
    assert first[30][0] == "missing"
    assert first[0][1].startswith(
        "storage public lets nothing be deleted, none of 30 files in 3 folders: no permission for user 65534"
    )
    assert first[0][1].endswith("Is the worker the right user?")
    assert second == first
    assert len(files(public)) == 30


def test_files_of_other_users_fail_alone_where_others_go(public):
    if os.geteuid() != 0:
        pytest.skip("only root may become another user")
    denied = [f"{number % 3}/{number}" for number in range(30)]
    put(public, *denied, "own/1")
    os.chown(public / "own", NOBODY, NOBODY)
    (public / "0").chmod(0o1777)  # sticky: anybody may write here, and delete what is theirs

    first, second = elsewhere(public, *denied, "own/1", user=NOBODY)

    assert [verdict for verdict, _ in first] == ["failed"] * 30 + ["deleted"]
    assert "not permitted" in first[0][1]
    assert "no permission for user 65534" in first[1][1]
    assert [verdict for verdict, _ in second] == ["failed"] * 30 + ["missing"]


def test_immutable_folders_everywhere_take_the_storage_away(root, opened):
    paths = [f"{number % 2}/{number}" for number in range(20)]
    put(root, *paths)
    storage = opened(root)
    with immutable(root / "0", root / "1"):
        outcomes = delete(storage, paths)

    assert {outcome.verdict for outcome in outcomes} == {"released"}
    assert "not permitted (immutable" in outcomes[0].error
    assert set(verdicts(storage, paths)) == {"deleted"}


@pytest.mark.parametrize(("count", "folders"), [(19, 2), (40, 1)])
def test_few_denials_or_those_of_one_folder_are_the_files_own(root, opened, monkeypatch, count, folders):
    paths = [f"{number % folders}/{number}" for number in range(count)]
    put(root, *paths)
    storage = opened(root)
    failing(monkeypatch, "unlink", errno.EACCES)

    assert verdicts(storage, paths) == ["failed"] * count


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(denial, "clock", clock)
    return clock


def test_files_that_are_really_somebody_elses_do_not_hold_up_those_behind_them(time):
    """From time to time, ever more rarely, a look past them is taken: they fail then, once each."""
    denials, folders, looks = denial.Denials(), [1, 2] * 10, []

    for _ in range(86_400 // 60):  # a day, a batch a minute
        if not denials.everywhere(folders):
            looks.append(time.now)
            time.now += 1
            assert not denials.everywhere(folders), "a look goes on for some batches"
            time.now += 4
            assert denials.everywhere(folders)
            time.now -= 5
        time.now += 60

    waits = [after - before for before, after in zip([1000.0, *looks], looks, strict=False)]
    assert waits == pytest.approx([600, 1205, 2405, 4805, 9605, 19205, 38405], abs=61)


def test_a_storage_that_deleted_something_just_now_is_not_the_one_at_fault(time):
    denials, folders = denial.Denials(), [1, 2] * 10

    denials.deleted()
    time.now += 59
    soon = denials.everywhere(folders)
    time.now += 2
    later = denials.everywhere(folders)

    assert (soon, later) == (False, True)
