"""``pglapse index``: build the index that a policy needs, without stopping anybody."""

from collections.abc import Iterator
from typing import Annotated, Any, NamedTuple

import psycopg
import typer

from pglapse import schema
from pglapse.errors import NotFound, PglapseError, translated
from pglapse.schema import Connection
from pglapse.text import printable

LOCKS = 1_818_324_343
"""The first key of the advisory locks that keep two of these commands from building the same index."""

REBUILD = "reindex index concurrently "


class Proof(NamedTuple):
    """What the database says of a policy's index: lapse.index_proof."""

    ok: bool | None
    name: str | None
    problem: str | None
    statements: list[str]


def index(
    policy: Annotated[str, typer.Argument(help="Its name, as lapse.create_expiry was given it.")],
    resume: Annotated[
        bool, typer.Option("--resume/--no-resume", help="Whether to resume the policy in the end.")
    ] = True,
) -> None:
    """Build the index that a policy needs, prove that it serves, and resume the policy.

    Builds it concurrently, so that nobody has to wait; that can't be done in a migration, since it
    can't be done in a transaction. What an interrupted try has left behind is removed first.
    Connect as the owner of the table. Where the index is there already, nothing is built.

    \b
    Examples:
      pglapse index sessions
      pglapse index sessions --no-resume
    """
    with schema.opened("grant_author") as conn, translated():
        known = conn.execute("select declared from lapse.declared_expiry(%s)", [policy]).fetchone()
        if known is None:
            raise NotFound(f"there is no policy {printable(policy)}", hint="pglapse status shows their names")
        if conn.execute("select pg_try_advisory_lock(%s, hashtext(%s))", [LOCKS, policy]).fetchone() != (
            True,
        ):
            raise PglapseError(
                f"the index of policy {printable(policy)} is being built by another session",
                hint="wait for it: select * from pg_stat_progress_create_index",
            )
        for line in build(conn, policy):
            typer.echo(printable(line, 500))
        if resume and known[0]:
            conn.execute("select lapse.enable_expiry(%s)", [policy])
            typer.echo(f"policy {policy} runs")


def build(conn: Connection, policy: str) -> Iterator[str]:
    """Build what is missing; yields what is done. Raises `PglapseError` where no index serves in the end."""
    conn.execute("select set_config('statement_timeout', '0', false), set_config('lock_timeout', '0', false)")
    done: set[str] = set()
    while not (proof := proved(conn, policy)).ok:
        if proof.ok is None:
            raise PglapseError(f"policy {printable(policy)}: {proof.problem}", hint="it needs no index")
        wanted = [statement for statement in proof.statements if statement not in done]
        if not wanted:
            raise PglapseError(
                f"no index leads to the due rows of policy {printable(policy)}: {proof.problem}",
                hint=" ".join(proof.statements) or "see docs/expiry.md",
            )
        for statement in wanted:
            done.add(statement)
            for single in fresh(statement):
                yield single
                sent(conn, single)
    yield f"index {proof.name} leads to the rows that are due"


def proved(conn: Connection, policy: str) -> Proof:
    """Ask the planner, through the database, whether an index serves."""
    row = conn.execute(
        "select ok, index_name, problem, statements from lapse.index_proof(%s)", [policy]
    ).fetchone()
    ok, name, problem, statements = row or (None, None, "nothing is known of it", None)
    return Proof(ok, name, problem, statements or [])


def fresh(statement: str) -> list[str]:
    """The statement; where it would build a broken index anew, one that removes it.

    REINDEX leaves a second broken one behind when it is interrupted, too; after a DROP the next
    proof asks for the index as if there had never been one.
    """
    if statement.startswith(REBUILD):
        return [f"drop index concurrently if exists {statement.removeprefix(REBUILD)}"]
    return [statement]


def sent(conn: psycopg.Connection[Any], statement: str) -> None:
    """Run one statement by itself; an error says what is left of it."""
    try:
        conn.execute(statement.encode())
    except psycopg.Error as error:
        said = error.diag.message_primary or str(error)
        raise PglapseError(
            f"{statement} failed: {said}",
            hint="the same command again removes what is left of it and goes on",
        ) from error
