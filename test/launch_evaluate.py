"""`evaluate.launch.py` under the real launch system: the node is asked, the report written, and all of it ends.

For `launch_test`; `test_launch_evaluate.py` runs it.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import unittest
from pathlib import Path
from typing import Any

import launch_testing
import launch_testing.actions
import launch_testing.asserts
import launch_testing.util
from launch import LaunchDescription
from launch.actions import IncludeLaunchDescription, SetEnvironmentVariable
from launch.launch_description_sources import PythonLaunchDescriptionSource

sys.path.insert(0, str(Path(__file__).parent))
from recordings import IMAGE_TOPIC, write_bag

from fvs_ros.model.tiny import write_tiny_checkpoint

LAUNCH_FILE = Path(__file__).resolve().parents[1] / "launch" / "evaluate.launch.py"
DOMAIN = (os.getpid() + 25) % 101 + 1


def generate_test_description() -> tuple[LaunchDescription, dict[str, Any]]:
    folder = Path(tempfile.mkdtemp(prefix="fvs_launch_"))
    write_tiny_checkpoint(folder / "model")
    (folder / "questions.jsonl").write_text(json.dumps({"id": "a", "t": 1.0, "question": "What?"}) + "\n")
    include = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(str(LAUNCH_FILE)),
        launch_arguments={
            "bag": str(write_bag(folder / "bag", 40)),
            "questions": str(folder / "questions.jsonl"),
            "out": str(folder / "out"),
            "model": str(folder / "model"),
            "image_topic": IMAGE_TOPIC,
            "max_new_tokens": "4",
        }.items(),
    )
    description = LaunchDescription(
        [
            SetEnvironmentVariable("ROS_DOMAIN_ID", str(DOMAIN)),
            include,
            launch_testing.util.KeepAliveProc(),
            launch_testing.actions.ReadyToTest(),
        ]
    )
    return description, {"folder": folder, "include": include}


class TestEvaluate(unittest.TestCase):
    def test_it_ends_by_itself_with_a_report(self, proc_info: Any, folder: Path) -> None:
        proc_info.assertWaitForShutdown(process="evaluate", timeout=90.0)
        assert (folder / "out" / "report.html").exists()

    def test_every_argument_is_described(self, include: IncludeLaunchDescription) -> None:
        arguments = (
            include.launch_description_source.try_get_launch_description_without_context().get_launch_arguments()
        )
        assert {"bag", "questions", "out", "model"} <= {argument.name for argument in arguments}
        for argument in arguments:
            assert argument.description, argument.name


@launch_testing.post_shutdown_test()
class TestAfterwards(unittest.TestCase):
    def test_exit_code(self, proc_info: Any, folder: Path) -> None:
        shutil.rmtree(folder)
        launch_testing.asserts.assertExitCodes(proc_info, process="evaluate")
