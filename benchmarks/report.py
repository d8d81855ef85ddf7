"""Turn results into docs/benchmarks.md and its pictures, and into the README's few ratios.

    python -m benchmarks.report benchmarks/results/full.json

Every number on the page comes from that file: medians of the rounds, with the lowest and the highest.
"""

import json
import statistics
import sys
import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.measures import quantile
from benchmarks.pictures import Bar, bars, lines

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "benchmarks.md"
PICTURES = ROOT / "docs" / "benchmarks"
README = ROOT / "README.md"
MARKS = "<!-- ratios: made by benchmarks.report -->", "<!-- end of ratios -->"

CONDITIONS = {
    "quiet": "nothing else going on",
    "later": "beside rows that are due later",
    "held": "beside a session that holds an old snapshot",
}


@dataclass(frozen=True, slots=True)
class Spread:
    """The middle of some values, and how far they reach."""

    median: float
    low: float
    high: float

    def shown(self, form: Callable[[float], str]) -> str:
        """For a table."""
        return f"{form(self.median)} ({form(self.low)}–{form(self.high)})"


@dataclass(frozen=True, slots=True)
class Target:
    """What is to be reached, and what was."""

    words: str
    aim: str
    value: float | None
    hit: bool | None

    def row(self) -> str:
        """A row of the table."""
        shown = "not measured" if self.value is None else _number(self.value)
        verdict = {True: "yes", False: "**no**", None: ""}[self.hit]
        return f"| {self.words} | {self.aim} | {shown} | {verdict} |"


class Results:
    """A file of results, with the questions that the page asks of it."""

    def __init__(self, data: dict[str, Any]) -> None:
        self.data = data
        self.titles = {each["name"]: each["title"] for each in data["contestants"]}

    def rounds(
        self, contestant: str, condition: str, value: Callable[[dict[str, Any]], float]
    ) -> list[float]:
        return [
            value(drain)
            for drain in self.data["drains"]
            if (drain["contestant"], drain["condition"]) == (contestant, condition)
        ]

    def spread(
        self, contestant: str, condition: str, value: Callable[[dict[str, Any]], float]
    ) -> Spread | None:
        values = self.rounds(contestant, condition, value)
        return Spread(statistics.median(values), min(values), max(values)) if values else None

    def rate(self, contestant: str, condition: str) -> Spread | None:
        return self.spread(contestant, condition, lambda drain: drain["jobs"] / drain["seconds"])

    def ratio(self, one: tuple[str, str], other: tuple[str, str]) -> float | None:
        """How many times as fast; each round against the same round, then the middle."""
        rates = [self.rounds(*pair, lambda drain: drain["jobs"] / drain["seconds"]) for pair in (one, other)]
        pairs = list(zip(*rates, strict=False))
        return statistics.median(mine / theirs for mine, theirs in pairs) if pairs else None

    def contestants(self, condition: str) -> list[str]:
        """Those measured in a condition, the fastest first."""
        rates = {name: self.rate(name, condition) for name in self.titles}
        found = {name: rate.median for name, rate in rates.items() if rate}
        return sorted(found, key=lambda name: -found[name])

    def latency(self, contestant: str, part: float) -> float | None:
        for each in self.data.get("latency", []):
            if each["contestant"] == contestant:
                return quantile(sorted(each["seconds"]), part)
        return None

    def tps(self, transaction: str, trigger: str) -> Spread | None:
        values = [
            each["tps"]
            for each in self.data.get("application", [])
            if (each["transaction"], each["trigger"]) == (transaction, trigger)
        ]
        return Spread(statistics.median(values), min(values), max(values)) if values else None

    def kept(self, transaction: str, trigger: str) -> float | None:
        """The share of its transactions a second that the application keeps."""
        by_round: dict[int, dict[str, float]] = {}
        for each in self.data.get("application", []):
            if each["transaction"] == transaction:
                by_round.setdefault(each["round"], {})[each["trigger"]] = each["tps"]
        shares = [tps[trigger] / tps["without"] for tps in by_round.values() if trigger in tps]
        return statistics.median(shares) if shares else None


