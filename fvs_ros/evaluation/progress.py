"""Progress of a long run: bars in a terminal, a line every half minute in a log."""

from __future__ import annotations

import time
from collections.abc import Mapping

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

# Between two lines of a log.
LOG_PERIOD_S = 30.0
# Speed is averaged over this time: parts of one run differ in length.
_SPEED_PERIOD_S = 300.0
_WIDEST = 24


class RunProgress:
    """Counts what is done of a run; a context manager.

    Args:
        totals: how many there are of each thing that is counted, named in the plural; None where nobody knows.
        console: where to print; the default is standard output.
    """

    def __init__(self, totals: Mapping[str, float | None], console: Console | None = None) -> None:
        self.console = console or Console()
        self._began = self._logged = time.monotonic()
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            RateColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self.console,
            speed_estimate_period=_SPEED_PERIOD_S,
            disable=not self.console.is_terminal,
        )
        self._tasks = {name: self._bar.add_task(name, total=total) for name, total in totals.items()}

    def __enter__(self) -> RunProgress:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def skip(self, name: str, number: float) -> None:
        """Counts what an earlier run has done; it says nothing about the speed of this one."""
        task = self._task(name)
        if task.total is not None:
            self._bar.update(task.id, total=task.total - number)

    def advance(self, name: str, number: float = 1, where: str = "") -> None:
        """Counts what was done now; `where` says at what the run is."""
        task = self._task(name)
        shown = where if len(where) <= _WIDEST else f"...{where[3 - _WIDEST :]}"
        self._bar.update(task.id, advance=number, description=shown or name)
        now = time.monotonic()
        if not self.console.is_terminal and now >= self._logged + LOG_PERIOD_S:
            self._logged = now
            rate = task.completed / (now - self._began)
            left = "" if task.remaining is None or not rate else f", {task.remaining / rate / 60:.0f} min left"
            total = "" if task.total is None else f" of {task.total:.0f}"
            self.note(f"{task.completed:.0f}{total} {name}, {rate:.2f} a second{left}")

    def reach(self, name: str, number: float) -> None:
        """Counts on to a number."""
        self.advance(name, number - self._task(name).completed)

    def _task(self, name: str) -> Task:
        return next(task for task in self._bar.tasks if task.id == self._tasks[name])

    def note(self, text: str) -> None:
        """Prints a line above the bars."""
        self._bar.console.print(text, markup=False, highlight=False, soft_wrap=True)


class RateColumn(ProgressColumn):
    """Items per second, or seconds per item where that reads better."""

    def render(self, task: Task) -> Text:
        """See `ProgressColumn.render`."""
        speed = task.finished_speed or task.speed
        if not speed:
            return Text("")
        return Text(f"{speed:.1f}/s" if speed >= 1 else f"{1 / speed:.1f} s each", style="progress.data.speed")
