"""Answers that are given beforehand: the checks of a question's choices."""

from __future__ import annotations

import re
from collections.abc import Sequence

from fvs_ros.stream.types import AskError, ErrorCode

# Each takes a batch of the model in turn, so that other answers go on.
MOST_CHOICES = 64
# Characters: a sentence or two.
LONGEST_CHOICE = 200

# Lone surrogates, which Python makes of arguments and lines, and what ROS 2 puts for bytes that are no UTF-8.
NO_TEXT = re.compile("[\ud800-\udfff\ufffd]")


def check_choices(choices: Sequence[str]) -> None:
    """Checks the choices of a question; none at all are right, too.

    Control tokens are no fault: the model reads choices, unlike its own answers, letter by letter.

    Raises:
        AskError: INVALID_QUESTION; the message says what is wrong and what to do.
    """
    if not choices:
        return
    problem = ""
    if isinstance(choices, str):
        problem = f"choices is one text, {choices[:LONGEST_CHOICE]!r}; give a list of texts"
    elif not 2 <= len(choices) <= MOST_CHOICES:
        problem = f"there are {len(choices)} choices; give 2 to {MOST_CHOICES}, or none for an answer in free words"
    for number, choice in enumerate(choices if not problem else (), start=1):
        first = choices.index(choice) + 1
        if not choice.strip():
            problem = f"choice {number} of {len(choices)} is empty; write an answer, or leave it out"
        elif len(choice) > LONGEST_CHOICE:
            problem = f"choice {number} has {len(choice)} characters; shorten it to {LONGEST_CHOICE}"
        elif broken := NO_TEXT.search(choice):
            problem = f"choice {number} is no UTF-8 text: its character {broken.start() + 1} is {broken[0]!a}"
        elif first < number:
            problem = f"choices {first} and {number} are both {choice!r}; leave one out"
        if problem:
            break
    if problem:
        raise AskError(ErrorCode.INVALID_QUESTION, problem)
