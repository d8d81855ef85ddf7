"""Folders with files, and storages over them, as tests use them."""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pglapse.storage.marker import NAME


def put(root: Path, *paths: str, content: bytes = b"x") -> None:
    """Write files below a folder, making folders on the way."""
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)


def files(root: Path) -> list[str]:
    """What there is below a folder that is no folder, by path."""
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if not path.is_dir())


def entries(folder: Path) -> list[str]:
    """The names in a folder, in order, the marker of a root left aside."""
    return sorted(path.name for path in folder.iterdir() if path.name != NAME)


def open_descriptors() -> int:
    """How many files this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


@contextmanager
def immutable(*paths: Path) -> Iterator[None]:
    """Files or folders that nobody may change; skips the test where that can't be had."""
    if os.geteuid() != 0:
        pytest.skip("only root may make a file immutable")
    done = subprocess.run(["chattr", "+i", *map(str, paths)], capture_output=True, text=True, check=False)
    try:
        if done.returncode:
            pytest.skip(f"no immutable files here: {done.stderr.strip()}")
        yield
    finally:
        with contextlib.suppress(FileNotFoundError):
            subprocess.run(["chattr", "-i", *map(str, paths)], check=False, capture_output=True)
