"""Earlier questions and answers of a conversation: the checks, what the model reads, and what is recalled by."""

from __future__ import annotations

import re
from collections.abc import Sequence

from fvs_ros.stream.types import AskError, ChatMessage, ErrorCode

USER = "user"
ASSISTANT = "assistant"
MOST_MESSAGES = 32
# Bytes of all messages, in longest questions. A byte is a token at most, and the model reads them anew each time.
MOST_QUESTIONS = 4
# Earlier questions that a follow-up recalls by: "And before that?" may follow "When did you see it?".
RECALLED_BY = 2
# No text can be made of these. What stands for bytes that are no UTF-8 may well be: a model's answer can hold it.
_HALF_CHARACTER = re.compile("[\ud800-\udfff]")


def check_history(history: Sequence[ChatMessage], question_characters: int) -> tuple[tuple[str, str], ...]:
    """The turns of a history, each a question and its answer.

    Control tokens are no fault: the model reads earlier turns letter by letter.

    Args:
        history: messages of the user and the assistant in turn, oldest first.
        question_characters: longest question; the history may have `MOST_QUESTIONS` times as many bytes of UTF-8.

    Raises:
        AskError: INVALID_QUESTION; the message says what is wrong and what to do.
    """
    problem = ""
    most = MOST_QUESTIONS * question_characters
    # First, since what follows reads all of it.
    if len(history) > MOST_MESSAGES:
        problem = f"the history has {len(history)} messages; send the newest {MOST_MESSAGES}"
    elif len(history) % 2:
        problem = f"the history has {len(history)} messages; each question in it needs its answer behind it"
    elif (characters := sum(len(message.text) for message in history)) > most:
        problem = f"the history has {characters} characters; send the newest turns, of {most} bytes at most"
    for number, message in enumerate(history if not problem else (), start=1):
        expected = USER if number % 2 else ASSISTANT
        if message.role != expected:
            problem = f"message {number} of the history has the role {message.role[:50]!a}; it must be {expected!r}"
        elif broken := _HALF_CHARACTER.search(message.text):
            problem = (
                f"message {number} of the history is no UTF-8 text: its character {broken.start() + 1} is {broken[0]!a}"
            )
        elif expected == USER and not message.text.strip():
            problem = f"message {number} of the history is empty; leave it and its answer out"
        if problem:
            break
    if not problem and (size := _bytes(history)) > most:
        problem = (
            f"the history has {size} bytes of UTF-8; send the newest turns, of {most} at most, or raise the parameter "
            "question_characters"
        )
    if problem:
        raise AskError(ErrorCode.INVALID_QUESTION, problem)
    return tuple((asked.text, answer.text) for asked, answer in zip(history[::2], history[1::2], strict=True))


def newest_turns(history: Sequence[ChatMessage], turns: int, question_characters: int) -> tuple[ChatMessage, ...]:
    """The newest turns of a history that `check_history` allows.

    Args:
        history: whole turns of text, oldest first.
        turns: most of them.
        question_characters: as there.
    """
    newest = tuple(history[-2 * turns :]) if turns else ()
    while _bytes(newest) > MOST_QUESTIONS * question_characters:
        newest = newest[2:]
    return newest


def wordings(question: str, turns: Sequence[tuple[str, str]]) -> list[str]:
    """What a question may be about: its own words alone, and behind one and more of the questions before it.

    "And where was it before?" says nothing of what "it" is. Answers are left out: what they name is found by the
    question that they answer.
    """
    earlier = [asked for asked, _ in turns[-RECALLED_BY:]]
    return [" ".join([*earlier[len(earlier) - count :], question]) for count in range(len(earlier) + 1)]


def _bytes(history: Sequence[ChatMessage]) -> int:
    return sum(len(message.text.encode()) for message in history)
