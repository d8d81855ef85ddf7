"""Apply the frozen copies of replaceable SQL objects: all of pglapse that a revision imports.

A revision never reads ``sql/``. It reads the copy frozen under a revision id, so what it did on the
day it was written is what it does for ever. See docs/decisions/0001-living-files-frozen-copies.md.
"""

from alembic import context

from pglapse.resources import migrations


def names(revision: str) -> list[str]:
    """Every file frozen under ``revision``: functions, then triggers, then views, each in name order."""
    root = migrations() / "frozen" / revision
    return [
        path.relative_to(root).as_posix()
        for kind in ("functions", "triggers", "views")
        for path in sorted((root / kind).rglob("*.sql"))
    ]


def apply(revision: str, *files: str) -> None:
    """Run files frozen under ``revision``, in the order given.

    Function bodies are not checked while they load, so functions may name each other in any order;
    views are checked, and come after the functions that they call.
    """
    run_script("set local check_function_bodies = off;")
    for name in files:
        run_script((migrations() / "frozen" / revision / name).read_text(encoding="utf-8"))


def run_script(sql: str) -> None:
    """Send a script to the server untouched; database errors pass through.

    ``op.execute`` would read ``:name`` in a function body as a bind parameter (NULL with ``--sql``)
    and double every ``%``; a script is not a template.
    """
    migration = context.get_context()
    if migration.as_sql:
        migration.impl.static_output(sql)
        return
    if (connection := migration.connection) is not None:
        connection.exec_driver_sql(sql, execution_options={"no_parameters": True})


def asked_for(option: str) -> bool:
    """Whether the caller gave ``-x OPTION`` (with or without a value)."""
    return option in context.get_x_argument(as_dictionary=True)
