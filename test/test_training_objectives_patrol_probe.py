"""What can be worked out at each cell, against the answers to questions about the same moments."""

from collections.abc import Iterator

import numpy as np
import pytest

from fvs_ros.patrol.config import PatrolConfig
from fvs_ros.patrol.episode import simulate
from fvs_ros.patrol.questions import TEMPLATES, step_ends
from fvs_ros.patrol.truth import EpisodeRecord
from fvs_ros.patrol.vocabulary import COLOURS, KINDS, NUMBERS, PLURALS, ROOMS
from fvs_ros.training.objectives.patrol_cells import cell_objects
from fvs_ros.training.objectives.patrol_probe import PROBE_GROUPS, PROBE_SETS, UNKNOWN, probe_labels, probe_sets

CELLS = 2
Told = tuple[EpisodeRecord, list[int], np.ndarray, dict[str, np.ndarray]]
KIND_OF = {plural: kind for kind, plural in PLURALS.items()}


@pytest.fixture(scope="module")
def told() -> Told:
    """An episode's record, the frames that end its steps, the object that each cell shows, and labels by group."""
    record = EpisodeRecord(simulate(930_000, PatrolConfig(steps=240, rooms=3, views=2, dwell_s=(3, 6))))
    ends = step_ends(record.episode)
    labels = probe_labels(record, ends, CELLS)
    assert labels.shape == (240, CELLS * CELLS, len(PROBE_GROUPS))
    for group, count in enumerate(PROBE_GROUPS.values()):
        assert labels[..., group].min() >= UNKNOWN
        assert UNKNOWN < labels[..., group].max() < count
    return record, ends, cell_objects(record.episode, ends, CELLS), dict(zip(PROBE_GROUPS, labels.T, strict=True))


def candidates(name: str, record: EpisodeRecord, frame: int) -> list[tuple[dict[str, str], str]]:
    """What would be asked after a frame: the gaps' words and the answer."""
    template = next(template for template in TEMPLATES if template.name == name)
    return [(item.gaps, item.answer) for item in template.find(record.until(frame), np.random.default_rng(0))]


def cells(told: Told) -> Iterator[tuple[int, int, int, int]]:
    """Each cell that shows an object: its step's number, the frame, its index in the step, and the object's."""
    _, ends, objects, _ = told
    for number, cell in np.argwhere(objects >= 0):
        yield number, ends[number], cell, objects[number, cell]


def test_an_object_is_known_once_an_earlier_visit_has_shown_it(told: Told) -> None:
    record, _, _, labels = told
    found = 0
    fresh = {object_id for number, _, cell, object_id in cells(told) if labels["fresh"][cell, number] == 1}
    assert fresh == set(record.until(len(record.episode) - 1).seen)
    for number, frame, cell, object_id in cells(told):
        label = labels["known"][cell, number]
        if label != UNKNOWN:
            visits = {sighting.visit for sighting in record.until(frame).seen[object_id]}
            assert label == (len(visits) > 1)
            rooms = {sighting.room for sighting in record.until(frame).seen[object_id]}
            assert labels["elsewhere"][cell, number] == (len(rooms) > 1)
            sure = record.until(frame).seen[object_id][0].start + record.steady - 1
            assert labels["rank"][cell, number] == len(record.until(sure - 1).seen)
            if number and labels["fresh"][cell, number]:
                assert object_id not in record.until(frame - 2).seen
            found += 1
    assert found > 100


def test_counts_are_what_is_answered_to_questions_for_them(told: Told) -> None:
    record, _, _, labels = told
    objects = record.episode.objects
    found = 0
    for number, frame, cell, object_id in cells(told):
        for name, group, gap, word in (
            ("count.kind", "of_kind", "kinds", objects[object_id].kind),
            ("count.colour", "of_colour", "colour", objects[object_id].colour),
        ):
            answers = {KIND_OF.get(gaps[gap], gaps[gap]): answer for gaps, answer in candidates(name, record, frame)}
            label = labels[group][cell, number]
            if label != UNKNOWN and word in answers:
                assert NUMBERS[label] == answers[word]
                found += 1
    assert found > 200


