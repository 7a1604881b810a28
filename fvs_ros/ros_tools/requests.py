"""What a client asks for, as the fields of a request that can hold it, and whether a command was done."""

from __future__ import annotations

import re
from typing import Any

from builtin_interfaces.msg import Time

from fvs_ros.stream.config import LONGEST_TIMEOUT_S
from fvs_ros.stream.types import AskError, ErrorCode

# The node ends a question at its timeout; what it then sends may take this long.
_DELIVERY_S = 5.0


class RefusedError(Exception):
    """The node does not do what it was asked for in its present state. The message is the node's own."""


def ask_fields(
    question: str,
    max_new_tokens: int,
    timeout_s: float,
    fresh: bool,
    since: Time | None,
    until: Time | None,
    with_all_moments: bool,
) -> dict[str, Any]:
    """The fields of a request. Where one cannot hold a value, rclpy raises, aborts, or cuts a text off at its zero.

    Raises:
        AskError: INVALID_QUESTION.
    """
    problem = ""
    if broken := re.search("[\0\ud800-\udfff]", question):
        problem = f"the question's character {broken.start() + 1} is {broken[0]!a}, so leave it out"
    if not 0 <= max_new_tokens < 2**32:
        problem = f"max_new_tokens is {max_new_tokens}; ask for 0, the node's default, or for 1 to {2**32 - 1}"
    if not 0 <= timeout_s <= LONGEST_TIMEOUT_S:
        problem = f"timeout_s is {timeout_s}; ask for 0, the node's default, or at most {LONGEST_TIMEOUT_S:g} seconds"
    if problem:
        raise AskError(ErrorCode.INVALID_QUESTION, problem)
    # Converted: a whole number in a float field aborts the process where the interfaces were built with assertions.
    return {
        "question": question,
        "max_new_tokens": max_new_tokens,
        "timeout_s": float(timeout_s),
        "fresh": fresh,
        "with_all_moments": with_all_moments,
        "since": since or Time(),
        "until": until or Time(),
    }


def longest_wait(timeout_s: float) -> float:
    """Seconds in which the answer to a question with that timeout, 0 for the node's, has come or never will."""
    return (timeout_s or LONGEST_TIMEOUT_S) + _DELIVERY_S


def episode_number(number: int) -> int:
    """The number of an episode, or 0. With another one rclpy aborts where interfaces were built with assertions.

    Raises:
        ValueError: no message can hold it.
    """
    if not 0 <= number < 2**32:
        raise ValueError(f"episode is {number}; name one as `fvs memory info` numbers them, or 0")
    return number


def done(response: Any) -> str:
    """The message of a command that was done.

    Raises:
        RefusedError: it was not.
    """
    if not response.success:
        raise RefusedError(response.message)
    return response.message
