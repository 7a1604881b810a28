from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from needs import needed
from patrol_drawing import drawing

from fvs_ros.patrol import mujoco_backend
from fvs_ros.patrol.config import PatrolConfig, day_config
from fvs_ros.patrol.episode import Episode, simulate
from fvs_ros.patrol.errors import PatrolError, RenderError
from fvs_ros.patrol.motion import NOWHERE
from fvs_ros.patrol.render import PatrolRenderer
from fvs_ros.patrol.vocabulary import COLOURS

CONFIG = PatrolConfig(steps=40, rooms=4, views=3, dwell_s=(2, 3), empty=0.0)


@pytest.fixture(scope="module")
def renderer() -> Iterator[PatrolRenderer]:
    with drawing(), PatrolRenderer(112) as made:
        yield made


@pytest.fixture(scope="module")
def episode() -> Episode:
    return simulate(21, CONFIG)


def at_views(episode: Episode) -> list[int]:
    return np.flatnonzero(episode.views != NOWHERE).tolist()


def test_a_frame_is_the_same_bytes_each_time_in_any_order(renderer: PatrolRenderer, episode: Episode) -> None:
    frames = list(renderer.frames(episode, [3, 9]))
    again = renderer.frame(simulate(21, CONFIG), 9)
    assert frames[0].shape == (112, 112, 3)
    assert frames[0].dtype == np.uint8
    assert again.tobytes() == frames[1].tobytes()
    assert again.tobytes() != frames[0].tobytes()
    with PatrolRenderer(112) as other:
        assert other.frame(episode, 9).tobytes() == again.tobytes()


