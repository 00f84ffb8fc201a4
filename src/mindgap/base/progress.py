"""Progress of long work: a live view in a terminal, a plain line every ten seconds elsewhere."""

import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress
from rich.table import Table
from rich.text import Text

LINE_SECONDS = 10.0
MOST_ROWS = 20  # of running units in a live view
MOST_NAMES = 4  # of running units in a plain line


@dataclass(frozen=True)
class Running:
    """A run that is under way: its rounds, where it is, and when (epoch seconds) its present round began."""

    name: str
    where: str
    done: int
    total: int
    since: float


class Progress:
    """A context that is told of each finished unit, and of what is under way."""

    def __init__(self, title: str, total: int, done: int = 0, unit: str = ""):
        self.title, self.total, self.done, self.unit = title, total, done, unit
        self.running: Sequence[Running] = ()
        self._begin = self._last = time.monotonic()
        self._done_before = done
        self._bar: _Bar | None = None

    def __enter__(self) -> "Progress":
        if sys.stderr.isatty() and self.total > self.done:
            self._bar = _Bar(Console(stderr=True))
            self._bar.start()
            self._task = self._bar.add_task(self.title, total=self.total, completed=self.done)
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar:
            self._bar.stop()

    def advance(self, units: int = 1) -> None:
        self.reach(self.done + units)

    def reach(self, done: int, running: Sequence[Running] = ()) -> None:
        """This much is done of `total`, and this under way."""
        self.done, self.running = done, running
        if self._bar:
            self._bar.running = running
            self._bar.update(self._task, completed=done)
        elif (running or done > self._done_before) and time.monotonic() - self._last > LINE_SECONDS:
            self._last = time.monotonic()
            print(self._line(), flush=True)

    def say(self, line: str) -> None:
        """A line of its own, above the live view where there is one."""
        if self._bar:
            self._bar.console.print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            print(line, flush=True)

    def _line(self) -> str:
        line = f"{self.title}: {self.done}/{self.total} {self.unit}"
        if self.done > self._done_before:
            rate = (self.done - self._done_before) / (self._last - self._begin)
            line += f", {rate:.2f}/s, {(self.total - self.done) / rate:.0f} s left"
        if self.running:
            named = [f"{one.name} ({one.where}, {one.done}/{one.total})" for one in self.running]
            more = [f"and {len(named) - MOST_NAMES} more"] if len(named) > MOST_NAMES else []
            line += f"; {len(named)} under way: {', '.join(named[:MOST_NAMES] + more)}"
        return line


class _Bar(RichProgress):
    """The total, and below it what is under way."""

    def __init__(self, console: Console):
        columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
        self.running: Sequence[Running] = ()
        super().__init__(TextColumn("{task.description}"), *columns, console=console)

    def get_renderables(self) -> Iterable[RenderableType]:
        yield self.make_tasks_table(self.tasks)
        if self.running:
            yield running_table(self.running)


def running_table(running: Sequence[Running]) -> Table:
    """A line for each run under way: name, rounds, place, and seconds in this round."""
    table = Table.grid(padding=(0, 2))
    for one in running[:MOST_ROWS]:
        seconds = max(0.0, time.time() - one.since)
        # Text: a name in square brackets would be read as markup.
        cells = (f"  {one.name}", f"{one.done}/{one.total}", one.where, f"{seconds:.0f} s")
        table.add_row(*(Text(cell, no_wrap=True) for cell in cells))
    if len(running) > MOST_ROWS:
        table.add_row(f"  and {len(running) - MOST_ROWS} more")
    return table
