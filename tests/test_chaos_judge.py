"""The judge of the campaigns sees each violation that is planted, and accuses nobody of what may be right."""

from collections.abc import Callable

import pytest

from tests.chaos.evidence import Act, Claim, Entry, Evidence, Reference, Request, Row, Story, Unlink, Writing
from tests.chaos.judge import judge

PLACE = ("public", "a/1")
WORKER, PID = "host-7-abc", 7
SECOND = 1_000_000
OVER = 1000 * SECOND

Plant = Callable[[Story], None]


def at(second: float, **more: bool) -> Act:
    """Something done in the second given."""
    return Act(_us(second), _us(second + 0.1), _us(second + 0.2), **more)


def asked(second: float, *, due: float | None = None, sure: bool = True, guard: str | None = None) -> Request:
    act = at(second, sure=sure)
    return Request(act.first, act.intent, act.end, act.sure, _us(second if due is None else due), guard)


def claimed(second: float, lease: float = 10, token: int = 1, worker: str = WORKER, **more: int) -> Claim:
    return Claim(token, worker, _us(second), _us(second + lease), _us(second) + 500, **more)


def deleted(second: float, generation: str = "g1", thread: int = 1, born: int = 0) -> Unlink:
    start = _us(second)
    return Unlink(PID, thread, born, start, start + 100, start + 200, generation)


def logged(second: float, outcome: str = "deleted", note: str | None = None) -> Entry:
    return Entry(outcome, WORKER, _us(second), note)


def wrote(second: float, generation: str = "g1") -> Writing:
    return Writing(generation, _us(second), _us(second) + 100)


def _us(second: float) -> int:
    return int(second * SECOND)


def life(**changes: object) -> Story:
    """A file that was written, asked for, claimed, deleted and logged, with something changed."""
    usual = {
        "writings": [wrote(1)],
        "requests": [asked(2)],
        "claims": [claimed(3)],
        "unlinks": [deleted(4)],
        "entries": [logged(5)],
    }
    return Story(**{**usual, **changes})  # type: ignore[arg-type]


def waiting(**changes: object) -> Story:
    """The same file, which no worker has deleted so far."""
    return life(**{"claims": [], "unlinks": [], "entries": [], "there": "g1", **changes})


def verdict_on(story: Story):
    evidence = Evidence(ended=OVER)
    evidence.stories[PLACE] = story
    return judge(evidence)


