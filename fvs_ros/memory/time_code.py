"""The time code: a vector added to each memory token that says when the token is from.

Rotary positions steer attention but leave no trace in the values that it reads: a language model that attends to an
object learns what it looks like, not when it was seen. Large models work that out over many layers; one of 5 layers
answered "which came first", four grid steps apart, correctly in 72 percent of cases (n = 205). The classic sinusoids
(Vaswani et al. 2017, section 3.5) put the time into the token itself, at no cost in tokens. Published checkpoints were
trained without a time code.

The code of the time of day is added in the same way, where the weights were trained with it: "between ten and eleven"
and "this morning" cannot be told from a position in the stream. All of the width is taken by the time code, so the
clock's sinusoids are spread over it by rows of a Hadamard matrix, which a linear layer reads back.

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

DAY_NS = 86_400 * 10**9
# Harmonics of a day: the shortest turns once in an hour, so that neighbouring quarters of an hour lie a quarter apart.
CLOCK_HARMONICS = (1, 2, 3, 4, 6, 8, 12, 24)


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


def memory_clock_code(snapshot: MemorySnapshot, config: FlashMemoryConfig, width: int) -> Tensor:
    """The code of the time of day [N, H] float32 of the memory's tokens, in the order of `MemorySnapshot.features`.

    The time of day is that of the stamps, in UTC. Its root mean square is `config.clock_code`.

    Args:
        snapshot: the memory; the window's steps have the newest stamp in it.
        config: for `clock_code`.
        width: H, see `check_clock_width`.

    Raises:
        ValueError: for another width.
    """
    check_clock_width(width)
    grid = snapshot.grid
    middle_ns = snapshot.csm_start_ns + (snapshot.csm_end_ns - snapshot.csm_start_ns) // 2
    # Slots are in order of their mean times: the last one need not hold the newest step, and there may be none.
    newest_ns = torch.cat([snapshot.csm_end_ns, snapshot.dam_stamps_ns]).amax().expand(snapshot.window.shape[0])
    parts = (
        (snapshot.dam_stamps_ns, grid.dam_tokens),
        # A control without the slots keeps their stamps, which still tell the newest one.
        (middle_ns[: snapshot.csm.shape[0]], grid.csm_tokens),
        (newest_ns, grid.dam_tokens),
    )
    stamps = torch.cat([stamps_ns.repeat_interleave(tokens) for stamps_ns, tokens in parts])
    # In whole nanoseconds: as seconds since 1970, float32 is minutes off.
    day = (stamps % DAY_NS).double() / DAY_NS
    angles = 2 * math.pi * day[:, None] * torch.tensor(CLOCK_HARMONICS, device=day.device)
    waves = torch.cat([angles.sin(), angles.cos()], dim=1).float()
    # Sums of as many sinusoids as there are harmonics, each of mean square 1.
    return waves @ _signs(waves.shape[1], width, waves.device) * (config.clock_code / math.sqrt(len(CLOCK_HARMONICS)))


def check_clock_width(width: int) -> None:
    """Refuses a width H that no clock code fits: there are Hadamard matrices of powers of 2.

    Raises:
        ValueError: for such a one.
    """
    least = 4 * len(CLOCK_HARMONICS)
    if width < least or width & (width - 1):
        raise ValueError(
            f"the language model's width is {width}; a clock code needs a power of 2 from {least} up, so set "
            "clock_code to 0"
        )


def _signs(rows: int, width: int, device: torch.device) -> Tensor:
    """[rows, width] of 1 and -1, orthogonal: rows of Sylvester's Hadamard matrix, without its first, of ones."""
    matrix = torch.ones(1, 1, device=device)
    while matrix.shape[0] < width:
        matrix = torch.cat([torch.cat([matrix, matrix], 1), torch.cat([matrix, -matrix], 1)])
    return matrix[1 : rows + 1]


def _sinusoids(values: Tensor, shortest: float, longest: float, width: int) -> Tensor:
    """[n, width]: sines, then cosines, of values [n] at wavelengths from the shortest to the longest."""
    lengths = torch.logspace(math.log10(shortest), math.log10(longest), width // 2, device=values.device)
    angles = values[:, None] * (2 * math.pi / lengths)
    return torch.cat([angles.sin(), angles.cos()], dim=1)
