"""The stream node in a process of its own, and a client that talks to it over DDS."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import require_ros, ros_domain
from safetensors.torch import load_file, save_file

require_ros()
from action_msgs.msg import GoalStatus
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from fvs_ros.msg import MemoryState
from fvs_ros.srv import Ask
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.publisher import Publisher
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from fvs_ros.memory.config import FlashMemoryConfig
from fvs_ros.model.tiny import CONTROL_TOKENS, byte_tokenizer, write_tiny_checkpoint
from fvs_ros.nodes.messages import stream_statistics, time_message
from fvs_ros.ros_tools.answer_stream import AnswerStream
from fvs_ros.ros_tools.client import FlashVStreamClient
from fvs_ros.sources.frame import SECOND_NS
from fvs_ros.stream.types import AskError, ErrorCode, StreamStatistics

ROOT = Path(__file__).resolve().parents[1]
# Longest wait for anything; reached only by a test that fails. Importing torch takes 10 s on a busy machine.
PATIENCE_S = 60.0
# A response is lost where the node has not discovered the client's reader within rmw_fastrtps's 100 ms: a known race
# of ROS 2's discovery, met in one of hundreds of starts. What changes nothing, or nothing more, is then asked again.
RESPONSE_S = 10.0
# The states that transitions end in.
REACHED = {
    "configure": "inactive",
    "activate": "active",
    "deactivate": "inactive",
    "cleanup": "unconfigured",
    "shutdown": "finalized",
}
SLOTS = FlashMemoryConfig(csm_slots=6, dam_slots=3)


def write_talkative_checkpoint(folder: Path) -> None:
    """A tiny checkpoint whose answers end only at their length limit, so that one can be met while it is given."""
    write_tiny_checkpoint(folder, memory=SLOTS)
    weights = load_file(folder / "model.safetensors")
    end = byte_tokenizer().convert_tokens_to_ids("<|im_end|>")
    assert "<|im_end|>" in CONTROL_TOKENS
    # A logit of 0 is never the largest of hundreds of random ones.
    weights["lm_head.weight"][end] = 0
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


class StreamProcess:
    """The node, started as a user without the `ros2` command starts it."""

    program: tuple[str, ...] = ("-m", "fvs_ros.nodes.stream_node")

    def __init__(self, domain: int, *arguments: str, **parameters: object) -> None:
        command = [sys.executable, *self.program, "--ros-args", *arguments]
        for name, value in parameters.items():
            command += ["-p", f"{name}:={value}"]
        self._process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, "ROS_DOMAIN_ID": str(domain), "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.append(line)
            # pytest shows it beside a failure.
            print(line, end="")

    @property
    def log(self) -> str:
        return "".join(self._lines)

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def threads(self) -> list[str]:
        """Names of the process's threads."""
        return [task.read_text().strip() for task in Path(f"/proc/{self.pid}/task").glob("*/comm")]

    def wait_for_log(self, text: str) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while text not in self.log:
            assert time.monotonic() < deadline, f"{text!r} was never logged:\n{self.log}"
            assert self.alive or text in self.log, f"the node ended before it logged {text!r}:\n{self.log}"
            time.sleep(0.02)

    def stop(self, number: int = signal.SIGINT) -> int:
        """Sends a signal and returns the exit status."""
        if self.alive:
            self._process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        try:
            return self._process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise AssertionError(f"the node did not end:\n{self.log}") from None
        finally:
            self._reader.join(PATIENCE_S)


