from __future__ import annotations

from itertools import pairwise

import pytest

from fvs_ros.evaluation.timed.chosen_steps import evenly_spaced, last_needed, oracle_steps, random_steps


def test_evenly_spaced_steps_reach_from_the_first_to_the_newest() -> None:
    assert evenly_spaced(31, 6) == [0, 6, 12, 18, 24, 30]
    assert evenly_spaced(4, 6) == [0, 1, 2, 3]


def test_random_steps_are_different_ones_in_order_and_the_same_for_the_same_seed() -> None:
    steps = random_steps(1000, 120, seed=7)
    assert steps == sorted(set(steps))
    assert len(steps) == 120
    assert 0 <= steps[0] < steps[-1] < 1000
    assert random_steps(1000, 120, seed=7) == steps
    assert random_steps(1000, 120, seed=8) != steps
    assert random_steps(50, 120, seed=7) == list(range(50))


def test_the_oracle_shows_the_proof_beside_the_newest_steps() -> None:
    assert oracle_steps(500, 120, [(10, 12), (300, 301)]) == [10, 11, 12, 300, 301, *range(476, 500)]
    # What is proved by the newest steps alone needs no others.
    assert oracle_steps(500, 120, [(490, 499)]) == list(range(476, 500))
    assert oracle_steps(10, 120, [(3, 20)]) == list(range(10))


def test_of_a_long_proof_the_oracle_shows_forty_steps_evenly() -> None:
    steps = oracle_steps(2000, 120, [(0, 999)])
    assert steps[-24:] == list(range(1976, 2000))
    assert len(steps) == 64
    assert (steps[0], steps[39]) == (0, 999)
    gaps = {after - before for before, after in pairwise(steps[:40])}
    assert gaps <= {25, 26}


def test_the_oracle_keeps_within_a_small_memory() -> None:
    assert oracle_steps(500, 8, [(100, 199)]) == [100, 125, 150, 174, 199, 497, 498, 499]
    assert oracle_steps(500, 1, [(100, 199)]) == [499]


@pytest.mark.parametrize("order", [1, -1])
def test_a_step_is_needed_until_its_last_question(order: int) -> None:
    assert last_needed([(100, [1, 2]), (200, [2, 3])][::order]) == {1: 100, 2: 200, 3: 200}
