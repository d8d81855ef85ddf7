"""The limits: DELETE … RETURNING alone, and a bare loop of unlink.

No queue can be faster: rows are taken for good before their job is done, so that a crash loses a batch;
nothing is claimed, retried, logged or counted. The loop of unlink knows its files beforehand.
"""

import os
from pathlib import Path
from typing import Any

import protocol
import psycopg

TABLE = """
create table public.bare (
    id bigint generated always as identity primary key, path text not null, not_before timestamptz not null
);
create index on public.bare (not_before, id);
"""
FILL = """
insert into public.bare (path, not_before)
select path, now() + case when %s then interval '1 year' else interval '0' end from unnest(%s::text[]) as path
"""
TAKE = """
with due as materialized (
    select id from public.bare where not_before <= now() and (not_before, id) > (%s, %s)
     order by not_before, id limit %s for update skip locked
)
delete from public.bare as b where b.id = any (array(select id from due)) returning b.path, b.not_before, b.id
"""

Connection = psycopg.Connection[Any]


def install(conn: Connection, _: dict[str, Any]) -> None:
    conn.execute(TABLE)


def fill(conn: Connection, settings: dict[str, Any]) -> None:
    for batch in protocol.batches(protocol.jobs(settings)):
        conn.execute(FILL, [settings["later"], batch])


def drain(conn: Connection, settings: dict[str, Any]) -> None:
    if not protocol.wait_for_line():
        return
    watch, done = protocol.Watch(), 0
    after: tuple[object, object] = ("-infinity", 0)
    while watch.seconds < settings["seconds"]:
        rows = conn.execute(TAKE, [*after, settings["batch"]]).fetchall()
        if not rows:
            break
        for path, _, _ in rows:
            protocol.work(path)
        done += len(rows)
        after = max(row[1:] for row in rows)
    watch.say(done)


def unlink(settings: dict[str, Any]) -> None:
    paths = Path(settings["paths"]).read_text(encoding="utf-8").splitlines()
    if not protocol.wait_for_line():
        return
    watch = protocol.Watch()
    for path in paths:
        os.unlink(path)  # noqa: PTH108 (the quickest way)
    watch.say(len(paths))


def main() -> None:
    command, dsn, settings = protocol.arguments()
    if command == "unlink":
        unlink(settings)
        return
    commands = {"install": install, "fill": fill, "drain": drain}
    with psycopg.connect(dsn, autocommit=True) as conn:
        commands[command](conn, settings)


if __name__ == "__main__":
    main()
