"""How a model is asked whether a condition is true."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from fvs_ros.model.checkpoint_errors import CheckpointError
from fvs_ros.model.conditions import NO_RULES, ConditionCheck, ConditionRules, PlacedCheck
from fvs_ros.model.model_config import CONDITIONS, ModelConfig
from fvs_ros.model.names import EMBEDDED_FOLDER

ROOM_RULE: dict[str, Any] = {
    "conditions": ["you are in the {room}", "are you in the {room}"],
    "question": "Which room are you in?",
    "true": ["{room}"],
    "false": ["{room}", "nowhere"],
}
THING_RULE: dict[str, Any] = {
    "conditions": ["{a_colour} {kind} is in view"],
    "question": "Do you see {a_colour} {kind}?",
    "true": ["yes"],
    "false": ["no"],
}
GONE_RULE: dict[str, Any] = {
    "conditions": ["{a_colour} {kind} is gone"],
    "question": "Where did you see {a_colour} {kind}?",
    "true": ["{room}"],
    "false": ["not seen"],
    "there": {"question": "Is {a_colour} {kind} in the {room}?", "true": ["no"], "false": ["yes"]},
    "here": {"question": "Which room?", "true": ["{room}"], "false": ["hall"]},
}
VALUES: dict[str, Any] = {
    "gaps": {"room": ["kitchen", "Salon", "kitchen annex"], "a_colour": ["a red", "the red"], "kind": ["box"]},
    "rules": [ROOM_RULE, THING_RULE, GONE_RULE],
}


@pytest.mark.parametrize(
    ("condition", "question"),
    [
        ("the door is open", "Is it true that the door is open?"),
        (" a green ladder\n is in view. ", "Is it true that a green ladder is in view?"),
        ("Is the door open?", "Is the door open?"),
        ("Ist die Tür offen? ", "Ist die Tür offen? "),
        ("Is it raining? Say\nyes or no.", "Is it raining? Say\nyes or no."),
        ("门开着吗？", "门开着吗？"),
    ],
)
def test_any_model_is_asked_for_yes_or_no(condition: str, question: str) -> None:
    assert NO_RULES.check(condition) == ConditionCheck(question, ("yes", "Yes"), ("no", "No"))


@pytest.mark.parametrize(
    ("condition", "check"),
    [
        (
            "You are  in the KITCHEN.",
            ConditionCheck("Which room are you in?", ("kitchen",), ("Salon", "kitchen annex", "nowhere")),
        ),
        (
            "are you in the salon?",
            ConditionCheck("Which room are you in?", ("Salon",), ("kitchen", "kitchen annex", "nowhere")),
        ),
        (
            "you are in the kitchen annex",
            ConditionCheck("Which room are you in?", ("kitchen annex",), ("kitchen", "Salon", "nowhere")),
        ),
        ("the red box is in view", ConditionCheck("Do you see the red box?", ("yes",), ("no",))),
        ("a red box is in view today", ConditionCheck("Is it true that a red box is in view today?")),
        ("you are in the cellar", ConditionCheck("Is it true that you are in the cellar?")),
        ("you are in the " + "x" * 300, ConditionCheck(f"Is it true that you are in the {'x' * 300}?")),
    ],
)
def test_a_model_with_words_of_its_own_is_asked_in_these(condition: str, check: ConditionCheck) -> None:
    assert ConditionRules.from_json(VALUES).check(condition) == check


def test_rules_are_written_as_they_were_read() -> None:
    rules = ConditionRules.from_json(VALUES)
    assert rules.to_json() == VALUES
    assert ConditionRules.from_json(rules.to_json()).check("are you in the salon") == rules.check(
        "are you in the salon"
    )


def test_the_probability_is_that_of_the_true_texts_among_all() -> None:
    check = ConditionCheck("Which?", ("a", "b"), ("c",))
    assert check.texts == (("a", "b", "c"),)
    assert check.probability([[math.log(0.1), math.log(0.2), math.log(0.1)]]) == pytest.approx(0.75)
    assert check.probability([[-1000.0, -1001.0, -5000.0]]) == pytest.approx(1.0)
    assert ConditionCheck("Is it?").probability([[-math.inf] * 4]) == 0.5


def test_a_condition_about_places_sums_over_them() -> None:
    check = ConditionRules.from_json(VALUES).check("The red box is gone.")
    assert isinstance(check, PlacedCheck)
    assert check.questions == (
        "Where did you see the red box?",
        "Which room?",
        "Is the red box in the kitchen?",
        "Is the red box in the Salon?",
        "Is the red box in the kitchen annex?",
    )
    assert check.texts == (
        ("kitchen", "Salon", "kitchen annex", "not seen"),
        ("kitchen", "Salon", "kitchen annex", "hall"),
        *[("no", "yes")] * 3,
    )
    where = [math.log(share) for share in (0.5, 0.2, 0.1, 0.2)]
    there = [[math.log(gone), math.log(1 - gone)] for gone in (0.8, 0.5, 0.1)]
    here = [math.log(share) for share in (0.6, 0.1, 0.1, 0.2)]
    true = 0.5 * 0.4 * 0.8 + 0.2 * 0.9 * 0.5 + 0.1 * 0.9 * 0.1
    assert check.probability([where, here, *there]) == pytest.approx(true)


def changed(rule: dict[str, Any], **values: Any) -> dict[str, Any]:
    return {**VALUES, "rules": [{**rule, **values}]}


@pytest.mark.parametrize(
    ("values", "hint"),
    [
        ([], "an object with gaps and rules"),
        ({**VALUES, "more": 1}, "an object with gaps and rules"),
        ({"gaps": [], "rules": []}, "an object of lists"),
        ({**VALUES, "rules": [1]}, "a rule of condition_questions must have"),
        (changed(ROOM_RULE, extra=1), "a rule of condition_questions must have"),
        (changed(ROOM_RULE, conditions=[]), "conditions of condition_questions must be a list"),
        (changed(ROOM_RULE, conditions=["in the {cellar}"]), "no gap cellar"),
        (changed(ROOM_RULE, conditions=["you are there"]), "gaps that its conditions lack: room"),
        (changed(ROOM_RULE, conditions=["{room} or {room}"]), "each once"),
        (changed(ROOM_RULE, conditions=["in the {room}", "there"]), "the gaps of the rule's others"),
        (changed(GONE_RULE, true=["kitchen"]), "must be one gap, the same one"),
        (changed(GONE_RULE, true=["{kind}"]), "must be one gap, the same one"),
        (changed(GONE_RULE, true=["{kind}", "{room}"]), "must be one gap, the same one"),
        (changed(GONE_RULE, here={**GONE_RULE["here"], "true": ["hall"]}), "must be one gap, the same one"),
        (changed(GONE_RULE, there={"question": "?"}), "there of condition_questions must have"),
        (changed(ROOM_RULE, question=""), "question of condition_questions"),
        (changed(ROOM_RULE, question="{room"), "braces around gaps alone"),
        (changed(ROOM_RULE, false=["{kind} {room}"]), "may have one gap"),
        (changed(ROOM_RULE, true=["x" * 201]), "up to 200 characters"),
        ({**VALUES, "gaps": {"room": [""]}}, "the gap room of condition_questions"),
        ({**VALUES, "gaps": {"room": ["x"] * 201}}, "a list of 1 to 200 texts"),
    ],
)
def test_rules_that_make_no_sense_are_refused(values: object, hint: str) -> None:
    with pytest.raises(ValueError, match=hint):
        ConditionRules.from_json(values)


def embedded_config() -> dict[str, Any]:
    config: dict[str, Any] = json.loads((EMBEDDED_FOLDER / "config.json").read_text(encoding="utf-8"))
    return config


def test_a_checkpoint_keeps_its_rules() -> None:
    config = embedded_config()
    read = ModelConfig.from_json(config)
    assert read.to_json()[CONDITIONS] == config[CONDITIONS]
    assert read.conditions.check("you are in the kitchen").questions == ("Which room are you in?",)
    del config[CONDITIONS]
    plain = ModelConfig.from_json(config)
    assert CONDITIONS not in plain.to_json()
    assert plain.conditions.check("you are in the kitchen").questions == ("Is it true that you are in the kitchen?",)


def test_a_checkpoint_with_rules_that_make_no_sense_is_refused() -> None:
    with pytest.raises(CheckpointError, match=r"config\.json cannot be used: .*gaps and rules"):
        ModelConfig.from_json({**embedded_config(), CONDITIONS: {}})
