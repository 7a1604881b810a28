"""Frames, videos and subtitles on disk."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest
from benchmark_files import SAMPLES
from recordings import write_video

from fvs_ros.evaluation.benchmarks import BENCHMARKS, navqa
from fvs_ros.evaluation.benchmarks.layouts import frame_folder
from fvs_ros.evaluation.benchmarks.subtitles import Subtitle, read_subtitles, subtitled, visible_subtitles
from fvs_ros.evaluation.errors import DataError


def touch(folder: Path, *names: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()


def test_frames_go_by_their_numbers(tmp_path: Path) -> None:
    folder = tmp_path / "frames" / "sta" / "sta_video_segment" / "AB12C_0.0_15.2"
    touch(folder, "000010.jpg", "000002.jpg", "frame_000001.jpg", ".extracted.json")
    question = BENCHMARKS["mvbench"].read(SAMPLES / "mvbench.json")[0]
    media = BENCHMARKS["mvbench"].media(tmp_path, question)
    assert [path.name for path in media.frames] == ["frame_000001.jpg", "000002.jpg", "000010.jpg"]
    assert media.times_s == (0.0, 1.0, 2.0)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ((), "holds no frames"),
        (("000001.jpg", "notes.txt"), "notes.txt: a numbered image expected"),
        (("first.jpg",), "first.jpg: a numbered image expected"),
        (("000001.jpg", "000001.png"), "000001.png: has the number of 000001.jpg"),
    ],
)
def test_a_wrong_folder_is_named(tmp_path: Path, names: list[str], message: str) -> None:
    touch(tmp_path / "video", *names)
    with pytest.raises(DataError, match=message):
        frame_folder(tmp_path / "video")


def test_missing_media_are_named(tmp_path: Path) -> None:
    for name, file in (
        ("mlvu", "mlvu.json"),
        ("ovo-bench", "ovo_bench_new.json"),
        ("streamingbench", "questions_real.json"),
    ):
        question = BENCHMARKS[name].read(SAMPLES / file)[0]
        with pytest.raises(DataError, match="does not exist") as error:
            BENCHMARKS[name].media(tmp_path, question)
        assert str(tmp_path) in str(error.value)


def test_videos_of_the_streaming_benchmarks(tmp_path: Path) -> None:
    question = BENCHMARKS["ovo-bench"].read(SAMPLES / "ovo_bench_new.json")[0]
    touch(tmp_path / "chunked_videos", "0.mp4")
    assert BENCHMARKS["ovo-bench"].media(tmp_path, question).video == tmp_path / "chunked_videos" / "0.mp4"
    touch(tmp_path / "src_videos" / "Made_Up" / "clips", "x.mp4")
    assert BENCHMARKS["ovo-bench"].media(tmp_path, question).video == tmp_path / "src_videos" / question.video
    question = BENCHMARKS["streamingbench"].read(SAMPLES / "questions_real.json")[0]
    touch(tmp_path / "videos", "sample_1_real.mp4")
    assert BENCHMARKS["streamingbench"].media(tmp_path, question).video == tmp_path / "videos" / "sample_1_real.mp4"


def test_coda_images_in_the_window_of_a_question(tmp_path: Path) -> None:
    question = dataclasses.replace(navqa.read(SAMPLES / "navqa" / "data.csv")[0], start_time_s=10.0, ask_time_s=20.0)
    media = BENCHMARKS["navqa"].media
    touch(tmp_path / "2d_rect" / "cam0" / "3", *(f"2d_rect_cam0_3_{frame}.jpg" for frame in (0, 1, 2, 10)))
    times = tmp_path / "timestamps" / "3.txt"
    times.parent.mkdir()
    times.write_text("\n".join(str(5.0 + frame) for frame in range(11)), encoding="utf-8")
    with pytest.raises(DataError, match="id 3_LONG_p: no image between"):
        media(tmp_path, dataclasses.replace(question, start_time_s=50.0, ask_time_s=60.0))
    found = media(tmp_path, dataclasses.replace(question, start_time_s=6.0))
    assert [path.name for path in found.frames] == [f"2d_rect_cam0_3_{frame}.jpg" for frame in (1, 2, 10)]
    assert found.times_s == (6.0, 7.0, 15.0)
    touch(tmp_path / "2d_rect" / "cam0" / "3", "2d_rect_cam0_3_11.jpg")
    with pytest.raises(DataError, match=r"2d_rect_cam0_3_11.jpg: has no line in .*3\.txt, which holds 11"):
        media(tmp_path, question)


SRT = """1
00:00:00,000 --> 00:00:01,000
<font color="white" size=".72c">first</font>

2
00:00:01,500 --> 00:00:02,000
<font color="white" size=".72c">between the samples</font>

3
00:00:03,000 --> 00:00:05,000
without a tag
on two lines

4
00:00:04,000 --> 00:00:05,000
"""


def test_subtitles(tmp_path: Path) -> None:
    path = tmp_path / "a.srt"
    path.write_text("\ufeff" + SRT.replace("\n", "\r\n"), encoding="utf-8")
    subtitles = read_subtitles(path)
    assert subtitles == [
        Subtitle(0.0, 1.0, "first"),
        Subtitle(1.5, 2.0, "between the samples"),
        Subtitle(3.0, 5.0, "without a tag on two lines"),
    ]
    # Samples at frames 0, 14 and 29.
    assert visible_subtitles(subtitles, fps=10, frame_count=30, samples=3) == "first"
    # Frame 20 is the end of the second entry, when it is gone.
    assert visible_subtitles(subtitles, fps=10, frame_count=41, samples=3) == "first\nwithout a tag on two lines"
    assert visible_subtitles(subtitles, fps=10, frame_count=51, samples=51).splitlines() == [
        "first", "between the samples", "without a tag on two lines",
    ]  # fmt: skip
    with pytest.raises(ValueError, match="0 frames"):
        visible_subtitles(subtitles, fps=10, frame_count=0)
    path.write_text("1\nfirst\n", encoding="utf-8")
    with pytest.raises(DataError, match="entry 1: '1' found, times like"):
        read_subtitles(path)


def test_the_prompt_with_subtitles(tmp_path: Path) -> None:
    question = BENCHMARKS["videomme-subtitles"].read(SAMPLES / "videomme.json")[0]
    assert BENCHMARKS["videomme-subtitles"].subtitled
    assert not BENCHMARKS["videomme"].subtitled
    with pytest.raises(DataError, match="subtitle: does not exist"):
        subtitled(question, tmp_path)
    (tmp_path / "subtitle").mkdir()
    head, tail = "This video's subtitles are listed below: \n", "\nSelect the best answer to the following multiple-choice question based on the video and the subtitles. Respond with only the letter (A, B, C, or D) of the correct option."  # fmt: skip # noqa: E501
    assert subtitled(question, tmp_path).prompt == f"{head}No subtitles available{tail}{question.question}"
    (tmp_path / "subtitle" / "madeupBBBB1.srt").write_text(SRT, encoding="utf-8")
    with pytest.raises(DataError, match=r"madeupBBBB1\.mp4: does not exist, the original video"):
        subtitled(question, tmp_path)
    (tmp_path / "data").mkdir()
    shutil.move(write_video(tmp_path / "v.avi", frames=20, fps=10.0), tmp_path / "data" / "madeupBBBB1.mp4")
    assert subtitled(question, tmp_path).prompt == f"{head}first\nbetween the samples{tail}{question.question}"
