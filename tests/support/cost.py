"""What a call on the file queue costs the server, and queues long enough for that to show."""

import re

import psycopg

QUEUE = "'lapse.file_cleanup_queue'::regclass"


def fill(conn: psycopg.Connection, rows: int, at: str, storage: str = "s") -> None:
    """Many rows at once; generation 1 passes by the merging. ``at`` is SQL and may name the row as n."""
    conn.execute(
        "insert into lapse.file_cleanup_queue (storage, path, not_before, generation)"
        f" select %s, 'later/' || n, {at}, 1 from generate_series(1, {rows}) as n",
        [storage],
    )


def buffers(conn: psycopg.Connection, call: str, before: int = 6) -> int:
    """Buffers that a call touches once its plans are settled, also under generic plans."""
    for _ in range(before):
        conn.execute(call)
    text = "\n".join(line for (line,) in conn.execute(f"explain (analyze, buffers) {call}"))
    return sum(int(n) for n in re.findall(r"(?:hit|read)=(\d+)", text.split("Planning")[0]))


def scanned(conn: psycopg.Connection) -> int:
    """Rows of the queue that were read by reading the whole table, so far."""
    conn.execute("select pg_stat_force_next_flush()")
    (rows,) = conn.execute(f"select pg_stat_get_tuples_returned({QUEUE})").fetchone() or (0,)
    return rows
