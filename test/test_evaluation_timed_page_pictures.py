"""Pictures for a replay's page: which are shown, of which frames, and each once."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import replace
from typing import NoReturn

import cv2
import numpy as np
import pytest
from fakes import SECOND_NS, frame

from fvs_ros.evaluation.answers import AnswerRow
from fvs_ros.evaluation.questions import TimedQuestion
from fvs_ros.evaluation.timed.page_pictures import MOST_PICTURED, Shot, pictured_questions, pictures_of, styles
from fvs_ros.sources.frame import Frame, ImageError
from fvs_ros.stream.types import Moment


def question(second: float, *proof: tuple[float, float], identity: str = "q") -> TimedQuestion:
    spans = tuple((round(start * SECOND_NS), round(end * SECOND_NS)) for start, end in proof)
    return TimedQuestion(identity, round(second * SECOND_NS), False, "What?", answer="yes", proof_ns=spans)


def row(*moments: tuple[float, float | None], response: str = "yes") -> AnswerRow:
    stamps = [(round(second * SECOND_NS), relevance) for second, relevance in moments]
    shown = tuple(Moment(stamp, stamp, stamp, 1.0, relevance=relevance) for stamp, relevance in stamps)
    return AnswerRow("q", "What?", "yes", response, moments=shown)


def test_the_first_three_moments_stand_beside_the_proof() -> None:
    asked = question(200, (10, 20))
    (one,) = pictured_questions([asked], {"q": row((100, 0.1), (12, 0.5), (199, 0.3), (50, 0.05), (22, 0.2))})
    assert one.moments == (
        Shot(12 * SECOND_NS, "50%, 3 min ago", True),
        Shot(199 * SECOND_NS, "30%, now", False),
        # A grid step beside the proof still hits it.
        Shot(22 * SECOND_NS, "20%, 3 min ago", True),
    )
    assert one.proof == (Shot(15 * SECOND_NS, "3 min ago"),)
    assert one.correct == 1


def test_of_many_proofs_three_are_shown_and_none_after_the_question() -> None:
    asked = question(100, *((10 * place, 10 * place + 2) for place in range(9)), (95, 300))
    (one,) = pictured_questions([asked], {})
    assert [shot.stamp_ns / SECOND_NS for shot in one.proof] == [1, 41, 97.5]
    assert (one.moments, one.row, one.correct) == ((), None, 0)


def test_without_a_proof_moments_neither_hit_nor_miss() -> None:
    (one,) = pictured_questions([question(10)], {"q": row((4, None))})
    assert one.moments == (Shot(4 * SECOND_NS, "6 s ago", None),)
    assert one.proof == ()


def test_no_more_questions_are_pictured_than_a_person_looks_at() -> None:
    many = [question(MOST_PICTURED + 5 - number, identity=f"q{number}") for number in range(MOST_PICTURED + 5)]
    pictured = pictured_questions(many, {})
    assert [one.question.time_ns for one in pictured] == [second * SECOND_NS for second in range(1, MOST_PICTURED + 1)]


def test_the_nearest_frame_is_shown_and_no_other_is_decoded() -> None:
    decoded: list[int] = []

    def frames() -> Iterator[Frame]:
        for second in range(0, 100, 10):

            def image(second: int = second) -> np.ndarray:
                decoded.append(second)
                return np.full((480, 960, 3), second, np.uint8)

            yield replace(frame(second), image=image)

    pictured = pictured_questions([question(200, (14, 14))], {"q": row((-5, 0.4), (16, 0.3), (500, 0.2))})
    pictures = pictures_of(frames(), pictured)
    shades = {}
    for stamp_ns, jpeg in pictures.items():
        shown = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
        assert shown is not None
        assert shown.shape == (120, 240, 3)
        shades[stamp_ns // SECOND_NS] = round(float(shown.mean()), -1)
    assert shades == {-5: 0, 14: 10, 16: 20, 500: 90}
    assert decoded == [0, 10, 20, 90]


def test_a_frame_that_cannot_be_decoded_has_no_picture() -> None:
    def broken() -> NoReturn:
        raise ImageError("truncated", "half of it is missing")

    pictured = pictured_questions([question(9)], {"q": row((1, 0.5), (2, 0.5))})
    assert set(pictures_of([replace(frame(1), image=broken), frame(2)], pictured)) == {2 * SECOND_NS}
    assert pictures_of([], pictured) == {}


def test_a_picture_that_is_shown_often_is_on_the_page_once() -> None:
    of_stamps, addresses = styles({5: b"one", 3: b"two", 9: b"one"})
    assert of_stamps == {3: "p0", 5: "p1", 9: "p1"}
    assert addresses["p1"] == "data:image/jpeg;base64," + base64.b64encode(b"one").decode()
    assert len(addresses) == 2


@pytest.mark.parametrize("stamps", [(), (7,)])
def test_styles_are_names_that_a_style_sheet_takes(stamps: tuple[int, ...]) -> None:
    assert all(name.isalnum() and name[0].isalpha() for name in styles(dict.fromkeys(stamps, b""))[1])
