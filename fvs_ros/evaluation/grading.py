"""What an answer to a timed question is worth, when its evidence was, and whether its moments show that evidence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fvs_ros.evaluation import parsing
from fvs_ros.evaluation.benchmarks.predictions import AnswerRow
from fvs_ros.evaluation.benchmarks.published_rules import MINUTES_TOLERANCE, POSITION_TOLERANCE_M, distance, yes_no_text
from fvs_ros.evaluation.questions import TimedQuestion
from fvs_ros.sources.frame import SECOND_NS

# NaVQA's questions for a number of minutes. Other whole numbers are counts.
MINUTES_FAMILIES = frozenset({"time", "duration"})
TOP = (1, 3)


@dataclass(frozen=True)
class Grade:
    """What an answer is worth. Where the right answer is not known, nothing but `missing` is.

    Attributes:
        correct: 1 or 0 by the strict parse of the answer's kind: the right choice, the right count, yes or no, within
            15 m or 2 minutes (NaVQA's tolerances), or the text exactly. Unparsed and missing answers are 0.
        exact: 1 or 0, whether the answer's text is the right one's, spaces around it apart; None where that is a
            number or a place.
        choice: `correct` where there are choices.
        unparsed: there is an answer, and it cannot be read as the kind that is asked for.
        missing: there is none.
        position_m, minutes: how far a place or a span of time is off.
    """

    correct: float | None = None
    exact: float | None = None
    choice: float | None = None
    unparsed: bool = False
    missing: bool = False
    position_m: float | None = None
    minutes: float | None = None


def grade(question: TimedQuestion, response: str | None) -> Grade:
    """Grades a response; never guesses what an unclear one means."""
    missing = response is None or not response.strip()
    answer, said = question.answer, (response or "").strip()
    if answer is None:
        return Grade(missing=missing)
    if question.choices:
        index = parsing.parse_choice(response, question.choices)
        right = float(index == answer)
        exact = float(isinstance(answer, int) and said == question.choices[answer].strip())
        return Grade(right, exact, right, index is None and not missing, missing)
    if isinstance(answer, str):
        right = float(said == answer.strip())
        return Grade(right, right, None, False, missing)
    if isinstance(answer, bool):
        yes = parsing.parse_yes_no(yes_no_text(response))
        return Grade(float(yes is answer), None, None, yes is None and not missing, missing)
    if isinstance(answer, tuple):
        error = distance(parsing.parse_position(response), answer)
        right = float(error is not None and error <= POSITION_TOLERANCE_M)
        return Grade(right, None, None, error is None and not missing, missing, position_m=error)
    if isinstance(answer, float) or question.family in MINUTES_FAMILIES:
        minutes = parsing.parse_minutes(response, question.family)
        error = None if minutes is None else abs(minutes - answer)
        right = float(error is not None and error <= MINUTES_TOLERANCE)
        return Grade(right, None, None, error is None and not missing, missing, minutes=error)
    count = parsing.parse_count(response)
    return Grade(float(count == answer), None, None, count is None and not missing, missing)


def evidence_age_s(question: TimedQuestion) -> float | None:
    """Seconds from the newest proof to the question, 0 if it is still going on; None without proofs."""
    ends = [min(end, question.time_ns) for start, end in question.proof_ns if start <= question.time_ns]
    return (question.time_ns - max(ends)) / SECOND_NS if ends else None


def missed_s(question: TimedQuestion, row: AnswerRow, top: int | None) -> float | None:
    """Seconds from the best of the first `top` moments' keyframes to the nearest proof, 0 where one lies within it.

    Moments come in the order of their relevance where they were ranked, else of their clusters' weight, which is how
    the memory itself ranks them; equal ones in order of time.

    Returns:
        None where there is no proof, or no moment.
    """
    moments = row.moments or ()
    if not question.proof_ns or not moments:
        return None
    ranked = sorted(moments, key=lambda moment: (-moment[4], -moment[3], moment[0]))[:top]
    return min(_gap_ns(stamp, question.proof_ns) for stamp, *_ in ranked) / SECOND_NS


def _gap_ns(stamp_ns: float, intervals: Sequence[tuple[int, int]]) -> float:
    return min(max(start - stamp_ns, stamp_ns - end, 0) for start, end in intervals)
