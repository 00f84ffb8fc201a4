"""Progress of long work: a live bar in a terminal, a plain line every ten seconds elsewhere."""

import sys
import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

LINE_SECONDS = 10.0


class Progress:
    """A context that is told of each finished unit."""

    def __init__(self, title: str, total: int, done: int = 0, unit: str = ""):
        self.title, self.total, self.done, self.unit = title, total, done, unit
        self._begin = self._last = time.monotonic()
        self._done_before = done
        self._bar = None

    def __enter__(self) -> "Progress":
        if sys.stderr.isatty() and self.total > self.done:
            console = Console(stderr=True)
            columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
            self._bar = RichProgress(TextColumn("{task.description}"), *columns, console=console)
            self._bar.start()
            self._task = self._bar.add_task(self.title, total=self.total, completed=self.done)
        return self

    def __exit__(self, *error) -> None:
        if self._bar:
            self._bar.stop()

    def advance(self, units: int = 1) -> None:
        self.reach(self.done + units)

    def reach(self, done: int) -> None:
        """This much is done of `total`."""
        self.done = done
        if self._bar:
            self._bar.update(self._task, completed=done)
        elif done > self._done_before and time.monotonic() - self._last > LINE_SECONDS:
            self._last = time.monotonic()
            rate = (self.done - self._done_before) / (self._last - self._begin)
            remaining = (self.total - self.done) / rate
            print(
                f"{self.title}: {self.done}/{self.total} {self.unit}, {rate:.2f}/s, {remaining:.0f} s left",
                flush=True,
            )
