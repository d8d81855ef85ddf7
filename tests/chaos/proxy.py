"""A proxy before the server, by which connections are stalled, slowed down, cut or left half-open.

A line that was left half-open stays so until `heal`, or until its client gives up: nothing arrives any
more, and nobody is told. The system at the proxy's end still acknowledges what it gets, as a stuck router
or balancer does, so neither TCP's keepalives nor its timeouts notice; only somebody who expects an answer by
some time does.
"""

import asyncio
import random
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal

from psycopg.conninfo import conninfo_to_dict, make_conninfo

from tests.chaos.faults import Fault

NOTICED = 3.0  # seconds until the server's end of a half-open line is closed when the client has given up

Way = Literal["both ways", "answers"]


@dataclass
class Line:
    """A client's connection and the one to the server that belongs to it."""

    client: socket.socket
    server: socket.socket
    asking: asyncio.Event = field(default_factory=asyncio.Event)
    answering: asyncio.Event = field(default_factory=asyncio.Event)
    lost: Way | None = None
    """What gets lost, once it is half-open."""

    def flow(self) -> None:
        self.asking.set()
        self.answering.set()

    def hold(self, way: Way) -> None:
        self.answering.clear()
        if way == "both ways":
            self.asking.clear()

    def cut(self) -> None:
        """Close both ends without a word of farewell: RST."""
        for end in (self.client, self.server):
            with suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                end.shutdown(socket.SHUT_RDWR)
        self.flow()


class Proxy:
    """Listens on a port of 127.0.0.1, with an event loop in a thread of its own."""

    def __init__(self, dsn: str) -> None:
        given = conninfo_to_dict(dsn)
        self._target = f"{given['host']}/.s.PGSQL.{given['port']}"
        self._lines: list[Line] = []
        self._pumps: set[asyncio.Task[None]] = set()
        self._delay = 0.0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setblocking(False)
        self.dsn = make_conninfo(dsn, host="127.0.0.1", port=self._listener.getsockname()[1])
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def close(self) -> None:
        self._call(self._end)
        self._thread.join()
        self._listener.close()

    def stall(self, dice: random.Random, share: float) -> int:
        """Let nothing through on some lines, until `resume`."""
        return self._each(dice, share, lambda line: line.hold(_way(dice)))

    def resume(self) -> None:
        self._call(lambda: [line.flow() for line in self._lines if not line.lost])

    def leave_half_open(self, dice: random.Random, share: float) -> int:
        def leave(line: Line) -> None:
            line.lost = _way(dice)
            line.flow()

        return self._each(dice, share, leave)

    def cut(self, dice: random.Random, share: float) -> int:
        return self._each(dice, share, Line.cut)

    def slow_down(self, seconds: float) -> int:
        """Let each piece of data take this long; returns how many lines there are."""

        def slow() -> int:
            self._delay = seconds
            return len(self._lines)

        return self._call(slow)

    def heal(self) -> None:
        """All is well again: what was half-open is at last found to be closed."""
        self.slow_down(0)
        self.resume()
        self._call(lambda: [line.cut() for line in self._lines if line.lost])

    def _each(self, dice: random.Random, share: float, do: Callable[[Line], None]) -> int:
        def some() -> int:
            chosen = [line for line in self._lines if not line.lost and dice.random() < share]
            for line in chosen:
                do(line)
            return len(chosen)

        return self._call(some)

    def _call(self, do: Callable[[], Any]) -> Any:
        async def now() -> Any:
            return do()

        return asyncio.run_coroutine_threadsafe(now(), self._loop).result(20)

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._started(self._accept())
        self._loop.run_forever()
        self._loop.close()

    def _started(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._pumps.add(task)
        task.add_done_callback(self._pumps.discard)

    def _end(self) -> None:
        async def end() -> None:
            me = asyncio.current_task()
            others = [task for task in asyncio.all_tasks() if task is not me]
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)
            for line in self._lines:
                line.client.close()
                line.server.close()
            self._loop.stop()

        self._ending = self._loop.create_task(end())

    async def _accept(self) -> None:
        while True:
            client, _ = await self._loop.sock_accept(self._listener)
            client.setblocking(False)
            self._started(self._open(client))

    async def _open(self, client: socket.socket) -> None:
        server = socket.socket(socket.AF_UNIX)
        server.setblocking(False)
        try:
            await self._loop.sock_connect(server, self._target)
        except OSError:
            client.close()
            server.close()
            return
        line = Line(client, server)
        line.flow()
        self._lines.append(line)
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pump(line, client, server, line.asking))
                both.create_task(self._pump(line, server, client, line.answering))
        except* OSError:
            pass
        finally:
            self._lines.remove(line)
            client.close()
            server.close()

    async def _pump(
        self, line: Line, source: socket.socket, target: socket.socket, flowing: asyncio.Event
    ) -> None:
        while data := await self._loop.sock_recv(source, 65536):
            if self._delay:
                await asyncio.sleep(self._delay)
            await flowing.wait()
            if line.lost is None or (line.lost == "answers" and flowing is line.asking):
                await self._loop.sock_sendall(target, data)
        await flowing.wait()  # while nothing gets through, the end of one side does not either
        if line.lost:
            await asyncio.sleep(NOTICED)
        line.cut()


def _way(dice: random.Random) -> Way:
    return "answers" if dice.random() < 0.5 else "both ways"


@dataclass
class StallLines(Fault):
    proxy: Proxy
    longest: float
    name: str = "lines stalled"

    def strike(self, dice: random.Random, stop: threading.Event) -> int:
        struck = self.proxy.stall(dice, 0.5)
        stop.wait(dice.uniform(0.2, self.longest))
        self.proxy.resume()
        return struck


@dataclass
class LeaveLinesHalfOpen(Fault):
    proxy: Proxy
    name: str = "lines left half-open"

    def strike(self, dice: random.Random, stop: threading.Event) -> int:
        return self.proxy.leave_half_open(dice, 0.3)


@dataclass
class CutLines(Fault):
    proxy: Proxy
    name: str = "lines cut"

    def strike(self, dice: random.Random, stop: threading.Event) -> int:
        return self.proxy.cut(dice, 0.5)


@dataclass
class SlowLinesDown(Fault):
    proxy: Proxy
    name: str = "lines slowed down"

    def strike(self, dice: random.Random, stop: threading.Event) -> int:
        struck = self.proxy.slow_down(dice.uniform(0.002, 0.08))
        stop.wait(dice.uniform(0.5, 3))
        self.proxy.slow_down(0)
        return struck
