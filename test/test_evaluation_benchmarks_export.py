"""Benchmarks as recordings with timed questions."""

from __future__ import annotations

from pathlib import Path

import benchmark_data
import numpy as np
import pytest
from benchmark_files import SAMPLES
from recordings import write_video

from fvs_ros import cli
from fvs_ros.evaluation.benchmarks import BENCHMARKS, export
from fvs_ros.evaluation.benchmarks.navqa import Poses
from fvs_ros.evaluation.questions import read_questions
from fvs_ros.sources.bags import Bag
from fvs_ros.sources.frame import Frame
from fvs_ros.sources.recordings import open_source
from fvs_ros.sources.sampling import RatePolicy
from fvs_ros.sources.videos import VideoSource

SECOND_NS = 10**9


def test_questions_of_a_video_in_the_order_of_their_times() -> None:
    questions = BENCHMARKS["ovo-bench"].read(SAMPLES / "ovo_bench_new.json")
    replays = {replay.video: replay for replay in export.replays(reversed(questions))}
    clip = [export.timed_question(one, 400 * SECOND_NS) for one in replays["Made_Up/clips/x.mp4"].questions]
    assert [question.id for question in clip] == ["0", "297"]
    assert [question.time_ns for question in clip] == [215 * SECOND_NS, 300 * SECOND_NS]
    assert clip[0].choices == ("in the sink", "on the table", "on the shelf", "in a box")
    assert (clip[0].question, clip[0].answer, clip[0].family) == ("Where did I leave the cup?", 2, "EPM")
    counted = export.timed_question(replays["Made_Up/4017.mp4"].questions[0], 400 * SECOND_NS)
    assert "Reply with one number" in counted.question
    assert counted.answer == 1


def test_questions_about_whole_clips_are_asked_at_the_end_without_their_list_of_options() -> None:
    question = BENCHMARKS["egoschema"].read(SAMPLES / "egoschema.json")[0]
    timed = export.timed_question(question, 9 * SECOND_NS)
    assert (timed.time_ns, timed.relative) == (9 * SECOND_NS, True)
    assert timed.question.endswith("\nQuestion: What is c doing?")
    assert timed.choices[0] == "C paints a wall."
    mlvu = BENCHMARKS["mlvu"].read(SAMPLES / "mlvu.json")[0]
    assert export.timed_question(mlvu, 0).question == "What colour is the kite?"


def test_questions_behind_the_end_are_asked_at_the_end() -> None:
    question = BENCHMARKS["ovo-bench"].read(SAMPLES / "ovo_bench_new.json")[0]
    assert export.timed_question(question, 100 * SECOND_NS).time_ns == 100 * SECOND_NS


def test_times_of_the_day_stay_stamps() -> None:
    question = export.timed_question(BENCHMARKS["navqa"].read(SAMPLES / "navqa" / "data.csv")[1], 2 * 10**18)
    assert not question.relative
    assert question.time_ns == 1_673_980_300 * SECOND_NS


def test_paths_that_differ_in_unsafe_characters_stay_apart() -> None:
    names = {export.folder_name(video) for video in ("a/b.mp4", "a_b.mp4", "../a/b.mp4")}
    assert len(names) == 3
    assert not any("/" in name for name in names)


def test_questions_that_wait_for_their_moment_are_left_out() -> None:
    questions = BENCHMARKS["streamingbench"].read(SAMPLES / "questions_proactive.json")
    assert export.replays(questions) == []
    with pytest.raises(ValueError, match="waits for its moment"):
        export.timed_question(questions[0], 0)


