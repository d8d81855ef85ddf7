"""No path from the queue leads out of the root, whatever it looks like."""

import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pglapse.paths import BadPath, split
from pglapse.storage.local import LocalStorage, open_local
from tests.support.storage import delete
from tests.support.trees import snapshot


def test_an_ordinary_path_becomes_its_names_in_utf_8():
    assert split("a/b c/é\n.jpg") == (b"a", b"b c", "é\n.jpg".encode())
    assert split("...") == (b"...",)
    assert split("x" * 255) == (b"x" * 255,)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("", "empty"),
        ("/etc/passwd", "absolute"),
        ("//x", "absolute"),
        ("/", "absolute"),
        ("..", "'..'"),
        ("a/../b", "'..'"),
        ("a/..", "'..'"),
        ("./a", "'.'"),
        ("a/.", "'.'"),
        ("a//b", "two slashes"),
        ("a/", "ends in a slash"),
        ("a\x00b", "NUL"),
        ("a\ud800", "not valid Unicode"),
        ("\udcff.jpg", "not valid Unicode"),
        ("x" * 256, "256 bytes"),
        ("é" * 128, "256 bytes"),
        ("a/" * 2048 + "b", "4,097 bytes"),
    ],
)
def test_a_bad_path_is_refused_with_the_reason(path, words):
    with pytest.raises(BadPath, match=words):
        split(path)


LONG = "/".join(["d" * 200] * 20)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("a/" + "x" * 256, "256 bytes"),
        ("x" * 256, "256 bytes"),
        ("a/..", "'..'"),
        ("a/.", "'.'"),
        ("..", "'..'"),
        (".", "'.'"),
        ("a/", "ends in a slash"),
        ("/", "absolute"),
        ("/ok", "absolute"),
        ("", "empty"),
        ("a/ok\x00", "NUL"),
        ("a/\x00", "NUL"),
        ("a/\udcff", "not valid Unicode"),
        (f"{LONG}/{'x' * 100}", "4,120 bytes"),
    ],
)
def test_a_bad_path_is_refused_also_behind_good_ones_of_the_same_folder(tmp_path, path, words):
    good = ["ok", "a/ok", f"{LONG}/ok"]

    with ThreadPoolExecutor(2) as pool:
        outcomes = delete(open_local("x", tmp_path, pool), [*good, path, *good])

    assert [outcome.verdict for outcome in outcomes] == [*["missing"] * 3, "refused", *["missing"] * 3]
    assert words in outcomes[3].error


hostile = st.one_of(
    st.text(st.characters(), max_size=300),
    st.binary(max_size=300).map(lambda raw: raw.decode("utf-8", "surrogateescape")),
    st.binary(min_size=5000, max_size=5000).map(lambda raw: raw.decode("utf-8", "surrogateescape")),
    st.lists(
        st.sampled_from(
            [
                "..",
                ".",
                "",
                "a",
                "b",
                "out",
                "canary",
                "link",
                "file",
                "fifo",
                "/",
                "\x00",
                "\n",
                "~",
                "*",
                "é",
            ]
        ),
        max_size=8,
    ).map("/".join),
)


class Yard:
    """A root with traps in it, and beside it a tree that must never change."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = folder / "root"
        self.outside = folder / "outside"
        (self.outside / "a" / "b").mkdir(parents=True)
        (self.outside / "empty").mkdir()
        for name in ("canary", "file", "a/canary", "a/b/file"):
            (self.outside / name).write_text("precious")
        (self.root / "a" / "b").mkdir(parents=True)
        (self.root / "link").symlink_to(self.outside)
        (self.root / "a" / "link").symlink_to("../../outside")
        (self.root / "a" / "file").symlink_to("../../outside/canary")
        (self.root / "out").symlink_to("/")

    def storage(self, pool: ThreadPoolExecutor) -> LocalStorage:
        return open_local("yard", self.root, pool, threads=2)


@pytest.fixture(scope="module")
def yard() -> Iterator[tuple[Yard, LocalStorage]]:
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(2) as pool:
        yard = Yard(Path(folder))
        yield yard, yard.storage(pool)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(paths=st.lists(hostile, min_size=1, max_size=20))
def test_whatever_the_paths_nothing_outside_the_root_changes(yard, paths):
    place, storage = yard
    (place.root / "a" / "b" / "x").parent.mkdir(parents=True, exist_ok=True)
    before = snapshot(place.outside)

    outcomes = delete(storage, paths)

    assert snapshot(place.outside) == before
    assert place.root.is_dir()
    assert len(outcomes) == len(paths)
    assert all(outcome.error for outcome in outcomes if outcome.verdict in ("refused", "failed"))


def test_every_known_trick_is_refused_and_leaves_the_outside_alone(tmp_path):
    place = Yard(tmp_path)
    before = snapshot(place.outside)
    tricks = [
        "../outside/canary",
        "a/../../outside/canary",
        str(place.outside / "canary"),
        "link/canary",
        "link/a/b/file",
        "a/link/canary",
        "a/file",
        "link",
        "out/etc/hostname",
        "a/b/../../link/canary",
        "link/empty/none",
    ]

    with ThreadPoolExecutor(2) as pool:
        outcomes = delete(place.storage(pool), tricks)

    assert [outcome.verdict for outcome in outcomes] == ["refused"] * len(tricks)
    assert snapshot(place.outside) == before
    assert (place.root / "link").is_symlink()
