"""Ctrl-C, asked for at any moment, answered where nothing gets lost by it."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Self

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(KeyboardInterrupt):
    """Somebody asked us to stop."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


class Interrupts:
    """Raises `Interrupted` once, and only inside `allowed` and outside `held`.

    What comes at another time waits for the next `allowed` part; what comes after the first is ignored, so
    that an impatient second Ctrl-C can't break off the clean-up that the first one began. Whatever fails
    after somebody asked counts as the interruption: it may have reached what we were waiting for as well.
    """

    def __init__(self) -> None:
        self._asked: int | None = None
        self._open = False
        self._before: dict[int, object] = {}

    def __enter__(self) -> Self:
        for number in _SIGNALS:
            self._before[number] = signal.signal(number, self._arrived)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._asked is not None:
            return  # the process is about to end, and a late second Ctrl-C must not change how
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _arrived(self, number: int, _frame: FrameType | None) -> None:
        if self._asked is None:
            self._asked = number
            if self._open:
                raise Interrupted(number)

    @contextmanager
    def allowed(self) -> Iterator[None]:
        """The part that may be interrupted."""
        self._open = True
        try:
            self._raise_if_asked()
            yield
        except Exception as error:
            self._raise_if_asked(error)
            raise
        finally:
            self._open = False

    @contextmanager
    def held(self) -> Iterator[None]:
        """A part of it that may not: something is being started, and nobody could stop it yet."""
        self._open = False
        try:
            yield
        finally:
            self._open = True
        self._raise_if_asked()

    def _raise_if_asked(self, reason: Exception | None = None) -> None:
        if self._asked is not None:
            raise Interrupted(self._asked) from reason
