"""Runs the runners, and keeps the files that real jobs delete."""

import contextlib
import json
import os
import random
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import contestants
from benchmarks.contestants import Contestant

FOLDERS = 256
SIZE = 4096


class Failed(Exception):
    """A runner did not do what it was asked."""


@dataclass(frozen=True, slots=True)
class Runners:
    """Starts runners, each in its environment."""

    cache: Path

    def call(self, contestant: Contestant, what: str, dsn: str, **settings: Any) -> dict[str, Any]:
        """Run a command to its end; return its answer, if it gives one."""
        with self.started(contestant, what, dsn, **settings) as process:
            return _answer(process, contestant, what, last=True)

    def drain(self, contestant: Contestant, dsn: str, **settings: Any) -> dict[str, Any]:
        """Have it get ready, give the word, return its answer."""
        what = "unlink" if contestant.runner == "run_limits.py" and settings.get("unlink") else "drain"
        with self.started(contestant, what, dsn, **settings) as process:
            _answer(process, contestant, what)
            assert process.stdin
            process.stdin.write("go\n")
            process.stdin.flush()
            return _answer(process, contestant, what, last=True)

    @contextmanager
    def serving(self, contestant: Contestant, dsn: str) -> Iterator[None]:
        """A worker that waits for jobs."""
        with self.started(contestant, "serve", dsn) as process:
            _answer(process, contestant, "serve")
            yield

    @contextmanager
    def started(
        self, contestant: Contestant, what: str, dsn: str, **settings: Any
    ) -> Iterator[subprocess.Popen[str]]:
        """A running runner, ended afterwards."""
        with subprocess.Popen(
            contestants.command(contestant, self.cache, what, dsn, settings),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=contestants.process_environment(contestant, self.cache),
            start_new_session=True,
        ) as process:
            try:
                yield process
            finally:
                _end(process)


def _answer(
    process: subprocess.Popen[str], contestant: Contestant, what: str, *, last: bool = False
) -> dict[str, Any]:
    assert process.stdout
    assert process.stderr
    line = process.stdout.readline()
    if last:
        process.wait(600)
    if (last and process.returncode) or (not last and not line):
        raise Failed(f"{contestant.name} {what}: {process.stderr.read().strip()[-2000:]}")
    answer: dict[str, Any] = json.loads(line) if line else {}
    return answer


def _end(process: subprocess.Popen[str]) -> None:
    """Close its input, wait a little, then stop it."""
    with contextlib.suppress(OSError):
        if process.stdin:
            process.stdin.close()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(2)
    if process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5)
    if process.poll() is None:
        process.kill()


class Files:
    """Files to delete: 4 KiB each, spread over 256 folders in random order, as uploads are that are named
    by a digest. They are on the disk, blocks and all, before anything is measured."""

    def __init__(self, root: Path, seed: int = 1) -> None:
        self.root = root
        self.list = root.with_name(root.name + ".list")
        self._random = random.Random(seed)

    def make(self, count: int, size: int = SIZE, folders: int = FOLDERS, *, synced: bool = True) -> Path:
        """Make them; return the file that names them, one a line."""
        content = bytes(size)
        for number in range(folders):
            (self.root / f"{number:03x}").mkdir(parents=True, exist_ok=True)
        order = [f"{self.root}/{number % folders:03x}/{number:08x}" for number in range(count)]
        for path in order:
            with open(path, "wb", buffering=0) as file:  # noqa: PTH123 (a million of them)
                if content:
                    file.write(content)
        self._random.shuffle(order)
        self.list.write_text("\n".join(order), encoding="utf-8")
        if synced:
            self.sync()
        return self.list

    def sync(self) -> None:
        """Have it all on the disk; a file that was never written there is deleted at next to no cost."""
        subprocess.run(["sync", "--file-system", str(self.root)], check=True)

    def left(self) -> int:
        """How many are still there; a worker may be removing folders meanwhile."""
        return sum(len(names) for _, _, names in os.walk(self.root))

    def wait_until_gone(self, seconds: float) -> float:
        """The time (as of time.time) when the last of them was gone, looked at from the end of the list."""
        paths = self.list.read_text(encoding="utf-8").splitlines()
        until = time.time() + seconds
        tail = [Path(path) for path in paths[-500:]]
        while any(path.exists() for path in tail):
            if time.time() > until:
                raise Failed(f"{self.left():,} files are still there after {seconds:.0f} s")
            time.sleep(0.005)
        while self.left():
            if time.time() > until:
                raise Failed(f"{self.left():,} files are still there after {seconds:.0f} s")
            time.sleep(0.005)
        return time.time()

    def remove(self) -> None:
        """Remove whatever is left."""
        shutil.rmtree(self.root, ignore_errors=True)
        self.list.unlink(missing_ok=True)
