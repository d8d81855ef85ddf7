"""Attacks on the root: trees full of traps, and folders that change under the worker's hands."""

import itertools
import json
import mmap
import os
import socket
import stat
import subprocess
import sys
import tempfile
import time
import unicodedata
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pglapse.storage import mounts
from pglapse.storage.local import LocalStorage, open_local
from tests.support.folders import entries, files, open_descriptors, put
from tests.support.install import ROOT
from tests.support.mounts import bound, tmpfs
from tests.support.storage import delete
from tests.support.trees import snapshot

MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108 (nearly every Linux has it)
PATIENCE = 60.0  # seconds in which a race must have been met often enough


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


@pytest.fixture
def yard() -> Iterator[Path]:
    """A folder in memory, where there is one: more is met there in less time."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        (Path(folder) / "root").mkdir()
        yield Path(folder)


def verdicts(storage: LocalStorage, *paths: str) -> list[str]:
    return [outcome.verdict for outcome in delete(storage, paths)]


# Trees full of traps

NAMES = ["a", "b", "é", "c.d"]
KINDS = ["file", "folder", "hard link out", "link in", "link out", "link up", "dangling", "loop"]

trees = st.dictionaries(
    st.lists(st.sampled_from(NAMES), min_size=1, max_size=4).map(tuple), st.sampled_from(KINDS), max_size=12
)
steps = st.lists(st.sampled_from([*NAMES, "..", ".", "", "f"]), min_size=1, max_size=6)


def build(root: Path, outside: Path, tree: dict[tuple[str, ...], str]) -> None:
    """Make what can be made, the short paths first."""
    for names, kind in sorted(tree.items(), key=lambda item: (len(item[0]), item)):
        path = root.joinpath(*names)
        if not real(root, names[:-1]) or os.path.lexists(path):
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        match kind:
            case "file":
                path.write_text("inside")
            case "folder":
                path.mkdir()
                (path / "f").write_text("inside")
            case "hard link out":
                os.link(outside / "a", path)
            case "link in":
                path.symlink_to(root / "a")
            case "link out":
                path.symlink_to(outside)
            case "link up":
                path.symlink_to("../" * len(names))
            case "dangling":
                path.symlink_to("nowhere")
            case "loop":
                path.symlink_to(path)


def real(root: Path, names: tuple[str, ...]) -> bool:
    """Whether a path leads through folders alone, as far as it is there."""
    for depth in range(1, len(names) + 1):
        path = root.joinpath(*names[:depth])
        if os.path.lexists(path) and not stat.S_ISDIR(path.lstat().st_mode):
            return False
    return True


def judged(root: Path, path: str) -> str:
    """What must become of a path, told without opening anything."""
    names = path.split("/")
    if not {"..", ".", ""}.isdisjoint(names):
        return "refused"
    here = root
    for name in names[:-1]:
        here /= name
        if not os.path.lexists(here):
            return "missing"
        if not stat.S_ISDIR(here.lstat().st_mode):
            return "refused"
    here /= names[-1]
    if not os.path.lexists(here):
        return "missing"
    return "deleted" if stat.S_ISREG(here.lstat().st_mode) else "refused"


@settings(max_examples=100, deadline=None)
@given(tree=trees, paths=st.lists(steps.map("/".join), min_size=1, max_size=12, unique=True))
def test_in_any_tree_exactly_the_named_files_go_and_nothing_outside_changes(tree, paths):
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder, ThreadPoolExecutor(2) as pool:
        root, outside = Path(folder) / "root", Path(folder) / "outside"
        root.mkdir()
        for name in ("a", "é", "b/f", "b/a/b"):
            put(outside, name, content=b"precious")
        build(root, outside, tree)
        expected = [judged(root, path) for path in paths]
        before, precious = snapshot(root), snapshot(outside)

        found = verdicts(open_local("x", root, pool, threads=2), *paths)

        for path, verdict, should in zip(paths, found, expected, strict=True):
            went_with_another = should == "refused" and not os.path.lexists(root / path)
            assert verdict == should or (verdict == "missing" and went_with_another), path
        assert snapshot(outside) == precious
        after = snapshot(root)
        gone = {
            os.fsdecode(name) for name in before.keys() - after.keys() if not stat.S_ISDIR(before[name][0])
        }
        assert gone == {path for path, verdict in zip(paths, found, strict=True) if verdict == "deleted"}
        assert after.items() <= before.items()


# Names


TWINS = [
    *("a.jpg", "A.jpg", "a.JPG", "\u00df", "ss", "SS", "i", "I", "\u0131", "\u0130"),
    *(
        "\u00e9",
        "e\u0301",
        "\u00c5",
        "\u212b",
        "A\u030a",
        "\ufb01",
        "fi",
        "\u1e9b\u0323",
        "\u017f\u0323\u0307",
    ),
    *("x", "x.", "x ", "x..", " x", ".x", "x\u200b", "x\u202e", "\u00a0", "\x01", "\x7f", "\x85"),
    *("a\nb", "a\\nb", "a b", "a\tb", "a\rb", "c\\d", "c:d", "c*", "c?", "[c]", "{c,d}", "-c"),
    *("~", "$HOME", "%63", "c;d", "'c'", '"c"', "..a", "...", "a..", "\uff0e\uff0e", "\u2025", "%2e%2e"),
]


@pytest.mark.parametrize("folder", ["", "d/"])
def test_of_all_names_that_look_alike_exactly_the_named_one_goes(root, storage, folder):
    assert len(set(TWINS)) == len(TWINS)
    put(root, *(folder + name for name in TWINS))
    if len(files(root)) < len(TWINS):
        pytest.skip("this file system does not tell all these names apart")

    for count, name in enumerate(TWINS, start=1):
        assert verdicts(storage, folder + name) == ["deleted"], name
        assert not (root / (folder + name)).exists()
        assert len(files(root)) == len(TWINS) - count


def test_a_folder_that_looks_alike_is_another_folder(root, storage):
    composed, decomposed = "caf\u00e9", unicodedata.normalize("NFD", "caf\u00e9")
    put(root, f"{composed}/1", f"{decomposed}/2", "Photos/3", "photos/4", "x./5", "x/6")

    assert (
        verdicts(storage, f"{composed}/2", f"{decomposed}/1", "photos/3", "Photos/4", "x/5", "x./6")
        == ["missing"] * 6
    )
    assert len(files(root)) == 6


def test_the_longest_names_and_paths_go_and_longer_ones_are_refused(root, storage):
    longest = "n" * 255
    wide = "é" * 127 + "x"
    deep = "/".join(["d" * 255] * 15 + ["f" * 255])  # 4,095 bytes
    folder = os.open(root, os.O_RDONLY)
    for name in deep.split("/")[:-1]:
        os.mkdir(name, dir_fd=folder)
        inner = os.open(name, os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = inner
    os.close(os.open("f" * 255, os.O_CREAT | os.O_WRONLY, dir_fd=folder))
    os.close(folder)
    put(root, longest, wide)

    outcomes = delete(storage, [longest, wide, deep, longest + "n", wide + "é", "x" + deep, deep + "/y"])

    assert len(deep) == 4095
    assert [outcome.verdict for outcome in outcomes] == ["deleted"] * 3 + ["refused"] * 4
    assert "4,096 bytes" in outcomes[5].error


def test_two_thousand_folders_deep_is_deep_and_no_trouble(yard, pool):
    root = yard / "root"
    names = ["d"] * 2046
    here = os.open(root, os.O_RDONLY)
    for name in names:
        os.mkdir(name, dir_fd=here)
        inner = os.open(name, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(os.open("f", os.O_CREAT | os.O_WRONLY, dir_fd=here))
    os.close(here)
    before = open_descriptors()

    [outcome] = delete(open_local("x", root, pool), ["/".join([*names, "f"])])

    assert outcome.verdict == "deleted"
    assert open_descriptors() == before
    subprocess.run(["rm", "-rf", str(root / "d")], check=True)  # deeper than Python's own can


def test_files_at_all_depths_of_one_branch_go_in_one_batch(yard, pool):
    """On the way back up, folders that were closed on the way down have to be opened again."""
    root = yard / "root"
    paths = ["/".join(["d"] * depth + [f"{name}"]) for depth in range(50) for name in ("e/1", "f/2", "3")]
    put(root, *paths)
    before = open_descriptors()

    outcomes = delete(open_local("x", root, pool), [*reversed(paths), *paths])

    assert [outcome.verdict for outcome in outcomes] == ["deleted"] * 150 + ["missing"] * 150
    assert files(root) == []
    assert open_descriptors() == before


def test_a_name_that_is_no_text_can_not_be_asked_for_and_stays(root, storage):
    (root / "d").mkdir()
    raw = os.path.join(os.fsencode(root), b"d", b"\xff.jpg")  # noqa: PTH118 (bytes)
    with open(raw, "wb"):  # noqa: PTH123 (bytes)
        pass

    outcomes = delete(storage, ["d/\udcff.jpg", "d/\\xff.jpg", "d/\xff.jpg", "d/\ufffd.jpg", "\udcff/x"])

    assert [outcome.verdict for outcome in outcomes] == [
        "refused", "missing", "missing", "missing", "refused",
    ]  # fmt: skip
    assert os.listdir(os.path.dirname(raw)) == [b"\xff.jpg"]  # noqa: PTH120, PTH208 (bytes)


def test_devices_pipes_and_sockets_stay(root, storage):
    os.mkfifo(root / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(root / "sock"))
    expected = {"pipe": "a named pipe", "sock": "a socket"}
    try:
        os.mknod(root / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        os.mknod(root / "disk", stat.S_IFBLK | 0o600, os.makedev(7, 250))
    except PermissionError:
        pass  # not root: the others must do
    else:
        expected |= {"null": "a device", "disk": "a device"}

    outcomes = delete(storage, list(expected))

    assert [outcome.error for outcome in outcomes] == [
        f"'{name}' is {kind}, not a regular file" for name, kind in expected.items()
    ]
    assert entries(root) == sorted(expected)


# Mounts below the root


@pytest.fixture(params=["statx", "/proc"])
def asking(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How the worker learns of mounts: old kernels and strict sandboxes have no statx."""
    if request.param == "/proc":
        monkeypatch.setattr(mounts, "_statx", None)
    return request.param


