from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from fvs_ros.patrol.config import TEST_SEED, PatrolConfig, day_config
from fvs_ros.patrol.episode import simulate
from fvs_ros.patrol.errors import PatrolError
from fvs_ros.patrol.layout import (
    _CHOICES,
    _SLOTS,
    SIZES_M,
    TEST_VARIANTS,
    TRAINING_VARIANTS,
    Room,
    is_odd,
    is_test_seed,
)
from fvs_ros.patrol.motion import NOWHERE
from fvs_ros.patrol.textures import FAMILIES, VARIANTS, texture
from fvs_ros.patrol.visibility import SEEN_PX
from fvs_ros.patrol.world import World, make_world

CONFIG = PatrolConfig(steps=200, rooms=6)
SEEDS = 40


@pytest.fixture(scope="module")
def training_worlds() -> list[World]:
    return [make_world(seed, CONFIG) for seed in range(SEEDS)]


@pytest.fixture(scope="module")
def test_worlds() -> list[World]:
    return [make_world(TEST_SEED + seed, CONFIG) for seed in range(SEEDS)]


def walls(room: Room) -> tuple[int, ...]:
    """The walls and places of a room's views, as indices of `_SLOTS`."""
    found = []
    for view in room.views:
        left, right = (view.places[0], view.places[1])
        x, y = (left[0] + right[0]) / 2, (left[1] + right[1]) / 2
        wall = "back" if abs(view.heading - 1.57) < 0.1 else "left" if x < 0 else "right"
        share = x / room.width + 0.5 if wall == "back" else y / room.depth
        found.append(next(i for i, (name, at) in enumerate(_SLOTS) if name == wall and abs(share - at) < 0.05))
    return tuple(found)


def layout_parameters(worlds: list[World]) -> dict[str, set[Any]]:
    """Every held-out parameter that occurs: order of rooms, sizes, textures, places of views."""
    rooms = [room for world in worlds for room in world.rooms]
    return {
        "orders": {tuple(room.name for room in world.rooms) for world in worlds},
        "sizes": {(room.width, room.depth) for room in rooms},
        "variants": {variant for room in rooms for variant in (room.wall_variant, room.floor_variant)},
        "slots": {walls(room) for room in rooms},
    }


def test_the_same_seed_makes_the_same_world_and_another_one_another() -> None:
    assert make_world(5, CONFIG) == make_world(5, CONFIG)
    assert make_world(5, CONFIG).objects != make_world(6, CONFIG).objects


def test_tests_use_layouts_that_training_never_does(training_worlds: list[World], test_worlds: list[World]) -> None:
    training, test = layout_parameters(training_worlds), layout_parameters(test_worlds)
    for parameter, values in training.items():
        assert values
        assert test[parameter]
        assert not values & test[parameter], parameter


def test_the_held_out_split_is_as_documented(training_worlds: list[World], test_worlds: list[World]) -> None:
    assert set(TRAINING_VARIANTS) | set(TEST_VARIANTS) == set(range(VARIANTS))
    for worlds, test in ((training_worlds, False), (test_worlds, True)):
        parameters = layout_parameters(worlds)
        assert {is_odd(order) for order in parameters["orders"]} == {test}
        assert {(SIZES_M.index(w) + SIZES_M.index(d)) % 2 for w, d in parameters["sizes"]} == {int(test)}
        assert parameters["variants"] == set(TEST_VARIANTS if test else TRAINING_VARIANTS)
        assert parameters["slots"] <= set(_CHOICES[3][-2:] if test else _CHOICES[3][:-2])


def test_only_seeds_from_900000_are_for_tests() -> None:
    assert [is_test_seed(seed) for seed in (0, 899_999, 900_000, 10**9)] == [False, False, True, True]


def test_names_of_kinds_colours_and_rooms_are_shared_by_both_splits(
    training_worlds: list[World], test_worlds: list[World]
) -> None:
    for pick in (lambda w: {t.kind for t in w.objects}, lambda w: {t.colour for t in w.objects}):
        assert set().union(*map(pick, training_worlds)) == set().union(*map(pick, test_worlds))
    names = [{room.name for world in worlds for room in world.rooms} for worlds in (training_worlds, test_worlds)]
    assert names[0] == names[1]


def test_textures_of_the_splits_differ() -> None:
    for family in FAMILIES:
        variants = [texture(family, variant) for variant in range(VARIANTS)]
        assert variants[0].shape == (128, 128, 3)
        for one, other in itertools.combinations(variants, 2):
            assert (one != other).mean() > 0.01, family


def test_every_object_has_a_name_of_its_own_and_a_place_of_its_own(training_worlds: list[World]) -> None:
    for world in training_worlds:
        names = [scene_object.name for scene_object in world.objects]
        assert len(set(names)) == len(names)
        for visit in world.visits:
            placements = list(visit.placements.values())
            assert len(set(placements)) == len(placements)
            assert all(placement.room < 6 and placement.view < 3 and placement.place < 2 for placement in placements)


def test_rooms_change_only_before_a_repeated_visit_and_by_one_object_at_a_time(training_worlds: list[World]) -> None:
    kinds = set()
    for world in training_worlds:
        visited = set()
        for before, visit in itertools.pairwise(world.visits):
            visited.add(before.room)
            places = [(before.placements.get(one), visit.placements.get(one)) for one in range(len(world.objects))]
            moves = [(a, b) for a, b in places if a != b]
            assert len(moves) <= 1
            if moves:
                (old, new), room = moves[0], visit.room
                assert visit.room in visited
                assert room in {placement.room for placement in (old, new) if placement is not None}
                kinds.add((old is None, new is None, old is not None and new is not None and old.room == new.room))
    # Added, removed, moved to or from another room, moved within.
    assert kinds == {(True, False, False), (False, True, False), (False, False, False), (False, False, True)}


