"""The queue against a small model of it: any order of requests, cancels, claims, results and time."""

from dataclasses import dataclass, replace
from itertools import count
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.support.queue import enqueue, exchange, hand_in

PATHS = st.sampled_from(["a", "b", "c"])
NOW, LATER = 0, 1
WHEN = st.sampled_from([NOW, LATER])
AT = {NOW: "now()", LATER: "now() + interval '5 days'"}
MAX_ATTEMPTS = 3
MAX_LOST = 2


@dataclass(frozen=True)
class Row:
    """A queue row as the model knows it: ``due`` and ``again`` are NOW or LATER."""

    due: int
    attempts: int = 0
    lost: int = 0
    size: int | None = None
    token: int | None = None
    leased: bool = False
    again: int | None = None
    cancelled: bool = False
    dead: bool = False

    def anew(self) -> "Row":
        """What a request made while a worker held it turns into."""
        assert self.again is not None
        return Row(due=self.again)

    @property
    def spent(self) -> bool:
        """Whether no further attempt is due to it. What was lost in company has used up nothing."""
        if self.token is None or self.size == 1:
            return self.attempts >= MAX_ATTEMPTS or (self.token is not None and self.lost + 1 >= MAX_LOST)
        return False


class Queue(RuleBasedStateMachine):
    """Each rule does the same to the database and to the model."""

    def __init__(self, conn) -> None:
        super().__init__()
        self.conn = conn
        self.rows: dict[str, Row] = {}
        self.log: list[tuple[str, str]] = []
        self.stale: list[tuple[int, int]] = []
        self.workers = count()
        conn.execute("delete from lapse.file_cleanup_queue; delete from lapse.file_cleanup_log")

    def drop(self, path: str, outcome: str) -> None:
        self.log.append((path, outcome))
        del self.rows[path]

    @rule(paths=st.lists(PATHS, min_size=1, max_size=3), when=WHEN, plain=st.booleans())
    def enqueue(self, paths: list[str], when: int, plain: bool) -> None:
        if plain:
            for path in paths:
                self.conn.execute(
                    "insert into lapse.file_cleanup_queue (storage, path, not_before)"
                    f" values ('s', %s, {AT[when]})",
                    [path],
                )
        else:
            enqueue(self.conn, *paths, at=AT[when])

        for path in paths:
            row = self.rows.get(path)
            if row is None or row.dead:
                self.rows[path] = Row(due=when)
            elif row.token is not None:
                self.rows[path] = replace(row, again=when if row.again is None else min(row.again, when))
            elif row.attempts == 0:
                self.rows[path] = replace(row, due=min(row.due, when))

    @rule(path=PATHS)
    def cancel(self, path: str) -> None:
        (taken,) = self.conn.execute("select lapse.cancel_file('s', %s)", [path]).fetchone()

        row = self.rows.get(path)
        assert taken == (row is None or not row.leased)
        if row and row.leased:
            self.rows[path] = replace(row, cancelled=True, again=None)
        elif row:
            self.drop(path, "cancelled")

    @rule()
    def claim(self) -> None:
        numbers = {path: self.number(path) for path in self.rows}

        answer = exchange(self.conn, worker=f"w{next(self.workers)}")

        free, lost = set(), set()
        for path, row in list(self.rows.items()):
            if row.dead or row.due == LATER or row.leased:
                continue
            if row.token is not None:
                self.stale.append((numbers[path], row.token))
            if row.cancelled and row.again is None:
                self.drop(path, "cancelled")
            elif row.cancelled or (row.spent and row.again is not None):
                self.rows[path] = row.anew()
            elif row.spent:
                self.rows[path] = Row(due=row.due, attempts=row.attempts, lost=row.lost, dead=True)
            elif row.token is None:
                free.add(path)
            else:
                lost.add(path)
        if lost:
            self.taken_alone(lost, answer.claimed)
        else:
            assert set(answer.paths) == free
            assert not any(claim.alone for claim in answer.claimed)
        for claim in answer.claimed:
            row = self.rows[claim.path]
            self.rows[claim.path] = replace(
                row,
                attempts=row.attempts + (row.token is None or row.size == 1),
                lost=row.lost + (row.token is not None and row.size == 1),
                size=len(answer.claimed) if claim.alone else max(2, len(answer.claimed)),
                token=claim.token,
                leased=True,
                again=None if row.again == NOW else row.again,
            )

    def taken_alone(self, lost: set[str], claimed: list[Any]) -> None:
        """Of one lost batch, and at most half of it, for a worker that does nothing else."""
        rows = [self.rows[claim.path] for claim in claimed]
        tokens = {row.token for row in rows}
        assert all(claim.alone for claim in claimed)
        assert len(tokens) == 1
        together = [path for path in lost if self.rows[path].token in tokens]
        assert len(claimed) == min(len(together), max(1, (rows[0].size or 0) // 2))
        assert {claim.path for claim in claimed} <= lost
        for path in lost - {claim.path for claim in claimed}:
            self.stale.remove((self.number(path), self.rows[path].token or 0))

    @precondition(lambda self: any(row.token is not None for row in self.rows.values()))
    @rule(
        data=st.data(),
        outcome=st.sampled_from(["deleted", "missing", "changed", "failed", "refused", "released"]),
    )
    def finish(self, data: st.DataObject, outcome: str) -> None:
        path = data.draw(
            st.sampled_from(sorted(path for path, row in self.rows.items() if row.token is not None))
        )
        row = self.rows[path]
        assert row.token is not None

        number = self.number(path)
        answer = hand_in(self.conn, {"id": number, "token": row.token, "outcome": outcome})

        assert answer.stale == answer.unsettled == []
        self.stale.append((number, row.token))
        free = replace(row, token=None, leased=False, cancelled=False, size=None, lost=0)
        if outcome in ("deleted", "missing", "changed"):
            self.drop(path, outcome)
            if row.again is not None:
                self.rows[path] = row.anew()
        elif row.cancelled and row.again is None:
            self.drop(path, "cancelled")
        elif row.cancelled:
            self.rows[path] = row.anew()
        elif outcome == "released":
            self.rows[path] = replace(free, attempts=row.attempts - 1, lost=row.lost)
        elif outcome == "refused" or (row.attempts >= MAX_ATTEMPTS and row.again is None):
            self.rows[path] = replace(free, again=None, dead=True)
        else:
            self.rows[path] = replace(
                free, due=LATER, attempts=0 if row.attempts >= MAX_ATTEMPTS else row.attempts
            )

    @precondition(lambda self: self.stale)
    @rule(data=st.data(), outcome=st.sampled_from(["deleted", "failed", "refused", "released"]))
    def finish_late(self, data: st.DataObject, outcome: str) -> None:
        number, token = data.draw(st.sampled_from(self.stale))

        answer = hand_in(self.conn, {"id": number, "token": token, "outcome": outcome})

        assert [late.id for late in answer.stale] == [number]

    @rule()
    def leases_end(self) -> None:
        self.conn.execute(
            "update lapse.file_cleanup_queue set leased_until = now() where lease_token is not null"
        )

        self.rows = {path: replace(row, leased=False) for path, row in self.rows.items()}

    @rule()
    def days_pass(self) -> None:
        self.conn.execute(
            "update lapse.file_cleanup_queue set not_before = not_before - interval '10 days',"
            " again_at = again_at - interval '10 days', leased_until = leased_until - interval '10 days'"
        )

        for path, row in self.rows.items():
            again = None if row.again is None else NOW
            self.rows[path] = replace(row, due=NOW, leased=False, again=again)

    @rule()
    def retry_dead(self) -> None:
        (revived,) = self.conn.execute("select lapse.retry_files()").fetchone()

        dead = [path for path, row in self.rows.items() if row.dead]
        assert revived == len(dead)
        self.rows |= {path: Row(due=NOW) for path in dead}

    @rule(path=PATHS)
    def discard(self, path: str) -> None:
        (gone,) = self.conn.execute(
            "select lapse.discard_files("
            "  array(select q.id from lapse.file_cleanup_queue as q where q.path = %s), 'x')",
            [path],
        ).fetchone()

        row = self.rows.get(path)
        assert gone == (row is not None and not row.leased)
        if gone:
            self.drop(path, "discarded")

    def number(self, path: str) -> int:
        (number,) = self.conn.execute(
            "select id from lapse.file_cleanup_queue where path = %s", [path]
        ).fetchone()
        return number

    @invariant()
    def agree(self) -> None:
        rows = self.conn.execute("""
            select q.path, (q.not_before > clock_timestamp())::integer, q.attempts, q.lost,
                   q.lease_size, q.lease_token,
                   coalesce(q.leased_until > clock_timestamp(), false),
                   (q.again_at > clock_timestamp())::integer,
                   q.cancelled_at is not null, q.dead_at is not null
              from lapse.file_cleanup_queue as q
        """)
        assert {path: Row(*rest) for path, *rest in rows} == self.rows
        log = self.conn.execute("select path, outcome from lapse.file_cleanup_log").fetchall()
        assert sorted(log) == sorted(self.log)


def test_the_queue_does_what_its_model_does(conn):
    conn.execute(
        "update lapse.setting set max_attempts = %s, max_lost = %s,"
        " backoff_base = '1 hour', backoff_cap = '7 days'",
        [MAX_ATTEMPTS, MAX_LOST],
    )
    conn.execute("set synchronous_commit = off; set client_min_messages = error")

    run_state_machine_as_test(
        lambda: Queue(conn),
        settings=settings(
            max_examples=40,
            stateful_step_count=40,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
