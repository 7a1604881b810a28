"""Runs `launch_evaluate.py` where ROS's launch tools are installed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

REASON = "launch is not on PyPI: run this test on a ROS 2 distribution"


def test_evaluate_launch_file() -> None:
    pytest.importorskip("launch_testing", reason=REASON)
    pytest.importorskip("launch_ros", reason=REASON)
    # In a process of its own: launch_testing's pytest plugin lags behind pytest's releases.
    run = subprocess.run(
        [sys.executable, "-m", "launch_testing.launch_test", str(Path(__file__).with_name("launch_evaluate.py"))],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
    )
    assert run.returncode == 0, run.stdout
