"""Training data: episodes, the moments at which they are asked about, and the conversations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from fvs_ros.training.objectives.memory_probe import ProbeLabels
from fvs_ros.training.objectives.segment_recall import SegmentQuestions
from fvs_ros.training.objectives.token_naming import TokenNames


@dataclass(frozen=True)
class Conversation:
    """Questions that follow on each other, with their answers.

    Attributes:
        turns: question and answer, in order.
        family: the group in which its accuracy is reported, empty for none.
        proof_ns: intervals of stamps that prove the answer, both ends included; none where that is not known.
    """

    turns: tuple[tuple[str, str], ...]
    family: str = ""
    proof_ns: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class ShownSegments:
    """What a memory shows of a long stream, of which only this is drawn; see `fvs_ros.memory.recalled`.

    Attributes:
        places: among the episode's steps, of one step of each segment, in order of time.
        window: the same of the newest steps.
        steps: grid steps that the stream has had.
        times: mean grid step of each segment.
        start_ns, end_ns: stamps of each segment's first and last frame.
    """

    places: tuple[int, ...]
    window: tuple[int, ...]
    steps: int
    times: tuple[float, ...]
    start_ns: tuple[int, ...]
    end_ns: tuple[int, ...]


@dataclass(frozen=True)
class TrainingMoment:
    """Conversations about one memory, which do not see each other.

    Attributes:
        steps: grid steps that the memory has seen, None for all of the episode.
        shown: what the memory shows; None for the Flash Memory of those steps.
    """

    steps: int | None
    conversations: tuple[Conversation, ...]
    shown: ShownSegments | None = None


@dataclass(frozen=True)
class TrainingEpisode:
    """A stream of frames and what is asked about it.

    Attributes:
        name: for messages; a file and a place in it, or a seed.
        identity: changes with whatever changes the frames; the key of what is cached of them.
        stamps_ns: of every frame. None for a video, whose memory is the published offline one; an episode with
            stamps goes through the streaming memory, as on the robot.
        moments: in order of their steps.
        token_names: what its visual tokens show, None where that is not known.
        probe_labels: what its memory's tokens should know, None where that is not known.
        recall: what recall is trained on, None for other objectives.
    """

    name: str
    identity: str
    stamps_ns: tuple[int, ...] | None
    moments: tuple[TrainingMoment, ...]
    token_names: TokenNames | None = None
    probe_labels: ProbeLabels | None = None
    recall: SegmentQuestions | None = None


class EpisodeSource(Protocol):
    """Episodes by number. Used in several processes, each with its own copy.

    Attributes:
        min_pixels, max_pixels: bounds on a processed frame's area.
        drawn: whether frames are drawn each time, so that caching them saves work.
    """

    min_pixels: int
    max_pixels: int
    drawn: bool

    def __len__(self) -> int:
        """How many episodes there are."""

    def length(self, index: int) -> int:
        """Grid steps of an episode, 0 where that is not known before it is read."""

    def episode(self, index: int) -> TrainingEpisode:
        """The episode without its frames."""

    def frames(self, index: int) -> Sequence[np.ndarray]:
        """Its frames, an even number, RGB uint8 [height, width, 3].

        Raises:
            TrainingError: they cannot be read; names the episode.
        """
