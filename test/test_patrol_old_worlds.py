"""Figures of models refer to worlds, frames and questions as they were made before patrols had clocks: bit for bit."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest

from fvs_ros.patrol import render
from fvs_ros.patrol.config import PatrolConfig
from fvs_ros.patrol.episode import Episode, simulate
from fvs_ros.patrol.questions import ask

CUTS: dict[str, Any] = {"steps": 12, "rooms": 3, "views": 2, "drive": False, "dwell_s": (2, 2), "noise": 0.0}
DIGESTS: list[tuple[int, dict[str, Any], str, str, str]] = [
    (0, {}, "f1bba0a568e69b76", "743470a400069668", "f7502144373d0b66"),
    (870_003, {"steps": 600}, "ad71ed9a30120d19", "fa4531f575e90574", "006eac4c02518564"),
    (900_000, {"steps": 200}, "7adcede2e345b936", "fba23fafe1c3fbe9", "1aafd7b74433ba8e"),
    (
        5,
        {"steps": 40, "rooms": 2, "views": 2, "frame_rate": 2},
        "5111155e4aafc73b",
        "2ddf18c2cad4a1c0",
        "89cd66dee593f1df",
    ),
    (3, CUTS, "416714a323f9c0af", "35ede3782ddda775", "a96c1f639d4d97c6"),
]


def digest(*parts: object) -> str:
    found = hashlib.sha256()
    for part in parts:
        found.update(part.tobytes() if isinstance(part, np.ndarray) else repr(part).encode())
    return found.hexdigest()[:16]


def truth(episode: Episode) -> str:
    # To a micrometre: the last bits of a sine are the machine's.
    poses, gain = (np.round(array, 6) + 0.0 for array in (episode.poses, episode.gain))
    visits = [(one.room, one.views, one.dwell_s, dict(one.placements)) for one in episode.world.visits]
    counted = (episode.stamps_ns, episode.rooms, episode.views, episode.visits, episode.pixels)
    return digest(poses, gain, *counted, episode.objects, visits)


def frames(episode: Episode) -> str:
    """What the renderer is told to draw, and what the sensor makes of a grey picture: all but the OpenGL library's."""
    grey = np.full((16, 16, 3), 128, np.uint8)
    found: list[object] = []
    for index in range(0, len(episode), max(1, len(episode) // 12)):
        for body in render.bodies(episode, index):
            found += [np.round(body.position, 6) + 0.0, np.round(body.rotation, 6) + 0.0, body.pattern, body.label]
        found.append(render._expose(grey, episode, index))
    return digest(*found)


def questions(episode: Episode) -> str:
    return digest([(one.to_json(), one.template) for one in ask(episode, 150)])


@pytest.mark.parametrize(("seed", "settings", "world", "drawn", "asked"), DIGESTS)
def test_the_settings_of_old_give_what_they_gave(
    seed: int, settings: dict[str, Any], world: str, drawn: str, asked: str
) -> None:
    episode = simulate(seed, PatrolConfig(**settings))
    assert (truth(episode), frames(episode), questions(episode)) == (world, drawn, asked)
