"""The temporary areas that a configuration names: folders below a root, none within another."""

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