def test_a_bag_of_a_video(tmp_path: Path) -> None:
    video = write_video(tmp_path / "clip.avi", frames=25, fps=10.0)
    start_ns = 1_700_000_000_000_000_000
    clip = VideoSource(video, start_ns=start_ns)
    assert export.write_bag(clip.frames(), tmp_path / "bag", fps=2.0) == 5
    source = open_source(tmp_path / "bag")
    frames = list(source.frames())
    assert [(frame.stamp_ns - start_ns) // 10**6 for frame in frames] == [0, 500, 1000, 1500, 2000]
    assert [round(float(frame.image().mean()) / 10) for frame in frames] == [0, 5, 10, 15, 20]
    source.close()
    with pytest.raises(FileExistsError):
        export.write_bag(frames, tmp_path / "bag")
    with pytest.raises(ValueError, match="fps is 0"):
        export.write_bag(frames, tmp_path / "other", fps=0)
    with pytest.raises(ValueError, match="no frame"):
        export.write_bag([], tmp_path / "empty")


def test_a_bag_holds_what_the_node_keeps_of_the_stream(tmp_path: Path) -> None:
    # 10 Hz with a gap of 3 s, after which no more than `fps` frames a second are written either.
    stamps_ns = [index * SECOND_NS // 10 for index in range(60) if not 10 < index < 40]
    image = np.zeros((8, 8, 3), np.uint8)
    export.write_bag([Frame(stamp_ns, lambda: image) for stamp_ns in stamps_ns], tmp_path / "bag", fps=2.0)
    rate = RatePolicy(2.0)
    kept = [stamp_ns for stamp_ns in stamps_ns if rate.keep(stamp_ns)]
    source = open_source(tmp_path / "bag")
    assert [frame.stamp_ns for frame in source.frames()] == kept
    source.close()
    assert kept[3:] == [4 * SECOND_NS, 4_500_000_000, 5 * SECOND_NS, 5_500_000_000]


def test_poses_between_the_frames_become_odometry(tmp_path: Path) -> None:
    video = VideoSource(write_video(tmp_path / "clip.avi", frames=20, fps=10.0))
    poses = Poses((0.0, 1.0, 99.0), ((1.0, 2.0, 3.0),) * 3, ((0.0, 0.0, 0.0, 1.0),) * 3)
    export.write_bag(video.frames(), tmp_path / "bag", poses=poses)
    with Bag(tmp_path / "bag") as bag:
        assert (bag.topics["/odom"].type, bag.topics["/odom"].count) == ("nav_msgs/msg/Odometry", 2)


def exported(out: Path) -> dict[str, Path]:
    return {folder.name.rpartition("-")[0]: folder for folder in out.iterdir()}


def test_a_benchmark_is_exported_and_what_is_there_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = benchmark_data.ovo_bench(tmp_path / "data")
    command = ["evaluate", "export", "ovo-bench", "--data", str(data), "--out", str(tmp_path / "out"), "--fps", "2"]
    assert cli.main(command) == 0
    assert "videos with" in capsys.readouterr().out
    folders = exported(tmp_path / "out")
    folder = folders["Made_Up_clips_x.mp4"]

    def times(folder: Path) -> list[int]:
        return [question.time_ns for question in read_questions(folder / "questions.jsonl")]

    assert times(folders["Made_Up_106.mp4"]) == [round(54.2 / 60 * SECOND_NS)]
    assert times(folder) == [3_500_000_000] * 2, "both lie behind the last frame"
    source = open_source(folder / "bag")
    assert source.frame_count == 8
    source.close()
    written = (folder / "bag" / "metadata.yaml").stat().st_mtime_ns
    assert cli.main(command) == 0
    assert (folder / "bag" / "metadata.yaml").stat().st_mtime_ns == written, "a bag that is there is kept"


def test_robots_are_exported_with_their_poses(tmp_path: Path) -> None:
    data = benchmark_data.navqa(tmp_path / "data")
    assert cli.main(["evaluate", "export", "navqa", "--data", str(data), "--out", str(tmp_path / "out")]) == 0
    folder = exported(tmp_path / "out")["3"]
    with Bag(folder / "bag") as bag:
        assert bag.topics["/odom"].count == 4
    assert {question.relative for question in read_questions(folder / "questions.jsonl")} == {False}


def test_proactive_questions_are_told_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = benchmark_data.streaming_bench(tmp_path / "data", "real", "proactive")
    assert cli.main(["evaluate", "export", "streamingbench", "--data", str(data), "--out", str(tmp_path / "out")]) == 0
    assert "1 questions are left out: they wait for a moment" in capsys.readouterr().out


def test_a_video_that_fails_is_named_and_the_others_are_exported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = benchmark_data.long_video(tmp_path / "data", "mlvu")
    (data / "frames" / "4_count" / "made_up_2" / "000001.jpg").write_bytes(b"no image")
    assert cli.main(["evaluate", "export", "mlvu", "--data", str(data), "--out", str(tmp_path / "out")]) == 1
    printed = capsys.readouterr()
    assert "1 of 2 videos" in printed.out
    assert "4_count/made_up_2: " in printed.err
    assert "000001.jpg is no image" in printed.err
    assert not (exported(tmp_path / "out")["4_count_made_up_2"] / "bag").exists()
