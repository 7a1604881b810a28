"""Answers that follow a JSON schema: the checks of a question's schema."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fvs_ros.stream.choices import NO_TEXT
from fvs_ros.stream.model_protocol import StreamConstraint
from fvs_ros.stream.types import AskError, ErrorCode


def constraint_of(
    json_schema: str, choices: Sequence[str], json_constraint: Callable[[str], StreamConstraint]
) -> StreamConstraint | None:
    """What an answer with that schema is held to; None for an answer without one.

    Control tokens in a schema are no fault: the model writes them, like any text of an answer, letter by letter.

    Args:
        json_schema: empty for none.
        choices: of the same question.
        json_constraint: the model's.

    Raises:
        AskError: INVALID_QUESTION; the message says what is wrong and what to do.
    """
    if not json_schema:
        return None
    if choices:
        raise _invalid(
            "there are both choices and a json_schema; leave one out (an enum in the schema is a choice, too)"
        )
    if broken := NO_TEXT.search(json_schema):
        raise _invalid(f"json_schema is no UTF-8 text: its character {broken.start() + 1} is {broken[0]!a}")
    try:
        return json_constraint(json_schema)
    except ValueError as error:
        raise _invalid(str(error)) from error


def not_followed(problem: str) -> AskError:
    """Why an answer that was being given ends without having followed its schema."""
    return _invalid(f"json_schema allows too much at once to be followed ({problem[:300]}); make it simpler")


def _invalid(message: str) -> AskError:
    return AskError(ErrorCode.INVALID_QUESTION, message)
