"""Where the steps in memory were seen: what the host knows of them and the tensors do not hold."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from fvs_ros.sources.frame import Pose


@dataclass(frozen=True)
class StepOrigin:
    """Origin of a grid step's first frame, whose stamp is the keyframe's.

    Attributes:
        frame_id: the camera's coordinate frame.
        pose: the camera's pose at that frame, None where unknown.
    """

    frame_id: str = ""
    pose: Pose | None = None


class StepOrigins:
    """Origins of the steps that can still become keyframes; bounded on a stream without end.

    The others are pruned only every `prune_every` steps, because asking for the live ones waits for the device.

    Args:
        live_steps: returns the steps that can still become keyframes.
        prune_every: steps between two prunings.
    """

    def __init__(self, live_steps: Callable[[], Iterable[int]], prune_every: int = 256) -> None:
        self._live_steps = live_steps
        self._prune_every = prune_every
        self._added = 0
        self._origins: dict[int, StepOrigin] = {}

    def add(self, first_step: int, origins: Sequence[StepOrigin]) -> None:
        """Records the origins of the steps `first_step`, `first_step + 1`, ..., which must be in memory already."""
        self._origins.update(enumerate(origins, first_step))
        self._added += len(origins)
        if self._added >= self._prune_every:
            self._added = 0
            live = set(self._live_steps())
            self._origins = {step: origin for step, origin in self._origins.items() if step in live}

    def restore(self, origins: Mapping[int, StepOrigin]) -> None:
        """Records the origins of a memory that goes on from another."""
        self._origins = dict(origins)

    def view(self) -> dict[int, StepOrigin]:
        """A copy of the origins, a few hundred references: cheap beside the batch of frames it is made for."""
        return dict(self._origins)
