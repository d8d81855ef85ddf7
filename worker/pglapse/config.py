"""Read ``pglapse.toml``: which storages there are. Anything doubtful stops the start, in one clear line.

The database is not named here: DATABASE_URL, or libpq's own PG* variables, so that no password ends up
in a file that people commit.
"""

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pglapse.areas import check_apart, checked_areas
from pglapse.errors import SettingError
from pglapse.known import only_known
from pglapse.storage.s3.settings import S3Settings, s3_settings
from pglapse.text import printable

DEFAULT = "pglapse.toml"
VARIABLE = "PGLAPSE_CONFIG"

EXAMPLE = '[storage.public]\nkind = "local"\nroot = "/srv/uploads/public"'


@dataclass(frozen=True, slots=True)
class LocalSettings:
    """A folder on this machine."""

    name: str
    root: Path
    prune: bool = True
    """Remove folders that a deletion emptied, up to the root."""
    marker: bool = True
    """Keep a small file in the root, by which it is known from an empty mount point."""
    temp: tuple[str, ...] = ()
    """Folders below the root in which files that no row knows are swept up."""


@dataclass(frozen=True, slots=True)
class Settings:
    """A whole configuration file."""

    source: Path
    storages: Mapping[str, LocalSettings | S3Settings]


def load(named: str | None = None, environment: Mapping[str, str] = os.environ) -> Settings:
    """Read what ``--config`` names, else PGLAPSE_CONFIG, else ./pglapse.toml; raises `SettingError`."""
    chosen = named or environment.get(VARIABLE) or DEFAULT
    path = Path(chosen)
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        by_whom = " (from --config)" if named else f" (from {VARIABLE})" if chosen != DEFAULT else ""
        raise SettingError(
            f"there is no configuration file {printable(chosen)}{by_whom}",
            hint=f"name one with --config or {VARIABLE}, or write {DEFAULT} with a table like "
            + EXAMPLE.replace("\n", " "),
        ) from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise SettingError(f"can't read the configuration file {printable(chosen)}: {reason}") from error
    try:
        document = tomllib.loads(content.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise SettingError(f"{chosen} is not UTF-8 text") from error
    except tomllib.TOMLDecodeError as error:
        raise SettingError(f"{chosen} is not valid TOML: {printable(str(error))}") from error
    return Settings(source=path, storages=_storages(chosen, document))


def _storages(chosen: str, document: dict[str, Any]) -> dict[str, LocalSettings | S3Settings]:
    only_known(chosen, "", document, {"storage"})
    tables = document.get("storage", {})
    if not isinstance(tables, dict) or not all(isinstance(table, dict) for table in tables.values()):
        raise SettingError(f"{chosen}: storages are tables, each named: [storage.public]")
    if not tables:
        raise SettingError(
            f"{chosen} names no storage", hint="add a table like " + EXAMPLE.replace("\n", " ")
        )
    storages = {
        name: _storage(f"{chosen}: storage.{printable(name)}", name, table) for name, table in tables.items()
    }
    local = [one for one in storages.values() if isinstance(one, LocalSettings)]
    check_apart(chosen, ((one.name, str(one.root), one.temp) for one in local))
    return storages


def _storage(where: str, name: str, table: dict[str, Any]) -> LocalSettings | S3Settings:
    if not name:
        raise SettingError(f"{where}: the name of a storage can't be empty")
    kind = table.get("kind")
    if kind is None:
        raise SettingError(f'{where}: kind is missing (kind = "local" or kind = "s3")')
    if kind == "local":
        return _local(where, name, table)
    if kind == "s3":
        return s3_settings(where, name, table)
    raise SettingError(f'{where}: unknown kind {kind!r}; known: "local", "s3"')


def _local(where: str, name: str, table: dict[str, Any]) -> LocalSettings:
    only_known(where, "key ", table, {"kind", "root", "prune", "marker", "temp"})
    root = table.get("root")
    if root is None:
        raise SettingError(f'{where}: root is missing (root = "/srv/uploads/public")')
    if not isinstance(root, str) or not root or "\x00" in root:
        raise SettingError(f"{where}: root must be the path of a folder")
    if not Path(root).is_absolute():
        raise SettingError(f"{where}: root must be an absolute path, not {root!r}")
    if os.path.normpath(root).strip("/") == "":
        raise SettingError(f"{where}: root can't be the whole file system")
    switches = {key: table.get(key, True) for key in ("prune", "marker")}
    for key, value in switches.items():
        if not isinstance(value, bool):
            raise SettingError(f"{where}: {key} must be true or false")
    temp = checked_areas(where, table.get("temp", []))
    return LocalSettings(name, Path(root), temp=temp, **switches)
