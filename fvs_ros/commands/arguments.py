"""Types of arguments: each turns a word into a value, or says what is wrong with it before anything heavy loads.

And the exit status of a command that answered from a part of its recording.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from fvs_ros.sources import HIGHEST_RATE, LOWEST_RATE

INCOMPLETE = 3
"""Exit status: everything was answered, but frames of the recording were left out, as the notes say."""


def existing_file(text: str) -> Path:
    """The path of a file that exists.

    Raises:
        argparse.ArgumentTypeError: it does not, or is a folder.
    """
    path = Path(text)
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"{text} is a folder, a file is needed")
    if not path.exists():
        raise argparse.ArgumentTypeError(f"{text} does not exist")
    return path


def positive(text: str) -> float:
    """A number from `LOWEST_RATE` to `HIGHEST_RATE`, with which no time, and no number of frames, becomes infinite.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not a number above 0")
    if not LOWEST_RATE <= value <= HIGHEST_RATE:
        raise argparse.ArgumentTypeError(f"{text} is not a number from {LOWEST_RATE:g} to {HIGHEST_RATE:g}")
    return value
