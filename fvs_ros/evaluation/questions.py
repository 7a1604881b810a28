"""Timed questions about a recording: one JSON object a line.

    {"id": "q1", "t": 12.5, "question": "What is on the table?", "choices": ["a cup", "a key"], "answer": 1,
     "proof": [[3.0, 4.5]], "family": "object"}

`id` is unique in the file. One of `t` (seconds after the first frame) and `stamp` (seconds on the recording's clock,
to the nanosecond if written with nine decimals) says when it is asked. `choices` are texts without letters; `answer`
is the right one's index from 0 or its text, or without `choices` a text, number, position or yes or no. `proof` lists
the intervals of the stream that show the answer, on the same clock as the question. `family` groups questions in
tables. `exposure_s` says for how many seconds the proof was in view. `age_s` (seconds since the newest proof) may be
there too; it follows from the others and is not read.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path

from fvs_ros.evaluation.answers import Answer
from fvs_ros.evaluation.errors import DataError
from fvs_ros.evaluation.grading import AnswerKind, Grade, grade
from fvs_ros.evaluation.records import Record, read_lines, unique
from fvs_ros.sources.frame import SECOND_NS

QUESTIONS_FILE = "questions.jsonl"
"""Its name beside the files of a recording."""

_FIELDS = frozenset({"age_s", "exposure_s", "id", "t", "stamp", "question", "choices", "answer", "proof", "family"})
# Where the 32-bit seconds of builtin_interfaces/Time end.
_LATEST_S = 2**31

INSTRUCTION = (
    "Select the best answer to the following multiple-choice question based on the video. Respond with only the "
    "letter (A, B, C, or D) of the correct option."
)
"""Flash-VStream's published wording, which goes before a question that lists its options."""

ANSWER_PREFIX = "Best option: ("
"""What the published evaluation makes an answer to such a question begin with."""


@dataclass(frozen=True)
class TimedQuestion:
    """A question and the moment at which it is asked.

    Attributes:
        time_ns: when, nanoseconds: a stamp on the recording's clock, or after its first frame if `relative`.
        relative: whether times count from the first frame.
        choices: texts without letters, empty for an open question.
        answer: the right choice's index from 0 where there are choices; else as given; None if it is not known.
        proof_ns: intervals that show the answer, nanoseconds on the same clock as `time_ns`.
        family: of questions that are scored together, empty for none.
        exposure_s: seconds that the proof was in view; None if it is not known, or all of the stream is the proof,
            because it shows something nowhere.
    """

    id: str
    time_ns: int
    relative: bool
    question: str
    choices: tuple[str, ...] = ()
    answer: Answer | None = None
    proof_ns: tuple[tuple[int, int], ...] = ()
    family: str = ""
    exposure_s: float | None = None

    @property
    def kind(self) -> AnswerKind:
        """What is asked for: as the right answer's type says, and the family where a number could be two things."""
        if self.choices:
            return AnswerKind.CHOICE
        if isinstance(self.answer, bool):
            return AnswerKind.YES_NO
        if isinstance(self.answer, tuple):
            return AnswerKind.POSITION
        if isinstance(self.answer, int | float) and self.family == "duration":
            return AnswerKind.DURATION
        if isinstance(self.answer, float) or (isinstance(self.answer, int) and self.family == "time"):
            return AnswerKind.MINUTES_AGO
        return AnswerKind.COUNT if isinstance(self.answer, int) else AnswerKind.TEXT

    @property
    def answer_text(self) -> str:
        """The right answer in words, empty if it is unknown."""
        if self.choices and isinstance(self.answer, int):
            return self.choices[self.answer]
        return "" if self.answer is None else str(self.answer)

    @property
    def age_s(self) -> float | None:
        """Seconds from the newest proof to the question, 0 if it is still going on; None without proofs."""
        ends = [min(end, self.time_ns) for start, end in self.proof_ns if start <= self.time_ns]
        return (self.time_ns - max(ends)) / SECOND_NS if ends else None

    def on_clock(self, start_ns: int) -> TimedQuestion:
        """The question with stamps on the recording's clock, whose first frame is stamped `start_ns`."""
        if not self.relative:
            return self
        proof_ns = tuple((start + start_ns, end + start_ns) for start, end in self.proof_ns)
        return replace(self, time_ns=self.time_ns + start_ns, relative=False, proof_ns=proof_ns)

    def grade(self, response: str | None) -> Grade:
        """The strict grade of a response."""
        return grade(self.kind, self.answer, response, self.choices)

    def to_json(self) -> str:
        """The question as one line of a file; times keep their nanoseconds, which a JSON number of Python would not."""
        fields = {"id": json.dumps(self.id), "t" if self.relative else "stamp": _seconds_text(self.time_ns)}
        fields["question"] = json.dumps(self.question)
        if self.answer is not None:
            named = self.choices.count(self.answer_text) == 1
            fields["answer"] = json.dumps(self.answer_text if named else self.answer)
        if self.choices:
            fields["choices"] = json.dumps(self.choices)
        if self.proof_ns:
            intervals = (f"[{_seconds_text(start)}, {_seconds_text(end)}]" for start, end in self.proof_ns)
            fields["proof"] = f"[{', '.join(intervals)}]"
        if self.family:
            fields["family"] = json.dumps(self.family)
        if self.age_s is not None:
            fields["age_s"] = json.dumps(self.age_s)
        if self.exposure_s is not None:
            fields["exposure_s"] = json.dumps(self.exposure_s)
        return "{" + ", ".join(f'"{key}": {text}' for key, text in fields.items()) + "}"