def targets(results: Results) -> list[Target]:
    """The goals that were set before anything was measured, and what came out."""
    quiet = ("pglapse", "quiet")

    def times(words: str, other: tuple[str, str], least: float, one: tuple[str, str] = quiet) -> Target:
        value = results.ratio(one, other)
        return Target(words, f"≥ {least:g} ×", value, None if value is None else value >= least)

    p99 = results.latency("pglapse", 0.99)
    kept = results.kept("standard", "later")
    pgqueuer = max(
        ("pgqueuer-asyncpg", "pgqueuer-psycopg"),
        key=lambda name: getattr(results.rate(name, "quiet"), "median", 0.0),
    )
    return [
        times("jobs that do nothing, against procrastinate", ("procrastinate", "quiet"), 20),
        times("against pgqueuer, the faster of its drivers", (pgqueuer, "quiet"), 5),
        times("against graphile-worker, batched", ("graphile-worker", "quiet"), 1.5),
        times("against pgmq's SQL at its best batch size", ("pgmq", "quiet"), 1),
        times(
            "4 KiB files on disk, against a bare loop of unlink", ("unlink", "disk"), 1, ("pglapse", "disk")
        ),
        times("4 KiB files on tmpfs, against the same", ("unlink", "tmpfs"), 0.5, ("pglapse", "tmpfs")),
        times("beside rows due later, against the quiet rate", quiet, 0.9, ("pglapse", "later")),
        times("beside a held snapshot, against the quiet rate", quiet, 0.8, ("pglapse", "held")),
        Target(
            "from commit to file gone, worker idle, p99",
            "≤ 20 ms",
            None if p99 is None else 1000 * p99,
            None if p99 is None else p99 <= 0.02,
        ),
        Target(
            "transactions a second that pgbench keeps with the trigger, rows due later",
            "≥ 0.9 ×",
            kept,
            None if kept is None else kept >= 0.9,
        ),
    ]


def ratios(results: Results) -> str:
    """What the README says: ratios of one run, and nothing else."""
    quiet = ("pglapse", "quiet")
    against = [
        (f"{_number(ratio)} × {results.titles[name]}")
        for name in ("procrastinate", "pgqueuer-asyncpg", "pgqueuer-psycopg", "graphile-worker", "pgmq")
        if (ratio := results.ratio(quiet, (name, "quiet")))
    ]
    said = f"One worker works off jobs that do nothing at {', '.join(against)}" if against else "One worker"
    for condition, words in (("later", "beside rows due later"), ("held", "beside a held snapshot")):
        if ratio := results.ratio(("pglapse", condition), quiet):
            said += f"; {words} at {_number(ratio)} × its own rate"
    for place, words in (("disk", "on disk"), ("tmpfs", "on tmpfs")):
        if ratio := results.ratio(("pglapse", place), ("unlink", place)):
            said += f"; with files {words} at {_number(ratio)} × a bare loop of unlink"
    return f"{said}. All in one run on one server: what else was measured, and how, is in [docs/benchmarks.md](docs/benchmarks.md)."


def with_ratios(readme: str, words: str) -> str:
    """The README with new ratios between its marks; `ValueError` when it has none."""
    begin, end = (readme.index(mark) for mark in MARKS)
    return f"{readme[:begin]}{MARKS[0]}\n{textwrap.fill(words, 118, break_on_hyphens=False)}\n{readme[end:]}"


def page(results: Results, note: str = "") -> str:
    """The whole page, as Markdown."""
    parts = [_head(results), _targets(results), note, _drains(results), _files(results), _latency(results)]
    parts += [_application(results), _million(results), _idle(results), _setup(results)]
    return "\n\n".join(part.strip() for part in parts if part.strip()) + "\n"


def _head(results: Results) -> str:
    data = results.data
    machine = data["machine"]
    return f"""
# Benchmarks

pglapse's file queue beside what people would use instead, all in one run on one server. This page is made by
`python -m benchmarks.report` from [{data["file"]}](../{data["file"]}); run it yourself with `make bench` (quick) or
`make bench-full`.

Measured {data["made_at"][:10]} with `{data["command"]}` on {machine["cores"]} cores of {machine["processor"]},
{machine["memory"]}, {machine["kernel"]}, PostgreSQL {data["server"]["version"]}, Python {machine["python"]}. Compare
numbers within this page only. Contestants take turns, round by round; a table gives the median and, in brackets, the
lowest and the highest round. "Server" and "own" are processor time for one job, of the PostgreSQL server with all its
processes and of the worker: what a job costs, however busy the machine is.
"""


def _targets(results: Results) -> str:
    rows = [target.row() for target in targets(results)]
    head = [
        "## Goals",
        "",
        "Set before anything was measured.",
        "",
        "| | goal | measured | reached |",
        "|---|---|---|---|",
    ]
    return "\n".join([*head, *rows])


