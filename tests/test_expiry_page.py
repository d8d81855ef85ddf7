"""docs/expiry.md does as it says, its migrations included: psql, Alembic and Django."""

import os
import subprocess
import sys
from pathlib import Path

import psycopg
from psycopg.conninfo import conninfo_to_dict

from tests.support import pages
from tests.support.expiry import functions
from tests.support.install import ROOT

PAGE = ROOT / "docs" / "expiry.md"

ENV = """
import psycopg
from alembic import context
from sqlalchemy import create_engine

with create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect({dsn!r})).connect() as connection:
    context.configure(connection=connection)
    with context.begin_transaction():
        context.run_migrations()
"""
TABLE = """
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.execute("create schema app")
    op.execute("create table app.reset_tokens (token text primary key, created_at timestamptz not null)")
    op.execute("create index on app.reset_tokens (created_at)")


def downgrade() -> None:
    op.execute("drop schema app cascade")
"""
SETTINGS = """
SECRET_KEY = "test"
USE_TZ = True
INSTALLED_APPS = ["django.contrib.sessions", "cleanup"]
DATABASES = {{"default": {{"ENGINE": "django.db.backends.postgresql", "NAME": {dbname!r}, "USER": {user!r},
    "PASSWORD": {password!r}, "HOST": {host!r}, "PORT": {port!r}}}}}
"""


def example(kind: str) -> str:
    """The page's Python for one tool."""
    (text,) = [block.text for block in pages.blocks(PAGE) if block.marks[:1] == (kind,)]
    return text


def run(folder: Path, *command: str, **more: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", *command],
        cwd=folder,
        env={**os.environ, **more},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def policies(dsn: str) -> list[str]:
    with psycopg.connect(dsn) as conn:
        made = conn.execute("select name from lapse.policy where action is not null order by 1").fetchall()
        assert len(functions(conn)) == 2 * len(made)
        return [name for (name,) in made]


def test_every_example_of_the_page_does_what_it_says(dsn, tmp_path):
    assert pages.run(PAGE, dsn, folder=tmp_path) == 13


def test_an_alembic_migration_declares_and_takes_back(dsn, tmp_path):
    versions = tmp_path / "migrations" / "versions"
    versions.mkdir(parents=True)
    (tmp_path / "alembic.ini").write_text("[alembic]\nscript_location = migrations\npath_separator = os\n")
    (tmp_path / "migrations" / "env.py").write_text(ENV.replace("{dsn!r}", repr(dsn)))
    (versions / "0001.py").write_text(TABLE)
    (versions / "0002.py").write_text(example("alembic"))

    run(tmp_path, "alembic", "upgrade", "head")
    assert policies(dsn) == ["reset_tokens"]
    run(tmp_path, "alembic", "downgrade", "0001")
    assert policies(dsn) == []
    run(tmp_path, "alembic", "downgrade", "base")


def test_a_django_migration_declares_and_takes_back(dsn, tmp_path):
    given = {"password": "", "port": "", "host": "", "user": "", **conninfo_to_dict(dsn)}
    folder = tmp_path / "cleanup" / "migrations"
    folder.mkdir(parents=True)
    for package in (tmp_path / "cleanup", folder):
        (package / "__init__.py").touch()
    (tmp_path / "settings.py").write_text(SETTINGS.format(**given))
    (folder / "0001_sessions.py").write_text(example("django"))
    settings = {"DJANGO_SETTINGS_MODULE": "settings", "PYTHONPATH": str(tmp_path)}

    run(tmp_path, "django", "migrate", **settings)
    assert policies(dsn) == ["django_sessions"]
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute(
            "insert into public.django_session values"
            " ('old', '', now() - interval '1 day'), ('new', '', now() + interval '1 day')"
        )
        conn.execute("call lapse.run('django_sessions')")
        assert conn.execute("select session_key from public.django_session").fetchall() == [("new",)]
    run(tmp_path, "django", "migrate", "cleanup", "zero", **settings)
    assert policies(dsn) == []
