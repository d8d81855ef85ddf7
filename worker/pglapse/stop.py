"""The first SIGTERM or SIGINT asks the worker to stop, the second ends it on the spot."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


class Stopping(BaseException):
    """Raised out of a wait that would otherwise outlast the signal."""


class Stop:
    """Whether to stop, and whether the main thread may be torn out of what it is doing."""

    def __init__(self) -> None:
        # No Event: setting one from a handler may wait for the very thread it interrupted.
        self._asked_at: float | None = None
        self._interruptible = False
        self.wake: Callable[[], None] = lambda: None
        """Called when a signal comes, from its handler: ends a sleep, and never blocks."""

    def __call__(self) -> bool:
        return self._asked_at is not None

    def left(self, grace: float) -> float:
        """Seconds that are left of a time of grace, endless until told to stop."""
        return float("inf") if self._asked_at is None else max(0.0, self._asked_at + grace - time.monotonic())

    def pause(self, seconds: float) -> None:
        """Sleep; a signal ends it by `Stopping`."""
        with self.interruptible():
            time.sleep(seconds)

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Let a signal end what is done here by `Stopping`: nothing that would be lost."""
        self._interruptible = True
        try:
            if self():
                raise Stopping
            yield
        finally:
            self._interruptible = False

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if self():
            os._exit(128 + number)
        self._asked_at = time.monotonic()
        self.wake()
        if self._interruptible:
            raise Stopping

    @contextmanager
    def on_signals(self) -> Iterator[None]:
        """Listen to SIGTERM and SIGINT; once told to stop, to the very end of the process."""
        before = {number: signal.signal(number, self._handle) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            if not self():
                for number, handler in before.items():
                    signal.signal(number, handler)
