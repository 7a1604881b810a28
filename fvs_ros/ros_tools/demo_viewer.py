"""Who watches the demo's stream and asks."""

from __future__ import annotations

import time
from functools import partial

from rclpy.qos import qos_profile_sensor_data
from rosgraph_msgs.msg import Clock

from fvs_ros.action import Ask as AskAction
from fvs_ros.nodes.messages import stamp_nanoseconds
from fvs_ros.ros_tools.client import FlashVStreamClient, RequestOptions
from fvs_ros.ros_tools.demo_camera import SLOWEST_FPS, Camera
from fvs_ros.ros_tools.demo_console import DemoConsole
from fvs_ros.ros_tools.demo_questions import DemoQuestion, is_right
from fvs_ros.ros_tools.processes import Processes
from fvs_ros.sources.frame import SECOND_NS
from fvs_ros.srv import Ask
from fvs_ros.stream.types import AskError

# Fresh: the images up to now belong to what is asked about. All moments: the newest says where the robot is.
_OPTIONS = RequestOptions(max_new_tokens=48, fresh=True, with_all_moments=True)
# A large checkpoint on a slow disk.
START_TIMEOUT_S = 600.0
STALL_TIMEOUT_S = 30.0


class Viewer:
    """Watches the stream and asks; knows nothing of the node but its public interface.

    Args:
        camera: what is played.
        console: where it is shown.
        processes: the node and the camera, as far as they run.
        domain: of ROS.
        start_ns: stamp of the stream's beginning; None takes the first that is played.

    Attributes:
        client: of the node.
    """

    def __init__(
        self,
        camera: Camera,
        console: DemoConsole,
        processes: Processes,
        domain: int,
        start_ns: int | None = None,
    ) -> None:
        self._camera = camera
        self._console = console
        self._options = RequestOptions(**_OPTIONS, with_images=console.with_images)
        self._processes = processes
        self._start_ns = start_ns
        # Of the clock; 0 before it has said anything.
        self._now_ns = 0
        self.client = FlashVStreamClient(domain=domain, on_wait=self._on_wait)
        self.client.ros_node.create_subscription(Clock, "/clock", self._on_clock, qos_profile_sensor_data)

    def __enter__(self) -> Viewer:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()

    def wait_for_stream(self) -> None:
        """Returns when the node is active and the camera plays.

        Raises:
            ProcessError: the node or the camera has ended or reports an error.
            TimeoutError: that takes too long.
        """
        began = time.monotonic()
        self.client.wait_until_active(START_TIMEOUT_S)
        self.client.wait_for(lambda: self._now_ns, "the camera to start", START_TIMEOUT_S)
        self._console.note(f"the node is active and the camera plays, {time.monotonic() - began:.1f} s later")

    def run(self, answers: list[Ask.Response | None]) -> None:
        """Asks every question at its time.

        Args:
            answers: gets the response to each question, None where there was no answer.

        Raises:
            ProcessError: the node or the camera has ended or reports an error.
            TimeoutError: nothing comes in time.
        """
        self.wait_for_stream()
        for question in self._camera.questions:
            self.watch(question.at_s)
            answers.append(self.answer(question))
        # The camera's last image lies just before the end of a recording.
        self.watch(self._camera.seconds - 1.0 / SLOWEST_FPS)

    @property
    def start_ns(self) -> int:
        """Stamp of the stream's beginning; 0 before anything was played."""
        return self._start_ns or 0

    def answer(self, question: DemoQuestion, when: str = "", brief: bool = False) -> Ask.Response | None:
        """Asks, and prints the answer or why there is none.

        Args:
            question: to ask.
            when: that is; empty where the stream's clock says it.
            brief: whether to print the answer without its evidence and its cost.
        """
        self._console.question(when or f"{self._elapsed_s():.1f} s into the stream", question.door, question.text)
        try:
            response = self._ask_streamed(question.text) if question.streamed else self._ask(question.text)
        except AskError as error:
            self._console.failure(error)
            return None
        self._console.answer(response, self.start_ns, question.streamed, brief)
        if question.truth is not None:
            self._console.truth(question.truth, is_right(response.answer, question.truth), question.family)
        return response

    def _ask(self, question: str) -> Ask.Response:
        return self.client.ask(question, **self._options)

    def _ask_streamed(self, question: str) -> AskAction.Result:
        self._console.begin_tokens()
        try:
            stream = self.client.ask_stream(question, self._console.token, **self._options)
            return stream.result()
        finally:
            self._console.end_tokens()

    def watch(self, until_s: float) -> None:
        """Lets the stream go on to `until_s`, as long as it moves.

        Raises:
            TimeoutError: it does not.
        """
        while self._elapsed_s() < until_s:
            self.client.wait_for(partial(self._moved_since, self._now_ns), "a further image", STALL_TIMEOUT_S)

    def _moved_since(self, stamp_ns: int) -> bool:
        return self._now_ns != stamp_ns

    def _on_wait(self) -> None:
        self._processes.check()
        if self._now_ns:
            self._console.update(self._elapsed_s(), self.client.memory)

    def _elapsed_s(self) -> float:
        return (self._now_ns - self.start_ns) / SECOND_NS if self._now_ns else 0.0

    def _on_clock(self, message: Clock) -> None:
        self._now_ns = stamp_nanoseconds(message.clock)
        if self._start_ns is None:
            self._start_ns = self._now_ns
