"""What an engine needs to keep a stream's episodes: one part for each thread that has to do with them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from fvs_ros.memory.geometry import FRAMES_PER_STEP
from fvs_ros.stream.config import StreamConfig
from fvs_ros.stream.frame_queue import FrameQueue
from fvs_ros.stream.latest_memory import LatestMemory
from fvs_ros.stream.memory_keeper import MemoryKeeper
from fvs_ros.stream.model_protocol import StreamModel
from fvs_ros.stream.pictures import grid_of_picture
from fvs_ros.stream.recall import QuestionRecall, SegmentRecall, most_recalled
from fvs_ros.stream.recall_keys import keys_of
from fvs_ros.stream.recorder import Recorder
from fvs_ros.stream.recording import Episodes
from fvs_ros.stream.remake import FeatureRemaker
from fvs_ros.stream.scene_pictures import ScenePictures

# Grid steps that must be missing before a segment ends for silence.
SILENT_STEPS = 4


@dataclass(frozen=True)
class EpisodeKeeping:
    """The parts that keep episodes.

    Attributes:
        recorder: stores the stream as segments, on a thread of its own.
        keeper: changes the memory on the ingest thread.
        remaker: makes features anew, on both.
        recall: finds segments for questions, on the recorder's thread; None where nothing is recalled.
        pictures: of what was seen, found on the recorder's thread.
    """

    recorder: Recorder
    keeper: MemoryKeeper
    remaker: FeatureRemaker
    recall: QuestionRecall | None
    pictures: ScenePictures


def keep_episodes(
    episodes: Episodes, model: StreamModel, config: StreamConfig, frames: FrameQueue, latest: LatestMemory
) -> EpisodeKeeping:
    """The parts that keep the episodes of an engine's stream.

    Args:
        episodes: where the stream is kept.
        model: of the engine.
        config: of the engine.
        frames: the engine's queue.
        latest: the engine's newest memory.
    """
    fingerprint = model.fingerprint()
    make_keys = keys_of(model.recaller)
    recorder = Recorder(episodes, fingerprint, _silence_s(episodes, config), make_keys)
    held_apart = max(model.memory_config.csm_slots, model.memory_config.dam_slots)
    recall = None
    recalled = most_recalled(config.recall_segments, model.memory_config.csm_slots)
    if model.recaller is not None and recalled:
        segments = SegmentRecall(episodes.store, fingerprint, model.recaller, recalled, held_apart)
        recall = QuestionRecall(segments, recorder, latest)
    grid_of = partial(grid_of_picture, model)
    keeper = MemoryKeeper(episodes, recorder, fingerprint, grid_of, held_apart, lambda: frames.closed)
    remaker = FeatureRemaker(episodes.store, fingerprint, recorder, frames.request_when_idle, grid_of, make_keys)
    return EpisodeKeeping(recorder, keeper, remaker, recall, ScenePictures(episodes.store, recorder))


def _silence_s(episodes: Episodes, config: StreamConfig) -> float:
    """Seconds without a step after which a segment ends: at a low rate, steps come slowly."""
    step_s = FRAMES_PER_STEP / config.fps if config.fps else 0.0
    return max(episodes.silence_s, SILENT_STEPS * step_s)
