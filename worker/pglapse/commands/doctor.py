"""``pglapse doctor``: a line for each check, the command that mends it, and an exit code for programs."""

import threading
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.text import Text

from pglapse import __version__
from pglapse.doctor.examination import examined
from pglapse.doctor.finding import Finding, Level, exit_code
from pglapse.parts import leave
from pglapse.status import console, document
from pglapse.text import printable

STYLES: dict[Level, str] = {"ok": "green", "warn": "yellow", "fail": "bold red"}


def doctor(
    *,
    config: Annotated[
        str | None,
        typer.Option(
            help="Where the storages are named.  [default: PGLAPSE_CONFIG, or pglapse.toml]", metavar="FILE"
        ),
    ] = None,
    cron_dsn: Annotated[
        str | None,
        typer.Option(
            metavar="DSN",
            help="The database where pg_cron lives, if it is another: dbname=postgres. "
            "[default: where jobs of ours are recorded]",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs: one JSON object.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Only what is not well.")] = False,
) -> None:
    """Look whether all is well: one line a check, and the command that mends what is not.

    Changes nothing; sends one notification to itself, to see whether it arrives. A role with
    lapse.grant_observer is enough; what it can't see, it says. In psql the same, but for what only a client
    sees: select * from lapse.doctor();

    Exit code: 0 all is well, 1 there is a warning, 2 something fails.

    \b
    Examples:
      pglapse doctor
      pglapse doctor --quiet || mail -s pglapse ops@example.org
      pglapse doctor --json | jq '.checks[] | select(.level != "ok")'
    """
    findings = []
    for one in examined(config, cron_dsn):
        findings.append(one)
        if not as_json and not (quiet and one.level == "ok"):
            _show(one)
    code = exit_code(findings)
    if as_json:
        typer.echo(document(_report(findings)))
    elif not quiet:
        _sum_up(findings)
    if any(thread.name.startswith("storage ") for thread in threading.enumerate()):
        leave(code)  # one that hangs would keep us waiting
    raise typer.Exit(code)


def _show(one: Finding) -> None:
    line = Text(f"{one.level:<5}", style=STYLES[one.level]) + Text(f"{one.check:<16} ", style="bold")
    console().print(line + Text(printable(one.message, 1000), style="not bold default"), soft_wrap=True)
    if one.command is not None:
        console().print(Text(f"      mend: {printable(one.command, 2000)}", style="cyan"), soft_wrap=True)


def _sum_up(findings: list[Finding]) -> None:
    counts = {level: sum(one.level == level for one in findings) for level in STYLES}
    console().print()
    console().print(
        Text(f"{counts['ok']} ok, "),
        Text(f"{counts['warn']} to look at, "),
        Text(f"{counts['fail']} failing"),
        sep="",
    )


def _report(findings: list[Finding]) -> dict[str, object]:
    worst = max(findings, key=lambda one: exit_code([one]))
    return {
        "version": __version__,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "level": worst.level,
        "checks": [{"place": place, **asdict(one)} for place, one in enumerate(findings, start=1)],
    }