@pytest.mark.parametrize("where", ["m", "a/b/m"])
def test_a_folder_of_the_same_disk_that_is_mounted_below_the_root_is_not_entered(
    asking, root, storage, tmp_path, where
):
    outside = tmp_path / "outside"
    put(outside, "1", "d/2")
    put(root, f"{where}/under", "beside")
    before = snapshot(outside)
    with bound(outside, root / where):
        assert (root / where).stat().st_dev == root.stat().st_dev

        outcomes = delete(storage, [f"{where}/1", f"{where}/d/2", f"{where}/none", "beside"])

        assert [outcome.verdict for outcome in outcomes] == ["refused"] * 3 + ["deleted"]
        assert outcomes[0].error == "another file system is mounted at 'm' in the path"
        assert snapshot(outside) == before
    assert (root / where / "under").exists()


def test_another_file_system_below_the_root_is_not_entered(asking, root, storage):
    (root / "m").mkdir()
    with tmpfs(root / "m"):
        put(root, "m/1")

        assert verdicts(storage, "m/1", "m/2") == ["refused"] * 2
        assert files(root) == ["m/1"]


def test_where_nothing_tells_of_mounts_another_file_system_is_known_by_its_device(root, pool, monkeypatch):
    monkeypatch.setattr(mounts, "_statx", None)
    monkeypatch.setattr(mounts, "_mount", lambda descriptor: 0)
    (root / "m").mkdir()
    with tmpfs(root / "m"):
        put(root, "m/1", "a/1")

        assert verdicts(open_local("x", root, pool), "m/1", "a/1") == ["refused", "deleted"]


