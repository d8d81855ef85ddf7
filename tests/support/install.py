"""Run Alembic in a process of its own, as a user does."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def alembic(dsn: str, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run ``alembic`` against ``dsn``; raises with its output when it fails and ``check`` is set."""
    done = subprocess.run(
        [sys.executable, "-m", "alembic", "-c", str(ROOT / "alembic.ini"), *arguments],
        env={**os.environ, "DATABASE_URL": dsn, "PYTHONPATH": str(ROOT / "worker")},
        capture_output=True,
        text=True,
        check=False,
    )
    if check and done.returncode:
        raise AssertionError(f"alembic {' '.join(arguments)} failed:\n{done.stdout}\n{done.stderr}")
    return done