def test_the_first_round_passes_all_rooms_and_no_visit_repeats_the_room_before(training_worlds: list[World]) -> None:
    for world in training_worlds:
        assert {visit.room for visit in world.visits[:6]} == set(range(6))
        assert all(one.room != other.room for one, other in itertools.pairwise(world.visits))


def test_the_default_world_fits_the_memory() -> None:
    # 30 key steps for what was seen, of 60 clusters in all.
    for seed in range(2):
        episode = simulate(seed, PatrolConfig(steps=600))
        shown = {
            (int(room), int(view), tuple(np.flatnonzero(pixels >= SEEN_PX).tolist()))
            for room, view, pixels in zip(episode.rooms, episode.views, episode.pixels, strict=True)
            if view != NOWHERE
        }
        assert 15 <= len(shown) <= 42
        assert (episode.views != NOWHERE).mean() > 0.6


def test_chances_of_zero_and_one_are_kept() -> None:
    still = make_world(1, PatrolConfig(steps=200, rooms=6, changes=0.0, skips=0.0, empty=1.0, pairs=0.0))
    assert still.objects == ()
    full = make_world(1, PatrolConfig(steps=200, rooms=6, changes=0.0, empty=0.0, pairs=1.0))
    assert len(full.objects) == 36
    assert all(visit.placements == full.visits[0].placements for visit in full.visits)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"steps": 0}, "steps is 0; it must be from 1"),
        ({"rooms": 9}, "rooms is 9; it must be from 1 to 8"),
        ({"views": 5}, "views is 5"),
        ({"changes": 1.5}, "changes is 1.5"),
        ({"skips": 1.0}, "skips is 1.0"),
        ({"empty": 0.6, "pairs": 0.6}, "0.6 \\+ 0.6 is above 1"),
        ({"dwell_s": (5, 4)}, r"dwell_s\[0\] is 5; it must be from 1 to 4"),
        ({"dwell_s": (0, 4)}, r"dwell_s\[0\] is 0"),
        ({"frame_rate": 0}, "frame_rate is 0"),
        ({"noise": -1.0}, "noise is -1.0"),
        ({"steps": 43_201}, "steps is 43201; it must be from 1 to 43200"),
        ({"names": 81}, "names is 81; it must be from 1 to 80"),
        ({"returns": -0.1}, "returns is -0.1"),
        ({"guests": 2.0}, "guests is 2.0"),
        ({"rest_s": (5, 4)}, r"rest_s\[0\] is 5; it must be from 0 to 4"),
        ({"rest_s": (5, 4000)}, r"rest_s\[1\] is 4000"),
    ],
)
def test_settings_out_of_range_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(PatrolError, match=message):
        PatrolConfig(**arguments)


def test_a_negative_seed_is_refused() -> None:
    with pytest.raises(PatrolError, match="the seed is -1"):
        make_world(-1, CONFIG)


@pytest.fixture(scope="module")
def day() -> World:
    return make_world(5, day_config(43_200))


def stands(world: World) -> list[list[int]]:
    """In which visits each object stands somewhere, by its index."""
    found: list[list[int]] = [[] for _ in world.objects]
    for number, visit in enumerate(world.visits):
        for object_id in visit.placements:
            found[object_id].append(number)
    return found


def test_over_a_day_a_name_is_one_object_that_comes_and_goes(day: World) -> None:
    names = [scene_object.name for scene_object in day.objects]
    assert len(set(names)) == len(names) == 72
    for visit in day.visits:
        places = list(visit.placements.values())
        assert len(set(places)) == len(places), "two objects stand in one place"
    gaps = [np.diff(numbers).max(initial=1) for numbers in stands(day)]
    # More than a third of them are away for at least ten visits, and come back.
    assert sum(gap > 10 for gap in gaps) > 24
    placed = {(object_id, at) for visit in day.visits for object_id, at in visit.placements.items()}
    assert len(placed) > 300


def test_guests_are_there_for_one_visit_and_where_the_robot_does_not_rest(day: World) -> None:
    guests = [numbers for numbers in stands(day)[:] if len(numbers) > 1 and np.diff(numbers).min() > 1]
    once = [numbers for numbers in stands(day) if len(numbers) == 1]
    # Planned is three times what a day has time for, so that most guests come again: after all the others.
    assert len(guests) + len(once) >= 30
    for numbers in guests + once:
        assert all(day.visits[number].rest_s == 0 for number in numbers)
    firsts = sorted(numbers[0] for numbers in guests + once)
    assert all(numbers[1] > firsts[-1] for numbers in guests)


def test_the_robot_rests_after_each_round(day: World) -> None:
    rests = [number for number, visit in enumerate(day.visits) if visit.rest_s]
    assert all(60 <= day.visits[number].rest_s <= 300 for number in rests)
    rooms = [day.visits[number].room for number in range(rests[0] + 1)]
    assert sorted(rooms) == list(range(5))
    assert np.diff(rests).max() <= 5
    assert not any(visit.rest_s for visit in make_world(5, CONFIG).visits)


def test_without_returns_what_is_gone_stays_away() -> None:
    config = PatrolConfig(steps=3_600, names=40, changes=1.0)
    world = make_world(5, config)
    assert len(world.objects) <= 40
    for numbers in stands(world):
        assert np.diff(numbers).max(initial=1) == 1
