"""What the judge judges: journals, the witness's notes, the log, what is left in the queue and on the disk.

All times are microseconds of one clock. What an application did is an interval: it came to pass between
``intent`` and ``end``; its statement ran after ``first``. ``sure`` is False where the database would not say
whether it was committed: such a thing excuses, and never accuses.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psycopg

from tests.chaos.disk import Disk, Place
from tests.chaos.journal import now, read

NEVER = 1 << 62


@dataclass(frozen=True)
class Act:
    """When something that an application committed came to pass."""

    first: int
    intent: int
    end: int
    sure: bool = True

    def surely_before(self, other: "Act") -> bool:
        return self.end < other.first


@dataclass(frozen=True)
class Request(Act):
    """``guard``: the generation that it is about; None: whatever is there."""

    due: int = 0
    guard: str | None = None


@dataclass
class Reference:
    """A row that needs the file; ``fragile``: no longer once a worker says that the file is gone."""

    key: str
    made: Act
    fragile: bool = False
    ended: Act | None = None


@dataclass
class Writing:
    generation: str
    began: int
    ended: int = NEVER


@dataclass
class Unlink:
    """A deletion by a worker: ``began`` when the call was entered, ``at`` right before the system call."""

    pid: int
    thread: int
    born: int
    """When its process started: another may have had the number before."""
    began: int
    at: int
    ended: int = NEVER
    generation: str | None = None
    """What went; None if nothing did."""


@dataclass
class Claim:
    """A lease; ``at``: within the claim, after the row was locked; ``renewed``: when, and until when."""

    token: int
    worker: str
    leased_at: int
    until: int
    at: int
    renewed: list[tuple[int, int]] = field(default_factory=list)
    released: int = NEVER

    def over(self, at: int) -> int:
        """The end of the lease, as it stood at a time."""
        return max([self.until, *(until for when, until in self.renewed if when <= at)])

    @property
    def pid(self) -> int:
        found = re.search(r"-(\d+)-[0-9a-f]+$", self.worker)
        return int(found.group(1)) if found else -1


@dataclass(frozen=True)
class Entry:
    """A line of lapse.file_cleanup_log."""

    outcome: str
    worker: str | None
    finished: int
    note: str | None = None


@dataclass(frozen=True)
class Row:
    """What is still in the queue."""

    due: int
    dead: bool
    error: str | None
    attempts: int = 0


@dataclass
class Story:
    """Everything known of one path."""

    requests: list[Request] = field(default_factory=list)
    cancels: list[Act] = field(default_factory=list)
    references: list[Reference] = field(default_factory=list)
    writings: list[Writing] = field(default_factory=list)
    unlinks: list[Unlink] = field(default_factory=list)
    claims: list[Claim] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)
    row: Row | None = None
    there: str | None = None
    """The generation on the disk in the end."""


@dataclass
class Evidence:
    stories: dict[Place, Story] = field(default_factory=lambda: defaultdict(Story))
    numbers: Counter[str] = field(default_factory=Counter)
    contradictions: list[str] = field(default_factory=list)
    """Where witnesses disagree: the judge can't be trusted then."""
    ended: int = 0


def gather(journals: Iterable[Path], admin: str, disk: Disk, *, trust_xids: bool = True) -> Evidence:
    """Read everything; the applications and workers must have ended. ``trust_xids``: no server was lost."""
    found = Evidence()
    with psycopg.connect(admin, autocommit=True) as conn:
        for path in sorted(journals):
            facts = list(read(path))
            _same_clock(path, facts, found)
            if facts and facts[0]["kind"] == "application":
                _application(facts, conn, found, trust_xids=trust_xids)
            elif facts:
                _worker(facts, disk, found)
        _database(conn, found)
    for place, generation in disk.generations().items():
        found.stories[place].there = generation
    found.ended = now()
    return found


def _same_clock(path: Path, facts: list[dict[str, Any]], found: Evidence) -> None:
    """Times are compared across processes, so the clock must not have been set meanwhile.

    A process may lose its turn between reading one clock and the other; of several facts the largest
    difference is the true one.
    """
    offsets = [fact["t"] - fact["m"] for fact in facts]
    true = [max(offsets[start : start + 20]) for start in range(0, len(offsets) - 19, 20)]
    if true and max(true) - min(true) > 20_000:
        found.contradictions.append(
            f"{path.name}: the clock moved by {(max(true) - min(true)) / 1000:.0f} ms"
        )


def _application(
    facts: list[dict[str, Any]], conn: psycopg.Connection[Any], found: Evidence, *, trust_xids: bool
) -> None:
    outcomes = {fact["txn"]: fact for fact in facts if fact["kind"] == "outcome"}
    writings: dict[str, Writing] = {}
    for fact in facts:
        match fact["kind"]:
            case "write":
                writings[fact["generation"]] = Writing(fact["generation"], fact["t"])
                found.stories[_place(fact)].writings.append(writings[fact["generation"]])
                found.numbers["files written"] += 1
            case "written":
                writings[fact["generation"]].ended = fact["t"]
            case "rolled back":
                found.numbers["transactions rolled back"] += 1
            case "failed":
                found.numbers["transactions failed before COMMIT"] += 1
            case "intent":
                fate = _fate(fact, outcomes.get(fact["txn"]), conn, found, trust_xids=trust_xids)
                if fate is not None:
                    end, sure = fate
                    found.numbers["transactions committed"] += 1
                    for effect in fact["effects"]:
                        _apply(effect, Act(effect["first"], fact["t"], end, sure), found)


