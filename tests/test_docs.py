"""The documentation holds: its queries run, its commands exist, its links lead somewhere."""

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from tests.support.install import ROOT
from tests.support.running import environment

README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = sorted(
    [ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "docker" / "README.md", *(ROOT / "docs").rglob("*.md")]
)
ROLES = ("files_worker", "monitoring", "app", "operator")


def blocks(language: str) -> list[str]:
    """The fenced blocks of one language in the README."""
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def statements() -> list[str]:
    """Every SQL statement that the README prints, comments left out."""
    text = ";".join(re.sub(r"--[^\n]*", "", block) for block in blocks("sql"))
    return [statement.strip() for statement in text.split(";") if statement.strip()]


def commands() -> set[tuple[str, str]]:
    """Every (command, option) of pglapse that the README prints in a block or in code."""
    found = set()
    for line in [*"\n".join(blocks("sh")).splitlines(), *re.findall(r"`(pglapse [^`]*)`", README)]:
        words = line.split("#")[0].split()
        if words[:1] == ["pglapse"] and len(words) > 1 and not words[1].startswith("-"):
            command = " ".join(words[1:3]) if words[1] in ("queue", "storage") else words[1]
            found |= {(command, option) for option in words if option.startswith("--")} | {(command, "")}
    return found


@contextmanager
def outside_cron(statement: str) -> Iterator[None]:
    """Let `lapse.schedule` say that pg_cron is elsewhere: a test's database is not the one where it lives."""
    try:
        yield
    except psycopg.DatabaseError as error:
        if error.sqlstate != "LP007" or "lapse.schedule()" not in statement:
            raise AssertionError(f"{statement}\n{error}") from error


def test_every_query_of_the_readme_runs(conn: psycopg.Connection) -> None:
    assert len(statements()) > 20

    with conn.transaction(force_rollback=True):
        for role in ROLES:
            if not conn.execute("select 1 from pg_roles where rolname = %s", [role]).fetchone():
                conn.execute(sql.SQL("create role {}").format(sql.Identifier(role)))
        for statement in statements():
            if not statement.startswith("call "):
                with outside_cron(statement), conn.transaction():
                    conn.execute(statement)

    for statement in statements():
        if statement.startswith("call "):
            conn.execute(statement)


def test_a_plain_insert_as_the_readme_prints_it_is_in_the_queue(conn: psycopg.Connection) -> None:
    (insert,) = [statement for statement in statements() if statement.startswith("insert into lapse.")]

    answer = conn.execute(insert)

    assert answer.statusmessage == "INSERT 0 0", "as the README says"
    assert conn.execute("select count(*) from lapse.file_cleanup_queue").fetchone() == (1,)


@pytest.mark.parametrize("command", sorted({command for command, _ in commands()}))
def test_every_command_and_option_of_the_readme_exists(command: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pglapse", *command.split(), "--help"],
        env=environment("postgresql://127.0.0.1:1/nowhere"),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert done.returncode == 0, done.stderr
    for option in {option for name, option in commands() if name == command}:
        assert option in done.stdout


def test_every_setting_of_the_engine_is_in_the_readme(conn: psycopg.Connection) -> None:
    columns = conn.execute(
        "select attname from pg_catalog.pg_attribute"
        " where attrelid = 'lapse.setting'::regclass and attnum > 0 and not attisdropped"
        "   and attname <> 'only_row'"
    ).fetchall()

    assert [name for (name,) in columns if f"`{name}`" not in README] == []


def test_every_policy_of_the_marketplace_is_in_the_table_of_replaced_jobs_with_its_cadence(
    conn: psycopg.Connection,
) -> None:
    words = {
        "00:00:30": "30 s", "00:01:00": "1 min", "00:05:00": "5 min", "00:15:00": "15 min",
        "01:00:00": "hourly", "1 day": "daily", "7 days": "weekly",
    }  # fmt: skip
    table = README.partition("## What replaces what")[2].partition("\n## ")[0]
    policies = conn.execute(
        "select name, every::text from lapse.policy where starts_with(step, 'market.')"
    ).fetchall()
    assert len(policies) > 15

    assert [(name, every) for name, every in policies if f"`{name}`, {words[every]}" not in table] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_to_a_file(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", text):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_every_test_that_caught_a_broken_guard_exists() -> None:
    page = (ROOT / "docs" / "broken-on-purpose.md").read_text(encoding="utf-8")
    named = re.findall(r"`(test_\w+\.py)` `(test_\w+)`", page)
    assert len(named) > 100

    missing = [
        (file, test)
        for file, test in named
        if f"def {test}(" not in (ROOT / "tests" / file).read_text(encoding="utf-8")
    ]

    assert missing == []
