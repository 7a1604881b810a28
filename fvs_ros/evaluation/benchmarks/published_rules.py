"""Each answer judged twice: by the benchmark's published rule, and by our strict parse."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from fvs_ros.evaluation import parsing
from fvs_ros.evaluation.benchmarks.predictions import Prediction
from fvs_ros.evaluation.benchmarks.question import AnswerKind, BenchmarkQuestion

POSITION_TOLERANCE_M = 15.0
MINUTES_TOLERANCE = 2.0
# StreamingBench: an output this far from the right moment is still in time.
PROACTIVE_TOLERANCE_S = 2.0


@dataclass(frozen=True)
class Judgement:
    """One question and what its answer is worth.

    Attributes:
        published: 1 or 0 by the published rule; None where the published scorer leaves the question out.
        strict: 1 or 0 by the strict parse; unparsed and missing ones are 0. None where only a person can judge.
        unparsed: there is a response, and the strict parse cannot read it.
        missing: there is no response, or no row at all.
        drawn: the published rule drew its answer at random.
        error: how far a position (metres) or a time (minutes) is off; None where it does not apply or is not known.
        in_time: whether a proactive answer came in time; None for other questions.
    """

    question: BenchmarkQuestion
    published: float | None
    strict: float | None
    unparsed: bool = False
    missing: bool = False
    drawn: bool = False
    error: float | None = None
    in_time: bool | None = None


Rule = Callable[[BenchmarkQuestion, Prediction | None, random.Random], Judgement]


def judge(
    name: str, questions: Sequence[BenchmarkQuestion], predictions: Mapping[str, Prediction], seed: int = 0
) -> list[Judgement]:
    """Judges every question, in the order of the predictions first: the published random draws go by it.

    Args:
        name: of the benchmark.
        questions: all that are to be answered; one without a prediction is wrong.
        predictions: by the question's id; each must be one of `questions`.
        seed: of the published rule's random draws.

    Returns:
        One judgement a question, in the order of `questions`.

    Raises:
        KeyError: if a prediction answers none of the questions.
    """
    known = {question.id: question for question in questions}
    rule = _RULES.get(name, _long_video)
    draw = random.Random(seed)
    order = [*predictions, *(identity for identity in known if identity not in predictions)]
    judged = {identity: rule(known[identity], predictions.get(identity), draw) for identity in order}
    return [judged[question.id] for question in questions]


def _strict_choice(question: BenchmarkQuestion, response: str | None) -> tuple[float, bool]:
    index = parsing.parse_choice(response, question.options)
    return float(index == question.answer), index is None


def _long_video(question: BenchmarkQuestion, prediction: Prediction | None, draw: random.Random) -> Judgement:
    """Flash-VStream's rule: the first letter A to E, or a random one; questions without a row are left out."""
    if prediction is None or prediction.response is None:
        return Judgement(question, None, 0.0, missing=True)
    choice = parsing.first_letter(prediction.response, draw)
    strict, unparsed = _strict_choice(question, prediction.response)
    missing = not prediction.response.strip()
    right = float(choice.index == question.answer)
    return Judgement(question, right, strict, unparsed and not missing, missing, choice.drawn)


def _ovo_bench(question: BenchmarkQuestion, prediction: Prediction | None, _: random.Random) -> Judgement:
    """OVO-Bench's rule: null is wrong; rows that are not in the file are left out."""
    response = None if prediction is None else prediction.response
    if question.kind is AnswerKind.CHOICE:
        right = parsing.contains_letter(response, question.answer_letter)
        strict, unparsed = _strict_choice(question, response)
    elif question.kind is AnswerKind.COUNT:
        right = parsing.joined_digits(response, int(_number(question.answer)))
        count = parsing.parse_count(response)
        strict, unparsed = float(count == question.answer), count is None
    else:
        right = parsing.contains_yes_no(response, bool(question.answer))
        said = parsing.parse_yes_no(response)
        strict, unparsed = float(said is question.answer), said is None
    missing = not response
    return Judgement(question, None if prediction is None else float(right), strict, unparsed and not missing, missing)


def _streaming_bench(question: BenchmarkQuestion, prediction: Prediction | None, _: random.Random) -> Judgement:
    """StreamingBench's rule: the first character; questions without a response are left out."""
    response = None if prediction is None else prediction.response
    if question.kind is AnswerKind.PROACTIVE:
        return _proactive(question, prediction)
    if not response:
        return Judgement(question, None, 0.0, missing=True)
    strict, unparsed = _strict_choice(question, response)
    right = parsing.first_character(response, question.answer_letter)
    return Judgement(question, float(right), strict, unparsed)


def _proactive(question: BenchmarkQuestion, prediction: Prediction | None) -> Judgement:
    """In time within 2 s, and the output's text in the answer. The published scorer rates silence as wrong."""
    if prediction is None:
        return Judgement(question, None, 0.0, missing=True, in_time=False)
    if prediction.response is None or prediction.answered_s is None or question.answer_time_s is None:
        return Judgement(question, 0.0, 0.0, missing=prediction.response is None, in_time=False)
    in_time = abs(prediction.answered_s - question.answer_time_s) <= PROACTIVE_TOLERANCE_S
    right = float(in_time and str(question.answer) in prediction.response)
    return Judgement(question, right, right, in_time=in_time)


def _navqa(question: BenchmarkQuestion, prediction: Prediction | None, _: random.Random) -> Judgement:
    """NaVQA's measures; its correctness is 15 m, 2 minutes, or the right yes or no. Texts need a person."""
    response = None if prediction is None else prediction.response
    missing = not response
    if question.kind is AnswerKind.TEXT:
        return Judgement(question, None, None, missing=missing)
    if question.kind is AnswerKind.YES_NO:
        said = parsing.parse_yes_no(yes_no_text(response))
        right = float(said is question.answer)
        return Judgement(question, right, right, said is None and not missing, missing)
    if question.kind is AnswerKind.POSITION:
        error, tolerance = distance(parsing.parse_position(response), question.answer), POSITION_TOLERANCE_M
    else:
        field = "time" if question.kind is AnswerKind.MINUTES_AGO else "duration"
        minutes = parsing.parse_minutes(response, field)
        error = None if minutes is None else abs(minutes - _number(question.answer))
        tolerance = MINUTES_TOLERANCE
    right = float(error is not None and error <= tolerance)
    return Judgement(question, right, right, error is None and not missing, missing, error=error)


def yes_no_text(response: str | None) -> str | None:
    """What says yes or no: the field `binary` of a JSON object, or the response itself."""
    value = parsing.json_field(response or "", "binary")
    return value if isinstance(value, str) else None


def distance(position: tuple[float, ...] | None, answer: object) -> float | None:
    """Metres between two positions; in the plane if either has no height."""
    if position is None or not isinstance(answer, tuple):
        return None
    axes = min(len(position), len(answer))
    return math.dist(position[:axes], answer[:axes])


def _number(answer: object) -> float:
    assert isinstance(answer, int | float)
    return float(answer)


_RULES: dict[str, Rule] = {"ovo-bench": _ovo_bench, "streamingbench": _streaming_bench, "navqa": _navqa}
