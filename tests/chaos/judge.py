"""The two invariants, path by path.

(a) What a committed transaction queued is in the end gone, or in the log with a reason that is true, or dead
    with a reason, or waits for a time that has not come.
(b) A file goes only under a lease that is not over and nobody else's, whose claim found a request that was
    committed, not used up by an earlier claim, not cancelled before and due, and no row that surely needed
    the file.

Where two things overlapped in time and either order would be right, nobody is accused. A deletion after the
end of its lease is told apart: when the worker's last look at its lease may have come before the end (it was
stopped in between: that window can't be closed), it is counted and its lateness told; when the same thread
had deleted another file since, the look came too late for certain, and that is a violation.
"""

from collections import Counter
from dataclasses import dataclass, field

from tests.chaos.disk import Place
from tests.chaos.evidence import NEVER, Claim, Entry, Evidence, Reference, Request, Story, Unlink

DONE = ("deleted", "missing")
HANDED_OUT = (*DONE, "changed")
"""What a worker says of a file that it claimed."""
CLAIM = 2_000_000
"""Microseconds that a claim may take, at most."""


@dataclass
class Verdict:
    violations: list[str] = field(default_factory=list)
    late: list[int] = field(default_factory=list)
    """Microseconds between a lease's end and the deletion, for each that fell into the window."""
    harmful: list[str] = field(default_factory=list)
    """Those of them by which a file went that had been saved, needed or written since the lease's end."""
    numbers: Counter[str] = field(default_factory=Counter)


def judge(evidence: Evidence) -> Verdict:
    """Judge every path; what contradicts itself comes first."""
    verdict = Verdict(violations=[f"can't judge: {words}" for words in evidence.contradictions])
    verdict.numbers.update(evidence.numbers)
    looked = _looks(evidence)
    for place, story in sorted(evidence.stories.items()):
        verdict.numbers["paths"] += 1
        one = _Path(place, story, verdict, looked, evidence.ended)
        one.claims_were_asked_for()
        one.deletions_were_right()
        one.requests_were_met()
        one.nothing_went_by_itself()
    return verdict


def _looks(evidence: Evidence) -> dict[int, int]:
    """For each deletion, when its thread had ended the one before: its look at the lease came after that."""
    threads: dict[tuple[int, int, int], list[Unlink]] = {}
    for story in evidence.stories.values():
        for call in story.unlinks:
            threads.setdefault((call.pid, call.born, call.thread), []).append(call)
    looked = {}
    for calls in threads.values():
        calls.sort(key=lambda call: call.began)
        for before, call in zip([None, *calls], calls, strict=False):
            looked[id(call)] = before.ended if before else 0
    return looked


