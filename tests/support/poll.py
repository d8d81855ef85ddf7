"""Wait for something to become true, with a deadline; never sleep for effect."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

STEP = 0.02


def until(look: Callable[[], T], *, seconds: float = 60, what: str | Callable[[], str] = "") -> T:
    """Look again and again until the answer is true, and return it; fails the test at the deadline.

    ``what`` was waited for; a function is asked at the deadline, for what is known then.
    """
    deadline = time.monotonic() + seconds
    while True:
        if answer := look():
            return answer
        if time.monotonic() > deadline:
            waited_for = (what() if callable(what) else what) or "a condition"
            raise AssertionError(f"waited {seconds} s for {waited_for}; last answer: {answer!r}")
        time.sleep(STEP)
