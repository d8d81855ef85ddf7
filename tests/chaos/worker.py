"""A worker as users run it, but each deletion is noted outside the database, right before and right after.

``python -m tests.chaos.worker DISK JOURNAL SLOW HESITANT SEED -- worker --config ...``: SLOW is how many
milliseconds a deletion takes on average. The pause comes after the deletion, so that the way from the
worker's last look at its lease to the deletion stays as short as it can be. HESITANT is the share of
deletions right before which the worker stops itself (SIGSTOP), while there is a file ``hesitation`` on the
disk. A file whose name begins with ``poison`` kills the worker before it goes.

Another file may take the name at any moment, and which of them went must be known. So unlink becomes a rename
into a tomb outside the storages, and the file is read there. A tomb whose process was killed before it could
tell is read by the judge.
"""

import os
import random
import signal
import sys
import threading
import time
from itertools import count
from pathlib import Path

from tests.chaos.disk import Disk, generation
from tests.chaos.journal import Journal, now

POISON = "poison"


def watch(disk: Disk, journal: Journal, slow: float, hesitant: float, dice: random.Random) -> None:
    """Put ourselves between the worker and the system call."""
    unlink = os.unlink
    number = count(1)

    def noted(path: bytes | str, *, dir_fd: int | None = None) -> None:
        began = now()
        name = os.fsdecode(path)
        file = f"{Path(f'/proc/self/fd/{dir_fd}').readlink()}/{name}" if dir_fd is not None else name
        this = next(number)
        journal.note("unlink", n=this, began=began, file=file, thread=threading.get_native_id())
        if name.startswith(POISON):
            os._exit(137)
        if dice.random() < hesitant and disk.hesitation.exists():
            os.kill(os.getpid(), signal.SIGSTOP)
        tomb = disk.tomb(os.getpid(), this)
        try:
            os.rename(path, tomb, src_dir_fd=dir_fd)
        except OSError as error:
            journal.note("unlinked", n=this, done=False, error=error.strerror)
            raise
        at = now()
        journal.note("unlinked", n=this, done=True, t=at, generation=generation(tomb.read_bytes()))
        unlink(tomb)
        time.sleep(dice.expovariate(1000 / slow) if slow else 0)

    os.unlink = noted  # type: ignore[assignment]


def main() -> None:
    disk, file, slow, hesitant, seed, _, *arguments = sys.argv[1:]
    journal = Journal(Path(file))
    journal.note("worker", pid=os.getpid())
    watch(Disk(Path(disk)), journal, float(slow), float(hesitant), random.Random(seed))
    sys.argv[1:] = arguments
    from pglapse.cli import main as run  # noqa: PLC0415 (whatever it binds must be what is watched)

    run()


if __name__ == "__main__":
    main()
