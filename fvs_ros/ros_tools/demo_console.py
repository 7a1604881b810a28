"""What the demo prints: alike in a terminal, where a progress bar stays at the bottom, and in a plain log."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn
from rich.rule import Rule
from rich.text import Text

from fvs_ros.nodes.messages import moment_of, pictured_moment, stamp_nanoseconds
from fvs_ros.sources.frame import SECOND_NS
from fvs_ros.stream.types import AskError
from fvs_ros.stream.words import newest_pose
from fvs_ros.terminal import INDENT, WIDEST, AnswerPrinter, printable
from fvs_ros.terminal_pictures import drawn_by

_BAR_WIDTH = 14
# In a log, where nothing can be redrawn: seconds of stream between two lines of progress.
_LOG_STEP_S = 5.0


class DemoConsole:
    """Prints the demo.

    Args:
        seconds: length of the stream.
        console: where to print; the default is standard output.

    Attributes:
        with_images: whether it shows the pictures of moments that bring them.
    """

    def __init__(self, seconds: float, console: Console | None = None) -> None:
        self._console = console or Console(highlight=False)
        draw = drawn_by(self._console)
        self.with_images = draw is not None
        self._console.width = min(self._console.width, WIDEST)
        self._seconds = seconds
        self._logged_s = 0.0
        self._answers = AnswerPrinter(self._console, draw)
        self._answering = False
        self._progress = Progress(
            TextColumn(f"[bold cyan]{'stream':<{INDENT - 1}}"),
            BarColumn(bar_width=_BAR_WIDTH),
            TextColumn("{task.description}"),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._task = self._progress.add_task("waiting for the node", total=seconds)

    def __enter__(self) -> DemoConsole:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def heading(self, rows: dict[str, str], title: str = "fvs_ros demo") -> None:
        """What is about to run, or has just happened."""
        self._console.print(Rule(title, style="cyan"))
        for name, text in rows.items():
            self._answers.row(name, Text(text))

    def act(self, title: str, rows: dict[str, str]) -> None:
        """A further part of the demo, in which the stream begins anew or goes on."""
        self._logged_s = 0.0
        self._progress.update(self._task, completed=0.0, description="waiting for images")
        self._console.print()
        self.heading(rows, title)

    def note(self, text: str) -> None:
        """A line about what happens."""
        self._console.print(escape(text), style="dim")

    def update(self, elapsed_s: float, memory: Any | None) -> None:
        """Move the progress bar; in a log, print a line now and then, but none within a streamed answer.

        Args:
            elapsed_s: seconds of stream played.
            memory: the last `fvs_ros/msg/MemoryState`, None before one.
        """
        elapsed_s = min(elapsed_s, self._seconds)
        description = f"{elapsed_s:.0f}/{self._seconds:.0f} s, {_memory_size(memory)}"
        self._progress.update(self._task, completed=elapsed_s, description=description)
        if self._answering or self._console.is_terminal:
            return
        if elapsed_s >= self._logged_s + _LOG_STEP_S:
            self._logged_s = elapsed_s - elapsed_s % _LOG_STEP_S
            filled = round(_BAR_WIDTH * elapsed_s / self._seconds)
            self._answers.row("stream", Text(f"[{'#' * filled:-<{_BAR_WIDTH}}] {description}", style="dim"))

    def question(self, when: str, door: str, text: str) -> None:
        """A question that is being asked through `door` now."""
        self._console.print()
        self._console.print(Rule(f"{when}, {door}", style="cyan", align="left"))
        self._answers.row("question", Text(text, style="bold"))

    def begin_tokens(self) -> None:
        """An answer is about to be streamed; the progress bar makes way."""
        self._progress.stop()
        self._answers.begin_tokens()
        self._answering = True

    def token(self, text: str) -> None:
        """The next piece of a streamed answer, printed at once."""
        self._answers.token(text)

    def end_tokens(self) -> None:
        """The streamed answer is complete; the progress bar returns."""
        self._answering = False
        self._answers.end_line()
        self._progress.start()

    def answer(self, response: Any, start_ns: int, streamed: bool = False, brief: bool = False) -> None:
        """An answer (`fvs_ros/srv/Ask` response or action result) with its evidence and its cost.

        Args:
            response: as it came.
            start_ns: stamp of the stream's beginning.
            streamed: whether its text is shown already.
            brief: leave evidence and cost out.
        """
        if not streamed:
            self._answers.answer(response.answer)
        if brief:
            return
        end_ns = stamp_nanoseconds(response.memory_end)
        here = newest_pose(map(moment_of, response.all_moments))
        self._answers.moments([pictured_moment(moment) for moment in response.moments], start_ns, end_ns, here)
        span_s = (end_ns - stamp_nanoseconds(response.memory_start)) / SECOND_NS
        version = f"version {response.memory_version}: {response.memory_steps} steps over {span_s:.1f} s"
        self._answers.row("memory", Text(version))
        self._answers.timing(response.first_token_s, response.total_s)

    def failure(self, error: AskError) -> None:
        """Why there is no answer."""
        self._answers.row("failed", Text(f"{error.code.name}: {error}", style="bold red"))

    def truth(self, text: str, right: bool, family: str) -> None:
        """The right answer, under the one that was given."""
        mark, style = ("right", "bold green") if right else ("wrong", "bold red")
        about = f"  ({family})" if family else ""
        self._answers.row("truth", Text.assemble(printable(text), "  ", (mark, style), (about, "dim")))

    def closing(self, lines: list[str], passed: bool) -> None:
        """The demo's result."""
        self._console.print()
        self._console.print(Rule(style="cyan"))
        for line in lines:
            self._console.print(escape(line))
        verdict = "[bold green]passed[/]" if passed else "[bold red]failed[/]"
        self._console.print(f"demo {verdict}")

    def error(self, text: str) -> None:
        """What ended the demo."""
        self._console.print(escape(text), style="bold red")


def _memory_size(memory: Any | None) -> str:
    if memory is None or not memory.steps:
        return "memory empty"
    return (
        f"{memory.steps} steps \u00b7 CSM {memory.csm_slots}/{memory.csm_capacity} \u00b7 "
        f"DAM {memory.dam_slots}/{memory.dam_capacity} \u00b7 {memory.bytes / 1e6:.2f} MB"
    )
