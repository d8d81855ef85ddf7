"""docs/files.md does what it says."""

from pathlib import Path

from tests.support import pages
from tests.support.install import ROOT


def test_the_page_runs_as_it_is_written(dsn: str, tmp_path: Path) -> None:
    assert pages.run(ROOT / "docs" / "files.md", dsn, folder=tmp_path) == 13