def test_what_came_before_is_what_is_answered_to_questions_for_it(told: Told) -> None:
    record, ends, _, labels = told
    before = {gaps["thing"]: answer for gaps, answer in candidates("order.before", record, ends[-1])}
    named = {}
    for number, _, cell, object_id in cells(told):
        colour, kind = (labels[group][cell, number] for group in ("colour_before", "kind_before"))
        assert (colour == UNKNOWN) == (kind == UNKNOWN)
        if colour != UNKNOWN:
            named[record.episode.objects[object_id].name] = f"{tuple(COLOURS)[colour]} {KINDS[kind]}"
    assert len(before) > 1
    assert before.items() <= named.items()


def test_rooms_are_those_that_questions_tell_of(told: Told) -> None:
    record, ends, _, labels = told
    found = 0
    for number, frame in enumerate(ends):
        for name, group, words in (
            ("count.rooms", "rooms", list(NUMBERS[:9])),
            ("order.room_before", "room_before", ROOMS),
        ):
            answers = [answer for _, answer in candidates(name, record, frame)]
            label = labels[group][0, number]
            if answers and label != UNKNOWN:
                assert words[label] == answers[0]
                found += 1
    assert found > 100


def test_sets_hold_what_descriptions_tell_of(told: Told) -> None:
    record, ends, _, _ = told
    sets = probe_sets(record, ends)
    assert sets.shape == (240, sum(PROBE_SETS.values()))
    names = [f"{colour} {kind}" for kind in KINDS for colour in COLOURS]
    found = 0
    for frame, members in zip(ends, sets, strict=True):
        truth = record.until(frame)
        if not truth.stays or truth.stays[-1].end != frame:
            assert (members == UNKNOWN).all() or truth.episode.room_name(frame) != "corridor"
            continue
        here = truth.room(truth.stays[-1].room)
        before = [stay for stay in truth.stays[:-1] if truth.room(stay.room) == here][-1:]
        for half, stays in zip(np.split(members, 2), (truth.stays[-1:], before), strict=True):
            if all(stay.clean for stay in stays):
                expected = {truth.name(object_id) for stay in stays for object_id in stay.objects}
                assert {name for name, member in zip(names, half, strict=True) if member} == expected
                found += bool(expected)
    assert found > 100


def test_what_is_new_or_gone_is_what_is_answered_about_this_room(told: Told) -> None:
    record, _, _, labels = told
    found = set()
    for number, frame, cell, object_id in cells(told):
        truth = record.until(frame)
        here = truth.room(truth.stays[-1].room) if truth.stays and truth.stays[-1].end == frame else None
        new = {gaps["room"]: answer for gaps, answer in candidates("change.new", record, frame)}
        gone = {gaps["room"]: answer for gaps, answer in candidates("change.gone", record, frame)}
        label = labels["here_before"][cell, number]
        if label != UNKNOWN and here in new and object_id in truth.stays[-1].objects:
            assert (label == 3) == (truth.name(object_id) == new[here])
            found.add(("new", label))
        colour, kind = (labels[group][cell, number] for group in ("gone_colour", "gone_kind"))
        if kind != UNKNOWN and here in gone:
            name = "nothing" if kind == len(KINDS) else f"{tuple(COLOURS)[colour]} {KINDS[kind]}"
            assert name == gone[here]
            found.add(("gone", name == "nothing"))
    assert found >= {("new", 1), ("new", 3), ("gone", True), ("gone", False)}


def test_an_episode_without_objects_has_rooms_and_empty_sets() -> None:
    patrol = PatrolConfig(steps=8, rooms=2, views=1, drive=False, dwell_s=(2, 2), empty=1.0, pairs=0.0)
    seed = next(seed for seed in range(930_000, 930_100) if not simulate(seed, patrol).objects)
    record = EpisodeRecord(simulate(seed, patrol))
    ends = step_ends(record.episode)
    labels = dict(zip(PROBE_GROUPS, probe_labels(record, ends, CELLS).T, strict=True))
    assert (labels["rooms"] != UNKNOWN).all()
    assert all((labels[group] == UNKNOWN).all() for group in ("known", "rank", "kind_before"))
    assert not probe_sets(record, ends).any()
