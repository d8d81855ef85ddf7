"""Wait for something to become true, with a deadline; never sleep for effect."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

STEP = 0.02


def until(look: Callable[[], T], *, seconds: float = 60, what: str = "") -> T:
    """Look again and again until the answer is true, and return it; fails the test at the deadline."""
    deadline = time.monotonic() + seconds
    while True:
        if answer := look():
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds} s for {what or 'a condition'}; last answer: {answer!r}")
        time.sleep(STEP)
