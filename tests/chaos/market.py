"""An application of the marketplace: tasks and their files, queued and saved by the triggers alone.

After each statement it reads which of its rows a worker has marked as removed: the triggers do nothing about
those. What was not marked by then was not marked when the trigger ran.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.chaos.application import Application, Connection, Doing
from tests.chaos.disk import STORAGES, Place
from tests.chaos.journal import now

MOST_TASKS = 60
THREE_DAYS = 72 * 3600 * 1_000_000


@dataclass
class Task:
    """A task as the application has committed it: open, completed (files stay 3 days) or over."""

    id: int
    state: str = "open"
    files: dict[int, Place] = field(default_factory=dict)


def behave(app: Application) -> Iterator[None]:
    """One transaction, with the writing of files that belongs to it, a step."""
    one = Market(app)
    while not one.sign_up():
        yield
    doings = {
        one.post: 8,
        one.cancel: 5,
        one.complete: 3,
        one.complete_long_ago: 3,
        one.reopen: 5,
        one.delete_task: 2,
        one.delete_file: 3,
        one.rename: 4,
        one.upload_again: 2,
    }
    while True:
        (step,) = app.dice.choices(list(doings), list(doings.values()))
        step()
        yield


class Market:
    """What it knows is what it has committed."""

    def __init__(self, app: Application) -> None:
        self.app = app
        self.dice = app.dice
        self.user = 0
        self.tasks: dict[int, Task] = {}
        self.number = 0
        self.used: list[Place] = []

    def sign_up(self) -> bool:
        def work(conn: Connection, _doing: Doing) -> None:
            (self.user,) = conn.execute(
                "insert into market.users (email, display_name) values (%s, %s) returning id",
                [f"{self.app.name}@example.org", self.app.name],
            ).fetchone() or (0,)

        return self.app.transact(work)

    def pick(self, *states: str) -> Task | None:
        tasks = [task for task in self.tasks.values() if task.state in states]
        return self.dice.choice(tasks) if tasks else None

    def new_place(self) -> Place:
        """A name for a file: new, used before, or used by another task right now."""
        if self.used and self.dice.random() < 0.35:
            return self.dice.choice(self.used)
        self.number += 1
        place = self.dice.choice(STORAGES), f"{self.app.name}/{self.number // 10}/{self.number}"
        self.used = [*self.used, place][-60:]
        return place

    def post(self) -> None:
        """Upload files, and post a task that has them."""
        if len(self.tasks) >= MOST_TASKS:
            return
        places = list({self.new_place(): None for _ in range(self.dice.randint(1, 4))})
        for place in places:
            self.app.files.write(place)
        task = Task(0)

        def work(conn: Connection, doing: Doing) -> None:
            (task.id,) = conn.execute(
                "insert into market.tasks (poster_id, title) values (%s, 'Carry a piano') returning id",
                [self.user],
            ).fetchone() or (0,)
            first = now()
            rows = conn.execute(
                "insert into market.task_files (task_id, storage, path)"
                " select %s, f.storage, f.path from unnest(%s::text[], %s::text[]) as f (storage, path)"
                " returning id, storage, path",
                [task.id, [storage for storage, _ in places], [path for _, path in places]],
            ).fetchall()
            task.files = {number: (storage, path) for number, storage, path in rows}
            doing.cancel(conn, places, first)
            for number, place in task.files.items():
                doing.refer(place, first, key(number), fragile=True)

        if self.app.transact(work):
            self.tasks[task.id] = task

    def cancel(self) -> None:
        self.end("select market.cancel_task(%s)", "over", "open")

    def complete(self) -> None:
        """Its files are due in three days: longer than any campaign."""
        self.end("select market.complete_task(%s)", "completed", "open")

    def complete_long_ago(self) -> None:
        """Its files are due at once; so are those of a task completed now whose completion is antedated."""
        self.end(
            "update market.tasks set status = 'completed', completed_at = now() - interval '73 hours'"
            " where id = %s",
            "over",
            "open",
            "completed",
        )

    def end(self, statement: str, state: str, *states: str) -> None:
        task = self.pick(*states)
        if task is None:
            return

        def work(conn: Connection, doing: Doing) -> None:
            first = now()
            conn.execute(statement, [task.id])
            for number, removed in marked(conn, task):
                place = task.files[number]
                if state == "over":
                    doing.unrefer(place, first, key(number))
                doing.request(
                    place, first, first + THREE_DAYS if state == "completed" else None, maybe=removed
                )

        if self.app.transact(work):
            task.state = state

    def reopen(self) -> None:
        task = self.pick("over", "completed")
        if task is None:
            return

        def work(conn: Connection, doing: Doing) -> None:
            first = now()
            conn.execute("select market.reopen_task(%s)", [task.id])
            back = [number for number, removed in marked(conn, task) if not removed]
            doing.cancel(conn, [task.files[number] for number in back], first)
            for number in back:
                doing.refer(task.files[number], first, key(number), fragile=True)

        if self.app.transact(work):
            task.state = "open"

    def delete_task(self) -> None:
        """Delete the row; those of its files go with it."""
        task = self.pick("open", "over", "completed")
        if task is None:
            return

        def work(conn: Connection, doing: Doing) -> None:
            first = now()
            rows = marked(conn, task, lock=True)
            conn.execute("delete from market.tasks where id = %s", [task.id])
            for number, removed in rows:
                doing.unrefer(task.files[number], first, key(number))
                doing.request(task.files[number], first, maybe=removed)

        if self.app.transact(work):
            del self.tasks[task.id]

    def delete_file(self) -> None:
        task = self.pick("open", "over", "completed")
        if task is None or not task.files:
            return
        number = self.dice.choice(sorted(task.files))

        def work(conn: Connection, doing: Doing) -> None:
            first = now()
            ((removed,),) = conn.execute(
                "delete from market.task_files where id = %s returning removed_at is not null", [number]
            ).fetchall()
            doing.unrefer(task.files[number], first, key(number))
            doing.request(task.files[number], first, maybe=removed)

        if self.app.transact(work):
            del task.files[number]

    def rename(self) -> None:
        """Give a row of a live task another file."""
        task = self.pick("open")
        if task is None or not task.files:
            return
        number = self.dice.choice(sorted(task.files))
        old, new = task.files[number], self.new_place()
        if new == old:
            return
        self.app.files.write(new)

        def work(conn: Connection, doing: Doing) -> None:
            ((removed,),) = conn.execute(
                "select removed_at is not null from market.task_files where id = %s for no key update",
                [number],
            ).fetchall()
            first = now()
            conn.execute("update market.task_files set storage = %s, path = %s where id = %s", [*new, number])
            doing.unrefer(old, first, key(number))
            doing.request(old, first, maybe=removed)
            doing.cancel(conn, [new], first)
            doing.refer(new, first, key(number), fragile=True)

        if self.app.transact(work):
            task.files[number] = new

    def upload_again(self) -> None:
        """A file of a live task was marked as removed: write it anew, and say so."""
        task = self.pick("open")
        if task is None or not task.files:
            return
        number = self.dice.choice(sorted(task.files))
        place = task.files[number]
        if self.app.disk.has(place):
            return
        self.app.files.write(place)

        def work(conn: Connection, doing: Doing) -> None:
            first = now()
            found = conn.execute(
                "update market.task_files set removed_at = null where id = %s and removed_at is not null",
                [number],
            )
            if found.rowcount:
                doing.cancel(conn, [place], first)
                doing.refer(place, first, key(number), fragile=True)

        self.app.transact(work)


def key(number: int) -> str:
    return f"task_files {number}"


def marked(conn: Connection, task: Task, *, lock: bool = False) -> list[tuple[int, bool]]:
    """Rows of the task's files, and whether a worker has marked each as removed."""
    return conn.execute(
        "select id, removed_at is not null from market.task_files where id = any(%s) order by id"
        + (" for update" if lock else ""),
        [list(task.files)],
    ).fetchall()
