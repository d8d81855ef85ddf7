"""What the other tests rely on: databases are swept up after, and a skipped pg_cron test can't hide."""

import re
import secrets
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from tests.support import databases, roles
from tests.support.install import ROOT
from tests.support.names import PREFIX

SKIPPED = """
import pytest

@pytest.mark.cron
def test_skipped():
    pytest.skip("on purpose")
"""

GROUPED = """
import os
import pytest

@pytest.mark.xdist_group("together")
@pytest.mark.parametrize("number", range(6))
def test_grouped(number, record_property):
    record_property("process", os.environ["PYTEST_XDIST_WORKER"])
"""


def test_a_group_of_tests_stays_in_one_process(tmp_path: Path) -> None:
    (tmp_path / "test_grouped.py").write_text(GROUPED, encoding="utf-8")
    report = tmp_path / "report.xml"

    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-n", "2", "--dist", "loadgroup"),
            *("--junitxml", str(report), str(tmp_path)),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    processes = re.findall(r'name="process" value="(\w+)"', report.read_text(encoding="utf-8"))
    assert len(processes) == 6
    assert len(set(processes)) == 1


@pytest.mark.parametrize(("option", "code"), [([], 0), (["--require-cron"], 1)], ids=["allowed", "required"])
def test_a_skipped_test_of_pg_cron_fails_where_it_is_required(
    server: str, tmp_path: Path, option: list[str], code: int
) -> None:
    (tmp_path / "test_skipped.py").write_text(SKIPPED, encoding="utf-8")

    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-c", str(ROOT / "pyproject.toml"), "-p", "tests.conftest"),
            *("-p", "no:cacheprovider", *option, str(tmp_path / "test_skipped.py")),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == code, done.stdout + done.stderr
    assert "server: PostgreSQL" in done.stdout


def test_databases_and_roles_of_dead_sessions_go_and_those_of_living_ones_stay(server: str) -> None:
    dead, living = (f"{secrets.randbits(31):08x}" for _ in range(2))
    names = [f"{PREFIX}_{number}_left" for number in (dead, living)]
    made = [roles.name(roles.WORKER, number) for number in (dead, living)]
    with psycopg.connect(server, autocommit=True) as admin, psycopg.connect(server, autocommit=True) as other:
        other.execute("select pg_advisory_lock(%s, %s)", [databases.SPACE, int(living, 16)])
        for name in names:
            admin.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
        for role in made:
            admin.execute(sql.SQL("create role {}").format(sql.Identifier(role)))
        try:
            databases.sweep(admin)

            rows = admin.execute(
                "select datname from pg_database where datname = any (%s)", [names]
            ).fetchall()
            assert rows == [(names[1],)]
            rows = admin.execute("select rolname from pg_roles where rolname = any (%s)", [made]).fetchall()
            assert rows == [(made[1],)]
        finally:
            databases.drop(admin, living)


@pytest.mark.parametrize("kind", [roles.WORKER, roles.OBSERVER])
def test_a_process_of_ours_acts_as_a_role_that_can_not_touch_a_table(dsn: str, kind: str) -> None:
    with psycopg.connect(roles.acting(dsn, kind), autocommit=True) as acting:
        acting.execute("select lapse.api_version()")

        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            acting.execute("select from lapse.file_cleanup_queue")
