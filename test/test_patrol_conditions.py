"""Conditions about patrols: how they are asked, and when they are true."""

from __future__ import annotations

import json

import numpy as np
import pytest

from fvs_ros.model.conditions import ConditionCheck, ConditionRules, PlacedCheck
from fvs_ros.model.names import EMBEDDED_FOLDER
from fvs_ros.patrol.conditions import GONE, IN_ROOM, IN_VIEW, PatrolCondition, condition_questions, draw_conditions
from fvs_ros.patrol.config import PatrolConfig
from fvs_ros.patrol.episode import Episode, simulate
from fvs_ros.patrol.visibility import FAINT_PX, SEEN_PX

RULES = ConditionRules.from_json(condition_questions())
STEPS = 150


@pytest.fixture(scope="module")
def episode() -> Episode:
    return simulate(870_700, PatrolConfig(steps=STEPS, rooms=2, views=2, changes=1.0, skips=0.0))


@pytest.fixture(scope="module")
def conditions(episode: Episode) -> list[PatrolCondition]:
    return draw_conditions(episode, 20)


def of_kind(conditions: list[PatrolCondition], kind: str) -> list[PatrolCondition]:
    return [one for one in conditions if one.kind == kind]


def test_the_model_that_ships_is_asked_so() -> None:
    config = json.loads((EMBEDDED_FOLDER / "config.json").read_text(encoding="utf-8"))
    assert config["condition_questions"] == condition_questions()


@pytest.mark.parametrize(
    ("condition", "check"),
    [
        ("a green ladder is in view", ConditionCheck("Is a green ladder in view?", ("yes",), ("no",))),
        ("Do you see an orange box now?", ConditionCheck("Is an orange box in view?", ("yes",), ("no",))),
    ],
)
def test_a_condition_is_asked_in_the_words_of_its_kind_of_question(condition: str, check: ConditionCheck) -> None:
    assert RULES.check(condition) == check


def test_a_room_is_one_of_the_answers_to_where_the_robot_is() -> None:
    check = RULES.check("The robot is in the kitchen.")
    assert isinstance(check, ConditionCheck)
    assert (check.question, check.true_texts) == ("Which room are you in?", ("kitchen",))
    assert "corridor" in check.false_texts
    assert "kitchen" not in check.false_texts


def test_what_is_gone_was_in_one_of_the_rooms() -> None:
    check = RULES.check("the white table is gone")
    assert isinstance(check, PlacedCheck)
    assert check.where.true_texts == check.here.true_texts
    assert "Was the white table still in the kitchen on your last visit?" in check.questions
    from_one = RULES.check("the white table is gone from the office")
    assert isinstance(from_one, PlacedCheck)
    assert (from_one.where.true_texts, from_one.here.true_texts) == (("office",), ("office",))
    assert {"kitchen", "not seen"} < set(from_one.where.false_texts)
    assert {"kitchen", "corridor"} < set(from_one.here.false_texts)
    assert from_one.questions[2:] == ("Was the white table still in the office on your last visit?",)


def test_every_condition_that_is_drawn_has_words_of_its_own(conditions: list[PatrolCondition]) -> None:
    for one in conditions:
        assert not any(question.startswith("Is it true that") for question in RULES.check(one.text).questions), one.text


def test_most_become_true_and_some_never_do(conditions: list[PatrolCondition]) -> None:
    for kind in (IN_VIEW, IN_ROOM, GONE):
        assert any(True in one.truth for one in of_kind(conditions, kind)), kind
        assert {len(one.truth) for one in of_kind(conditions, kind)} == {STEPS}
    for kind in (IN_VIEW, GONE):
        assert any(True not in one.truth for one in of_kind(conditions, kind)), kind


def test_in_view_is_what_both_frames_of_a_step_show(episode: Episode, conditions: list[PatrolCondition]) -> None:
    pixels = {one.name: episode.pixels[:, number] for number, one in enumerate(episode.objects)}
    for one in of_kind(conditions, IN_VIEW):
        name = one.text.split(" ", 1)[1].removesuffix(" is in view")
        shown = pixels.get(name, np.zeros(len(episode), np.int64)).reshape(STEPS, 2)
        for truth, pair in zip(one.truth, shown, strict=True):
            assert truth == (True if min(pair) >= SEEN_PX else False if max(pair) <= FAINT_PX else None)


def test_what_is_gone_is_not_there_and_was_seen_before(episode: Episode, conditions: list[PatrolCondition]) -> None:
    numbers = {one.name: number for number, one in enumerate(episode.objects)}
    for one in of_kind(conditions, GONE):
        number = numbers[one.text.removeprefix("the ").removesuffix(" is gone")]
        for step in (step for step, truth in enumerate(one.truth) if truth):
            frame = 2 * step + 1
            seen = np.flatnonzero(episode.pixels[: frame + 1, number] >= SEEN_PX)
            room, visit = int(episode.rooms[seen[-1]]), int(episode.visits[seen[-1]])
            later = {int(visit_) for visit_ in episode.visits[seen[-1] : frame + 1]} - {visit}
            there = [episode.world.visits[after].placements.get(number) for after in later]
            assert later
            assert any(at is None or at.room != room for at in there)
