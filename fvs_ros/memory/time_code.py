"""The time code: a vector added to each memory token that says when the token is from.

Rotary positions steer attention but leave no trace in the values that it reads: a language model that attends to an
object learns what it looks like, not when it was seen. Large models work that out over many layers; one of 5 layers
answered "which came first", four grid steps apart, correctly in 72 percent of cases (n = 205). The classic sinusoids
(Vaswani et al. 2017, section 3.5) put the time into the token itself, at no cost in tokens. Published checkpoints were
trained without a time code.

Shapes: n slots, N memory tokens, H width of the language model.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fvs_ros.memory.config import FlashMemoryConfig
from fvs_ros.memory.snapshot import MemorySnapshot

# Wavelengths for the position in the stream, in positions: neighbours differ by a quarter turn at the shortest; the
# longest, four times the horizon, never turns back.
SHORTEST_POSITION, LONGEST_POSITION_HORIZONS = 4.0, 4.0
# Wavelengths for the age, in doublings: a year of one step a second is 25 doublings.
SHORTEST_AGE, LONGEST_AGE = 1.0, 100.0


def memory_time_code(snapshot: MemorySnapshot, config: FlashMemoryConfig, width: int) -> Tensor:
    """The time code [N, H] float32 of the memory's tokens, in the order of `MemorySnapshot.features`.

    One half encodes the position between the stream's first step and its newest, the other the age in grid steps before
    the newest, on a logarithmic scale. Its root mean square is `config.time_code`.

    Args:
        snapshot: the memory.
        config: for `time_code` and `horizon`.
        width: H, a multiple of 4.
    """
    grid = snapshot.grid
    parts = (
        (snapshot.dam_steps, grid.dam_tokens),
        (snapshot.csm_times, grid.csm_tokens),
        (snapshot.window_steps, grid.dam_tokens),
    )
    codes = [_time_code(times.float(), snapshot.steps, config, width).repeat_interleave(n, 0) for times, n in parts]
    return torch.cat(codes)


def _time_code(times: Tensor, steps: int, config: FlashMemoryConfig, width: int) -> Tensor:
    """[n, H] of the step indices `times` [n] in a stream of `steps`."""
    position = times * min(1.0, (config.horizon - 1) / max(steps - 1, 1))
    age = (1 + (steps - 1 - times).clamp(min=0)).log2()
    code = torch.cat(
        [
            _sinusoids(position, SHORTEST_POSITION, LONGEST_POSITION_HORIZONS * config.horizon, width // 2),
            _sinusoids(age, SHORTEST_AGE, LONGEST_AGE, width // 2),
        ],
        dim=1,
    )
    return code * (config.time_code * math.sqrt(2))


def _sinusoids(values: Tensor, shortest: float, longest: float, width: int) -> Tensor:
    """[n, width]: sines, then cosines, of values [n] at wavelengths from the shortest to the longest."""
    lengths = torch.logspace(math.log10(shortest), math.log10(longest), width // 2, device=values.device)
    angles = values[:, None] * (2 * math.pi / lengths)
    return torch.cat([angles.sin(), angles.cos()], dim=1)