def test_the_roots_own_folder_mounted_inside_it_is_not_entered(asking, root, storage):
    put(root, "a/1", "m/2")
    with bound(root / "a", root / "m"):
        assert verdicts(storage, "m/1") == ["refused"]
        assert verdicts(storage, "a/1") == ["deleted"]


def test_a_root_that_is_a_mount_itself_is_as_good_as_any(asking, root, pool, tmp_path):
    put(tmp_path, "disk/a/1")
    with bound(tmp_path / "disk", root):
        assert verdicts(open_local("x", root, pool), "a/1", "a/2") == ["deleted", "missing"]
        assert files(tmp_path / "disk") == []


# Folders that change under the worker's hands


@contextmanager
def attacker(program: str, *arguments: str | Path) -> Iterator[mmap.mmap]:
    """Another process that runs until the end of the block, and counts in 8 bytes that both see."""
    with tempfile.TemporaryFile() as shared:
        shared.truncate(mmap.PAGESIZE)
        count = mmap.mmap(shared.fileno(), mmap.PAGESIZE)
        process = subprocess.Popen(
            [sys.executable, "-c", COUNTING + program, str(shared.fileno()), *map(str, arguments)],
            pass_fds=[shared.fileno()],
        )
        try:
            yield count
            assert process.poll() is None, "the attacker gave up"
        finally:
            process.kill()
            process.wait()
            count.close()


