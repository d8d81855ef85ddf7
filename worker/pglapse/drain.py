"""Work off what is due: take files, delete them, hand in what became of them with the next request.

Results that could not be handed in (a lost connection, a row that an application holds) stay with the
worker and go in again; the lease token makes that harmless.
"""

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from pglapse import queue, text
from pglapse.queue import Claim, Connection, Position, Result
from pglapse.storage import Away, Batch, File, Outcome, Storage, Verdict, clock

log = logging.getLogger(__name__)

SAFE_PART = 0.9  # of the lease: what is left is for handing in
MOST = 20  # batches whose results could not be handed in; beyond that no more files are taken
RESTART = 20  # requests after which the search starts from the oldest row again
UNUSUAL: tuple[Verdict, ...] = ("missing", "failed", "refused", "released")
ALL_MISSING = 100  # this many files, all of them missing, are worth a warning


@dataclass(slots=True)
class Worker:
    """Who works, where, how hard, and what it has done so far."""

    id: str
    storages: Mapping[str, Storage]
    stopping: Callable[[], bool]
    batch: int = 500
    lease: float = 60.0
    take: int = 0
    """Files to ask for next: fewer than ``batch`` while the storage is slow."""
    unreported: list[Result] = field(default_factory=list)
    """Results to be handed in: first those that could not be so far, then new ones."""
    done: int = 0
    failed: int = 0
    freed: int = 0

    def __post_init__(self) -> None:
        self.take = self.take or self.batch

    @property
    def clogged(self) -> bool:
        """Whether so many results wait to be handed in that no more files may be taken."""
        return len(self.unreported) >= MOST * self.batch


def drain(conn: Connection, worker: Worker, between: Callable[[], None] = lambda: None) -> float | None:
    """Delete what is due until nothing is, or until told to stop; return the seconds until more is due.

    ``between`` is called after each batch. The search for due rows goes on where the last request ended,
    which spares it the rows just finished, and ends with a look from the very start.
    """
    after: dict[str, Position] = {}
    for turn in range(1, 1_000_000_000):
        stopping = worker.stopping()
        asked = 0 if stopping or worker.clogged else worker.take
        began = clock()  # before the claim: our idea of the lease ends before the server's
        results, later = _at_a_time(worker)
        answer = queue.exchange(
            conn,
            worker.id,
            results,
            storages=list(worker.storages) if asked else [],
            limit=asked,
            lease=worker.lease,
            after=after,
        )
        worker.unreported = later + [result for result in results if result.receipt in answer.unsettled]
        if answer.stale:
            log.info("%d results came too late: another worker took over", len(answer.stale))
        if answer.claims:
            _work(worker, answer.claims, began)
            between()
        elif stopping or answer.wait != 0:
            return answer.wait
        after = answer.after if turn % RESTART else {}
    raise AssertionError("unreachable")


def _at_a_time(worker: Worker) -> tuple[list[Result], list[Result]]:
    """Results to hand in now, and those that wait: the newest batch, and one of those that failed before.

    Rows may be locked for long, or a file source may fail: to hand in all of them each time would take
    longer and longer.
    """
    count, size = len(worker.unreported), worker.batch
    if count <= 2 * size:
        return worker.unreported, []
    return worker.unreported[:size] + worker.unreported[-size:], worker.unreported[size:-size]


def delete(
    storages: Mapping[str, Storage], claims: Sequence[Claim], until: float, stopping: Callable[[], bool]
) -> list[Result]:
    """Delete claimed files, storage by storage; one result for each."""
    groups: dict[str, list[Claim]] = {}
    for claim in claims:
        groups.setdefault(claim.storage, []).append(claim)
    results: list[Result] = []
    for name, group in groups.items():
        storage = storages.get(name)
        if storage is None:
            known = ", ".join(sorted(storages))
            unknown = Outcome("refused", error=f"no storage {name!r} in the worker's configuration ({known})")
            results += [Result(claim, unknown) for claim in group]
        else:
            batch = Batch([File(claim.path) for claim in group], until, stopping)
            try:
                storage.delete(batch)
            except Away as error:
                batch.give_back(Outcome("failed", error=error.reason), begun=True)
            except Exception as error:
                log.exception("an unexpected error in storage %s", text.printable(name))
                batch.give_back(
                    Outcome("failed", error=f"an unexpected error: {type(error).__name__}: {error}"),
                    begun=True,
                )
            batch.give_back(begun=True)
            results += [Result(group[position], outcome) for position, outcome in batch.collect()]
    return results


def _work(worker: Worker, claims: Sequence[Claim], began: float) -> None:
    """Delete a batch, note its results to be handed in, and say so in one line."""
    results = delete(worker.storages, claims, began + worker.lease * SAFE_PART, worker.stopping)
    worker.unreported += results
    counts = Counter(result.outcome.verdict for result in results)
    freed = sum(result.outcome.bytes for result in results)
    worker.done += counts["deleted"] + counts["missing"]
    worker.failed += counts["failed"] + counts["refused"]
    worker.freed += freed
    _report(results, counts, freed, clock() - began)
    if counts["released"] and not worker.stopping():
        worker.take = max(1, worker.take // 2)
    else:
        worker.take = min(worker.batch, worker.take * 2)


def _report(results: Sequence[Result], counts: Counter[Verdict], freed: int, seconds: float) -> None:
    parts = [f"{text.files(counts['deleted'])} deleted, {text.size(freed)} freed"]
    parts += [f"{counts[verdict]:,} {verdict}" for verdict in UNUSUAL if counts[verdict]]
    log.info(
        "%s in %.2f s",
        ", ".join(parts),
        seconds,
        extra=dict(counts) | {"bytes": freed, "seconds": round(seconds, 3)},
    )
    if counts["missing"] == len(results) >= ALL_MISSING:
        log.warning(
            "all %d files of this batch were gone already: is the storage's root right?", len(results)
        )
    reasons: dict[tuple[str, str], list[Claim]] = {}
    for result in results:
        if result.outcome.verdict in ("failed", "refused"):
            reason = result.outcome.verdict, result.outcome.error or "no reason given"
            reasons.setdefault(reason, []).append(result.claim)
    for (verdict, error), claims in list(reasons.items())[:5]:
        first = claims[0]
        log.warning(
            "%s %s:%s%s: %s",
            verdict,
            text.printable(first.storage),
            text.printable(first.path),
            f" and {len(claims) - 1:,} more" if len(claims) > 1 else "",
            text.printable(error),
            extra={"queue_id": first.id, "attempt": first.attempt, "files": len(claims)},
        )
    if len(reasons) > 5:
        log.warning("and %d other reasons: see lapse.queue_detail", len(reasons) - 5)
