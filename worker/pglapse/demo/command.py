"""``pglapse demo``: the whole of it on this machine, and a proof that it did what it should."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from time import sleep
from typing import Annotated, Any

import psycopg
import typer
from rich.console import Console

from pglapse.demo import database, files, load, plan, process, proof, show
from pglapse.demo.database import Database
from pglapse.demo.interrupts import Interrupted, Interrupts
from pglapse.demo.screen import Screen
from pglapse.errors import PglapseError, SettingError


@dataclass(frozen=True, slots=True)
class Options:
    """What was asked for."""

    url: str
    folder: Path | None
    scale: float
    stay: bool


def demo(
    database_url: Annotated[
        str,
        typer.Option(
            envvar="DATABASE_URL",
            help="A server of yours, where the demo creates a database of its own and drops it. "
            "Default: an embedded server.",
            show_default=False,
            show_envvar=True,
        ),
    ] = "",
    folder: Annotated[
        Path | None,
        typer.Option(
            help="Where the files go: new or empty. Default: a new one in the folder for temporary files."
        ),
    ] = None,
    scale: Annotated[
        float,
        typer.Option(min=0.01, max=20.0, help="How much of everything; 1 is 54,000 rows and 8,000 files."),
    ] = 1.0,
    stay: Annotated[
        bool,
        typer.Option(
            "--stay", help="Keep server and worker up after the proof, until Ctrl-C, to look around."
        ),
    ] = False,
) -> None:
    """Show on this machine how rows lapse and their files follow, and prove it.

    Starts PostgreSQL, installs engine and marketplace, fills it with rows and files, runs a worker for about
    half a minute and compares the outcome with a list written beforehand. Ends with 0 only if all is as it
    should be, with 1 and the differences if not. Leaves one folder, and nothing running.
    """
    raise typer.Exit(run(Options(database_url, folder, scale, stay), Screen(Console())))


def run(options: Options, screen: Screen) -> int:
    """Play the demo through and clean up, whatever happens; returns the exit code."""
    cleanup = ExitStack()
    code = 1
    with Interrupts() as interrupts:
        try:
            with interrupts.allowed():
                code = _play(options, screen, interrupts, cleanup)
        except Interrupted as interrupted:
            code = interrupted.exit_code
            screen.say(f"\n{interrupted}: cleaning up")
        except PglapseError as error:
            code = error.exit_code
            screen.say(f"{error}", style="red")
        except (OSError, RuntimeError, psycopg.Error) as error:
            screen.say(f"The demo failed: {error}", style="red")
        finally:
            try:
                cleanup.close()
            except PglapseError as error:
                code = code or 1
                screen.say(f"{error}", style="red")
    return code


def _play(options: Options, screen: Screen, interrupts: Interrupts, cleanup: ExitStack) -> int:
    with interrupts.held():  # a server half started could not be stopped
        place = cleanup.enter_context(_place(options.folder))
        base = cleanup.enter_context(_database(options, place.folder))
    screen.step(f"started {base.server}")
    story = plan.make(options.scale)
    manifest = files.write(place.folder, story.files, story.seed)
    goes = sum(file.goes for file in story.files)
    screen.step(f"wrote {len(story.files):,} files, listed in {manifest}")
    screen.say(f"         {goes:,} of them must be gone at the end and {len(story.files) - goes:,} untouched")
    process.install(base.dsn)
    conn = cleanup.enter_context(closing(database.connect(base.dsn)))
    begins = _begins(conn, options.scale, screen.seconds)
    load.load(conn, story, begins)
    screen.step(f"installed pglapse and the marketplace, loaded {story.rows:,} rows")
    told = load.refusals(conn, story)
    show.hasten(conn)

    config = process.configure(place.folder)
    with interrupts.held():
        worker = cleanup.enter_context(process.worker(base.dsn, config))
    screen.step(f"started a worker, process {worker.pid}, log {worker.log}")
    screen.say("         look around meanwhile, from another terminal:")
    screen.hint(base.look())
    with screen.bars() as update:
        broke = show.run(
            conn,
            story,
            place.folder,
            begins=begins,
            worker=worker,
            acts=load.acts(conn, story),
            update=update,
        )
    told += _ended(worker, broke)
    told += proof.differences(conn, story, place.folder, manifest)
    place.keep = True
    screen.step("compared files, statuses, balances, statistics and references with the plan")
    for remark in proof.remarks(conn):
        screen.say(f"         {remark}", style="yellow")
    screen.verdict(told)
    screen.say(f"Files, manifest and the worker's log are in {place.folder}: remove it when you like.")
    if options.stay:
        _stay(base, config, screen, interrupts, cleanup)
    else:
        screen.say(f"Now {base.end}; with --stay everything stays up to look around.")
    return 1 if told else 0


@dataclass(slots=True)
class Place:
    """The demo's folder, and whether it stays."""

    folder: Path
    keep: bool = False


@contextmanager
def _place(named: Path | None) -> Iterator[Place]:
    """The folder of the demo; emptied again unless it is to be kept, and removed when it was made here."""
    made = named is None or not named.exists()
    if named is None:
        folder = Path(tempfile.mkdtemp(prefix="pglapse-demo-"))
    else:
        folder = named.resolve()
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            if any(folder.iterdir()):
                raise SettingError(f"{folder} is not empty: name a new folder")
        except OSError as error:
            raise SettingError(f"can't use {folder} as the demo's folder: {error.strerror}") from error
    if made:
        folder.chmod(0o711)  # root lends the server to another user, who has to get through
    place = Place(folder)
    try:
        yield place
    finally:
        if not place.keep:
            for entry in folder.iterdir():
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
            if made:
                folder.rmdir()


def _database(options: Options, folder: Path) -> AbstractContextManager[Database]:
    return database.borrowed(options.url) if options.url else database.embedded(folder / "server")


def _begins(conn: psycopg.Connection[Any], scale: float, so_far: float) -> datetime:
    """When the first row of the show lapses: about when loading is over, later where all has been slow."""
    row = conn.execute("select clock_timestamp()").fetchone()
    assert row is not None and isinstance(row[0], datetime)  # noqa: S101, PT018
    return row[0] + timedelta(seconds=1 + 2 * scale + so_far / 4)


def _ended(worker: process.Worker, broke: str | None) -> list[str]:
    """Stop the worker; tell what broke the show off and how the worker took its end."""
    if broke is not None:
        said = worker.last_words()
        return [f"{broke}; the worker's last words:\n{said}" if worker.gone() else broke]
    code = worker.stop()
    return [f"the worker ended with exit code {code} when told to stop"] if code else []


def _stay(base: Database, config: Path, screen: Screen, interrupts: Interrupts, cleanup: ExitStack) -> None:
    """Keep everything up until Ctrl-C, which is the ordinary end of this."""
    with suppress(Interrupted):
        with interrupts.held():
            cleanup.enter_context(process.worker(base.dsn, config))
        screen.say("Server and worker stay up until Ctrl-C. Try it out, in another terminal:")
        screen.hint(base.look())
        while True:
            sleep(1)
