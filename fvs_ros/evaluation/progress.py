"""How far a long run is: a bar with rate and time left in a terminal, a line now and then in a log."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType

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

# In a log, where nothing can be redrawn, a line every so many seconds.
LOG_PERIOD_S = 30.0
# Speed is taken over so many seconds: parts of one run differ in length.
_SPEED_PERIOD_S = 300.0
_WIDEST = 24


class RunProgress:
    """Counts what is done of a run; a context manager.

    Args:
        unit: what is counted, in the plural.
        total: how many there are.
        console: where to print; the default is standard output.
    """

    def __init__(self, unit: str, total: int, console: Console | None = None) -> None:
        self.console = console or Console()
        self._unit = unit
        self._total = total
        self._done = 0
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
        self._task = self._bar.add_task(unit, total=total)

    def __enter__(self) -> RunProgress:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def skip(self, count: int) -> None:
        """Counts what an earlier run has done; it says nothing about the speed of this one."""
        self._total -= count
        self._bar.update(self._task, total=self._total)

    def advance(self, count: int, what: str) -> None:
        """Counts what was done now; `what` names where the run is."""
        self._done += count
        shown = what if len(what) <= _WIDEST else f"...{what[3 - _WIDEST :]}"
        self._bar.update(self._task, advance=count, description=shown)
        now = time.monotonic()
        if not self.console.is_terminal and now >= self._logged + LOG_PERIOD_S:
            self._logged = now
            rate = self._done / (now - self._began)
            left_s = (self._total - self._done) / rate if rate else 0.0
            self.note(f"{self._done} of {self._total} {self._unit}, {rate:.2f} a second, {left_s / 60:.0f} min left")

    def note(self, text: str) -> None:
        """Prints a line above the bar."""
        self._bar.console.print(text, markup=False, highlight=False, soft_wrap=True)


class Bars:
    """Bars of several counts of one run, gone when it ends; a context manager.

    Args:
        console: where to draw.
        totals: by what is counted; None where nobody knows.
    """

    def __init__(self, console: Console, totals: Mapping[str, float | None]) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            RateColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
        )
        self._tasks = {what: self._progress.add_task(what, total=total) for what, total in totals.items()}

    def __enter__(self) -> Bars:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def advance(self, what: str, count: float = 1) -> None:
        """Counts on."""
        self._progress.advance(self._tasks[what], count)

    def reach(self, what: str, count: float) -> None:
        """Sets a count."""
        self._progress.update(self._tasks[what], completed=count)


class RateColumn(ProgressColumn):
    """Items per second, or seconds per item where that reads better."""

    def render(self, task: Task) -> Text:
        """See `ProgressColumn.render`."""
        speed = task.finished_speed or task.speed
        if not speed:
            return Text("")
        return Text(f"{speed:.1f}/s" if speed >= 1 else f"{1 / speed:.1f} s each", style="progress.data.speed")
