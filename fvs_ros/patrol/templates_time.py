"""Questions about when things were and what a stretch of the way was like: the families time and description."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np

from fvs_ros.patrol.clock import lasted_words
from fvs_ros.patrol.templates import (
    Candidate,
    Template,
    enumerated,
    everything,
    inspected_rooms,
    is_steady,
    spans,
    template,
)
from fvs_ros.patrol.truth import EpisodeTruth, Sighting, Stay
from fvs_ros.patrol.vocabulary import AGES, DURATIONS, LONG_AGES, LONG_DURATIONS, NUMBERS, PARTS, joined

MOST_DESCRIBED = 4
"""Longer enumerations are not asked for."""
MOST_TOLD = 6
"""Objects that the story so far names; more are counted."""
MOST_TRIPLES = 8
"""Triples of objects that one moment's candidates compare."""
LONGEST_MIN = 20
"""Of a patrol without a clock about whose times is asked: the vocabulary counts no further."""
_MARGIN = 0.1
"""How far from a border between two answers a time must be, as a share of itself."""

TEMPLATES: list[Template] = []
_template = partial(template, TEMPLATES)


@_template(
    "time.part_last",
    "Did you last see the {thing} at the beginning, in the middle or at the end of the patrol so far?",
    "In which part of the patrol did you last see the {thing}, the beginning, the middle or the end?",
    moment=-1,
)
@_template(
    "time.part_first",
    "Did you first see the {thing} at the beginning, in the middle or at the end of the patrol so far?",
    "In which part of the patrol did you first see the {thing}, the beginning, the middle or the end?",
    moment=0,
)
def _time_part(truth: EpisodeTruth, _: np.random.Generator, moment: int) -> Iterator[Candidate]:
    for sighting in _sure_moments(truth, moment):
        share = (sighting.start if moment == 0 else sighting.end) / max(truth.frame, 1)
        if all(abs(share - border) > _MARGIN / 2 for border in (1 / 3, 2 / 3)):
            answer = PARTS[min(int(share * 3), 2)]
            yield Candidate({"thing": truth.name(sighting.object_id)}, answer, spans([sighting]), PARTS)


def _sure_moments(truth: EpisodeTruth, moment: int) -> Iterator[Sighting]:
    """The first (`moment` 0) or last (-1) sighting of each object that was not glimpsed before it, or after it."""
    for sightings in truth.seen.values():
        sighting = sightings[moment]
        others = slice(None, sighting.visit) if moment == 0 else slice(sighting.visit + 1, None)
        if not truth.unsure[others, sighting.object_id].any():
            yield sighting


def _began(truth: EpisodeTruth) -> str | None:
    """How long ago the patrol began, in words; None beyond what the words hold."""
    seconds = truth.frame / truth.episode.config.frame_rate
    if seconds > 60 * LONGEST_MIN and not truth.episode.config.clock:
        return None
    return f"{lasted_words(seconds)} ago"


def _ago(truth: EpisodeTruth, gap: str, name: str, last: Sighting | Stay) -> Iterator[Candidate]:
    """How long ago something was seen last: nothing while it is in view, or near a border between two answers."""
    age_s = (truth.frame - last.end) / truth.episode.config.frame_rate
    began, ages = _began(truth), LONG_AGES if truth.episode.config.clock else AGES
    if began is not None and age_s > 0 and all(abs(age_s - bound) >= _MARGIN * bound for bound, _ in ages[:-1]):
        answer = next(words for bound, words in ages if age_s < bound)
        yield Candidate({gap: name, "began": began}, answer, spans([last]))


@_template(
    "time.thing",
    "The patrol began {began}. How long ago did you last see the {thing}?",
    "The patrol began {began}. When did you last see the {thing}?",
)
def _time_thing(truth: EpisodeTruth, _: np.random.Generator) -> Iterator[Candidate]:
    tail = 2 * truth.episode.config.frame_rate
    for last in _sure_moments(truth, -1):
        if truth.last_glimpse(last.object_id) - last.end <= tail:
            yield from _ago(truth, "thing", truth.name(last.object_id), last)


@_template(
    "time.room",
    "The patrol began {began}. How long ago were you last in the {room}?",
    "The patrol began {began}. When were you last in the {room}?",
)
def _time_room(truth: EpisodeTruth, _: np.random.Generator) -> Iterator[Candidate]:
    for stay in truth.last_stays.values():
        yield from _ago(truth, "room", truth.room(stay.room), stay)


def _lasted(truth: EpisodeTruth, frames: int) -> str | None:
    """How long something took, in words; None near a border between two answers."""
    seconds = frames / truth.episode.config.frame_rate
    durations = LONG_DURATIONS if truth.episode.config.clock else DURATIONS
    if any(abs(seconds - bound) < _MARGIN * bound for bound, _ in durations[:-1]):
        return None
    return next(words for bound, words in durations if seconds < bound)


