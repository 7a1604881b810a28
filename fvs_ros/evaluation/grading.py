"""The strict grade of an answer: what it is worth if it is read only where it can mean one thing."""

from __future__ import annotations

import enum
import math
from collections.abc import Sequence
from dataclasses import dataclass

from fvs_ros.evaluation import parsing
from fvs_ros.evaluation.answers import Answer

# As NaVQA counts a position or a span of time as right.
POSITION_TOLERANCE_M = 15.0
MINUTES_TOLERANCE = 2.0


class AnswerKind(enum.Enum):
    """What is asked for, and so how an answer is parsed and graded."""

    CHOICE = "choice"
    YES_NO = "yes or no"
    COUNT = "count"
    POSITION = "position"
    MINUTES_AGO = "minutes ago"
    DURATION = "duration"
    PROACTIVE = "proactive"
    TEXT = "text"


MINUTES = (AnswerKind.MINUTES_AGO, AnswerKind.DURATION)


@dataclass(frozen=True)
class Grade:
    """What an answer is worth. Where the right answer is unknown, nothing but `missing` is.

    Attributes:
        correct: 1 or 0: the right choice, the right count, yes or no, within 15 m or 2 minutes (NaVQA's tolerances),
            or the exact text. Unparsed and missing answers are 0.
        exact: 1 or 0, whether the response is the right answer's text, spaces around it apart; None where the answer
            is no text.
        unparsed: there is a response, and it cannot be read as the kind that is asked for.
        missing: there is none, or a blank one.
        error: how far off a position (metres) or a time (minutes) is; None where it does not apply or is unknown.
    """

    correct: float | None = None
    exact: float | None = None
    unparsed: bool = False
    missing: bool = False
    error: float | None = None


def grade(kind: AnswerKind, answer: Answer | None, response: str | None, options: Sequence[str] = ()) -> Grade:
    """Grades a response; never guesses what an unclear one means.

    Args:
        kind: any but `PROACTIVE`, whose moment counts too.
        answer: the right one, an index where there are choices; None if unknown.
        response: None if there is none.
        options: texts of the choices, as far as they are known.
    """
    said = (response or "").strip()
    if answer is None:
        return Grade(missing=not said)
    if kind is AnswerKind.TEXT:
        same = float(said == str(answer).strip())
        return Grade(same, same, missing=not said)
    exact = float(said == options[answer].strip()) if options and isinstance(answer, int) else None
    found, right, error = _read(kind, answer, response, options)
    return Grade(float(right), exact, found is None and bool(said), not said, error)


def _read(
    kind: AnswerKind, answer: Answer, response: str | None, options: Sequence[str]
) -> tuple[object, bool, float | None]:
    """What the response means, None for unparsed, whether that is right, and how far off it is."""
    found: object
    if kind is AnswerKind.CHOICE:
        found = parsing.parse_choice(response, options)
    elif kind is AnswerKind.YES_NO:
        found = parsing.parse_yes_no(yes_no_text(response))
    elif kind is AnswerKind.COUNT:
        found = parsing.parse_count(response)
    elif kind is AnswerKind.POSITION:
        position = parsing.parse_position(response)
        error = _distance(position, answer)
        return position, error is not None and error <= POSITION_TOLERANCE_M, error
    else:
        minutes = parsing.parse_minutes(response, "duration" if kind is AnswerKind.DURATION else "time")
        error = abs(minutes - answer) if minutes is not None and isinstance(answer, int | float) else None
        return minutes, error is not None and error <= MINUTES_TOLERANCE, error
    return found, found is not None and found == answer, None


def yes_no_text(response: str | None) -> str | None:
    """What says yes or no: the field `binary` of a JSON object, or the response itself."""
    value = parsing.json_field(response or "", "binary")
    return value if isinstance(value, str) else None


def _distance(position: tuple[float, ...] | None, answer: Answer) -> float | None:
    """Metres between two positions; in the plane if either has no height."""
    if position is None or not isinstance(answer, tuple):
        return None
    axes = min(len(position), len(answer))
    return math.dist(position[:axes], answer[:axes])
