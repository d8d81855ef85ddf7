"""A lane for each storage: one thread that has it delete one batch after the other.

A storage that is slow, or hangs, holds up its own lane and no other. The main thread puts batches in, looks
after what came of them, and decides from the lane's record whether to put in more: a storage that is away
rests for a while, longer each time, and is looked at before it gets files again.
"""

import logging
import random
from collections import Counter
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from threading import Thread

from pglapse import text
from pglapse.errors import HelperDied
from pglapse.queue import START, Claim, Position, Result, Taken
from pglapse.storage import RELEASED, Away, Batch, File, Outcome, Storage, Verdict, clock

log = logging.getLogger(__name__)

DEPTH = 2  # batches in hand: while one is being deleted, the next is there already
FIRST_TAKE = 100  # files in the first batch, before anything is known of a storage's speed
PACE = 2.0  # seconds that a batch may well take
FIRST_REST = 1.0
LONGEST_REST = 60.0
SAY_EVERY = 60.0
NEEDS_A_REASON: tuple[Verdict, ...] = ("failed", "refused", "changed")


class Hand:
    """A batch in our hands: the claims, what became of them so far, and whether the storage is done.

    What was taken is read when it is first asked for, so that the server need not wait for that.
    """

    def __init__(
        self,
        taken: Taken | Sequence[Claim],
        until: float,
        stopping: Callable[[], bool],
        *,
        alone: bool = False,
    ) -> None:
        """``until``, ``stopping``: as of `Batch`."""
        self._taken = taken
        self._until = until
        self._stopping = stopping
        self._content: tuple[Sequence[Claim], Batch] | None = None
        self.alone = alone
        """Its rows were lost with a worker: nothing else may be in hand while it is worked on."""
        self.taken_at = clock()
        self.began_at: float | None = None
        self.done_at: float | None = None
        self.away: Away | None = None
        self.begun = False
        """Whether the lane's thread has it or will get to it."""
        self.counts: Counter[Verdict] = Counter()
        self.freed = 0
        self.reasons: dict[tuple[Verdict, str], list[Claim]] = {}

    @property
    def batch(self) -> Batch:
        """The files as the storage gets them."""
        return self.read()[1]

    @property
    def until(self) -> float:
        """When no further file of it may be begun."""
        return self._until if self._content is None else self._content[1].until

    @property
    def claims(self) -> Sequence[Claim]:
        """The files as they were taken, in the order of the batch."""
        return self.read()[0]

    def read(self) -> tuple[Sequence[Claim], Batch]:
        """Read what was taken, unless that was done; by the main thread only."""
        if self._content is None:
            claims = self._taken.claims() if isinstance(self._taken, Taken) else self._taken
            files = list(map(File, [claim.path for claim in claims], [claim.expected for claim in claims]))
            self._content = claims, Batch(files, self._until, self._stopping)
        return self._content

    def collect(self) -> list[Result]:
        """Results since the last call."""
        if self._content is None:
            return []
        claims, batch = self._content
        results = [Result(claims[position], outcome) for position, outcome in batch.collect()]
        counts = Counter([outcome.verdict for _, outcome in results])
        self.counts += counts
        self.freed += sum([outcome.bytes for _, outcome in results])
        if any(counts[verdict] for verdict in NEEDS_A_REASON):
            for claim, outcome in results:
                if outcome.verdict in NEEDS_A_REASON:
                    reason = outcome.verdict, outcome.error or "no reason given"
                    self.reasons.setdefault(reason, []).append(claim)
        return results


