"""Questions about stretches of time, read back by brute force, and what is left out because nobody could be sure."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter

import numpy as np
import patrol_oracle
import pytest

from fvs_ros.patrol.config import PatrolConfig, Wording, day_config
from fvs_ros.patrol.episode import Episode, simulate
from fvs_ros.patrol.errors import PatrolError
from fvs_ros.patrol.questions import CLOCK_FAMILIES, FAMILIES, TEMPLATES, Question, ask, step_ends
from fvs_ros.patrol.templates_range import TEMPLATES as RANGES
from fvs_ros.patrol.truth import EpisodeRecord


def moments(episode: Episode, count: int) -> list[int]:
    ends = step_ends(episode)
    return [ends[len(ends) * (number + 1) // count - 1] for number in range(count)]


def check_with_oracle(episode: Episode, questions: list[Question]) -> None:
    oracles: dict[int, patrol_oracle.Oracle] = {}
    for question in questions:
        if question.frame not in oracles:
            oracles[question.frame] = patrol_oracle.Oracle(episode, question.frame)
        answer = patrol_oracle.answer(oracles[question.frame], question)
        assert answer == question.answer_text, (episode.world.seed, question)


@pytest.fixture(scope="module")
def episode() -> Episode:
    return simulate(3, day_config(3060))


def test_every_answer_of_a_patrol_with_a_clock_is_what_brute_force_finds(episode: Episode) -> None:
    questions = ask(episode, 160, CLOCK_FAMILIES, moments(episode, 6))
    assert {question.family for question in questions} == set(CLOCK_FAMILIES)
    check_with_oracle(episode, questions)


def test_every_kind_of_range_is_what_brute_force_finds_and_yesterday_is_asked_about() -> None:
    night = simulate(1383, day_config(5400))
    assert night.time_of_day_s(0) == 22.5 * 3600
    kinds = Counter[str]()
    for kind in RANGES:
        questions = ask(night, 12, (kind.name,), moments(night, 5))
        check_with_oracle(night, questions)
        kinds.update(question.template for question in questions)
        assert len({question.answer_text for question in questions}) > 1
    assert set(kinds) == {kind.name for kind in RANGES}
    asked = [question.question for question in ask(night, 60, ("range",), moments(night, 5)[-2:])]
    assert any("yesterday between eleven and twelve o'clock in the evening" in text for text in asked)
    assert any(text.endswith("yesterday?") for text in asked)
    assert any(text.endswith("between twelve and one o'clock at night?") and "yesterday" not in text for text in asked)


@pytest.mark.slow
def test_a_days_truth_is_what_brute_force_finds() -> None:
    day = simulate(11, day_config(43_200))
    questions = ask(day, 48, CLOCK_FAMILIES, moments(day, 2))
    assert len(questions) == 48
    assert any("hours ago" in question.question or "hours" in question.answer_text for question in questions)
    check_with_oracle(day, questions)


@pytest.mark.parametrize("wording", [Wording.TRAINED, Wording.HELD_OUT])
def test_what_a_clock_tells_stands_before_the_words(episode: Episode, wording: Wording) -> None:
    questions = ask(episode, 30, ("range",), moments(episode, 3), wording=wording)
    assert len(questions) == 30
    assert all(
        question.question.startswith("It is ") and " The patrol began " in question.question for question in questions
    )


def test_age_and_exposure_are_those_of_the_evidence() -> None:
    """One thing, in view from frame 5 to 12, and from 4 to 7 of the second visit; nothing else is ever seen."""
    made = simulate(3, day_config(60))
    again = int(np.flatnonzero((made.visits == 1) & (made.rooms >= 0))[0]) + 4
    pixels = np.zeros_like(made.pixels)
    pixels[5:13, 0] = pixels[again : again + 4, 0] = 50
    seen = dataclasses.replace(made, pixels=pixels)
    newest = step_ends(seen)[-1]
    ago = newest - (again + 3)

    def told(kind: str) -> dict[str, tuple[float | None, float | None]]:
        asked = ask(seen, 30, (kind,), [newest])
        return {question.answer_text: (question.age_s, question.exposure_s) for question in asked}

    thing = seen.objects[0]
    assert told("recall.colour") == {thing.colour: (ago, 12)}
    assert told("order.first") == {thing.name: (newest - 12, 8)}
    # None of a kind: all that was seen proves it, and nothing was in view.
    assert told("count.kind") == {"one": (ago, 12), "zero": (0, None)}
    # In the last room alone.
    assert made.rooms[5] != made.rooms[again]
    assert told("recall.where") == {made.room_name(again): (ago, 4)}
    lines = [json.loads(one.to_json()) for one in ask(seen, 10, ("count.kind",), [newest])]
    assert {line.get("exposure_s") for line in lines} == {12.0, None}


def test_ranges_are_for_patrols_with_a_clock_alone() -> None:
    old = simulate(3, PatrolConfig(steps=60))
    with pytest.raises(PatrolError, match="families range are unknown"):
        ask(old, 5, ("range",))
    assert not {template.name for template in TEMPLATES} & {template.name for template in RANGES}
    assert "range" not in FAMILIES


def test_nothing_hangs_on_what_was_glimpsed_at_the_border_of_a_stretch(episode: Episode) -> None:
    """A sighting that begins in the last seconds before a stretch gives neither yes nor no."""
    frame = step_ends(episode)[-1]
    # The last ten minutes begin at `start`; the thing is to be seen for three seconds around it, and never else.
    start, pixels = frame + 1 - 600, episode.pixels.copy()
    thing = episode.objects[0].name
    for at, answers in ((start - 1, set[str]()), (start + 100, {"yes"}), (start - 100, {"no"})):
        pixels[:, 0] = 0
        pixels[at : at + 3, 0] = 50
        known = EpisodeRecord(dataclasses.replace(episode, pixels=pixels)).until(frame)
        kind = next(one for one in RANGES if one.name == "range.seen")
        found = set[str]()
        for draw in range(40):
            for candidate in kind.find(known, np.random.default_rng(draw)):
                if candidate.gaps["when"] == "in the last ten minutes" and candidate.gaps["a_thing"].endswith(thing):
                    found.add(candidate.answer)
        assert found == answers, at
