"""The guide runs as written, and leaves the tables as they were."""

from pathlib import Path

from tests.support import pages

ROOT = Path(__file__).resolve().parents[1]


def test_the_guide_runs_as_written(empty: str, tmp_path: Path) -> None:
    assert pages.run(ROOT / "docs" / "guide.md", empty, folder=tmp_path) == 18
