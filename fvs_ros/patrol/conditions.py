"""Conditions about patrols: how a model trained on them is asked about each, and when each is true."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fvs_ros.patrol.config import STEP_S
from fvs_ros.patrol.episode import Episode
from fvs_ros.patrol.templates import NOT_SEEN, YES_NO, with_article
from fvs_ros.patrol.truth import EpisodeRecord
from fvs_ros.patrol.visibility import FAINT_PX, SEEN_PX
from fvs_ros.patrol.vocabulary import COLOURS, CORRIDOR, KINDS, ROOMS
from fvs_ros.patrol.world import Stream, generator

IN_VIEW, IN_ROOM, GONE = "in view", "in a room", "gone"

_YES, _NO = YES_NO


def condition_questions() -> dict[str, object]:
    """`condition_questions` of a checkpoint trained on patrols: each condition in the words of its kind of question."""
    seen = "{a_colour} {kind}"
    in_view = ["{} is in view", "{} is visible", "{} is in sight", "{} is in front of you", "is {} in view"]
    in_view += ["there is {} in view", "there is {} in front of you", "you see {}", "you can see {}", "do you see {}"]
    robots = ["you are", "i am", "we are", "the robot is", "are you", "is the robot"]
    gone = ["is gone", "has gone", "was taken away", "has been taken away", "has been removed", "is missing"]
    return {
        "gaps": {
            "room": list(ROOMS),
            "place": [*ROOMS, CORRIDOR],
            "a_colour": [*map(with_article, COLOURS), *(f"the {colour}" for colour in COLOURS)],
            "colour": list(COLOURS),
            "kind": list(KINDS),
        },
        "rules": [
            {
                "conditions": [f"{one} in the {{place}}{now}" for one in robots for now in ("", " now")],
                "question": "Which room are you in?",
                "true": ["{place}"],
                "false": ["{place}"],
            },
            {
                "conditions": [one.replace("{}", seen) + now for one in in_view for now in ("", " now")],
                "question": f"Is {seen} in view?",
                "true": [_YES],
                "false": [_NO],
            },
            _gone_rule([f"the {{colour}} {{kind}} {one}" for one in gone]),
            _gone_rule([f"the {{colour}} {{kind}} {one} from the {{room}}" for one in gone]),
        ],
    }


def _gone_rule(conditions: list[str]) -> dict[str, object]:
    return {
        "conditions": conditions,
        "question": "In which room did you last see the {colour} {kind}?",
        "true": ["{room}"],
        "false": ["{room}", NOT_SEEN],
        "there": {
            "question": "Was the {colour} {kind} still in the {room} on your last visit?",
            "true": [_NO],
            "false": [_YES],
        },
        # Before it has seen all of a room again, a model takes what it has not come to yet for gone.
        "here": {"question": "Which room are you in?", "true": ["{room}"], "false": ["{place}"]},
    }


@dataclass(frozen=True)
class PatrolCondition:
    """A condition, and when it is true.

    Attributes:
        text: the condition.
        kind: `IN_VIEW`, `IN_ROOM` or `GONE`.
        truth: once each grid step has been seen; None where a person could not tell either.
    """

    text: str
    kind: str
    truth: tuple[bool | None, ...]


def draw_conditions(episode: Episode, of_each: int) -> list[PatrolCondition]:
    """Conditions about an episode: up to so many of each kind, three in four of which become true in it.

    In view is what shows at least `SEEN_PX` pixels in both frames of a step; out of view what shows at most `FAINT_PX`.
    Gone is what was not there any more when the room in which it was last seen had been seen wholly again; on the way
    through that room nobody can tell.
    """
    random = generator(episode.world.seed, Stream.QUESTIONS, 1_000_000)
    names = [one.name for one in episode.objects]
    rooms = sorted({episode.room_name(frame) for frame in range(len(episode))} - {CORRIDOR})
    alike = [f"{one.colour} {kind}" for one in episode.objects for kind in KINDS if f"{one.colour} {kind}" not in names]
    record = EpisodeRecord(episode)
    found = [_in_view(episode, name, names.index(name)) for name in names]
    never = [_in_view(episode, name, None) for name in alike]
    gone = [_gone(record, number) for number in range(len(names))]
    return [
        *_mixed([_in_room(episode, room) for room in (*rooms, CORRIDOR)], of_each, random),
        *_mixed([*found, *never], of_each, random),
        *_mixed(gone, of_each, random),
    ]


def _mixed(conditions: Sequence[PatrolCondition], count: int, random: np.random.Generator) -> list[PatrolCondition]:
    shuffled = [conditions[index] for index in random.permutation(len(conditions))]
    true = [one for one in shuffled if True in one.truth][: count - count // 4]
    return [*true, *[one for one in shuffled if True not in one.truth][: count // 4]]


def _both(true: np.ndarray, false: np.ndarray) -> tuple[bool | None, ...]:
    """Of each step, from what is so for sure in each of its frames."""
    steps = len(true) // STEP_S
    pairs = [
        (true[: steps * STEP_S].reshape(steps, STEP_S).all(1)),
        (false[: steps * STEP_S].reshape(steps, STEP_S).all(1)),
    ]
    return tuple(True if yes else False if no else None for yes, no in zip(*pairs, strict=True))


def _in_view(episode: Episode, name: str, number: int | None) -> PatrolCondition:
    pixels = np.zeros(len(episode), np.int64) if number is None else episode.pixels[:, number]
    return PatrolCondition(f"{with_article(name)} is in view", IN_VIEW, _both(pixels >= SEEN_PX, pixels <= FAINT_PX))


def _in_room(episode: Episode, room: str) -> PatrolCondition:
    here = np.array([episode.room_name(frame) == room for frame in range(len(episode))])
    return PatrolCondition(f"you are in the {room}", IN_ROOM, _both(here, ~here))


def _gone(record: EpisodeRecord, number: int) -> PatrolCondition:
    steps = range(len(record.episode) // STEP_S)
    truth = tuple(_is_gone(record, number, step * STEP_S + STEP_S - 1) for step in steps)
    return PatrolCondition(f"the {record.episode.objects[number].name} is gone", GONE, truth)


def _is_gone(record: EpisodeRecord, number: int, frame: int) -> bool | None:
    truth = record.until(frame)
    if number not in truth.seen:
        return False if number not in truth.doubtful else None
    last = truth.seen[number][-1]
    since = [stay for stay in truth.stays if stay.room == last.room and stay.visit > last.visit]
    if any(stay.complete and not truth.unsure[stay.visit, number] for stay in since):
        return True
    # On the way through the room it cannot be told yet; what is still there is not gone, whoever guesses so.
    placements = (record.episode.world.visits[stay.visit].placements.get(number) for stay in since)
    return None if since and not any(at is not None and at.room == last.room for at in placements) else False
