"""What the demo fills the marketplace with, and how each row and file must end.

Everything is decided here, from numbers alone and before anything runs: no clock, no database, and no
view of ours has a say in what is expected. Times are distances from the moment the show begins; the
loader turns them into dates.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from random import Random
from typing import Literal

from pglapse.demo import visitors
from pglapse.demo.visitors import Visitors

When = timedelta | Literal["infinity"] | None
"""A distance from the beginning of the show; ``infinity`` and None are two ways to say never."""

WINDOW = 12.0
"""Seconds after the beginning within which the last row of the show lapses."""

KEPT = timedelta(days=3)
"""How long the files of a completed task stay."""

DAY = 86_400.0

_FIRST = (
    "Ada Bela Chidi Dina Emre Freya Goran Hana Ines Jonas Kaito Lena Mira Nils Oya Pia Ravi Sena Tomas Uma"
)
_LAST = (
    "Adler Brandt Costa Dvorak Eriksen Fontaine Gruber Horvat Ito Jansen Kaya Lindqvist Moreau Novak Okafor"
)
_JOBS = (
    "Assemble a wardrobe",
    "Paint the hallway",
    "Repair a dripping tap",
    "Translate a rental contract",
    "Walk two dogs on weekdays",
    "Move a piano one floor down",
    "Photograph a birthday",
    "Prune the apple trees",
    "Teach the basics of Excel",
    "Fix a squeaking door",
)
_PUBLIC = (
    "photo.jpg",
    "before.jpg",
    "after.jpg",
    "Küche vorher.jpg",
    "sketch [1].png",
    "100% done.png",
    "図面.png",
)
_PRIVATE = ("contract.pdf", "invoice.pdf", "key handover.pdf", "id-check.pdf")


@dataclass(frozen=True, slots=True)
class User:
    id: int
    email: str
    name: str
    created: When


@dataclass(frozen=True, slots=True)
class Coupon:
    """A coupon; ``ends`` is the status it must have when the show is over."""

    id: int
    code: str
    user: int | None
    status: str
    valid_from: When
    valid_until: When
    used: When
    expired: When
    ends: str
    redeemed_by: int | None = None  # during the show, by the application


@dataclass(frozen=True, slots=True)
class Code:
    """An invitation code; ``ends`` as for coupons."""

    id: int
    code: str
    owner: int
    status: str
    max_uses: int
    uses: int
    valid_until: When
    expired: When
    ends: str


@dataclass(frozen=True, slots=True)
class SignUp:
    """A sign-up that waits for its e-mail to be verified; ``goes`` when nobody does in time."""

    id: int
    email: str
    token: bytes
    created: When
    expires: timedelta
    verified: When
    goes: bool
    verifies: bool = False  # just in time, by the application

    @property
    def token_hash(self) -> bytes:
        return hashlib.sha256(self.token).digest()


@dataclass(frozen=True, slots=True)
class Grant:
    """Points given to a user; those that lapse leave the balance."""

    id: int
    user: int
    amount: int
    granted: When
    expires: When
    lapses: bool


@dataclass(frozen=True, slots=True)
class Story:
    """What happens to a task, and so to its files.

    ``status`` is how it is stored first and ``deadline`` from where to where its deadline lies. ``completed``
    says when its completion was, ``act`` what the application does to it: before the show ('cancelled',
    'reopened') or in it ('cancel', 'delete', 'replace').
    """

    name: str
    share: float
    status: Literal["open", "taken"]
    deadline: tuple[float, float]
    ends: str | None
    goes: bool
    why: str
    completed: tuple[float, float] | None = None
    act: str | None = None


_LATER = (1 * DAY, 30 * DAY)
_PAST = (-3 * DAY, -60.0)
_SOON = (0.0, WINDOW)
_KEPT = KEPT.total_seconds()

STORIES = (
    Story("overdue", 0.11, "open", _PAST, "cancelled", True, "the deadline had passed"),
    Story("lapsing", 0.11, "open", _SOON, "cancelled", True, "the deadline passes in the show"),
    Story("open", 0.16, "open", _LATER, "open", False, "the task is open"),
    Story("late", 0.06, "taken", _PAST, "taken", False, "the task is late, but taken"),
    Story("taken", 0.06, "taken", _LATER, "taken", False, "the task is under way"),
    Story("over", 0.14, "taken", _LATER, "completed", True, "completed more than 3 days ago",
          completed=(-30 * DAY, -_KEPT - 60)),
    Story("ending", 0.11, "taken", _LATER, "completed", True, "its 3 days end in the show",
          completed=(-_KEPT, -_KEPT + WINDOW)),
    Story("recent", 0.10, "taken", _LATER, "completed", False, "completed less than 3 days ago",
          completed=(-_KEPT + 3600, -3600.0)),
    Story("cancelled", 0.04, "open", _LATER, "cancelled", True, "cancelled before the show", act="cancelled"),
    Story("reopened", 0.04, "taken", _LATER, "taken", False, "reopened before its 3 days ended",
          completed=(-_KEPT + WINDOW - 4, -_KEPT + WINDOW), act="reopened"),
    Story("cancelling", 0.03, "taken", _LATER, "cancelled", True, "cancelled in the show", act="cancel"),
    Story("deleting", 0.02, "open", _LATER, None, True, "the task is deleted in the show", act="delete"),
    Story("replacing", 0.02, "open", _LATER, "open", False, "the task is open", act="replace"),
)  # fmt: skip

_SHAREABLE = ("overdue", "lapsing", "over", "ending", "cancelled", "deleting")


@dataclass(frozen=True, slots=True)
class Task:
    id: int
    poster: int
    taker: int | None
    title: str
    created: When
    deadline: When
    completed: timedelta | None
    story: Story


@dataclass(frozen=True, slots=True)
class TaskFile:
    """A task's reference to a file; ``replaced_by`` is the path that takes its place in the show."""

    id: int
    task: int
    storage: str
    path: str
    size: int
    uploaded: When
    replaced_by: str | None = None


