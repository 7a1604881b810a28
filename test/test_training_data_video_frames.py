from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest

from fvs_ros.training.data.video_frames import find_video, read_frames
from fvs_ros.training.errors import TrainingError


def write_video(path: Path, seconds: int, fps: int) -> Path:
    """A video whose brightness grows by 8 a second, in steps."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), fps, (64, 64))
    for index in range(round(seconds * fps)):
        writer.write(np.full((64, 64, 3), 20 + 8 * (index // fps), np.uint8))
    writer.release()
    return path


def brightness(frames: Sequence[np.ndarray]) -> list[int]:
    return [round((float(frame.mean()) - 20) / 8) for frame in frames]


def write_folder(path: Path, count: int) -> Path:
    path.mkdir()
    for index in range(count):
        cv2.imwrite(str(path / f"{index}.png"), np.full((56, 56, 3), 20 + 8 * index, np.uint8))
    return path


def test_a_video_gives_a_frame_a_second(tmp_path: Path) -> None:
    frames = read_frames(write_video(tmp_path / "a.avi", 6, 10), 1.0, 240, "here")
    assert brightness(frames) == [0, 1, 2, 3, 4, 5]
    assert frames[0].shape == (64, 64, 3)
    assert frames[0].dtype == np.uint8


def test_a_folder_gives_each_frame_in_the_order_of_numbers_and_an_odd_one_twice(tmp_path: Path) -> None:
    assert brightness(read_frames(write_folder(tmp_path / "a", 11), 1.0, 240, "here")) == [*range(11), 10]


def test_a_long_one_is_sampled_uniformly(tmp_path: Path) -> None:
    assert brightness(read_frames(write_folder(tmp_path / "a", 21), 1.0, 6, "here")) == [0, 4, 8, 12, 16, 20]


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_frames_are_refused(tmp_path: Path, count: int) -> None:
    with pytest.raises(TrainingError, match="here"):
        read_frames(write_folder(tmp_path / "a", count), 1.0, 240, "here")


def test_what_cannot_be_decoded_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"nothing")
    with pytest.raises(TrainingError, match=r"here: .*a\.mp4"):
        read_frames(tmp_path / "a.mp4", 1.0, 240, "here")


def test_a_video_is_found_without_its_suffix(tmp_path: Path) -> None:
    (tmp_path / "v.1.mkv").touch()
    assert find_video(tmp_path / "v.1", "here") == tmp_path / "v.1.mkv"
    with pytest.raises(TrainingError, match=r"here: the video .* does not exist"):
        find_video(tmp_path / "w", "here")
