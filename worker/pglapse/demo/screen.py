"""What the demo says: bars in a terminal, plain lines anywhere else."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from pglapse.demo.show import Bar, Update

_PLAIN_EVERY = 2.0
_MOST = 20

QUERIES = (
    "select policy, schedule, last_run_at, rows_last_day, backlog from lapse.policy_status;",
    "select * from lapse.queue_status;",
    "select reason, outcome, count(*) from lapse.file_cleanup_log group by 1, 2 order by 3 desc;",
)


class Screen:
    """Where the demo writes; knows whether it is a terminal."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._began = monotonic()

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return monotonic() - self._began

    def say(self, text: str, style: str = "") -> None:
        """One line, or several, as they are: nothing in them is markup, nothing is cut or wrapped."""
        self._console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)

    def step(self, text: str) -> None:
        """A line with the seconds since the beginning before it."""
        self.say(f"{self.seconds:5.1f} s  {text}")

    def hint(self, look: str) -> None:
        """How to look around with psql."""
        self.say(f"         {look}")
        for query in QUERIES:
            self.say(f"           {query}", style="cyan")

    @contextmanager
    def bars(self) -> Iterator[Update]:
        """Room for the bars of the show."""
        if not self._console.is_terminal:
            yield self._plainly()
            return
        columns = (
            TextColumn("         {task.description:<20}"),
            BarColumn(30),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=self._console) as progress:
            ids = {}

            def update(bars: list[Bar]) -> None:
                for bar in bars:
                    if bar.name not in ids:
                        ids[bar.name] = progress.add_task(bar.name, total=bar.total)
                    progress.update(ids[bar.name], completed=bar.done)

            yield update

    def _plainly(self) -> Callable[[list[Bar]], None]:
        last: list[float] = [-_PLAIN_EVERY]

        def update(bars: list[Bar]) -> None:
            done = all(bar.done == bar.total for bar in bars)
            if monotonic() - last[0] >= _PLAIN_EVERY or (done and last[0] != float("inf")):
                last[0] = float("inf") if done else monotonic()
                self.step(", ".join(f"{bar.name} {bar.done:,}/{bar.total:,}" for bar in bars))

        return update

    def verdict(self, differences: list[str]) -> None:
        """The end of the matter."""
        if not differences:
            self.say("The proof holds.", style="bold green")
            return
        count = f"{len(differences)} difference{'s' if len(differences) > 1 else ''}"
        self.say(f"The proof does not hold: {count}.", style="bold red")
        for difference in differences[:_MOST]:
            self.say(f"  - {difference}")
        if len(differences) > _MOST:
            self.say(f"  and {len(differences) - _MOST} more")