RIGHT = {
    "the usual life": life(),
    "asked for and not sure, then deleted": life(requests=[asked(2, sure=False)]),
    "dead with a reason": waiting(row=Row(0, dead=True, error="bad")),
    "waits for its time": waiting(requests=[asked(2, due=5000)], row=Row(_us(5000), False, None)),
    "cancelled while it was being claimed": life(cancels=[at(2.9)]),
    "cancelled after the claim": life(
        cancels=[at(3.5)], entries=[logged(5, note="cancelled too late: a worker held it already")]
    ),
    "cancelled in time": waiting(cancels=[at(2.5)], entries=[logged(2.6, "cancelled")]),
    "perhaps cancelled": life(cancels=[at(2.5, sure=False)]),
    "cancelled and asked for again": life(requests=[asked(2), asked(2.8)], cancels=[at(2.4)]),
    "asked for again while held, then cancelled": life(
        requests=[asked(2), asked(3.3)],
        cancels=[at(3.6)],
        entries=[logged(5, note="cancelled too late: a worker held it already")],
    ),
    "asked for again while held, then cancelled, and changed by then": waiting(
        requests=[asked(2, guard="g0"), asked(3.3)],
        claims=[claimed(3)],
        cancels=[at(3.6)],
        entries=[logged(5, "changed")],
    ),
    "in use": waiting(references=[Reference("r", at(1))], entries=[logged(3.1, "in_use")]),
    "in use, then asked for again": life(
        requests=[asked(1.2), asked(2)],
        references=[Reference("r", at(1), ended=at(2))],
        entries=[logged(1.5, "in_use"), logged(5)],
    ),
    "referenced after the claim": life(references=[Reference("r", at(3.1))]),
    "reference ended while it was being claimed": life(references=[Reference("r", at(1), ended=at(2.9))]),
    "a worker said it was gone": life(
        writings=[wrote(1), wrote(6, "g2")],
        requests=[asked(2), asked(7)],
        claims=[claimed(3, released=_us(5)), claimed(8, token=2)],
        unlinks=[deleted(4), deleted(9, "g2")],
        entries=[logged(5), logged(10)],
        references=[Reference("r", at(3.2), fragile=True)],
    ),
    "asked for again while a worker held it, for later": life(
        requests=[asked(2), asked(3.5, due=15.0001)],
        claims=[claimed(3), claimed(15, token=2, released=_us(15.1)), claimed(21, token=3)],
        unlinks=[deleted(4), deleted(22, "g2")],
        writings=[wrote(1), wrote(16, "g2")],
        entries=[logged(15.1, "missing"), logged(23)],
    ),
    "the one that was meant": life(requests=[asked(2, guard="g1")]),
    "one of those that were meant": life(requests=[asked(1.5, guard="g0"), asked(2, guard="g1")]),
    "whatever it is, said one of two": life(requests=[asked(1.5, guard="g0"), asked(2)]),
    "not the one that was meant": waiting(
        requests=[asked(2, guard="g0")], claims=[claimed(3)], entries=[logged(5, "changed")]
    ),
    "replaced right before it went": life(
        requests=[asked(2, guard="g1")],
        writings=[wrote(1), wrote(3.9, "g2")],
        unlinks=[deleted(4, "g2")],
    ),
    "written anew after the claim": life(writings=[wrote(1), wrote(4.5, "g2")], there="g2"),
    "a process died between deleting and telling": life(
        claims=[claimed(3), claimed(20, token=2)], entries=[logged(21, "missing")]
    ),
    "given back while it was being claimed": life(
        claims=[claimed(2.5, token=0, released=_us(3) + 400), claimed(3)],
    ),
    "given back and claimed again": life(
        claims=[claimed(2.5, token=0, released=_us(2.8)), claimed(3)],
    ),
}


@pytest.mark.parametrize("story", RIGHT.values(), ids=RIGHT)
def test_what_may_have_been_right_is_not_accused(story: Story) -> None:
    assert verdict_on(story).violations == []


