"""What is printed into terminals."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import replace

import pytest
from rich.console import Console
from rich.text import Text

from fvs_ros.sources.frame import SECOND_NS, Pose
from fvs_ros.stream.types import Moment, Picture
from fvs_ros.terminal import AnswerPrinter, moments_table, printable


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


def test_moments_come_as_they_are_ranked_with_their_age_in_words() -> None:
    half = SECOND_NS // 2
    stamps = [second * SECOND_NS for second in (17, 7, 9, 11, 13)]
    moments = [Moment(stamp, stamp - half, stamp + half, weight=2.0, relevance=0.4) for stamp in stamps]
    output = io.StringIO()
    Console(file=output, width=80).print(moments_table(moments, 7 * SECOND_NS, 17 * SECOND_NS))
    lines = output.getvalue().splitlines()
    assert lines[1].split() == ["40%", "now", "10.00", "s", "9.50", "to", "10.50", "s", "2"]
    assert [line.split()[1] for line in lines[2:]] == ["10", "8", "6"]


def test_moments_with_poses_come_with_their_distance_in_words() -> None:
    upright = (0.0, 0.0, 0.0, 1.0)
    here = Pose("map", (0.0, 0.0, 0.0), upright)
    moments = [
        Moment(stamp * SECOND_NS, stamp * SECOND_NS, stamp * SECOND_NS, 1.0, "camera", pose, 0.5)
        for stamp, pose in (
            (20, Pose("map", (0.0, 2.1, 0.0), upright)),
            (200, None),
            (199, Pose("odom", (0.0, 2.1, 0.0), upright)),
        )
    ]
    output = io.StringIO()
    Console(file=output, width=80).print(moments_table(moments, 0, 200 * SECOND_NS, here))
    seen = output.getvalue().splitlines()
    assert re.search(r"^ +50% +3 min ago, 2\.1 m from here +20\.00 to 20\.00 s +1 *$", seen[1])
    assert " now  " in seen[2]
    assert " from here" not in seen[3]
    assert "keyframe at" not in seen[0]


def test_moments_bring_their_pictures_where_they_can_be_drawn() -> None:
    drawn: list[list[bytes]] = []

    def draw(jpegs: Sequence[bytes]) -> Text:
        drawn.append(list(jpegs))
        return Text(f"<{len(jpegs)} pictures>")

    first, second, third = (
        Moment(second * SECOND_NS, second * SECOND_NS, second * SECOND_NS, 1.0) for second in (1, 2, 3)
    )
    pictured = [replace(first, picture=Picture(0, b"one")), second, replace(third, picture=Picture(0, b"three"))]
    output = io.StringIO()
    console = Console(file=output, width=80)
    AnswerPrinter(console, draw).moments(pictured, 0, 3 * SECOND_NS)
    assert drawn == [[b"one", b"three"]]
    assert output.getvalue().splitlines()[-1] == f"{'':<10}<2 pictures>"
    AnswerPrinter(console, draw).moments([second], 0, 3 * SECOND_NS)
    AnswerPrinter(console).moments(pictured, 0, 3 * SECOND_NS)
    AnswerPrinter(console, lambda _: None).moments(pictured, 0, 3 * SECOND_NS)
    assert len(drawn) == 1
    assert output.getvalue().count("pictures>") == 1
