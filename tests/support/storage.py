"""Storages as tests use them: one call, one outcome for each path, in order."""

from collections.abc import Callable, Sequence

from pglapse.storage import Away, Batch, File, Outcome, Storage


def delete(
    storage: Storage, files: Sequence[str | File], go_on: Callable[[], bool] = lambda: True
) -> list[Outcome]:
    """Have a storage delete files. What it leaves is given back, with its reason if the storage is away."""
    batch = Batch(
        [File(file) if isinstance(file, str) else file for file in files], stopping=lambda: not go_on()
    )
    reason = None
    try:
        storage.delete(batch)
    except Away as away:
        reason = away.reason
    batch.give_back(Outcome("released", error=reason), begun=True)
    outcomes = dict(batch.collect())
    return [outcomes[position] for position in range(len(files))]