@dataclass(frozen=True, slots=True)
class Upload:
    """A file uploaded before its task exists, and its ``fate``.

    It 'lapses', or 'stays' because its 24 hours are not over, or its owner posts a task in the show, which
    takes it ('taken') or discards it ('discarded').
    """

    id: int
    user: int
    storage: str
    path: str
    size: int
    expires: timedelta
    fate: Literal["lapses", "stays", "taken", "discarded"]


@dataclass(frozen=True, slots=True)
class File:
    """A file on disk and its fate; ``waits``: queued for later, and still so at the end."""

    storage: str
    path: str
    size: int
    goes: bool
    why: str
    waits: bool = False

    @property
    def key(self) -> tuple[str, str]:
        return self.storage, self.path


@dataclass(frozen=True, slots=True)
class Plan:
    """The whole marketplace and its end."""

    seed: int
    users: list[User]
    coupons: list[Coupon]
    codes: list[Code]
    sign_ups: list[SignUp]
    grants: list[Grant]
    spends: list[tuple[int, int]]
    """(user, points): spent by the application before the show, never out of lapsed points."""
    tasks: list[Task]
    task_files: list[TaskFile]
    uploads: list[Upload]
    files: list[File]
    visitors: Visitors
    balances: dict[int, int] = field(default_factory=dict)
    """What each user who ever held points must have at the end."""

    @property
    def rows(self) -> int:
        """Rows that are loaded, counters and ledger entries not counted."""
        people = len(self.users) + len(self.sign_ups)
        worth = len(self.coupons) + len(self.codes) + len(self.grants)
        posted = len(self.tasks) + len(self.task_files) + len(self.uploads)
        return people + worth + posted + self.visitors.rows

    def acting(self, act: str) -> list[int]:
        """The tasks that the application does ``act`` to."""
        return [task.id for task in self.tasks if task.story.act == act]

    @property
    def drafts(self) -> dict[int, list[int]]:
        """Who posts a task in the show, and the uploads that it takes."""
        taken: dict[int, list[int]] = {}
        for upload in self.uploads:
            if upload.fate == "taken":
                taken.setdefault(upload.user, []).append(upload.id)
        return taken

    @property
    def statistics(self) -> dict[int, tuple[int, ...]]:
        """Of each user at the end: tasks posted, taken, completed (of these), cancelled (of those posted)."""
        counts = {user.id: [0, 0, 0, 0] for user in self.users}
        for task in self.tasks:
            if task.story.ends:
                counts[task.poster][0] += 1
                counts[task.poster][3] += task.story.ends == "cancelled"
                if task.taker:
                    counts[task.taker][1] += 1
                    counts[task.taker][2] += task.story.ends == "completed"
        for user in self.drafts:
            counts[user][0] += 1
        return {user: tuple(numbers) for user, numbers in counts.items() if any(numbers)}


