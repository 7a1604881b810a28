"""Benchmark questions grouped by what they see: one memory answers each group."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from fvs_ros.evaluation.benchmarks import BENCHMARKS, BenchmarkQuestion, Media
from fvs_ros.evaluation.benchmarks.streaming_bench import MAIN_CONTEXT_S
from fvs_ros.evaluation.benchmarks.subtitles import subtitled
from fvs_ros.evaluation.errors import DataError
from fvs_ros.evaluation.grading import AnswerKind
from fvs_ros.evaluation.statistics import grouped


@dataclass(frozen=True)
class Window:
    """Questions whose memory begins at the same moment of the same video.

    Attributes:
        video: as the benchmark names it.
        start_s: where the memory begins, seconds on the video's clock.
        questions: in the order in which they are asked.
    """

    video: str
    start_s: float
    questions: tuple[BenchmarkQuestion, ...]


def annotation_files(name: str, data: Path) -> list[Path]:
    """The annotations of a benchmark in its data folder; of StreamingBench's parts, those that are there.

    Raises:
        DataError: if there is none.
    """
    names = BENCHMARKS[name].annotations
    found = [data / file for file in names if (data / file).exists()]
    if not found:
        raise DataError(data, "", f"has no {' or '.join(names)}, the annotations of {BENCHMARKS[name].title}")
    return found


def load_questions(name: str, data: Path, annotations: Iterable[Path]) -> list[BenchmarkQuestion]:
    """All questions of a benchmark as they are asked, with subtitles where it has them.

    Raises:
        DataError: for whatever breaks the benchmark's form.
    """
    questions = [question for path in annotations for question in BENCHMARKS[name].read(path)]
    return [subtitled(question, data) for question in questions] if BENCHMARKS[name].subtitled else questions


def context_of(name: str, context_s: float | None) -> float:
    """Seconds before the question that are seen: as asked for, or as published; 0 for all.

    Raises:
        ValueError: for another benchmark than StreamingBench, whose questions all see what is before them, or a time
            below 0.
    """
    if context_s is None:
        return MAIN_CONTEXT_S if name == "streamingbench" else 0.0
    if name != "streamingbench":
        raise ValueError(f"{BENCHMARKS[name].title} defines what its questions see; only StreamingBench has a context")
    if context_s < 0:
        raise ValueError(f"the context is {context_s} s; give seconds above 0, or 0 for everything before the question")
    return context_s


def windows(questions: Iterable[BenchmarkQuestion], context_s: float = 0.0) -> list[Window]:
    """The questions by window, in the order in which each first occurs.

    Args:
        questions: of one benchmark.
        context_s: how much before each question is seen; 0 for all. A proactive question waits for what comes, and
            sees nothing from before it was asked, as published.
    """

    def start_s(question: BenchmarkQuestion) -> float:
        if question.kind is AnswerKind.PROACTIVE and question.ask_time_s is not None:
            return question.ask_time_s
        if context_s and question.ask_time_s is not None:
            return max(question.start_time_s, question.ask_time_s - context_s)
        return question.start_time_s

    return [
        Window(video, start, tuple(sorted(members, key=lambda one: one.ask_time_s or 0.0)))
        for (video, start), members in grouped(questions, lambda one: [(one.video, start_s(one))]).items()
    ]


def media_of(name: str, data: Path, window: Window) -> Media:
    """The frames or the video of a window; from its start to its last question where there are single frames.

    Raises:
        DataError: if they are missing or not as they must be.
    """
    last = max(window.questions, key=lambda question: question.ask_time_s or 0.0)
    return BENCHMARKS[name].media(data, replace(last, start_time_s=window.start_s))
