"""An application that calls lapse.enqueue_files, lapse.cancel_files and the like itself.

It has names of its own, and shares some with the other applications of its kind. Rows of ``chaos.reference``
are its references.
"""

from collections.abc import Iterator

from psycopg.types.json import Jsonb

from tests.chaos.application import Application, Connection, Doing
from tests.chaos.disk import STORAGES, Place
from tests.chaos.journal import now

FOLDERS, FILES = 8, 15
SHARED_FOLDERS, SHARED_FILES = 4, 8
GUARDED = 0.4  # of the requests for many files: only while the file is what it is now
NONSENSE = ("../up", "a/../b", "/absolute", "two//slashes", "end/")

REQUEST = (
    "select lapse.enqueue_files(array(select jsonb_populate_record(null::lapse.file_request, j)"
    " from jsonb_array_elements(%s) as j))"
)


def behave(app: Application) -> Iterator[None]:
    """One transaction, with the writing of files that belongs to it, a step."""
    one = Plain(app)
    doings = {
        one.condemn: 10,
        one.condemn_anew: 4,
        one.save: 4,
        one.refer: 3,
        one.unrefer: 3,
        one.rename: 2,
        one.condemn_nonsense: 0.1,
    }
    while True:
        (step,) = app.dice.choices(list(doings), list(doings.values()))
        step()
        yield


