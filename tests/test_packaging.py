"""The wheel holds what it needs, and works where there is no checkout."""

import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.catalog import catalog
from tests.support.databases import on, untouched
from tests.support.install import ROOT

Command = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = pytest.mark.xdist_group("packaging")  # one wheel, one environment


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from the checkout."""
    folder = tmp_path_factory.mktemp("dist")
    done = subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = folder.glob("pglapse-*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Command:
    """Runs a program of a fresh environment that holds the wheel alone, in a folder that is no checkout."""
    home = tmp_path_factory.mktemp("elsewhere")
    subprocess.run([sys.executable, "-m", "venv", str(home / "venv")], check=True)
    pip = [str(home / "venv" / "bin" / "python"), "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "install", str(wheel)], check=True, capture_output=True)

    def run(program: str, *arguments: str, dsn: str = "") -> subprocess.CompletedProcess[str]:
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        return subprocess.run(
            [str(home / "venv" / "bin" / program), *arguments],
            cwd=home,
            env={**environment, "DATABASE_URL": dsn},
            capture_output=True,
            text=True,
            check=False,
        )

    return run


@pytest.mark.slow
def test_the_wheel_holds_sql_and_migrations_and_nothing_else(wheel: Path) -> None:
    held = set(zipfile.ZipFile(wheel).namelist())
    expected = {
        f"pglapse/_share/{path.relative_to(ROOT).as_posix()}"
        for folder in ("sql", "migrations")
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    modules = {
        path.relative_to(ROOT / "worker").as_posix()
        for path in (ROOT / "worker").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }

    assert {name for name in held if ".dist-info/" not in name} == expected | modules


@pytest.mark.slow
def test_the_installed_wheel_installs_and_removes(
    installed: Command, empty: str, server: str, template: str
) -> None:
    found = catalog(empty)

    up = installed("pglapse", "upgrade", "heads", dsn=empty)
    current = installed("pglapse", "current", dsn=empty)
    after = catalog(empty)
    script = installed("python", "-m", "pglapse", "upgrade", "heads", "--sql")
    down = installed("pglapse", "downgrade", "base", dsn=empty)

    assert (up.returncode, up.stderr) == (0, "")
    assert up.stdout.count("installed ") == len(up.stdout.splitlines())
    assert "(effective head)" in current.stdout
    assert after == catalog(on(server, untouched(template)))
    assert script.stdout.startswith("BEGIN;")
    assert script.stdout.rstrip().endswith("COMMIT;")
    assert down.returncode == 0, down.stderr
    assert catalog(empty) == found


@pytest.mark.slow
def test_what_goes_wrong_is_one_line_and_an_exit_code(installed: Command, empty: str) -> None:
    unknown = installed("pglapse", "upgrade", "nonsense", dsn=empty)
    nobody = installed("pglapse", "upgrade", dsn="postgresql://nobody@127.0.0.1:1/none")
    nowhere = installed("pglapse", "current", dsn=empty)

    assert unknown.returncode == 2
    assert "nonsense" in unknown.stderr
    assert nobody.returncode == 1
    assert "can't reach the database" in nobody.stderr
    assert all(len(said.stderr.splitlines()) == 1 for said in (unknown, nobody))
    assert nowhere.stdout == "pglapse is not installed in this database: pglapse upgrade\n"
