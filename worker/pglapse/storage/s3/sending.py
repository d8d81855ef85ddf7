"""Have many objects deleted: a thousand with one request where the server can, one by one where not."""

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future, wait
from threading import Event
from typing import TYPE_CHECKING, TypeVar

from pglapse.storage import Away
from pglapse.storage.s3.calls import Gone, Target
from pglapse.storage.s3.keys import fits_xml
from pglapse.storage.s3.troubles import NOT_HERE, Refusal

if TYPE_CHECKING:  # it imports boto3, which need not be here
    from pglapse.storage.s3.client import Client

log = logging.getLogger(__name__)

T = TypeVar("T")
Answer = Gone | Refusal | None
"""What the server said of one target; None: nothing, although it was asked."""

FEW = 16  # targets of a refused request that are sent one by one rather than in halves again
ABOUT_REQUESTS = NOT_HERE | {
    "MissingContentMD5", "InvalidDigest", "BadDigest",
    "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch",
}  # fmt: skip
"""No request with several keys will do better."""


class Sender:
    """Sends deletions, and knows what the server turned out to be capable of."""

    def __init__(self, client: "Client", pool: Executor, batch_size: int) -> None:
        self.client = client
        self.pool = pool
        self.batch_size = batch_size
        self.in_bulk = True
        """Whether the server takes several keys in one request, as far as is known."""
        self._warned = False

    def send(
        self, targets: Sequence[Target], tell: Callable[[Target, Answer], None], over: Callable[[], bool]
    ) -> None:
        """Delete targets and ``tell`` of each; between requests, ask whether it is ``over``.

        Raises `Away`. A target that was not told of was not deleted, or its answer was lost; deleting it
        again does no harm.
        """
        many = [target for target in targets if fits_xml(target.key)] if self.in_bulk else []
        for start in range(0, len(many), self.batch_size):
            if over():
                return
            self._send_many(many[start : start + self.batch_size], tell, over)
        rest = [target for target in targets if not fits_xml(target.key)] if many else list(targets)
        self._send_each(rest, tell, over)

    def each(self, act: Callable[[T], None], items: Sequence[T], over: Callable[[], bool]) -> None:
        """Call ``act`` for each item, in several threads; after an `Away` no further one is begun."""
        away = Event()

        def one(item: T) -> None:
            if away.is_set() or over():
                return
            try:
                act(item)
            except Away:
                away.set()
                raise

        jobs: list[Future[None]] = []
        try:
            for item in items:
                jobs.append(self.pool.submit(one, item))
        finally:
            wait(jobs)
        for job in jobs:
            job.result()

    def _send_each(
        self, targets: Sequence[Target], tell: Callable[[Target, Answer], None], over: Callable[[], bool]
    ) -> None:
        self.each(lambda target: tell(target, self.one(target)), targets, over)

    def one(self, target: Target) -> Gone | Refusal:
        """Delete one target with a request of its own; raises `Away`."""
        try:
            return self.client.delete(target)
        except Refusal as refusal:
            return refusal

    def _send_many(
        self, targets: Sequence[Target], tell: Callable[[Target, Answer], None], over: Callable[[], bool]
    ) -> None:
        try:
            answers = self.client.delete_many(targets)
        except Refusal as refusal:
            self._refused(refusal, targets, tell, over)
            return
        away: Away | None = None
        for target in targets:
            answer = answers.get(target)
            if isinstance(answer, Refusal) and (found := self.client.away(answer)):
                away = away or found
            else:
                tell(target, answer)
        if away:
            raise away

    def _refused(
        self,
        refusal: Refusal,
        targets: Sequence[Target],
        tell: Callable[[Target, Answer], None],
        over: Callable[[], bool],
    ) -> None:
        """Find another way when the server takes no request as it is; raises `Away` if there is none."""
        if refusal.code in ABOUT_REQUESTS:
            log.warning(
                "%s takes one key a request only (%s): deleting its files one by one, which is slower",
                self.client.where, refusal,
            )  # fmt: skip
            self.in_bulk = False
            self._send_each(targets, tell, over)
        elif refusal.status in (400, 413):  # too many keys for it, or one that it can't stand
            if not self._warned:
                self._warned = True
                log.warning(
                    "%s refused a request with %d keys (%s): trying fewer; if this goes on, set batch_size",
                    self.client.where, len(targets), refusal,
                )  # fmt: skip
            if len(targets) <= FEW:
                self._send_each(targets, tell, over)
                return
            half = len(targets) // 2
            for part in (targets[:half], targets[half:]):
                if not over():
                    self._send_many(part, tell, over)
        else:
            raise self.client.refused(refusal) from refusal
