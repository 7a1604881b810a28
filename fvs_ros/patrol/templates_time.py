"""Questions about when things were and what a stretch of the way was like: the families time and description."""

from __future__ import annotations

import numpy as np

from fvs_ros.patrol.templates import Candidate, Frames, Template, is_steady, spans
from fvs_ros.patrol.truth import EpisodeTruth, Sighting, Stay
from fvs_ros.patrol.vocabulary import AGES, PARTS, age_words, joined, number_word

MOST_DESCRIBED = 4
"""Longer enumerations are not asked for."""
LONGEST_MIN = 20
"""Of a patrol about whose times is asked: the vocabulary counts no further."""
_MARGIN = 0.1
"""How far from a border between two answers a time must be, as a share of itself."""


def _time_part(past: EpisodeTruth, moment: int) -> list[Candidate]:
    candidates = []
    for sighting in _sure_moments(past, moment):
        share = (sighting.start if moment == 0 else sighting.end) / max(past.frame, 1)
        if all(abs(share - border) > _MARGIN / 2 for border in (1 / 3, 2 / 3)):
            answer = PARTS[min(int(share * 3), 2)]
            candidates.append(Candidate({"thing": past.name(sighting.thing)}, answer, spans([sighting]), PARTS))
    return candidates


def _sure_moments(past: EpisodeTruth, moment: int) -> list[Sighting]:
    """The first (`moment` 0) or last (-1) sighting of each object that was not glimpsed before it, or after it."""
    sure = []
    for sightings in past.seen.values():
        sighting = sightings[moment]
        others = slice(None, sighting.visit) if moment == 0 else slice(sighting.visit + 1, None)
        if not past.unsure[others, sighting.thing].any():
            sure.append(sighting)
    return sure


def _time_part_first(past: EpisodeTruth, _: np.random.Generator) -> list[Candidate]:
    return _time_part(past, 0)


def _time_part_last(past: EpisodeTruth, _: np.random.Generator) -> list[Candidate]:
    return _time_part(past, -1)


def _began(past: EpisodeTruth) -> str | None:
    """How long ago the patrol began, in words; None beyond what the words hold."""
    minutes = past.frame / past.episode.config.frame_rate / 60
    if minutes < 1:
        return "less than one minute ago"
    if minutes > LONGEST_MIN:
        return None
    return f"{number_word(round(minutes))} minute{'' if round(minutes) == 1 else 's'} ago"


def _age_answer(past: EpisodeTruth, frame: int) -> str | None:
    """The words for how long ago a frame was; None near a border between two of them."""
    age_s = (past.frame - frame) / past.episode.config.frame_rate
    if any(abs(age_s - bound) < _MARGIN * bound for bound, _ in AGES[:-1]):
        return None
    return age_words(age_s)


def _ago(past: EpisodeTruth, gap: str, last: list[tuple[str, int, Frames]]) -> list[Candidate]:
    """Candidates for what was seen last at a frame; what is in view now is left out."""
    began = _began(past)
    return [
        Candidate({gap: name, "began": began}, answer, proof)
        for name, frame, proof in last
        if began is not None and frame < past.frame and (answer := _age_answer(past, frame)) is not None
    ]


def _time_thing(past: EpisodeTruth, _: np.random.Generator) -> list[Candidate]:
    tail = 2 * past.episode.config.frame_rate
    lasts = [last for last in _sure_moments(past, -1) if past.last_glimpse(last.thing) - last.end <= tail]
    return _ago(past, "thing", [(past.name(last.thing), last.end, spans([last])) for last in lasts])


def _time_room(past: EpisodeTruth, _: np.random.Generator) -> list[Candidate]:
    last = {stay.room: stay for stay in past.stays}
    return _ago(past, "room", [(past.room(room), stay.end, spans([stay])) for room, stay in last.items()])


def _describe_room(past: EpisodeTruth, _: np.random.Generator) -> list[Candidate]:
    last = {stay.room: stay for stay in past.stays}
    return [
        Candidate({"room": past.room(room)}, joined([past.name(thing) for thing in stay.things]), spans([stay]))
        for room, stay in last.items()
        if stay.complete and stay.clean and len(stay.things) <= MOST_DESCRIBED
    ]


def _describe_since(past: EpisodeTruth, _: np.random.Generator) -> list[Candidate]:
    last = {stay.room: position for position, stay in enumerate(past.stays)}
    candidates = []
    for room, position in last.items():
        stays = past.stays[position + 1 :]
        things = list(dict.fromkeys(thing for stay in stays for thing in stay.things))
        if stays and all(stay.clean for stay in stays) and len(things) <= MOST_DESCRIBED:
            answer = joined([past.name(thing) for thing in things])
            candidates.append(Candidate({"room": past.room(room)}, answer, spans(stays)))
    return candidates


def _describe_tour(past: EpisodeTruth, _: np.random.Generator) -> list[Candidate]:
    first: dict[int, Stay] = {}
    for stay in past.stays:
        first.setdefault(stay.room, stay)
    if not 1 < len(first) <= MOST_DESCRIBED or not is_steady(past, past.stays[-1]):
        return []
    return [Candidate({}, joined([past.room(room) for room in first]), spans(first.values()))]


TEMPLATES = (
    Template(
        "time.part_first",
        (
            "Did you first see the {thing} at the beginning, in the middle or at the end of the patrol so far?",
            "In which part of the patrol did you first see the {thing}, the beginning, the middle or the end?",
        ),
        _time_part_first,
    ),
    Template(
        "time.part_last",
        (
            "Did you last see the {thing} at the beginning, in the middle or at the end of the patrol so far?",
            "In which part of the patrol did you last see the {thing}, the beginning, the middle or the end?",
        ),
        _time_part_last,
    ),
    Template(
        "time.thing",
        (
            "The patrol began {began}. How long ago did you last see the {thing}?",
            "The patrol began {began}. When did you last see the {thing}?",
        ),
        _time_thing,
    ),
    Template(
        "time.room",
        (
            "The patrol began {began}. How long ago were you last in the {room}?",
            "The patrol began {began}. When were you last in the {room}?",
        ),
        _time_room,
    ),
    Template(
        "description.room",
        ("Describe what you saw on your last visit to the {room}.", "Which objects were in the {room} last?"),
        _describe_room,
    ),
    Template(
        "description.since",
        ("Describe what you saw since you left the {room}.", "Which objects did you see since the {room}?"),
        _describe_since,
    ),
    Template(
        "description.tour",
        ("Describe your way so far.", "Which rooms did you visit, in order?"),
        _describe_tour,
    ),
)
