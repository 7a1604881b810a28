"""What is printed into terminals."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from fvs_ros.sources.frame import SECOND_NS
from fvs_ros.stream.types import Moment
from fvs_ros.terminal import moments_table, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a cat", "a cat"),
        ("\x1b[31mred\x07", "·[31mred·"),
        ("two\nlines\ttab", "two·lines·tab"),
        ("\u202eevil", "·evil"),
        ("e\u0301", "e·"),
        ("broken \ufffd", "broken ·"),
        ("Straße 漢字", "Straße 漢字"),
    ],
)
def test_printable(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_moments_are_spread_over_all_of_them() -> None:
    half = SECOND_NS // 2
    stamps = range(7 * SECOND_NS, 17 * SECOND_NS, SECOND_NS)
    moments = [Moment(stamp, stamp - half, stamp + half, weight=2.0) for stamp in stamps]
    output = io.StringIO()
    Console(file=output, width=80).print(moments_table(moments, 7 * SECOND_NS))
    lines = output.getvalue().splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["0.00", "3.00", "6.00", "9.00"]
    assert lines[1].split() == ["0.00", "s", "-0.50", "to", "0.50", "s", "2"]