def make(scale: float = 1.0, seed: int = 2) -> Plan:
    """Draw up a marketplace; the same scale and seed give the same one."""
    random = Random(seed)  # noqa: S311 - for believable data, not for secrets
    users = list(_users(random, _many(5_000, scale)))
    grants, spends, balances = _points(random, users)
    tasks = list(_tasks(random, users, _many(4_000, scale)))
    task_files, files = _files(random, tasks)
    coupons = list(_coupons(random, users, _many(12_000, scale)))
    codes = list(_codes(random, users, _many(4_000, scale)))
    sign_ups = list(_sign_ups(random, _many(4_000, scale)))
    uploads = list(_uploads(random, users, _many(500, scale)))
    return Plan(
        seed=seed,
        users=users,
        coupons=coupons,
        codes=codes,
        sign_ups=sign_ups,
        grants=grants,
        spends=spends,
        balances=balances,
        tasks=tasks,
        task_files=task_files,
        uploads=uploads,
        files=files + [_uploaded(upload) for upload in uploads],
        visitors=visitors.make(seed, scale, WINDOW, len(users)),
    )


def _many(usual: int, scale: float) -> int:
    return max(50, round(usual * scale))


def _at(random: Random, span: tuple[float, float]) -> timedelta:
    return timedelta(seconds=round(random.uniform(*span), 3))


def _never(random: Random) -> When:
    return random.choice((None, "infinity"))


def _users(random: Random, count: int) -> Iterator[User]:
    for id in range(1, count + 1):
        first, last = random.choice(_FIRST.split()), random.choice(_LAST.split())
        email = f"{first}.{last}.{id}@example.org".lower()
        yield User(id, email, f"{first} {last}", _at(random, (-700 * DAY, -40 * DAY)))


def _coupons(random: Random, users: list[User], count: int) -> Iterator[Coupon]:
    for id in range(1, count + 1):
        lot = random.random()
        owner = random.choice(users).id if random.random() < 0.6 else None
        coupon = Coupon(
            id, f"SAVE-{id:06d}-{random.randrange(16**4):04X}", owner, "active",
            _at(random, (-90 * DAY, -60 * DAY)), _at(random, _LATER), None, None, "active",
        )  # fmt: skip
        if lot < 0.18:
            yield replace(coupon, valid_until=_at(random, (-20 * DAY, -1.0)), ends="expired")
        elif lot < 0.38:
            yield replace(coupon, valid_until=_at(random, _SOON), ends="expired")
        elif lot < 0.48:
            yield replace(coupon, valid_until=_never(random))
        elif lot < 0.58:
            yield replace(
                coupon,
                status="used",
                used=_at(random, (-50 * DAY, -DAY)),
                valid_until=_at(random, _SOON),
                ends="used",
            )
        elif lot < 0.64:
            past = _at(random, (-50 * DAY, -DAY))
            yield replace(coupon, status="expired", valid_until=past, expired=past, ends="expired")
        elif lot < 0.66:
            buyer = owner or random.choice(users).id
            yield replace(coupon, ends="used", redeemed_by=buyer)
        else:
            yield coupon