COUNTING = """
import mmap, os, sys
count = mmap.mmap(int(sys.argv.pop(1)), mmap.PAGESIZE)
def counted():
    count[:8] = (int.from_bytes(count[:8], "little") + 1).to_bytes(8, "little")
"""


def counted(count: mmap.mmap) -> int:
    return int.from_bytes(count[:8], "little")


SWAP_FOLDER = """
root, outside, name = sys.argv[1:]
here = os.open(root, os.O_RDONLY)
while True:
    os.rename(name, "aside", src_dir_fd=here, dst_dir_fd=here)
    os.symlink(outside, name, dir_fd=here)
    os.unlink(name, dir_fd=here)
    os.rename("aside", name, src_dir_fd=here, dst_dir_fd=here)
    counted()
"""
SWAP_FILE = """
root, outside, name = sys.argv[1:]
here = os.open(f"{root}/d", os.O_RDONLY)
while True:
    os.close(os.open("new", os.O_CREAT | os.O_WRONLY, dir_fd=here))
    os.rename("new", name, src_dir_fd=here, dst_dir_fd=here)
    os.symlink(f"{outside}/{name}", "new", dir_fd=here)
    os.rename("new", name, src_dir_fd=here, dst_dir_fd=here)
    os.link(f"{outside}/{name}", "new", dst_dir_fd=here)
    os.rename("new", name, src_dir_fd=here, dst_dir_fd=here)
    counted()
"""
SWAP_KIND = """
root, outside, name = sys.argv[1:]
here = os.open(root, os.O_RDONLY)
while True:
    os.rename(name, "aside", src_dir_fd=here, dst_dir_fd=here)
    os.close(os.open(name, os.O_CREAT | os.O_WRONLY, dir_fd=here))
    os.unlink(name, dir_fd=here)
    os.rename("aside", name, src_dir_fd=here, dst_dir_fd=here)
    counted()
"""


@pytest.mark.parametrize(
    ("program", "inner"),
    [(SWAP_FOLDER, ""), (SWAP_FOLDER, "e/"), (SWAP_KIND, "")],
    ids=["link", "link above", "file"],
)
def test_a_folder_that_is_swapped_all_the_time_loses_its_own_files_and_no_others(yard, pool, program, inner):
    root, outside = yard / "root", yard / "outside"
    paths = [f"d/{inner}{number}" for number in range(40)]
    put(outside, *(path.removeprefix("d/") for path in paths), content=b"precious")
    put(root, *paths)
    refill = os.open(root / "d" / inner, os.O_RDONLY)  # whatever its name is at the moment
    storage = open_local("x", root, pool, threads=4, prune=False)
    before, found = snapshot(outside), dict.fromkeys(("deleted", "missing", "refused"), 0)
    rounds = 0
    with attacker(program, root, outside, "d") as swaps:
        until = time.monotonic() + PATIENCE
        while min(found["deleted"], found["refused"]) < 1000 or counted(swaps) < 1000 or rounds < 20:
            assert time.monotonic() < until, (found, counted(swaps))
            for path in paths:
                os.close(os.open(path.rpartition("/")[2], os.O_CREAT | os.O_WRONLY, dir_fd=refill))
            for verdict in verdicts(storage, *paths):
                found[verdict] += 1
            rounds += 1
    os.close(refill)

    assert snapshot(outside) == before, (found, rounds)


