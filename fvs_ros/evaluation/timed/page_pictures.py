"""Pictures for the page of a replay: what an answer rests on, beside what proves the right one."""

from __future__ import annotations

import base64
import logging
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from fvs_ros.evaluation.answers import AnswerRow
from fvs_ros.evaluation.questions import TimedQuestion
from fvs_ros.evaluation.timed.breakdowns import GRID_STEP_S, missed_s
from fvs_ros.sources.frame import SECOND_NS, Frame, ImageError
from fvs_ros.stream.evidence import most_relevant
from fvs_ros.stream.pictures import shown_jpeg
from fvs_ros.stream.words import age_text

logger = logging.getLogger(__name__)

# More questions than a person looks at would only make the page large: 5 to 10 kB a picture.
MOST_PICTURED = 200
# Of each question.
MOMENTS_SHOWN = PROOFS_SHOWN = 3
# Pixels of the longer side.
_SIDE = 240


@dataclass(frozen=True)
class Shot:
    """A picture on the page.

    Attributes:
        stamp_ns: that it is for.
        caption: how relevant the moment is, and how long before the question it was.
        on_proof: whether the moment hits the proof, to a grid step; None without a proof.
        style: name of the picture's style class; empty where there is none.
    """

    stamp_ns: int
    caption: str
    on_proof: bool | None = None
    style: str = ""


@dataclass(frozen=True)
class PicturedQuestion:
    """A question with the first moments of its answer, and moments of its proof."""

    question: TimedQuestion
    row: AnswerRow | None
    moments: tuple[Shot, ...]
    proof: tuple[Shot, ...]

    @property
    def correct(self) -> float | None:
        """As the strict grade has it."""
        return self.question.grade(None if self.row is None else self.row.response).correct


def pictured_questions(questions: Sequence[TimedQuestion], rows: Mapping[str, AnswerRow]) -> list[PicturedQuestion]:
    """The first questions in order of time, with what is to be shown of each; no picture has a style yet.

    Args:
        questions: with stamps on the recording's clock.
        rows: their answers, by the question's id.
    """
    chosen = sorted(questions, key=lambda one: one.time_ns)[:MOST_PICTURED]
    return [
        PicturedQuestion(one, row, _moment_shots(one, row), _proof_shots(one))
        for one in chosen
        for row in (rows.get(one.id),)
    ]


def _moment_shots(question: TimedQuestion, row: AnswerRow | None) -> tuple[Shot, ...]:
    shots = []
    for moment in most_relevant(() if row is None else row.moments or (), MOMENTS_SHOWN):
        relevance = "" if moment.relevance is None else f"{moment.relevance:.0%}, "
        miss_s = missed_s(question, [moment], 1)
        on_proof = None if miss_s is None else miss_s <= GRID_STEP_S
        shots.append(Shot(moment.stamp_ns, f"{relevance}{_age(question, moment.stamp_ns)}", on_proof))
    return tuple(shots)


def _proof_shots(question: TimedQuestion) -> tuple[Shot, ...]:
    """The middles of at most three of its intervals, evenly spaced among them, the first and the last included."""
    middles = [(start + min(end, max(question.time_ns, start))) // 2 for start, end in question.proof_ns]
    last, shown = len(middles) - 1, min(len(middles), PROOFS_SHOWN)
    places = [round(number * last / max(shown - 1, 1)) for number in range(shown)]
    return tuple(Shot(middles[place], _age(question, middles[place])) for place in places)


def _age(question: TimedQuestion, stamp_ns: int) -> str:
    return age_text((question.time_ns - stamp_ns) / SECOND_NS)


def pictures_of(frames: Iterable[Frame], pictured: Sequence[PicturedQuestion]) -> dict[int, bytes]:
    """A small JPEG of the frame nearest to each stamp that is shown, by that stamp.

    Frames that are not shown are not decoded; a frame that cannot be decoded has no picture.

    Args:
        frames: of the recording, in order of their stamps.
        pictured: what is shown.
    """
    shots = [shot for one in pictured for shot in (*one.moments, *one.proof)]
    wanted = deque(sorted({shot.stamp_ns for shot in shots}))
    pictures: dict[int, bytes] = {}
    decoded: dict[int, bytes | None] = {}

    def show(stamp_ns: int, frame: Frame) -> None:
        if frame.stamp_ns not in decoded:
            decoded[frame.stamp_ns] = _small(frame)
        if (jpeg := decoded[frame.stamp_ns]) is not None:
            pictures[stamp_ns] = jpeg

    before: Frame | None = None
    for frame in frames:
        while wanted and wanted[0] <= frame.stamp_ns:
            stamp_ns = wanted.popleft()
            is_nearer = before is None or frame.stamp_ns - stamp_ns < stamp_ns - before.stamp_ns
            show(stamp_ns, frame if is_nearer or before is None else before)
        if not wanted:
            break
        before = frame
    while wanted and before is not None:
        show(wanted.popleft(), before)
    return pictures


def _small(frame: Frame) -> bytes | None:
    try:
        return shown_jpeg(frame.image(), _SIDE)
    except ImageError as error:
        logger.warning("no picture of the frame at %.3f s: %s", frame.stamp_ns / SECOND_NS, error)
        return None


def styles(pictures: Mapping[int, bytes]) -> tuple[dict[int, str], dict[str, str]]:
    """Each picture once, however often it is shown: as style classes.

    Returns:
        The class of each stamp, and for each class the address of its picture.
    """
    names: dict[bytes, str] = {}
    of_stamps = {stamp_ns: names.setdefault(jpeg, f"p{len(names)}") for stamp_ns, jpeg in sorted(pictures.items())}
    addresses = {name: f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}" for jpeg, name in names.items()}
    return of_stamps, addresses
