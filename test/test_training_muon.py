"""Muon and AdamW as one optimiser."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from fvs_ros.training.muon import MuonAdamW


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.embed_tokens = nn.Embedding(8, 6)
        self.layer = nn.Linear(6, 4)
        self.patches = nn.Conv2d(1, 2, 3)
        for weight in self.parameters():
            weight.data = torch.randn(weight.shape, generator=generator)


def optimiser(network: nn.Module, **changes: Any) -> MuonAdamW:
    settings = {"learning_rate": 0.01, "weight_decay": 0.1, "betas": (0.9, 0.95), **changes}
    return MuonAdamW(list(network.named_parameters()), **settings)


def step(network: Network, optimiser: torch.optim.Optimizer, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for weight in network.parameters():
        weight.grad = torch.randn(weight.shape, generator=generator)
    optimiser.step()
    optimiser.zero_grad()


def test_matrices_move_as_muon_moves_them_and_the_rest_as_adamw_does() -> None:
    network = Network()
    alone = copy.deepcopy(network)
    muon = torch.optim.Muon([alone.layer.weight], lr=0.01, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    large = [alone.embed_tokens.weight, alone.patches.weight]
    small = [alone.layer.bias, alone.patches.bias]
    groups = [{"params": large, "weight_decay": 0.1}, {"params": small, "weight_decay": 0.0}]
    adamw = torch.optim.AdamW(groups, lr=0.01, betas=(0.9, 0.95))
    both = optimiser(network)
    for seed in range(3):
        step(network, both, seed)
        generator = torch.Generator().manual_seed(seed)
        for weight in alone.parameters():
            weight.grad = torch.randn(weight.shape, generator=generator)
        muon.step()
        adamw.step()
    for (name, weight), expected in zip(network.named_parameters(), alone.parameters(), strict=True):
        assert torch.allclose(weight, expected, atol=1e-6), name


def test_a_schedule_sets_both_learning_rates() -> None:
    network = Network()
    both = optimiser(network)
    schedule = torch.optim.lr_scheduler.LambdaLR(both, lambda count: 0.0 if count else 1.0)
    step(network, both, 0)
    schedule.step()
    still = copy.deepcopy(network.state_dict())
    step(network, both, 1)
    assert all(torch.equal(weight, still[name]) for name, weight in network.state_dict().items())


def test_a_saved_state_goes_on_as_if_it_had_not_been() -> None:
    network = Network()
    both = optimiser(network)
    step(network, both, 0)
    other = copy.deepcopy(network)
    again = optimiser(other)
    again.load_state_dict(copy.deepcopy(both.state_dict()))
    schedule = torch.optim.lr_scheduler.LambdaLR(again, lambda count: 1.0)
    for seed in (1, 2):
        step(network, both, seed)
        step(other, again, seed)
        schedule.step()
    for weight, expected in zip(other.parameters(), network.parameters(), strict=True):
        assert torch.equal(weight, expected)


@pytest.mark.parametrize("kept", ["layer.weight", "layer.bias"])
def test_weights_of_one_kind_alone_will_do(kept: str) -> None:
    network = Network()
    weights = [(name, weight) for name, weight in network.named_parameters() if name == kept]
    both = MuonAdamW(weights, learning_rate=0.1, weight_decay=0.0, betas=(0.9, 0.95))
    before = weights[0][1].detach().clone()
    step(network, both, 0)
    assert not torch.equal(weights[0][1], before)