def test_frames_are_drawn_only_when_asked_for(
    renderer: PatrolRenderer, episode: Episode, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = []
    monkeypatch.setattr(renderer, "frame", lambda episode, index: drawn.append(index))
    frames = renderer.frames(episode, [5, 2, 8])
    assert drawn == []
    next(frames)
    next(frames)
    assert drawn == [5, 2]
    assert len(list(renderer.frames(episode))) == len(episode)


def test_pixel_counts_agree_with_the_renderers_own_segmentation(episode: Episode) -> None:
    size = 112
    with PatrolRenderer(size) as renderer:
        compared = 0
        for frame in range(0, len(episode), 3):
            labels = renderer.segmentation(episode, frame)
            # Drawn with four times as many pixels a side as the truth counts in.
            scale = (labels.shape[0] / 56) ** 2
            for object_id in range(len(episode.objects)):
                drawn, counted = (labels == object_id).sum() / scale, episode.pixels[frame, object_id]
                assert abs(drawn - counted) <= 4 + 0.05 * counted, (
                    frame,
                    episode.objects[object_id].name,
                    drawn,
                    counted,
                )
                compared += counted > 0
    assert compared > 15


def test_objects_have_the_colour_of_their_name(renderer: PatrolRenderer, episode: Episode) -> None:
    checked = 0
    for frame in at_views(episode)[::4]:
        image = cv2.resize(renderer.frame(episode, frame), (224, 224), interpolation=cv2.INTER_NEAREST) / 255.0
        labels = renderer.segmentation(episode, frame)
        for index, scene_object in enumerate(episode.objects):
            area = labels == index
            # Bands and pots have colours of their own, black and white no hue.
            if (
                area.sum() < 1500
                or scene_object.kind in ("barrel", "plant", "lamp")
                or scene_object.colour in ("black", "white")
            ):
                continue
            seen = np.median(image[area], axis=0)
            hues = {
                name: np.dot(seen / np.linalg.norm(seen), np.array(rgb) / np.linalg.norm(rgb))
                for name, rgb in COLOURS.items()
                if name not in ("black", "white")
            }
            assert max(hues, key=lambda name: hues[name]) == scene_object.colour, (frame, scene_object, seen)
            checked += 1
    assert checked >= 3


def test_rooms_look_different(renderer: PatrolRenderer) -> None:
    # Views of every room, without objects: the mean colour of the wall and of the floor tells them apart.
    config = PatrolConfig(steps=60, rooms=8, views=1, empty=1.0, pairs=0.0, drive=False, dwell_s=(2, 2), noise=0.0)
    episode = simulate(2, config)
    looks = {}
    for frame in range(0, 16, 2):
        image = renderer.frame(episode, frame).astype(float)
        looks[episode.room_name(frame)] = np.r_[image[30:50].mean((0, 1)), image[90:].mean((0, 1))]
    assert len(looks) == 8
    for name, look in looks.items():
        assert min(np.linalg.norm(look - other) for room, other in looks.items() if room != name) > 20, name


def test_noise_and_light_are_only_there_when_asked_for(renderer: PatrolRenderer) -> None:
    still = simulate(21, dataclasses.replace(CONFIG, noise=0.0))
    first, second = renderer.frame(still, 0), renderer.frame(still, 1)
    assert still.views[0] == still.views[1]
    assert first.tobytes() == second.tobytes()
    noisy = simulate(21, CONFIG)
    difference = renderer.frame(noisy, 0).astype(int) - renderer.frame(noisy, 1)
    assert 1.0 < difference.std() < 60.0


@pytest.mark.parametrize("size", [8, 4096])
def test_sizes_out_of_range_are_refused(size: int) -> None:
    with pytest.raises(PatrolError, match=f"size is {size} pixels; it must be from 16 to 512"):
        PatrolRenderer(size)


@pytest.mark.parametrize("index", [-1, 80])
def test_frames_that_do_not_exist_are_refused(renderer: PatrolRenderer, episode: Episode, index: int) -> None:
    with pytest.raises(IndexError, match=f"frame {index} asked for; the episode has frames 0 to 79"):
        renderer.frame(episode, index)


def test_without_mujoco_the_message_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mujoco", None)
    with pytest.raises(RenderError, match=r"pip install 'fvs_ros\[train\]'"):
        mujoco_backend.load_mujoco()


def test_without_its_opengl_library_the_message_names_the_system_package(tmp_path: Path) -> None:
    needed("mujoco", "needs MuJoCo: pip install 'fvs_ros[train]'")
    code = (
        "import ctypes.util\n"
        "find = ctypes.util.find_library\n"
        "ctypes.util.find_library = lambda name: None if 'OSMesa' in name else find(name)\n"
        "load = ctypes.CDLL.__init__\n"
        "def refuse(self, name, *arguments, **keywords):\n"
        "    if 'OSMesa' in str(name):\n"
        "        raise OSError('no such library')\n"
        "    load(self, name, *arguments, **keywords)\n"
        "ctypes.CDLL.__init__ = refuse\n"
        "from fvs_ros.patrol.render import PatrolRenderer\n"
        "from fvs_ros.patrol.errors import RenderError\n"
        "try:\n"
        "    PatrolRenderer()\n"
        "except RenderError as error:\n"
        "    print(error)\n"
    )
    environment = {**os.environ, "MUJOCO_GL": "osmesa", "PYOPENGL_PLATFORM": "osmesa"}
    result = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert "apt-get install libosmesa6" in result.stdout, result.stderr


def test_worlds_and_questions_need_no_mujoco() -> None:
    code = (
        "import sys\n"
        "sys.modules['mujoco'] = None\n"
        "from fvs_ros.patrol.config import PatrolConfig\n"
        "from fvs_ros.patrol.episode import simulate\n"
        "from fvs_ros.patrol.questions import ask\n"
        "print(len(ask(simulate(0, PatrolConfig(steps=10)), 5)))\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert result.stdout == "5\n", result.stderr


def test_a_day_is_drawn_frame_by_frame_as_each_frame_is_alone(renderer: PatrolRenderer) -> None:
    """Streamed, pictures that stay are drawn once; the bytes are those of a frame that is drawn by itself."""
    hours = simulate(870_001, day_config(400))
    resting = int(np.flatnonzero(hours.pictures != np.arange(len(hours)))[0])
    streamed = dict(
        zip(range(resting - 3, resting + 70), renderer.frames(hours, range(resting - 3, resting + 70)), strict=True)
    )
    for index, frame in streamed.items():
        assert frame.tobytes() == renderer.frame(hours, index).tobytes(), index
    assert streamed[resting] is streamed[resting + 1]
    assert len({id(frame) for frame in streamed.values()}) < 20


def test_pictures_that_stay_are_drawn_once(renderer: PatrolRenderer, monkeypatch: pytest.MonkeyPatch) -> None:
    hours = simulate(870_001, day_config(400))
    drawn: list[int] = []
    monkeypatch.setattr(renderer, "frame", lambda episode, index: drawn.append(index))
    assert len(list(renderer.frames(hours))) == 800
    assert len(drawn) == len(np.unique(hours.pictures))
