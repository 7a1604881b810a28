"""Frames out of videos: which ones, where they go, and what happens when a video or a run breaks."""

from __future__ import annotations

from pathlib import Path

import cv2
import pytest
from recordings import write_video

from fvs_ros import cli
from fvs_ros.commands.extract_frames import extract, plan
from fvs_ros.evaluation.benchmarks.layouts import frame_folder
from fvs_ros.evaluation.errors import DataError


def grays(folder):
    """The gray of each frame divided by ten, which is its number in the video that `write_video` makes."""
    return [round(float(cv2.imread(str(path)).mean()) / 10) for path in sorted(folder.glob("*.jpg"))]


def run(*arguments):
    return cli.main(["extract-frames", *map(str, arguments)])


def test_the_frame_nearest_to_each_time(tmp_path: Path) -> None:
    # 2.4 s: frames 0, 0.1, ... 2.3 s.
    write_video(tmp_path / "clip.avi", frames=24, fps=10.0)
    assert run(tmp_path / "clip.avi", "--out", tmp_path / "out") == 0
    folder = tmp_path / "out" / "clip"
    assert sorted(path.name for path in folder.glob("*.jpg")) == ["000001.jpg", "000002.jpg", "000003.jpg"]
    assert grays(folder) == [0, 10, 20]
    assert frame_folder(folder).times_s == (0.0, 1.0, 2.0)


def test_several_rates_in_one_pass(tmp_path: Path) -> None:
    write_video(tmp_path / "clip.avi", frames=11, fps=10.0)
    assert run(tmp_path / "clip.avi", "--out", tmp_path / "out", "--fps", "1", "--fps", "4", "--fps", "2.5") == 0
    assert grays(tmp_path / "out" / "clip") == [0, 10]
    # 0, 0.25, 0.5, 0.75 and 1 s; of two equally near frames the earlier one.
    assert grays(tmp_path / "out" / "clip_fps4") == [0, 2, 5, 7, 10]
    assert grays(tmp_path / "out" / "clip_fps2.5") == [0, 4, 8]


def test_a_slow_video_repeats_frames(tmp_path: Path) -> None:
    write_video(tmp_path / "clip.avi", frames=3, fps=2.0)
    assert run(tmp_path / "clip.avi", "--out", tmp_path / "out", "--fps", "8") == 0
    assert grays(tmp_path / "out" / "clip_fps8") == [0, 0, 0, 1, 1, 1, 1, 2, 2]


def test_nested_folders_and_names_with_dots_stay_apart(tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    for name in ("AB_0.0_15.2.avi", "AB_0.0_30.1.avi"):
        (videos / "sta" / "segments").mkdir(parents=True, exist_ok=True)
        write_video(videos / "sta" / "segments" / name, frames=2)
    (videos / "notes.txt").touch()
    assert run(videos, "--out", tmp_path / "out") == 0
    found = sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.jpg"))
    assert found == ["sta/segments/AB_0.0_15.2/000001.jpg", "sta/segments/AB_0.0_30.1/000001.jpg"]


def test_two_videos_for_one_folder_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a").mkdir()
    write_video(tmp_path / "a" / "clip.avi")
    write_video(tmp_path / "a" / "clip.2.avi")
    (tmp_path / "a" / "clip.mp4").write_bytes((tmp_path / "a" / "clip.avi").read_bytes())
    assert run(tmp_path / "a", "--out", tmp_path / "out") == 1
    assert "is also the folder of" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    write_video(tmp_path / "clip.avi")
    write_video(tmp_path / "clip_fps4.avi")
    with pytest.raises(DataError, match="is also the folder of"):
        plan([tmp_path / "clip.avi", tmp_path / "clip_fps4.avi"], tmp_path / "out", [1.0, 4.0])


def test_a_video_given_twice_is_done_once(tmp_path: Path) -> None:
    write_video(tmp_path / "clip.avi")
    assert len(plan([tmp_path / "clip.avi", tmp_path], tmp_path / "out", [1.0, 1.0])) == 1


def test_a_second_run_does_nothing_and_a_changed_video_is_done_again(tmp_path: Path) -> None:
    video = write_video(tmp_path / "clip.avi", frames=20)
    targets = plan([video], tmp_path / "out", [1.0, 4.0])
    assert extract(video, targets) == 2
    before = [path.stat().st_mtime_ns for path in sorted((tmp_path / "out").rglob("*.jpg"))]
    assert extract(video, targets) == 0
    assert [path.stat().st_mtime_ns for path in sorted((tmp_path / "out").rglob("*.jpg"))] == before
    write_video(video, frames=41)
    assert extract(video, targets) == 2
    assert len(grays(tmp_path / "out" / "clip")) == 3


def test_a_folder_that_lost_a_frame_is_done_again(tmp_path: Path) -> None:
    video = write_video(tmp_path / "clip.avi", frames=41)
    targets = plan([video], tmp_path / "out", [1.0])
    extract(video, targets)
    (tmp_path / "out" / "clip" / "000002.jpg").unlink()
    assert extract(video, targets) == 1
    assert len(grays(tmp_path / "out" / "clip")) == 3


def test_an_interrupted_run_leaves_no_folder_and_goes_on(tmp_path: Path) -> None:
    video = write_video(tmp_path / "clip.avi", frames=41)
    targets = plan([video], tmp_path / "out", [1.0])

    def interrupt(done, total) -> None:
        assert total == 41
        if done == 30:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract(video, targets, interrupt)
    assert not (tmp_path / "out" / "clip").exists()
    assert extract(video, targets) == 1
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["clip"]
    assert len(grays(tmp_path / "out" / "clip")) == 3


def test_a_folder_that_is_not_ours_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    video = write_video(tmp_path / "clip.avi")
    (tmp_path / "out" / "clip").mkdir(parents=True)
    (tmp_path / "out" / "clip" / "mine.txt").write_text("keep", encoding="utf-8")
    assert run(video, "--out", tmp_path / "out") == 1
    assert "was not made by this command" in capsys.readouterr().err
    assert (tmp_path / "out" / "clip" / "mine.txt").read_text(encoding="utf-8") == "keep"


def test_a_corrupt_video_is_named_and_the_others_go_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    videos = tmp_path / "videos"
    videos.mkdir()
    write_video(videos / "a.avi")
    (videos / "b.mp4").write_bytes(b"no video" * 100)
    whole = write_video(videos / "c.avi", frames=200).read_bytes()
    (videos / "c.avi").write_bytes(whole[: len(whole) // 3])
    write_video(videos / "d.avi")
    assert run(videos, "--out", tmp_path / "out") == 1
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a", "d"]
    error = capsys.readouterr().err
    assert "2 failed:" in error
    assert f"{videos / 'b.mp4'}: " in error
    assert f"{videos / 'c.avi'}: " in error


def test_inputs_without_a_video(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path / "absent", "--out", tmp_path / "out") == 1
    assert "absent: does not exist" in capsys.readouterr().err
    assert run(tmp_path, "--out", tmp_path / "out") == 1
    assert "holds no video" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        run(tmp_path, "--out", tmp_path / "out", "--fps", "0")
    assert "0 is no rate" in capsys.readouterr().err


def test_frames_are_decoded_one_after_the_other(tmp_path: Path) -> None:
    """The first frames are on disk while later ones are still to be read."""
    video = write_video(tmp_path / "clip.avi", frames=60)
    targets = plan([video], tmp_path / "out", [1.0])
    written = []
    extract(video, targets, lambda done, _: written.append(len(list((tmp_path / "out").rglob("*.jpg")))))
    assert written[0] == 1
    assert written == sorted(written)
    assert len(set(written)) == 3
