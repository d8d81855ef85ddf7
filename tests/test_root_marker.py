"""A root is known by its marker: an empty mount point in its place makes no file missing."""

import errno
import os
import stat
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from pglapse.errors import PglapseError
from pglapse.storage import Away, File, Sign, marker
from pglapse.storage.local import LocalStorage, keeping_roots, open_local
from pglapse.storage.marker import NAME
from tests.support.folders import files, open_descriptors, put
from tests.support.mounts import mount, tmpfs, unmount
from tests.support.storage import delete

WAY_OUT = (
    "If this folder is the right one from now on (a new disk, a restored backup): "
    "pglapse storage adopt public"
)


class Database:
    """What a database knows of one storage, as `lapse.storage_marker` answers."""

    def __init__(self, number: UUID | None = None) -> None:
        self.number = number
        self.seen = number is not None
        self.others: set[UUID] = set()
        self.asked: list[UUID | None] = []

    def __call__(self, found: UUID | None) -> Sign:
        self.asked.append(found)
        if found is not None and not self.seen and found != self.number:
            if found not in self.others:
                raise PglapseError(f"this database does not know the marker {found}", hint="look again")
            self.number = found
        self.number = self.number or uuid4()
        self.seen = self.seen or found == self.number
        return Sign(self.number, write=not self.seen and found is None)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as pool:
        yield pool


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    root.mkdir()
    return root


Opened = Callable[..., LocalStorage]


@pytest.fixture
def opened(pool: ThreadPoolExecutor, root: Path) -> Opened:
    def opened(database: Database | None = None, name: str = "public") -> LocalStorage:
        storage = open_local(name, root, pool, threads=4, marker=True)
        if database is not None:
            storage.introduce(database)
        return storage

    return opened


def away(storage: LocalStorage) -> str | None:
    """What `check` says."""
    try:
        storage.check()
    except Away as reason:
        return reason.reason
    return None


def verdicts(storage: LocalStorage, *paths: str | File) -> list[str]:
    return [outcome.verdict for outcome in delete(storage, paths)]


def number(root: Path) -> UUID:
    return UUID((root / NAME).read_text().splitlines()[0])


def test_on_first_use_the_root_gets_the_number_that_the_database_made(root, opened, caplog):
    caplog.set_level("INFO")
    put(root, "a/1")
    database = Database()
    before = os.umask(0o077)
    try:
        storage = opened(database)
        assert away(storage) is None
    finally:
        os.umask(before)

    assert number(root) == database.number
    assert stat.S_IMODE((root / NAME).stat().st_mode) == 0o644
    assert verdicts(storage, "a/1", "a/2") == ["deleted", "missing"]
    assert f"storage public: {root} has the marker {NAME} from now on, {database.number}" in caplog.text
    assert "was empty" not in caplog.text
    assert files(root) == [NAME]


def test_the_database_is_told_once_the_marker_is_there(root, opened):
    database = Database()
    storage = opened(database)
    storage.check()
    assert storage.asks
    storage.introduce(database)
    storage.check()

    assert not storage.asks
    assert database.asked == [None, database.number]
    assert database.seen


def test_a_root_that_is_empty_on_first_use_is_worth_a_warning(root, opened, caplog):
    opened(Database()).check()

    assert f"storage public: {root} was empty when it got its marker: is its disk mounted?" in caplog.text


def test_nothing_is_deleted_before_the_database_was_asked(root, opened):
    put(root, "a/1")
    storage = opened()

    assert verdicts(storage, "a/1", "a/none") == ["released"] * 2
    assert away(storage) == (
        f"the database was not asked yet for the marker of the root {root} of storage public"
    )
    assert files(root) == ["a/1"]


def test_an_unmounted_root_makes_no_file_missing_and_goes_on_when_it_is_mounted_again(root, opened):
    with tmpfs(root):
        put(root, "a/1")
        database = Database()
        opened(database).check()
        database.seen = True
        mount("--make-private", root)
        unmount(root)
        assert list(root.iterdir()) == []

        storage = opened(database)  # a worker that starts while it is not mounted
        outcomes = delete(storage, ["a/1", "b/2"])
        storage.introduce(database)

        assert [outcome.verdict for outcome in outcomes] == ["released"] * 2
        assert outcomes[0].error == away(storage)
        assert outcomes[0].error == (
            f"the root {root} of storage public has no marker {NAME}: its disk is not mounted, or it is"
            f" another folder than before. {WAY_OUT}"
        )
        assert list(root.iterdir()) == []
    with tmpfs(root):
        put(root, "a/1", NAME, content=f"{database.number}\n".encode())

        assert verdicts(storage, "a/1", "b/2") == ["deleted", "missing"]


