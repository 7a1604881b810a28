"""A model that fails, hangs and runs out of memory in the node, over DDS."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import require_ros, ros_domain
from fakes import PATIENCE_S, FakeModel

require_ros()
import rclpy
from diagnostic_msgs.msg import DiagnosticStatus
from node_harness import Client, StreamProcess
from rclpy.executors import SingleThreadedExecutor

from fvs_ros.nodes import stream_node
from fvs_ros.stream.types import ErrorCode


@pytest.fixture
def client(model: FakeModel, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    """A client of the node, which runs in this process on a fake model."""
    monkeypatch.setattr(stream_node, "load_stream_model", lambda *arguments: model)
    parameters = {"fps": 0.0, "prefill_share": 0.0, "model_timeout_s": 1.0}
    arguments = [word for name, value in parameters.items() for word in ("-p", f"{name}:={value}")]
    with ros_domain() as domain:
        rclpy.init(args=["--ros-args", *arguments], domain_id=domain)
        node = stream_node.StreamNode()
        executor = SingleThreadedExecutor()
        node.start(executor)
        thread = threading.Thread(target=executor.spin)
        thread.start()
        try:
            with Client(domain) as client:
                client.wait_until_active(PATIENCE_S)
                yield client
        finally:
            model.encoding.open()
            model.answering.open()
            executor.shutdown()
            thread.join(PATIENCE_S)
            node.close()
            rclpy.shutdown()


def test_the_node_outlives_a_model_that_raises_hangs_and_runs_out_of_memory(client: Client, model: FakeModel) -> None:
    client.feed(1, 2)
    assert client.ask_anything().answer == "1 steps: 20"

    model.encode_error = ValueError("bad weights")
    seconds = count(3)
    client.deliver(
        lambda: client.publish(next(seconds)),
        lambda: "ValueError: bad weights" in client.status("stream").message,
        "the model's error",
    )
    assert client.status("stream").level == DiagnosticStatus.ERROR
    model.encode_error = None

    model.answer_error = torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
    error = client.refusal()
    assert error.code == ErrorCode.MODEL_ERROR
    assert "CUDA out of memory" in str(error)
    client.wait_for(lambda: "for 1 questions" in client.diagnostic("stream")["out of device memory"], "what to do")
    model.answer_error = None
    assert client.ask_anything().answer == "1 steps: 20"

    model.answering.shut()
    error = client.refusal()
    assert error.code == ErrorCode.MODEL_ERROR
    assert "the model's question has not returned since" in str(error)
    client.wait_for(lambda: client.status("answers").level == DiagnosticStatus.ERROR, "the watchdog's diagnostics")
    assert "a new worker has taken over" in client.status("answers").message
    model.answering.open()
    assert client.ask_anything().answer == "1 steps: 20", "the memory is kept"

    model.encoding.shut()
    client.publish(next(seconds))
    model.encoding.wait_reached()
    client.wait_for(lambda: "encode_steps has not returned since" in client.status("stream").message, "the watchdog")
    assert client.status("stream").level == DiagnosticStatus.ERROR
    assert client.ask_anything().answer == "1 steps: 20", "the memory is kept"
    model.encoding.open()
    memory: Any = client.feed(next(seconds), next(seconds))
    assert memory.steps == 2
    client.wait_for(lambda: client.status("stream").level == DiagnosticStatus.OK, "the end of the error")


# The node on a model of which one call never returns.
HANGING = f"""
import sys, threading
sys.path.insert(0, {str(Path(__file__).parent)!r})
from fakes import FakeModel
from fvs_ros.nodes import stream_node
phase = sys.argv.pop(1)
model = FakeModel()
getattr(model, phase).go_through = threading.Event().wait
stream_node.load_stream_model = lambda *arguments: model
sys.exit(stream_node.main())
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("phase", ["encoding", "prefilling", "answering"])
def test_a_signal_ends_the_node_whatever_its_model_does(phase: str, number: signal.Signals) -> None:
    """Long before the call would count as hung; with status 0, as by a signal at any other time."""

    class HangingProcess(StreamProcess):
        program = ("-c", HANGING, phase)

    with ros_domain() as domain:
        process = HangingProcess(domain, fps=0.0, prefill_share=0.0, model_timeout_s=600.0)
        try:
            with Client(domain) as client:
                client.wait_until_active(PATIENCE_S)
                if phase == "encoding":
                    client.deliver(lambda: client.publish(1), lambda: client.next_counters().waiting, "an image")
                else:
                    client.feed(1, 2)
                    goal = client.ask_stream("What do you see?")
                    client.wait_for(lambda: client.next_counters().questions == 1, "the question")
                    assert not goal.tokens
        finally:
            status = process.stop(number)
        assert status == 0, process.log
        assert "its thread is left behind" in process.log
        assert "Traceback" not in process.log
