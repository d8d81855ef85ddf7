"""Put the plan into the database, as an application would: rows by COPY, then what people did with them."""

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from typing import Any

import psycopg

from pglapse.demo import visitors
from pglapse.demo.plan import Plan, When
from pglapse.errors import PglapseError

Conn = psycopg.Connection[Any]

_CHUNK = 25


def load(conn: Conn, plan: Plan, begins: datetime) -> None:
    """Fill the marketplace; distances in the plan become times around ``begins``."""

    def at(when: When) -> datetime | str | None:
        return begins + when if isinstance(when, timedelta) else when

    with conn.transaction():
        _copy(
            conn,
            "users",
            "id, email, display_name, created_at",
            ((u.id, u.email, u.name, at(u.created)) for u in plan.users),
        )
        _copy(
            conn,
            "coupons",
            "id, code, user_id, status, valid_from, valid_until, used_at, expired_at",
            (
                (
                    c.id,
                    c.code,
                    c.user,
                    c.status,
                    at(c.valid_from),
                    at(c.valid_until),
                    at(c.used),
                    at(c.expired),
                )
                for c in plan.coupons
            ),
        )
        _copy(
            conn,
            "invitation_codes",
            "id, code, owner_id, status, max_uses, use_count, valid_until, expired_at",
            (
                (c.id, c.code, c.owner, c.status, c.max_uses, c.uses, at(c.valid_until), at(c.expired))
                for c in plan.codes
            ),
        )
        _copy(
            conn,
            "pending_users",
            "id, email, token_hash, created_at, expires_at, verified_at",
            (
                (s.id, s.email, s.token_hash, at(s.created), at(s.expires), at(s.verified))
                for s in plan.sign_ups
            ),
        )
        _copy(
            conn,
            "point_grants",
            "id, user_id, amount, remaining, granted_at, expires_at",
            ((g.id, g.user, g.amount, g.amount, at(g.granted), at(g.expires)) for g in plan.grants),
        )
        _copy(
            conn,
            "tasks",
            "id, poster_id, taker_id, title, status, deadline, created_at",
            (
                (t.id, t.poster, t.taker, t.title, t.story.status, at(t.deadline), at(t.created))
                for t in plan.tasks
            ),
        )
        _copy(
            conn,
            "task_files",
            "id, task_id, storage, path, bytes, uploaded_at",
            ((f.id, f.task, f.storage, f.path, f.size, at(f.uploaded)) for f in plan.task_files),
        )
        _copy(
            conn,
            "temp_uploads",
            "id, user_id, storage, path, bytes, uploaded_at, expires_at",
            (
                (u.id, u.user, u.storage, u.path, u.size, at(u.expires - timedelta(days=1)), at(u.expires))
                for u in plan.uploads
            ),
        )
        visitors.load(conn, plan.visitors, at)
    # People act while the show prepares: tasks get done, called off or taken up again, points are spent.
    with conn.transaction():
        _complete(conn, plan, begins)
    with conn.transaction():
        _each(conn, "market.reopen_task(%s)", ((id,) for id in plan.acting("reopened")))
        _each(conn, "market.cancel_task(%s, 'changed my mind')", ((id,) for id in plan.acting("cancelled")))
        _verify(conn, plan)
        _each(conn, "market.spend_points(%s, %s)", plan.spends)
    conn.execute("analyze")


def refusals(conn: Conn, plan: Plan) -> list[str]:
    """Try to redeem coupons that have lapsed and were not swept yet; every one must be refused as lapsed."""
    told = []
    lapsed = [
        coupon
        for coupon in plan.coupons
        if coupon.status == "active"
        and isinstance(coupon.valid_until, timedelta)
        and coupon.valid_until < timedelta(days=-1)
    ]
    for coupon in lapsed[:5]:
        try:
            conn.execute(
                "select market.redeem_coupon(%s, %s)", [coupon.code, coupon.user or plan.users[0].id]
            )
        except psycopg.Error as error:
            if error.sqlstate != "LP102":
                told.append(f"coupon {coupon.code} has lapsed and was refused for another reason: {error}")
        else:
            told.append(f"coupon {coupon.code} has lapsed and could be redeemed")
    return told


def acts(conn: Conn, plan: Plan) -> Iterator[str]:
    """What people do during the show, a little at each step; what is yielded says it in a few words."""
    steps: list[tuple[str, str, list[tuple[object, ...]]]] = [
        (
            "cancelled a task",
            "select market.cancel_task(%s, 'found somebody else')",
            [(id,) for id in plan.acting("cancel")],
        ),
        ("deleted a task", "delete from market.tasks where id = %s", [(id,) for id in plan.acting("delete")]),
        (
            "replaced a photo",
            "update market.task_files set path = %s where id = %s",
            [(row.replaced_by, row.id) for row in plan.task_files if row.replaced_by],
        ),
        (
            "redeemed a coupon",
            "select market.redeem_coupon(%s, %s)",
            [(coupon.code, coupon.redeemed_by) for coupon in plan.coupons if coupon.redeemed_by],
        ),
        (
            "posted a task with photos",
            "select market.create_task(%s, 'Like in the pictures', now() + interval '9 days', %s)",
            list(plan.drafts.items()),
        ),
    ]
    for what, statement, values in steps:
        for start in range(0, len(values), _CHUNK):
            with conn.transaction():
                conn.cursor().executemany(statement, values[start : start + _CHUNK])
            yield what


def _copy(conn: Conn, table: str, columns: str, rows: Iterable[tuple[object, ...]]) -> None:
    with conn.cursor() as cursor:
        with cursor.copy(f"copy market.{table} ({columns}) from stdin") as copy:
            for row in rows:
                copy.write_row(row)
        # COPY brings its own numbers; the application goes on after them.
        cursor.execute(
            f"""
            select setval(pg_get_serial_sequence('market.{table}', 'id'), max(t.id)) from market.{table} as t
            """
        )


def _complete(conn: Conn, plan: Plan, begins: datetime) -> None:
    done = [(task.id, begins + task.completed) for task in plan.tasks if task.completed is not None]
    conn.execute(
        """
        update market.tasks as t
           set status = 'completed', completed_at = d.at
          from unnest(%s::bigint[], %s::timestamptz[]) as d(id, at)
         where t.id = d.id
        """,
        [[id for id, _ in done], [at for _, at in done]],
    )


def _verify(conn: Conn, plan: Plan) -> None:
    """People click the link in their e-mail, seconds before it lapses."""
    try:
        _each(conn, "market.verify_pending_user(%s)", ((s.token_hash,) for s in plan.sign_ups if s.verifies))
    except psycopg.Error as error:
        if error.sqlstate != "LP102":
            raise
        raise PglapseError("loading took too long here for a show of this size: try --scale 0.2") from error


def _each(conn: Conn, call: str, values: Iterable[tuple[object, ...]]) -> None:
    conn.cursor().executemany(f"select {call}", values)
