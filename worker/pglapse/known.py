"""Tables of a configuration file know their keys; a key that is misspelt is told from one that is missing."""

import difflib
from collections.abc import Collection, Mapping
from typing import Any

from pglapse.errors import SettingError
from pglapse.text import printable


def only_known(where: str, what: str, table: Mapping[str, Any], known: Collection[str]) -> None:
    """Raise `SettingError` for the first key that is not known, with the one that may be meant."""
    for key in table:
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            meant = f"did you mean {close[0]}?" if close else f"known: {', '.join(sorted(known))}"
            raise SettingError(f"{where}: unknown {what}{printable(key)!r}; {meant}")
