"""Micro-clusters to reduce to slots: random ones, and those among which many choices are equal."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor

from fvs_ros import memory

KINDS = ("random", "still", "copies", "returns", "even", "heavy")


def micro_clusters(count: int, seed: int, features: int = 3) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    means = torch.randn(count, features, dtype=torch.float64, generator=generator)
    weights = torch.randint(1, 9, (count,), generator=generator).double()
    distances = (means[:, None] - means).square().sum(2)
    return distances, weights, torch.arange(count).double(), means


def degenerate(kind: str, count: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Distances, weights and times of problems with many equal choices, or with none but rounding."""
    generator = torch.Generator().manual_seed(seed)
    distances, weights, times, _ = micro_clusters(count, seed)
    copies = torch.randint(count, (count,), generator=generator).sort().values // 3
    if kind == "still":
        distances, weights = torch.zeros_like(distances), torch.ones_like(weights)
    elif kind == "copies":
        distances = distances[copies][:, copies]
    elif kind == "returns":
        scenes = torch.randint(1 + count // 5, (count,), generator=generator)
        distances = distances[scenes][:, scenes]
    elif kind == "even":
        distances, weights = (times[:, None] - times).square(), torch.ones_like(weights)
    elif kind == "heavy":
        weights = (weights * 3 - 2) ** 6
        times = times.cumsum(0) / 7
    return distances, weights, times


@contextmanager
def without(
    monkeypatch: pytest.MonkeyPatch, compiler: str, module: str, forget_choice: Callable[[], None]
) -> Iterator[None]:
    """As where a compiler cannot be imported, and so not the module of `fvs_ros.memory` that uses it."""
    monkeypatch.setitem(sys.modules, compiler, None)
    monkeypatch.delitem(sys.modules, f"fvs_ros.memory.{module}", raising=False)
    monkeypatch.delattr(memory, module, raising=False)
    forget_choice()
    yield
    forget_choice()
