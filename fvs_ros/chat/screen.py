"""The chat's screen: answers scroll up, and below them stay the stream's state and the line being typed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.console import Console, Group, RenderableType
from rich.text import Text

from fvs_ros.memory.config import FlashMemoryConfig
from fvs_ros.stream.types import Answer, FrameCounters, MemoryStatus
from fvs_ros.stream.words import newest_pose
from fvs_ros.terminal import INDENT, AnswerPrinter, printable
from fvs_ros.terminal_pictures import Draw

# Lines below a running answer: a blank one, the stream's state, the questions that wait, the prompt.
_LINES_BELOW = 6


@dataclass(frozen=True)
class StreamState:
    """What the status line shows.

    Attributes:
        clock_s: seconds since the first frame.
        duration_s: length of the recording, 0 if unknown.
        ended: whether the source has ended.
        fps: frames arriving per second.
        frames: what became of them.
        memory: the newest.
        capacity: its slots.
    """

    clock_s: float
    duration_s: float
    ended: bool
    fps: float
    frames: FrameCounters
    memory: MemoryStatus
    capacity: FlashMemoryConfig

    def line(self) -> Text:
        """The state in a line of at most 80 columns."""
        clock = clock_text(self.clock_s) + (f"/{clock_text(self.duration_s)}" if self.duration_s else "")
        held, slots = self.memory, self.capacity
        memory = "memory empty"
        if held.steps:
            size = _bytes_text(held.bytes)
            memory = f"CSM {held.csm_slots}/{slots.csm_slots} DAM {held.dam_slots}/{slots.dam_slots} {size}"
        kind = "end" if self.ended else "play" if self.duration_s else "live"
        fps = f"{self.fps:.1f}" if self.fps < 10 else f"{self.fps:.0f}"
        return Text.assemble(
            (f"{kind} ", "bold yellow" if self.ended else "bold green"),
            (clock, "bold"),
            f"  {fps} fps  {self.frames.ingested} kept  {memory}  ",
            (f"drops {self.frames.lost}", "bold red" if self.frames.lost else ""),
        )


def clock_text(seconds: float) -> str:
    """Seconds as m:ss.s, or h:mm:ss."""
    tenths = int(seconds * 10 + 1e-6)
    minutes, rest = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest // 10:02d}" if hours else f"{minutes}:{rest // 10:02d}.{rest % 10}"


def _bytes_text(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


class Screen:
    """Prints a chat; in a terminal with a part at the bottom that is redrawn, elsewhere as a plain log.

    Used by one thread.

    Args:
        console: where to print.
        show: sets the lines at the bottom, see `prompt`; None for a log.
        draw: see `AnswerPrinter`.
    """

    def __init__(self, console: Console, show: Callable[[str], None] | None, draw: Draw | None = None) -> None:
        self._console = console
        self._show = show
        self._answers = AnswerPrinter(console, draw)

    def note(self, text: str, style: str = "dim") -> None:
        """A line about what happens."""
        self._answers.end_line()
        self._console.print(Text(printable(text), style=style))

    def begin_answer(self, asked_s: float, question: str) -> None:
        """In a log: the question, before its tokens come. A terminal shows both at the bottom meanwhile."""
        if self._show is None:
            self._heading(asked_s, question)
            self._answers.begin_tokens()

    def token(self, chunk: str) -> None:
        """In a log: the next chunk of the answer, printed at once."""
        if self._show is None:
            self._answers.token(chunk)

    def answer(self, asked_s: float, question: str, answer: Answer, start_ns: int, choices: Sequence[str] = ()) -> None:
        """A complete answer with its moments, its cost and how sure it is."""
        self._answers.end_line()

        # Written at once: the bottom is redrawn after each write.
        with self._console:
            if self._show is not None:
                self._heading(asked_s, question)
                self._answers.answer(answer.text)
            here = newest_pose(answer.all_moments)
            self._answers.moments(answer.moments, start_ns, answer.end_ns, here)
            self._answers.timing(answer.first_token_s, answer.total_s)
            self._answers.sureness(answer, choices)
            self._console.print()

    def failure(self, asked_s: float, question: str, problem: str, begun: bool) -> None:
        """A question that got no answer."""
        self._answers.end_line()
        if self._show is not None or not begun:
            self._heading(asked_s, question)
        self._answers.row("failed", Text(printable(problem), style="bold red"))
        self._console.print()

    def _heading(self, asked_s: float, question: str) -> None:
        self._answers.row(clock_text(asked_s), Text(printable(question), style="bold"))

    def redraw(self, state: StreamState, running: tuple[float, str, str] | None, waiting: Sequence[str]) -> None:
        """Draws the bottom anew.

        Args:
            state: of the stream.
            running: when it was asked, the question and the answer so far, of the one being answered.
            waiting: questions behind it.
        """
        if self._show is None:
            return
        parts: list[RenderableType] = []
        if running is not None:
            parts += [*self._running(*running), Text("")]
        if waiting:
            parts.append(
                Text(f"{len(waiting)} waiting: {printable(waiting[0])}", style="dim", overflow="ellipsis", no_wrap=True)
            )
        line = state.line()
        line.no_wrap, line.overflow = True, "ellipsis"
        parts.append(line)
        with self._console.capture() as captured:
            self._console.print(Group(*parts))
        self._show(captured.get())

    def _running(self, asked_s: float, question: str, answer: str) -> list[Text]:
        """The newest lines of a running answer, as many as there is room for."""
        room = max(1, self._console.height - _LINES_BELOW)
        lines = Text(printable(answer) + "\u2588", style="green").wrap(self._console, self._answers.width - INDENT)
        heading = Text.assemble((f"{clock_text(asked_s):<{INDENT}}", "bold cyan"), (printable(question), "bold"))
        heading.no_wrap, heading.overflow = True, "ellipsis"
        shown = list(lines)[-room:]
        return [heading, *(Text.assemble(f"{'':<{INDENT}}", line) for line in shown)]
