"""``python -m tests.chaos``: run campaigns one by one and judge each; exit code 1 when one failed."""

import argparse
import secrets
import signal
import sys
import time
from collections import Counter

from tests.chaos.campaign import NotPossible, run
from tests.chaos.campaigns import CAMPAIGNS


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos",
        description="Break things at random while applications and workers go on, then judge each file.",
        epilog="campaigns: " + "; ".join(f"{one.name}: {one.about}" for one in CAMPAIGNS.values()),
    )
    parser.add_argument("--seconds", type=float, default=60, help="how long each campaign goes on (60)")
    parser.add_argument("--seed", help="which dice to throw: repeats the decisions, not their moments")
    parser.add_argument("--campaign", action="append", choices=CAMPAIGNS, help="only this; may be repeated")
    parser.add_argument("--rounds", type=int, default=1, help="go through them so often")
    parser.add_argument("--keep", action="store_true", help="keep journals and logs also when all was well")
    given = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupted)  # so that nothing of a campaign outlives it
    seed = given.seed or secrets.token_hex(3)
    print(f"seed {seed}", flush=True)
    total: Counter[str] = Counter()
    failed, began = [], time.monotonic()
    for number in range(given.rounds):
        for name in given.campaign or CAMPAIGNS:
            this = f"{seed}.{number}" if given.rounds > 1 else seed
            try:
                report = run(CAMPAIGNS[name], given.seconds, this, keep=given.keep)
            except NotPossible as reason:
                print(f"{name}: skipped, {reason}", flush=True)
                continue
            print("\n".join(report.lines()), flush=True)
            total.update(report.verdict.numbers)
            total["faults"] += report.toll.total()
            total["deletions in the window"] += len(report.verdict.late)
            if report.failed:
                failed.append(f"{name} (seed {this})")
    print(
        f"{(time.monotonic() - began) / 60:.1f} minutes: {total['faults']:,} faults, "
        f"{total['transactions committed']:,} transactions, {total['files written']:,} files written, "
        f"{total['files deleted']:,} deleted, "
        f"{total['deletions in the window']} of them after their lease's end; "
        + (f"FAILED: {', '.join(failed)}" if failed else "both invariants held")
    )
    return 1 if failed else 0


def _interrupted(number: int, _frame: object) -> None:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