@dataclass
class _Path:
    place: Place
    story: Story
    verdict: Verdict
    looked: dict[int, int]
    over: int

    def accuse(self, words: str) -> None:
        self.verdict.violations.append(f"{self.place[0]}:{self.place[1]} {words}")

    # (b)

    def claims_were_asked_for(self) -> None:
        for claim in self.story.claims:
            asked = [request for request in self.story.requests if self.counts(request, claim)]
            if not asked:
                self.accuse(f"was claimed, though nobody asked: {_said(claim)}{self.why_not(claim)}")
            elif all(request.due > claim.at for request in asked):
                self.accuse(f"was claimed before its time: {_said(claim)}")
        self.verdict.numbers["paths claimed more than once"] += len(self.story.claims) > 1
        for before, claim in zip(self.story.claims, self.story.claims[1:], strict=False):
            # A claim's own time is read when it begins; the row may be given up until it locks it.
            if claim.leased_at < before.over(claim.leased_at) and claim.at < before.released:
                self.accuse(f"was claimed while somebody held it: {_said(claim)}, after {_said(before)}")
            elif before.released == NEVER:
                self.verdict.numbers["leases that ended and were taken over"] += 1

    def counts(self, request: Request, claim: Claim) -> bool:
        """Whether a claim may have been made for this request."""
        return (
            request.intent < claim.at
            and not any(self.used_up(request, entry, claim) for entry in self.story.entries)
            and not any(
                cancel.sure and request.surely_before(cancel) and cancel.end < claim.leased_at
                for cancel in self.story.cancels
            )
        )

    def used_up(self, request: Request, entry: Entry, claim: Claim) -> bool:
        """Whether a request was surely met before this claim, and the row taken out."""
        met = self.met(entry)
        if met is None or entry.finished >= claim.leased_at:
            return False
        locked, began = met
        # A request whose time had not come by then is kept beside the lease, and counts from that time on.
        return request.end < locked and request.due <= began

    def met(self, entry: Entry) -> tuple[int, int] | None:
        """When the row of a line of the log was locked to be taken, and when that claim had begun.

        Requests committed before the lock are in it, later ones not. A file that is needed is never handed
        out: its line is written while the row is locked.
        """
        if entry.outcome == "in_use":
            return entry.finished, entry.finished - CLAIM
        claim = self.claim_of(entry) if entry.outcome in HANDED_OUT else None
        return (claim.at, claim.leased_at) if claim else None

    def claim_of(self, entry: Entry) -> Claim | None:
        """The claim that led to a line of the log."""
        made = [
            claim
            for claim in self.story.claims
            if claim.worker == entry.worker and claim.leased_at <= entry.finished
        ]
        return made[-1] if made else None

    def why_not(self, claim: Claim) -> str:
        requests = [request for request in self.story.requests if request.intent < claim.at]
        if not requests:
            return "; no request at all before it"
        return f"; the last request before it was committed {_ago(requests[-1].end, claim.at)}"

    def deletions_were_right(self) -> None:
        for call in self.story.unlinks:
            if call.generation is None:
                continue
            claim = self.held(call)
            if claim is None:
                self.accuse(f"was deleted without a lease, by process {call.pid}")
                continue
            self.no_row_needed_it(call, claim)
            self.it_was_the_one_meant(call, claim)
            if call.ended != NEVER and call.ended > claim.over(call.at):
                self.came_late(call, claim, claim.over(call.at))

    def held(self, call: Unlink) -> Claim | None:
        """The lease under which a worker deleted: the latest that it had by then."""
        had = [
            claim for claim in self.story.claims if claim.pid == call.pid and call.born < claim.at <= call.at
        ]
        return had[-1] if had else None

    def no_row_needed_it(self, call: Unlink, claim: Claim) -> None:
        for reference in self.story.references:
            if self.surely_needed(reference, claim.leased_at, call.ended, claim.leased_at):
                self.accuse(
                    f"was deleted though referenced: {_said(claim)}; "
                    f"the row was committed {_ago(reference.made.end, claim.leased_at)}"
                )
                return

    def surely_needed(self, reference: Reference, since: int, until: int, claimed: int) -> bool:
        """Whether a row needed the file all the time from ``since`` until ``until``."""
        if not reference.made.sure or reference.made.end >= since:
            return False
        if reference.ended is not None and reference.ended.intent <= until:
            return False
        return not reference.fragile or not any(
            entry.outcome in DONE and reference.made.first < entry.finished < claimed
            for entry in self.story.entries
        )

    def it_was_the_one_meant(self, call: Unlink, claim: Claim) -> None:
        """A guarded file must be the one that was condemned, unless it was replaced right before it went."""
        asked = [request.guard for request in self.story.requests if self.counts(request, claim)]
        if not asked or None in asked:
            return
        known = {request.guard for request in self.story.requests if request.intent < claim.at}
        if call.generation in known:
            return
        written = next(one for one in self.story.writings if one.generation == call.generation)
        if written.ended > self.looked[id(call)]:
            self.verdict.numbers["guarded files replaced after the worker's look, perhaps"] += 1
        else:
            self.accuse(
                f"was deleted, being {call.generation} and not one of {sorted(asked)}: {_said(claim)}"
            )

    def came_late(self, call: Unlink, claim: Claim, over: int) -> None:
        # Stopped in between, it deleted at one of its ends: when it went on, most likely.
        when = call.at if call.at > over else call.ended
        late = when - over
        if self.looked[id(call)] > over:
            self.accuse(
                f"was deleted {late / 1000:.0f} ms after its lease, which had been over "
                f"before the worker looked at it: {_said(claim)}"
            )
            return
        self.verdict.late.append(late)
        saved = any(
            cancel.sure and over < cancel.first and cancel.end < when for cancel in self.story.cancels
        )
        anew = any(
            writing.generation == call.generation and writing.began > over for writing in self.story.writings
        )
        needed = any(
            self.surely_needed(reference, when, call.ended, when) and reference.made.first > over
            for reference in self.story.references
        )
        for happened, words in ((saved, "saved"), (anew, "written"), (needed, "needed")):
            if happened:
                self.verdict.harmful.append(
                    f"{self.place[0]}:{self.place[1]} had been {words} after the lease's end, "
                    f"and went {late / 1000:.0f} ms after it"
                )
                return

    # (a)

    def requests_were_met(self) -> None:
        story = self.story
        row = story.row
        if row is not None and row.dead:
            self.verdict.numbers["dead in the end"] += 1
            if not row.error:
                self.accuse("is dead without a reason")
        elif row is not None:
            self.verdict.numbers["waiting for their time in the end"] += 1
            if row.due <= self.over:
                self.accuse(f"is still in the queue, after {row.attempts} attempts: {row.error}")
            elif not any(request.due > self.over for request in story.requests):
                self.accuse("waits for a time that nobody asked for")
        else:
            for request in story.requests:
                if request.sure and not self.accounted_for(request):
                    self.accuse(
                        f"was queued by a transaction committed at {request.end}, and nothing became of it"
                    )
        for entry in story.entries:
            self.entry_is_true(entry)

    def accounted_for(self, request: Request) -> bool:
        cancelled = any(cancel.end > request.intent for cancel in self.story.cancels)
        for entry in self.story.entries:
            if cancelled and entry.finished > request.first and _says_cancelled(entry):
                return True
            met = self.met(entry)
            if met is not None and met[0] > request.intent:
                return True
            if entry.outcome == "discarded" and entry.finished > request.intent:
                return True
        return False

    def entry_is_true(self, entry: Entry) -> None:
        """What the log says must have been so."""
        story = self.story
        claim = self.claim_of(entry)
        if entry.outcome in HANDED_OUT and claim is None:
            self.accuse(f"is logged as {entry.outcome} by {entry.worker}, which never claimed it")
        elif claim is not None and entry.outcome in DONE:
            there = next((one for one in story.writings if one.generation == story.there), None)
            if there is not None and there.ended < claim.leased_at:
                self.accuse(f"is logged as {entry.outcome}, and is still there: {_said(claim)}")
            if entry.outcome == "deleted" and not any(
                call.pid == claim.pid and claim.at <= call.at and call.generation is not None
                for call in story.unlinks
            ):
                self.accuse(f"is logged as deleted, and no worker did: {_said(claim)}")
        elif claim is not None and entry.outcome == "changed":
            there = next((one for one in story.writings if one.generation == story.there), None)
            asked = [request.guard for request in story.requests if self.counts(request, claim)]
            if there is not None and there.ended < claim.leased_at and there.generation in asked:
                self.accuse(f"is logged as changed, and is the very file that was meant: {_said(claim)}")
            if asked and all(guard is None for guard in asked):
                self.accuse(f"is logged as changed, and nobody said what it should be: {_said(claim)}")
        elif entry.outcome == "in_use" and not any(
            reference.made.intent < entry.finished
            and (reference.ended is None or reference.ended.end > entry.finished - CLAIM)
            for reference in story.references
        ):
            self.accuse("is logged as in use, and nothing referred to it")
        elif entry.outcome == "cancelled" and not any(
            cancel.first < entry.finished for cancel in story.cancels
        ):
            self.accuse("is logged as cancelled, and nobody did")

    # The judge's own eyes

    def nothing_went_by_itself(self) -> None:
        """Every file written is there, or was replaced, or a worker was seen deleting it."""
        story = self.story
        gone = {call.generation for call in story.unlinks}
        for writing in story.writings:
            if writing.ended == NEVER or writing.generation == story.there or writing.generation in gone:
                continue
            if not any(other is not writing and other.ended > writing.began for other in story.writings):
                self.accuse(f"can't judge: {writing.generation} went, and nobody was seen deleting it")


def _says_cancelled(entry: Entry) -> bool:
    """A worker that held the file when it was cancelled may have deleted it: then the note says so.

    Or it may have found another file there, and then the note says what it found.
    """
    return entry.outcome in ("cancelled", "changed") or (entry.note or "").startswith("cancelled")


def _said(claim: Claim) -> str:
    return f"{claim.worker}, lease {claim.token}, at {claim.at}"


def _ago(then: int, at: int) -> str:
    return f"{(at - then) / 1_000_000:.3f} s earlier"
