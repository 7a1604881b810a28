"""What a client asks for, as the fields of a request that can hold it, and whether a command was done."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, TypedDict

from builtin_interfaces.msg import Time
from geometry_msgs.msg import PointStamped

from fvs_ros.msg import ChatMessage as ChatMessageMessage
from fvs_ros.stream.choices import check_choices
from fvs_ros.stream.config import LONGEST_TIMEOUT_S
from fvs_ros.stream.types import AskError, ChatMessage, ErrorCode

# Discovery takes seconds, on a busy machine tens of them; what the node does at once takes none.
DEFAULT_TIMEOUT_S = 60.0
# The node ends a question at its timeout; what it then sends may take this long.
_DELIVERY_S = 5.0
# Of a message's float32.
LARGEST_FLOAT = 3.4e38


class RefusedError(Exception):
    """The node does not do what it was asked for in its present state. The message is the node's own."""


class RequestOptions(TypedDict, total=False):
    """What may come with a question.

    Attributes:
        max_new_tokens: the answer's longest length; 0 takes the node's parameter.
        timeout_s: seconds from the question to its complete answer; 0 takes the node's parameter.
        fresh: answer from a memory that holds every frame that arrived before the question.
        since: answer only from what was seen from this stamp on; None for all before `until`.
        until: answer only from what was seen up to this stamp; None for all since `since`.
        near: answer only from what was seen from within `radius_m` metres of this point, which RViz or a moment's pose
            may give, in the frame of the moments' poses.
        radius_m: around `near`.
        with_all_moments: also return everything that the model had in front of it.
        with_images: let each moment bring its picture.
        history: earlier questions of the conversation and their answers, oldest first: messages of the roles "user" and
            "assistant" in turn.
        choices: answer with one of these texts, whichever is likeliest; `choice_probabilities` says how likely each is.
        json_schema: answer with JSON that follows this schema, an object as text; see `truncated` in the response.
    """

    max_new_tokens: int
    timeout_s: float
    fresh: bool
    since: Time | None
    until: Time | None
    near: PointStamped | None
    radius_m: float
    with_all_moments: bool
    with_images: bool
    choices: Sequence[str]
    json_schema: str
    history: Sequence[ChatMessage]


def ask_fields(
    question: str,
    *,
    max_new_tokens: int = 0,
    timeout_s: float = DEFAULT_TIMEOUT_S,
    fresh: bool = False,
    since: Time | None = None,
    until: Time | None = None,
    near: PointStamped | None = None,
    radius_m: float = 0.0,
    with_all_moments: bool = False,
    with_images: bool = False,
    choices: Sequence[str] = (),
    json_schema: str = "",
    history: Sequence[ChatMessage] = (),
) -> dict[str, Any]:
    """The fields of a request with `RequestOptions`.

    Where one cannot hold a value, rclpy raises, aborts, or cuts a text off at its zero.

    Raises:
        AskError: INVALID_QUESTION.
    """
    check_choices(choices)
    problem = ""
    texts = {"the question": question, "json_schema": json_schema}
    texts |= {f"choice {number}": one for number, one in enumerate(choices, start=1)}
    for number, message in enumerate(history, start=1):
        texts |= {f"message {number} of the history": message.text, f"the role of message {number}": message.role}
    for name, text in texts.items():
        if broken := re.search("[\0\ud800-\udfff]", text):
            problem = f"{name}'s character {broken.start() + 1} is {broken[0]!a}, so leave it out"
    if not 0 <= max_new_tokens < 2**32:
        problem = f"max_new_tokens is {max_new_tokens}; ask for 0, the node's default, or for 1 to {2**32 - 1}"
    if not 0 <= timeout_s <= LONGEST_TIMEOUT_S:
        problem = f"timeout_s is {timeout_s}; ask for 0, the node's default, or at most {LONGEST_TIMEOUT_S:g} seconds"
    if not 0 <= radius_m <= LARGEST_FLOAT:
        problem = f"radius_m is {radius_m}; ask for metres around near, or for 0 without it"
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
        "choices": list(choices),
        "json_schema": json_schema,
        "history": [ChatMessageMessage(role=message.role, text=message.text) for message in history],
        "near": near or PointStamped(),
        "radius_m": float(radius_m),
        "with_images": with_images,
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
