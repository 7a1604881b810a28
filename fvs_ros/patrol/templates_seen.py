"""Questions about what is or was there: the families now, recall and count."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np

from fvs_ros.patrol.templates import (
    NOT_SEEN,
    YES_NO,
    Candidate,
    Frames,
    Template,
    everything,
    is_steady,
    spans,
    unseen_names,
    with_article,
)
from fvs_ros.patrol.truth import EpisodeTruth, Sighting
from fvs_ros.patrol.vocabulary import COLOURS, KINDS, PLURALS, ROOMS, joined, number_word
from fvs_ros.patrol.world import SceneObject

MOST_COUNTED = 9
"""Larger numbers are not asked for."""


def _newest(past: EpisodeTruth) -> Frames:
    return ((past.frame - past.episode.config.frame_rate, past.frame),)


def _now_view(past: EpisodeTruth, _: np.random.Generator) -> list[Candidate]:
    return [Candidate({}, joined([past.name(thing) for thing in past.in_view]), _newest(past))] if past.calm else []


def _now_count(past: EpisodeTruth, _: np.random.Generator) -> list[Candidate]:
    return [Candidate({}, number_word(len(past.in_view)), _newest(past))] if past.calm else []


def _now_room(past: EpisodeTruth, _: np.random.Generator) -> list[Candidate]:
    return [Candidate({}, past.episode.room_name(past.frame), _newest(past))] if past.calm else []


def _now_colour(past: EpisodeTruth, _: np.random.Generator) -> list[Candidate]:
    things = _only_ones(past, past.in_view if past.calm else [], lambda thing: thing.kind)
    return [Candidate({"kind": thing.kind}, thing.colour, _newest(past)) for thing in things]


def _now_kind(past: EpisodeTruth, _: np.random.Generator) -> list[Candidate]:
    things = _only_ones(past, past.in_view if past.calm else [], lambda thing: thing.colour)
    return [Candidate({"colour": thing.colour}, thing.kind, _newest(past)) for thing in things]


def _only_ones(past: EpisodeTruth, indices: list[int], of: Callable[[SceneObject], str]) -> list[SceneObject]:
    """The objects among `indices` that share `of` with no other of them."""
    things = [past.episode.things[index] for index in indices]
    counts = Counter(of(thing) for thing in things)
    return [thing for thing in things if counts[of(thing)] == 1]


def _now_presence(past: EpisodeTruth, random: np.random.Generator) -> list[Candidate]:
    # An empty view would make "no" the more frequent answer.
    if not past.calm or not past.in_view:
        return []
    things = [past.episode.things[thing] for thing in past.in_view]
    here = {thing.name for thing in things}
    near = [
        name
        for thing in things
        for name in (
            f"{tuple(COLOURS)[random.integers(len(COLOURS))]} {thing.kind}",
            f"{thing.colour} {KINDS[random.integers(len(KINDS))]}",
        )
        if name not in here
    ]
    return [
        Candidate({"a_thing": with_article(name)}, answer, _newest(past), YES_NO)
        for answer, names in (("yes", sorted(here)), ("no", near))
        for name in names
    ]


def _recall_seen(past: EpisodeTruth, random: np.random.Generator) -> list[Candidate]:
    seen = [
        Candidate({"a_thing": with_article(past.name(thing))}, "yes", spans(sightings), YES_NO)
        for thing, sightings in past.seen.items()
    ]
    unseen = [
        Candidate({"a_thing": with_article(name)}, "no", everything(past), YES_NO)
        for name in unseen_names(past, random, 6)
    ]
    return [*seen, *unseen] if seen and unseen else []


def _recall_where(past: EpisodeTruth, random: np.random.Generator) -> list[Candidate]:
    candidates = [
        Candidate({"thing": name}, NOT_SEEN, everything(past)) for name in unseen_names(past, random, 2) if past.seen
    ]
    for thing, sightings in past.seen.items():
        last = sightings[-1]
        # Glimpsed elsewhere since: the last room is not sure.
        if not past.unsure[last.visit + 1 :, thing].any():
            proof = spans(sighting for sighting in sightings if sighting.room == last.room)
            candidates.append(Candidate({"thing": past.name(thing)}, past.room(last.room), proof))
    return candidates


def _recall_colour(past: EpisodeTruth, _: np.random.Generator) -> list[Candidate]:
    doubtful = {past.episode.things[thing].kind for thing in past.doubtful}
    return [
        Candidate({"kind": thing.kind}, thing.colour, _proof(past, thing))
        for thing in _only_ones(past, list(past.seen), lambda thing: thing.kind)
        if thing.kind not in doubtful
    ]


def _proof(past: EpisodeTruth, thing: SceneObject, room: int | None = None) -> Frames:
    sightings = past.seen[past.episode.things.index(thing)]
    return spans(sighting for sighting in sightings if room is None or sighting.room == room)


def _by_room(past: EpisodeTruth) -> dict[int, list[Sighting]]:
    rooms: dict[int, list[Sighting]] = {}
    for sighting in past.sightings:
        rooms.setdefault(sighting.room, []).append(sighting)
    return rooms


def _doubtful_in(past: EpisodeTruth, room: int) -> set[int]:
    """Objects that may have been seen in a room, though never for sure."""
    visits = [stay.visit for stay in past.stays if stay.room == room]
    sure = {sighting.thing for sighting in past.sightings if sighting.room == room}
    return {int(thing) for thing in np.flatnonzero(past.unsure[visits].any(axis=0))} - sure


def _recall_in_room(
    past: EpisodeTruth, gap: str, of: Callable[[SceneObject], str], answer: Callable[[SceneObject], str]
) -> list[Candidate]:
    candidates = []
    for room, sightings in _by_room(past).items():
        doubtful = {of(past.episode.things[thing]) for thing in _doubtful_in(past, room)}
        indices = sorted({sighting.thing for sighting in sightings})
        candidates += [
            Candidate({gap: of(thing), "room": past.room(room)}, answer(thing), _proof(past, thing, room))
            for thing in _only_ones(past, indices, of)
            if of(thing) not in doubtful
        ]
    return candidates


def _recall_room_colour(past: EpisodeTruth, _: np.random.Generator) -> list[Candidate]:
    return _recall_in_room(past, "kind", lambda thing: thing.kind, lambda thing: thing.colour)


def _recall_room_kind(past: EpisodeTruth, _: np.random.Generator) -> list[Candidate]:
    return _recall_in_room(past, "colour", lambda thing: thing.colour, lambda thing: thing.kind)


def _recall_visited(past: EpisodeTruth, _: np.random.Generator) -> list[Candidate]:
    candidates = []
    for name in ROOMS:
        stays = [stay for stay in past.stays if past.room(stay.room) == name]
        if not stays:
            candidates.append(Candidate({"room": name}, "no", everything(past), YES_NO))
        elif any(is_steady(past, stay) for stay in stays):
            candidates.append(Candidate({"room": name}, "yes", spans(stays), YES_NO))
    return candidates


def _count_by(
    past: EpisodeTruth, of: Callable[[SceneObject], str], values: tuple[str, ...]
) -> list[tuple[str, int, Frames]]:
    """For each value, how many objects of it were seen, and what proves it."""
    things = past.episode.things
    doubtful = {of(things[thing]) for thing in past.doubtful}
    found = []
    for value in values:
        sightings = [sighting for sighting in past.sightings if of(things[sighting.thing]) == value]
        if value not in doubtful:
            count = len({sighting.thing for sighting in sightings})
            found.append((value, count, spans(sightings) or everything(past)))
    return [(value, count, proof) for value, count, proof in found if count <= MOST_COUNTED]


def _count_kind(past: EpisodeTruth, _: np.random.Generator) -> list[Candidate]:
    counts = _count_by(past, lambda thing: thing.kind, KINDS)
    return [Candidate({"kinds": PLURALS[kind]}, number_word(count), proof) for kind, count, proof in counts]


def _count_colour(past: EpisodeTruth, _: np.random.Generator) -> list[Candidate]:
    counts = _count_by(past, lambda thing: thing.colour, tuple(COLOURS))
    return [Candidate({"colour": colour}, number_word(count), proof) for colour, count, proof in counts]


def _count_all(past: EpisodeTruth, _: np.random.Generator) -> list[Candidate]:
    counts = _count_by(past, lambda _: "", ("",))
    return [Candidate({}, number_word(count), proof) for _, count, proof in counts]


def _count_room(past: EpisodeTruth, _: np.random.Generator) -> list[Candidate]:
    last = {stay.room: stay for stay in past.stays}
    return [
        Candidate({"room": past.room(room)}, number_word(len(stay.things)), spans([stay]))
        for room, stay in last.items()
        if stay.complete and stay.clean and len(stay.things) <= MOST_COUNTED
    ]


def _count_rooms(past: EpisodeTruth, _: np.random.Generator) -> list[Candidate]:
    first: dict[int, Frames] = {}
    for stay in past.stays:
        first.setdefault(stay.room, spans([stay]))
    # A room just entered may or may not have been noticed.
    if not past.stays or not is_steady(past, past.stays[-1]):
        return []
    return [Candidate({}, number_word(len(first)), tuple(proof for spans_ in first.values() for proof in spans_))]


TEMPLATES = (
    Template("now.view", ("What do you see now?", "What is in view?", "What is in front of you?"), _now_view),
    Template("now.count", ("How many objects are in view?", "How many objects do you see now?"), _now_count),
    Template("now.room", ("Which room are you in?", "Where are you now?", "What room is this?"), _now_room),
    Template(
        "now.colour",
        ("What colour is the {kind} in view?", "Which colour is this {kind}?", "What color is the {kind} in view?"),
        _now_colour,
    ),
    Template("now.kind", ("What is the {colour} object in view?", "Which object in view is {colour}?"), _now_kind),
    Template(
        "now.presence",
        ("Is {a_thing} in view?", "Do you see {a_thing} now?", "Is there {a_thing} in front of you?"),
        _now_presence,
    ),
    Template(
        "recall.seen",
        ("Have you seen {a_thing} so far?", "Did you see {a_thing}?", "Was there {a_thing} anywhere?"),
        _recall_seen,
    ),
    Template(
        "recall.where",
        (
            "In which room did you last see the {thing}?",
            "Where was the {thing}?",
            "Where did you last see the {thing}?",
        ),
        _recall_where,
    ),
    Template(
        "recall.colour",
        ("What colour was the only {kind} you saw?", "You saw one {kind}. What colour was it?"),
        _recall_colour,
    ),
    Template(
        "recall.room_colour",
        ("What colour was the {kind} in the {room}?", "Which colour did the {kind} in the {room} have?"),
        _recall_room_colour,
    ),
    Template(
        "recall.room_kind",
        ("Which {colour} object did you see in the {room}?", "What was the {colour} object in the {room}?"),
        _recall_room_kind,
    ),
    Template(
        "recall.visited",
        ("Have you been in the {room}?", "Did you visit the {room}?", "Were you in the {room} so far?"),
        _recall_visited,
    ),
    Template(
        "count.kind",
        ("How many {kinds} have you seen so far?", "How many different {kinds} did you see?"),
        _count_kind,
    ),
    Template(
        "count.colour",
        ("How many {colour} objects have you seen so far?", "How many different {colour} objects did you see?"),
        _count_colour,
    ),
    Template(
        "count.all",
        ("How many different objects have you seen so far?", "How many objects have you seen in all?"),
        _count_all,
    ),
    Template(
        "count.room",
        ("How many objects did you see on your last visit to the {room}?", "How many objects were in the {room} last?"),
        _count_room,
    ),
    Template(
        "count.rooms",
        ("How many different rooms have you visited?", "How many rooms have you been in so far?"),
        _count_rooms,
    ),
)
