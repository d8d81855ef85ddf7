"""Find ``sql/`` and ``migrations/``: inside an installed wheel, or beside the package in a checkout."""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def share() -> Path:
    """The folder that holds ``sql`` and ``migrations``; `FileNotFoundError` when the install is broken."""
    for candidate in (_PACKAGE / "_share", _PACKAGE.parent.parent):
        if (candidate / "migrations" / "env.py").is_file() and (candidate / "sql").is_dir():
            return candidate
    raise FileNotFoundError(
        f"pglapse is installed without its sql and migrations (looked beside {_PACKAGE}): "
        "reinstall it with pip install --force-reinstall pglapse"
    )


def migrations() -> Path:
    """The Alembic script location."""
    return share() / "migrations"


def sql() -> Path:
    """The living SQL: one file per routine, trigger and view."""
    return share() / "sql"
