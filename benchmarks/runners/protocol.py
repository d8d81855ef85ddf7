"""What all runners share, with nothing but the standard library: each runs in an environment of its own.

A runner is started as ``python X.py COMMAND DSN SETTINGS`` (settings: a JSON object) and answers in lines of
JSON on its standard output:

  install   make the schema
  fill      settings jobs, later, paths: queue that many jobs, due at once or in a year; a job's argument is
            a path of the file ``paths``, or "" for a job that does nothing
  drain     settings seconds, files: answer {"ready": true}, wait for a line, work until nothing is due or
            the seconds are over, answer {"jobs": …, "seconds": …, "cpu": …}: from the line to the last job
            finished, in the database too; cpu is this process's processor time in between
  serve     work until the standard input ends; answers {"ready": true} at the start
  probe     settings folder, count, pause: queue one file at a time, as an application would, and answer
            {"seconds": […]}: from the commit to the moment when the file is gone
"""

import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

PATIENCE = 20.0
"""Seconds that a probe waits for its file to go."""


def arguments() -> tuple[str, str, dict[str, Any]]:
    """Command, DSN and settings."""
    command, dsn, settings = sys.argv[1:]
    return command, dsn, json.loads(settings)


def say(**answer: object) -> None:
    """Answer one line."""
    print(json.dumps(answer), flush=True)


def wait_for_line() -> bool:
    """Say that everything is ready and wait; False when the other side is gone."""
    say(ready=True)
    return bool(sys.stdin.readline())


class Watch:
    """What a drain took, from the making of this to `say`."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.cpu = time.process_time()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began

    def say(self, jobs: int) -> None:
        """Answer."""
        say(jobs=jobs, seconds=self.seconds, cpu=time.process_time() - self.cpu)


def jobs(settings: dict[str, Any]) -> Iterator[str]:
    """The argument of each job."""
    if settings.get("paths"):
        yield from Path(settings["paths"]).read_text(encoding="utf-8").splitlines()
    else:
        yield from ("" for _ in range(settings["jobs"]))


def batches(items: Iterable[str], size: int = 20_000) -> Iterator[list[str]]:
    """The items in lists of at most ``size``."""
    batch: list[str] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def work(argument: str) -> None:
    """The job: delete the file, or nothing."""
    if argument:
        os.unlink(argument)  # noqa: PTH108 (the quickest way, in all runners)


def probes(settings: dict[str, Any]) -> Iterator[str]:
    """New files, one at a time, with a pause before each."""
    folder = Path(settings["folder"])
    for number in range(settings["count"]):
        path = folder / f"probe-{os.getpid()}-{number}"
        path.write_bytes(bytes(4096))
        time.sleep(settings["pause"])
        yield str(path)


def gone(path: str, began: float) -> float:
    """Wait until the file is gone; seconds since ``began``."""
    while os.path.exists(path):  # noqa: PTH110 (as quick as can be)
        if time.monotonic() - began > PATIENCE:
            raise TimeoutError(f"{path} is still there after {PATIENCE:.0f} s")
        time.sleep(0.0002)
    return time.monotonic() - began


def probe(settings: dict[str, Any], enqueue: Callable[[str], None]) -> None:
    """Queue files one at a time and say how long each took."""
    seconds = []
    for path in probes(settings):
        enqueue(path)
        seconds.append(gone(path, time.monotonic()))
    say(seconds=seconds)
