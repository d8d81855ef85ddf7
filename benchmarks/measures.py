"""What is measured, one function each. Results are plain dictionaries, kept as JSON.

The machine is shared with whatever else it does, so contestants take turns, round by round, and processor
time is noted beside the clock: it is what a job costs, however busy the machine is.
"""

import itertools
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import contestants, worker
from benchmarks.contestants import DELETE, PGLAPSE, Contestant
from benchmarks.jobs import Failed, Files, Runners
from benchmarks.server import Connection, Server, seconds_of_cpu

Result = dict[str, Any]

UNLINK = Contestant(
    "unlink",
    "a bare loop of unlink",
    contestants.HERE,
    "run_limits.py",
    "one thread, the files known beforehand",
)


@dataclass(frozen=True, slots=True)
class Form:
    """How much of everything."""

    name: str
    jobs: int  # queued for a drain of jobs that do nothing
    files: int  # the same with files
    later: int  # rows that are due later
    rounds: int
    cap: float  # seconds after which a slow contestant is stopped; its rate is that of what it did
    probes: int
    pgbench: int  # seconds
    million: int
    idle: int  # seconds
    rivals_with_files: bool
    durable: bool = True  # False: fsync off, which only a test may have


QUICK = Form("quick", 20_000, 20_000, 200_000, 2, 2.0, 30, 4, 0, 15, rivals_with_files=False)
FULL = Form("full", 50_000, 30_000, 1_000_000, 3, 3.0, 200, 8, 1_000_000, 60, rivals_with_files=True)
TINY = Form("tiny", 1_000, 100, 1_000, 1, 2.0, 3, 1, 1_000, 1, rivals_with_files=False, durable=False)


@dataclass(frozen=True, slots=True)
class Bench:
    """A server, the runners, and places for files."""

    server: Server
    runners: Runners
    form: Form
    disk: Path
    tmpfs: Path | None

    def say(self, text: str) -> None:
        """Tell a person how it goes."""
        print(text, flush=True)


def places(disk: Path) -> tuple[Path, Path | None]:
    """Where files on disk and in memory go."""
    memory = Path("/dev/shm")  # noqa: S108 (a tmpfs is what is wanted)
    own = memory / disk.name
    try:
        own.mkdir(mode=0o700)
    except OSError:
        return disk, None
    return disk, own


@contextmanager
def folders() -> Iterator[tuple[Path, Path | None]]:
    """Folders for files on a disk and, where there is one, on a tmpfs."""
    with tempfile.TemporaryDirectory(prefix="pglapse-files-", dir="/var/tmp") as name:
        disk, memory = places(Path(name))
        try:
            yield disk, memory
        finally:
            if memory:
                with tempfile.TemporaryDirectory(dir=memory.parent) as bin_:
                    memory.rename(Path(bin_) / "files")


# Drains -------------------------------------------------------------------------------------------------


def install(bench: Bench, takers: Sequence[Contestant]) -> None:
    """Give each a database of its own, and one beside it with rows that are due later."""
    for taker in takers:
        for database, jobs in ((taker.database, 0), (f"{taker.database}_later", bench.form.later)):
            dsn = created(bench, taker, database)
            if jobs:
                began = time.monotonic()
                bench.runners.call(taker, "fill", dsn, jobs=jobs, later=True)
                bench.say(f"{taker.name}: {jobs:,} rows due later in {time.monotonic() - began:.0f} s")
                with bench.server.connect(database) as conn:
                    conn.execute("vacuum analyze")


def created(bench: Bench, taker: Contestant, database: str) -> str:
    """Make a database with its schema; return the connection string."""
    template = f"{taker.database}_template"
    with bench.server.connect() as conn:
        known = conn.execute("select 1 from pg_database where datname = %s", [template]).fetchone()
    if not known:
        bench.runners.call(taker, "install", bench.server.create(template))
    dsn = bench.server.create(database, template)
    with bench.server.connect(database) as conn:
        if conn.execute("select to_regclass('lapse.identity')").fetchone() != (None,):
            conn.execute("select lapse.adopt_database()")  # nothing runs in a copy before that
    return dsn