def _codes(random: Random, users: list[User], count: int) -> Iterator[Code]:
    for id in range(1, count + 1):
        lot = random.random()
        uses = random.randrange(5)
        code = Code(
            id, f"JOIN-{id:05d}-{random.randrange(16**4):04X}", random.choice(users).id, "active", 5, uses,
            _at(random, _LATER), None, "active",
        )  # fmt: skip
        if lot < 0.20:
            yield replace(code, valid_until=_at(random, (-20 * DAY, -1.0)), ends="expired")
        elif lot < 0.40:
            yield replace(code, valid_until=_at(random, _SOON), ends="expired")
        elif lot < 0.50:
            yield replace(code, valid_until=_never(random))
        elif lot < 0.60:
            yield replace(code, status="exhausted", uses=5, valid_until=_at(random, _SOON), ends="exhausted")
        else:
            yield code


def _sign_ups(random: Random, count: int) -> Iterator[SignUp]:
    for id in range(1, count + 1):
        lot = random.random()
        sign_up = SignUp(
            id, f"new.{id}@example.net", random.randbytes(16), _at(random, (-9 * DAY, -8 * DAY)),
            timedelta(), None, goes=False,
        )  # fmt: skip
        if lot < 0.25:
            yield replace(sign_up, expires=_at(random, (-7 * DAY, -1.0)), goes=True)
        elif lot < 0.45:
            yield replace(sign_up, expires=_at(random, _SOON), goes=True)
        elif lot < 0.60:
            past = _at(random, (-6 * DAY, -DAY))
            yield replace(sign_up, expires=past, verified=past - timedelta(hours=2))
        elif lot < 0.62:
            yield replace(sign_up, expires=_at(random, (WINDOW - 4, WINDOW)), verifies=True)
        else:
            yield replace(sign_up, expires=_at(random, _LATER))


def _points(random: Random, users: list[User]) -> tuple[list[Grant], list[tuple[int, int]], dict[int, int]]:
    grants: list[Grant] = []
    spends: list[tuple[int, int]] = []
    balances: dict[int, int] = {}

    def grant(user: int, expires: When, *, lapses: bool = False) -> int:
        amount = random.randrange(10, 500)
        granted = _at(random, (-39 * DAY, -30 * DAY))
        grants.append(Grant(len(grants) + 1, user, amount, granted, expires, lapses))
        balances[user] = balances.get(user, 0) + (0 if lapses else amount)
        return amount

    for user in users:
        lot = random.random()
        if lot < 0.10:  # spends some: the lapsed points look the most urgent, and must not be touched
            grant(user.id, _at(random, (-20 * DAY, -3600.0)), lapses=True)
            good = grant(user.id, _at(random, _LATER)) + grant(user.id, _never(random))
            spent = random.randrange(1, good + 1)
            spends.append((user.id, spent))
            balances[user.id] -= spent
        elif lot < 0.80:
            for _ in range(random.randrange(1, 5)):
                if random.random() < 0.25:
                    grant(user.id, _at(random, (-20 * DAY, -1.0)), lapses=True)
                elif random.random() < 0.4:
                    grant(user.id, _at(random, _SOON), lapses=True)
                else:
                    grant(user.id, _at(random, _LATER) if random.random() < 0.9 else _never(random))
    return grants, spends, balances


def _tasks(random: Random, users: list[User], count: int) -> Iterator[Task]:
    for id, story in enumerate(_stories(random, count), start=1):
        poster, taker = random.sample(users, 2)
        yield Task(
            id=id,
            poster=poster.id,
            taker=taker.id if story.status == "taken" else None,
            title=f"{random.choice(_JOBS)} ({id})",
            created=_at(random, (-40 * DAY, -31 * DAY)),
            deadline=_at(random, story.deadline),
            completed=_at(random, story.completed) if story.completed else None,
            story=story,
        )


