"""The show: rows lapse by the schedule, files follow, people go on using the marketplace."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import psycopg

from pglapse.demo import visitors
from pglapse.demo.plan import WINDOW, Plan
from pglapse.demo.process import Worker

Conn = psycopg.Connection[Any]

POLICIES = (
    "expire_coupons",
    "expire_invitation_codes",
    "expire_points",
    "purge_pending_users",
    "cancel_expired_tasks",
    "expire_temp_uploads",
    "fold_user_statistics",
    "purge_sessions",
    "purge_cache",
    "assign_waiting_chats",
    "warn_idle_chats",
    "end_idle_chats",
)

CADENCE = "10 s"
"""The shortest that a policy may have; what the marketplace uses is a minute and more."""

_LOOK = 0.4
_PATIENCE = 45.0
_SETTLED = 5.0

_COUNTS = f"""
select (select count(*) from market.coupons as c where c.status = 'expired'),
       (select count(*) from market.invitation_codes as i where i.status = 'expired'),
       (select count(*) from market.point_grants as g where g.expired_at is not null),
       %(sign_ups)s - (select count(*) from market.pending_users),
       (select count(*) from market.tasks as t where t.status = 'cancelled'),
       %(uploads)s - (select count(*) from market.temp_uploads),
       {visitors.COUNTS},
       (select count(*) from lapse.file_cleanup_queue as q
         where q.dead_at is null and q.not_before <= clock_timestamp())
"""


@dataclass(frozen=True, slots=True)
class Bar:
    """How far one kind of row, or the files, have got."""

    name: str
    done: int
    total: int


Update = Callable[[list[Bar]], None]
"""Shows the bars."""


def hasten(conn: Conn) -> None:
    """Let every policy of the marketplace run each 10 seconds; its own cadence would make a long show."""
    for policy in POLICIES:
        conn.execute("select lapse.alter_policy(%s, p_every => %s::interval)", [policy, CADENCE])


def run(
    conn: Conn,
    plan: Plan,
    folder: Path,
    *,
    begins: datetime,
    worker: Worker,
    acts: Iterator[str],
    update: Update,
) -> str | None:
    """Watch until all is as it should be, or patience ends; returns what broke it off, if anything did."""
    totals = _totals(plan)
    awaited = {folder / file.storage / file.path for file in plan.files if file.goes}
    files = len(awaited)
    started = monotonic() + (begins - _now(conn)).total_seconds()
    ends = started + WINDOW + _PATIENCE + files / 100
    acting = True
    settled = started
    while True:
        acting = acting and next(acts, None) is not None
        *counts, kept, ended, warned, served, due = _counts(conn, plan)
        awaited = {path for path in awaited if path.exists()}
        bars = [
            Bar(name, min(done, total), total) for (name, total), done in zip(totals, counts, strict=True)
        ]
        bars += [Bar(*bar) for bar in plan.visitors.bars([kept, ended, warned, served])]
        bars.append(Bar("files gone", files - len(awaited), files))
        update(bars)
        if worker.gone():
            return f"the worker ended in the middle of the show (exit code {worker.process.returncode})"
        # A little longer than the window: what must not go has to outlive the time when it could have gone.
        over = monotonic() > started + WINDOW + 2 and not acting and not due
        if not over or any(bar.done < bar.total for bar in bars[:-1]):
            settled = monotonic()
        elif not awaited or monotonic() > settled + _SETTLED:
            return None  # files that are there although nothing is due any more are the proof's to name
        if monotonic() > ends:
            return f"not everything had lapsed {monotonic() - started:.0f} seconds after the beginning"
        sleep(_LOOK)


def _totals(plan: Plan) -> list[tuple[str, int]]:
    return [
        ("coupons expired", sum(coupon.ends == "expired" for coupon in plan.coupons)),
        ("invitations expired", sum(code.ends == "expired" for code in plan.codes)),
        ("point grants lapsed", sum(grant.lapses for grant in plan.grants)),
        ("sign-ups purged", sum(sign_up.goes for sign_up in plan.sign_ups)),
        ("tasks cancelled", sum(task.story.ends == "cancelled" for task in plan.tasks)),
        ("uploads settled", sum(upload.fate != "stays" for upload in plan.uploads)),
    ]


def _counts(conn: Conn, plan: Plan) -> tuple[int, ...]:
    numbers = {
        "sign_ups": len(plan.sign_ups),
        "uploads": len(plan.uploads),
        "placed": plan.visitors.placed,
        "silent": plan.visitors.silent,
    }
    row = conn.execute(_COUNTS, numbers).fetchone()
    assert row is not None  # noqa: S101 - a select without a table gives one row
    return tuple(row)


def _now(conn: Conn) -> datetime:
    row = conn.execute("select clock_timestamp()").fetchone()
    assert row is not None and isinstance(row[0], datetime)  # noqa: S101, PT018
    return row[0]
