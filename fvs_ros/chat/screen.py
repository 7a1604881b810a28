"""The chat's screen: answers scroll up, and below them stay the stream's state and the line being typed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType

from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from fvs_ros.chat.line_editor import LineEditor
from fvs_ros.sources.frame import SECOND_NS
from fvs_ros.stream.types import Answer
from fvs_ros.terminal import INDENT, AnswerPrinter, ShownMoment, printable

_PROMPT = "> "
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
        kept: frames in memory.
        lost: frames that were dropped, late or rejected.
        steps: grid steps in memory.
        csm, dam: filled slots and all slots.
        bytes: of the memory.
    """

    clock_s: float
    duration_s: float
    ended: bool
    fps: float
    kept: int
    lost: int
    steps: int
    csm: tuple[int, int]
    dam: tuple[int, int]
    bytes: int

    def line(self) -> Text:
        """The state in a line of at most 80 columns."""
        clock = clock_text(self.clock_s) + (f"/{clock_text(self.duration_s)}" if self.duration_s else "")
        memory = (
            f"CSM {self.csm[0]}/{self.csm[1]} DAM {self.dam[0]}/{self.dam[1]} {_bytes_text(self.bytes)}"
            if self.steps
            else "memory empty"
        )
        kind = "end" if self.ended else "play" if self.duration_s else "live"
        fps = f"{self.fps:.1f}" if self.fps < 10 else f"{self.fps:.0f}"
        return Text.assemble(
            (f"{kind} ", "bold yellow" if self.ended else "bold green"),
            (clock, "bold"),
            f"  {fps} fps  {self.kept} kept  {memory}  ",
            (f"drops {self.lost}", "bold red" if self.lost else ""),
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
        editor: the line being typed; None where nobody types.
    """

    def __init__(self, console: Console, editor: LineEditor | None) -> None:
        self._console = console
        self._editor = editor
        self._live = Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else None
        self._answers = AnswerPrinter(console)

    def __enter__(self) -> Screen:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.update("", refresh=True)
            self._live.stop()

    def note(self, text: str, style: str = "dim") -> None:
        """A line about what happens."""
        self._answers.end_line()
        self._console.print(Text(printable(text), style=style))

    def begin_answer(self, asked_s: float, question: str) -> None:
        """In a log: the question, before its tokens come. A terminal shows both at the bottom meanwhile."""
        if self._live is None:
            self._heading(asked_s, question)
            self._answers.begin_tokens()

    def token(self, chunk: str) -> None:
        """In a log: the next chunk of the answer, printed at once."""
        if self._live is None:
            self._answers.token(chunk)

    def answer(self, asked_s: float, question: str, answer: Answer, start_ns: int) -> None:
        """A complete answer with its moments and its cost."""
        self._answers.end_line()
        if self._live is not None:
            self._heading(asked_s, question)
            self._answers.answer(answer.text)

        def seconds(stamp_ns: int) -> float:
            return (stamp_ns - start_ns) / SECOND_NS

        self._answers.moments(
            [
                ShownMoment(seconds(moment.stamp_ns), seconds(moment.start_ns), seconds(moment.end_ns), moment.weight)
                for moment in answer.moments
            ]
        )
        self._answers.timing(answer.first_token_s, answer.total_s)
        self._console.print()

    def failure(self, asked_s: float, question: str, problem: str, begun: bool) -> None:
        """A question that got no answer."""
        self._answers.end_line()
        if self._live is not None or not begun:
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
        if self._live is None:
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
        if self._editor is not None:
            parts.append(self._prompt(self._editor))
        self._live.update(Group(*parts), refresh=True)

    def _running(self, asked_s: float, question: str, answer: str) -> list[Text]:
        """The newest lines of a running answer, as many as there is room for."""
        room = max(1, self._console.height - _LINES_BELOW)
        lines = Text(printable(answer) + "\u2588", style="green").wrap(self._console, self._answers.width - INDENT)
        heading = Text.assemble((f"{clock_text(asked_s):<{INDENT}}", "bold cyan"), (printable(question), "bold"))
        heading.no_wrap, heading.overflow = True, "ellipsis"
        shown = list(lines)[-room:]
        return [heading, *(Text.assemble(f"{'':<{INDENT}}", line) for line in shown)]

    def _prompt(self, editor: LineEditor) -> Text:
        """The typed line, scrolled so that the cursor is seen."""
        width = self._answers.width - len(_PROMPT) - 1
        text, cursor = printable(editor.text) + " ", editor.cursor
        first = 0
        while cell_len(text[first : cursor + 1]) > width:
            first += 1
        shown = text[first:]
        cursor -= first
        line = Text.assemble(
            (_PROMPT, "bold cyan"), shown[:cursor], (shown[cursor], "reverse"), shown[cursor + 1 :], no_wrap=True
        )
        line.overflow = "crop"
        return line