def test_a_root_that_goes_while_files_are_looked_for_makes_none_missing(root, opened):
    put(root, "a/1")
    database = Database()
    storage = opened(database)
    storage.check()

    def vanish() -> bool:  # asked when the root is open
        if (root / NAME).exists():
            (root / NAME).unlink()
        return True

    outcomes = delete(storage, ["a/1", "a/none"], vanish)

    assert [outcome.verdict for outcome in outcomes] == ["deleted", "released"]
    assert "has no marker" in outcomes[1].error


def test_files_that_are_missing_from_a_root_that_was_mounted_anew_meanwhile_are_looked_for_again(
    root, opened
):
    put(root, "a/1")
    storage = opened(Database())
    storage.check()
    put(root.with_name("copy"), "a/1", "a/2", NAME, content=(root / NAME).read_bytes())

    def replace() -> bool:
        if root.with_name("copy").exists():
            root.rename(root.with_name("old"))
            root.with_name("copy").rename(root)
        return True

    outcomes = delete(storage, ["a/2", "a/1"], replace)

    assert [outcome.verdict for outcome in outcomes] == ["released", "deleted"]
    assert outcomes[0].error == f"the root {root} of storage public was mounted anew meanwhile"
    assert verdicts(storage, "a/2") == ["deleted"]


def test_a_marker_that_was_seen_once_is_never_written_again(root, opened):
    database = Database()
    storage = opened(database)
    storage.check()
    (root / NAME).unlink()

    assert "has no marker" in str(away(storage))
    storage.introduce(database)
    assert "has no marker" in str(away(storage))
    assert list(root.iterdir()) == []


def test_another_storages_root_is_not_touched(root, opened):
    other = uuid4()
    put(root, "a/1", NAME, content=f"{other}\n".encode())
    database = Database(uuid4())
    storage = opened(database)

    assert verdicts(storage, "a/1", "a/2") == ["released"] * 2
    assert away(storage) == (
        f"the marker {NAME} in the root {root} of storage public is that of another storage ({other} instead"
        f" of {database.number}): is the right disk mounted? {WAY_OUT}"
    )


def test_another_databases_root_is_refused(root, opened):
    put(root, "a/1", NAME, content=f"{uuid4()}\n".encode())
    storage = opened(Database())

    assert verdicts(storage, "a/1", "a/2") == ["released"] * 2
    assert away(storage) == (
        f"the root {root} of storage public is refused: this database does not know the marker"
        f" {number(root)}; look again"
    )


def test_two_names_for_one_root_share_its_marker(root, opened):
    first, second = Database(), Database()
    opened(first).check()
    second.others.add(first.number)
    storage = opened(second, "also")

    assert away(storage) is None
    assert second.number == first.number


def test_what_the_database_says_anew_counts_from_then_on(root, opened):
    """As after `pglapse storage adopt`: no worker needs to be started again."""
    database = Database(uuid4())
    storage = opened(database)
    assert "has no marker" in str(away(storage))

    put(root, NAME, content=f"{uuid4()}\n".encode())
    assert "another storage" in str(away(storage))
    database.number = number(root)
    storage.introduce(database)

    assert away(storage) is None


def test_a_lost_connection_leaves_the_question_open(root, opened):
    storage = opened()

    def lost(_: UUID | None) -> Sign:
        raise ConnectionError

    with pytest.raises(ConnectionError):
        storage.introduce(lost)
    assert storage.asks
    storage.introduce(Database())

    assert away(storage) is None


def test_workers_that_start_at_once_agree_on_one_marker(root, pool):
    for _ in range(30):
        database = Database()
        storages = [open_local("public", root, pool, marker=True) for _ in range(4)]
        for storage in storages:
            storage.introduce(database)
        together = threading.Barrier(4)

        def check(storage: LocalStorage, together: threading.Barrier = together) -> str | None:
            together.wait()
            return away(storage)

        assert list(pool.map(check, storages)) == [None] * 4
        assert number(root) == database.number
        (root / NAME).unlink()


def test_a_marker_whose_writer_died_is_written_whole(root, opened):
    put(root, NAME, content=b"12345678-")
    database = Database()
    storage = opened(database)

    assert away(storage) is None
    assert number(root) == database.number
    assert files(root) == [NAME]


