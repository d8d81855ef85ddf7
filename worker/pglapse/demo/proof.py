"""Compare what is with what the plan said: rows one by one, files by the manifest."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psycopg

from pglapse.demo import files, visitors
from pglapse.demo.plan import Plan

Conn = psycopg.Connection[Any]


def differences(conn: Conn, plan: Plan, folder: Path, manifest: Path) -> list[str]:
    """Everything that is not as it should be, one line each; empty when the proof holds."""
    checks: tuple[Callable[[], list[str]], ...] = (
        lambda: files.differences(folder, manifest),
        lambda: _statuses(conn, plan),
        lambda: _people(conn, plan),
        lambda: _points(conn, plan),
        lambda: _references(conn, plan),
        lambda: _uploads(conn, plan),
        lambda: _statistics(conn, plan),
        lambda: _waiting(conn, plan),
        lambda: visitors.differences(conn, plan.visitors),
        lambda: _troubles(conn),
    )
    return [difference for check in checks for difference in check()]


def remarks(conn: Conn) -> list[str]:
    """Runs that did not end well. No difference yet: the next run makes up for them, or rows differ."""
    runs = conn.execute("select policy, status, message from lapse.run_log where status <> 'ok' order by id")
    return [f"a run of policy {policy} ended as {status}: {message}" for policy, status, message in runs]


def _statuses(conn: Conn, plan: Plan) -> list[str]:
    """Coupons, invitation codes and tasks, each in the status that its story ends with."""
    cancelled = {task.id: task.story.name for task in plan.tasks if task.story.name in ("overdue", "lapsing")}
    reasons = _pairs(conn, "select id, cancel_reason from market.tasks where status = 'cancelled'")
    wrong = [
        f"task {id} lapsed, but its cancel_reason is {reasons.get(id)!r}"
        for id in cancelled
        if reasons.get(id) != "deadline"
    ]
    return (
        _compare(
            "coupon",
            _pairs(conn, "select id, status from market.coupons"),
            {c.id: c.ends for c in plan.coupons},
        )
        + _compare(
            "invitation code",
            _pairs(conn, "select id, status from market.invitation_codes"),
            {c.id: c.ends for c in plan.codes},
        )
        + _compare(
            "task",
            _pairs(conn, f"select id, status from market.tasks where id <= {len(plan.tasks)}"),
            {t.id: t.story.ends for t in plan.tasks if t.story.ends},
        )
        + wrong
    )


def _people(conn: Conn, plan: Plan) -> list[str]:
    """Sign-ups that nobody verified are gone; those verified in time are users now."""
    verified = {s.email for s in plan.sign_ups if s.verifies}
    expected = {u.email for u in plan.users} | verified
    found = {email for (email,) in conn.execute("select email from market.users")}
    return _compare(
        "sign-up",
        _pairs(conn, "select id, verified_at is not null from market.pending_users"),
        {s.id: s.verified is not None or s.verifies for s in plan.sign_ups if not s.goes},
    ) + [
        f"user {email} is {'missing' if email in expected else 'not expected'}" for email in expected ^ found
    ]


def _points(conn: Conn, plan: Plan) -> list[str]:
    """Balances are what the plan says, and agree with the grants and with the ledger."""
    balances = _pairs(conn, "select user_id, balance from market.point_balances")
    grants = _pairs(conn, "select user_id, sum(remaining)::bigint from market.point_grants group by user_id")
    ledger = _pairs(conn, "select user_id, sum(delta)::bigint from market.point_entries group by user_id")
    lapsed = _pairs(conn, "select id, expired_at is not null from market.point_grants")
    return (
        _compare("balance of user", balances, plan.balances)
        + _compare("points left to user", grants, plan.balances)
        + _compare("ledger of user", ledger, plan.balances)
        + _compare("lapse of grant", lapsed, {grant.id: grant.lapses for grant in plan.grants})
    )


def _references(conn: Conn, plan: Plan) -> list[str]:
    """task_files says of exactly those files that they were removed, which were."""
    gone = {file.key for file in plan.files if file.goes}
    deleted = set(plan.acting("delete"))
    return _compare(
        "task_files says removed: row",
        _pairs(
            conn,
            f"select id, removed_at is not null from market.task_files where id <= {len(plan.task_files)}",
        ),
        {
            row.id: (row.storage, row.replaced_by or row.path) in gone
            for row in plan.task_files
            if row.task not in deleted
        },
    )


def _uploads(conn: Conn, plan: Plan) -> list[str]:
    """Uploads are there until they lapse; those that a new task took are its files, and live."""
    taken = {
        (storage, path): user
        for storage, path, user in conn.execute(
            """
            select f.storage, f.path, t.poster_id
              from market.task_files as f join market.tasks as t on t.id = f.task_id
             where t.id > %s and t.status = 'open' and f.removed_at is null
            """,
            [len(plan.tasks)],
        )
    }
    expected = {(u.storage, u.path): u.user for u in plan.uploads if u.fate == "taken"}
    return _compare(
        "upload",
        _pairs(conn, "select id, user_id from market.temp_uploads"),
        {u.id: u.user for u in plan.uploads if u.fate == "stays"},
    ) + [
        f"file {'/'.join(key)} should belong to a new task of user {expected.get(key)},"
        f" and belongs to one of {taken.get(key)}"
        for key in sorted(taken.keys() | expected.keys())
        if taken.get(key) != expected.get(key)
    ]


def _statistics(conn: Conn, plan: Plan) -> list[str]:
    """What is counted of each user is what the plan gives, though nobody ever counted."""
    rows = conn.execute(
        """
        select user_id, tasks_posted, tasks_taken, tasks_completed, tasks_cancelled
          from market.user_statistics
        """
    )
    return _compare("statistics of user", {user: tuple(numbers) for user, *numbers in rows}, plan.statistics)


def _waiting(conn: Conn, plan: Plan) -> list[str]:
    """Files of recently completed tasks, and nothing else, are queued for later."""
    expected = {file.key for file in plan.files if file.waits}
    found = {
        (storage, path)
        for storage, path in conn.execute(
            "select storage, path from lapse.file_cleanup_queue where dead_at is null"
        )
    }
    return [
        f"file {'/'.join(key)} should wait in the queue and does not" for key in sorted(expected - found)
    ] + [f"file {'/'.join(key)} is in the queue and should not be" for key in sorted(found - expected)]


def _troubles(conn: Conn) -> list[str]:
    """Nothing was given up or set aside."""
    dead = conn.execute(
        "select storage, path, last_error from lapse.file_cleanup_queue where dead_at is not null"
    )
    blocked = conn.execute("select policy, key, error from lapse.blocked_row")
    return [f"file {storage}/{path} was given up: {error}" for storage, path, error in dead] + [
        f"policy {policy} set row {key} aside: {error}" for policy, key, error in blocked
    ]


def _pairs(conn: Conn, query: str) -> dict[int, Any]:
    return dict(conn.execute(query).fetchall())


def _compare(what: str, found: Mapping[int, object], expected: Mapping[int, object]) -> list[str]:
    missing, strange = "missing", "not expected"
    return [
        f"{what} {key}: {found.get(key, missing)}, expected {expected.get(key, strange)}"
        for key in sorted(found.keys() | expected.keys())
        if (key in found, found.get(key)) != (key in expected, expected.get(key))
    ]
