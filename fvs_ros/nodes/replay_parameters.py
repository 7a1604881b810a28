"""The parameters of the replay node: each with its one default, its description and its range."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rclpy.node import Node

from fvs_ros.nodes.parameters import declare, parameter, rows_of


@dataclass(frozen=True)
class ReplayConfig:
    """How to play which recording; `config/replay.yaml` is the commented list.

    Raises:
        ValueError: for a value that has no meaning.
    """

    bag: str = parameter(
        "",
        "Recording to play: rosbag2 folder, .mcap, .db3 or .bag file, video, folder of images; embedded ships",
    )
    topics: tuple[str, ...] = parameter(("",), "Topics of a bag to play; [''] plays all of them")
    rate: float = parameter(1.0, "Recorded seconds per wall-clock second", 0.01, 100.0)
    loop: bool = parameter(False, "Begin again at the end; recorded stamps jump back, as with `ros2 bag play --loop`")
    start_offset: float = parameter(0.0, "Seconds of the recording to leave out at its beginning", 0.0, 1e9)
    duration: float = parameter(0.0, "Seconds of the recording to play; 0 plays to its end", 0.0, 1e9)
    clock_rate: float = parameter(40.0, "/clock messages per wall-clock second; 0 leaves /clock alone", 0.0, 1000.0)
    wait_for_subscriber: float = parameter(
        0.0, "Longest wait, in seconds, for a subscriber to the images before starting; 0 starts at once", 0.0, 3600.0
    )
    wait_for_acknowledgment: float = parameter(
        5.0, "Longest wait, in seconds, at the end for subscribers to confirm the last messages", 0.0, 60.0
    )
    image_transport: str = parameter(
        "raw", "How to publish the images of a video: raw, or compressed (JPEG)", choices=("raw", "compressed")
    )
    encoding: str = parameter("rgb8", "Encoding of a video's raw images", choices=("rgb8", "bgr8"))
    jpeg_quality: int = parameter(90, "JPEG quality of a video's compressed images", 1, 100)
    frame_id: str = parameter("camera_optical_frame", "frame_id of a video's images")
    video_fps: float = parameter(
        0.0, "Images per second of a video or folder, in stamps; 0 takes the video's own, or 1 for images", 0.0, 1000.0
    )
    stamp_offset: float = parameter(
        -1.0, "Stamp of a video's first frame, in seconds; below 0 takes the time at which the replay starts", -1.0, 4e9
    )
    continue_stamps: bool = parameter(
        False, "When a video loops: let its stamps go on instead of jumping back, as one endless stream"
    )

    def __post_init__(self) -> None:
        if not self.bag:
            raise ValueError("no recording is given; set the parameter bag to a bag or a video, as in -p bag:=PATH")

    @property
    def wanted_topics(self) -> tuple[str, ...]:
        """Names of the topics to play, empty for all."""
        return tuple(f"/{name.lstrip('/')}" for name in self.topics if name)


def declare_parameters(node: Node) -> ReplayConfig:
    """Declare every parameter read-only on the node, and read it.

    Raises:
        ValueError: for a value that has no meaning or is of the wrong type.
        rclpy.exceptions.ParameterException: for a value out of its range.
    """
    values: dict[str, Any] = {}
    for row in rows_of(ReplayConfig):
        value = declare(node, row)
        if problem := row.check(value):
            raise ValueError(problem)
        values[row.name] = tuple(value) if isinstance(value, list) else value
    return ReplayConfig(**values)
