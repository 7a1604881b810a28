"""A memory of a few steps of a long stream, which a question recalled; its layout is the Flash Memory's.

Shapes: n shown steps, P patches of a frame, D width of a patch feature, V newest steps.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fvs_ros.memory.snapshot import MemorySnapshot, PatchGrid
from fvs_ros.memory.spaced_steps import evenly_spaced

NEWEST, RECALLED, SPACED = 24, 40, 24
"""Segments that a memory shows: the newest, the recalled, and evenly spaced ones as an overview."""


def spaced(total: int, count: int) -> list[int]:
    """At most `count` of the numbers below `total`, evenly spaced, the first and the last among them."""
    if total <= count:
        return list(range(total))
    return evenly_spaced(total, count, torch.device("cpu")).round().long().tolist()


def shown_segments(scores: Tensor, recalled: int = RECALLED) -> Tensor:
    """Numbers of the segments that a memory shows, in order, int64.

    Args:
        scores: [n], how much each matters to the question; the segments are in order of time.
        recalled: how many are chosen for that, beside the newest and the evenly spaced.
    """
    total = scores.shape[0]
    shown = torch.zeros(total, dtype=torch.bool, device=scores.device)
    shown[max(0, total - NEWEST) :] = True
    shown[spaced(total, SPACED)] = True
    left = scores.masked_fill(shown, -torch.inf)
    best = left.topk(min(recalled, total)).indices
    shown[best[left[best] > -torch.inf]] = True
    return shown.nonzero().flatten()


def recalled_memory(
    low: Tensor,
    window: Tensor,
    grid: PatchGrid,
    *,
    steps: int,
    times: Tensor,
    start_ns: Tensor,
    end_ns: Tensor,
    stamps_ns: Tensor | None = None,
    window_stamps_ns: Tensor | None = None,
) -> MemorySnapshot:
    """A memory whose CSM holds the steps or segments that are shown, each in a slot of its own; its DAM is empty.

    They stand side by side, at the positions of their ranks, and their time code tells when they were: of a day, most
    would share their temporal position with a neighbour, since a position is six minutes there.

    Args:
        low: [n, P / 4, D], features of what is shown, in order of time.
        window: [V, P, D], the newest steps in high resolution; V is 0 where the memory has no window.
        grid: patches of a frame.
        steps: grid steps seen.
        times: [n] float32, mean index of the steps that each slot shows.
        start_ns: [n] int64, stamps of their first frames.
        end_ns: [n] int64, stamps of their last frames.
        stamps_ns: [n] int64, stamps of their keyframes; None where they are single steps.
        window_stamps_ns: [V] int64, of the newest steps; the last of `end_ns` where they are not known.

    Raises:
        ValueError: nothing is shown, or the tensors do not fit each other.
    """
    shown = low.shape[0]
    if not shown or not shown == times.shape[0] == start_ns.shape[0] == end_ns.shape[0]:
        raise ValueError(
            f"features of {shown} slots, {times.shape[0]} times, {start_ns.shape[0]} and {end_ns.shape[0]} stamps; "
            "give as many of each, and at least one"
        )
    nothing = torch.zeros(0, dtype=torch.int64, device=low.device)
    return MemorySnapshot(
        grid=grid,
        steps=steps,
        csm=low,
        csm_weights=torch.ones(shown, device=low.device),
        csm_times=times.float(),
        csm_start_ns=start_ns,
        csm_end_ns=end_ns,
        csm_steps=times.round().long(),
        csm_stamps_ns=start_ns if stamps_ns is None else stamps_ns,
        dam=window.new_zeros(0, grid.patches, low.shape[-1]),
        dam_steps=nothing,
        dam_slots=nothing,
        dam_stamps_ns=nothing,
        window=window,
        window_stamps_ns=end_ns[-1:].expand(window.shape[0]) if window_stamps_ns is None else window_stamps_ns,
        ranked=True,
    )
