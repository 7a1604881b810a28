"""The memory as a video: its slots in order of time, for language models that were not trained on the published layout.

Such a model knows videos: steps in order of time, each once. So a stream of which the memory keeps every step is shown
as that video and nothing else. Of a longer one the slots are shown in the order of their times, and a step that is
there in detail is not shown again: no keyframe that is in the window too or stands for two clusters, no CSM slot of a
single keyframe or that begins within the window.

Shapes: R DAM slots, S CSM slots, V window slots, m slots that are shown, n tokens of these.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from fvs_ros.memory.geometry import MERGE
from fvs_ros.memory.positions import MemoryLayout, grid_positions, low_extent
from fvs_ros.memory.snapshot import MemorySnapshot

# Added to a time, in positions, before it is cut to a whole one: a camera at 1 frame per second may be 10 ms early.
EARLY = 0.02
NEVER_NS = torch.iinfo(torch.int64).max


@dataclass(frozen=True)
class Timeline:
    """The slots that are shown.

    Attributes:
        slots: [m] int64, which, in order of time; numbered as in `MemorySnapshot.features`: DAM, CSM, window.
        times_s: [R + S + V] float64, time of every slot in seconds after the stream's first frame: of the first frame
            of a step, and of a cluster the middle of its steps'.
    """

    slots: Tensor
    times_s: Tensor


def timeline(snapshot: MemorySnapshot) -> Timeline:
    """The slots that are shown, in order of time. Waits for the device."""
    steps, count = snapshot.dam_steps, snapshot.csm.shape[0]
    # Controls that leave the CSM out keep its stamps, from which the stream's beginning is known.
    weights = snapshot.csm_weights[:count].double()
    start_ns, end_ns = snapshot.csm_start_ns[:count], snapshot.csm_end_ns[:count]
    stamps_ns = torch.cat([snapshot.dam_stamps_ns, start_ns, snapshot.window_stamps_ns])
    never_ns = stamps_ns.new_tensor([NEVER_NS])
    first_ns = torch.cat([stamps_ns, snapshot.csm_start_ns, never_ns]).min()
    # From the first frame of a cluster of w evenly spaced steps to the second of the last are 2w - 1 half steps.
    middle = (end_ns - start_ns) * ((weights - 1) / (2 * weights - 1))
    times_ns = (stamps_ns - first_ns) + functional.pad(middle, (steps.shape[0], snapshot.window.shape[0]))

    in_window = steps >= snapshot.steps - snapshot.window.shape[0]
    repeated = (steps[:, None] == steps).tril(-1).any(1)
    again = (weights == 1) & torch.isin(snapshot.csm_times.round().long(), steps)
    again |= start_ns >= torch.cat([snapshot.window_stamps_ns, never_ns])[0]
    shown = torch.cat([~(in_window | repeated), ~again, torch.ones_like(snapshot.window_stamps_ns, dtype=torch.bool)])
    order = times_ns.argsort(stable=True)
    return Timeline(slots=order[shown[order]], times_s=times_ns / 1e9)


def timeline_layout(snapshot: MemorySnapshot, first: int, per_second: float, longest_s: float) -> MemoryLayout:
    """The memory as a video whose positions in time count seconds, as Qwen2.5-VL has them. Waits for the device.

    The text follows behind the largest position, as the model was trained. In transformers 5 it follows behind the
    frame's rows and columns alone, and so stands beside steps in the midst of the video.

    Args:
        snapshot: the memory.
        first: position of the first memory token.
        per_second: positions a second.
        longest_s: longest stream whose times are kept; those of a longer one are scaled onto it.
    """
    shown, grid = timeline(snapshot), snapshot.grid
    total, device = shown.times_s.shape[0], shown.times_s.device
    newest_s = torch.cat([shown.times_s, shown.times_s.new_tensor([longest_s])]).max()
    times = (shown.times_s * (per_second * longest_s / newest_s) + EARLY).long()
    detail, low = (grid.height // MERGE, grid.width // MERGE), low_extent(grid)
    positions, numbers = [], []
    kinds = ((snapshot.dam.shape[0], *detail), (snapshot.csm.shape[0], *low), (snapshot.window.shape[0], *detail))
    rank = torch.full((total,), total, device=device)
    rank[shown.slots] = torch.arange(shown.slots.shape[0], device=device)
    counts = [count for count, _, _ in kinds]
    for (_, rows, columns), of_kind, ranks in zip(kinds, times.split(counts), rank.split(counts), strict=True):
        positions.append(grid_positions(of_kind, rows, columns))
        numbers.append(ranks.repeat_interleave(rows * columns))
    token_rank = torch.cat(numbers)
    order = token_rank.argsort(stable=True)
    order = order[token_rank[order] < total]
    placed = torch.cat(positions, dim=1)[:, order] + first
    return MemoryLayout(order, placed, int(placed.max()) + 1 if placed.numel() else first)
