"""Evenly spaced steps: which are kept, and how far the nearest is from any that an unbounded bank would give."""

import pytest
import torch

from fvs_ros.memory.spaced_steps import KEPT_PER_WANTED, SpacedSteps

CPU = torch.device("cpu")


def add(spaced: SpacedSteps, step: int) -> None:
    spaced.append(step, torch.full((4, 1), float(step)), torch.full((1,), float(step)), torch.tensor([step, step + 1]))


@pytest.mark.parametrize("wanted", [1, 2, 3, 5])
def test_the_chosen_steps_are_exact_while_all_are_kept_and_within_a_quarter_of_their_spacing_beyond(
    wanted: int,
) -> None:
    spaced, capacity = SpacedSteps(wanted, 4, 1, 1, CPU, torch.float32), KEPT_PER_WANTED * wanted
    worst = 0.0
    for steps in range(1, 20 * capacity):
        add(spaced, steps - 1)
        targets = torch.arange(steps)
        rows, chosen = spaced.rows(targets, steps, provisional=False)
        off = (chosen - targets).abs().max().item()
        assert off == 0 if steps <= capacity else off <= (steps - 1) / capacity
        worst = max(worst, off / max(steps - 1, 1) * capacity)
        # What is said to be there is there: features and stamps of that very step.
        assert torch.equal(spaced.high[rows][:, 0, 0], chosen.float())
        assert torch.equal(spaced.low[rows][:, 0], chosen.float())
        assert torch.equal(spaced.start_ns[rows], chosen)
        assert chosen[-1] == steps - 1, "the newest step is always there"
        assert set(chosen.tolist()) <= set(spaced.kept_steps(steps).tolist())
        assert spaced.kept_steps(steps).numel() <= capacity + 1
    assert worst > 0.8, "the bound is tight"


def test_a_provisional_step_counts_once_and_leaves_no_trace() -> None:
    spaced = SpacedSteps(2, 4, 1, 1, CPU, torch.float32)
    for step in range(20):
        add(spaced, step)
    targets = torch.tensor([0, 20])
    spaced.provide(torch.full((4, 1), 99.0), torch.full((1,), 99.0), torch.tensor([7, 7]))
    rows, chosen = spaced.rows(targets, 21, provisional=True)
    assert (chosen.tolist(), spaced.low[rows, 0].tolist()) == ([0, 20], [0.0, 99.0])
    rows, chosen = spaced.rows(torch.tensor([0, 19]), 20, provisional=False)
    assert (chosen.tolist(), spaced.low[rows, 0].tolist()) == ([0, 19], [0.0, 19.0])
