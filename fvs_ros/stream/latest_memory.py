"""The newest memory, as a reference that the ingest worker swaps and the answer worker reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from fvs_ros.episodic.segment import Segment
from fvs_ros.memory.snapshot import MemorySnapshot
from fvs_ros.stream.origins import StepOrigin
from fvs_ros.stream.types import MemoryStatus


@dataclass(frozen=True)
class PublishedMemory:
    """A memory that answers can be given from. Nothing in it is ever written again.

    Attributes:
        origins: of every step that stands for a slot of `snapshot`.
        forgettings: of an excerpt or a recalled memory, `LatestMemory.forgettings` when it was made.
        recalled: the segments that its slots show, where a question recalled them; empty for a Flash Memory.
    """

    snapshot: MemorySnapshot
    origins: Mapping[int, StepOrigin]
    status: MemoryStatus
    forgettings: int = 0
    recalled: tuple[Segment, ...] = ()


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
