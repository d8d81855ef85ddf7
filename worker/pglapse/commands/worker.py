"""``pglapse worker``: the process that deletes files."""

from enum import StrEnum
from typing import Annotated

import typer

from pglapse import logs, parts, service
from pglapse.complaint import complain
from pglapse.config import load
from pglapse.drain import Worker
from pglapse.parts import leave
from pglapse.stop import Stop
from pglapse.sweep.schedule import Sweeper


class Tick(StrEnum):
    auto = "auto"
    always = "always"
    never = "never"


class LogFormat(StrEnum):
    text = "text"
    json = "json"


def worker(
    *,
    config: Annotated[
        str | None,
        typer.Option(
            help="Where the storages are named.  [default: PGLAPSE_CONFIG, or pglapse.toml]", metavar="FILE"
        ),
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Delete what is due, then exit.")] = False,
    tick: Annotated[
        Tick,
        typer.Option(
            help="Keep the schedule as well: when pg_cron does not (auto), always, or never. "
            "With --once, only 'always' does."
        ),
    ] = Tick.auto,
    log_format: Annotated[LogFormat, typer.Option(help="Readable lines, or JSON.")] = LogFormat.text,
    threads: Annotated[
        int,
        typer.Option(
            min=1, max=32, help="Files of a storage deleted at the same time.", envvar="PGLAPSE_THREADS"
        ),
    ] = 4,
    batch: Annotated[int, typer.Option(min=1, max=10_000, help="Most files taken at a time.")] = 2000,
    lease: Annotated[
        float,
        typer.Option(
            min=0.1,
            max=86_400,
            help="Seconds that a batch may take; after that another worker may take it over.",
        ),
    ] = 60.0,
    grace: Annotated[
        float, typer.Option(min=0, max=3600, help="Seconds that files in hand may take once told to stop.")
    ] = 25.0,
) -> None:
    """Delete the files whose time has come.

    Reads the queue of the database in DATABASE_URL (or libpq's PG* variables) and deletes below the
    roots that pglapse.toml names:

    \b
      [storage.public]
      kind = "local"
      root = "/srv/uploads/public"

    Several workers, on several hosts, share one queue. SIGTERM or Ctrl-C: finishes the file in hand, gives
    the rest back, exits 0. A second one ends it at once.

    \b
    Examples:
      pglapse worker
      pglapse worker --config /etc/pglapse.toml --log-format json
      pglapse worker --once --tick always      (from a system timer, without pg_cron)
    """
    logs.setup(log_format.value)
    settings = load(config)
    stop = Stop()
    with parts.storages(settings, threads) as storages, stop.on_signals():
        who = Worker(service.new_id(), storages, stop, batch=batch, lease=lease, grace=grace)
        stop.wake = who.wake
        code = 0
        try:
            if once:
                service.once(who, tick.value)
            else:
                service.serve(who, stop, tick.value, Sweeper.of(settings, storages))
        except Exception as error:
            if not who.in_hand:
                raise
            code = complain(error)
        if who.in_hand:
            leave(code)
