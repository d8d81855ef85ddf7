"""Living files and their frozen copies: the guards hold, and each of them can tell."""

import hashlib
import runpy
import shutil
from pathlib import Path

import pytest

import freeze
from tests.support.install import ROOT

LIVING = "functions/lapse/path_digest.sql"


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of sql/ and migrations/ that `freeze` works on."""
    for folder in ("sql", "migrations"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    migrations = tmp_path / "migrations"
    monkeypatch.setattr(freeze, "HERE", migrations)
    monkeypatch.setattr(freeze, "LIVING", tmp_path / "sql")
    monkeypatch.setattr(freeze, "FROZEN", migrations / "frozen")
    monkeypatch.setattr(freeze, "SUMS", migrations / "frozen" / "SHA256SUMS")
    monkeypatch.setattr(freeze, "RELEASED", migrations / "frozen" / "RELEASED")
    return tmp_path


def edit(path: Path) -> None:
    path.write_text(path.read_text(encoding="utf-8") + "-- changed\n", encoding="utf-8")


def release(*revisions: str) -> None:
    freeze.RELEASED.write_text("\n".join(revisions) + "\n", encoding="utf-8")


def test_every_living_file_has_its_newest_copy_and_every_copy_its_sum() -> None:
    assert freeze.check() == []


def test_the_sums_are_in_the_format_of_sha256sum() -> None:
    frozen = ROOT / "migrations" / "frozen"

    for line in (frozen / "SHA256SUMS").read_text(encoding="utf-8").splitlines():
        digest, _, name = line.partition("  ")
        assert hashlib.sha256((frozen / name).read_bytes()).hexdigest() == digest


def test_an_edited_living_file_is_noticed_and_frozen_again(checkout: Path) -> None:
    edit(checkout / "sql" / LIVING)

    assert freeze.check() == [f"sql/{LIVING} differs from its newest frozen copy: run make freeze"]
    freeze.freeze(None)
    assert freeze.check() == []
    assert "-- changed" in (freeze.FROZEN / "engine_0001" / LIVING).read_text(encoding="utf-8")


def test_an_edited_frozen_file_is_noticed(checkout: Path) -> None:
    edit(freeze.FROZEN / "engine_0001" / LIVING)

    assert any("SHA256SUMS does not match" in complaint for complaint in freeze.check())


def test_a_copy_without_its_living_file_is_noticed_and_removed(checkout: Path) -> None:
    (checkout / "sql" / LIVING).unlink()

    assert any("has no living file" in complaint for complaint in freeze.check())
    freeze.freeze(None)
    assert freeze.check() == []
    assert not (freeze.FROZEN / "engine_0001" / LIVING).exists()


def test_once_released_a_change_becomes_a_revision_of_its_own(checkout: Path) -> None:
    release(*freeze.revisions("engine"))
    last = freeze.revisions("engine")[-1]
    edit(checkout / "sql" / LIVING)

    with pytest.raises(SystemExit, match="say what changed"):
        freeze.freeze(None)
    freeze.freeze("Digest paths: better!")

    following = freeze.revisions("engine")[-1]
    (written,) = (freeze.HERE / "engine" / "versions").glob(f"{following}_*.py")
    revision = runpy.run_path(str(written))
    assert revision["down_revision"] == last
    assert written.name == f"{following}_digest_paths_better.py"
    assert (
        f'apply("{following}", "{LIVING}")'
        in written.read_text(encoding="utf-8").partition("def downgrade")[0]
    )
    assert (
        f'apply("engine_0001", "{LIVING}")'
        in written.read_text(encoding="utf-8").partition("def downgrade")[2]
    )
    assert freeze.check() == []


def test_a_new_file_can_not_be_forgotten_in_the_downgrade(checkout: Path) -> None:
    release(*freeze.revisions("engine"))
    shutil.copyfile(checkout / "sql" / LIVING, checkout / "sql" / "functions/lapse/another.sql")

    freeze.freeze("Another")

    following = freeze.revisions("engine")[-1]
    (written,) = (freeze.HERE / "engine" / "versions").glob(f"{following}_*.py")
    with pytest.raises(NotImplementedError, match=r"drop what functions/lapse/another\.sql creates"):
        runpy.run_path(str(written))["downgrade"]()


@pytest.mark.parametrize("harm", [edit, Path.unlink], ids=["edited", "removed"])
def test_what_was_released_is_never_blessed_anew(checkout: Path, harm) -> None:
    release(*freeze.revisions("engine"))
    sums = freeze.SUMS.read_text(encoding="utf-8")
    harm(freeze.FROZEN / "engine_0001" / LIVING)

    with pytest.raises(SystemExit, match="a released file never changes"):
        freeze.freeze("Sneak it in")

    assert freeze.SUMS.read_text(encoding="utf-8") == sums
