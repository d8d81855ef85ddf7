"""Run one campaign: a server, workers, applications, and for some time all that can go wrong; then judge.

What differs between campaigns is in `Campaign`; tests.chaos.campaigns has them all.
"""

import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from pglapse import cluster
from pglapse.cluster import Cluster
from tests.chaos import database
from tests.chaos.database import APPLICATION, Database
from tests.chaos.disk import Disk
from tests.chaos.evidence import Evidence, gather
from tests.chaos.faults import Rhythm, Trouble
from tests.chaos.fleet import Fleet
from tests.chaos.judge import Verdict, judge

DRAIN = 120.0  # seconds that the workers may take, once all is well again, to finish what is due
FEWEST = 300  # files deleted a minute: with fewer there was nothing to judge


class NotPossible(Exception):
    """This campaign can't be run here; the message says what is missing."""


@dataclass
class Scene:
    """What a campaign plays on."""

    folder: Path
    seed: str
    seconds: float
    disk: Disk
    server: Cluster
    ways: Database
    fleet: Fleet
    stack: ExitStack
    things: dict[str, Any]
    """What a campaign has put there for its own faults."""


@dataclass(frozen=True)
class Campaign:
    name: str
    about: str
    faults: Callable[[Scene], Sequence[Rhythm]]
    least: Mapping[str, float]
    """How often each fault must have struck, a minute; fewer and the campaign has shown nothing."""
    ready: Callable[[], None] = lambda: None
    """Raises `NotPossible` where the campaign can't be run."""
    prepare: Callable[[Scene], None] = lambda scene: None
    """Put something between the server and the others: ``scene`` may be changed."""
    mend: Callable[[Scene], None] = lambda scene: None
    """Let all be well again, before the applications are told to end."""
    judged: Callable[[Scene, Evidence, Verdict], None] = lambda scene, evidence, verdict: None
    """What this campaign asks beyond the two invariants."""
    settings: Mapping[str, str] = field(default_factory=dict)
    workers: int = 3
    plain: int = 2
    market: int = 1
    lease: float = 2.0
    slow: float = 1.0
    hesitant: float = 0
    options: Sequence[str] = ("--batch", "100")
    application: Sequence[str] = ()
    trust_xids: bool = True
    may_die: frozenset[int] = frozenset()


@dataclass
class Report:
    """What a campaign inflicted, and what came of it."""

    campaign: str
    seed: str
    seconds: float
    folder: Path
    toll: Counter[str]
    verdict: Verdict
    complaints: list[str]

    @property
    def failed(self) -> bool:
        return bool(self.verdict.violations or self.complaints)

    def lines(self) -> list[str]:
        """For people."""
        verdict = self.verdict
        said = [
            f"{self.campaign}, seed {self.seed}, {self.seconds:.0f} s: {'FAILED' if self.failed else 'held'}"
        ]
        said += ["  inflicted: " + (_counts(self.toll) or "nothing")]
        said += ["  judged: " + _counts(verdict.numbers)]
        if verdict.late:
            late = sorted(verdict.late)
            said.append(
                f"  the window: {len(late)} deletions after their lease's end, "
                f"by {late[len(late) // 2] / 1000:.1f} ms "
                f"(median) to {late[-1] / 1000:.1f} ms; {len(verdict.harmful)} did harm"
            )
            said += [f"    {words}" for words in verdict.harmful[:5]]
        for what, words in (("violations", verdict.violations), ("complaints", self.complaints)):
            if words:
                said.append(f"  {len(words)} {what}:")
                said += [f"    {one}" for one in words[:20]]
        if self.failed:
            said.append(f"  everything is in {self.folder}")
        return said


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {what}" for what, count in counts.items() if count)


def run(campaign: Campaign, seconds: float, seed: str, *, keep: bool = False, modest: bool = False) -> Report:
    """Run it; the folder with all journals and logs stays when it failed, or with ``keep``.

    ``modest``: once is enough of each fault, for a machine that is busy with other tests.
    """
    campaign.ready()
    folder = Path(tempfile.mkdtemp(prefix=f"pglapse-chaos-{campaign.name}-", dir="/tmp"))
    folder.chmod(0o711)
    toll: Counter[str] = Counter()
    verdict = Verdict()
    complaints: list[str] = []
    try:
        with ExitStack() as stack:
            scene = _scene(campaign, folder, seconds, seed, stack)
            trouble = Trouble(campaign.faults(scene), seed)
            toll = trouble.toll
            try:
                _play(campaign, scene, trouble)
            finally:
                complaints += trouble.failures
            _settle(campaign, scene)
            found = gather(scene.fleet.journals, scene.ways.admin, scene.disk, trust_xids=campaign.trust_xids)
            verdict = judge(found)
            campaign.judged(scene, found, verdict)
            complaints += scene.fleet.complaints
            complaints += _too_little(campaign, 0 if modest else seconds, toll, verdict)
    except (NotPossible, SystemExit, KeyboardInterrupt):
        shutil.rmtree(folder, ignore_errors=True)
        raise
    except Exception as error:
        if not complaints:
            raise
        complaints.append(f"{type(error).__name__}: {error}")
    report = Report(campaign.name, seed, seconds, folder, toll, verdict, complaints)
    if not report.failed and not keep:
        shutil.rmtree(folder, ignore_errors=True)
    return report