def drains(
    bench: Bench, takers: Sequence[Contestant], conditions: Sequence[str], rounds: int
) -> Iterator[Result]:
    """Jobs that do nothing, in each condition: quiet, later, held."""
    for number in range(rounds):
        for condition in conditions:
            for taker in _in_turn(takers, number):
                database = f"{taker.database}_later" if condition == "later" else taker.database
                with _held(bench, database, condition == "held"):
                    yield _drain(bench, taker, database, condition, number)


def file_drains(bench: Bench, takers: Sequence[Contestant], rounds: int) -> Iterator[Result]:
    """Real files of 4 KiB, on disk and on tmpfs."""
    for number in range(rounds):
        for place, folder in (("disk", bench.disk), ("tmpfs", bench.tmpfs)):
            if folder is None:
                continue
            for taker in _in_turn((UNLINK, *takers), number):
                files = Files(folder / "files", seed=number)
                try:
                    files.make(bench.form.files, synced=bench.form.durable)
                    if taker is PGLAPSE:
                        yield _worker_drain(bench, files, place, number)
                    else:
                        yield _drain(bench, taker, taker.database, place, number, files=files)
                finally:
                    files.remove()


def _in_turn(takers: Sequence[Contestant], number: int) -> list[Contestant]:
    """Another one first in each round."""
    at = number % len(takers)
    return [*takers[at:], *takers[:at]]


@contextmanager
def _held(bench: Bench, database: str, held: bool) -> Iterator[None]:
    """Another session with an old snapshot, idle in its transaction, from before the jobs are queued."""
    if not held:
        yield
        return
    with bench.server.connect(database) as conn:
        conn.execute("begin isolation level repeatable read")
        conn.execute("select count(*) from pg_class")
        yield
        conn.execute("rollback")


def _clear(bench: Bench, taker: Contestant, database: str) -> None:
    with bench.server.connect(database) as conn:
        for statement in taker.clear:
            conn.execute(statement)
        conn.execute("vacuum")


def _settle(bench: Bench, database: str) -> None:
    """The same start for all: statistics of the filled tables, and no checkpoint in between."""
    with bench.server.connect(database) as conn:
        conn.execute("vacuum analyze")
        conn.execute("checkpoint")


def _drain(
    bench: Bench, taker: Contestant, database: str, condition: str, number: int, *, files: Files | None = None
) -> Result:
    dsn = bench.server.url(database)
    jobs = bench.form.files if files else bench.form.jobs
    settings: dict[str, Any] = {"jobs": jobs, "later": False}
    if files:
        settings["paths"] = str(files.list)
    if taker is UNLINK:
        settings["unlink"] = True
    else:
        bench.runners.call(taker, "fill", dsn, **settings)
        _settle(bench, database)
    before = bench.server.seconds_of_cpu()
    answer = bench.runners.drain(taker, dsn, **settings, seconds=bench.form.cap)
    server = bench.server.seconds_of_cpu() - before
    if taker is not UNLINK:
        _clear(bench, taker, database)
    if files and files.left() != jobs - answer["jobs"]:
        raise Failed(f"{taker.name} says {answer['jobs']:,} of {jobs:,} files, but {files.left():,} are left")
    if taker is PGLAPSE and answer["seconds"] < bench.form.cap and answer["jobs"] != jobs:
        raise Failed(f"pglapse did {answer['jobs']:,} of {jobs:,} jobs")
    return _result(bench, taker, condition, number, answer=answer, server=server)


