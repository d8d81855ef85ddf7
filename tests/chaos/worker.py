"""A worker as users run it, but each deletion is noted outside the database, right before and right after.

``python -m tests.chaos.worker JOURNAL SLOW SEED -- worker --config ...``: SLOW is how many milliseconds a
deletion takes on average. The pause comes after the deletion, so that the way from the worker's last look at
its lease to the deletion stays as short as it can be. A file whose name begins with ``poison`` kills the
worker before it goes.
"""

import os
import random
import sys
import threading
import time
from itertools import count
from pathlib import Path

from tests.chaos.disk import generation
from tests.chaos.journal import Journal, now

POISON = "poison"


def watch(journal: Journal, slow: float, dice: random.Random) -> None:
    """Put ourselves between the worker and the system call."""
    unlink = os.unlink
    number = count(1)

    def noted(path: bytes | str, *, dir_fd: int | None = None) -> None:
        began = now()
        name = os.fsdecode(path)
        file = f"{Path(f'/proc/self/fd/{dir_fd}').readlink()}/{name}" if dir_fd is not None else name
        which, held = None, -1
        try:
            held = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dir_fd)
            which = generation(os.read(held, 200))
        except OSError:
            pass
        this = next(number)
        journal.note(
            "unlink", n=this, began=began, file=file, generation=which, thread=threading.get_native_id()
        )
        if name.startswith(POISON):
            os._exit(137)
        try:
            unlink(path, dir_fd=dir_fd)
            # No name left: it was this very generation that went, and not one put in its place meanwhile.
            journal.note("unlinked", n=this, done=True, same=held >= 0 and os.fstat(held).st_nlink == 0)
        except OSError as error:
            journal.note("unlinked", n=this, done=False, error=error.strerror)
            raise
        finally:
            if held >= 0:
                os.close(held)
            time.sleep(dice.expovariate(1000 / slow) if slow else 0)

    os.unlink = noted  # type: ignore[assignment]


def main() -> None:
    file, slow, seed, _, *arguments = sys.argv[1:]
    journal = Journal(Path(file))
    journal.note("worker", pid=os.getpid())
    watch(journal, float(slow), random.Random(seed))
    sys.argv[1:] = arguments
    from pglapse.cli import main as run  # noqa: PLC0415 (whatever it binds must be what is watched)

    run()


if __name__ == "__main__":
    main()
