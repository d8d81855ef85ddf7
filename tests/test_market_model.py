"""The file rules against a model of them: the queue holds what the model says, whatever was done."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support import databases
from tests.support.market import add_task, add_user, now, queue

KEPT = timedelta(hours=72)
PATHS = ["a", "b", "c"]
TASKS = 3


@dataclass
class Model:
    """Tasks by number → when their files go (None: live); rows by id → task and path; the queue."""

    now: datetime
    goes: dict[int, datetime | None]
    rows: dict[int, tuple[int, str]] = field(default_factory=dict)
    queue: dict[str, datetime] = field(default_factory=dict)

    def enqueue(self, path: str, at: datetime) -> None:
        self.queue[path] = min(at, self.queue.get(path, at))

    def change_tasks(self, tasks: set[int], goes: datetime | None) -> None:
        changed = {task: self.goes[task] for task in tasks if self.goes[task] != goes}
        paths = [(path, changed[task]) for task, path in self.rows.values() if task in changed]
        self.goes |= dict.fromkeys(changed, goes)
        for path, was in paths:
            if goes is None or (was is not None and goes > was):
                self.queue.pop(path, None)
        for path, _ in paths:
            if goes is not None:
                self.enqueue(path, goes)

    def arrive(self, rows: dict[int, tuple[int, str]]) -> None:
        self.rows |= rows
        for task, path in rows.values():
            if goes := self.goes[task]:
                self.enqueue(path, goes)
        for task, path in rows.values():
            if self.goes[task] is None:
                self.queue.pop(path, None)

    def change_rows(self, new: dict[int, tuple[int, str]]) -> None:
        changed = {row: to for row, to in new.items() if self.rows[row] != to}
        for row, (_, path) in changed.items():
            if self.rows[row][1] != path:
                self.enqueue(self.rows[row][1], self.now)
        self.arrive(changed)

    def delete_rows(self, rows: set[int]) -> None:
        for row in rows:
            self.enqueue(self.rows.pop(row)[1], self.now)


@pytest.fixture(scope="module")
def conn(server: str, template: str) -> Iterator[psycopg.Connection]:
    """One transaction at a time, rolled back."""
    with databases.database(server, template) as dsn, psycopg.connect(dsn) as connection:
        yield connection
        connection.rollback()


def end(conn: psycopg.Connection, model: Model, names: list[int], draw: Callable[..., object]) -> None:
    status = draw(st.sampled_from(["open", "taken", "completed", "cancelled"]))
    tasks = draw(st.sets(st.sampled_from(names), min_size=1))
    completed = model.now - timedelta(hours=draw(st.sampled_from([0, 10, 90])))
    conn.execute(
        "update market.tasks set status = %s, completed_at = %s where id = any (%s)",
        [status, completed, list(tasks)],
    )
    model.change_tasks(
        tasks,
        completed + KEPT if status == "completed" else model.now if status == "cancelled" else None,
    )


def add_rows(conn: psycopg.Connection, model: Model, names: list[int], draw: Callable[..., object]) -> None:
    new = draw(
        st.lists(
            st.tuples(st.sampled_from(names), st.sampled_from(PATHS)), min_size=1, max_size=4, unique=True
        )
    )
    found = conn.execute(
        "insert into market.task_files (task_id, storage, path)"
        " select t, 'public', p from unnest(%s::bigint[], %s::text[]) as n (t, p)"
        " returning id, task_id, path",
        [[task for task, _ in new], [path for _, path in new]],
    )
    model.arrive({row: (task, path) for row, task, path in found})


def replace(conn: psycopg.Connection, model: Model, names: list[int], draw: Callable[..., object]) -> None:
    if not model.rows:
        return
    rows = draw(st.sets(st.sampled_from(sorted(model.rows)), min_size=1, max_size=4))
    new = {row: (draw(st.sampled_from(names)), draw(st.sampled_from(PATHS))) for row in sorted(rows)}
    conn.execute(
        "merge into market.task_files as f"
        " using unnest(%s::bigint[], %s::bigint[], %s::text[]) as n (id, t, p) on f.id = n.id"
        " when matched then update set task_id = n.t, path = n.p",
        [list(new), [task for task, _ in new.values()], [path for _, path in new.values()]],
    )
    model.change_rows(new)


def delete(conn: psycopg.Connection, model: Model, names: list[int], draw: Callable[..., object]) -> None:
    if not model.rows:
        return
    rows = draw(st.sets(st.sampled_from(sorted(model.rows)), min_size=1, max_size=2))
    conn.execute("delete from market.task_files where id = any (%s)", [list(rows)])
    model.delete_rows(rows)


@settings(
    max_examples=120,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_the_queue_holds_what_the_model_says(conn: psycopg.Connection, data: st.DataObject) -> None:
    conn.rollback()
    user = add_user(conn)
    names = [add_task(conn, user) for _ in range(TASKS)]
    model = Model(now(conn), dict.fromkeys(names))
    ever = set()

    for step in data.draw(st.lists(st.sampled_from([end, end, add_rows, replace, delete]), max_size=10)):
        step(conn, model, names, data.draw)
        ever |= {path for _, path in model.rows.values()}

        assert queue(conn) == {f"public:{path}": at for path, at in model.queue.items()}
        live = {path for task, path in model.rows.values() if model.goes[task] is None}
        assert ever - live <= set(model.queue), "a file that nothing needs would stay for ever"
