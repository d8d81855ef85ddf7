"""Share out the files of a batch: which lie in one folder, and which folders one thread takes at a time."""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from pglapse.paths import LONGEST_NAME, LONGEST_PATH, BadPath, split
from pglapse.storage import File, Outcome
from pglapse.storage.marker import is_marker

FEWEST = 4  # files in a job, so that it is worth its walk from the root
MOST = 64  # and so that no folder is held open for long
EACH = 4  # jobs for each thread, so that none is left with all the slow ones

Entry = tuple[int, bytes]
"""Position in the batch and name in the folder."""

Part = tuple[tuple[bytes, ...], Sequence[Entry]]
"""A folder, as the names that lead there from the root, and files in it."""

Job = list[Part]


@dataclass(slots=True)
class Plan:
    """What there is to do, folder by folder, and what is refused for its path alone."""

    groups: dict[bytes, Part] = field(default_factory=dict)
    refused: list[tuple[int, Outcome]] = field(default_factory=list)
    guarded: bool = False
    """Whether any file is to go only if it is still what it was."""


def planned(files: Iterable[File]) -> Plan:
    """Judge each path as text, and put files of one folder together."""
    plan = Plan()
    groups: dict[bytes, tuple[tuple[bytes, ...], list[Entry]]] = {}
    for position, file in enumerate(files):
        try:
            encoded = file.path.encode()
            cut = encoded.rfind(b"/") + 1
            name = encoded[cut:]
            group = groups.get(encoded[:cut])
            if (
                group is None
                or not name
                or name[0] == 46  # a dot
                or len(name) > LONGEST_NAME
                or len(encoded) > LONGEST_PATH
                or b"\0" in name
            ):  # a folder that is new, or a name that takes a closer look
                *folders, name = split(file.path)
                if is_marker(name):
                    raise BadPath("it is the marker of a storage's root")
                group = groups.setdefault(encoded[:cut], (tuple(folders), []))
        except UnicodeEncodeError:
            plan.refused.append((position, Outcome("refused", error="the path is not valid Unicode")))
        except BadPath as error:
            plan.refused.append((position, Outcome("refused", error=str(error))))
        else:
            group[1].append((position, name))
            if file.expected:
                plan.guarded = True
    plan.groups.update(groups)
    return plan


def jobs(groups: dict[bytes, Part], threads: int) -> deque[Job]:
    """Jobs of about the same size: small folders, neighbours first, together; large ones in pieces.

    The first is small, since it is done by one thread alone, to see whether more are worth their while.
    """
    total = sum(len(entries) for _, entries in groups.values())
    size = max(FEWEST, min(MOST, -(-total // (threads * EACH))))
    shared: deque[Job] = deque([[]])
    room = FEWEST
    for key in sorted(groups):  # keys end in a slash: a folder comes right before all that is below it
        folders, entries = groups[key]
        start = 0
        while start < len(entries):
            if room == 0 or (len(shared) > 1 and room < min(size, len(entries) - start)):
                shared.append([])
                room = size
            piece = entries[start : start + room]
            shared[-1].append((folders, piece))
            room -= len(piece)
            start += len(piece)
    return shared
