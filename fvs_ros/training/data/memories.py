"""The memories of an episode at its moments, as the robot or the published evaluation would have them.

Shapes: T grid steps.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fvs_ros.memory.config import FlashMemoryConfig
from fvs_ros.memory.kmeans import clip_generator
from fvs_ros.memory.offline import build_memory
from fvs_ros.memory.recalled import recalled_memory
from fvs_ros.memory.snapshot import MemorySnapshot, PatchGrid, StepFeatures
from fvs_ros.memory.streaming import StreamingFlashMemory
from fvs_ros.sources.frame import SECOND_NS
from fvs_ros.training.data.episodes import ShownSegments, TrainingEpisode
from fvs_ros.training.errors import TrainingError


def memories(
    features: StepFeatures, episode: TrainingEpisode, grid: PatchGrid, config: FlashMemoryConfig
) -> list[MemorySnapshot]:
    """The memory at each moment.

    A stamped episode goes through the streaming memory. Up to `csm_slots` steps that is bit for bit the offline one,
    which is built instead: it is cheaper, and gradients flow through it. A video has the offline memory at any
    length; its k-means starts from the episode's identity, so that a resumed run sees the same memories. Where moments
    say what is shown, the memories hold that.

    Args:
        features: T steps, with or without gradient.
        episode: what they are of.
        grid: patches of a frame.
        config: sizes.

    Raises:
        TrainingError: a moment lies outside the episode, or gradients would have to flow through a streaming memory
            that joins steps.
    """
    shown = [moment.shown for moment in episode.moments if moment.shown is not None]
    if shown:
        return [_recalled(features, one, grid, config) for one in shown]
    total = features.low.shape[0]
    wanted = [total if moment.steps is None else moment.steps for moment in episode.moments]
    if not wanted or min(wanted) < 1 or max(wanted) > total or wanted != sorted(wanted):
        raise TrainingError(
            f"{episode.name} asks after {wanted} grid steps, of {total}; they must lie within, in order"
        )
    starts, ends = _stamps(episode, total, features.low.device)
    found, memory, appended = [], None, 0
    for steps in wanted:
        if episode.stamps_ns is None or steps <= config.csm_slots:
            head = StepFeatures(features.high[:steps], features.low[:steps])
            random = clip_generator(episode.identity, features.low.device)
            found.append(
                build_memory(head, grid, config, start_ns=starts[:steps], end_ns=ends[:steps], generator=random)
            )
            continue
        if features.low.requires_grad:
            raise TrainingError(
                f"{episode.name} asks after {steps} grid steps, more than the {config.csm_slots} that the memory holds "
                "unjoined; with tower: trained give shorter lengths, or freeze the tower"
            )
        if memory is None:
            width = features.low.shape[-1]
            memory = StreamingFlashMemory(config, grid, width, device=features.low.device, dtype=features.low.dtype)
        new = slice(appended, steps)
        memory.append(features.high[new], features.low[new], starts[new].tolist(), ends[new].tolist())
        appended = steps
        found.append(memory.snapshot())
    return found


def _recalled(
    features: StepFeatures, shown: ShownSegments, grid: PatchGrid, config: FlashMemoryConfig
) -> MemorySnapshot:
    device = features.low.device
    newest = shown.window[max(0, len(shown.window) - config.window_slots) :]
    return recalled_memory(
        features.low[list(shown.places)],
        features.high[list(newest)],
        grid,
        steps=shown.steps,
        times=torch.tensor(shown.times, device=device),
        start_ns=torch.tensor(shown.start_ns, device=device),
        end_ns=torch.tensor(shown.end_ns, device=device),
    )


def _stamps(episode: TrainingEpisode, steps: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Stamps [T] of the first and second frame of each step; one frame a second where the episode has none."""
    stamps = range(0, 2 * steps * SECOND_NS, SECOND_NS) if episode.stamps_ns is None else episode.stamps_ns
    if len(stamps) != 2 * steps:
        raise TrainingError(f"{episode.name} has {len(stamps)} stamps for {2 * steps} frames")
    pairs = torch.tensor(stamps, device=device).view(steps, 2)
    return pairs[:, 0], pairs[:, 1]
