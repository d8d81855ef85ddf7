"""Build what the configuration names."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from pglapse.config import Settings
from pglapse.storage.local import LocalStorage, keeping_roots, open_local


@contextmanager
def storages(settings: Settings, threads: int) -> Iterator[dict[str, LocalStorage]]:
    """The storages by name, sharing ``threads`` threads; raises `SettingError` when a root is missing."""
    with ThreadPoolExecutor(threads, thread_name_prefix="delete") as pool:
        opened = [
            open_local(one.name, one.root, pool, threads=threads, prune=one.prune)
            for one in settings.storages.values()
        ]
        yield {storage.name: storage for storage in keeping_roots(opened)}
