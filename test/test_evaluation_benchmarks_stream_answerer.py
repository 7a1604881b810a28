"""Questions at their seconds: what a window holds, and how a proactive question is put."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import benchmark_data
import pytest
from fakes import FakeModel

from fvs_ros.evaluation.answers import AnswerRow
from fvs_ros.evaluation.benchmarks import BenchmarkQuestion, Media
from fvs_ros.evaluation.benchmarks.stream_answerer import StreamAnswerer, media_frames
from fvs_ros.evaluation.benchmarks.windows import context_of, windows
from fvs_ros.evaluation.grading import AnswerKind
from fvs_ros.stream.config import StreamConfig


class Told(FakeModel):
    """Answers by rule."""

    def __init__(self, say: Callable[[str, int], str] = lambda question, steps: "A") -> None:
        super().__init__()
        self.say = say

    @property
    def told(self) -> Any:
        """Each question with the grid steps in memory and the second of the newest frame."""
        return [(text, memory.steps, int(memory.csm_end_ns.max()) / 1e9) for memory, text, _ in self.asked]


def choice(identity: str, ask_time_s: float, **fields: Any) -> BenchmarkQuestion:
    return BenchmarkQuestion(
        id=identity, video="v.mp4", question=f"Q{identity}?", prompt=f"Q{identity}?", kind=AnswerKind.CHOICE,
        answer=0, options=("one", "two"), ask_time_s=ask_time_s, **fields,
    )  # fmt: skip


def proactive(ask_time_s: float, answer_time_s: float) -> BenchmarkQuestion:
    return BenchmarkQuestion(
        id="p", video="v.mp4", question="When it is 3, output three.", prompt="The prompt.", kind=AnswerKind.PROACTIVE,
        answer="three", ask_time_s=ask_time_s, answer_time_s=answer_time_s,
    )  # fmt: skip


def ready_at(model: FakeModel, look: int) -> list[str]:
    """Has a model say at that look that it is time; returns what it is asked at each."""
    polls: list[str] = []

    def likelihood(question: str, text: str) -> float:
        if text == "yes":
            polls.append(question)
        return 0.0 if text == ("yes" if len(polls) >= look else "no") else -10.0

    model.likelihood = likelihood
    return polls


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Media:
    return Media(video=benchmark_data.mp4(tmp_path_factory.mktemp("video") / "v.mp4", frames=40))


def ask(model: FakeModel, media: Media, questions: list[BenchmarkQuestion], context_s: float = 0.0) -> list[AnswerRow]:
    answerer = StreamAnswerer(model, StreamConfig())
    return [
        row for window in windows(questions, context_s) for row in answerer.answers(window, media, window.questions)
    ]


@pytest.mark.parametrize("conversation", [False, True])
def test_sequential_questions_are_asked_in_one_prompt_or_as_a_conversation(video: Media, conversation: bool) -> None:
    model = Told()
    turns = [("a", ("Qa",)), ("b", ("Qa", "B", "Qb")), ("c", ())]
    questions = [choice(name, 3.0 + place, conversation=said) for place, (name, said) in enumerate(turns)]
    answerer = StreamAnswerer(model, StreamConfig(), conversation=conversation)
    (window,) = windows(questions, 0.0)
    assert [row.response for row in answerer.answers(window, video, questions)] == ["A"] * 3
    asked = [(text, list(turns)) for (_, text, _), turns in zip(model.asked, model.turns, strict=True)]
    if conversation:
        assert asked == [("Qa", []), ("Qb", [("Qa", "B")]), ("Qc?", [])]
    else:
        assert asked == [("Qa?", []), ("Qb?", []), ("Qc?", [])]


def test_nothing_later_than_a_question_is_in_its_memory(video: Media) -> None:
    model = Told()
    rows = ask(model, video, [choice("b", 7.0), choice("a", 2.45), choice("c", 99.0)])
    assert [row.id for row in rows] == ["a", "b", "c"]
    # One frame a second of four: the newest at 2 s, at 7 s, and at 9 s, where the video ends.
    assert [newest for _, _, newest in model.told] == [2.0, 7.0, 9.0]
    assert [steps for _, steps, _ in model.told] == [2, 4, 5]
    for row in rows:
        assert row.response == "A"
        assert row.total_s is not None
        assert row.first_token_s is not None
        assert row.total_s >= row.first_token_s > 0


def test_the_main_setting_of_streaming_bench_sees_its_context_alone(video: Media) -> None:
    model = Told()
    ask(model, video, [choice("a", 2.0), choice("b", 8.0)], context_s=3.0)
    assert [(steps, newest) for _, steps, newest in model.told] == [(2, 2.0), (2, 8.0)], "0 to 2 s, and 5 to 8 s"


def test_the_published_context_and_others() -> None:
    assert context_of("streamingbench", None) == 60
    assert context_of("ovo-bench", None) == 0
    with pytest.raises(ValueError, match="only StreamingBench has a context"):
        context_of("ovo-bench", 60.0)
    with pytest.raises(ValueError, match=r"the context is -1\.0 s"):
        context_of("streamingbench", -1.0)


def test_a_proactive_question_is_put_every_second_until_its_time(video: Media) -> None:
    model = Told(lambda question, steps: "three!")
    polls = ready_at(model, 2)
    (row,) = ask(model, video, [proactive(2.0, 5.0)])
    # From the second after it was asked.
    assert (row.response, row.answered_s) == ("three!", 4.0)
    assert len(polls) == 2
    assert 'Is it the right time to output "three"?' in polls[0]
    # Before it, what the change rests on is found.
    assert (model.told[-1][0], model.told[-1][2]) == ("The prompt.", 4.0)


def test_a_model_that_never_says_yes_stays_without_a_moment(video: Media) -> None:
    model = Told()
    polls = ready_at(model, 99)
    (row,) = ask(model, video, [proactive(2.0, 4.0)])
    assert (row.response, row.answered_s) == ("no", None)
    assert len(polls) == 6, "each second until 4 s after the right moment"
    assert not model.told


def test_a_model_that_fails_on_a_proactive_question_tells_why(video: Media) -> None:
    def fails(question: str, text: str) -> float:
        raise RuntimeError("out of memory")

    model = Told()
    model.likelihood = fails
    (row,) = ask(model, video, [proactive(2.0, 4.0)])
    assert (row.response, row.answered_s) == (None, None)
    assert "out of memory" in row.error


def test_single_images_go_by_their_times(tmp_path: Path) -> None:
    folder = benchmark_data.write_frames(tmp_path / "frames", 4)
    media = Media(frames=tuple(sorted(folder.iterdir())), times_s=(10.0, 11.5, 12.0, 13.0))
    frames = list(media_frames(media, 11.5, 12.0))
    assert [frame.stamp_ns for frame in frames] == [11_500_000_000, 12_000_000_000]
    assert round(float(frames[0].image().mean())) == 50


def test_a_model_that_fails_tells_why(video: Media) -> None:
    def fail(question: str, steps: int) -> NoReturn:
        raise RuntimeError("out of memory")

    (row,) = ask(Told(fail), video, [choice("a", 2.0)])
    assert row.response is None
    assert "out of memory" in row.error
