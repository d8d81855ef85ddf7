"""Build what the configuration names."""

from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor, wait
from contextlib import contextmanager
from threading import Barrier

from pglapse.config import Settings
from pglapse.errors import PglapseError
from pglapse.storage.local import LocalStorage, keeping_roots, open_local


@contextmanager
def storages(settings: Settings, threads: int) -> Iterator[dict[str, LocalStorage]]:
    """The storages by name, sharing ``threads`` threads; raises `SettingError` when a root is missing."""
    with ThreadPoolExecutor(threads, thread_name_prefix="delete") as pool:
        _start(pool, threads)
        opened = [
            open_local(one.name, one.root, pool, threads=threads, prune=one.prune)
            for one in settings.storages.values()
        ]
        yield {storage.name: storage for storage in keeping_roots(opened)}


def _start(pool: Executor, threads: int) -> None:
    """Start all threads now, while a machine that has none to spare can still be told of."""
    together = Barrier(threads)
    try:
        wait([pool.submit(together.wait) for _ in range(threads)])
    except RuntimeError as error:
        together.abort()
        raise PglapseError(
            f"can't start {threads} threads: {error}", hint="ask for fewer with --threads, or raise the limit"
        ) from error
