"""Who takes part, in which set-up, and in an environment of its own.

Each rival is installed from PyPI or the npm registry, pinned, into a folder of the user's cache, never
among the project's dependencies. Its settings are those that its documentation calls the fastest; where that
leaves a number open, several were tried and the best is here.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

RUNNERS = Path(__file__).parent / "runners"
WORKER = Path(__file__).parents[1] / "worker"


@dataclass(frozen=True, slots=True)
class Environment:
    """Where a runner runs: packages, each pinned."""

    name: str
    packages: tuple[str, ...] = ()
    node: bool = False


HERE = Environment("here")
PROCRASTINATE = Environment("procrastinate", ("procrastinate==3.10.0", "psycopg[binary,pool]==3.3.9"))
PGQUEUER = Environment(
    "pgqueuer",
    ("pgqueuer[asyncpg,psycopg]==1.6.0", "asyncpg==0.32.0", "psycopg[binary]==3.3.9", "uvloop==0.23.0"),
)
PGMQ = Environment("pgmq", ("pgmq==1.1.4", "psycopg[binary]==3.3.9"))
GRAPHILE = Environment("graphile", ("graphile-worker@0.18.0", "pg@8.23.1", "node@22.23.3"), node=True)


@dataclass(frozen=True, slots=True)
class Contestant:
    """A way to work off jobs: its runner, its settings in words and for the runner, and its tables."""

    name: str
    title: str
    environment: Environment
    runner: str
    words: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    clear: tuple[str, ...] = ()
    """Statements that leave nothing but the rows due later."""

    @property
    def database(self) -> str:
        return re.sub(r"\W", "_", self.name)


LATER = "now() + interval '1 hour'"  # what is due after this is left where it is

PGLAPSE = Contestant(
    "pglapse",
    "pglapse",
    HERE,
    "run_pglapse.py",
    "one worker with its defaults: batches of 2,000, a lease of 60 s; every finished file is logged",
    clear=(
        f"delete from lapse.file_cleanup_queue where not_before < {LATER}",
        "truncate lapse.file_cleanup_log",
    ),
)
DELETE = Contestant(
    "delete",
    "DELETE … RETURNING alone",
    HERE,
    "run_limits.py",
    "batches of 1,000, resumed at the last row's time and number; nothing is retried or logged",
    {"batch": 1000},
    (f"delete from public.bare where not_before < {LATER}",),
)
RIVALS = (
    Contestant(
        "procrastinate",
        "procrastinate",
        PROCRASTINATE,
        "run_procrastinate.py",
        "async tasks, concurrency 30 (10 to 100 made no difference), pool of 32, delete_jobs='successful'",
        {"concurrency": 30},
        (
            f"delete from procrastinate_jobs where scheduled_at is null or scheduled_at < {LATER}",
            "delete from procrastinate_events as e where not exists"
            " (select from procrastinate_jobs as j where j.id = e.job_id)",
        ),
    ),
    Contestant(
        "pgqueuer-asyncpg",
        "pgqueuer, asyncpg",
        PGQUEUER,
        "run_pgqueuer.py",
        "uvloop, batch_size 1000, one consumer (the best of 10 to 1,000 and 1 to 5), `pgq autovac` applied,"
        " logged",
        {"driver": "asyncpg", "batch": 1000, "consumers": 1, "unlogged": False},
        (f"delete from pgqueuer where execute_after < {LATER}", "truncate pgqueuer_log"),
    ),
    Contestant(
        "pgqueuer-psycopg",
        "pgqueuer, psycopg",
        PGQUEUER,
        "run_pgqueuer.py",
        "uvloop, batch_size 1000, three consumers (the best of 10 to 1,000 and 1 to 5), `pgq autovac`"
        " applied, logged",
        {"driver": "psycopg", "batch": 1000, "consumers": 3, "unlogged": False},
        (f"delete from pgqueuer where execute_after < {LATER}", "truncate pgqueuer_log"),
    ),
    Contestant(
        "pgmq",
        "pgmq's SQL",
        PGMQ,
        "run_pgmq.py",
        "pgmq.read and pgmq.delete by psycopg, batches of {batch}, logged",
        {"batch": 1000, "unlogged": False},
        (f"delete from pgmq.q_jobs where vt < {LATER}",),
    ),
    Contestant(
        "graphile-worker",
        "graphile-worker, batched",
        GRAPHILE,
        "run_graphile.mjs",
        "as on its performance page: concurrentJobs 24, maxPoolSize 25, localQueue.size 500,"
        " completeJobBatchDelay 0, failJobBatchDelay 0",
        {"concurrency": 24, "pool": 25, "localQueue": 500, "completeJobBatchDelay": 0},
        (f"delete from graphile_worker._private_jobs where run_at < {LATER}",),
    ),
)
PGMQ_BATCHES = (100, 300, 1000, 2000)
"""What pgmq's best batch size is looked for among, at the start of a run."""


def unlogged(contestant: Contestant) -> Contestant:
    """The same with unlogged tables, where it offers that: faster, and empty after a crash."""
    return replace(
        contestant,
        name=f"{contestant.name}-unlogged",
        title=f"{contestant.title}, unlogged",
        words=contestant.words.replace("logged", "unlogged: a crash of the server empties the queue"),
        settings={**contestant.settings, "unlogged": True},
    )


class Absent(Exception):
    """A contestant can't take part here, and why."""


def prepare(environment: Environment, cache: Path) -> None:
    """Make the environment unless it is there already; raises `Absent`."""
    if environment is HERE:
        return
    folder = cache / environment.name
    made = folder / "made"
    if made.exists() and made.read_text(encoding="utf-8").split() == list(environment.packages):
        return
    print(f"installing {', '.join(environment.packages)} into {folder}", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if environment.node:
        (folder / "package.json").write_text('{"private": true}\n', encoding="utf-8")
        _run(["npm", "install", "--no-audit", "--no-fund", "--prefix", str(folder), *environment.packages])
    else:
        _run([sys.executable, "-m", "venv", str(folder)])
        _run([str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", *environment.packages])
    made.write_text("\n".join(environment.packages), encoding="utf-8")


def command(
    contestant: Contestant, cache: Path, what: str, dsn: str, settings: Mapping[str, Any]
) -> list[str]:
    """The command line of its runner."""
    folder = cache / contestant.environment.name
    if contestant.environment is HERE:
        program = sys.executable
    elif contestant.environment.node:
        program = str(folder / "node_modules" / ".bin" / "node")
    else:
        program = str(folder / "bin" / "python")
    return [
        program,
        str(RUNNERS / contestant.runner),
        what,
        dsn,
        json.dumps({**contestant.settings, **settings}),
    ]


def process_environment(contestant: Contestant, cache: Path) -> dict[str, str]:
    """Environment variables for its runner: ours for ourselves, nothing of ours for the others."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "NODE_"))}
    if contestant.environment is HERE:
        kept["PYTHONPATH"] = str(WORKER)
    return {**kept, "PGLAPSE_BENCH_ENVIRONMENT": str(cache / contestant.environment.name)}


def _run(line: list[str]) -> None:
    try:
        done = subprocess.run(
            line, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600, check=False
        )
    except OSError as error:
        raise Absent(f"{line[0]} can't be run: {error}") from error
    if done.returncode:
        raise Absent(f"{' '.join(line)} failed: {(done.stderr or done.stdout).strip()[-500:]}")