def _worker_drain(bench: Bench, files: Files, place: str, number: int) -> Result:
    """The real worker: all files are due at one moment, and that is when the clock starts."""
    database, jobs = PGLAPSE.database, bench.form.files
    root = files.root
    margin = 2.0 + jobs / 4000
    for _ in range(6):
        due = time.time() + margin
        bench.runners.call(
            PGLAPSE,
            "fill",
            bench.server.url(database),
            jobs=jobs,
            paths=str(files.list),
            root=str(root),
            due=due,
        )
        _settle(bench, database)
        with (
            bench.server.connect(database) as conn,
            worker.running(bench.server.url(database), root, conn) as process,
        ):
            if time.time() > due - 0.2:
                margin *= 2
            else:
                time.sleep(due - time.time())
                server, own = bench.server.seconds_of_cpu(), seconds_of_cpu(process.pid)
                end = files.wait_until_gone(120)
                while not worker.empty(conn):
                    time.sleep(0.002)
                    end = time.time()
                server = bench.server.seconds_of_cpu() - server
                answer = {"jobs": jobs, "seconds": end - due, "cpu": seconds_of_cpu(process.pid) - own}
                break
        _clear(bench, PGLAPSE, database)
    else:
        raise Failed("the machine is too slow to queue files before they are due")
    _clear(bench, PGLAPSE, database)
    return _result(bench, PGLAPSE, place, number, answer=answer, server=server)


def _result(
    bench: Bench, taker: Contestant, condition: str, number: int, *, answer: Result, server: float
) -> Result:
    jobs, seconds = answer["jobs"], answer["seconds"]
    if not jobs:
        raise Failed(f"{taker.name} did no job in {seconds:.1f} s ({condition})")
    bench.say(
        f"{condition:<6} round {number + 1}  {taker.name:<26} {jobs / seconds:>10,.0f} jobs/s"
        f"   {1e6 * answer['cpu'] / jobs:7.1f} µs own, {1e6 * server / jobs:7.1f} µs of the server a job"
    )
    return {
        "contestant": taker.name,
        "condition": condition,
        "round": number,
        "jobs": jobs,
        "seconds": round(seconds, 4),
        "own_cpu": round(answer["cpu"], 4),
        "server_cpu": round(server, 4),
    }


def best_batch(bench: Bench, pgmq: Contestant, sizes: Sequence[int]) -> tuple[int, list[Result]]:
    """pgmq's best batch size on this machine, and what was tried."""
    tried: list[Result] = []
    for number in range(2):
        for size in sizes:
            sized = _sized(pgmq, size)
            tried.append({**_drain(bench, sized, pgmq.database, "quiet", number), "batch": size})
    rate = {
        size: statistics.median(r["jobs"] / r["seconds"] for r in tried if r["batch"] == size)
        for size in sizes
    }
    return max(rate, key=lambda size: rate[size]), tried


def _sized(pgmq: Contestant, size: int) -> Contestant:
    return Contestant(
        pgmq.name,
        pgmq.title,
        pgmq.environment,
        pgmq.runner,
        pgmq.words.format(batch=f"{size:,}"),
        {**pgmq.settings, "batch": size},
        pgmq.clear,
    )


sized = _sized


# Latency ------------------------------------------------------------------------------------------------


def latencies(bench: Bench, takers: Sequence[Contestant]) -> Iterator[Result]:
    """One file at a time, an idle worker: from the commit to the moment when the file is gone."""
    folder = bench.tmpfs or bench.disk
    for taker in takers:
        if taker is DELETE:
            continue
        dsn = bench.server.url(taker.database)
        root = folder / "probes"
        root.mkdir(exist_ok=True)
        settings = {"folder": str(root), "count": bench.form.probes, "pause": 0.02}
        if taker is PGLAPSE:
            with bench.server.connect(taker.database) as conn, worker.running(dsn, root, conn):
                time.sleep(0.5)
                answer = bench.runners.call(taker, "probe", dsn, **settings)
        else:
            with bench.runners.serving(taker, dsn):
                time.sleep(0.5)
                answer = bench.runners.call(taker, "probe", dsn, **settings)
        _clear(bench, taker, taker.database)
        seconds = sorted(answer["seconds"])
        bench.say(
            f"latency  {taker.name:<26} p50 {1000 * quantile(seconds, 0.5):7.1f} ms"
            f"   p99 {1000 * quantile(seconds, 0.99):7.1f} ms"
        )
        yield {"contestant": taker.name, "seconds": [round(s, 6) for s in seconds]}