def _seconds_text(nanoseconds: int) -> str:
    whole, rest = divmod(abs(nanoseconds), SECOND_NS)
    return f"{'-' if nanoseconds < 0 else ''}{whole}.{rest:09d}".rstrip("0").rstrip(".")


def write_questions(path: Path, questions: Iterable[TimedQuestion]) -> None:
    """Writes a file that `read_questions` reads.

    Raises:
        OSError: if it cannot be written.
    """
    path.write_text("".join(question.to_json() + "\n" for question in questions), encoding="utf-8")


def read_questions(path: Path) -> list[TimedQuestion]:
    """The questions of a file, in its order.

    Raises:
        DataError: with the line's number, for anything that is not in the form above: an unknown field, a time that
            is missing or below 0, an answer that is no choice, an id that occurs before; also for an empty file.
    """
    questions = unique((record, _question(record)) for record in read_lines(path, exact=True))
    if not questions:
        raise DataError(path, "", "holds no questions")
    return questions


def _question(record: Record) -> TimedQuestion:
    record.allow(_FIELDS)
    if ("t" in record) == ("stamp" in record):
        found = "both" if "t" in record else "neither"
        raise record.error(f"one of the fields 't' and 'stamp' expected, {found} found")
    clock = "t" if "t" in record else "stamp"
    choices = record.texts("choices") if "choices" in record else ()
    return TimedQuestion(
        id=record.identity(),
        time_ns=_nanoseconds(record, clock, record.raw(clock)),
        relative=clock == "t",
        question=record.text("question"),
        choices=choices,
        answer=_answer(record, choices),
        proof_ns=tuple(_interval(record, value) for value in record.items("proof")) if "proof" in record else (),
        family=record.optional("family", record.text) or "",
        exposure_s=record.optional("exposure_s", record.number),
    )


def _nanoseconds(record: Record, key: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        raise record.error(f"field {key!r} holds {value}, seconds expected")
    if not 0 <= value < _LATEST_S:
        raise record.error(f"field {key!r} holds {value}, seconds from 0 to {_LATEST_S} expected")
    return round(value * SECOND_NS)


def _interval(record: Record, value: object) -> tuple[int, int]:
    if not isinstance(value, list) or len(value) != 2:
        raise record.error(f"field 'proof' holds {value}, intervals [start, end] expected")
    start, end = (_nanoseconds(record, "proof", bound) for bound in value)
    if start > end:
        raise record.error(f"field 'proof' holds [{value[0]}, {value[1]}], which ends before it starts")
    return start, end


def _answer(record: Record, choices: tuple[str, ...]) -> Answer | None:
    value = record.raw("answer") if "answer" in record else None
    if value is None:
        return None
    if choices:
        if isinstance(value, str) and choices.count(value) == 1:
            return choices.index(value)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < len(choices):
            raise record.error(
                f"field 'answer' is {value!r}, the text of one choice or an index from 0 to {len(choices) - 1} expected"
            )
        return value
    if isinstance(value, list):
        return record.numbers("answer")
    if isinstance(value, Decimal):
        return record.number("answer")
    if isinstance(value, int) and not isinstance(value, bool):
        record.number("answer")
    if isinstance(value, bool | int | str):
        return value
    raise record.error(f"field 'answer' is {value!r}, a text, a number, a position or true or false expected")