class Client(FlashVStreamClient):
    """The public client, which also plays the camera, a lifecycle manager and a monitor of diagnostics."""

    def __init__(self, domain: int, node: str = "/stream_node") -> None:
        self._diagnostics: dict[str, DiagnosticStatus] = {}
        self._publishers: dict[tuple[str, str], Publisher] = {}
        super().__init__(node, domain=domain)
        self.ros_node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        self._diagnostics.update({status.name.split(": ")[1]: status for status in message.status})

    # Services

    def call(self, service_type: type, name: str, request: Any) -> Any:
        """Any service of the node that can be called twice, such as ``set_parameters``."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                return self._call(service_type, f"{self.node}/{name}", request, response_s=RESPONSE_S)
            except TimeoutError:
                if time.monotonic() > deadline:
                    raise

    def ask_anything(self, **options: Any) -> Ask.Response:
        """A short answer to a question that does not matter."""
        return self.ask("What do you see?", max_new_tokens=4, **options)

    def refusal(self, question: str = "What do you see?", **options: Any) -> AskError:
        """Why there is no answer."""
        with pytest.raises(AskError) as caught:
            self.ask(question, **options)
        return caught.value

    @property
    def state(self) -> str:
        return self.call(GetState, "get_state", GetState.Request()).current_state.label

    def change_state(self, label: str) -> bool:
        """Asks for a transition, again where it has not begun; returns whether its state was reached."""
        name, request = f"{self.node}/change_state", ChangeState.Request()
        request.transition.label = label
        deadline = time.monotonic() + PATIENCE_S
        before = self.state
        while True:
            try:
                return self._call(ChangeState, name, request, response_s=RESPONSE_S).success
            except TimeoutError:
                self.wait_for(lambda: self.state in REACHED.values(), f"the end of {label}")
                if (state := self.state) != before:
                    return state == REACHED[label]
                assert time.monotonic() < deadline, f"{self.node} does not {label}"

    # The action

    def wait_for_tokens(self, stream: AnswerStream, count: int = 1) -> None:
        """Waits for that many more tokens."""
        before = len(stream.tokens)
        self.wait_for(lambda: len(stream.tokens) >= before + count, f"{count} tokens")

    def ends(self, stream: AnswerStream, code: ErrorCode, status: int) -> None:
        """Checks how an answer ends that is none."""
        with pytest.raises(AskError) as caught:
            stream.result()
        assert caught.value.code == code
        self.wait_for(lambda: stream.goal.status == status, f"the goal's status {status}")

    def cancel(self, stream: AnswerStream) -> None:
        assert stream.cancel()
        self.ends(stream, ErrorCode.CANCELLED, GoalStatus.STATUS_CANCELED)

    # Images

    def publisher(self, message_type: type, topic: str = "image", qos: Any = 10) -> Any:
        """A publisher to which the node has subscribed."""
        key = (topic, str(qos))
        if key not in self._publishers:
            self._publishers[key] = self.ros_node.create_publisher(message_type, topic, qos)
        publisher = self._publishers[key]
        self.wait_for(publisher.get_subscription_count, f"a subscriber to {topic}")
        return publisher

    def unpublish(self) -> None:
        """Destroys all publishers."""
        for publisher in self._publishers.values():
            self.ros_node.destroy_publisher(publisher)
        self._publishers.clear()

    def publish(self, second: float, value: int = 100, **fields: Any) -> None:
        self.publisher(Image).publish(image(second, value, **fields))

    def deliver(self, publish: Callable[[], None], arrived: Callable[[], Any], what: str) -> None:
        """Publishes until it has arrived: what is sent before both sides have found each other is lost.

        A stamp that arrives twice is dropped as late, and changes nothing.
        """
        deadline = time.monotonic() + PATIENCE_S
        while not arrived():
            assert time.monotonic() < deadline, f"waited in vain for {what}"
            publish()
            again = time.monotonic() + 1.0
            while not arrived() and time.monotonic() < again:
                self.spin_for(0.02)

    def in_memory(self, second: float) -> bool:
        """Whether the memory ends with the image of that stamp."""
        return self.memory is not None and self.memory.end == time_message(round(second * SECOND_NS))

    def feed(self, *seconds: float) -> MemoryState:
        """Publishes an image at each stamp, and returns the memory once it holds the last."""
        for index, second in enumerate(seconds):
            # One by one: a best-effort queue of depth 5 loses what comes while the node is busy.
            self.deliver(
                partial(self.publish, second, 40 * index % 256),
                partial(self.in_memory, second),
                f"the image of {second} s to be in memory",
            )
        assert self.memory is not None
        return self.memory

    # Counters and diagnostics

    @property
    def counters(self) -> StreamStatistics:
        """The newest counters, which move on once a second while something is waited for."""
        return stream_statistics(self.statistics or self.next_statistics())

    def next_counters(self) -> StreamStatistics:
        """Those of everything that has happened up to now."""
        return stream_statistics(self.next_statistics())

    def diagnostic(self, part: str) -> dict[str, str]:
        """The newest values of a status; empty before the first."""
        return {value.key: value.value for value in self.status(part).values}

    def status(self, part: str) -> DiagnosticStatus:
        """The newest status; an empty one before the first."""
        return self._diagnostics.get(part, DiagnosticStatus())

    def wait_diagnostic(self, part: str, key: str, value: str) -> None:
        self.wait_for(lambda: self.diagnostic(part).get(key) == value, f"{part}: {key} = {value}")


def header(second: float, frame_id: str = "camera") -> Header:
    return Header(stamp=time_message(round(second * SECOND_NS)), frame_id=frame_id)


def image(second: float, value: int = 100, size: int = 32, **fields: Any) -> Image:
    """A plain square, with any field replaced."""
    message = Image(header=header(second), height=size, width=size, encoding="rgb8", step=3 * size)
    message.data = array("B", np.full(3 * size * size, value, np.uint8).tobytes())
    for name, replacement in fields.items():
        setattr(message, name, replacement)
    return message


@contextmanager
def running_node(
    folder: Path, *arguments: str, name: str = "/stream_node", **parameters: object
) -> Iterator[tuple[StreamProcess, Client]]:
    """The node, active, on a talkative checkpoint, and a client of the node `name` in its domain.

    Unless told to, it reads no memory ahead, so that every answer is from the newest.
    """
    write_talkative_checkpoint(folder)
    parameters = {"fps": 0.0, "prefill_share": 0.0} | parameters
    with ros_domain() as domain:
        process = StreamProcess(domain, *arguments, model=folder, **parameters)
        try:
            with Client(domain, name) as client:
                client.wait_until_active(PATIENCE_S)
                yield process, client
        finally:
            process.stop()
