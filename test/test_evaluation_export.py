"""Streaming benchmarks as recordings with timed questions."""

from __future__ import annotations

import pytest
from benchmark_files import SAMPLES
from recordings import write_video

from fvs_ros.evaluation import export
from fvs_ros.evaluation.benchmarks import BENCHMARKS
from fvs_ros.evaluation.questions import read_questions
from fvs_ros.stream.sources import open_source


def test_questions_of_a_video_in_the_order_of_their_times(tmp_path):
    questions = BENCHMARKS["ovo-bench"].read(SAMPLES / "ovo_bench_new.json")
    replays = {replay.video: replay for replay in export.replays(reversed(questions))}
    clip = replays["Made_Up/clips/x.mp4"]
    assert [question.id for question in clip.questions] == ["0", "297"]
    assert [question.time_ns for question in clip.questions] == [215 * 10**9, 300 * 10**9]
    assert clip.questions[0].choices == ("in the sink", "on the table", "on the shelf", "in a box")
    assert (clip.questions[0].question, clip.questions[0].answer, clip.questions[0].family) == (
        "Where did I leave the cup?", 2, "EPM",
    )  # fmt: skip
    counted = replays["Made_Up/4017.mp4"].questions[0]
    assert "Reply with one number" in counted.question
    assert counted.answer == 1
    folders = {export.write_replay(replay, tmp_path) for replay in replays.values()}
    assert len(folders) == len(replays)
    folder = export.write_replay(clip, tmp_path)
    assert read_questions(folder / "questions.jsonl") == list(clip.questions)


def test_times_of_the_day_stay_stamps():
    question = export.timed_question(BENCHMARKS["navqa"].read(SAMPLES / "navqa" / "data.csv")[1])
    assert not question.relative
    assert question.time_ns == 1_673_980_300 * 10**9


def test_paths_that_differ_in_unsafe_characters_stay_apart(tmp_path):
    folders = [
        export.write_replay(export.Replay(video, ()), tmp_path) for video in ("a/b.mp4", "a_b.mp4", "../a/b.mp4")
    ]
    assert len(set(folders)) == 3
    assert all(folder.parent == tmp_path for folder in folders)


@pytest.mark.parametrize(("name", "file"), [("mlvu", "mlvu.json"), ("streamingbench", "questions_proactive.json")])
def test_questions_without_a_moment_are_refused(name, file):
    with pytest.raises(ValueError, match="not asked at a moment"):
        export.replays(BENCHMARKS[name].read(SAMPLES / file))


def test_a_bag_of_a_video(tmp_path):
    video = write_video(tmp_path / "clip.avi", frames=25, fps=10.0)
    start_ns = 1_700_000_000_000_000_000
    assert export.write_bag(video, tmp_path / "bag", fps=2.0, start_ns=start_ns) == 5
    source = open_source(tmp_path / "bag")
    frames = list(source.frames())
    assert [(frame.stamp_ns - start_ns) // 10**6 for frame in frames] == [0, 500, 1000, 1500, 2000]
    assert [round(float(frame.image().mean()) / 10) for frame in frames] == [0, 5, 10, 15, 20]
    source.close()
    with pytest.raises(FileExistsError):
        export.write_bag(video, tmp_path / "bag")
    with pytest.raises(ValueError, match="fps is 0"):
        export.write_bag(video, tmp_path / "other", fps=0)
