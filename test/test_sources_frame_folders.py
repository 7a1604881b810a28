"""Frames out of videos: which ones, where they go, and what happens when a run breaks."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from recordings import write_video

from fvs_ros.evaluation.benchmarks.layouts import frame_folder
from fvs_ros.sources.bags import SourceError
from fvs_ros.sources.frame_folders import extract, plan


def grays(folder: Path) -> list[int]:
    """The gray of each frame divided by ten, which is its number in the video that `write_video` makes."""
    images = [cv2.imread(str(path)) for path in sorted(folder.glob("*.jpg"))]
    return [round(float(np.mean(image)) / 10) for image in images if image is not None]


def extract_all(given: Path, out: Path, *rates: float) -> None:
    for video, targets in plan([given], out, rates or (1.0,)).items():
        extract(video, targets)


def test_the_frame_nearest_to_each_time(tmp_path: Path) -> None:
    # 2.4 s: frames 0, 0.1, ... 2.3 s.
    write_video(tmp_path / "clip.avi", frames=24, fps=10.0)
    extract_all(tmp_path / "clip.avi", tmp_path / "out")
    folder = tmp_path / "out" / "clip"
    assert sorted(path.name for path in folder.glob("*.jpg")) == ["000001.jpg", "000002.jpg", "000003.jpg"]
    assert grays(folder) == [0, 10, 20]
    assert frame_folder(folder).times_s == (0.0, 1.0, 2.0)


def test_several_rates_in_one_pass(tmp_path: Path) -> None:
    write_video(tmp_path / "clip.avi", frames=11, fps=10.0)
    extract_all(tmp_path / "clip.avi", tmp_path / "out", 1, 4, 2.5)
    assert grays(tmp_path / "out" / "clip") == [0, 10]
    # 0, 0.25, 0.5, 0.75 and 1 s; of two equally near frames the earlier one.
    assert grays(tmp_path / "out" / "clip_fps4") == [0, 2, 5, 7, 10]
    assert grays(tmp_path / "out" / "clip_fps2.5") == [0, 4, 8]


def test_a_slow_video_repeats_frames(tmp_path: Path) -> None:
    write_video(tmp_path / "clip.avi", frames=3, fps=2.0)
    extract_all(tmp_path / "clip.avi", tmp_path / "out", 8)
    assert grays(tmp_path / "out" / "clip_fps8") == [0, 0, 0, 1, 1, 1, 1, 2, 2]


def test_nested_folders_and_names_with_dots_stay_apart(tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    for name in ("AB_0.0_15.2.avi", "AB_0.0_30.1.avi"):
        (videos / "sta" / "segments").mkdir(parents=True, exist_ok=True)
        write_video(videos / "sta" / "segments" / name, frames=2)
    (videos / "notes.txt").touch()
    extract_all(videos, tmp_path / "out")
    found = sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.jpg"))
    assert found == ["sta/segments/AB_0.0_15.2/000001.jpg", "sta/segments/AB_0.0_30.1/000001.jpg"]


def test_two_videos_for_one_folder_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    write_video(tmp_path / "a" / "clip.avi")
    write_video(tmp_path / "a" / "clip.2.avi")
    (tmp_path / "a" / "clip.mp4").write_bytes((tmp_path / "a" / "clip.avi").read_bytes())
    with pytest.raises(SourceError, match="is also the folder of"):
        plan([tmp_path / "a"], tmp_path / "out", [1.0])
    write_video(tmp_path / "clip.avi")
    write_video(tmp_path / "clip_fps4.avi")
    with pytest.raises(SourceError, match="is also the folder of"):
        plan([tmp_path / "clip.avi", tmp_path / "clip_fps4.avi"], tmp_path / "out", [1.0, 4.0])


def test_a_video_given_twice_is_done_once(tmp_path: Path) -> None:
    write_video(tmp_path / "clip.avi")
    (folders,) = plan([tmp_path / "clip.avi", tmp_path], tmp_path / "out", [1.0, 1.0]).values()
    assert len(folders) == 1


def test_a_second_run_does_nothing_and_a_changed_video_is_done_again(tmp_path: Path) -> None:
    video = write_video(tmp_path / "clip.avi", frames=20)
    targets = plan([video], tmp_path / "out", [1.0, 4.0])[video]
    assert extract(video, targets) == 2
    before = [path.stat().st_mtime_ns for path in sorted((tmp_path / "out").rglob("*.jpg"))]
    assert extract(video, targets) == 0
    assert [path.stat().st_mtime_ns for path in sorted((tmp_path / "out").rglob("*.jpg"))] == before
    write_video(video, frames=41)
    assert extract(video, targets) == 2
    assert len(grays(tmp_path / "out" / "clip")) == 3


def test_a_folder_that_lost_a_frame_is_done_again(tmp_path: Path) -> None:
    video = write_video(tmp_path / "clip.avi", frames=41)
    targets = plan([video], tmp_path / "out", [1.0])[video]
    extract(video, targets)
    (tmp_path / "out" / "clip" / "000002.jpg").unlink()
    assert extract(video, targets) == 1
    assert len(grays(tmp_path / "out" / "clip")) == 3


def test_an_interrupted_run_leaves_no_folder_and_goes_on(tmp_path: Path) -> None:
    video = write_video(tmp_path / "clip.avi", frames=41)
    targets = plan([video], tmp_path / "out", [1.0])[video]

    def interrupt(done: int, total: int) -> None:
        assert total == 41
        if done == 30:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract(video, targets, interrupt)
    assert not (tmp_path / "out" / "clip").exists()
    assert extract(video, targets) == 1
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["clip"]
    assert len(grays(tmp_path / "out" / "clip")) == 3


def test_frames_are_decoded_one_after_the_other(tmp_path: Path) -> None:
    """The first frames are on disk while later ones are still to be read."""
    video = write_video(tmp_path / "clip.avi", frames=60)
    targets = plan([video], tmp_path / "out", [1.0])[video]
    written: list[int] = []
    extract(video, targets, lambda done, _: written.append(len(list((tmp_path / "out").rglob("*.jpg")))))
    assert written[0] == 1
    assert written == sorted(written)
    assert len(set(written)) == 3