def quantile(ordered: Sequence[float], part: float) -> float:
    """The value below which that part of them lies."""
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


# The application ----------------------------------------------------------------------------------------

APPLICATION = """
create schema app;
create table app.task (
    id bigint generated always as identity primary key, owner bigint not null, title text not null,
    state text not null default 'open', made_at timestamptz not null default now()
);
create index on app.task (owner, made_at);
"""
TABLE = """
create table app.upload_{name} (
    id bigint generated always as identity primary key, task_id bigint not null, path text not null,
    made_at timestamptz not null default now()
);
create index on app.upload_{name} (task_id);
"""
TRIGGER = """
create function app.queue_{name}()
    returns trigger
    language plpgsql
    set search_path = pg_catalog, pg_temp
as $$
begin
    perform lapse.enqueue_files(array(
        select row('bench', f.path, {due}, 'temporary upload', 'app.upload_{name}', f.id::text, null)
                   ::lapse.file_request
          from fresh as f));
    return null;
end $$;
create trigger queue_{name} after insert on app.upload_{name} referencing new table as fresh
    for each statement execute function app.queue_{name}();
"""
INSERT = r"""
\set owner random(1, 100000)
insert into app.upload_{name} (task_id, path) values (:owner, 'tmp/' || gen_random_uuid());
"""
STANDARD = (
    r"""
\set aid random(1, 100000 * :scale)
\set bid random(1, 1 * :scale)
\set tid random(1, 10 * :scale)
\set delta random(-5000, 5000)
begin;
update pgbench_accounts set abalance = abalance + :delta where aid = :aid;
select abalance from pgbench_accounts where aid = :aid;
update pgbench_tellers set tbalance = tbalance + :delta where tid = :tid;
update pgbench_branches set bbalance = bbalance + :delta where bid = :bid;
insert into pgbench_history (tid, bid, aid, delta, mtime) values (:tid, :bid, :aid, :delta, now());
"""
    + INSERT.strip()
    + "\nend;\n"
)
SCRIPTS = {"insert": INSERT, "standard": STANDARD}
SCALE = 20, 1  # of the standard transaction; and for a test
DUES = {"without": None, "later": "f.made_at + interval '24 hours'", "now": "f.made_at"}


def application(bench: Bench, rounds: int) -> Iterator[Result]:
    """What the trigger costs: 16 clients whose transactions insert one row each, with an idle worker at hand.

    One short INSERT alone is the least that an application can do, and so the most that a trigger can cost;
    pgbench's standard transaction with the INSERT in it is nearer to what applications do.
    """
    pgbench = bench.server.bindir / "pgbench"
    if not pgbench.exists():
        bench.say(f"no pgbench beside {bench.server.bindir}: the application's cost is not measured")
        return
    database = "application"
    dsn = created(bench, PGLAPSE, database)
    root = (bench.tmpfs or bench.disk) / "application"
    root.mkdir()
    with bench.server.connect(database) as conn:
        conn.execute(APPLICATION)
        for name, due in DUES.items():
            conn.execute(TABLE.format(name=name))
            if due:
                conn.execute(TRIGGER.format(name=name, due=due))
        _run_pgbench(pgbench, ["-i", "-q", "-s", _scale(bench), dsn])
        with worker.running(dsn, root, conn):
            for number, kind in itertools.product(range(rounds), SCRIPTS):
                names = list(DUES)
                for name in names[number % 3 :] + names[: number % 3]:
                    for other in DUES:
                        conn.execute(f"truncate app.upload_{other}")
                    conn.execute("delete from lapse.file_cleanup_queue")
                    conn.execute("truncate lapse.file_cleanup_log")
                    conn.execute("vacuum analyze")
                    conn.execute("checkpoint")
                    tps = _tps(bench, pgbench, dsn, kind, name)
                    bench.say(f"application round {number + 1}  {kind:<8}  {name:<8} {tps:>10,.0f} tps")
                    yield {"transaction": kind, "trigger": name, "round": number, "tps": round(tps, 1)}


