from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fvs_ros.memory.recalled import NEWEST, RECALLED, SPACED, recalled_memory, shown_segments, spaced
from fvs_ros.memory.snapshot import MemorySnapshot, PatchGrid

GRID, WIDTH = PatchGrid(4, 8), 3


def memory(shown: int = 5, window: int = 1, **changes: Any) -> MemorySnapshot:
    values = {
        "steps": 4000,
        "times": torch.arange(shown) * 100.5,
        "start_ns": torch.arange(shown) * 200 * 10**9,
        "end_ns": torch.arange(shown) * 200 * 10**9 + 5,
        **changes,
    }
    random = torch.Generator().manual_seed(0)
    low = torch.randn(shown, GRID.low_patches, WIDTH, generator=random)
    return recalled_memory(low, torch.randn(window, GRID.patches, WIDTH, generator=random), GRID, **values)


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 3000), st.integers(1, 120))
def test_spaced_numbers_are_even_and_hold_the_first_and_the_last(total: int, count: int) -> None:
    numbers = spaced(total, count)
    assert len(numbers) == min(total, count)
    if total <= count:
        assert numbers == list(range(total))
    elif count > 1:
        assert (numbers[0], numbers[-1]) == (0, total - 1)
        apart = [after - before for before, after in itertools.pairwise(numbers)]
        assert min(apart) >= 1
        places = [place * (total - 1) / (count - 1) for place in range(count)]
        assert max(abs(number - place) for number, place in zip(numbers, places, strict=True)) <= 0.5 + 1e-3


def test_the_newest_the_spaced_and_the_best_of_the_others_are_shown_in_order() -> None:
    total = 1000
    scores = torch.randn(total, generator=torch.Generator().manual_seed(1))
    shown = shown_segments(scores).tolist()
    always = {*range(total - NEWEST, total), *spaced(total, SPACED)}
    others = sorted(set(range(total)) - always, key=lambda number: -scores[number])
    assert shown == sorted(always | set(others[:RECALLED]))


def test_another_number_of_segments_can_be_recalled() -> None:
    scores = torch.randn(1000, generator=torch.Generator().manual_seed(1))
    none, three = (set(shown_segments(scores, recalled).tolist()) for recalled in (0, 3))
    assert none == {*range(1000 - NEWEST, 1000), *spaced(1000, SPACED)}
    assert len(three - none) == 3
    assert none < three


def test_what_is_shown_anyhow_takes_no_place_of_what_is_recalled() -> None:
    scores = torch.zeros(1000)
    scores[-NEWEST:] = 9.0
    scores[spaced(1000, SPACED)] = 9.0
    scores[500:540] = 1.0
    assert set(range(500, 540)) <= set(shown_segments(scores).tolist())


def test_segments_without_a_score_are_never_recalled() -> None:
    scores = torch.full((1000,), -torch.inf)
    scores[[300, 301]] = -50.0
    shown = set(shown_segments(scores).tolist())
    assert shown == {*range(1000 - NEWEST, 1000), *spaced(1000, SPACED), 300, 301}


@pytest.mark.parametrize("total", [0, 1, NEWEST, NEWEST + RECALLED, NEWEST + RECALLED + 1])
def test_of_few_segments_all_are_shown(total: int) -> None:
    shown = shown_segments(torch.randn(total, generator=torch.Generator().manual_seed(0)))
    assert shown.dtype == torch.int64
    assert shown.tolist() == list(range(total))


def test_a_memory_has_a_slot_for_each_and_no_keyframes() -> None:
    snapshot = memory(5, window=1)
    assert snapshot.ranked
    assert snapshot.csm.shape == (5, GRID.low_patches, WIDTH)
    assert snapshot.dam.shape == (0, GRID.patches, WIDTH)
    assert [part.shape[0] for part in (snapshot.dam_steps, snapshot.dam_slots, snapshot.dam_stamps_ns)] == [0, 0, 0]
    assert snapshot.csm_weights.tolist() == [1] * 5
    assert snapshot.csm_times.dtype == torch.float32
    assert snapshot.csm_times.tolist() == [0, 100.5, 201, 301.5, 402]
    assert snapshot.csm_start_ns.tolist() == [number * 200 * 10**9 for number in range(5)]
    assert snapshot.csm_end_ns.tolist() == [number * 200 * 10**9 + 5 for number in range(5)]
    assert snapshot.steps == 4000
    assert snapshot.tokens == 5 * GRID.csm_tokens + GRID.dam_tokens
    assert snapshot.features().shape == (4 * snapshot.tokens, WIDTH)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"times": torch.zeros(4)}, "features of 5 slots, 4 times, 5 and 5 stamps; give as many of each"),
        ({"start_ns": torch.zeros(6, dtype=torch.int64)}, "5 slots, 5 times, 6 and 5 stamps"),
        ({"end_ns": torch.zeros(0, dtype=torch.int64)}, "5 slots, 5 times, 5 and 0 stamps"),
        ({"shown": 0}, "0 slots, 0 times.*and at least one"),
    ],
    ids=["times", "starts", "ends", "nothing"],
)
def test_what_does_not_fit_and_nothing_at_all_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        memory(**changes)