class Plain:
    """What it knows is what it has committed."""

    def __init__(self, app: Application) -> None:
        self.app = app
        self.dice = app.dice
        self.recent: list[Place] = []
        self.references: dict[str, Place] = {}
        self.number = 0

    def place(self) -> Place:
        storage = self.dice.choice(STORAGES)
        if self.dice.random() < 0.1:
            return (
                storage,
                f"shared/{self.dice.randrange(SHARED_FOLDERS)}/{self.dice.randrange(SHARED_FILES)}",
            )
        return storage, f"{self.app.name}/{self.dice.randrange(FOLDERS)}/{self.dice.randrange(FILES)}"

    def places(self, most: int) -> list[Place]:
        return list({self.place(): None for _ in range(self.dice.randint(1, most))})

    def lately(self, most: int) -> list[Place]:
        """Rather files that were condemned just now: a worker may be at them."""
        if not self.recent or self.dice.random() < 0.2:
            return self.places(most)
        few = min(most, len(self.recent))
        return list(dict.fromkeys(self.dice.sample(self.recent, self.dice.randint(1, few))))

    def written(self, place: Place) -> None:
        if not self.app.disk.has(place) and self.dice.random() < 0.9:
            self.app.files.write(place)

    def due(self) -> int | None:
        """At once, or a moment later."""
        if self.dice.random() < 0.7:
            return None
        return now() + int(self.dice.uniform(0.05, 1.5) * 1_000_000)

    def ask(self, conn: Connection, doing: Doing, places: list[Place], due: int | None) -> None:
        """Queue files in one of the ways that there are."""
        way = self.dice.choice(("many", "one", "insert"))
        at = "'epoch'::timestamptz + %s::bigint * interval '1 microsecond'"
        if way == "many":
            first = now()
            when = due and conn.execute(f"select {at}", [due]).fetchone()[0].isoformat()  # type: ignore[index]
            guarded = self.dice.random() < GUARDED
            files: list[dict[str, object]] = []
            for storage, path in places:
                seen = self.app.disk.seen((storage, path)) if guarded else None
                expected = seen and {"size": seen[1], "mtime_ns": seen[2]}
                files.append(
                    {
                        "storage": storage,
                        "path": path,
                        "not_before": when,
                        "reason": "chaos",
                        "expected": expected,
                    }
                )
                doing.request((storage, path), first, due, guard=seen and seen[0])
            conn.execute(REQUEST, [Jsonb(files)])
            return
        # Row by row: in one order, or two applications that share names deadlock more often than not.
        for place in sorted(places):
            first = now()
            if way == "one":
                conn.execute(f"select lapse.enqueue_file(%s, %s, {at})", [*place, due])
            else:
                conn.execute(
                    "insert into lapse.file_cleanup_queue (storage, path, not_before)"
                    f" values (%s, %s, coalesce({at}, now()))",
                    [*place, due],
                )
            doing.request(place, first, due)

    def condemn(self) -> None:
        places, due = self.places(8), self.due()
        for place in places:
            self.written(place)
        if self.app.transact(lambda conn, doing: self.ask(conn, doing, places, due)):
            self.recent = (self.recent + places)[-40:]

    def condemn_anew(self) -> None:
        """Write a file under a name that is queued already, and condemn it a second time."""
        places, due = self.lately(3), self.due()
        for place in places:
            self.app.files.write(place)
        self.app.transact(lambda conn, doing: self.ask(conn, doing, places, due))

    def save(self) -> None:
        """Take files out of the queue; then, perhaps, use their names for others."""
        places = self.lately(5)
        held: list[Place] = []

        def work(conn: Connection, doing: Doing) -> None:
            first = now()
            held[:] = conn.execute(
                "select storage, path from lapse.cancel_files(%s, %s)",
                [[storage for storage, _ in places], [path for _, path in places]],
            ).fetchall()
            doing.cancel(conn, places, first)

        if self.app.transact(work):
            for place in places:
                if self.dice.random() < (0.1 if place in held else 0.5):
                    self.app.files.write(place)

    def refer(self) -> None:
        """Let rows need files; perhaps cancel requests, as one should, or condemn them all the same."""
        places = self.places(3)
        for place in places:
            self.written(place)
        cancel, ask = self.dice.random() < 0.4, self.dice.random() < 0.3
        keys = {}

        def work(conn: Connection, doing: Doing) -> None:
            first = now()
            for place in places:
                self.number += 1
                keys[f"{self.app.name}-{self.number}"] = place
            for key, place in keys.items():
                conn.execute("insert into chaos.reference values (%s, %s, %s)", [key, *place])
                doing.refer(place, first, key)
            if cancel:
                conn.execute(
                    "select from lapse.cancel_files(%s, %s)",
                    [[storage for storage, _ in places], [path for _, path in places]],
                )
                doing.cancel(conn, places, first)
            if ask:
                self.ask(conn, doing, places, None)

        if self.app.transact(work):
            self.references |= keys

    def unrefer(self) -> None:
        """Delete rows; their files go, as a rule."""
        if not self.references:
            return
        keys = self.dice.sample(sorted(self.references), min(len(self.references), self.dice.randint(1, 4)))
        ask = self.dice.random() < 0.9

        def work(conn: Connection, doing: Doing) -> None:
            first = now()
            conn.execute("delete from chaos.reference where id = any(%s)", [keys])
            for key in keys:
                doing.unrefer(self.references[key], first, key)
            if ask:
                self.ask(conn, doing, list({self.references[key]: None for key in keys}), None)

        if self.app.transact(work):
            for key in keys:
                del self.references[key]

    def rename(self) -> None:
        """Give a row another file: the old one goes, the new one stays."""
        if not self.references:
            return
        key = self.dice.choice(sorted(self.references))
        old, new = self.references[key], self.place()
        self.app.files.write(new)
        self.number += 1
        successor = f"{self.app.name}-{self.number}"

        def work(conn: Connection, doing: Doing) -> None:
            first = now()
            conn.execute("delete from chaos.reference where id = %s", [key])
            conn.execute("insert into chaos.reference values (%s, %s, %s)", [successor, *new])
            doing.unrefer(old, first, key)
            doing.refer(new, first, successor)
            conn.execute("select lapse.cancel_file(%s, %s)", new)
            doing.cancel(conn, [new], first)
            if old != new:
                self.ask(conn, doing, [old], None)

        if self.app.transact(work):
            del self.references[key]
            self.references[successor] = new

    def condemn_nonsense(self) -> None:
        """Queue what is no path: dead in the end, with a reason."""
        place = self.dice.choice(STORAGES), self.dice.choice(NONSENSE)
        self.app.transact(lambda conn, doing: self.ask(conn, doing, [place], None))
