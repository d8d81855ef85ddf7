"""procrastinate: async tasks, many at a time, finished jobs deleted."""

import asyncio
from typing import Any

import procrastinate
import protocol
import psycopg

DEFER = """
select procrastinate_defer_jobs_v1(array(
    select row('default', 'job', 0, null, null, jsonb_build_object('path', path),
               case when %s then now() + interval '1 year' end)::procrastinate_job_to_defer_v1
      from unnest(%s::text[]) as path))
"""


class Run:
    """An app with one task, and how many jobs it has done."""

    def __init__(self, dsn: str, settings: dict[str, Any]) -> None:
        self.done = 0
        self.concurrency = settings["concurrency"]
        size = settings.get("pool", self.concurrency + 2)
        connector = procrastinate.PsycopgConnector(conninfo=dsn, min_size=min(size, 4), max_size=size)
        self.app = procrastinate.App(connector=connector)

        @self.app.task(name="job")
        async def job(path: str) -> None:
            protocol.work(path)
            self.done += 1

    async def drain(self, seconds: float) -> None:
        async with self.app.open_async():
            await self.app.job_manager.check_connection_async()
            if not await asyncio.to_thread(protocol.wait_for_line):
                return
            watch = protocol.Watch()
            working = asyncio.create_task(self._work(wait=False))
            _, late = await asyncio.wait([working], timeout=seconds)
            for task in late:
                task.cancel()  # documented: stops gracefully
                await asyncio.wait([task])
            watch.say(self.done)

    async def serve(self) -> None:
        async with self.app.open_async():
            working = asyncio.create_task(self._work(wait=True))
            await asyncio.to_thread(protocol.wait_for_line)
            working.cancel()
            await asyncio.wait([working])

    async def _work(self, *, wait: bool) -> None:
        await self.app.run_worker_async(
            wait=wait,
            concurrency=self.concurrency,
            delete_jobs="successful",
            install_signal_handlers=False,
        )


def fill(dsn: str, settings: dict[str, Any]) -> None:
    with psycopg.connect(dsn, autocommit=True) as conn:
        for batch in protocol.batches(protocol.jobs(settings)):
            conn.execute(DEFER, [settings["later"], batch])


def probe(dsn: str, settings: dict[str, Any]) -> None:
    with psycopg.connect(dsn, autocommit=True) as conn:
        protocol.probe(settings, lambda path: conn.execute(DEFER, [False, [path]]) and None)


def install(dsn: str) -> None:
    app = procrastinate.App(connector=procrastinate.SyncPsycopgConnector(conninfo=dsn))
    with app.open():
        app.schema_manager.apply_schema()


def main() -> None:
    command, dsn, settings = protocol.arguments()
    if command == "install":
        install(dsn)
    elif command == "fill":
        fill(dsn, settings)
    elif command == "probe":
        probe(dsn, settings)
    elif command == "drain":
        asyncio.run(Run(dsn, settings).drain(settings["seconds"]))
    elif command == "serve":
        asyncio.run(Run(dsn, settings).serve())


if __name__ == "__main__":
    main()
