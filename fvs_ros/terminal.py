"""Output that `make demo` and `fvs chat` share: text that is safe for a terminal, and answers in titled rows."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from fvs_ros.sources.frame import SECOND_NS, Pose
from fvs_ros.stream.types import Answer, Moment
from fvs_ros.stream.words import age_text, distance_text
from fvs_ros.terminal_pictures import Draw

WIDEST = 100
# Columns of a row's title.
INDENT = 10
_MOMENTS_SHOWN = 4
# Letters, numbers, punctuation, symbols: anything else could move the cursor, stack up or reverse a line.
_PRINTABLE_CATEGORIES = frozenset("LNPS")


def printable(text: str) -> str:
    """`text` with each line break and control character replaced, safe for any terminal."""
    return "".join(
        letter
        if letter == " " or (unicodedata.category(letter)[0] in _PRINTABLE_CATEGORIES and letter != "\ufffd")
        else "\u00b7"
        for letter in text
    )


def moments_table(moments: Sequence[Moment], start_ns: int, end_ns: int, here: Pose | None = None) -> Table:
    """A table of the first four moments, those that an answer rests on most: how long ago, and how far from here.

    Args:
        moments: in the order of their relevance.
        start_ns: the stream's first stamp; other times count from it.
        end_ns: stamp of the newest frame in memory.
        here: where the camera is; None where that is unknown.
    """
    shown = moments[:_MOMENTS_SHOWN]
    distances = [distance_text(moment.pose, here) for moment in shown]
    # Both fit into 80 columns only without the keyframe's time, which lies in the interval beside it.
    placed = any(distances)
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("relevance", "seen", *(() if placed else ("keyframe at",)), "stands for", "steps"):
        table.add_column(name, justify="right", no_wrap=True)
    for moment, distance in zip(shown, distances, strict=True):
        relevance = "" if moment.relevance is None else f"{moment.relevance:.0%}"
        stamps_ns = (moment.stamp_ns, moment.start_ns, moment.end_ns)
        keyframe, start, end = (f"{(stamp_ns - start_ns) / SECOND_NS:.2f}" for stamp_ns in stamps_ns)
        seen = ", ".join(filter(None, (age_text((end_ns - moment.stamp_ns) / SECOND_NS), distance)))
        when = () if placed else (f"{keyframe} s",)
        table.add_row(relevance, seen, *when, f"{start} to {end} s", f"{moment.weight:g}")
    return table


class AnswerPrinter:
    """Prints questions and answers as rows of a title and a text, at most `WIDEST` columns wide.

    Args:
        console: where to print.
        draw: draws pictures there; None where that cannot be.
    """

    def __init__(self, console: Console, draw: Draw | None = None) -> None:
        self._console = console
        self._draw = draw
        self._column = 0

    @property
    def width(self) -> int:
        """Columns to use: those of the terminal as it is now, which a person may resize."""
        return min(self._console.width, WIDEST)

    def row(self, title: str, text: Text) -> None:
        """Prints a row, its text wrapped beside the title."""
        for index, line in enumerate(text.wrap(self._console, self.width - INDENT)):
            shown = "" if index else title
            self._console.print(Text.assemble((f"{shown:<{INDENT}}", "bold cyan"), line), soft_wrap=True)

    def begin_tokens(self) -> None:
        """Begins the row of an answer that is printed token by token."""
        self._console.print(Text(f"{'answer':<{INDENT}}", style="bold cyan"), end="")
        self._column = INDENT

    def token(self, text: str) -> None:
        """Prints the next chunk of the answer at once."""
        text = printable(text)
        if self._column + cell_len(text) > self.width:
            self.end_line()
        if not self._column:
            self._console.print(f"{'':<{INDENT}}", end="")
            self._column = INDENT
        self._column += cell_len(text)
        self._console.print(Text(text, style="green"), end="", soft_wrap=True)
        self._console.file.flush()

    def end_line(self) -> None:
        """Ends the line of tokens, if there is one; later tokens go on below it."""
        if self._column:
            self._console.print()
            self._column = 0

    def answer(self, text: str) -> None:
        """Prints a complete answer that was not printed by tokens."""
        self.row("answer", Text(printable(text) or "(empty)", style="green"))

    def moments(self, moments: Sequence[Moment], start_ns: int, end_ns: int, here: Pose | None = None) -> None:
        """Prints the moments that an answer rests on, see `moments_table`, and pictures of the first that have one."""
        if not moments:
            self.row("moments", Text("none came with the answer"))
            return
        self.row("moments", Text("what the answer rests on"))
        table = moments_table(moments, start_ns, end_ns, here)
        self._console.print(Padding(table, (0, 0, 0, INDENT), expand=False))
        pictures = [moment.picture.jpeg for moment in moments if moment.picture is not None]
        drawn = self._draw(pictures) if self._draw is not None and pictures else None
        if drawn is not None:
            self._console.print(Padding(drawn, (0, 0, 0, INDENT), expand=False))

    def sureness(self, answer: Answer, choices: Sequence[str] = ()) -> None:
        """Prints how sure an answer is, and how likely each of the choices that it had, the likeliest first."""
        if choices:
            likely = sorted(zip(answer.choice_probabilities, choices, strict=True), reverse=True)
            self.row("choices", Text(", ".join(f"{printable(text)} {share:.1%}" for share, text in likely)))
            return
        kind = "" if answer.calibrated else " (probability of exactly these words)"
        said = ", says that it was not seen" * answer.not_seen + ", cut off at its longest length" * answer.truncated
        self.row("sure", Text(f"{answer.confidence:.0%}{kind}{said}"))

    def timing(self, first_token_s: float, total_s: float) -> None:
        """Prints an answer's latencies in seconds."""
        self.row(
            "timing",
            Text.assemble(
                "first token after ", (f"{first_token_s:.3f} s", "bold"), f", complete after {total_s:.3f} s"
            ),
        )
