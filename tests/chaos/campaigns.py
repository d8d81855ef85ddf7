"""The campaigns, each with what it breaks and how often it must have."""

import random

import psycopg

from pglapse import cluster
from tests.chaos import database, hosts, pooler
from tests.chaos.application import Application
from tests.chaos.campaign import Campaign, NotPossible, Scene
from tests.chaos.database import APPLICATION, WORKER
from tests.chaos.evidence import Evidence
from tests.chaos.faults import (
    KillServer,
    KillWorkers,
    LetGoOn,
    LockSources,
    ReplaceWorkers,
    Rhythm,
    StopWorkers,
    TakeServerAway,
    Terminate,
)
from tests.chaos.hosts import LoseHost, Network, UnplugHost
from tests.chaos.journal import Journal, now
from tests.chaos.judge import Verdict
from tests.chaos.plain import NONSENSE
from tests.chaos.pooler import KillPooler, Pooler
from tests.chaos.proxy import CutLines, LeaveLinesHalfOpen, Proxy, SlowLinesDown, StallLines
from tests.chaos.replicas import STREAM, FailOver, Pair, free_port
from tests.chaos.worker import POISON

# Workers, server, backends


def kills(scene: Scene) -> list[Rhythm]:
    return [Rhythm(KillWorkers(scene.fleet), 0.3, 1.5)]


def deployments(scene: Scene) -> list[Rhythm]:
    return [Rhythm(ReplaceWorkers(scene.fleet, scene.ways.admin), 0.2, 1)]


def stops(scene: Scene) -> list[Rhythm]:
    return [Rhythm(StopWorkers(scene.fleet), 0.1, 1)]


def locks(scene: Scene) -> list[Rhythm]:
    return [Rhythm(LockSources(scene.ways.admin), 1, 4), Rhythm(KillWorkers(scene.fleet), 2, 6)]


def crashes(scene: Scene) -> list[Rhythm]:
    return [Rhythm(KillServer(scene.server), 1, 5)]


def terminations(scene: Scene) -> list[Rhythm]:
    return [
        Rhythm(Terminate(scene.ways.admin, WORKER), 0.05, 0.5),
        Rhythm(Terminate(scene.ways.admin, APPLICATION), 0.02, 0.2),
    ]


def away(scene: Scene) -> list[Rhythm]:
    return [Rhythm(TakeServerAway(scene.server, min(60, scene.seconds / 3)), 2, 5)]


def everything(scene: Scene) -> list[Rhythm]:
    return [
        Rhythm(KillWorkers(scene.fleet), 0.5, 3),
        Rhythm(StopWorkers(scene.fleet), 0.1, 1),
        Rhythm(KillServer(scene.server), 3, 8),
        Rhythm(Terminate(scene.ways.admin, WORKER), 0.2, 1),
        Rhythm(Terminate(scene.ways.admin, APPLICATION), 0.1, 0.5),
    ]


# The network


def put_proxy(scene: Scene) -> None:
    proxy = scene.things["proxy"] = Proxy(scene.server.dsn)
    scene.stack.callback(proxy.close)
    scene.ways = database.reached_by(scene.ways.admin, proxy.dsn)


def network(scene: Scene) -> list[Rhythm]:
    proxy = scene.things["proxy"]
    return [
        Rhythm(StallLines(proxy, scene.fleet.lease * 2), 1, 4),
        Rhythm(LeaveLinesHalfOpen(proxy), 2, 6),
        Rhythm(CutLines(proxy), 0.5, 3),
        Rhythm(SlowLinesDown(proxy), 1, 5),
    ]


def put_hosts(scene: Scene) -> None:
    net = scene.things["network"] = Network(3)
    scene.stack.callback(net.down)
    net.up()
    cluster.stop(scene.server)
    database.change(scene.server, listen_addresses=net.address)
    with (scene.server.folder / "data" / "pg_hba.conf").open("a") as hba:
        hba.write(f"host all all {hosts.ADDRESS}.0/24 trust\n")
    net.on_server(lambda: cluster.start(scene.server))
    inside = f"host={net.address} port=5432"
    scene.ways = database.Database(
        scene.ways.admin, database.reached_by(scene.ways.admin, inside).worker, scene.ways.application
    )
    scene.fleet.within = net.on


