"""`replay.launch.py` under the real launch system: arguments arrive, images come out, and it ends by itself.

For `launch_test`; `test_launch_replay.py` runs it.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
import unittest
from pathlib import Path
from typing import Any

import launch_testing
import launch_testing.actions
import launch_testing.asserts
import launch_testing.util
import rclpy
from launch import LaunchDescription
from launch.actions import IncludeLaunchDescription, SetEnvironmentVariable
from launch.launch_description_sources import PythonLaunchDescriptionSource
from rclpy.executors import SingleThreadedExecutor
from sensor_msgs.msg import CompressedImage

sys.path.insert(0, str(Path(__file__).parent))
from recordings import write_video

LAUNCH_FILE = Path(__file__).resolve().parents[1] / "launch" / "replay.launch.py"
DOMAIN = (os.getpid() + 50) % 101 + 1


def generate_test_description() -> tuple[LaunchDescription, dict[str, Any]]:
    folder = Path(tempfile.mkdtemp(prefix="fvs_launch_"))
    include = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(str(LAUNCH_FILE)),
        launch_arguments={
            "bag": str(write_video(folder / "clip.avi", 20, 20.0)),
            "rate": "2",  # no decimal point: launch must hand it on as a float all the same
            "duration": "0.5",
            "wait_for_subscriber": "20",
            "image_transport": "compressed",
            "image_topic": "front",
            "namespace": "robot",
        }.items(),
    )
    description = LaunchDescription(
        [
            SetEnvironmentVariable("ROS_DOMAIN_ID", str(DOMAIN)),
            include,
            # The replay ends before its test does, which launch_testing would take for a failure.
            launch_testing.util.KeepAliveProc(),
            launch_testing.actions.ReadyToTest(),
        ]
    )
    return description, {"folder": folder, "include": include}


class TestReplay(unittest.TestCase):
    def test_images_arrive_until_it_ends(self, proc_info: Any) -> None:
        context = rclpy.Context()
        rclpy.init(context=context, domain_id=DOMAIN)
        node = rclpy.create_node("listener", context=context)
        executor = SingleThreadedExecutor(context=context)
        executor.add_node(node)
        received: list[Any] = []
        node.create_subscription(CompressedImage, "/robot/front/compressed", received.append, 100)
        deadline = time.monotonic() + 30.0
        while len(received) < 10 and time.monotonic() < deadline:
            executor.spin_once(timeout_sec=0.1)
        proc_info.assertWaitForShutdown(process="replay_node", timeout=20.0)
        executor.shutdown()
        node.destroy_node()
        rclpy.shutdown(context=context)
        assert len(received) == 10

    def test_every_argument_is_described(self, include: IncludeLaunchDescription) -> None:
        arguments = (
            include.launch_description_source.try_get_launch_description_without_context().get_launch_arguments()
        )
        assert "bag" in [argument.name for argument in arguments]
        for argument in arguments:
            assert argument.description, argument.name
            assert argument.default_value is not None, argument.name


@launch_testing.post_shutdown_test()
class TestAfterwards(unittest.TestCase):
    def test_exit_code(self, proc_info: Any, folder: Path) -> None:
        shutil.rmtree(folder)
        launch_testing.asserts.assertExitCodes(proc_info, process="replay_node")
