"""Ages and distances in words."""

from __future__ import annotations

import pytest

from fvs_ros.sources.frame import Pose
from fvs_ros.stream.words import age_text, distance_text

UPRIGHT = (0.0, 0.0, 0.0, 1.0)
HERE = Pose("map", (1.0, 2.0, 0.0), UPRIGHT)


@pytest.mark.parametrize(
    ("seconds", "text"), [(-1, "now"), (1.9, "now"), (59, "59 s ago"), (200, "3 min ago"), (7200, "2 h ago")]
)
def test_ages_in_words(seconds: float, text: str) -> None:
    assert age_text(seconds) == text


@pytest.mark.parametrize(
    ("pose", "text"),
    [
        (Pose("map", (1.0, 4.1, 0.0), UPRIGHT), "2.1 m from here"),
        (Pose("map", (1.0, 2.02, 0.0), UPRIGHT), "from here"),
        (Pose("map", (1001.0, 2.0, 0.0), UPRIGHT), "1000 m from here"),
        (Pose("odom", (1.0, 4.1, 0.0), UPRIGHT), ""),
        (None, ""),
    ],
)
def test_distances_in_words(pose: Pose | None, text: str) -> None:
    assert distance_text(pose, HERE) == text
    assert distance_text(pose, None) == ""
