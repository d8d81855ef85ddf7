"""Measure pglapse's file queue beside others, in one run on one server.

make bench            # the quick form, under five minutes
make bench-full       # the full form, about 25 minutes: its results make docs/benchmarks.md
"""

import argparse
import json
import os
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import contestants, machine, measures, server
from benchmarks.contestants import DELETE, PGLAPSE, RIVALS, Absent, Contestant
from benchmarks.jobs import Runners
from benchmarks.measures import FULL, QUICK, TINY, UNLINK, Bench, Result

FORMS = {form.name: form for form in (QUICK, FULL, TINY)}
PARTS = ("drain", "files", "latency", "application", "million", "idle")
RESULTS = Path(__file__).parent / "results"


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the options, measure, keep the results."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--form", choices=FORMS, default="quick")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="parts (default: all)")
    parser.add_argument("--no-rivals", action="store_true", help="pglapse and the limits alone")
    parser.add_argument("--rounds", type=int, help="instead of the form's own number")
    parser.add_argument("--output", type=Path, help="where results go (default: printed only)")
    options = parser.parse_args(arguments)
    form = FORMS[options.form]
    if options.rounds:
        form = replace(form, rounds=options.rounds)
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    cache = Path(os.environ.get("PGLAPSE_BENCH_CACHE") or home / "pglapse-bench")
    rivals, absent = _rivals(() if options.no_rivals else RIVALS, cache)
    began = time.monotonic()
    results: Result = {
        "form": form.name,
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join(["python", "-m", "benchmarks", *(arguments or sys.argv[1:])]),
        "absent": absent,
    }
    with server.running(durable=form.durable) as own, measures.folders() as (disk, tmpfs):
        results |= {
            "machine": machine.facts({"disk": disk} | ({"tmpfs": tmpfs} if tmpfs else {})),
            "server": own.settings(),
        }
        try:
            _measure(Bench(own, Runners(cache), form, disk, tmpfs), rivals, options.only, results)
        finally:  # what was measured before something failed is worth keeping
            results["took"] = round(time.monotonic() - began)
            print(f"took {results['took']} s")
            if options.output:
                options.output.parent.mkdir(parents=True, exist_ok=True)
                options.output.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    return 0


def _rivals(wanted: Sequence[Contestant], cache: Path) -> tuple[list[Contestant], dict[str, str]]:
    """Those that can take part here, and why the others can't."""
    present, absent = [], {}
    for rival in wanted:
        try:
            contestants.prepare(rival.environment, cache)
        except Absent as error:
            absent[rival.title] = str(error)
            print(f"{rival.title} does not take part: {error}")
        else:
            present.append(rival)
    return present, absent


def _measure(bench: Bench, rivals: list[Contestant], parts: Sequence[str], results: Result) -> None:
    """Measure part by part, and note at once what was measured."""
    form = bench.form
    takers = [PGLAPSE, DELETE, *rivals]
    results |= {"load_at_start": machine.load(), "jobs": form.jobs, "files": form.files}
    results |= {"later": form.later, "cap": form.cap, "drains": []}
    _introduce(results, takers)
    measures.install(bench, takers)
    if "drain" in parts:
        pgmq = next((taker for taker in takers if taker.name == "pgmq"), None)
        if pgmq:
            best, results["batches"] = measures.best_batch(bench, pgmq, contestants.PGMQ_BATCHES)
            takers[takers.index(pgmq)] = measures.sized(pgmq, best)
            rivals[rivals.index(pgmq)] = measures.sized(pgmq, best)
            _introduce(results, takers)
        for drain in measures.drains(bench, takers, ("quiet", "later", "held"), form.rounds):
            results["drains"].append(drain)
    if "files" in parts:
        some = [PGLAPSE, *rivals] if form.rivals_with_files else [PGLAPSE]
        for drain in measures.file_drains(bench, some, form.rounds):
            results["drains"].append(drain)
    if "latency" in parts:
        results["latency"] = list(measures.latencies(bench, takers))
    if "application" in parts:
        results["application"] = list(measures.application(bench, form.rounds))
    if "million" in parts and form.million:
        results["million"] = measures.million(bench)
    if "idle" in parts:
        results["idle"] = measures.idle(bench)
    results["load_at_end"] = machine.load()


def _introduce(results: Result, takers: Sequence[Contestant]) -> None:
    results["contestants"] = [
        {
            "name": taker.name,
            "title": taker.title,
            "packages": taker.environment.packages,
            "words": taker.words,
        }
        for taker in (*takers, UNLINK)
    ]


if __name__ == "__main__":
    sys.exit(main())
