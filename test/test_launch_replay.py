"""Runs `launch_replay.py` where ROS's launch tools are installed."""

from __future__ import annotations

from launching import launch_test


def test_replay_launch_file() -> None:
    launch_test("launch_replay.py")
