"""What `make demo` and `fvs chat` print alike: text that is safe for a terminal, and the moments of an answer."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table

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


@dataclass(frozen=True)
class ShownMoment:
    """A moment in seconds from the beginning of the stream.

    Attributes:
        keyframe_s: when the keyframe was taken.
        start_s, end_s: the interval that it stands for.
        weight: grid steps in that interval's cluster.
    """

    keyframe_s: float
    start_s: float
    end_s: float
    weight: float


def moments_table(moments: Sequence[ShownMoment]) -> Table:
    """Some moments, evenly spread over all of them."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("keyframe at", "stands for", "steps"):
        table.add_column(name, justify="right")
    count = min(_MOMENTS_SHOWN, len(moments))
    for index in range(count):
        moment = moments[round(index * (len(moments) - 1) / max(count - 1, 1))]
        table.add_row(
            f"{moment.keyframe_s:.2f} s", f"{moment.start_s:.2f} to {moment.end_s:.2f} s", f"{moment.weight:g}"
        )
    return table