def _drains(results: Results) -> str:
    later = results.data["later"]
    parts = [
        "## Jobs that do nothing",
        f"{results.data['jobs']:,} jobs are queued, then one worker process works them off; one that needs longer than"
        f" {results.data['cap']:g} s is stopped, and its rate is that of what it did. The clock runs from the word"
        " until the last job is finished, in the database too.",
    ]
    for condition, words in CONDITIONS.items():
        names = results.contestants(condition)
        if not names:
            continue
        shown = words.replace("rows that", f"{later:,} rows that")
        parts += [f"### {shown[0].upper()}{shown[1:]}", _table(results, names, condition)]
    if results.contestants("quiet"):
        picture = _picture_of_drains(results)
        parts.insert(2, picture)
    return "\n\n".join(parts)


def _table(results: Results, names: Sequence[str], condition: str) -> str:
    rows = ["| | jobs/s | pglapse is | server | own |", "|---|---|---|---|---|"]
    for name in names:
        rate = results.rate(name, condition)
        server = results.spread(name, condition, lambda drain: 1e6 * drain["server_cpu"] / drain["jobs"])
        own = results.spread(name, condition, lambda drain: 1e6 * drain["own_cpu"] / drain["jobs"])
        assert rate
        assert server
        assert own
        ratio = results.ratio(("pglapse", condition), (name, condition))
        against = "" if name == "pglapse" or ratio is None else f"{_number(ratio)} ×"
        rows.append(
            f"| {results.titles[name]} | {rate.shown(_whole)} | {against} |"
            f" {_number(server.median)} µs | {_number(own.median)} µs |"
        )
    return "\n".join(rows)


def _picture_of_drains(results: Results) -> str:
    groups = []
    for condition, words in CONDITIONS.items():
        for name in results.contestants("quiet"):
            if rate := results.rate(name, condition):
                groups.append(Bar(words, results.titles[name], rate.median, rate.low, rate.high))
    return _picture(
        "drains.svg",
        bars(groups, "jobs a second, logarithmic", log=True),
        "Jobs a second in three conditions",
    )


def _files(results: Results) -> str:
    places = [place for place in ("disk", "tmpfs") if results.contestants(place)]
    if not places:
        return ""
    parts = [
        "## Real files",
        f"{results.data['files']:,} files of 4 KiB in 256 folders, in random order, written to the disk before the clock"
        " starts. pglapse is a real `pglapse worker` process with its defaults; the clock starts when the files are due"
        " and stops when the last one is gone and the queue is empty.",
    ]
    groups = []
    for place in places:
        where = results.data["machine"].get(f"files on {place}", "").split()[:1]
        parts += [f"### On {place}{f' ({where[0]})' if where and where[0] != place else ''}"]
        parts += [_table(results, results.contestants(place), place)]
        for name in results.contestants(place):
            if rate := results.rate(name, place):
                groups.append(Bar(f"on {place}", results.titles[name], rate.median, rate.low, rate.high))
    picture = _picture(
        "files.svg",
        bars(groups, "files a second, logarithmic", log=True),
        "Files a second, on disk and tmpfs",
    )
    parts.insert(2, picture)
    return "\n\n".join(parts)


def _latency(results: Results) -> str:
    found = results.data.get("latency", [])
    if not found:
        return ""
    rows = ["| | p50 | p90 | p99 | highest |", "|---|---|---|---|---|"]
    for each in sorted(found, key=lambda each: quantile(sorted(each["seconds"]), 0.5)):
        ordered = sorted(each["seconds"])
        cells = [f"{1000 * quantile(ordered, part):.1f} ms" for part in (0.5, 0.9, 0.99, 1.0)]
        rows.append(f"| {results.titles[each['contestant']]} | {' | '.join(cells)} |")
    count = len(found[0]["seconds"])
    return "\n".join(
        [
            "## From commit to file gone",
            "",
            f"An idle worker, {count} files one at a time: from the moment when the application's commit returns until the"
            " file is gone.",
            "",
            *rows,
        ]
    )


def _application(results: Results) -> str:
    if not results.data.get("application"):
        return ""
    rows = ["| transaction | trigger | tps | kept |", "|---|---|---|---|"]
    kinds = {"standard": "pgbench's standard one and an INSERT of one row", "insert": "the INSERT alone"}
    words = {
        "without": "none",
        "later": "queues the file, due in a day",
        "now": "queues the file, due at once",
    }
    for kind, what in kinds.items():
        for trigger, said in words.items():
            if tps := results.tps(kind, trigger):
                kept = results.kept(kind, trigger)
                share = "" if trigger == "without" or kept is None else f"{_number(kept)} ×"
                rows.append(f"| {what} | {said} | {tps.shown(_whole)} | {share} |")
    return "\n".join(
        [
            "## What the trigger costs the application",
            "",
            "pgbench with 16 clients, and a worker that is running: what is due at once it deletes (or rather misses)"
            " meanwhile, on the same cores. One INSERT of one row is the least that a transaction can do, and so the most"
            " that a trigger can cost.",
            "",
            *rows,
        ]
    )


