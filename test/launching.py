"""Launch files run as `ros2 launch` runs them, where ROS's launch tools are installed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from needs import needed

ROOT = Path(__file__).resolve().parents[1]
NEEDS_LAUNCH = (
    "needs ROS's launch_testing and launch_ros, which PyPI does not have: run this test on a ROS 2 distribution"
)
_RUN = """
import sys
from launch import LaunchDescription, LaunchService
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
service = LaunchService(noninteractive=True)
arguments = [argument.split(":=", 1) for argument in sys.argv[2:]]
source = PythonLaunchDescriptionSource(sys.argv[1])
service.include_launch_description(LaunchDescription([IncludeLaunchDescription(source, launch_arguments=arguments)]))
sys.exit(service.run())
"""


def require_launch() -> None:
    """Skips the test without ROS's launch tools."""
    for module in ("launch_testing", "launch_ros"):
        needed(module, NEEDS_LAUNCH)


def launch(file: str, **arguments: object) -> tuple[int, str]:
    """Exit status and output of a launch file that ends by itself."""
    require_launch()
    command = [sys.executable, "-c", _RUN, str(ROOT / "launch" / file)]
    return _run([*command, *(f"{name}:={value}" for name, value in arguments.items())])


def launch_test(file: str) -> None:
    """Runs a module of this folder under launch_testing, in a process of its own: its pytest plugin lags behind."""
    require_launch()
    status, output = _run([sys.executable, "-m", "launch_testing.launch_test", str(ROOT / "test" / file)])
    assert status == 0, output


def _run(command: list[str]) -> tuple[int, str]:
    search = os.pathsep.join([str(ROOT / "test"), *filter(None, [os.environ.get("PYTHONPATH")])])
    run = subprocess.run(
        command,
        env={**os.environ, "PYTHONPATH": search},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
    )
    return run.returncode, run.stdout
