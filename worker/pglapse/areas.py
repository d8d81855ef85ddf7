"""The temporary areas that a configuration names: folders below a root, none within another."""

import os.path
from collections.abc import Iterable

from pglapse.errors import SettingError
from pglapse.paths import BadPath, split
from pglapse.text import printable


def checked_areas(where: str, value: object) -> tuple[str, ...]:
    """The areas that a configuration names; raises `SettingError` for anything doubtful."""
    if not isinstance(value, list) or not all(isinstance(area, str) for area in value):
        raise SettingError(f'{where}: temp must be a list of folders below the root, such as ["tmp"]')
    areas = [area.strip("/") if area != "/" else area for area in value]
    for area in areas:
        try:
            split(area)
        except BadPath as error:
            raise SettingError(
                f"{where}: temp: {printable(area)!r} is no folder below the root: {error}"
            ) from None
    for one in areas:
        for other in areas:
            if one is not other and f"{other}/".startswith(f"{one}/"):
                raise SettingError(f"{where}: temp: {printable(other)!r} lies in {printable(one)!r}")
    return tuple(areas)


def check_apart(chosen: str, storages: Iterable[tuple[str, str, tuple[str, ...]]]) -> None:
    """Raise `SettingError` when an area of one storage and the root of another overlap.

    ``storages``: name, root and areas of each. A file in both has two names, and rows that know it by the
    one would not keep it from being swept by the other.
    """
    roots = [(name, os.path.normpath(root), areas) for name, root, areas in storages]
    for name, root, areas in roots:
        for area in areas:
            for other, its_root, _ in roots:
                if other != name and _overlap(f"{root}/{area}", its_root):
                    raise SettingError(
                        f"{chosen}: storage.{printable(name)}: temp: {printable(area)!r} and the root of "
                        f"storage {printable(other)} overlap: files there would have two names",
                        hint="name the area in the storage by whose names the database knows the files in it",
                    )


def _overlap(one: str, other: str) -> bool:
    return f"{one}/".startswith(f"{other}/") or f"{other}/".startswith(f"{one}/")
