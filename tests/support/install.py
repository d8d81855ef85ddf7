"""Run Alembic and PostgreSQL's clients in processes of their own, as a user does."""

import os
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from pglapse import cluster

ROOT = Path(__file__).resolve().parents[2]


def alembic(dsn: str, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run ``alembic`` against ``dsn``; raises with its output when it fails and ``check`` is set."""
    process = started(dsn, *arguments)
    out, err = process.communicate(timeout=240)
    if check and process.returncode:
        raise AssertionError(f"alembic {' '.join(arguments)} failed:\n{out}\n{err}")
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def started(dsn: str, *arguments: str) -> subprocess.Popen[str]:
    """Start ``alembic`` against ``dsn`` and do not wait for it."""
    return subprocess.Popen(
        [sys.executable, "-m", "alembic", "-c", str(ROOT / "alembic.ini"), *arguments],
        env={**os.environ, "DATABASE_URL": dsn, "PYTHONPATH": str(ROOT / "worker")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def psql(dsn: str, script: str) -> None:
    """Run a script as the README says: ``psql -1``, stopping at the first error; raises with its output."""
    done = subprocess.run(
        [client("psql"), "-X", "-q", "-1", "-v", "ON_ERROR_STOP=1", "-d", dsn, "-f", "-"],
        input=script,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise AssertionError(f"psql failed:\n{done.stderr}")


def client(name: str) -> str:
    """The newest PostgreSQL client program ``name`` to be had: pg_dump refuses servers newer than itself."""
    folders: list[Path] = []
    with suppress(FileNotFoundError):
        folders.append(cluster.find_embedded())
    if local := cluster.find_local():
        folders.append(local)
    programs = [folder / name for folder in folders if (folder / name).is_file()]
    found = max(programs, key=lambda program: cluster.major(program.parent), default=shutil.which(name))
    if found is None:
        raise AssertionError(
            f"no {name} here: install a PostgreSQL client, or pip install 'pglapse[embedded]'"
        )
    return str(found)