def _tps(bench: Bench, pgbench: Path, dsn: str, kind: str, name: str) -> float:
    script = bench.disk / f"{kind}-{name}.pgbench"
    script.write_text(SCRIPTS[kind].format(name=name), encoding="utf-8")
    how = ["-n", "-M", "prepared", "-c", "16", "-j", "2", "-T", str(bench.form.pgbench), "-s", _scale(bench)]
    said = _run_pgbench(pgbench, [*how, "-f", str(script), dsn])
    for line in said.splitlines():
        if line.startswith("tps"):
            return float(line.split()[2])
    raise Failed(f"pgbench says no tps:\n{said}")


def _scale(bench: Bench) -> str:
    return str(SCALE[0] if bench.form.durable else SCALE[1])


def _run_pgbench(pgbench: Path, arguments: list[str]) -> str:
    done = subprocess.run([pgbench, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise Failed(f"pgbench: {done.stderr[-1000:]}")
    return done.stdout


# A million files ----------------------------------------------------------------------------------------

SIZES = """
select pg_table_size('lapse.file_cleanup_queue'), pg_indexes_size('lapse.file_cleanup_queue')
"""


def million(bench: Bench) -> Result:
    """One burst: memory of the worker, the queue's size and how it comes back, and a single late file."""
    database = "million"
    dsn = created(bench, PGLAPSE, database)
    files = Files((bench.tmpfs or bench.disk) / "million")
    count = bench.form.million
    try:
        files.make(count, size=0, folders=1024)
        with bench.server.connect(database) as conn:
            return _burst(bench, conn, dsn, files, count)
    finally:
        files.remove()


def _burst(bench: Bench, conn: Connection, dsn: str, files: Files, count: int) -> Result:
    sizes: list[Result] = []
    zero = time.monotonic()

    def note(when: str) -> None:
        row = conn.execute(SIZES).fetchone()
        assert row
        sizes.append(
            {"when": when, "after": round(time.monotonic() - zero, 1), "table": row[0], "indexes": row[1]}
        )
        bench.say(f"queue {when}: table {row[0] / 1e6:.1f} MB, indexes {row[1] / 1e6:.1f} MB")

    note("empty")
    conn.execute("create temporary table burst (path text)")
    with conn.cursor() as cursor, cursor.copy("copy burst from stdin") as copy, files.list.open() as lines:
        for line in lines:
            copy.write(line.strip().removeprefix(f"{files.root}/") + "\n")
    with worker.running(dsn, files.root, conn) as process:
        began = time.monotonic()
        conn.execute(
            "select lapse.enqueue_files(array("
            "select row(%s, path, null, null, null, null, null)::lapse.file_request from burst))",
            [worker.STORAGE],
        )
        queued = time.monotonic()
        note("full")
        memory = [[0.0, worker.resident(process.pid)]]
        late = files.root / "late"
        late.write_bytes(b"")
        single: float | None = None
        asked: float | None = None
        last = 0.0
        while not (gone := worker.empty(conn)) or single is None:
            now = time.monotonic() - queued
            if now - last >= 0.5 or gone:
                last = now
                memory.append([round(now, 2), worker.resident(process.pid)])
            if asked is None and now > min(3.0, count / 100_000):
                conn.execute("select lapse.enqueue_file(%s, 'late')", [worker.STORAGE])
                asked = time.monotonic()
            if asked is not None and single is None and not late.exists():
                single = time.monotonic() - asked
            if now > 900:
                raise Failed("a million files take more than a quarter of an hour")
            time.sleep(0.02)
        done = time.monotonic()
        note("drained")
        if left := files.left():
            raise Failed(f"{left:,} files are left")
        memory.append([round(done - queued, 2), worker.resident(process.pid)])
    bench.say(
        f"{count:,} files in {done - queued:.1f} s; one file queued meanwhile was gone after {single:.2f} s"
    )
    _come_back(conn, note, patience=150 if count >= 100_000 else 0)
    return {
        "files": count,
        "queued_in": round(queued - began, 2),
        "drained_in": round(done - queued, 2),
        "single": round(single, 3),
        "memory": memory,
        "sizes": sizes,
    }


def _come_back(conn: Connection, note: Any, patience: float) -> None:
    """Watch what autovacuum does to the queue, then do the rest by hand.

    The first autovacuum may have begun while the queue was being drained, or met somebody's snapshot.
    """
    until = time.monotonic() + patience
    size = "select pg_relation_size('lapse.file_cleanup_queue') > 1000000"
    while time.monotonic() < until and conn.execute(size).fetchone() == (True,):
        time.sleep(1)
    note("after autovacuum")
    conn.execute("vacuum lapse.file_cleanup_queue")
    note("after vacuum")
    conn.execute("call lapse.run('compact_queue')")
    note("after compact_queue")


# Idle ---------------------------------------------------------------------------------------------------

COUNTERS = """
select pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint, d.xact_commit + d.xact_rollback
  from pg_stat_database as d where d.datname = current_database()
"""


def idle(bench: Bench) -> list[Result]:
    """What a waiting worker costs the server, beside a server that nobody uses."""
    database = "idle"
    dsn = created(bench, PGLAPSE, database)
    root = bench.disk / "idle"
    root.mkdir()
    results = []
    with bench.server.connect() as admin, bench.server.connect(database) as conn:
        statements = bool(
            admin.execute("select 1 from pg_settings where name = 'pg_stat_statements.track'").fetchone()
        )
        if statements:
            conn.execute("create extension pg_stat_statements")
            admin.execute("alter system set pg_stat_statements.track = 'all'")
            admin.execute("select pg_reload_conf()")
        for what in ("nobody", "worker"):
            conn.execute("checkpoint")
            if what == "nobody":
                results.append(_counted(conn, what, bench.form.idle, None, statements))
            else:
                with worker.running(dsn, root, conn) as process:
                    time.sleep(2)
                    results.append(_counted(conn, what, bench.form.idle, process.pid, statements))
        if statements:
            admin.execute("alter system set pg_stat_statements.track = 'none'")
            admin.execute("select pg_reload_conf()")
    for result in results:
        bench.say(
            f"idle: {result['what']:<7} {result['transactions']:.1f} transactions, {result['wal']:,.0f} bytes"
            f" of WAL, {1000 * result['cpu']:.1f} ms of the worker's time a minute"
        )
    return results


def _counted(conn: Connection, what: str, seconds: int, pid: int | None, statements: bool) -> Result:
    """Transactions, WAL and statements a minute, without those of this very look."""
    if statements:
        conn.execute("select pg_stat_statements_reset()")
    cpu = seconds_of_cpu(pid) if pid else 0.0
    first = conn.execute(COUNTERS).fetchone()
    time.sleep(seconds)
    conn.execute("select pg_stat_clear_snapshot()")
    second = conn.execute(COUNTERS).fetchone()
    assert first
    assert second
    minute = 60 / seconds
    result: Result = {
        "what": what,
        "wal": round((second[0] - first[0]) * minute),
        "transactions": round(max(second[1] - first[1] - 2, 0) * minute, 1),
        "cpu": round((seconds_of_cpu(pid) - cpu) * minute, 4) if pid else 0.0,
    }
    if statements:
        rows = conn.execute(
            "select left(regexp_replace(query, '\\s+', ' ', 'g'), 100), calls from pg_stat_statements"
            " where toplevel and query !~ 'pg_stat|pg_wal' order by calls desc, 1"
        ).fetchall()
        result["statements"] = [[query, round(calls * minute, 1)] for query, calls in rows]
    return result