def several_hosts(scene: Scene) -> list[Rhythm]:
    return [
        Rhythm(UnplugHost(scene.things["network"], scene.fleet.lease), 0.2, 2),
        Rhythm(LoseHost(scene.things["network"], scene.fleet), 2, 8),
        Rhythm(StopWorkers(scene.fleet), 2, 8),
    ]


def mend_hosts(scene: Scene) -> None:
    for number in range(len(scene.things["network"].hosts)):
        scene.things["network"].plug(number, into=True)


# Poolers and replicas


def put_pooler(mode: str):
    def put(scene: Scene) -> None:
        own = scene.things["pooler"] = Pooler(scene.folder / "pooler", scene.server.dsn, mode)
        scene.stack.callback(own.end)
        scene.ways = database.reached_by(scene.ways.admin, own.dsn)

    return put


def pooled(scene: Scene) -> list[Rhythm]:
    return [
        Rhythm(KillPooler(scene.things["pooler"]), 2, 8),
        Rhythm(KillWorkers(scene.fleet), 1, 4),
        Rhythm(Terminate(scene.ways.admin, WORKER), 0.2, 1),
        Rhythm(Terminate(scene.ways.admin, APPLICATION), 0.1, 0.5),
    ]


def put_standby(scene: Scene) -> None:
    port = free_port()
    cluster.stop(scene.server)
    database.change(scene.server, port=str(port), **STREAM)
    cluster.start(scene.server)
    pair = scene.things["pair"] = Pair(scene.server, port, scene.folder / "standby")
    scene.stack.callback(pair.stop)
    pair.join()
    scene.ways = database.reached_by(pair.dsn(dbname=database.NAME))


def failovers(scene: Scene) -> list[Rhythm]:
    return [
        Rhythm(FailOver(scene.things["pair"]), 2, 5),
        Rhythm(KillWorkers(scene.fleet), 1, 5),
    ]


# A file that kills


def put_poison(scene: Scene) -> None:
    """Queue one file whose deletion kills its worker, before anybody else is there."""
    with psycopg.connect(scene.ways.admin) as conn:
        if not conn.execute(
            "select 1 from information_schema.columns"
            " where (table_schema, table_name, column_name) = ('lapse', 'file_cleanup_queue', 'lost')"
        ).fetchone():
            raise NotPossible("a batch that kills its worker is not split yet")
    place = scene.things["poison"] = ("public", f"{POISON}/{POISON}")
    journal = Journal(scene.folder / "journals" / "poison.jsonl")
    journal.note("application", pid=0)
    app = Application("poison", scene.ways.application, scene.disk, journal, random.Random(scene.seed))
    app.files.write(place)

    def queue(conn, doing) -> None:
        first = now()
        conn.execute("select lapse.enqueue_file(%s, %s)", place)
        doing.request(place, first)

    while not app.transact(queue):
        pass


def nothing_else(scene: Scene) -> list[Rhythm]:
    return []


def only_the_poison_is_dead(scene: Scene, evidence: Evidence, verdict: Verdict) -> None:
    dead = {place for place, story in evidence.stories.items() if story.row is not None and story.row.dead}
    if scene.things["poison"] not in dead:
        verdict.violations.append("the file that kills its worker did not end as dead")
    for storage, path in sorted(dead - {scene.things["poison"]}):
        if path not in NONSENSE:
            row = evidence.stories[storage, path].row
            verdict.violations.append(f"{storage}:{path} is dead for another's sake: {row and row.error}")
    verdict.numbers["workers that the file killed"] = scene.fleet.died


def no_attempt_is_burnt(scene: Scene, evidence: Evidence, verdict: Verdict) -> None:
    """A worker that is told to stop gives back what it has not begun: that counts for nothing."""
    for (storage, path), story in sorted(evidence.stories.items()):
        if story.row is not None and story.row.dead and path not in NONSENSE:
            verdict.violations.append(f"{storage}:{path} is dead: {story.row.error}")