def test_a_file_that_is_swapped_for_links_all_the_time_never_leads_out(yard, pool):
    root, outside = yard / "root", yard / "outside"
    put(outside, "f", content=b"precious")
    put(root, "d/f")
    storage = open_local("x", root, pool, prune=False)
    before, found = snapshot(outside), dict.fromkeys(("deleted", "missing", "refused"), 0)
    with attacker(SWAP_FILE, root, outside, "f") as swaps:
        until = time.monotonic() + PATIENCE
        while min(found["deleted"], found["refused"]) < 200 or counted(swaps) < 1000:
            assert time.monotonic() < until, (found, counted(swaps))
            [verdict] = verdicts(storage, "d/f")
            found[verdict] += 1

    assert snapshot(outside) == before


UPLOADS = """
import random, time
root, = sys.argv[1:]
retries = 0
for number in range(1_000_000):
    while True:
        try:
            os.makedirs(f"{root}/a/b/c", exist_ok=True)
            os.sched_yield()
            with open(f"{root}/a/b/c/{number}", "x") as file:
                file.write("new")
        except (FileNotFoundError, FileExistsError):  # as the documentation asks: make the folder again
            retries += 1
            continue
        break
    count[8:16] = retries.to_bytes(8, "little")
    counted()
    while int.from_bytes(count[16:24], "little") < number:
        os.sched_yield()  # no more than one ahead, so that the folder is often empty
    time.sleep(random.random() * 0.0005)  # about as long as the other side takes to get there
"""


def test_uploads_from_another_process_into_a_folder_that_is_emptied_all_the_time_all_arrive(yard, pool):
    root = yard / "root"
    storage = open_local("x", root, pool, threads=4)
    with attacker(UPLOADS, root) as count:
        until, done = time.monotonic() + PATIENCE, 0
        while done < 200 or int.from_bytes(count[8:16], "little") < 10:
            assert time.monotonic() < until, (done, int.from_bytes(count[8:16], "little"))
            there = counted(count)
            if there == done:
                os.sched_yield()
                continue
            found = verdicts(storage, *(f"a/b/c/{number}" for number in range(done, there)))
            assert found == ["deleted"] * (there - done), done
            done = there
            count[16:24] = done.to_bytes(8, "little")


WORKER = """
import json, os, random, sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from pglapse.storage import local
from tests.support.storage import delete

root, seed = Path(sys.argv[1]), int(sys.argv[2])
local.BLOCKED = 0 if seed % 2 else 1e9  # with helpers, and without
paths = sys.stdin.read().split()
random.Random(seed).shuffle(paths)
print("ready", flush=True)
with ThreadPoolExecutor(4) as pool:
    storage = local.open_local("x", root, pool, threads=4)
    while not (root / "go").exists():
        pass
    outcomes = delete(storage, paths)
print(json.dumps([[outcome.verdict, path] for outcome, path in zip(outcomes, paths)]))
"""


def test_workers_and_threads_that_meet_in_the_same_folders_delete_each_file_once(yard):
    root = yard / "root"
    paths = [f"{number % 7}/x/{number % 3}/{number}" for number in range(1500)]
    put(root, *paths)
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(root), str(seed)],
            env={"PYTHONPATH": f"{ROOT / 'worker'}:{ROOT}"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for seed in range(4)
    ]
    for one in workers:
        assert one.stdin is not None
        one.stdin.write(" ".join(paths))
        one.stdin.close()
        assert one.stdout is not None
        assert one.stdout.readline() == "ready\n"
    (root / "go").touch()
    said = [one.stdout.read() for one in workers if one.stdout is not None]
    for one in workers:
        assert one.wait() == 0
        assert one.stdout is not None
        one.stdout.close()

    found = list(itertools.chain.from_iterable(map(json.loads, said)))
    assert sorted(path for verdict, path in found if verdict == "deleted") == sorted(paths)
    assert {verdict for verdict, _ in found} == {"deleted", "missing"}
    assert entries(root) == ["go"]
