"""Output that `make demo` and `fvs chat` share: text that is safe for a terminal, and answers in titled rows."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from fvs_ros.sources.frame import SECOND_NS
from fvs_ros.stream.types import Moment

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


def moments_table(moments: Sequence[Moment], start_ns: int) -> Table:
    """A table of at most four of the moments, evenly spread, in seconds after the stream's first stamp."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("keyframe at", "stands for", "steps"):
        table.add_column(name, justify="right")
    count = min(_MOMENTS_SHOWN, len(moments))
    for index in range(count):
        moment = moments[round(index * (len(moments) - 1) / max(count - 1, 1))]
        stamps_ns = (moment.stamp_ns, moment.start_ns, moment.end_ns)
        keyframe, start, end = (f"{(stamp_ns - start_ns) / SECOND_NS:.2f}" for stamp_ns in stamps_ns)
        table.add_row(f"{keyframe} s", f"{start} to {end} s", f"{moment.weight:g}")
    return table


class AnswerPrinter:
    """Prints questions and answers as rows of a title and a text, at most `WIDEST` columns wide.

    Args:
        console: where to print.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
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

    def moments(self, moments: Sequence[Moment], start_ns: int) -> None:
        """Prints how many moments the model answered from, and some of them; see `moments_table`."""
        self.row("moments", Text(f"{len(moments)} keyframes were in front of the model" + ", such as" * bool(moments)))
        if moments:
            self._console.print(Padding(moments_table(moments, start_ns), (0, 0, 0, INDENT), expand=False))

    def timing(self, first_token_s: float, total_s: float) -> None:
        """Prints an answer's latencies in seconds."""
        self.row(
            "timing",
            Text.assemble(
                "first token after ", (f"{first_token_s:.3f} s", "bold"), f", complete after {total_s:.3f} s"
            ),
        )
