"""What the demo asks: questions that suit any video, or those that a recording brings with their answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fvs_ros.evaluation.questions import QUESTIONS_FILE, read_questions
from fvs_ros.sources.frame import SECOND_NS

ANY_VIDEO = (
    "What do you see?",
    "Which vehicles have passed so far?",
    "Where was the cyclist with the helmet?",
    "Describe everything that happened, in order.",
)
# Beside QUESTIONS_FILE in a recording. At its first stamp the node is killed; questions of that stamp are asked when it
# is back, those of later ones while the stream goes on.
AFTER_RESTART_FILE = "questions_after_restart.jsonl"
# Fractions of the stream at which they are asked; the last one is streamed.
_ASK_AT = (0.15, 0.4, 0.65, 0.9)
# A question with a stamp is asked so long after the image of that stamp, which is on its way meanwhile.
_LATER_S = 0.5


@dataclass(frozen=True)
class DemoQuestion:
    """One question.

    Attributes:
        at_s: seconds from the beginning of the stream at which it is asked.
        text: the question.
        truth: the right answer, None where nobody knows.
        family: what it is about, empty for any.
        streamed: whether it goes through the action, token by token, rather than through the service.
    """

    at_s: float
    text: str
    truth: str | None = None
    family: str = ""
    streamed: bool = False

    @property
    def door(self) -> str:
        """Where it is asked."""
        return "action /ask_stream" if self.streamed else "service /ask"


def for_any_video(seconds: float) -> list[DemoQuestion]:
    """Questions spread over a stream of that length."""
    last = len(ANY_VIDEO) - 1
    return [
        DemoQuestion(fraction * seconds, text, streamed=number == last)
        for number, (fraction, text) in enumerate(zip(_ASK_AT, ANY_VIDEO, strict=True))
    ]


def of_recording(folder: Path, start_ns: int, seconds: float, file_name: str = QUESTIONS_FILE) -> list[DemoQuestion]:
    """The questions of a recording that fall into its first `seconds`; every fourth one is streamed.

    Args:
        folder: of the recording; without the file there are none.
        start_ns: stamp of its first image.
        seconds: of stream to be played.
        file_name: of the questions.

    Raises:
        DataError: the file breaks the form of timed questions.
    """
    file = folder / file_name
    if not file.is_file():
        return []
    timed = [
        ((question.on_clock(start_ns).time_ns - start_ns) / SECOND_NS + _LATER_S, question)
        for question in read_questions(file)
    ]
    asked = sorted(timed, key=lambda pair: pair[0])
    return [
        DemoQuestion(at_s, question.question, question.answer_text or None, question.family, streamed=number % 4 == 3)
        for number, (at_s, question) in enumerate(asked)
        if at_s < seconds
    ]


def is_right(answer: str, truth: str) -> bool:
    """Whether an answer is the truth, word for word."""
    return answer.strip() == truth


def right_answers(questions: Sequence[DemoQuestion], answers: Sequence[str]) -> tuple[int, int]:
    """How many answers are right, of how many whose truth is known."""
    known = [(answer, asked.truth) for answer, asked in zip(answers, questions, strict=True) if asked.truth is not None]
    return sum(is_right(answer, truth) for answer, truth in known), len(known)