class Lane:
    """A storage, its thread, and what the main thread knows of the two."""

    def __init__(
        self, storage: Storage, *, batch: int, wake: Callable[[], None], stopping: Callable[[], bool]
    ) -> None:
        self.storage = storage
        self.batch = batch
        self.take = min(batch, FIRST_TAKE)
        """Files to ask for next: as many as the storage deletes within `PACE`."""
        self.after: Position = START
        self.turns = 0
        self.look_at = 0.0
        """When, by `clock`, there may be more files."""
        self.hands: list[Hand] = []
        self.rest_until = 0.0
        self.trouble: str | None = None
        self.died: BaseException | None = None
        self._wake = wake
        self._stopping = stopping
        self._failures = 0
        self._said_at = 0.0
        self._checked = False
        self._seen_at_check = False
        """Whether a look at the storage tells what is wrong with it, so that another tells when it is not."""
        self._checking_since: float | None = None
        self._given_up = False
        self._answer: Away | bool | None = None
        self._inbox: SimpleQueue[Hand | None] = SimpleQueue()
        self._thread: Thread | None = None

    @property
    def name(self) -> str:
        return self.storage.name

    @property
    def hung(self) -> bool:
        """Whether it was given up on; what the storage has begun stays in hand."""
        return self._given_up

    @property
    def checked(self) -> bool:
        """Whether the storage was well when it was last looked at."""
        return self._checked

    def room(self, now: float) -> bool:
        """Whether a batch may be asked for now. Has the storage checked first if it has to be."""
        if now < self.rest_until or len(self.hands) >= DEPTH or self._checking_since is not None:
            return False
        if not self._checked:
            self._checking_since = now
            self._put(None)
            return False
        return now >= self.look_at

    def next_look(self, now: float) -> float:
        """Seconds until `room` may answer otherwise by the mere passing of time."""
        if len(self.hands) >= DEPTH or self._checking_since is not None:
            return float("inf")
        return max(self.rest_until, self.look_at if self._checked else 0.0) - now

    def hold(self, taken: Taken | Sequence[Claim], until: float, *, alone: bool = False) -> Hand:
        """Take claimed files into our hands, to be begun later."""
        hand = Hand(taken, until, self._stopping, alone=alone)
        self.hands.append(hand)
        return hand

    def begin(self, hand: Hand) -> None:
        """Have a batch that is in our hands deleted."""
        hand.read()  # here, not by the lane's thread: two that read at once would make two batches of it
        hand.begun = True
        self._put(hand)

    def finished(self) -> list[Hand]:
        """Batches that the storage is done with, in order; each is answered once.

        Takes in what a look at the storage said; raises `HelperDied` when the lane's thread is gone.
        """
        if self.died is not None:
            raise HelperDied(
                f"the thread of storage {self.name} died: {type(self.died).__name__}: {self.died}"
            ) from self.died
        if self._answer is not None:
            answer, self._answer = self._answer, None
            self._checking_since = None
            self._given_up = False
            if isinstance(answer, Away):
                self._rest(answer)
                self._seen_at_check = True
            else:
                self._checked = True
                self.look_at = 0.0
                if self._seen_at_check:
                    self._well()
        finished = [hand for hand in self.hands if hand.done_at is not None]
        if finished:
            self._given_up = False
        self.hands = [hand for hand in self.hands if hand.done_at is None]
        return finished

    def judge(self, hand: Hand) -> None:
        """Learn from a batch whose results are all collected: is the storage well, and how quick is it?"""
        if hand.away is not None:
            self._rest(hand.away)
            return
        tried = sum(hand.counts.values()) - hand.counts["released"]
        if not tried:
            return
        self._well()
        if hand.began_at is not None and hand.done_at is not None:
            within_pace = tried * PACE / max(hand.done_at - hand.began_at, 1e-6)
            self.take = max(1, min(self.batch, self.take * 2, int(within_pace)))

    def _well(self) -> None:
        """The storage does what it should."""
        if self.trouble is not None:
            log.info("storage %s works again", text.printable(self.name))
        self.trouble = None
        self._seen_at_check = False
        self._failures = 0

    def give_up(self, seconds: float) -> None:
        """The storage hangs: take back what it has not begun."""
        self.trouble = f"nothing has moved for {text.span(seconds)}: the storage hangs"
        for hand in self.hands:
            hand.batch.give_back(Outcome("released", error=self.trouble))
        self._given_up = True
        log.warning("storage %s: %s; the others go on", text.printable(self.name), self.trouble)

    def stalled(self, now: float) -> float:
        """For how many seconds the storage has not moved, though it has something to do."""
        if self._checking_since is not None:
            return now - self._checking_since
        moved = [
            max(hand.began_at, hand.batch.moved_at)
            for hand in self.hands
            if hand.began_at is not None and hand.done_at is None
        ]
        return now - max(moved) if moved else 0.0

    def _rest(self, away: Away) -> None:
        """Leave the storage alone for a while, and look at it before it gets files again."""
        now = clock()
        self._failures += 1
        self._seen_at_check = False
        longest = min(LONGEST_REST, FIRST_REST * 2.0 ** min(self._failures - 1, 10))
        pause = longest * random.uniform(0.5, 1)  # noqa: S311 (jitter, not a secret)
        self.rest_until = now + (pause if away.retry_in is None else max(pause, away.retry_in))
        self.take = max(1, self.take // 2)
        self._checked = False
        if self.trouble != away.reason or now - self._said_at >= SAY_EVERY:
            self._said_at = now
            log.warning(
                "storage %s is away, its files wait: %s",
                text.printable(self.name),
                text.printable(away.reason, 1000),
            )
        self.trouble = away.reason

    def _put(self, item: Hand | None) -> None:
        if self._thread is None:
            self._thread = Thread(target=self._run, name=f"lane-{self.name}", daemon=True)
            self._thread.start()
        self._inbox.put(item)

    def _run(self) -> None:
        try:
            while True:
                hand = self._inbox.get()
                if hand is None:
                    self._answer = self._check()
                else:
                    self._work(hand)
                self._wake()
        except BaseException as error:  # handed to the main thread
            self.died = error
            self._wake()

    def _check(self) -> Away | bool:
        try:
            self.storage.check()
        except Away as away:
            return away
        except Exception as error:
            log.exception("an unexpected error in storage %s", text.printable(self.name))
            return Away(f"an unexpected error: {type(error).__name__}: {error}")
        return True

    def _work(self, hand: Hand) -> None:
        """Have the storage delete a batch. An error of its own fails its files, and stops nothing else."""
        left = RELEASED
        hand.began_at = clock()
        try:
            self.storage.delete(hand.batch)
        except Away as away:
            hand.away = away
            left = Outcome("released", error=away.reason)
        except Exception as error:
            log.exception("an unexpected error in storage %s", text.printable(self.name))
            left = Outcome("failed", error=f"an unexpected error: {type(error).__name__}: {error}")
        hand.batch.give_back(left, begun=True)
        hand.done_at = clock()