WRONG = {
    "nobody asked": (life(requests=[]), "though nobody asked"),
    "asked for after the claim": (life(requests=[asked(3.5)]), "though nobody asked"),
    "cancelled before the claim": (life(cancels=[at(2.4)]), "though nobody asked"),
    "the request was met before": (
        life(
            writings=[wrote(1), wrote(6, "g2")],
            claims=[claimed(3), claimed(7, token=2)],
            unlinks=[deleted(4), deleted(8, "g2")],
            entries=[logged(5), logged(9)],
        ),
        "though nobody asked",
    ),
    "claimed by two": (
        life(claims=[claimed(3), claimed(3.5, token=2, worker="host-8-abc")]),
        "while somebody held it",
    ),
    "before its time": (life(requests=[asked(2, due=50)]), "before its time"),
    "referenced before the claim": (life(references=[Reference("r", at(2.5))]), "though referenced"),
    "needed by another row": (life(references=[Reference("r", at(1), fragile=True)]), "though referenced"),
    "without a lease": (life(claims=[]), "without a lease"),
    "under the lease of an earlier process of that number": (
        life(unlinks=[deleted(4, born=_us(3.5))]),
        "without a lease",
    ),
    "under another's lease": (life(claims=[claimed(3, worker="host-8-abc")]), "without a lease"),
    "left in the queue": (waiting(row=Row(_us(2), False, None)), "still in the queue"),
    "dead without a reason": (waiting(row=Row(_us(2), True, None)), "without a reason"),
    "waits for ever": (waiting(row=Row(_us(5000), False, None)), "nobody asked for"),
    "forgotten": (waiting(), "nothing became of it"),
    "the second request forgotten": (
        life(requests=[asked(2), asked(4.5)], writings=[wrote(1), wrote(4.2, "g2")], there="g2"),
        "nothing became of it",
    ),
    "logged and still there": (waiting(claims=[claimed(3)], entries=[logged(5, "missing")]), "still there"),
    "logged as deleted by nobody": (life(unlinks=[], writings=[]), "no worker did"),
    "in use by nothing": (waiting(entries=[logged(3.1, "in_use")]), "nothing referred to it"),
    "in use, and deleted for the same request": (
        life(
            requests=[asked(0.1)],
            references=[Reference("r", at(0.3), ended=at(2.6))],
            entries=[logged(2.5, "in_use"), logged(5)],
        ),
        "though nobody asked",
    ),
    "asked for after it was found in use": (
        waiting(
            requests=[asked(2), asked(2.8)],
            references=[Reference("r", at(1))],
            entries=[logged(2.5, "in_use")],
        ),
        "nothing became of it",
    ),
    "not the one that was meant, deleted": (
        life(
            requests=[asked(2, guard="g0")],
            unlinks=[deleted(3.5, "x"), deleted(4)],
            writings=[wrote(1), wrote(1.1, "x")],
        ),
        "not one of ['g0']",
    ),
    "changed, and the one that was meant": (
        waiting(requests=[asked(2, guard="g1")], claims=[claimed(3)], entries=[logged(5, "changed")]),
        "the very file",
    ),
    "changed, and nobody said what it was": (
        waiting(claims=[claimed(3)], entries=[logged(5, "changed")]),
        "nobody said what it should be",
    ),
    "cancelled by nobody": (waiting(entries=[logged(3, "cancelled")]), "nobody did"),
    "gone by itself": (life(unlinks=[], entries=[logged(5, "missing")]), "nobody was seen"),
}


@pytest.mark.parametrize(("story", "words"), WRONG.values(), ids=WRONG)
def test_each_violation_is_seen(story: Story, words: str) -> None:
    violations = verdict_on(story).violations

    assert any(words in violation for violation in violations), violations


def test_a_deletion_that_may_have_been_stopped_after_its_look_at_the_lease_is_told_apart() -> None:
    verdict = verdict_on(life(claims=[claimed(3, lease=0.5)]))

    assert verdict.violations == []
    assert verdict.late == [_us(0.5) + 100]
    assert verdict.harmful == []


@pytest.mark.parametrize(
    ("words", "changes"),
    [
        ("saved", {"cancels": [at(3.6)]}),
        ("written", {"writings": [wrote(3.7)]}),
        ("needed", {"references": [Reference("r", at(3.6))]}),
    ],
)
def test_such_a_deletion_does_harm_when_the_file_had_become_another_or_needed(words: str, changes) -> None:
    verdict = verdict_on(life(claims=[claimed(3, lease=0.5)], **changes))

    assert verdict.violations == []
    (harm,) = verdict.harmful
    assert words in harm


@pytest.mark.parametrize(("renewed", "late"), [(3.4, 0), (4.5, 1)])
def test_a_lease_that_was_renewed_before_the_deletion_lasts_longer(renewed: float, late: int) -> None:
    claim = claimed(3, lease=0.5)
    claim.renewed.append((_us(renewed), _us(renewed + 5)))

    verdict = verdict_on(life(claims=[claim]))

    assert verdict.violations == []
    assert len(verdict.late) == late


def test_a_second_late_deletion_by_the_same_thread_is_a_violation() -> None:
    evidence = Evidence(ended=OVER)
    evidence.stories[PLACE] = life(claims=[claimed(3, lease=0.5)])
    evidence.stories["public", "a/2"] = life(claims=[claimed(3, lease=0.5)], unlinks=[deleted(4.1)])

    verdict = judge(evidence)

    assert len(verdict.late) == 1
    (violation,) = verdict.violations
    assert "before the worker looked at it" in violation


def test_witnesses_that_contradict_each_other_fail_the_campaign() -> None:
    evidence = Evidence(ended=OVER, contradictions=["a transaction was acknowledged, and is lost"])

    assert judge(evidence).violations
