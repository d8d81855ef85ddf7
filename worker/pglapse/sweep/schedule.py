"""Sweep now and then, in a thread and with a connection of its own. Of several workers one does."""

import logging
from collections.abc import Mapping, Sequence
from datetime import timedelta
from threading import Event, Thread

import psycopg
from psycopg.types.json import Jsonb

from pglapse import schema, text
from pglapse.config import LocalSettings, Settings
from pglapse.errors import HelperDied, PglapseError, translated
from pglapse.schema import Connection
from pglapse.storage import Away, Storage
from pglapse.storage.local import LocalStorage
from pglapse.sweep import orphans
from pglapse.sweep.orphans import Found, Limits

log = logging.getLogger(__name__)

EVERY = timedelta(hours=6)
FIRST_LOOK = (
    60.0  # seconds after the start: a worker that is restarted again and again has better things to do
)
LOOK = 900.0  # seconds between two looks at whether it is time


class Sweeper:
    """The thread that sweeps, as the worker's main thread sees it."""

    def __init__(
        self,
        storages: Mapping[str, LocalStorage],
        areas: Mapping[str, Sequence[str]],
        *,
        every: timedelta = EVERY,
        first: float = FIRST_LOOK,
    ) -> None:
        self._storages = {name: storages[name] for name, named in areas.items() if named}
        self._areas = areas
        self._every = every
        self._first = first
        self._stop = Event()
        self._started = False
        self._died: BaseException | None = None
        self._thread = Thread(target=self._run, name="sweeper", daemon=True)

    @classmethod
    def of(cls, settings: Settings, storages: Mapping[str, Storage]) -> "Sweeper":
        """One for the areas that a configuration names."""
        areas = {one.name: one.temp for one in settings.storages.values() if isinstance(one, LocalSettings)}
        local = {name: one for name, one in storages.items() if isinstance(one, LocalStorage)}
        return cls(local, areas)

    def start(self) -> None:
        """Begin, where any area is named; once, however often it is called."""
        if self._storages and not self._started:
            self._started = True
            self._thread.start()

    def check(self) -> None:
        """Raise when the thread ended by an error: orphans would stay for ever, and nobody would know."""
        if self._died is not None:
            raise HelperDied(
                f"the thread that sweeps died: {type(self._died).__name__}: {self._died}"
            ) from self._died

    def stop(self) -> None:
        """Stop after the batch in hand. It holds nothing that would be lost, so nobody waits for it."""
        self._stop.set()

    def _run(self) -> None:
        try:
            pause = self._first
            while not self._stop.wait(pause):
                pause = min(LOOK, self._every.total_seconds())
                try:
                    with schema.for_worker() as conn:
                        for name, storage in self._storages.items():
                            turn(conn, storage, self._areas[name], self._every, self._stop)
                except (psycopg.Error, PglapseError) as error:
                    log.warning("can't sweep: %s", text.printable(str(error), 400))
        except BaseException as error:  # handed to the main thread
            self._died = error


def turn(
    conn: Connection, storage: LocalStorage, areas: Sequence[str], every: timedelta, stop: Event
) -> Found | None:
    """Sweep a storage if it is time and no other worker does; the outcome goes to database and log."""
    with translated():
        [(ours,)] = conn.execute("select lapse.sweep_begin(%s, %s)", [storage.name, every])
    if not ours:
        return None
    found = Found(storage.name)
    try:
        found = orphans.sweep(conn, storage, areas, Limits(), stopping=stop.is_set)
    except Away as away:
        found.stopped = away.reason
    except (PglapseError, OSError) as error:
        found.stopped = str(error)
    with translated():
        conn.execute("select lapse.sweep_end(%s, %s)", [storage.name, Jsonb(found.summary())])
    level = logging.INFO if found.stopped is None else logging.WARNING
    log.log(level, "sweep of %s", orphans.said(found, dry_run=False))
    return found
