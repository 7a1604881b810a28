"""Each benchmark's published rule, faults included, as an adapter beside the strict grade."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from fvs_ros.evaluation import parsing
from fvs_ros.evaluation.answers import AnswerRow
from fvs_ros.evaluation.benchmarks.question import BenchmarkQuestion
from fvs_ros.evaluation.grading import AnswerKind, Grade, grade

# StreamingBench: an output this far from the right moment is still in time.
PROACTIVE_TOLERANCE_S = 2.0


@dataclass(frozen=True)
class Judgement:
    """What the answer to one question is worth.

    Attributes:
        published: 1 or 0 by the published rule; None where the published scorer leaves the question out.
        strict: by the strict parse; its `correct` is None where only a person can judge.
        drawn: the published rule drew its answer at random.
        in_time: whether a proactive answer came in time; None for other questions.
    """

    question: BenchmarkQuestion
    published: float | None
    strict: Grade
    drawn: bool = False
    in_time: bool | None = None


Rule = Callable[[BenchmarkQuestion, AnswerRow | None, random.Random], Judgement]


def judge(
    name: str, questions: Sequence[BenchmarkQuestion], answers: Mapping[str, AnswerRow], seed: int = 0
) -> list[Judgement]:
    """Judges every question, in the order of the answers first: the published random draws go by it.

    Args:
        name: of the benchmark.
        questions: all that are to be answered; one without an answer is wrong.
        answers: by the question's id; each must be one of `questions`.
        seed: of the published rule's random draws.

    Returns:
        One judgement a question, in the order of `questions`.

    Raises:
        KeyError: if an answer belongs to none of the questions.
    """
    known = {question.id: question for question in questions}
    rule = _RULES.get(name, _long_video)
    draw = random.Random(seed)
    order = [*answers, *(identity for identity in known if identity not in answers)]
    judged = {identity: rule(known[identity], answers.get(identity), draw) for identity in order}
    return [judged[question.id] for question in questions]


def _response(row: AnswerRow | None) -> str | None:
    return None if row is None else row.response


def _strict(question: BenchmarkQuestion, row: AnswerRow | None) -> Grade:
    return grade(question.kind, question.answer, _response(row), question.options)


def _long_video(question: BenchmarkQuestion, row: AnswerRow | None, draw: random.Random) -> Judgement:
    """Flash-VStream's rule: the first letter A to E, or a random one; questions without a row are left out."""
    response, strict = _response(row), _strict(question, row)
    if response is None:
        return Judgement(question, None, strict)
    choice = parsing.first_letter(response, draw)
    return Judgement(question, float(choice.index == question.answer), strict, choice.drawn)


def _ovo_bench(question: BenchmarkQuestion, row: AnswerRow | None, _: random.Random) -> Judgement:
    """OVO-Bench's rule: null is wrong; rows that are not in the file are left out."""
    response, strict = _response(row), _strict(question, row)
    if row is None:
        return Judgement(question, None, strict)
    if question.kind is AnswerKind.CHOICE:
        right = parsing.contains_letter(response, question.answer_letter)
    elif question.kind is AnswerKind.COUNT:
        assert isinstance(question.answer, int), "a count is a whole number"
        right = parsing.joined_digits(response, question.answer)
    else:
        right = parsing.contains_yes_no(response, bool(question.answer))
    return Judgement(question, float(right), strict)


def _streaming_bench(question: BenchmarkQuestion, row: AnswerRow | None, _: random.Random) -> Judgement:
    """StreamingBench's rule: the first character; questions without a response are left out."""
    if question.kind is AnswerKind.PROACTIVE:
        return _proactive(question, row)
    response, strict = _response(row), _strict(question, row)
    if not response:
        return Judgement(question, None, strict)
    return Judgement(question, float(parsing.first_character(response, question.answer_letter)), strict)


def _proactive(question: BenchmarkQuestion, row: AnswerRow | None) -> Judgement:
    """In time within 2 s, and the output's text in the answer. The published scorer rates silence as wrong."""
    if row is None:
        return Judgement(question, None, Grade(0.0, missing=True), in_time=False)
    if row.response is None or row.answered_s is None or question.answer_time_s is None:
        return Judgement(question, 0.0, Grade(0.0, missing=row.response is None), in_time=False)
    in_time = abs(row.answered_s - question.answer_time_s) <= PROACTIVE_TOLERANCE_S
    right = float(in_time and str(question.answer) in row.response)
    return Judgement(question, right, Grade(right), in_time=in_time)


def _navqa(question: BenchmarkQuestion, row: AnswerRow | None, _: random.Random) -> Judgement:
    """NaVQA's rule is the strict one: 15 m, 2 minutes, or the right yes or no. Texts need a person."""
    if question.kind is AnswerKind.TEXT:
        return Judgement(question, None, grade(question.kind, None, _response(row)))
    strict = _strict(question, row)
    return Judgement(question, strict.correct, strict)


_RULES: dict[str, Rule] = {"ovo-bench": _ovo_bench, "streamingbench": _streaming_bench, "navqa": _navqa}
