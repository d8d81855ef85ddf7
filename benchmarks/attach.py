"""What attached files cost the statements of an application, in one run on one server.

    python -m benchmarks.attach                   # an embedded PostgreSQL of its own
    DATABASE_URL=... python -m benchmarks.attach  # a database of its own on that server, dropped afterwards

The same table three times, with a primary key and an index on the path's digest:

  none     no trigger
  insert   a trigger like the simplest that one would write: insert into … select from the deleted rows,
           into a table with the columns and indexes of lapse.file_cleanup_queue
  attach   lapse.attach_files

For each statement the three take turns; times are medians of the processor time of the server's process
where that can be read, else of the time that passed. The price is what a way costs more than none; the
ratio is of the prices.
"""

import argparse
import os
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

import psycopg

from pglapse.demo.database import Database, borrowed, embedded
from pglapse.demo.process import install

Connection = psycopg.Connection[tuple[object, ...]]

WAYS = ("none", "insert", "attach")
TABLES = """
create schema price;
create table price.queue (like lapse.file_cleanup_queue including all)
    with (fillfactor = 40);  -- LIKE leaves it out
create function price.insert() returns trigger language plpgsql as $$
begin
    insert into price.queue (storage, path, reason, source_table, source_id, not_before, generation)
    select 'public', o.path, 'row deleted', 'price.t', o.id::text, now(), 1 from old_rows as o;
    return null;
end;
$$;
"""
TABLE = """
create table price.t_{way} (
    id bigint primary key, path text not null, status text not null, views int not null
);
create index on price.t_{way} (lapse.path_digest(path));
"""
FILL = (
    "insert into price.t_{way} select n, 'uploads/2026/' || md5(n::text) || '.png', 'open', 0"
    " from generate_series(1, {rows}) as n"
)
QUEUE_HALF = (
    "select lapse.enqueue_files(array_agg(row('public', path, null, null, null, null, null)"
    "::lapse.file_request)) from price.t_attach where id % 2 = 0"
)
BULK = {
    "insert": ("", FILL),
    "update nothing of files": (FILL, "update price.t_{way} set views = views + 1"),
    "update the path": (FILL, "update price.t_{way} set path = path || '2'"),
    "delete": (FILL, "delete from price.t_{way}"),
    "delete what is queued already": (FILL, "delete from price.t_{way}"),
    "truncate": (FILL, "truncate price.t_{way}"),
}
SINGLE = {
    "insert": "insert into price.t_{way} values ({n}, 'p{n}', 'open', 0)",
    "update nothing of files": "update price.t_{way} set views = views + 1 where id = {n}",
    "update the path": "update price.t_{way} set path = 'q{n}' where id = {n}",
    "delete": "delete from price.t_{way} where id = {n}",
}


def clock(connection: Connection) -> Callable[[], float]:
    """The processor time of this session's process, where it is on this machine; else the wall's."""
    stat = Path(f"/proc/{connection.info.backend_pid}/stat")
    if not stat.exists() or "postgres" not in stat.read_text(encoding="ascii"):
        return perf_counter
    ticks = os.sysconf("SC_CLK_TCK")
    return lambda: sum(map(int, stat.read_text(encoding="ascii").rsplit(")", 1)[1].split()[11:13])) / ticks


def prepare(connection: Connection) -> None:
    """Make the tables, and attach."""
    connection.execute(TABLES)
    for way in WAYS:
        connection.execute(TABLE.format(way=way))
    connection.execute(
        "create trigger insert after delete on price.t_insert referencing old table as old_rows"
        " for each statement execute function price.insert()"
    )
    connection.execute("select lapse.worker_hello('benchmark', 'here', 1, '1', '{public}')")
    connection.execute("select lapse.attach_files('price.t_attach', 'path', 'public')")


def bulk(connection: Connection, rows: int, rounds: int) -> None:
    """One statement for all rows."""
    print(f"\none statement, {rows:,} rows (medians of {rounds}, ms)")
    for name, (before, statement) in BULK.items():
        times: dict[str, list[float]] = {way: [] for way in WAYS}
        for _ in range(rounds):
            for way in WAYS:
                connection.execute(f"truncate price.t_{way}, price.queue, lapse.file_cleanup_queue")
                if before:
                    connection.execute(before.format(way=way, rows=rows))
                    connection.execute("truncate lapse.file_cleanup_queue")
                if "already" in name and way == "attach":
                    connection.execute(QUEUE_HALF)
                connection.execute("vacuum analyze price.t_" + way)
                now = clock(connection)
                began = now()
                connection.execute(statement.format(way=way, rows=rows))
                times[way].append(now() - began)
        show(name, {way: statistics.median(measured) * 1000 for way, measured in times.items()})


def single(connection: Connection, rows: int, rounds: int) -> None:
    """One row a statement."""
    print(f"\none row a statement (medians of {rounds} times {rows:,}, µs a statement)")
    times: dict[str, dict[str, list[float]]] = {name: {way: [] for way in WAYS} for name in SINGLE}
    for _ in range(rounds):
        for way in WAYS:
            connection.execute(f"truncate price.t_{way}, price.queue, lapse.file_cleanup_queue")
            for name, statement in SINGLE.items():
                block = "do $$ begin for n in 1 .. {rows} loop execute format({text}, n); end loop; end $$"
                text = "'" + statement.format(way=way, n="%1$s").replace("'", "''") + "'"
                now = clock(connection)
                began = now()
                connection.execute(block.format(rows=rows, text=text))
                times[name][way].append(now() - began)
    for name, ways in times.items():
        show(name, {way: statistics.median(measured) / rows * 1e6 for way, measured in ways.items()})


def show(name: str, medians: dict[str, float]) -> None:
    """A line: what each costs, and the price of attached files, also as a ratio to a plain insert's."""
    price = medians["attach"] - medians["none"]
    plain = medians["insert"] - medians["none"]
    ratio = f"{price / plain:6.2f} x insert … select" if name.startswith("delete") and plain > 0 else ""
    print(
        f"  {name:<30} none {medians['none']:8.1f}   insert {medians['insert']:8.1f}"
        f"   attach {medians['attach']:8.1f}   price {price:8.1f} {ratio}"
    )


def report(database: Database, rows: int, rounds: int) -> None:
    """Fill, measure and print."""
    install(database.dsn)
    with psycopg.connect(database.dsn, autocommit=True) as connection:
        prepare(connection)
        print(f"{database.server}; {'processor' if clock(connection) is not perf_counter else 'wall'} time")
        bulk(connection, rows, rounds)
        single(connection, 2000, rounds)


def main() -> None:
    """Read the options, find a server, report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000, help="rows of the large statements")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    url = os.environ.get("DATABASE_URL")
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        borrowed(url) if url else embedded(Path(folder) / "server") as database,
    ):
        report(database, options.rows, options.rounds)


if __name__ == "__main__":
    main()
