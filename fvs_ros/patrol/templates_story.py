"""Questions about how things went on: the families order and change."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np

from fvs_ros.patrol.templates import NOTHING, YES_NO, Candidate, Template, is_steady, spans
from fvs_ros.patrol.truth import EpisodeTruth, Sighting, Stay

MOST_PAIRS = 8
"""Pairs of objects that one moment's candidates compare."""


def _order_first_of_two(past: EpisodeTruth, random: np.random.Generator) -> list[Candidate]:
    return _pairs(past, random, lambda one, other: past.seen[one][0].start < past.first_glimpse(other), first=True)


def _order_last_of_two(past: EpisodeTruth, random: np.random.Generator) -> list[Candidate]:
    return _pairs(past, random, lambda one, other: past.seen[one][-1].end > past.last_glimpse(other), first=False)


def _pairs(
    past: EpisodeTruth, random: np.random.Generator, wins: Callable[[int, int], bool], first: bool
) -> list[Candidate]:
    things, candidates = list(past.seen), []
    for _ in range(MOST_PAIRS if len(things) > 1 else 0):
        one, other = (things[index] for index in random.permutation(len(things))[:2])
        names = (past.name(one), past.name(other))
        for winner, loser in ((one, other), (other, one)):
            if wins(winner, loser):
                moment = 0 if first else -1
                proof = spans([past.seen[winner][moment], past.seen[loser][moment]])
                candidates.append(Candidate({"one": names[0], "other": names[1]}, past.name(winner), proof, names))
    return candidates


def newcomers(past: EpisodeTruth) -> list[Sighting | None]:
    """First sightings in order; None stands where two objects came together or one may have come between."""
    firsts = sorted(
        [(past.first_glimpse(thing), thing) for thing in past.seen]
        + [(past.first_glimpse(thing), thing) for thing in past.doubtful]
    )
    story: list[Sighting | None] = []
    for position, (_, thing) in enumerate(firsts):
        following = firsts[position + 1][0] if position + 1 < len(firsts) else past.frame + 1
        if thing in past.seen and past.seen[thing][0].start < following:
            story.append(past.seen[thing][0])
        else:
            # It and its successor cannot be put in order.
            story.append(None)
    return story


def _order_first(past: EpisodeTruth, _: np.random.Generator) -> list[Candidate]:
    story = newcomers(past)
    if not story or story[0] is None:
        return []
    return [Candidate({}, past.name(story[0].thing), spans([story[0]]))]


def _order_after(past: EpisodeTruth, _: np.random.Generator) -> list[Candidate]:
    return [
        Candidate({"thing": past.name(one.thing)}, past.name(other.thing), spans([one, other]))
        for one, other in pairwise(newcomers(past))
        if one is not None and other is not None
    ]


def _order_before(past: EpisodeTruth, _: np.random.Generator) -> list[Candidate]:
    story = newcomers(past)
    # The one before the earlier of the two must be sure as well, or it might have come between.
    return [
        Candidate({"thing": past.name(other.thing)}, past.name(one.thing), spans([one, other]))
        for before, one, other in zip([story[0], *story] if story else [], story, story[1:], strict=False)
        if before is not None and one is not None and other is not None
    ]


def _order_room_first(past: EpisodeTruth, _: np.random.Generator) -> list[Candidate]:
    return [Candidate({}, past.room(past.stays[0].room), spans(past.stays[:1]))] if past.stays else []


def _order_room_after(past: EpisodeTruth, _: np.random.Generator) -> list[Candidate]:
    candidates, known = [], set()
    for one, other in pairwise(past.stays):
        if one.room not in known and is_steady(past, other):
            candidates.append(Candidate({"room": past.room(one.room)}, past.room(other.room), spans([one, other])))
        known.add(one.room)
    return candidates


def _order_room_before(past: EpisodeTruth, _: np.random.Generator) -> list[Candidate]:
    if len(past.stays) < 2 or past.stays[-1].end != past.frame or not is_steady(past, past.stays[-1]):
        return []
    before, here = past.stays[-2:]
    return [Candidate({}, past.room(before.room), spans([before, here]))]


def _revisits(past: EpisodeTruth) -> list[tuple[Stay, Stay]]:
    """For each room, its last two visits, where both saw all of it for sure."""
    last: dict[int, list[Stay]] = {}
    for stay in past.stays:
        last.setdefault(stay.room, []).append(stay)
    couples = [(stays[-2], stays[-1]) for stays in last.values() if len(stays) > 1]
    return [couple for couple in couples if all(stay.complete and stay.clean for stay in couple)]


def _changes(past: EpisodeTruth, before: Stay, after: Stay) -> list[str]:
    """What is different, one text for each object."""
    world, texts = past.episode.world, []
    for thing in sorted({*before.things, *after.things}):
        if thing not in before.things:
            texts.append(f"{past.name(thing)} added")
        elif thing not in after.things:
            texts.append(f"{past.name(thing)} removed")
        else:
            then, now = (world.visits[stay.visit].placements[thing] for stay in (before, after))
            if then is not None and now is not None and then.view != now.view:
                texts.append(f"{past.name(thing)} moved")
    return texts