def test_a_marker_that_another_database_writes_at_the_same_moment_stays(root, opened, monkeypatch):
    storage, other = opened(Database()), uuid4()
    put(root, "a/1", NAME, content=f"{other}\n".encode())
    real, looks = marker.read, []

    def too_early(descriptor: int) -> marker.Mark | None:
        looks.append(descriptor)
        return None if len(looks) == 1 else real(descriptor)

    monkeypatch.setattr(marker, "read", too_early)

    assert verdicts(storage, "a/1") == ["released"]
    assert number(root) == other


LATER = "11111111-1111-1111-1111-111111111111"


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: path.symlink_to("elsewhere"), "it is a symbolic link"),
        (lambda path: path.mkdir(), "it is a folder, not a regular file"),
        (os.mkfifo, "it is a named pipe, not a regular file"),
        (lambda path: path.write_bytes(b"\xff" * 100), "its first line is no number"),
        (lambda path: path.write_text("{" + LATER + "}\n"), "its first line is no number"),
        (lambda path: path.write_text(LATER + "\n" + "x" * 2000), "its first line is no number"),
    ],
)
@pytest.mark.parametrize("first_use", [True, False])
def test_an_odd_marker_is_no_marker_and_stays_as_it_is(root, opened, make, reason, first_use):
    put(root.parent, "elsewhere", content=LATER.encode())
    put(root, "a/1")
    make(root / NAME)
    database = Database() if first_use else Database(UUID(LATER))
    storage, before = opened(database), (root / NAME).lstat()

    assert verdicts(storage, "a/1", "a/2") == ["released"] * 2
    assert f"the marker {NAME} in the root {root} of storage public can't be used: {reason}" in str(
        away(storage)
    )
    assert (root / NAME).lstat() == before
    assert files(root) == (["a/1"] if (root / NAME).is_dir() else [NAME, "a/1"])


def test_a_marker_that_cannot_be_written_is_said_with_the_way_out(root, opened, monkeypatch):
    real = os.open

    def read_only(path: str, flags: int, *more: int, **options: int) -> int:
        if flags & os.O_CREAT:
            raise PermissionError(errno.EACCES, "denied", path)
        return real(path, flags, *more, **options)

    monkeypatch.setattr(os, "open", read_only)
    database, before = Database(), open_descriptors()
    storage = opened(database)
    said = away(storage)

    assert said == (
        f"the marker {NAME} can't be written into the root {root} of storage public: no permission for"
        f" user {os.geteuid()}. Let the worker write there once, or put it there yourself, a file with the"
        f" one line {database.number}; or set marker = false, where the folder is to be trusted without"
    )
    assert open_descriptors() == before
    (root / NAME).write_text(f"{database.number}\n")
    assert away(storage) is None


def test_a_marker_that_could_not_be_written_whole_is_not_left_behind(root, opened, monkeypatch):
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "fsync", full)
    storage = opened(Database())

    assert "can't be written" in str(away(storage))
    assert list(root.iterdir()) == []


def test_the_marker_is_never_deleted_under_any_name(root, opened):
    storage = opened(Database())
    storage.check()
    put(root, "inner/.PGLAPSE-root", "other")
    os.link(root / NAME, root / "alias")

    outcomes = delete(storage, [NAME, "inner/.PGLAPSE-root", "alias", f"{NAME}/x", "other"])

    assert [outcome.verdict for outcome in outcomes] == ["refused"] * 4 + ["deleted"]
    assert outcomes[0].error == "it is the marker of a storage's root"
    assert outcomes[2].error == "it is the marker of the storage's root, by another name"
    assert (root / NAME).exists()


def test_the_root_stays_when_its_last_file_goes_and_so_does_a_root_inside(root, opened, pool):
    put(root, "a/inner/1")
    outer, database = opened(Database()), Database()
    inner = open_local("inner", root / "a/inner", pool, marker=True)
    inner.introduce(database)
    outer, inner = keeping_roots([outer, inner])
    inner.check()

    assert verdicts(outer, "a/inner/1") == ["deleted"]
    assert files(root) == [NAME, f"a/inner/{NAME}"]
    assert away(inner) is None


def test_without_a_marker_the_root_is_what_it_was_at_the_start(root, pool):
    storage = open_local("public", root, pool)
    storage.introduce(Database())  # nothing to ask
    put(root, "a/1")

    assert verdicts(storage, "a/1") == ["deleted"]
    assert list(root.iterdir()) == []
    root.rename(root.with_name("moved"))
    root.mkdir()
    assert "is another folder than when the worker started" in str(away(storage))


def test_looking_at_the_marker_leaks_no_open_file(root, opened):
    storage = opened(Database())
    before = open_descriptors()
    for _ in range(3):
        storage.check()
        verdicts(storage, "a/1")

    assert open_descriptors() == before
