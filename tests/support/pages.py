"""Run a page of the documentation as its reader would: block by block, in order, against a fresh database.

A fenced block takes part by its language and what stands after it:

    ```sql                  statements, one after the other, each committed by itself
    ```sql fails LP035      as above, but the last statement must fail with this SQLSTATE
    ```sql skip             not run (what the reader is to see, or a statement that can't run here)
    ```sql psql             run by psql: for \\sf and the like
    ```text                 right after a block that ran: what its last statement answers, a line a row,
                            columns apart by " | "; "..." stands for anything
    ```sh run               run by bash -eu; DATABASE_URL leads to the database, pglapse is on the path
    ```python run           run by this Python, with the same environment

Other blocks are for reading only. Statements are told apart by PostgreSQL's own parser, so dollar quotes and
semicolons in strings are no trouble.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
from pglast import split

from tests.support.install import client
from tests.support.running import environment

FENCE = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```[ \t]*$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """One fenced block: its language, the words after it, its text, and the line that it begins in."""

    language: str
    marks: tuple[str, ...]
    text: str
    line: int

    @property
    def fails(self) -> str | None:
        """The SQLSTATE that its last statement must fail with."""
        return self.marks[1] if self.marks[:1] == ("fails",) else None


def blocks(page: Path) -> Iterator[Block]:
    """Every fenced block of a page that names its language, in order."""
    text = page.read_text(encoding="utf-8")
    for found in FENCE.finditer(text):
        language, marks, body = found.groups()
        yield Block(language, tuple(marks.split()), body, text.count("\n", 0, found.start()) + 1)


def run(page: Path, dsn: str, *, folder: Path | None = None, **more: str) -> int:
    """Run a page; how many blocks ran. Raises AssertionError that names the line of what went otherwise.

    ``folder`` is where commands run; ``more`` is added to their environment.
    """
    ran = 0
    answer: list[str] | None = None
    with psycopg.connect(dsn, autocommit=True) as conn:
        for block in blocks(page):
            place = f"{page.name}:{block.line}"
            if block.language == "text":
                if answer is not None:
                    compare(answer, block.text, place)
                answer = None
                continue
            answer = None
            if block.language == "sql" and "psql" in block.marks:
                answer = outside(
                    [client("psql"), "-X", "-At", "-v", "ON_ERROR_STOP=1", dsn],
                    block,
                    dsn,
                    folder,
                    more,
                    place,
                )
            elif block.language == "sql" and "skip" not in block.marks:
                answer = statements(conn, block, place)
            elif block.language == "sh" and "run" in block.marks:
                answer = outside(["bash", "-eu"], block, dsn, folder, more, place)
            elif block.language == "python" and "run" in block.marks:
                answer = outside([sys.executable, "-"], block, dsn, folder, more, place)
            else:
                continue
            ran += 1
    return ran


def statements(conn: psycopg.Connection, block: Block, place: str) -> list[str]:
    """Run a block's statements; the rows of the last one."""
    rows: list[str] = []
    texts = split(block.text)
    for position, statement in enumerate(texts, 1):
        expected = block.fails if position == len(texts) else None
        try:
            cursor = conn.execute(statement.encode())
        except psycopg.Error as error:
            if error.sqlstate != expected:
                raise AssertionError(f"{place}: {statement}\n{error.sqlstate}: {error}") from error
            return [f"{error.diag.severity}:  {error.diag.message_primary}", *hints(error)]
        if expected:
            raise AssertionError(f"{place}: {statement}\nwas to fail with {expected}")
        rows = [" | ".join(shown(value) for value in row) for row in cursor] if cursor.description else []
    return rows


def hints(error: psycopg.Error) -> list[str]:
    """An error's detail and hint, as psql shows them."""
    said = (("DETAIL", error.diag.message_detail), ("HINT", error.diag.message_hint))
    return [line for kind, text in said if text for line in f"{kind}:  {text}".splitlines()]


def shown(value: object) -> str:
    """A value as psql shows it, nearly."""
    return (
        {None: "", True: "t", False: "f"}.get(value, str(value))
        if isinstance(value, bool | None)
        else str(value)
    )


def outside(
    command: list[str], block: Block, dsn: str, folder: Path | None, more: dict[str, str], place: str
) -> list[str]:
    """Run a block in a process of its own; the lines that it printed."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    done = subprocess.run(
        command,
        input=block.text,
        env=environment(dsn, PATH=path, **more),
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    if done.returncode:
        raise AssertionError(f"{place}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done.stdout.splitlines()


def compare(answer: list[str], wanted: str, place: str) -> None:
    """Fail unless the answer is what the page says, "..." standing for anything."""
    lines = [line.rstrip() for line in wanted.splitlines() if line.strip()]
    pattern = "\n".join(re.escape(line).replace(re.escape("..."), ".*") for line in lines)
    got = "\n".join(line.rstrip() for line in answer if line.strip())
    if not re.fullmatch(pattern, got, re.DOTALL):
        raise AssertionError(f"{place}: the page says\n" + "\n".join(lines) + f"\nand the answer is\n{got}")
