"""pgmq's SQL, from the package that carries it: read a batch with a visibility timeout, work, delete it."""

import importlib.resources
from typing import Any

import protocol
import psycopg

SEND = """
select pgmq.send_batch('jobs', array(select jsonb_build_object('path', p) from unnest(%s::text[]) as p), %s)
"""
READ = "select msg_id, message from pgmq.read('jobs', 60, %s)"
DONE = "select count(*) from pgmq.delete('jobs', %s::bigint[])"
YEAR = 365 * 86_400

Connection = psycopg.Connection[Any]


def install(conn: Connection, settings: dict[str, Any]) -> None:
    conn.execute(importlib.resources.files("pgmq").joinpath("sql/pgmq.sql").read_text(encoding="utf-8"))
    conn.execute(
        "select pgmq.create_unlogged('jobs')" if settings["unlogged"] else "select pgmq.create('jobs')"
    )


def fill(conn: Connection, settings: dict[str, Any]) -> None:
    for batch in protocol.batches(protocol.jobs(settings)):
        conn.execute(SEND, [batch, YEAR if settings["later"] else 0])


def some(conn: Connection, batch: int) -> int:
    """Read a batch, do it, delete it; how many."""
    messages = conn.execute(READ, [batch]).fetchall()
    for _, message in messages:
        protocol.work(message["path"])
    if messages:
        conn.execute(DONE, [[number for number, _ in messages]])
    return len(messages)


def drain(conn: Connection, settings: dict[str, Any]) -> None:
    if not protocol.wait_for_line():
        return
    watch, done = protocol.Watch(), 0
    while watch.seconds < settings["seconds"] and (count := some(conn, settings["batch"])):
        done += count
    watch.say(done)


def serve(conn: Connection, settings: dict[str, Any]) -> None:
    # Only here: with it, a batch of 20,000 messages took 40 seconds to queue.
    conn.execute("select pgmq.enable_notify_insert('jobs', 0)")
    conn.execute('listen "pgmq.q_jobs.INSERT"')
    protocol.say(ready=True)
    while True:
        while some(conn, settings["batch"]):
            pass
        list(conn.notifies(timeout=1.0, stop_after=1))


def probe(conn: Connection, settings: dict[str, Any]) -> None:
    protocol.probe(settings, lambda path: conn.execute(SEND, [[path], 0]) and None)


def main() -> None:
    command, dsn, settings = protocol.arguments()
    commands = {"install": install, "fill": fill, "probe": probe, "drain": drain, "serve": serve}
    with psycopg.connect(dsn, autocommit=True) as conn:
        commands[command](conn, settings)


if __name__ == "__main__":
    main()
