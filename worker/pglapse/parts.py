"""Build what the configuration names."""

import logging
import os
import sys
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from threading import Barrier
from typing import NoReturn

from pglapse.config import Settings
from pglapse.errors import PglapseError
from pglapse.storage import Storage
from pglapse.storage.local import LocalStorage, keeping_roots, open_local
from pglapse.storage.s3 import open_s3
from pglapse.storage.s3.settings import S3Settings


@contextmanager
def storages(settings: Settings, threads: int) -> Iterator[dict[str, Storage]]:
    """The storages by name, each with threads of its own: one that hangs holds up no other.

    Raises `SettingError` when a root or a library is missing.
    """
    with ExitStack() as stack:
        local: list[LocalStorage] = []
        buckets: list[Storage] = []
        for one in settings.storages.values():
            pool = stack.enter_context(_threads(threads))
            if isinstance(one, S3Settings):
                buckets.append(open_s3(one, pool, threads=threads))
            else:
                local.append(
                    open_local(one.name, one.root, pool, threads=threads, prune=one.prune, marker=one.marker)
                )
        opened = {storage.name: storage for storage in [*keeping_roots(local), *buckets]}
        yield {name: opened[name] for name in settings.storages}


@contextmanager
def _threads(count: int) -> Iterator[Executor]:
    with ThreadPoolExecutor(count, thread_name_prefix="delete") as pool:
        _start(pool, count)
        yield pool


def leave(code: int = 0) -> NoReturn:
    """End the process although a thread hangs in a storage: a regular end would wait for it."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


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
