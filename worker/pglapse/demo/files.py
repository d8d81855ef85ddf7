"""The demo's files: written with a manifest beside them, and looked at again when the show is over."""

import csv
import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

from pglapse.demo.plan import File
from pglapse.storage import marker

STORAGES = ("public", "private")

_COLUMNS = ("storage", "path", "fate", "why", "size", "mtime_ns", "sha256")


@dataclass(frozen=True, slots=True)
class Listed:
    """One line of the manifest: a file as it was written, and whether it must be gone at the end."""

    storage: str
    path: str
    goes: bool
    why: str
    size: int
    mtime_ns: int
    sha256: str

    @property
    def name(self) -> str:
        return f"{self.storage}/{self.path}"


def write(folder: Path, files: list[File], seed: int) -> Path:
    """Write every file below ``folder`` and then the manifest; return where the manifest is."""
    random = Random(seed)  # noqa: S311 - contents, not secrets
    for storage in STORAGES:
        (folder / storage).mkdir()
    manifest = folder / "manifest.csv"
    with manifest.open("w", encoding="utf-8", newline="") as out:
        table = csv.writer(out)
        table.writerow(_COLUMNS)
        for file in files:
            content = random.randbytes(file.size)
            place = folder / file.storage / file.path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
            fate = "goes" if file.goes else "stays"
            digest = hashlib.sha256(content).hexdigest()
            table.writerow(
                (file.storage, file.path, fate, file.why, file.size, place.stat().st_mtime_ns, digest)
            )
    return manifest


def read(manifest: Path) -> list[Listed]:
    """The manifest as it lies on disk."""
    with manifest.open(encoding="utf-8", newline="") as lines:
        return [
            Listed(
                storage=line["storage"],
                path=line["path"],
                goes=line["fate"] == "goes",
                why=line["why"],
                size=int(line["size"]),
                mtime_ns=int(line["mtime_ns"]),
                sha256=line["sha256"],
            )
            for line in csv.DictReader(lines)
        ]


def differences(folder: Path, manifest: Path) -> list[str]:
    """What on disk is not as the manifest says: too much, too little, or no longer the same."""
    listed = read(manifest)
    found = set(_walk(folder))
    told = [_verdict(folder, file, present=file.name in found) for file in listed]
    strangers = found - {file.name for file in listed}
    told += [f"file {name} is there, though nobody made it" for name in sorted(strangers)]
    told += [f"folder {name} is empty and still there" for name in _empty(folder)]
    return [difference for difference in told if difference]


def _verdict(folder: Path, file: Listed, *, present: bool) -> str | None:
    if file.goes:
        return f"file {file.name} is still there ({file.why})" if present else None
    if not present:
        return f"file {file.name} is gone ({file.why})"
    place = folder / file.name
    if place.stat().st_mtime_ns != file.mtime_ns or place.stat().st_size != file.size:
        return f"file {file.name} was touched ({file.why})"
    if hashlib.sha256(place.read_bytes()).hexdigest() != file.sha256:
        return f"file {file.name} has another content ({file.why})"
    return None


def _walk(folder: Path) -> Iterator[str]:
    for storage in STORAGES:
        for at, _, names in os.walk(folder / storage):
            for name in set(names) - {marker.NAME}:
                yield (Path(at) / name).relative_to(folder).as_posix()


def _empty(folder: Path) -> Iterator[str]:
    """Folders that lost their last file and stayed behind; the storages' own roots may be empty."""
    for storage in STORAGES:
        for at, folders, names in os.walk(folder / storage):
            if not folders and not names and Path(at) != folder / storage:
                yield Path(at).relative_to(folder).as_posix()
