"""What is kept of a stream beyond its Flash Memory: what the engine is told, and what it says about it."""

from __future__ import annotations

from dataclasses import dataclass

from fvs_ros.episodic.store import EpisodeStore, Resume
from fvs_ros.errors import ReadableError

# Long enough for a slow camera, short enough that what was seen last survives a robot that is switched off.
SILENCE_S = 10.0
NOTHING_KEPT = "no episodes are kept; set memory_dir, or give the engine an episode store"


class RecordingError(ReadableError):
    """Memory could not be saved, loaded or forgotten: nothing is kept, the engine is closed, or time ran out."""


@dataclass(frozen=True)
class Episodes:
    """Where an engine keeps the segments of its stream, and finds those of earlier runs.

    Attributes:
        store: open; the caller's, who closes it after the engine.
        camera: name of the camera, for instance its topic.
        map_id: names the map in which poses hold.
        resume: whether the stream goes on with the store's last episode.
        silence_s: wall-clock seconds without a grid step after which the open segment ends; infinite for a recording,
            whose segments must not depend on the speed of the machine. At low rates it is at least four steps.
    """

    store: EpisodeStore
    camera: str
    map_id: str = ""
    resume: Resume = Resume.AUTO
    silence_s: float = SILENCE_S


@dataclass(frozen=True)
class RecordingStatus:
    """What is stored, and what is wrong with it; sentences are empty where there is nothing to say.

    Attributes:
        segments: in the store.
        episode_segments: of these, of the running episode.
        bytes, limit_bytes: of the store's database, and at most.
        evicted: segments that went to make room since the store was made.
        unrecorded_steps: grid steps of this run that were never stored: the recorder was behind, or the store failed.
        problem: what is wrong now: why the last segment was not stored, or what the store says of itself.
        restoring: progress of the Flash Memory's rebuilding.
        remaking: progress of features that are made anew for this model.
        resumed: which episode this run goes on with, and the gap before it.
    """

    segments: int = 0
    episode_segments: int = 0
    bytes: int = 0
    limit_bytes: int = 0
    evicted: int = 0
    unrecorded_steps: int = 0
    problem: str = ""
    restoring: str = ""
    remaking: str = ""
    resumed: str = ""

    def notes(self) -> tuple[str, ...]:
        """What a person must know at the end of a stream: what was not kept, and why."""
        if not self.unrecorded_steps:
            return ()
        reason = self.problem or "the disk was slower than the stream"
        return (f"{self.unrecorded_steps} grid steps were not kept in the episode store: {reason}",)
