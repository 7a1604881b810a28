"""Weights of layers and heads for what an answer rests on."""

from __future__ import annotations

import pytest
import torch

from fvs_ros.evaluation.timed.relevance_fit import RelevanceSample, fit_relevance


def samples(count: int, telling: bool = True) -> list[RelevanceSample]:
    """Of 2 layers with 2 heads, of which the answer's second head in the last layer attends to the proof."""
    generator = torch.Generator().manual_seed(0)
    made = []
    for number in range(count):
        slots = 5 + number % 3
        attention = torch.rand(2, 2, 2, slots, generator=generator)
        on_proof = torch.zeros(slots, dtype=torch.bool)
        on_proof[number % slots] = telling
        attention[1, 1, 1, number % slots] += 3
        made.append(RelevanceSample(attention, on_proof))
    return made


def test_the_head_that_attends_to_the_proof_gets_the_largest_weight() -> None:
    weights = fit_relevance(samples(30))
    assert weights.shape == (2, 2, 2)
    assert int(weights.argmax()) == 7
    assert weights[1, 1, 1] > 3 * weights.flatten()[:7].abs().max()
    assert torch.equal(weights, fit_relevance(samples(30)))


def test_answers_that_saw_no_proof_teach_nothing() -> None:
    assert torch.equal(fit_relevance(samples(9)), fit_relevance(samples(9) + samples(5, telling=False)))
    with pytest.raises(ValueError, match="none of 5 answers"):
        fit_relevance(samples(5, telling=False))
