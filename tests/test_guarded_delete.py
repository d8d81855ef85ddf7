"""A file with a guard goes only if it is still the one that was condemned."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pglapse.storage import Expected, File, Outcome
from pglapse.storage.local import LocalStorage, open_local
from tests.support.folders import files, put
from tests.support.storage import delete

NOW = 1_700_000_000_000_000_123


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[LocalStorage]:
    (tmp_path / "root").mkdir()
    with ThreadPoolExecutor(2) as pool:
        yield open_local("public", tmp_path / "root", pool, threads=2)


@pytest.fixture
def root(storage: LocalStorage) -> Path:
    """A root with a file of 5 bytes, written at `NOW`."""
    put(storage.root, "a/f", content=b"12345")
    os.utime(storage.root / "a/f", ns=(0, NOW))
    return storage.root


def one(storage: LocalStorage, *expected: Expected) -> Outcome:
    [outcome] = delete(storage, [File("a/f", expected)])
    return outcome


@pytest.mark.parametrize(
    "expected",
    [
        (),
        (Expected(size=5),),
        (Expected(mtime_ns=NOW),),
        (Expected(size=5, mtime_ns=NOW),),
        (Expected(size=5, mtime_ns=NOW, etag='"x"'),),
        (Expected(size=4), Expected(size=5)),
        (Expected(size=4, mtime_ns=NOW), Expected(size=5, mtime_ns=NOW)),
        (Expected(etag='"x"'), Expected(size=5)),
    ],
)
def test_a_file_that_is_one_of_those_expected_goes(storage, root, expected):
    assert one(storage, *expected).verdict == "deleted"
    assert files(root) == []


@pytest.mark.parametrize(
    ("expected", "reason"),
    [
        ((Expected(size=3),), "size 5 instead of 3"),
        ((Expected(size=0),), "size 5 instead of 0"),
        (
            (Expected(mtime_ns=NOW + 1),),
            "written 2023-11-14 22:13:20.000000123 UTC instead of 2023-11-14 22:13:20.000000124 UTC",
        ),
        (
            (Expected(size=5, mtime_ns=0),),
            "written 2023-11-14 22:13:20.000000123 UTC instead of 1970-01-01 00:00:00.000000000 UTC",
        ),
        (
            (Expected(size=3, mtime_ns=-1),),
            "size 5 instead of 3, written 2023-11-14 22:13:20.000000123 UTC instead of "
            "1969-12-31 23:59:59.999999999 UTC",
        ),
        (
            (Expected(mtime_ns=10**30),),
            f"written 2023-11-14 22:13:20.000000123 UTC instead of {10**30} ns after 1970",
        ),
        (
            (Expected(size=3), Expected(mtime_ns=1), Expected(etag='"x"')),
            "size 5, written 2023-11-14 22:13:20.000000123 UTC: none of the 2 that are meant",
        ),
        ((Expected(size=5, mtime_ns=1), Expected(size=1, mtime_ns=NOW)), "none of the 2 that are meant"),
    ],
)
def test_any_other_file_is_left_alone_with_the_difference(storage, root, expected, reason):
    before = (root / "a/f").stat()

    outcome = one(storage, *expected)

    assert outcome.verdict == "changed"
    assert outcome.error.endswith(reason)
    assert (root / "a/f").stat() == before


def test_an_etag_alone_tells_nothing_of_a_local_file(storage, root):
    outcome = one(storage, Expected(etag='"x"'), Expected(etag='"y"'))

    assert outcome == Outcome(
        "refused", error="a local file has no etag to compare; give its size or mtime_ns"
    )
    assert files(root) == ["a/f"]


def test_a_missing_file_is_missing_whatever_is_expected(storage, root):
    (root / "a/f").unlink()

    assert one(storage, Expected(size=5)).verdict == "missing"


def test_what_is_no_file_is_refused_whatever_is_expected(storage, root):
    size = (root / "a").stat().st_size
    (root / "link").symlink_to("a/f")

    outcomes = delete(storage, [File("a", (Expected(size=size),)), File("link", (Expected(size=3),))])

    assert [outcome.verdict for outcome in outcomes] == ["refused"] * 2


def test_guarded_and_other_files_go_in_one_batch(storage, root):
    put(root, *(f"a/{number}" for number in range(50)))

    outcomes = delete(
        storage, [File(f"a/{number}", (Expected(size=1 + number % 2),)) for number in range(50)] + ["a/f"]
    )

    assert [outcome.verdict for outcome in outcomes] == ["deleted", "changed"] * 25 + ["deleted"]
    assert len(files(root)) == 25
