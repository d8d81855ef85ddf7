"""pgqueuer, by asyncpg or psycopg: consumers in one process, on uvloop, as in its own benchmark."""

import asyncio
import time
from datetime import timedelta
from typing import Any

import protocol
import uvloop
from pgqueuer import AsyncpgDriver, Job, PgQueuer, PsycopgDriver, Queries
from pgqueuer.domain.types import QueueExecutionMode

YEAR = timedelta(days=365)


async def driver(dsn: str, name: str) -> AsyncpgDriver | PsycopgDriver:
    """A connection of its own, by the named library."""
    if name == "asyncpg":
        import asyncpg  # noqa: PLC0415 (one of the two)

        return AsyncpgDriver(await asyncpg.connect(dsn))
    import psycopg  # noqa: PLC0415 (the other)

    return PsycopgDriver(await psycopg.AsyncConnection.connect(dsn, autocommit=True))


class Run:
    """Consumers that share one counter."""

    def __init__(self) -> None:
        self.done = 0
        self.consumers: list[PgQueuer] = []

    async def connect(self, dsn: str, settings: dict[str, Any]) -> None:
        for _ in range(settings["consumers"]):
            consumer = PgQueuer(await driver(dsn, settings["driver"]))

            @consumer.entrypoint("job")
            async def job(job: Job) -> None:
                protocol.work((job.payload or b"").decode())
                self.done += 1

            self.consumers.append(consumer)

    async def work(self, settings: dict[str, Any], mode: QueueExecutionMode) -> None:
        await asyncio.gather(
            *(consumer.run(batch_size=settings["batch"], mode=mode) for consumer in self.consumers)
        )

    def stop(self) -> None:
        for consumer in self.consumers:
            consumer.shutdown.set()


async def drain(dsn: str, settings: dict[str, Any]) -> None:
    run = Run()
    await run.connect(dsn, settings)
    if not await asyncio.to_thread(protocol.wait_for_line):
        return
    watch = protocol.Watch()
    asyncio.get_running_loop().call_later(settings["seconds"], run.stop)
    await run.work(settings, QueueExecutionMode.drain)
    watch.say(run.done)


async def serve(dsn: str, settings: dict[str, Any]) -> None:
    run = Run()
    await run.connect(dsn, settings)
    working = asyncio.create_task(run.work(settings, QueueExecutionMode.continuous))
    await asyncio.to_thread(protocol.wait_for_line)
    run.stop()
    await working


async def install(dsn: str, settings: dict[str, Any]) -> None:
    queries = Queries(await driver(dsn, settings["driver"]))
    await queries.install()
    if settings["unlogged"]:
        for statement in queries.qbe.build_alter_durability_query():
            await queries.driver.execute(statement)
    await queries.driver.execute(queries.qbe.build_optimize_autovacuum_query())


async def fill(dsn: str, settings: dict[str, Any]) -> None:
    queries = Queries(await driver(dsn, settings["driver"]))
    for batch in protocol.batches(protocol.jobs(settings)):
        count = len(batch)
        await queries.enqueue(
            ["job"] * count,
            [path.encode() for path in batch],
            [0] * count,
            [YEAR if settings["later"] else None] * count,
        )


async def probe(dsn: str, settings: dict[str, Any]) -> None:
    queries = Queries(await driver(dsn, settings["driver"]))
    seconds = []
    for path in protocol.probes(settings):
        await queries.enqueue("job", path.encode())
        seconds.append(protocol.gone(path, time.monotonic()))
    protocol.say(seconds=seconds)


def main() -> None:
    command, dsn, settings = protocol.arguments()
    commands = {"install": install, "fill": fill, "probe": probe, "drain": drain, "serve": serve}
    uvloop.run(commands[command](dsn, settings))


if __name__ == "__main__":
    main()
