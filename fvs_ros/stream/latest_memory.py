"""The newest memory, as a reference that the ingest worker swaps and the answer worker reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fvs_ros.episodic.segment import Segment
from fvs_ros.memory.keyframes import NO_SLOT
from fvs_ros.memory.snapshot import MemorySnapshot
from fvs_ros.stream.origins import StepOrigin
from fvs_ros.stream.types import MemoryStatus, Moment


@dataclass(frozen=True)
class PublishedMemory:
    """A memory that answers can be given from. Nothing in it is ever written again.

    Attributes:
        origins: of every step in `snapshot.dam_steps`.
        forgettings: of an excerpt or a recalled memory, `LatestMemory.forgettings` when it was made.
        recalled: the segments that its slots show, where a question recalled them; empty for a Flash Memory.
    """

    snapshot: MemorySnapshot
    origins: Mapping[int, StepOrigin]
    status: MemoryStatus
    forgettings: int = 0
    recalled: tuple[Segment, ...] = ()

    def moments(self) -> tuple[Moment, ...]:
        """One moment per DAM slot or recalled segment, in time order. Waits for the device."""
        if self.recalled:
            return tuple(
                Moment(one.keyframe_ns, one.start_ns, one.end_ns, one.weight, one.frame_id, one.pose)
                for one in self.recalled
            )
        snapshot = self.snapshot
        snapshot.wait_ready()
        stamps_ns = snapshot.dam_stamps_ns
        columns = torch.stack(
            [
                stamps_ns,
                self._of_slots(snapshot.csm_start_ns, stamps_ns),
                self._of_slots(snapshot.csm_end_ns, stamps_ns),
                snapshot.dam_steps,
            ],
            dim=1,
        ).tolist()
        weights = self._of_slots(snapshot.csm_weights, torch.ones_like(stamps_ns)).tolist()
        moments = []
        for (stamp_ns, start_ns, end_ns, step), weight in zip(columns, weights, strict=True):
            origin = self.origins.get(step, StepOrigin())
            moments.append(Moment(stamp_ns, start_ns, end_ns, weight, origin.frame_id, origin.pose))
        return tuple(sorted(moments, key=lambda moment: (moment.stamp_ns, moment.start_ns)))

    def _of_slots(self, values: Tensor, own: Tensor) -> Tensor:
        """For each keyframe, the one of `values` [S] of its CSM slot; of `own` [R] where it stands for no slot."""
        slots = self.snapshot.dam_slots
        without = values.shape[0] + torch.arange(slots.shape[0], device=slots.device)
        return torch.cat([values, own.to(values.dtype)])[torch.where(slots == NO_SLOT, without, slots)]


class LatestMemory:
    """The newest memory.

    Written with the engine's lock held, read without it: `current` and `status` are each replaced as a whole.

    Attributes:
        current: None until the first frame of an episode is in memory.
        status: of the newest memory, or of the empty one after `clear`.
        forgettings: how often something stored was forgotten. Written by the recorder's thread alone.
    """

    def __init__(self) -> None:
        self.current: PublishedMemory | None = None
        self.status = MemoryStatus()
        self.forgettings = 0

    def publish(self, memory: PublishedMemory) -> None:
        """Replaces the memory, under the next version number."""
        self.status = replace(memory.status, version=self.status.version + 1)
        self.current = replace(memory, status=self.status)

    def clear(self, episode: int) -> None:
        """Drops the memory because `episode` begins, which is a new version too."""
        self.status = MemoryStatus(version=self.status.version + 1, episode=episode)
        self.current = None