def _change_what(past: EpisodeTruth, _: np.random.Generator) -> list[Candidate]:
    found = [(couple, _changes(past, *couple)) for couple in _revisits(past)]
    return [
        Candidate({"room": past.room(couple[0].room)}, texts[0] if texts else NOTHING, spans(couple))
        for couple, texts in found
        if len(texts) < 2
    ]


def _change_here(past: EpisodeTruth, _: np.random.Generator) -> list[Candidate]:
    return [
        Candidate({}, texts[0] if texts else NOTHING, spans(couple))
        for couple in _revisits(past)
        if couple[1].end == past.frame and len(texts := _changes(past, *couple)) < 2
    ]


def _change_any(past: EpisodeTruth, _: np.random.Generator) -> list[Candidate]:
    return [
        Candidate(
            {"room": past.room(couple[0].room)}, "yes" if _changes(past, *couple) else "no", spans(couple), YES_NO
        )
        for couple in _revisits(past)
    ]


def _change_new(past: EpisodeTruth, _: np.random.Generator) -> list[Candidate]:
    return _difference(past, newer=True)


def _change_gone(past: EpisodeTruth, _: np.random.Generator) -> list[Candidate]:
    return _difference(past, newer=False)


def _difference(past: EpisodeTruth, newer: bool) -> list[Candidate]:
    candidates = []
    for before, after in _revisits(past):
        having, lacking = (after, before) if newer else (before, after)
        names = [past.name(thing) for thing in having.things if thing not in lacking.things]
        if len(names) < 2:
            answer = names[0] if names else NOTHING
            candidates.append(Candidate({"room": past.room(before.room)}, answer, spans([before, after])))
    return candidates


def _change_still(past: EpisodeTruth, _: np.random.Generator) -> list[Candidate]:
    return [
        Candidate(
            {"thing": past.name(thing), "room": past.room(before.room)},
            "yes" if thing in after.things else "no",
            spans([before, after]),
            YES_NO,
        )
        for before, after in _revisits(past)
        for thing in before.things
    ]


def _change_moved(past: EpisodeTruth, _: np.random.Generator) -> list[Candidate]:
    candidates = []
    for thing, sightings in past.seen.items():
        rooms = {sighting.room for sighting in sightings}
        # A single sighting cannot tell; a doubtful one might.
        if len(sightings) > 1 and (len(rooms) > 1 or not past.unsure[:, thing].any()):
            answer = "yes" if len(rooms) > 1 else "no"
            candidates.append(Candidate({"thing": past.name(thing)}, answer, spans(sightings), YES_NO))
    return candidates


TEMPLATES = (
    Template(
        "order.first_of_two",
        ("Which did you see first, the {one} or the {other}?", "What came first, the {one} or the {other}?"),
        _order_first_of_two,
    ),
    Template(
        "order.last_of_two",
        ("Which did you see last, the {one} or the {other}?", "What came last, the {one} or the {other}?"),
        _order_last_of_two,
    ),
    Template(
        "order.first",
        ("What was the first object you saw?", "Which object did you see first of all?"),
        _order_first,
    ),
    Template(
        "order.after",
        ("Which new object came right after the {thing}?", "What did you first see right after the {thing}?"),
        _order_after,
    ),
    Template(
        "order.before",
        ("Which new object came right before the {thing}?", "What did you first see right before the {thing}?"),
        _order_before,
    ),
    Template(
        "order.room_first",
        ("Which room did you visit first?", "In which room did the patrol begin?"),
        _order_room_first,
    ),
    Template(
        "order.room_after",
        (
            "Which room did you visit right after your first visit to the {room}?",
            "Where did you go after you first saw the {room}?",
        ),
        _order_room_after,
    ),
    Template(
        "order.room_before",
        ("Which room did you visit right before this one?", "In which room were you before this one?"),
        _order_room_before,
    ),
    Template(
        "change.what",
        ("What changed in the {room} between your last two visits?", "What was different in the {room} last time?"),
        _change_what,
    ),
    Template(
        "change.here",
        ("What changed in this room since your last visit?", "What is different here since your last visit?"),
        _change_here,
    ),
    Template(
        "change.any",
        ("Did anything change in the {room} between your last two visits?", "Was the {room} different last time?"),
        _change_any,
    ),
    Template(
        "change.new",
        ("What was new in the {room} on your last visit?", "Which object was added to the {room} last?"),
        _change_new,
    ),
    Template(
        "change.gone",
        ("What was missing from the {room} on your last visit?", "Which object had gone from the {room} last?"),
        _change_gone,
    ),
    Template(
        "change.still",
        ("Was the {thing} still in the {room} on your last visit?", "Did the {thing} stay in the {room}?"),
        _change_still,
    ),
    Template(
        "change.moved",
        ("Have you seen the {thing} in more than one room?", "Did the {thing} move to another room?"),
        _change_moved,
    ),
)
