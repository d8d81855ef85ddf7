"""Work off what is due: take files, have them deleted, hand in what became of them with the next request.

The main thread, here, does nothing but talk to the database; each storage deletes in a lane of its own, so
the results of one batch are handed in while the next is being deleted. Results that could not be handed in (a
lost connection, a row that an application holds) stay with the worker and go in again; the lease token makes
that harmless.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from os import O_CLOEXEC, O_NONBLOCK, close, pipe2, read, write
from select import POLLIN, poll

from pglapse import markers, queue, text
from pglapse.lane import Hand, Lane
from pglapse.queue import START, Connection, Report, Result, Want
from pglapse.storage import RELEASED, Introduced, Outcome, Storage, Verdict, clock

log = logging.getLogger(__name__)

SAFE_PART = 0.9  # of the lease: what is left is for handing in
RENEW_PART = 0.4  # of the lease; after that the files still in hand are leased anew
MOST = 20  # batches whose results could not be handed in; beyond that no more files are taken
FRESH = 4  # batches of new results that go into one request at most
RESTART = 20  # requests after which the search starts from the oldest row again
KNOWN_FOR = 300.0  # seconds between two questions by what a storage is known
PIECE = 0.5  # longest sleep between two looks at lanes and at whether to stop
SOON = 0.2  # seconds that new results may wait for company while files are being deleted
HELD = 0.5  # before results go in again whose rows were locked
LONG_HELD = 8.0  # the same, when that was to no avail again and again
UNUSUAL: tuple[Verdict, ...] = ("missing", "changed", "failed", "refused", "released")
ADOPT = "if it is to work from now on: select lapse.adopt_database(); no restart is needed"
ALL_MISSING = 100  # this many files, all of them missing, are worth a warning


class Worker:
    """Who works, where, how hard, what is in its hands, and what it has done so far."""

    def __init__(
        self,
        id_: str,
        storages: Mapping[str, Storage],
        stopping: Callable[[], bool],
        *,
        batch: int = 2000,
        lease: float = 60.0,
        patience: float = 60.0,
        grace: float = 25.0,
    ) -> None:
        self.id = id_
        self.stopping = stopping
        self.batch = batch
        self.lease = lease
        self.patience = patience
        """Seconds without any progress after which a storage counts as hung."""
        self.grace = grace
        """Seconds that files in hand may take once told to stop."""
        self.horizon = float("inf")
        """Seconds after which a storage's files are looked for though nobody nudged."""
        self.halted: str | None = None
        """Why the database hands out no file: it is a copy that nobody adopted."""
        self.fresh: list[Result] = []
        """Results not yet handed in."""
        self.held: list[Result] = []
        """Results that could not be handed in when that was tried."""
        self.done = 0
        self.failed = 0
        self.freed = 0
        self._fresh_since = 0.0
        self._held_pause = HELD
        self._held_until = 0.0
        self._alone: tuple[Lane, Hand] | None = None
        self._taken: list[tuple[Lane, Hand]] = []
        """Taken, but not begun yet: first the server gets something to do."""
        self._report: Report | None = None
        """Results made ready for the next request."""
        self._waker, self._wake_up = pipe2(O_NONBLOCK | O_CLOEXEC)
        self.lanes = {
            name: Lane(storage, batch=batch, wake=self.wake, stopping=stopping)
            for name, storage in storages.items()
        }

        self._introduced = {
            name: storage for name, storage in storages.items() if isinstance(storage, Introduced)
        }
        self._introduce_at = 0.0

    def close(self) -> None:
        """Let go of what waking takes; for workers that end before their process does."""
        close(self._waker)
        close(self._wake_up)

    @property
    def unreported(self) -> list[Result]:
        """Results to be handed in."""
        return self.held + self.fresh

    @property
    def clogged(self) -> bool:
        """Whether so many results wait to be handed in that no more files may be taken."""
        return len(self.held) + len(self.fresh) >= MOST * self.batch

    @property
    def busy(self) -> bool:
        """Whether a storage has files in hand, one that hangs left aside."""
        return any(lane.hands and not lane.hung for lane in self.lanes.values())

    @property
    def waiting(self) -> bool:
        """Whether a batch waits until it is the only one in our hands."""
        return self._alone is not None

    @property
    def in_hand(self) -> list[str]:
        """The storages that have files in hand."""
        return [lane.name for lane in self.lanes.values() if lane.hands]

    @property
    def troubles(self) -> dict[str, str]:
        """What is wrong with which storage; with all of them, where the database hands out nothing."""
        wrong = {lane.name: lane.trouble or self.halted for lane in self.lanes.values()}
        return {name: trouble for name, trouble in wrong.items() if trouble is not None}

    def nudge(self) -> None:
        """There may be more to do: look at once."""
        for lane in self.lanes.values():
            lane.look_at = 0.0

    def introduce(self, conn: Connection, *, again: bool = True) -> None:
        """Ask the database by what storages are known: those that have something to ask, or all ``again``.

        Again with each connection, since it may be to another database, and from time to time, since an
        operator may have said that another folder is the root.
        """
        if again:
            self._introduce_at = clock() + KNOWN_FOR
        for name, storage in self._introduced.items():
            if again or storage.asks:
                storage.introduce(partial(markers.asked, conn, name))

    def turn(self, conn: Connection) -> bool:
        """Collect what the lanes did, hand it in and take more; False when there was nothing to do."""
        try:
            return self._turn(conn)
        except BaseException:
            self._begin_taken()  # what is in our hands needs no connection
            raise

    def _turn(self, conn: Connection) -> bool:
        if queue.nudged(conn, 0):  # a lane that is never idle must not keep us from hearing of the others
            self.nudge()
        now = clock()
        self.introduce(conn, again=now >= self._introduce_at)
        self._collect(now)
        wants = self._wants(now)
        held, fresh = self._to_hand_in(now)
        if not wants and not held and not self._worth_a_request(now):
            self._begin_taken()
            self._renew(conn, now)
            return False
        began = clock()  # before the claim: our idea of the lease ends before the server's
        call = queue.send(conn, self.id, self._reported(conn, fresh), wants, held=held, lease=self.lease)
        self._begin_taken()
        self._meanwhile(conn, len(fresh))
        answer = call.answer()
        self._settled(held, fresh, answer)
        if wants:
            self._heard(answer.halted)
        self._placed(wants, answer, began)
        self._renew(conn, clock())
        return True

    def hand_in(self, conn: Connection) -> None:
        """Hand in all results, and take nothing."""
        held, fresh = list(self.held), list(self.fresh)
        call = queue.send(conn, self.id, Report(conn, fresh), [], held=held, lease=self.lease)
        self._settled(held, fresh, call.answer())

    def give_back(self) -> None:
        """Take back what no storage has begun: it goes to the queue with the next request."""
        for lane in self.lanes.values():
            for hand in lane.hands:
                hand.batch.give_back(RELEASED)

    def forget(self) -> None:
        """Let go of results that can't be handed in."""
        self.held, self.fresh = [], []

    def rest(self, conn: Connection, seconds: float) -> bool:
        """Sleep until a lane is done with something, a nudge comes or the time is over; True when nudged."""
        if queue.nudged(conn, 0):  # it came with an answer, so there is nothing left to wait for
            self.nudge()
            return True
        now = clock()
        times = [lane.next_look(now) for lane in self.lanes.values()]
        if self._alone is not None or self.stopping() or self.clogged:
            times = []
        if self.held:
            times.append(self._held_until - now)
        if self.fresh:
            times.append(self._fresh_since + SOON - now)
        if any(lane.hands for lane in self.lanes.values()):
            times.append(self.lease * RENEW_PART / 2)
        pause = max(0.0, min(seconds, PIECE, *times))
        with suppress(InterruptedError):
            _ready([conn.fileno(), self._waker], pause)
        with suppress(BlockingIOError):
            read(self._waker, 4096)
        if nudged := queue.nudged(conn, 0):
            self.nudge()
        return nudged

    def wake(self) -> None:
        """End `rest`; from any thread or signal handler."""
        with suppress(BlockingIOError, OSError):  # full: awake already; closed: nobody to wake
            write(self._wake_up, b"x")

    def _begin_taken(self) -> None:
        """Have the files of the last answer deleted, now that the server has the next request, if any."""
        taken, self._taken = self._taken, []
        for lane, hand in taken:
            lane.begin(hand)

    def _meanwhile(self, conn: Connection, sent: int) -> None:
        """While the server works, take in what the lanes do, and make it ready for the next request.

        For a while only, and not at all once it has answered: waiting as such has a deadline elsewhere.
        """
        until = clock() + PIECE
        while any(lane.hands and lane.died is None for lane in self.lanes.values()):
            ready = _ready([conn.fileno(), self._waker], max(0.0, until - clock()))
            if self._waker not in ready or conn.fileno() in ready:
                break
            read(self._waker, 4096)
            self._collect(clock())
            self._report = Report(conn, self.fresh[sent : sent + FRESH * self.batch])

    def _reported(self, conn: Connection, fresh: list[Result]) -> Report:
        """New results ready to be sent; mostly they are already."""
        report, self._report = self._report, None
        return report if report is not None and report.results == fresh else Report(conn, fresh)

    def _collect(self, now: float) -> None:
        """Take in what became of files, and give up on a storage that hangs."""
        for lane in self.lanes.values():
            finished = lane.finished()
            for hand in [*finished, *lane.hands]:
                results = hand.collect()
                self._count([outcome.verdict for _, outcome in results])
                self.freed += sum([outcome.bytes for _, outcome in results])
                if results and not self.fresh:
                    self._fresh_since = now
                self.fresh += results
            for hand in finished:
                lane.judge(hand)
                _report(hand)
                if self._alone is not None and self._alone[1] is hand:
                    self._alone = None
            if not lane.hung and (stalled := lane.stalled(now)) >= self.patience:
                lane.give_up(stalled)

    def _count(self, verdicts: list[Verdict]) -> None:
        self.done += verdicts.count("deleted") + verdicts.count("missing")
        self.failed += verdicts.count("failed") + verdicts.count("refused")

    def _wants(self, now: float) -> list[Want]:
        """A batch for each lane that has room, unless one batch has to be worked on alone."""
        self._begin_alone()
        if self._alone is not None or self.stopping() or self.clogged:
            return []
        return [Want(lane.name, lane.take, lane.after) for lane in self.lanes.values() if lane.room(now)]

    def _begin_alone(self) -> None:
        """Begin the batch that waits to be alone, once all else is out of our hands and handed in.

        Told to stop, at once: it gives all its files back.
        """
        if self._alone is None or self._alone[1].begun:
            return
        lane, waiting = self._alone
        others = [hand for one in self.lanes.values() if not one.hung for hand in one.hands]
        if self.stopping() or (others == [waiting] and not self.fresh):
            lane.begin(waiting)

    def _to_hand_in(self, now: float) -> tuple[list[Result], list[Result]]:
        """Results for this request: now and then some that could not be handed in before, and new ones.

        Rows may be locked for long, or a file source may fail: to hand in all of them each time would take
        longer and longer.
        """
        held = self.held[: self.batch] if now >= self._held_until else []
        return held, self.fresh[: FRESH * self.batch]

    def _worth_a_request(self, now: float) -> bool:
        """Whether new results are to be handed in now, for themselves.

        While a storage deletes, others will follow at once, and each request is a commit: handed in one by
        one, they would cost the database, and the disk that it may share with the files, more than the
        files do. They go with the next request for files, or after a moment.
        """
        return bool(self.fresh) and (
            not self.busy
            or self.stopping()
            or len(self.fresh) >= self.batch
            or now - self._fresh_since >= SOON
        )

    def _settled(self, held: Sequence[Result], fresh: Sequence[Result], answer: queue.Exchange) -> None:
        """Keep what could not be settled; ask less and less after what stays locked."""
        unsettled = answer.unsettled
        stuck = [result for result in held if result.receipt in unsettled]
        refused = [result for result in fresh if result.receipt in unsettled] if unsettled else []
        if held:
            self._held_pause = min(self._held_pause * 2, LONG_HELD) if len(stuck) == len(held) else HELD
        if held or (refused and not self.held):
            self._held_until = clock() + self._held_pause
        self.held = self.held[len(held) :] + stuck + refused
        del self.fresh[: len(fresh)]
        if answer.stale:
            log.info("%d results came too late: another worker took over", len(answer.stale))

    def _heard(self, halted: str | None) -> None:
        """Say it once when the database begins, or stops, to keep its files to itself."""
        if halted != self.halted:
            if halted is not None:
                log.warning("%s: nothing is deleted; %s", text.printable(halted, 1000), ADOPT)
            else:
                log.info("the database is adopted: files are deleted again")
        self.halted = halted

    def _placed(self, wants: Sequence[Want], answer: queue.Exchange, began: float) -> None:
        """Put what was taken into the lanes, and note when to look again."""
        until = began + self.lease * SAFE_PART
        for taken in answer.taken:
            lane = self.lanes[taken.storage]
            hand = lane.hold(taken, until, alone=answer.alone)
            if answer.alone:
                self._alone = lane, hand
                self._begin_alone()
            elif taken.storage in answer.next:
                self._taken.append((lane, hand))
            else:
                lane.begin(hand)
        for want in wants:
            lane = self.lanes[want.storage]
            lane.turns += 1
            if want.storage in answer.next and lane.turns % RESTART:
                lane.after = answer.next[want.storage]
                continue
            lane.after = START
            wait = answer.wait.get(want.storage, 0.0)
            # From a resume point on, older rows were not looked at: once more from the start.
            if want.after != START or answer.alone:
                wait = 0.0
            lane.look_at = clock() + (self.horizon if wait is None else min(wait, self.horizon))

    def _renew(self, conn: Connection, now: float) -> None:
        """Lease anew what takes longer. What could not be leased is taken back from the storage."""
        due = now + self.lease * (SAFE_PART - RENEW_PART)
        hands = [
            hand
            for lane in self.lanes.values()
            for hand in lane.hands
            if hand.done_at is None and hand.until <= due and hand.batch.open
        ]
        if not hands:
            return
        open_ = {hand: hand.batch.left() for hand in hands}
        began = clock()
        lost = queue.renew(
            conn,
            self.id,
            [hand.claims[position] for hand, positions in open_.items() for position in positions],
            lease=self.lease,
        )
        for hand, positions in open_.items():
            for position in positions:
                claim = hand.claims[position]
                if claim.receipt in lost and hand.batch.withdraw(position):
                    self.fresh.append(Result(claim, Outcome("released")))
            hand.batch.until = began + self.lease * SAFE_PART


