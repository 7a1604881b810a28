"""The one form that every benchmark's questions are read into."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fvs_ros.evaluation.answers import Answer
from fvs_ros.evaluation.grading import AnswerKind
from fvs_ros.evaluation.parsing import LETTERS
from fvs_ros.evaluation.records import Record


@dataclass(frozen=True)
class BenchmarkQuestion:
    """One question of a benchmark, as asked once and scored once.

    Attributes:
        id: unique in its benchmark.
        video: what it is about, in the data set's own naming; the benchmark's layout makes paths of it.
        question: as annotated, options included where the annotation has them inlined.
        prompt: the user's turn in the published wording; what is shown before it is the layout's matter.
        answer_prefix: what the answer is made to begin with, empty for nothing.
        kind: form of the answer.
        answer: the right one: an index from 0 (CHOICE), a bool (YES_NO), a count, metres (POSITION), minutes, or text.
        options: texts without their letters.
        task: the benchmark's name for the kind of question, empty where it has none.
        mode: OVO-Bench's backward, realtime or forward; StreamingBench's part; else empty.
        start_time_s: earliest moment of the video that may be seen, seconds on the video's clock.
        ask_time_s: latest one, when the question is asked; None for the end of the video.
        answer_time_s: when the right moment for a proactive answer is, seconds.
        conversation: the same as turns, of StreamingBench's sequential questions alone: each earlier question and its
            right answer, then this question.
        groups: further values to break scores down by, several where a question counts for each.
    """

    id: str
    video: str
    question: str
    prompt: str
    kind: AnswerKind
    answer: Answer
    options: tuple[str, ...] = ()
    answer_prefix: str = ""
    task: str = ""
    mode: str = ""
    start_time_s: float = 0.0
    ask_time_s: float | None = None
    answer_time_s: float | None = None
    conversation: tuple[str, ...] = ()
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def answer_letter(self) -> str:
        """The right option's letter, empty unless `kind` is CHOICE."""
        return LETTERS[int(self.answer)] if self.kind is AnswerKind.CHOICE and isinstance(self.answer, int) else ""


def choice_index(record: Record, key: str, options: tuple[str, ...]) -> int:
    """The field that holds the right option's index.

    Raises:
        DataError: if no option has that index.
    """
    index = record.integer(key)
    if not 0 <= index < len(options):
        raise record.error(f"field {key!r} is {index}, an index from 0 to {len(options) - 1} expected")
    return index