def _fate(
    intent: dict[str, Any],
    outcome: dict[str, Any] | None,
    conn: psycopg.Connection[Any],
    found: Evidence,
    *,
    trust_xids: bool,
) -> tuple[int, bool] | None:
    """When a transaction was over, and whether that is sure; None when it was not committed.

    The mark that it left in the database has the last word on what COMMIT's answer did not tell; an answer
    that was seen must have left a mark. What pg_xact_status says must agree, unless a server crashed or was
    replaced: a transaction number that was not on the disk by then is given out a second time.
    """
    mark, xid = intent["txn"], intent["xid"]
    (there,) = conn.execute("select exists (select from chaos.txn where id = %s)", [mark]).fetchone() or (0,)
    if outcome is not None and outcome["seen"]:
        if not there:
            found.contradictions.append(f"transaction {mark} ({xid}) was acknowledged, and is lost")
        return outcome["t"], True
    found.numbers["commits whose answer was not seen"] += 1
    (status,) = conn.execute("select pg_xact_status(%s::xid8)", [xid]).fetchone() or (None,)
    if (status == "committed") != there:
        if trust_xids:
            found.contradictions.append(f"transaction {mark} ({xid}) is {status}, its mark there: {there}")
        else:
            found.numbers["of which pg_xact_status speaks for another one's number"] += 1
    if outcome is not None and (outcome["fate"] == "committed") != there:
        found.contradictions.append(
            f"transaction {mark} ({xid}) was {outcome['fate']}, its mark there: {there}"
        )
    found.numbers[f"… and which were {'committed' if there else 'not'}"] += 1
    if not there:
        return None
    return (outcome["t"] if outcome else now()), True


def _apply(effect: dict[str, Any], act: Act, found: Evidence) -> None:
    story = found.stories[_place(effect)]
    match effect["does"]:
        case "request":
            found.numbers["requests"] += 1
            sure = act.sure and not effect["maybe"]
            if effect["maybe"]:
                found.numbers["requests that count as either"] += 1
            story.requests.append(
                Request(act.first, act.intent, act.end, sure, effect["due"], effect["guard"])
            )
        case "cancel":
            found.numbers["cancels"] += 1
            found.numbers["cancels that count as either"] += effect["maybe"]
            story.cancels.append(replace(act, sure=act.sure and not effect["maybe"]))
        case "refer":
            found.numbers["references"] += 1
            story.references.append(Reference(effect["key"], act, effect["fragile"]))
        case "unrefer":
            for reference in story.references:
                if reference.key == effect["key"] and reference.ended is None:
                    reference.ended = act


def _worker(facts: list[dict[str, Any]], disk: Disk, found: Evidence) -> None:
    pid, born = facts[0]["pid"], facts[0]["t"]
    calls: dict[int, Unlink] = {}
    for fact in facts[1:]:
        if fact["kind"] == "unlink":
            call = Unlink(pid, fact["thread"], born, fact["began"], fact["t"])
            calls[fact["n"]] = call
            found.stories[disk.place(fact["file"])].unlinks.append(call)
        elif fact["kind"] == "unlinked":
            call = calls[fact["n"]]
            call.ended, call.generation = fact["t"], fact.get("generation")
    for number, call in calls.items():
        if call.ended == NEVER:
            call.generation = disk.buried(pid, number)
        found.numbers["files deleted"] += call.generation is not None


def _database(conn: psycopg.Connection[Any], found: Evidence) -> None:
    micros = "(extract(epoch from {}) * 1000000)::bigint"
    for storage, path, token, worker, *times in conn.execute(
        "select storage, path, token, worker, "
        + ", ".join(micros.format(name) for name in ("leased_at", "leased_until", "at"))
        + " from chaos.claim order by id"
    ):
        claims = found.stories[storage, path].claims
        renewed = next((claim for claim in reversed(claims) if claim.token == token), None)
        if renewed is not None:
            renewed.renewed.append((times[2], times[1]))
            found.numbers["leases renewed"] += 1
        else:
            claims.append(Claim(token, worker, *times))
            found.numbers["claims"] += 1
    for storage, path, token, at in conn.execute(
        f"select storage, path, token, {micros.format('at')} from chaos.release"
    ):
        for claim in found.stories[storage, path].claims:
            if claim.token == token:
                claim.released = min(claim.released, at)
    for storage, path, outcome, worker, finished, note in conn.execute(
        f"select storage, path, outcome, worker, {micros.format('finished_at')}, note"
        "  from lapse.file_cleanup_log order by id"
    ):
        found.stories[storage, path].entries.append(Entry(outcome, worker, finished, note))
        found.numbers[f"logged as {outcome}"] += 1
    for storage, path, due, dead, error, attempts in conn.execute(
        f"select storage, path, {micros.format('greatest(not_before, $$epoch$$)')}, dead_at is not null,"
        "       last_error, attempts"
        "  from lapse.file_cleanup_queue"
    ):
        found.stories[storage, path].row = Row(due, dead, error, attempts)


def _place(fact: dict[str, Any]) -> Place:
    return fact["place"][0], fact["place"][1]