def _scene(campaign: Campaign, folder: Path, seconds: float, seed: str, stack: ExitStack) -> Scene:
    disk = Disk(folder / "files")
    disk.make()
    server = database.make(folder / "server", dict(campaign.settings))
    cluster.start(server)
    stack.callback(cluster.stop, server, "immediate")
    ways = database.reached_by(database.install(server.dsn))
    fleet = Fleet(
        folder,
        disk,
        ways.worker,
        seed,
        campaign.lease,
        campaign.slow,
        campaign.options,
        may_die=campaign.may_die,
    )
    stack.callback(fleet.kill_all)
    scene = Scene(folder, seed, seconds, disk, server, ways, fleet, stack, {})
    campaign.prepare(scene)
    fleet.dsn = scene.ways.worker
    return scene


def _play(campaign: Campaign, scene: Scene, trouble: Trouble) -> None:
    fleet = scene.fleet
    fleet.hesitant = campaign.hesitant
    fleet.employ(campaign.workers)
    for _ in range(campaign.plain):
        fleet.apply("plain", scene.ways.application, *campaign.application)
    for _ in range(campaign.market):
        fleet.apply("market", scene.ways.application, *campaign.application)
    trouble.start()
    try:
        until = time.monotonic() + scene.seconds
        while time.monotonic() < until and not trouble.failures:
            time.sleep(min(0.5, scene.seconds))
            fleet.look()
    finally:
        trouble.stop()


def _settle(campaign: Campaign, scene: Scene) -> None:
    """All is well again: let everybody finish what they began."""
    campaign.mend(scene)
    scene.fleet.calm()
    scene.fleet.end_applications()
    with psycopg.connect(scene.ways.admin, autocommit=True) as conn:
        _gone(conn, APPLICATION)
        until = time.monotonic() + DRAIN
        while time.monotonic() < until:
            scene.fleet.look()
            if not conn.execute(
                "select 1 from lapse.file_cleanup_queue where dead_at is null"
                "   and not_before < clock_timestamp() + interval '1 minute' limit 1"
            ).fetchone():
                break
            time.sleep(0.1)
        # One that was started a moment ago must have come so far that it knows what SIGTERM means.
        while time.monotonic() < until and scene.fleet.ready(conn) != set(scene.fleet.places):
            scene.fleet.look()
            time.sleep(0.1)
        scene.fleet.end_workers()


def _gone(conn: psycopg.Connection, role: str) -> None:
    """End what is left of a role's transactions: no fate may change any more while it is judged."""
    until = time.monotonic() + 20
    while conn.execute(
        "select pg_terminate_backend(pid) from pg_stat_activity where usename = %s", [role]
    ).fetchall():
        if time.monotonic() > until:
            raise RuntimeError(f"backends of {role} don't end")
        time.sleep(0.05)


def _too_little(campaign: Campaign, seconds: float, toll: Counter[str], verdict: Verdict) -> list[str]:
    """What was not inflicted, or not done, often enough for the outcome to mean anything."""
    wanted = {fault: max(1, int(rate * seconds / 60)) for fault, rate in campaign.least.items()}
    missing = [
        f"only {toll[fault]} {fault}; at least {count} were wanted"
        for fault, count in wanted.items()
        if toll[fault] < count
    ]
    deleted, files = verdict.numbers["files deleted"], max(10, int(FEWEST * seconds / 60))
    if deleted < files:
        missing.append(f"only {deleted} files were deleted; at least {files} were wanted")
    # Each is excused: somebody else may have had the row for too long. That happens now and then, not often.
    cancels, excused = verdict.numbers["cancels"], verdict.numbers["cancels that count as either"]
    if excused > 5 + cancels // 50:
        missing.append(f"of {cancels} cancels {excused} had no effect that could be seen: too many to excuse")
    return missing
