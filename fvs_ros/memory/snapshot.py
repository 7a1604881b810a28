"""Immutable snapshots of the memory, from which answers are computed.

Shapes: T grid steps, S filled CSM slots, R filled DAM slots, V filled window slots, P patches of a frame, D width of a
patch feature.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from fvs_ros.memory.geometry import FRAME_PATCHES, MERGE, PATCH, POOL


@dataclass(frozen=True)
class PatchGrid:
    """Patches of one frame at high resolution.

    Attributes:
        height, width: in patches; multiples of 4, since the pooled frame is merged 2 x 2 as well.
        patch: pixels along each side of a patch.
    """

    height: int
    width: int
    patch: int = PATCH

    def __post_init__(self) -> None:
        step = FRAME_PATCHES
        if self.height < step or self.width < step or self.height % step or self.width % step:
            raise ValueError(
                f"the patch grid is {self.height} x {self.width}; both must be positive multiples of {step}, "
                f"so resize frames to multiples of {step * self.patch} pixels"
            )

    @classmethod
    def of_frames(cls, height: int, width: int, patch: int) -> PatchGrid:
        """The grid of frames of `height` x `width` pixels that are resized already."""
        return cls(height // patch, width // patch, patch)

    @property
    def frame_size(self) -> tuple[int, int]:
        """Height and width of a frame, in pixels."""
        return self.height * self.patch, self.width * self.patch

    @property
    def patches(self) -> int:
        """P, patches of a high-resolution step."""
        return self.height * self.width

    @property
    def low_patches(self) -> int:
        """Patches of a low-resolution step, P / 4."""
        return self.patches // POOL**2

    @property
    def dam_tokens(self) -> int:
        """Language-model tokens of one DAM slot."""
        return self.patches // MERGE**2

    @property
    def csm_tokens(self) -> int:
        """Language-model tokens of one CSM slot."""
        return self.low_patches // MERGE**2


@dataclass(frozen=True)
class StepFeatures:
    """ViT features before the merger, in merge-block order, of n grid steps.

    Attributes:
        high: [n, P, D].
        low: [n, P / 4, D], of the frames pooled 2 x 2.
    """

    high: Tensor
    low: Tensor


@dataclass(frozen=True)
class MemorySnapshot:
    """A Flash Memory at one moment. Its tensors are never written again.

    Attributes:
        grid: patches of a frame.
        steps: T, grid steps seen.
        csm: [S, P / 4, D], centroids of the CSM slots in order of their mean time; where the CSM is sampled, single
            steps.
        csm_weights: [S] float32, number of steps in each CSM slot; 1 where the CSM is sampled.
        csm_times: [S] float32, mean index of those steps.
        csm_start_ns, csm_end_ns: [S] int64, stamps of their first and last frame.
        csm_steps: [S] int64, the step of each CSM slot that shows when it was: of those that are still known one by
            one, the nearest to its mean time.
        csm_stamps_ns: [S] int64, stamps of these steps.
        dam: [R, P, D], keyframes in the published order: by falling weight of their CSM slot, or by time where they
            are evenly spaced or all steps.
        dam_steps: [R] int64, step index of each keyframe.
        dam_slots: [R] int64, CSM slot that each keyframe stands for; -1 where it stands for none, being one of evenly
            spaced steps.
        dam_stamps_ns: [R] int64, stamp of each keyframe.
        window: [V, P, D], the newest steps in order of time; V is 0 where the memory has no window.
        window_stamps_ns: [V] int64, stamp of each of them.
        ranked: whether temporal positions are the ranks of CSM slots instead of step indices. So it is where a few
            steps of a long stream are shown, which would else share positions.
        provisional: whether the newest step is a single frame that counts twice.
        ready: on CUDA, the event that is recorded once all tensors are computed; see `wait_ready`.
    """

    grid: PatchGrid
    steps: int
    csm: Tensor
    csm_weights: Tensor
    csm_times: Tensor
    csm_start_ns: Tensor
    csm_end_ns: Tensor
    csm_steps: Tensor
    csm_stamps_ns: Tensor
    dam: Tensor
    dam_steps: Tensor
    dam_slots: Tensor
    dam_stamps_ns: Tensor
    window: Tensor
    window_stamps_ns: Tensor
    ranked: bool = False
    provisional: bool = False
    ready: torch.cuda.Event | None = None

    def wait_ready(self) -> None:
        """Makes the current CUDA stream wait until the tensors are computed; does nothing on a CPU.

        Code that reads the tensors on another stream than the one that made them must also hold the snapshot until it
        has read them.
        """
        if self.ready is not None:
            torch.cuda.current_stream(self.csm.device).wait_event(self.ready)

    @property
    def window_steps(self) -> Tensor:
        """[V] int64, step indices of the window."""
        return torch.arange(self.steps - self.window.shape[0], self.steps, device=self.window.device)

    @property
    def slot_tokens(self) -> tuple[int, ...]:
        """Language-model tokens of each slot, in the order of `features`: DAM, CSM, window; [R + S + V]."""
        detail, synopsis = (self.grid.dam_tokens,), (self.grid.csm_tokens,)
        return self.dam.shape[0] * detail + self.csm.shape[0] * synopsis + self.window.shape[0] * detail

    @property
    def tokens(self) -> int:
        """N, language-model tokens of the memory."""
        return sum(self.slot_tokens)

    def to(self, device: torch.device) -> MemorySnapshot:
        """This snapshot with its tensors on `device`; waits until they are computed."""
        self.wait_ready()
        tensors: dict[str, Any] = {
            name: value.to(device) for name, value in vars(self).items() if isinstance(value, Tensor)
        }
        return replace(self, ready=None, **tensors)

    def features(self) -> Tensor:
        """[4N, D], the input of the merger: all DAM patches, then all CSM patches, then those of the window."""
        width = self.csm.shape[-1]
        return torch.cat([part.reshape(-1, width) for part in (self.dam, self.csm, self.window)])
