"""AM-RoPE: positions of the memory and of the text after it on Qwen2-VL's three axes (time, row, column).

The published layout puts all DAM tokens first, in order of falling cluster weight, then all CSM tokens in order of
time. The temporal position of a keyframe is its step index; that of a CSM slot is its mean step index plus the number
of DAM tokens. One accident is kept, because the released weights were trained with it: the text starts after the number
of CSM *slots* although a CSM slot's temporal position can reach the number of *steps*, so late slots stand beside or
behind the text.

Shapes: S filled CSM slots, R filled DAM slots, N memory tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fvs_ros.memory.config import FlashMemoryConfig
from fvs_ros.memory.geometry import MERGE, POOL
from fvs_ros.memory.snapshot import MemorySnapshot, PatchGrid


@dataclass(frozen=True)
class MemoryLayout:
    """Where the memory's tokens stand in the language model's input.

    Attributes:
        order: [n] int64, the tokens that are shown, by their numbers in `MemorySnapshot.features`, -1 where text stands
            among them; None for all of them, as they are.
        positions: [3, n] int64, on the axes time, row and column.
        next_position: of the text after them.
        text: [n] int64, ids of the text among them, -1 elsewhere; None where there is none.
    """

    order: Tensor | None
    positions: Tensor
    next_position: int
    text: Tensor | None = None


def published_layout(snapshot: MemorySnapshot, first: int, config: FlashMemoryConfig) -> MemoryLayout:
    """AM-RoPE, as this module describes it; `first` is the position of the first memory token."""
    return MemoryLayout(
        order=None,
        positions=memory_positions(snapshot, first, config.horizon),
        next_position=text_position(snapshot, first, config),
    )


def rescale_times(times: Tensor, steps: int, horizon: int) -> Tensor:
    """Step indices `times` rounded to int64, after a stream of more than `horizon` steps is rescaled onto the horizon.

    The first step keeps 0 and the newest gets `horizon` - 1, as if the stream were sampled uniformly to the trained
    number of frames, which is how the published evaluation treats long videos.
    """
    if steps > horizon:
        times = times * ((horizon - 1) / (steps - 1))
    return times.round().long()


def memory_positions(snapshot: MemorySnapshot, first: int, horizon: int) -> Tensor:
    """Position ids [3, N] int64 of the memory's tokens in the order of `MemorySnapshot.features`, on its device.

    Args:
        snapshot: the memory.
        first: position of the first memory token.
        horizon: in grid steps, see `rescale_times`.
    """
    grid = snapshot.grid
    if snapshot.ranked:
        slots, newest_steps = snapshot.csm.shape[0], snapshot.window.shape[0]
        clusters = torch.arange(slots, device=snapshot.csm.device)
        keyframes = snapshot.dam_slots
        # Those of the newest slots; a window of more steps than there are slots begins beside the first of them.
        newest = torch.arange(slots - newest_steps, slots, device=snapshot.csm.device).clamp(min=0)
    else:
        keyframes = rescale_times(snapshot.dam_steps, snapshot.steps, horizon)
        clusters = rescale_times(snapshot.csm_times, snapshot.steps, horizon)
        # The window continues the CSM's time.
        newest = rescale_times(snapshot.window_steps, snapshot.steps, horizon)
    dam = grid_positions(keyframes, grid.height // MERGE, grid.width // MERGE)
    csm = grid_positions(clusters, *low_extent(grid))
    window = grid_positions(newest, grid.height // MERGE, grid.width // MERGE)
    return torch.cat([dam + first, csm + first + dam.shape[1], window + first + dam.shape[1]], dim=1)


def text_position(snapshot: MemorySnapshot, first: int, config: FlashMemoryConfig) -> int:
    """Position of the first text token after a memory whose first token is at `first`."""
    grid = snapshot.grid
    if config.csm_slots == 0 and not snapshot.ranked:
        # Another accident of the published code: without a CSM the text starts behind the DAM's extent, as it does
        # behind a plain video, not behind the number of its tokens.
        return first + max(snapshot.dam.shape[0], grid.height // MERGE, grid.width // MERGE)
    dam_tokens = snapshot.dam.shape[0] * grid.dam_tokens
    slots = snapshot.csm.shape[0] if snapshot.ranked else min(snapshot.steps, config.csm_slots)
    extent = max(slots, *low_extent(grid))
    return first + dam_tokens + extent


def low_extent(grid: PatchGrid) -> tuple[int, int]:
    """Rows and columns of a CSM slot's tokens."""
    return grid.height // (MERGE * POOL), grid.width // (MERGE * POOL)


def grid_positions(times: Tensor, rows: int, columns: int) -> Tensor:
    """[3, len(times) * rows * columns]: time, row and column of each token; time varies slowest."""
    shape = (times.shape[0], rows, columns)
    row = torch.arange(rows, device=times.device)
    column = torch.arange(columns, device=times.device)
    axes = (times[:, None, None].expand(shape), row[None, :, None].expand(shape), column.expand(shape))
    return torch.stack([axis.reshape(-1) for axis in axes])