def _million(results: Results) -> str:
    burst = results.data.get("million")
    if not burst:
        return ""
    memory = [(seconds, size / 1e6) for seconds, size in burst["memory"]]
    early = [size for seconds, size in memory if seconds <= memory[-1][0] / 10]
    rows = ["| queue | seconds since the start | table | indexes |", "|---|---|---|---|"]
    for size in burst["sizes"]:
        rows.append(
            f"| {size['when']} | {size['after']:.0f} | {size['table'] / 1e6:.1f} MB | {size['indexes'] / 1e6:.1f} MB |"
        )
    picture = _picture(
        "memory.svg",
        lines([("memory of the worker", memory)], "seconds", "MB"),
        "Memory of the worker while it deletes a million files",
    )
    return "\n".join(
        [
            "## A million files at once",
            "",
            f"{burst['files']:,} empty files on tmpfs, queued by one statement in {burst['queued_in']:.0f} s and deleted by"
            f" one worker in {burst['drained_in']:.0f} s. One more file, queued while they were being deleted, was gone"
            f" after **{burst['single']:.1f} s**. The worker held {max(early):.0f} MB at most in the first tenth of the"
            f" time, {max(size for _, size in memory):.0f} MB at most overall and {memory[-1][1]:.0f} MB at the end.",
            "",
            picture,
            "",
            *rows,
            *(["", burst["note"]] if burst.get("note") else []),
        ]
    )


def _idle(results: Results) -> str:
    found = results.data.get("idle")
    if not found:
        return ""
    words = {"nobody": "nobody", "worker": "one waiting worker"}
    rows = [
        "| connected | transactions a minute | WAL a minute | worker's processor time a minute |",
        "|---|---|---|---|",
    ]
    for each in found:
        rows.append(
            f"| {words[each['what']]} | {each['transactions']:.0f} | {each['wal'] / 1000:.1f} kB |"
            f" {1000 * each['cpu']:.0f} ms |"
        )
    statements = next((each.get("statements") for each in found if each["what"] == "worker"), None)
    asked = [f"- {calls:g} × `{query.replace('`', '')}`" for query, calls in statements or []]
    return "\n".join(
        [
            "## What a waiting worker costs",
            "",
            *rows,
            *(["", "What it asks in a minute:", "", *asked] if asked else []),
        ]
    )


def _setup(results: Results) -> str:
    data = results.data
    who = [
        f"- **{each['title']}**{_packages(each['packages'])}: {each['words']}" for each in data["contestants"]
    ]
    settings = [f"{name} = {value}" for name, value in data["server"].items() if name != "version"]
    machine = [f"{name}: {value}" for name, value in data["machine"].items() if name.startswith("files on")]
    absent = [f"- {title} did not take part: {reason}" for title, reason in data["absent"].items()]
    return "\n".join(
        [
            "## Who took part, and how",
            "",
            "Each rival in the set-up that its documentation calls the fastest; numbers that it leaves open were tried on this"
            " kind of machine. One worker process each, connected through a Unix socket.",
            "",
            *who,
            *absent,
            "",
            f"The server: PostgreSQL {data['server']['version']}, {', '.join(settings)}. {'; '.join(machine)}. Load before"
            f" the run {data['load_at_start']:.2f}; it took {data['took'] / 60:.0f} minutes.",
            "",
            "Before each drain the tables are vacuumed and analysed and a checkpoint is made, for all alike.",
        ]
    )


def _packages(packages: Iterable[str]) -> str:
    shown = ", ".join(packages)
    return f" ({shown})" if shown else ""


def _picture(name: str, svg: str, words: str) -> str:
    PICTURES.mkdir(parents=True, exist_ok=True)
    (PICTURES / name).write_text(svg, encoding="utf-8")
    return f"![{words}](benchmarks/{name})"


def _whole(value: float) -> str:
    return f"{value:,.0f}"


def _number(value: float) -> str:
    """Two or three figures are as exact as this is."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def main() -> None:
    """Read results, write the page and its pictures."""
    source = Path(sys.argv[1]).resolve()
    data = json.loads(source.read_text(encoding="utf-8"))
    data["file"] = str(source.relative_to(ROOT))
    note = source.with_suffix(".md")
    words = note.read_text(encoding="utf-8") if note.exists() else ""
    PAGE.write_text(page(Results(data), words), encoding="utf-8")
    readme = README.read_text(encoding="utf-8")
    README.write_text(with_ratios(readme, ratios(Results(data))), encoding="utf-8")
    for target in targets(Results(data)):
        print(target.row())


if __name__ == "__main__":
    main()