def the_window_was_seen(scene: Scene, evidence: Evidence, verdict: Verdict) -> None:
    if not verdict.late:
        verdict.violations.append("can't judge: workers were stopped before deletions, and none came late")


POOLED = {
    "poolers killed": 6,
    "workers killed": 10,
    "workers' backends terminated": 15,
    "applications' backends terminated": 40,
}

CAMPAIGNS = {
    campaign.name: campaign
    for campaign in (
        Campaign("kills", "kill -9 of workers at random moments", kills, {"workers killed": 20}),
        Campaign(
            "deployments",
            "SIGTERM to workers, sometimes a second one",
            deployments,
            {"workers told to stop": 15},
            slow=20,
            judged=no_attempt_is_burnt,
        ),
        Campaign(
            "stops",
            "SIGSTOP for twice the lease, then SIGCONT",
            stops,
            {"workers stopped for twice their lease": 8},
            lease=1.0,
            slow=40,  # so that a worker has many files in hand when it is stopped
        ),
        Campaign(
            "window",
            "workers that stop between their look at the lease and the deletion, for twice the lease",
            lambda scene: [Rhythm(LetGoOn(scene.fleet), 0.02, 0.1)],
            {"workers stopped between look and deletion": 5},
            judged=the_window_was_seen,
            workers=1,  # with others, these take the file over and there is nothing left to delete too late
            lease=1.0,
            hesitant=0.02,
        ),
        Campaign(
            "crashes",
            "kill -9 of the whole server, and an immediate restart (fsync on)",
            crashes,
            {"servers killed": 5},
            trust_xids=False,
        ),
        Campaign(
            "terminations",
            "pg_terminate_backend on workers and applications",
            terminations,
            {"workers' backends terminated": 40, "applications' backends terminated": 100},
        ),
        Campaign(
            "sources",
            "tables that say which files are needed are locked, so that nobody can ask",
            lambda scene: [
                Rhythm(LockSources(scene.ways.admin), 1, 4),
                Rhythm(KillWorkers(scene.fleet), 2, 6),
            ],
            {"tables of references locked": 8, "workers killed": 6},
        ),
        Campaign("away", "no server for a minute", away, {"times without a server": 1}),
        Campaign(
            "network",
            "a proxy that stalls, slows down, cuts, and leaves connections half-open",
            network,
            {"lines stalled": 10, "lines left half-open": 5, "lines cut": 15, "lines slowed down": 10},
            prepare=put_proxy,
            mend=lambda scene: scene.things["proxy"].heal(),
        ),
        Campaign(
            "hosts",
            "workers on three hosts that are unplugged, stopped and lost",
            several_hosts,
            {"hosts unplugged": 10, "hosts lost": 4, "workers stopped for twice their lease": 3},
            ready=hosts.possible,
            prepare=put_hosts,
            mend=mend_hosts,
        ),
        Campaign(
            "session",
            "PgBouncer in session mode, killed, while workers and backends are",
            pooled,
            POOLED,
            ready=pooler.there,
            prepare=put_pooler("session"),
        ),
        Campaign(
            "transaction",
            "the same with PgBouncer in transaction mode",
            pooled,
            POOLED,
            ready=pooler.there,
            prepare=put_pooler("transaction"),
        ),
        Campaign(
            "failovers",
            "the primary is lost, and its synchronous standby promoted",
            failovers,
            {"failovers": 3, "workers killed": 8},
            prepare=put_standby,
            application=("--patient",),
            trust_xids=False,
        ),
        Campaign(
            "poison",
            "a file whose deletion kills its worker",
            nothing_else,
            {},
            prepare=put_poison,
            judged=only_the_poison_is_dead,
            may_die=frozenset({137}),
            lease=1.0,
        ),
        Campaign(
            "everything",
            "kills, stops, crashes and terminations at the same time",
            everything,
            {
                "workers killed": 10,
                "workers stopped for twice their lease": 4,
                "servers killed": 3,
                "workers' backends terminated": 15,
                "applications' backends terminated": 30,
            },
            lease=1.0,
            trust_xids=False,
        ),
    )
}
