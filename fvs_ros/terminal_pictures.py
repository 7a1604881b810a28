"""Pictures in a terminal that can show them: as sixels, or by the kitty graphics protocol; in any other there are none.

textual-image draws them. Whether a terminal can is asked of it by escape sequences, which it answers on standard input:
once, before anything else reads that.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from PIL import Image
    from rich.console import Console, RenderableType

Draw = Callable[[Sequence[bytes]], "RenderableType | None"]
"""Makes one picture of several JPEGs, side by side; None of none that can be read."""

MOST = 3
"""Pictures side by side; more are left out."""
# In pixels, of pictures that may be 640 high, and of what lies between two.
_HEIGHT, _WIDEST, _GAP = 160, 480, 8
_ROWS = 8


def drawn_by(console: Console) -> Draw | None:
    """What draws pictures on a console; None where it is no terminal that can, or textual-image is not installed.

    Takes at most 0.3 s, where a terminal leaves the questions unanswered.
    """
    # Both ways: the answers come in on the terminal, too.
    if (
        not console.is_terminal
        or console.is_dumb_terminal
        or not (_is_tty(sys.__stdin__) and _has_size(sys.__stdout__))
    ):
        return None
    try:
        # Importing it asks the terminal.
        from textual_image import renderable
    except ImportError:
        return None
    if renderable.Image not in (renderable.SixelImage, renderable.TGPImage):
        return None

    def draw(jpegs: Sequence[bytes]) -> RenderableType | None:
        whole = side_by_side(jpegs)
        return None if whole is None else renderable.Image(whole, width="auto", height=_ROWS)

    return draw


def side_by_side(jpegs: Sequence[bytes]) -> Image.Image | None:
    """The first `MOST` pictures in one, all of one height; those that cannot be read are left out, None if all are."""
    from PIL import Image

    scaled = []
    for jpeg in jpegs[:MOST]:
        try:
            picture = Image.open(io.BytesIO(jpeg), formats=("JPEG",)).convert("RGB")
        except (OSError, Image.DecompressionBombError):
            # They may come from any node.
            continue
        width = min(max(1, round(picture.width * _HEIGHT / picture.height)), _WIDEST)
        scaled.append(picture.resize((width, _HEIGHT)))
    if not scaled:
        return None
    whole = Image.new("RGB", (sum(one.width + _GAP for one in scaled) - _GAP, _HEIGHT))
    left = 0
    for one in scaled:
        whole.paste(one, (left, 0))
        left += one.width + _GAP
    return whole


def _is_tty(stream: TextIO | None) -> bool:
    return stream is not None and stream.isatty()


def _has_size(stream: TextIO | None) -> bool:
    """Whether a stream is a terminal that says how large it is; a serial line is one of 0 by 0."""
    return stream is not None and stream.isatty() and min(os.get_terminal_size(stream.fileno())) > 0
