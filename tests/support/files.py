"""A worker's files: a root, its configuration, and what the queue says of them."""

from pathlib import Path

import psycopg


def shelf(folder: Path, *names: str) -> Path:
    """Make a root for each storage named, and the configuration file that names them."""
    config = folder / "pglapse.toml"
    tables = []
    for name in names:
        (folder / name).mkdir()
        tables.append(f'[storage.{name}]\nkind = "local"\nroot = "{folder / name}"\n')
    config.write_text("".join(tables))
    return config


def put(conn: psycopg.Connection, root: Path, *paths: str) -> None:
    """Write files below a root and queue them; the root's own name is the storage's."""
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text("x")
    conn.execute(
        "select lapse.enqueue_file(%s, path) from unnest(%s::text[]) as path", [root.name, list(paths)]
    )


def empty(conn: psycopg.Connection) -> bool:
    """Whether nothing is queued."""
    return conn.execute("select 1 from lapse.file_cleanup_queue limit 1").fetchone() is None


def waiting(conn: psycopg.Connection) -> bool:
    """Whether a worker has looked into the queue and waits."""
    return bool(
        conn.execute(
            "select 1 from pg_stat_activity where datname = current_database()"
            " and application_name = 'pglapse' and state = 'idle' and query like '%exchange_files%'"
        ).fetchone()
    )
