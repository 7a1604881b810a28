"""Files that somebody else wrote, read whole up to a bound."""

from __future__ import annotations

import os
from pathlib import Path

_PIECE_BYTES = 2**20


def read_bounded(path: Path, most_bytes: int) -> bytes:
    """Everything in a file, a pipe or a device, if that is at most `most_bytes`.

    Raises:
        ValueError: it is more; the message names both numbers.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        content = bytearray()
        # A device says that its size is 0.
        while max(size, len(content)) <= most_bytes:
            piece = file.read(_PIECE_BYTES)
            if not piece:
                return bytes(content)
            content += piece
    raise ValueError(f"{max(size, len(content))} bytes or more are there, and at most {most_bytes} are read")
