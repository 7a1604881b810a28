"""What `test_launch_stream.py` runs under launch_testing: the launch file starts a node that answers, and ends it."""

from __future__ import annotations

import os
import tempfile
import unittest
from pathlib import Path
from typing import Any

import launch_testing
import launch_testing.actions
import launch_testing.asserts
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription, SetEnvironmentVariable
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch_ros.actions import SetParameter
from node_harness import Client, write_talkative_checkpoint
from rcl_interfaces.srv import GetParameters

from fvs_ros.stream.types import ErrorCode

LAUNCH_FILE = Path(__file__).resolve().parents[1] / "launch" / "stream.launch.py"
ARGUMENTS = {
    "model",
    "image_topic",
    "image_transport",
    "device",
    "memory_dir",
    "memory_bytes",
    "resume",
    "map_id",
    "params_file",
    "namespace",
    "use_sim_time",
    "log_level",
    "autostart",
    "respawn",
}
# Removed when this process ends.
FOLDER = tempfile.TemporaryDirectory(prefix="fvs_launch_")
DOMAIN = os.getpid() % 100 + 1


def generate_test_description() -> tuple[LaunchDescription, dict[str, Any]]:
    folder = Path(FOLDER.name)
    write_talkative_checkpoint(folder)
    source = PythonLaunchDescriptionSource(str(LAUNCH_FILE))
    arguments = {"model": str(folder), "namespace": "robot", "image_topic": "/camera/image", "device": "cpu"}
    description = LaunchDescription(
        [
            SetEnvironmentVariable("ROS_DOMAIN_ID", str(DOMAIN)),
            # As a bringup of a simulated robot sets it for all its nodes.
            SetParameter("use_sim_time", True),
            IncludeLaunchDescription(source, launch_arguments=arguments.items()),
            launch_testing.actions.ReadyToTest(),
        ]
    )
    return description, {"source": source, "folder": folder}


class TestRunning(unittest.TestCase):
    """While the node runs."""

    def test_it_starts_by_itself_and_answers_in_its_namespace(self, folder: Path) -> None:
        with Client(DOMAIN, node="/robot/stream_node") as client:
            client.wait_until_active()
            assert client.refusal().code == ErrorCode.NO_FRAMES
            assert client.wait_for_memory().model == str(folder)
            client.wait_diagnostic("stream", "topic", "/camera/image")
            request = GetParameters.Request(names=["use_sim_time"])
            response = client.call(GetParameters, "get_parameters", request)
            assert response.values[0].bool_value

    def test_every_argument_is_described(self, source: PythonLaunchDescriptionSource) -> None:
        entities = source.try_get_launch_description_without_context().entities
        declared = {entity.name: entity for entity in entities if isinstance(entity, DeclareLaunchArgument)}
        assert set(declared) == ARGUMENTS
        for argument in declared.values():
            assert argument.default_value is not None
            assert argument.description != "no description given"


@launch_testing.post_shutdown_test()
class TestEnded(unittest.TestCase):
    """After launch has interrupted it."""

    def test_it_ends_with_0(self, proc_info: Any) -> None:
        launch_testing.asserts.assertExitCodes(proc_info)
