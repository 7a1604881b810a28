"""The demo's processes: the node, and the recording that plays its camera."""

from __future__ import annotations

from dataclasses import dataclass

from fvs_ros.ros_tools.demo_camera import Camera
from fvs_ros.ros_tools.demo_viewer import START_TIMEOUT_S
from fvs_ros.ros_tools.processes import Processes, ros_arguments

NODE, CAMERA = "stream_node", "replay_node"


@dataclass(frozen=True)
class Cast:
    """What runs.

    Attributes:
        processes: that have been started.
        camera: the recording.
        model: of the node.
        fps: frames that it keeps.
        rate: speed of the camera.
        domain: of ROS.
    """

    processes: Processes
    camera: Camera
    model: str
    fps: float
    rate: float
    domain: int

    def start_node(self, **parameters: object) -> None:
        """Starts the node, with further parameters."""
        own = {"model": self.model, "fps": self.fps, "image_transport": self.camera.transport}
        remap = {"image": self.camera.topic}
        if self.camera.odometry:
            own["pose_source"], remap["odom"] = "odometry", self.camera.odometry
        arguments = ros_arguments({**own, **parameters}, remap=remap)
        self.processes.start(f"fvs_ros.nodes.{NODE}", arguments)

    def start_camera(self, **parameters: object) -> None:
        """Plays the recording as the camera, with further parameters, once the node listens."""
        own = {"bag": self.camera.path.resolve(), "rate": self.rate, "wait_for_subscriber": START_TIMEOUT_S}
        # A bag may end while the last answer is still on its way.
        self.processes.start(
            f"fvs_ros.nodes.{CAMERA}", ros_arguments({**own, **self.camera.replay, **parameters}), may_finish=True
        )
