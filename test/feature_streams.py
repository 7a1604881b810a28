"""Fixed streams of step features on which the streaming memory is measured against offline k-means."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

# Distance between scenes over that of a step to its scene.
CONTRAST = 6


def _visits(scene_of_step: Tensor, noise: Tensor, generator: torch.Generator) -> Tensor:
    scenes = torch.randn(int(scene_of_step.max()) + 1, noise.shape[1], generator=generator)
    return CONTRAST * scenes[scene_of_step] / 2**0.5 + noise


def distinct_scenes(slots: int, noise: Tensor, generator: torch.Generator) -> Tensor:
    """As many scenes as slots, one after the other."""
    return _visits(torch.arange(len(noise)) * slots // len(noise), noise, generator)


def more_scenes_than_slots(slots: int, noise: Tensor, generator: torch.Generator) -> Tensor:
    """Two and a half scenes for each slot, or as many as there are steps."""
    scenes = min(5 * slots // 2, len(noise))
    return _visits(torch.arange(len(noise)) * scenes // len(noise), noise, generator)


def revisited_scenes(slots: int, noise: Tensor, generator: torch.Generator) -> Tensor:
    """As many scenes as slots, in four times as many visits in random order."""
    visits = torch.randint(slots, (4 * slots,), generator=generator)
    return _visits(visits[torch.arange(len(noise)) * 4 * slots // len(noise)], noise, generator)


def slow_drift(slots: int, noise: Tensor, generator: torch.Generator) -> Tensor:
    """A straight way, on which a slot's share is as long as a step is noisy."""
    direction = torch.nn.functional.normalize(torch.randn(1, noise.shape[1], generator=generator))
    way = slots * torch.linspace(0, 1, len(noise))[:, None] * noise.shape[1] ** 0.5
    return way * direction + noise


def curved_drift(slots: int, noise: Tensor, generator: torch.Generator) -> Tensor:
    """A winding way in all features, far longer than steps are noisy."""
    rate, phase = torch.rand(2, noise.shape[1], generator=generator) * 2 * torch.pi
    angles = 4 * rate * torch.linspace(0, 1, len(noise))[:, None] + phase
    return slots / 8 * torch.sin(angles) + noise / 4


def random_walk(slots: int, noise: Tensor, generator: torch.Generator) -> Tensor:
    """A walk that spreads as far over a slot's share as a step is noisy."""
    paces = torch.randn(noise.shape, generator=generator) * (slots / len(noise)) ** 0.5
    return paces.cumsum(0) + noise


def pure_noise(slots: int, noise: Tensor, generator: torch.Generator) -> Tensor:
    """Nothing but noise."""
    return noise


KINDS: dict[str, Callable[[int, Tensor, torch.Generator], Tensor]] = {
    make.__name__: make
    for make in (
        distinct_scenes,
        more_scenes_than_slots,
        revisited_scenes,
        slow_drift,
        curved_drift,
        random_walk,
        pure_noise,
    )
}


def stream(kind: str, *, slots: int, steps: int, features: int, seed: int) -> Tensor:
    """[steps, features] float32, the same for the same arguments."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(steps, features, generator=generator)
    return KINDS[kind](slots, noise, generator)
