"""What a sweep costs: pglapse's policy beside the ways it replaces, in one run on one server.

    make bench-expiry                            # an embedded PostgreSQL of its own
    DATABASE_URL=... python benchmarks/expiry.py # a database of its own on that server, dropped afterwards

Three ways to expire coupons, on tables with the same rows:

  policy     call lapse.run('expire_coupons'): a partial index, small batches, a commit after each
  statement  one UPDATE over a table without such an index, as a cron job would send it
  scan       what the threads of the old system did: read every active coupon, compare in
             Python, update one by one

Each is measured with nothing due (what happens nearly always) and with some rows due. Times are medians;
compare them within one run only. Ratios are against the policy.
"""

import argparse
import os
import statistics
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter

import psycopg

from pglapse.demo.database import Database, borrowed, embedded
from pglapse.demo.process import install

Connection = psycopg.Connection[tuple[object, ...]]

TABLES = """
create table public.coupons_plain (
    id bigint primary key, code text not null unique, status text not null,
    valid_until timestamptz, expired_at timestamptz
)
"""
FILL = """
with fresh as (
    insert into market.coupons (code, valid_until)
    select 'live-' || n, now() + interval '1 day' + n * interval '1 s' from generate_series(1, %(live)s) as n
    returning id, code, status, valid_until
)
insert into public.coupons_plain select * from fresh
"""
LAPSE = """
with fresh as (
    insert into market.coupons (code, valid_until)
    select gen_random_uuid()::text, now() - n * interval '1 ms' from generate_series(1, %(due)s) as n
    returning id, code, status, valid_until
)
insert into public.coupons_plain select * from fresh
"""


def policy(connection: Connection) -> None:
    """The way of pglapse."""
    connection.execute("call lapse.run('expire_coupons')")


def statement(connection: Connection) -> None:
    """One UPDATE, no partial index."""
    connection.execute(
        "update public.coupons_plain set status = 'expired', expired_at = now()"
        " where status = 'active' and valid_until <= now()"
    )


def scan(connection: Connection) -> None:
    """Every active row goes to the application, which decides."""
    now = datetime.now(UTC)
    rows = connection.execute(
        "select id, valid_until from public.coupons_plain where status = 'active'"
    ).fetchall()
    with connection.cursor() as cursor:
        for row, valid_until in rows:
            if isinstance(valid_until, datetime) and valid_until <= now:
                cursor.execute(
                    "update public.coupons_plain set status = 'expired', expired_at = now() where id = %s",
                    [row],
                )


WAYS: dict[str, Callable[[Connection], None]] = {"policy": policy, "statement": statement, "scan": scan}


def measure(connection: Connection, way: Callable[[Connection], None], due: int, rounds: int) -> list[float]:
    """Seconds of each round; before each, ``due`` rows lapse and the tables are vacuumed."""
    times = []
    for _ in range(rounds):
        if due:
            connection.execute(LAPSE, {"due": due})
        for table in ("market.coupons", "public.coupons_plain"):
            connection.execute(f"vacuum analyze {table}")
        began = perf_counter()
        way(connection)
        times.append(perf_counter() - began)
        for other in WAYS.values():  # the other table's rows must not wait for the next round
            other(connection)
    return times


def report(database: Database, live: int, due: int, rounds: int) -> None:
    """Fill, measure and print."""
    install(database.dsn)
    with psycopg.connect(database.dsn, autocommit=True) as connection:
        connection.execute(TABLES)
        connection.execute(FILL, {"live": live})
        print(f"{database.server}; {live:,} coupons that are due later; medians of {rounds}")
        for rows in (0, due):
            print(f"\n{rows:,} rows due" if rows else "\nnothing due")
            medians = {}
            for name, way in WAYS.items():
                times = measure(connection, way, rows, rounds)
                medians[name] = statistics.median(times)
                ratio = medians[name] / medians["policy"]
                print(
                    f"  {name:<10} {medians[name] * 1000:10.1f} ms   {ratio:8.2f} x"
                    f"   (from {min(times) * 1000:.1f} to {max(times) * 1000:.1f} ms)"
                )


def main() -> None:
    """Read the options, find a server, report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--live", type=int, default=500_000, help="coupons that are due later")
    parser.add_argument("--due", type=int, default=10_000, help="coupons that lapse before each round")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    url = os.environ.get("DATABASE_URL")
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        borrowed(url) if url else embedded(Path(folder) / "server") as database,
    ):
        report(database, options.live, options.due, options.rounds)


if __name__ == "__main__":
    main()
