"""Permission denied: is it these files, or is it the storage?

A file that may not be deleted is that file's trouble: it fails, and is tried again ever more rarely. But a
worker that runs as the wrong user may delete nothing at all, and a million files must not use up their
attempts for that. Nor may the storage wait for ever on files at the head of the queue that are really
somebody else's. So: where nothing but denials come back the storage is away, unless it deleted something
just now; and every now and then it looks past the files at the head by failing them.
"""

from collections.abc import Sequence

from pglapse.storage import clock

FILES = 20  # fewer denials than this, or all in one folder, say nothing about the storage
FOLDERS = 2
RECENT = 60.0  # seconds: a storage that deleted something so lately is not the one at fault
FIRST_LOOK = 600.0  # seconds until the first look past the head; each further one takes twice as long
LOOK = 5.0  # seconds that a look takes: within them no file comes back from its first backoff


class Denials:
    """What a storage remembers of denials. For one thread."""

    def __init__(self) -> None:
        self._deleted_at = float("-inf")
        self._look_at: float | None = None
        self._wait = FIRST_LOOK
        self._looking_since: float | None = None

    def deleted(self) -> None:
        """Something was deleted: the storage lets this worker do it."""
        self._deleted_at = clock()
        self._look_at = self._looking_since = None

    def everywhere(self, folders: Sequence[object]) -> bool:
        """Whether denials, of files given by their folders, are the storage's."""
        now = clock()
        if len(folders) < FILES or len(set(folders)) < FOLDERS or now - self._deleted_at < RECENT:
            return False
        if self._look_at is None:
            self._look_at, self._wait = now + FIRST_LOOK, FIRST_LOOK
        if now < self._look_at:
            return True
        if self._looking_since is None:
            self._looking_since = now
        if now - self._looking_since < LOOK:
            return False
        self._wait *= 2
        self._look_at, self._looking_since = now + self._wait, None
        return True
