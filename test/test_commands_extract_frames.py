"""`fvs extract-frames`: what it makes, and what it says of inputs that cannot be used."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from recordings import write_video

from fvs_ros import cli


def run(*arguments: str | Path) -> int:
    return cli.main(["extract-frames", *map(str, arguments)])


def test_each_rate_gets_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_video(tmp_path / "clip.avi", frames=24, fps=10.0)
    assert run(tmp_path / "clip.avi", "--out", tmp_path / "out", "--fps", "1", "--fps", "2.5") == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["clip", "clip_fps2.5"]
    assert f"1 videos in {tmp_path / 'out'}" in capsys.readouterr().out


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
    # What could be read of the third stays, but not under the name of a whole video.
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [".c.partial", "a", "d"]
    assert len(list((tmp_path / "out" / ".c.partial").glob("*.jpg"))) == 3
    error = capsys.readouterr().err
    assert "2 failed:" in error
    assert str(videos / "b.mp4") in error
    assert f"{videos / 'c.avi'} ends at " in error
    assert f"the frames that could be read are in {tmp_path / 'out' / '.c.partial'} (3)" in error


def test_a_colon_in_a_relative_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "12:30").mkdir()
    # FFmpeg alone takes a protocol, and OpenCV reads Motion JPEG without it.
    writer = cv2.VideoWriter(str(tmp_path / "made.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 10.0, (64, 48))
    for _ in range(11):
        writer.write(np.zeros((48, 64, 3), np.uint8))
    writer.release()
    (tmp_path / "made.mp4").rename(tmp_path / "12:30" / "robot:1.mp4")
    monkeypatch.chdir(tmp_path)
    assert run("12:30", "--out", "out:1") == 0
    assert len(list((tmp_path / "out:1" / "robot:1").glob("*.jpg"))) == 2


def test_inputs_without_a_video(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path / "absent", "--out", tmp_path / "out") == 1
    assert "absent: does not exist" in capsys.readouterr().err
    assert run(tmp_path, "--out", tmp_path / "out") == 1
    assert "holds no video" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        run(tmp_path, "--out", tmp_path / "out", "--fps", "0")
    assert "0 is not a number above 0" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        run(tmp_path, "--out", tmp_path / "out", "--fps", "1001")
    assert "1001 frames per second are more than 1000" in capsys.readouterr().err