def _ready(descriptors: Sequence[int], seconds: float) -> set[int]:
    """Wait for any of them; those that have something. Not by `select`, which takes no number above 1,023."""
    line = poll()
    for descriptor in descriptors:
        line.register(descriptor, POLLIN)
    return {descriptor for descriptor, _ in line.poll(seconds * 1000)}


def drain(conn: Connection, worker: Worker, between: Callable[[], None] = lambda: None) -> float | None:
    """Delete what is due until nothing is, or until told to stop; return the seconds until more is due.

    ``between`` is called after each request. None: not before a nudge.
    """
    worker.nudge()
    until = float("inf")
    while True:
        if worker.turn(conn):
            between()
            continue
        now = clock()
        if worker.stopping():
            until = min(until, now + worker.grace)
            worker.give_back()
            if now > until:
                return None
        looking = [lane for lane in worker.lanes.values() if lane.trouble is None]
        idle = not worker.busy and not worker.fresh
        if idle and (worker.stopping() or worker.clogged):
            return None
        if idle and all(lane.checked and lane.look_at > now for lane in looking) and not worker.waiting:
            soonest = min((lane.look_at for lane in looking), default=float("inf"))
            return None if soonest == float("inf") else soonest - now
        worker.rest(conn, PIECE)


def _report(hand: Hand) -> None:
    """Say in one line what became of a batch, and why where it did not go."""
    counts = hand.counts
    if not counts:
        return
    seconds = (hand.done_at or clock()) - hand.taken_at
    parts = [f"{text.files(counts['deleted'])} deleted, {text.size(hand.freed)} freed"]
    parts += [f"{counts[verdict]:,} {verdict}" for verdict in UNUSUAL if counts[verdict]]
    log.info(
        "%s in %.2f s",
        ", ".join(parts),
        seconds,
        extra=dict(counts) | {"bytes": hand.freed, "seconds": round(seconds, 3)},
    )
    if counts["missing"] == counts.total() >= ALL_MISSING:
        log.warning(
            "all %d files of this batch were gone already: is the storage's root right?", counts.total()
        )
    for (verdict, error), claims in list(hand.reasons.items())[:5]:
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
    if len(hand.reasons) > 5:
        log.warning("and %d other reasons: see lapse.queue_detail", len(hand.reasons) - 5)