@_template("time.duration")
def _time_duration(truth: EpisodeTruth, _: np.random.Generator) -> Iterator[Candidate]:
    answer = _lasted(truth, truth.frame)
    if answer is not None:
        yield Candidate({}, answer, everything(truth))


@_template("time.stay")
def _time_stay(truth: EpisodeTruth, _: np.random.Generator) -> Iterator[Candidate]:
    """How long the robot was in a room it has left, on its last visit."""
    for stay in truth.last_stays.values():
        answer = _lasted(truth, stay.end - stay.start + 1)
        if answer is not None and stay.end < truth.frame and is_steady(truth, stay):
            yield Candidate({"room": truth.room(stay.room)}, answer, spans([stay]))


@_template("time.nearest")
def _time_nearest(truth: EpisodeTruth, random: np.random.Generator) -> Iterator[Candidate]:
    """Which of two objects was seen closer in time to a third: each was seen once, one at most half as far off."""
    once = [
        sightings[0]
        for object_id, sightings in truth.seen.items()
        if len(sightings) == 1 and not truth.unsure[:, object_id].any()
    ]
    for _ in range(MOST_TRIPLES if len(once) > 2 else 0):
        thing, *two = (once[index] for index in random.permutation(len(once))[:3])
        near, far = sorted(two, key=lambda other: _gap(thing, other))
        if 2 * _gap(thing, near) < _gap(thing, far):
            names = tuple(truth.name(other.object_id) for other in two)
            gaps = {"thing": truth.name(thing.object_id), "one": names[0], "other": names[1]}
            yield Candidate(gaps, truth.name(near.object_id), spans([thing, near, far]), names)


def _gap(one: Sighting, other: Sighting) -> int:
    """Frames between two sightings, 0 where they overlap."""
    return max(one.start - other.end, other.start - one.end, 0)


@_template(
    "description.room",
    "Describe what you saw on your last visit to the {room}.",
    "Which objects were in the {room} last?",
)
def _describe_room(truth: EpisodeTruth, _: np.random.Generator) -> Iterator[Candidate]:
    for stay in inspected_rooms(truth, MOST_DESCRIBED):
        yield Candidate({"room": truth.room(stay.room)}, enumerated(truth, stay.objects), spans([stay]))


@_template(
    "description.since",
    "Describe what you saw since you left the {room}.",
    "Which objects did you see since the {room}?",
)
def _describe_since(truth: EpisodeTruth, _: np.random.Generator) -> Iterator[Candidate]:
    for room, last in truth.last_stays.items():
        stays = [stay for stay in truth.stays if stay.start > last.start]
        object_ids = list(dict.fromkeys(object_id for stay in stays for object_id in stay.objects))
        if stays and all(stay.clean for stay in stays) and len(object_ids) <= MOST_DESCRIBED:
            yield Candidate({"room": truth.room(room)}, enumerated(truth, object_ids), spans(stays))


@_template("description.tour", "Describe your way so far.", "Which rooms did you visit, in order?")
def _describe_tour(truth: EpisodeTruth, _: np.random.Generator) -> Iterator[Candidate]:
    first = truth.first_stays
    if 1 < len(first) <= MOST_DESCRIBED and is_steady(truth, truth.stays[-1]):
        yield Candidate({}, joined([truth.room(room) for room in first]), spans(first.values()))


@_template("description.story")
def _describe_story(truth: EpisodeTruth, _: np.random.Generator) -> Iterator[Candidate]:
    """The rooms in the order of their first visits, each with what was first seen there, or with how much."""
    stays = truth.stays
    if len(truth.first_stays) < 2 or not all(stay.clean for stay in stays) or not is_steady(truth, stays[-1]):
        return
    new: dict[int, list[int]] = {room: [] for room in truth.first_stays}
    known: set[int] = set()
    for stay in stays:
        new[stay.room] += [object_id for object_id in stay.objects if object_id not in known]
        known.update(stay.objects)
    if len(known) <= MOST_TOLD and len(new) <= MOST_DESCRIBED:
        parts = [f"{truth.room(room)} with {enumerated(truth, object_ids)}" for room, object_ids in new.items()]
    elif max(map(len, new.values())) < len(NUMBERS):
        parts = [f"{truth.room(room)} with {_objects(len(object_ids))}" for room, object_ids in new.items()]
    else:
        return
    yield Candidate({}, ", then ".join(parts), spans(stays))


def _objects(count: int) -> str:
    return f"{NUMBERS[count]} object{'' if count == 1 else 's'}"