def _stories(random: Random, count: int) -> list[Story]:
    """Every story at least once, then by its share."""
    drawn = random.choices(STORIES, [story.share for story in STORIES], k=count - len(STORIES))
    stories = [*STORIES, *drawn]
    random.shuffle(stories)
    return stories


def _files(random: Random, tasks: list[Task]) -> tuple[list[TaskFile], list[File]]:
    rows: list[TaskFile] = []
    files: dict[tuple[str, str], File] = {}
    by_story: dict[str, list[Task]] = {}

    def refer(task: Task, file: File) -> TaskFile:
        uploaded = _at(random, (-31 * DAY, -30 * DAY - 60))
        row = TaskFile(len(rows) + 1, task.id, file.storage, file.path, file.size, uploaded)
        rows.append(row)
        return row

    for task in tasks:
        by_story.setdefault(task.story.name, []).append(task)
        folder = f"tasks/{task.id % 100:02d}/{task.id}"
        names = [("public", name) for name in random.sample(_PUBLIC, random.choice((1, 1, 2)))]
        names += [("private", random.choice(_PRIVATE))] * (random.random() < 0.4)
        for number, (storage, name) in enumerate(names):
            size = random.randrange(200, 3_000)
            file = File(
                storage,
                f"{folder}/{name}",
                size,
                task.story.goes,
                task.story.why,
                task.story.name == "recent",
            )
            row = refer(task, file)
            if task.story.act == "replace" and number == 0:
                fresh = replace(file, path=f"{folder}/new {name}", why="takes the place of another")
                rows[-1] = replace(row, replaced_by=fresh.path)
                files[fresh.key] = fresh
                file = replace(file, goes=True, why="replaced by another in the show")
            files[file.key] = file

    # Some files belong to two tasks: they may go only with the last of them.
    owners = {task.id: task.story.name for task in tasks}
    for row in random.sample(rows, len(rows) // 12):
        file = files[row.storage, row.path]
        if owners[row.task] not in _SHAREABLE or not file.goes:
            continue
        partner = random.choice(by_story[random.choice(("open", "late", "recent", "overdue", "ending"))])
        if partner.id == row.task:
            continue
        refer(partner, file)
        if not partner.story.goes:
            why = f"shared: {partner.story.why}"
            files[file.key] = replace(file, goes=False, why=why, waits=partner.story.name == "recent")
    return rows, list(files.values())


def _uploads(random: Random, users: list[User], count: int) -> Iterator[Upload]:
    """Uploads of ``count`` users; one who posts a task has no others, for it discards what it leaves."""
    kinds: list[tuple[tuple[Literal["lapses", "stays", "taken", "discarded"], ...], tuple[float, float]]] = [
        (("lapses",), (-6 * 3600.0, -1.0)),
        (("lapses", "lapses"), _SOON),
        (("taken", "taken", "discarded"), (3600.0, 20 * 3600.0)),
        (("stays",), (3600.0, 20 * 3600.0)),
    ]
    id = 0
    for number, user in enumerate(random.sample(users, min(count, len(users)))):
        fates, span = kinds[number % len(kinds)]
        for fate in fates:
            id += 1
            storage, name = random.choice((("public", _PUBLIC[0]), ("private", _PRIVATE[0])))
            path = f"uploads/{user.id % 100:02d}/{user.id}/{id} {name}"
            yield Upload(id, user.id, storage, path, random.randrange(200, 3_000), _at(random, span), fate)


def _uploaded(upload: Upload) -> File:
    why = {
        "lapses": "its upload lapsed, no task took it",
        "stays": "its upload has not lapsed",
        "taken": "a task took it in the show",
        "discarded": "another task of its owner left it out",
    }[upload.fate]
    return File(upload.storage, upload.path, upload.size, upload.fate in ("lapses", "discarded"), why)
