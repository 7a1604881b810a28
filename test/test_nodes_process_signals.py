"""Signals that come before a node runs, and while it ends."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest
from conftest import require_ros
from fakes import PATIENCE_S

require_ros()

NODES = pytest.mark.parametrize("node", ["stream_node", "replay_node"])


@NODES
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_node_while_its_modules_are_imported(node: str, number: int) -> None:
    """Stopped by the module that comes right before the imports that take long."""
    program = (
        "import fvs_ros.nodes.process_signals as signals, runpy, time\n"
        "begin = signals.end_on_signals\n"
        "def begin_and_wait():\n"
        "    begin()\n"
        "    print('begun', flush=True)\n"
        "    time.sleep(60)\n"
        "signals.end_on_signals = begin_and_wait\n"
        f"runpy.run_module('fvs_ros.nodes.{node}', run_name='__main__')\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        process.send_signal(number)
        assert process.wait(PATIENCE_S) == 0


@NODES
def test_an_interrupt_while_a_node_ends_changes_nothing(node: str) -> None:
    """It ends for another reason, here since it cannot start, and is interrupted before and after its last step."""
    program = (
        f"import fvs_ros.nodes.{node} as node, os, signal, sys\n"
        "shut_down = node.rclpy.try_shutdown\n"
        "def interrupted():\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    shut_down()\n"
        "    print('ends', flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "node.rclpy.try_shutdown = interrupted\n"
        "status = node.main(['--ros-args', '-p', 'queue_size:=-1', '-p', 'bag:=/nowhere', '-p', 'fps:=-1.0'])\n"
        "os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.exit(status)\n"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=PATIENCE_S)
    assert "ends\n" in run.stdout
    assert run.returncode == 1
    assert "KeyboardInterrupt" not in run.stderr
