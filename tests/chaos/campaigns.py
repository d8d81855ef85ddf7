"""The campaigns, each with what it breaks and how often it must have."""

from tests.chaos.campaign import Campaign, Scene
from tests.chaos.database import APPLICATION, WORKER
from tests.chaos.faults import KillServer, KillWorkers, Rhythm, StopWorkers, TakeServerAway, Terminate


def _kills(scene: Scene) -> list[Rhythm]:
    return [Rhythm(KillWorkers(scene.fleet), 0.3, 1.5)]


def _stops(scene: Scene) -> list[Rhythm]:
    return [Rhythm(StopWorkers(scene.fleet), 0.1, 1)]


def _crashes(scene: Scene) -> list[Rhythm]:
    return [Rhythm(KillServer(scene.server), 1, 5)]


def _terminations(scene: Scene) -> list[Rhythm]:
    return [
        Rhythm(Terminate(scene.ways.admin, WORKER), 0.05, 0.5),
        Rhythm(Terminate(scene.ways.admin, APPLICATION), 0.02, 0.2),
    ]


def _away(scene: Scene) -> list[Rhythm]:
    return [Rhythm(TakeServerAway(scene.server, min(60, scene.seconds / 3)), 2, 5)]


def _everything(scene: Scene) -> list[Rhythm]:
    return [
        Rhythm(KillWorkers(scene.fleet), 0.5, 3),
        Rhythm(StopWorkers(scene.fleet), 0.1, 1),
        Rhythm(KillServer(scene.server), 3, 8),
        Rhythm(Terminate(scene.ways.admin, WORKER), 0.2, 1),
        Rhythm(Terminate(scene.ways.admin, APPLICATION), 0.1, 0.5),
    ]


CAMPAIGNS = {
    campaign.name: campaign
    for campaign in (
        Campaign("kills", "kill -9 of workers at random moments", _kills, {"workers killed": 25}),
        Campaign(
            "stops",
            "SIGSTOP for twice the lease, then SIGCONT",
            _stops,
            {"workers stopped for twice their lease": 8},
            lease=1.0,
        ),
        Campaign(
            "crashes",
            "kill -9 of the whole server, and an immediate restart (fsync on)",
            _crashes,
            {"servers killed": 8},
        ),
        Campaign(
            "terminations",
            "pg_terminate_backend on workers and applications",
            _terminations,
            {"workers' backends terminated": 60, "applications' backends terminated": 150},
        ),
        Campaign("away", "no server for a minute", _away, {"times without a server": 1}),
        Campaign(
            "everything",
            "kills, stops, crashes and terminations at the same time",
            _everything,
            {
                "workers killed": 10,
                "workers stopped for twice their lease": 5,
                "servers killed": 4,
                "workers' backends terminated": 20,
                "applications' backends terminated": 50,
            },
            lease=1.0,
        ),
    )
}
