"""Frames of a video file or of a folder of images, sampled as published: 1 a second, then uniformly, an even number."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fvs_ros.model.preprocess import sampled_indices
from fvs_ros.sources.bags import SourceError
from fvs_ros.sources.frame import ImageError
from fvs_ros.sources.recordings import VIDEO_SUFFIXES, ImageFolderSource
from fvs_ros.sources.sampling import nearest_frames
from fvs_ros.sources.videos import VideoSource
from fvs_ros.training.errors import TrainingError


def find_video(path: Path, where: str) -> Path:
    """The video of a path in annotations: as it is, or a folder of frames or a file of that name but for the suffix.

    Raises:
        TrainingError: there is none.
    """
    folder = path.with_suffix("") if path.suffix.lower() in VIDEO_SUFFIXES else path
    for candidate in (path, folder, *(path.with_name(path.name + suffix) for suffix in VIDEO_SUFFIXES)):
        if candidate.exists():
            return candidate
    raise TrainingError(f"{where}: the video {path} does not exist, neither as a file nor as a folder of frames")


def identity(video: Path) -> str:
    """A text that changes when the video does."""
    files = sorted(video.iterdir()) if video.is_dir() else [video]
    stats = [(file.name, file.stat()) for file in files]
    return f"{video.resolve()} {[(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]}"


def read_frames(video: Path, fps: float, max_frames: int, where: str) -> list[np.ndarray]:
    """The frames to learn from, an even number, RGB uint8 [height, width, 3].

    Args:
        video: a video file, or a folder of frames, all of which count.
        fps: frames per second taken of a video file.
        max_frames: more than these are sampled uniformly; of an odd number the last one is repeated.
        where: place in the data, for errors.

    Raises:
        TrainingError: it cannot be decoded, or has fewer than two frames.
    """
    try:
        if video.is_dir():
            frames = list(ImageFolderSource(video).frames())
        else:
            frames = list(nearest_frames(VideoSource(video).frames(), fps))
        if len(frames) < 2:
            raise TrainingError(f"{where}: {video} has {len(frames)} frame; a grid step needs 2, so drop this entry")
        return [frames[index].image() for index in sampled_indices(len(frames), max_frames)]
    except (SourceError, ImageError) as error:
        raise TrainingError(f"{where}: {error}") from error
