"""Mounts for one test. Where this machine does not allow them the test is skipped, and says why."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


def mount(*arguments: str | Path) -> None:
    """Run mount(8); skips the test if it may not."""
    done = subprocess.run(["mount", *map(str, arguments)], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"this machine does not let us mount: {done.stderr.strip()}")


def unmount(target: Path, *options: str) -> None:
    """Run umount(8)."""
    subprocess.run(["umount", *options, str(target)], check=True, capture_output=True)


@contextmanager
def mounted(*arguments: str | Path) -> Iterator[Path]:
    """Something mounted at the last of ``arguments``, until the end of the block at most."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount")
    target = Path(arguments[-1])
    mount(*arguments)
    try:
        yield target
    finally:
        subprocess.run(["umount", "--lazy", str(target)], check=False, capture_output=True)


@contextmanager
def tmpfs(target: Path, options: str = "size=4m") -> Iterator[Path]:
    """A file system in memory."""
    with mounted("-t", "tmpfs", "-o", options, "pglapse-test", target) as there:
        yield there


@contextmanager
def bound(source: Path, target: Path) -> Iterator[Path]:
    """A file or folder that is seen at another place as well."""
    with mounted("--bind", source, target) as there:
        yield there
