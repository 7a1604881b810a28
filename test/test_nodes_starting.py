"""A node's command line that ROS cannot read: one line that says what to write, and exit status 1."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import require_ros

require_ros()

import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from std_msgs.msg import Empty

from fvs_ros.nodes.starting import one_line, spin

FILES = {
    "tab.yaml": "/**:\n\tros__parameters:\n\t\tfps: 1.0\n",
    "value.yaml": "/**:\n  ros__parameters:\n    fps:\n",
    "flat.yaml": "fps: 1.0\n",
    "whole.yaml": "/**:\n  ros__parameters:\n    fps: 1\n    rate: 2\n    bag: x\n",
}


def start(node: str, folder: Path, *arguments: str) -> tuple[int, list[str]]:
    """Exit status and lines of a node that ends by itself."""
    for name, text in FILES.items():
        (folder / name).write_text(text)
    command = [sys.executable, "-m", f"fvs_ros.nodes.{node}", "--ros-args", *arguments]
    run = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
    )
    return run.returncode, run.stdout.splitlines()


@pytest.mark.parametrize("node", ["stream_node", "replay_node"])
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["--params-file", "nowhere.yaml"],
            "'--params-file nowhere.yaml'. Error: Error opening YAML file; name a file that exists",
        ),
        (["--params-file", "tab.yaml"], "tab.yaml'. Error: Error parsing a event near line 1; write"),
        (["--params-file", "value.yaml"], "value.yaml'. Error: No value at line 3; write"),
        (["--params-file", "flat.yaml"], "Error: Cannot have a value before ros__parameters at line 1; write"),
        (["--params-file"], "--params-file flag"),
        (["-r", "image=/camera"], "'-r image=/camera'; write -r NAME:=NEW_NAME"),
        (["-r", "image:=~x"], "'-r image:=~x'; write -r NAME:=NEW_NAME"),
        (["-r", "__node:=stream-node"], "'-r __node:=stream-node'; write -r NAME:=NEW_NAME"),
        (["-r", "__ns:=a b"], "'-r __ns:=a b'; write -r NAME:=NEW_NAME"),
        (["-p", "fps"], "'-p fps'; write -p NAME:=VALUE"),
        (["--log-level", "loud"], "'--log-level loud'. Error: Argument does not use a valid severity level; write"),
        (["--nonsense"], "unknown arguments after --ros-args: ['--nonsense']"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_ros_cannot_read_is_said_in_one_line(
    node: str, arguments: list[str], said: str, tmp_path: Path, ros_domain_id: int
) -> None:
    status, lines = start(node, tmp_path, *arguments)
    assert status == 1, lines
    assert len(lines) == 1, lines
    assert said in lines[0]


@pytest.mark.parametrize(
    ("node", "said"),
    [("stream_node", "fps is 1, of type integer; write 1.0"), ("replay_node", "rate is 2, of type integer; write 2.0")],
)
def test_a_whole_number_for_a_float_says_how_to_write_it(
    node: str, said: str, tmp_path: Path, ros_domain_id: int
) -> None:
    status, lines = start(node, tmp_path, "--params-file", "whole.yaml")
    assert status == 1, lines
    assert len(lines) == 1, lines
    assert said in lines[0]


def test_an_error_of_rcls_loses_its_source_files() -> None:
    error = "failed to initialize rcl: it\n broke, at /project/src/a.c:1, at /project/src/rcl/b.c:22"
    assert one_line(error) == "it broke"


@pytest.mark.parametrize("ended", [False, True])
def test_a_callback_that_fails_is_told_unless_the_process_was_told_to_end(
    ros_domain_id: int, capfd: pytest.CaptureFixture[str], ended: bool
) -> None:
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=ros_domain_id)
    node = rclpy.create_node("tested", context=context)
    publisher = node.create_publisher(Empty, "~/publishes", 1)
    calls: list[int] = []

    def publish() -> None:
        calls.append(len(calls))
        if ended or len(calls) == 3:
            context.try_shutdown()
        if not ended:
            raise RuntimeError("boom")
        publisher.publish(Empty())

    node.create_timer(0.01, publish)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    with contextlib.suppress(ExternalShutdownException):
        spin(executor, "tested")
    node.destroy_node()
    told = capfd.readouterr().err.count("A callback failed; the node goes on.")
    assert (len(calls), told) == ((1, 0) if ended else (3, 2))
