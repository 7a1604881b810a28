"""What the tools ask: a running node, or an engine of the server's own. No MCP."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Protocol

from fvs_ros.errors import ReadableError
from fvs_ros.sources.frame import Area
from fvs_ros.stream.types import Answer, AskOptions, MemoryStatus, Moment, Picture, StreamStatistics
from fvs_ros.stream.watch import WatchEvent, WatchOptions


class BackendError(ReadableError):
    """What was asked for is not there, or nobody is there to ask."""


@dataclass(frozen=True)
class MemoryReport:
    """What is remembered.

    Attributes:
        status: of the Flash Memory.
        csm_capacity, dam_capacity: its slots.
        model: name of the model that answers.
        segments: stored beside it.
        problem: what is wrong, in words; empty if nothing is.
        statistics: what became of frames and questions.
    """

    status: MemoryStatus
    csm_capacity: int
    dam_capacity: int
    model: str
    segments: int
    problem: str = ""
    statistics: StreamStatistics = field(default_factory=StreamStatistics)


@dataclass(frozen=True)
class Timeline:
    """What a memory shows the model.

    Attributes:
        moments: in order of time.
        end_ns: newest frame of that memory.
        live: whether it is the memory as it stands now; else that of the last answer.
    """

    moments: tuple[Moment, ...]
    end_ns: int
    live: bool


@dataclass(frozen=True)
class WatchReport:
    """A condition that is watched for.

    Attributes:
        condition: as given.
        question: as the model is asked.
        name: of a watch in the node's file; empty for others.
        is_true: whether it counts as true; None while it has not been looked at.
        since_ns: stamp from which on it is so.
        probability: that it is true, when it was last told.
    """

    condition: str
    question: str
    name: str = ""
    is_true: bool | None = None
    since_ns: int = 0
    probability: float = 0.0


class MemoryBackend(Protocol):
    """Answers and finds. Every method may be called from any thread, and none waits: each returns a future.

    Futures fail with an `AskError`, a `BackendError` or another `ReadableError`. Cancelling one ends the work on it.
    """

    def progress(self) -> str:
        """What must be done before all that was seen can be asked about; empty if it can."""

    def ask(self, question: str, options: AskOptions, on_token: Callable[[str], None]) -> Future[Answer]:
        """Asks; `on_token` is called on another thread with each chunk of the answer's text."""

    def moments(self, since_ns: int | None, until_ns: int | None, near: Area | None) -> Future[Sequence[Moment]]:
        """What was seen in a closed range of stamps and from an area; None leaves that open."""

    def keyframe(self, stamp_ns: int) -> Future[Picture]:
        """The picture of the scene that was in view at a stamp, or else of the nearest one in time."""

    def camera(self) -> Future[Picture]:
        """What the camera sees: its newest picture, whether or not that is kept."""

    def timeline(self) -> Future[Timeline]:
        """What the memory shows the model."""

    def memory(self) -> Future[MemoryReport]:
        """What is remembered now."""

    def watch(
        self, condition: str, options: WatchOptions, on_event: Callable[[WatchEvent], None]
    ) -> Future[WatchEvent]:
        """Watches until a condition is true; `on_event` is called on another thread with each look.

        Returns:
            The look that found it true. `AskError` (TIMEOUT) where none did in time.
        """

    def watches(self) -> Future[Sequence[WatchReport]]:
        """All that is watched for, whoever asked for it."""

    def close(self) -> None:
        """Ends all that is under way."""
