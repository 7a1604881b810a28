"""The whole product in about a minute: a recording as a camera, the real node over DDS, and questions.

``make demo`` runs it; ``python -m fvs_ros.ros_tools.demo --help`` lists the options.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from rclpy.qos import qos_profile_sensor_data
from rosgraph_msgs.msg import Clock

from fvs_ros.action import Ask as AskAction
from fvs_ros.evaluation.errors import DataError
from fvs_ros.model.names import EMBEDDED, EMBEDDED_RECORDING, TINY, is_embedded, is_tiny
from fvs_ros.msg import MemoryState
from fvs_ros.nodes.messages import stamp_nanoseconds
from fvs_ros.ros_tools.client import FlashVStreamClient
from fvs_ros.ros_tools.demo_camera import SLOWEST_FPS, VIDEO_SECONDS, Camera, find_video, open_camera
from fvs_ros.ros_tools.demo_console import DemoConsole
from fvs_ros.ros_tools.demo_questions import DemoQuestion, is_right, right_answers
from fvs_ros.ros_tools.processes import ProcessError, Processes, random_domain, ros_arguments
from fvs_ros.sources.bags import SourceError
from fvs_ros.sources.frame import SECOND_NS
from fvs_ros.srv import Ask
from fvs_ros.stream.types import AskError

_ANSWER_TOKENS = 48
# The patrol that ships lasts minutes; people watch for one.
_PATROL_RATE = 5.0
# A large checkpoint on a slow disk.
_START_TIMEOUT_S = 600.0
_STALL_TIMEOUT_S = 30.0


class Demo:
    """Watches the stream and asks; knows nothing of the node but its public interface.

    Attributes:
        client: of the node.
    """

    def __init__(self, camera: Camera, console: DemoConsole, processes: Processes, domain: int) -> None:
        self._camera = camera
        self._console = console
        self._processes = processes
        self._start_ns: int | None = None
        self._now_ns = 0
        self.client = FlashVStreamClient(domain=domain, on_wait=self._on_wait)
        self.client.ros_node.create_subscription(Clock, "/clock", self._on_clock, qos_profile_sensor_data)

    def run(self, answers: list[Ask.Response | None]) -> None:
        """Asks every question at its time.

        Args:
            answers: gets the response to each question, None where there was no answer.

        Raises:
            ProcessError: the node or the camera has ended or reports an error.
            TimeoutError: nothing comes in time.
        """
        began = time.monotonic()
        self._console.note("starting the node and the camera")
        self.client.wait_until_active(_START_TIMEOUT_S)
        self.client.wait_for(lambda: self._start_ns is not None, "the camera to start", _START_TIMEOUT_S)
        self._console.note(f"the node is active and the camera plays, {time.monotonic() - began:.1f} s later")
        for question in self._camera.questions:
            self._watch(question.at_s)
            self._console.question(self._elapsed_s(), question.door, question.text)
            answers.append(self._answer(question))
        # The camera's last image lies just before the end of a recording.
        self._watch(self._camera.seconds - 1.0 / SLOWEST_FPS)

    def _answer(self, question: DemoQuestion) -> Ask.Response | None:
        """Asks, and prints the answer or why there is none."""
        try:
            response = self._ask_streamed(question.text) if question.streamed else self._ask(question.text)
        except AskError as error:
            self._console.failure(error)
            return None
        self._console.answer(response, self._start_ns or 0, question.streamed)
        if question.truth is not None:
            self._console.truth(question.truth, is_right(response.answer, question.truth), question.family)
        return response

    def _ask(self, question: str) -> Ask.Response:
        # Fresh: the images up to now belong to what is asked about.
        return self.client.ask(question, max_new_tokens=_ANSWER_TOKENS, fresh=True)

    def _ask_streamed(self, question: str) -> AskAction.Result:
        self._console.begin_tokens()
        try:
            stream = self.client.ask_stream(question, self._console.token, max_new_tokens=_ANSWER_TOKENS, fresh=True)
            return stream.result()
        finally:
            self._console.end_tokens()

    def _watch(self, until_s: float) -> None:
        """Lets the stream go on to `until_s`, as long as it moves."""
        while self._elapsed_s() < until_s:
            self.client.wait_for(partial(self._moved_since, self._now_ns), "a further image", _STALL_TIMEOUT_S)

    def _moved_since(self, stamp_ns: int) -> bool:
        return self._now_ns != stamp_ns

    def _on_wait(self) -> None:
        self._processes.check()
        if self._start_ns is not None:
            self._console.update(self._elapsed_s(), self.client.memory)

    def _elapsed_s(self) -> float:
        return 0.0 if self._start_ns is None else (self._now_ns - self._start_ns) / SECOND_NS

    def _on_clock(self, message: Clock) -> None:
        self._now_ns = stamp_nanoseconds(message.clock)
        if self._start_ns is None:
            self._start_ns = self._now_ns


def play(options: argparse.Namespace, folder: Path) -> int:
    """Run the demo with its files in `folder`; returns the exit code."""
    patrol = options.video is None and is_embedded(options.model)
    camera = open_camera(EMBEDDED_RECORDING if patrol else options.video or find_video(), options.seconds)
    rate = options.rate or (_PATROL_RATE if patrol else 1.0)
    domain = options.domain or random_domain()
    processes = Processes(folder, {**os.environ, "ROS_DOMAIN_ID": str(domain)})
    with DemoConsole(camera.seconds) as console:
        console.heading(
            {
                "camera": camera.description + (f", played {rate:g} times as fast" if rate != 1 else ""),
                "node": f"fvs_ros.nodes.stream_node over DDS, domain {domain}, keeping {options.fps:g} frames a second",
                "model": _described(options.model, patrol),
            }
        )
        demo = Demo(camera, console, processes, domain)
        answers: list[Ask.Response | None] = []
        problem = ""
        try:
            _start(processes, camera, options.model, options.fps, rate)
            demo.run(answers)
        except (ProcessError, TimeoutError) as error:
            problem = str(error)
        finally:
            console.note("stopping the node and the camera")
            codes = processes.stop()
            demo.client.close()
        if problem:
            console.error(problem)
        passed = not problem and None not in answers and not any(codes.values())
        console.closing(_summary(camera.questions, answers, demo.client.memory, codes), passed)
    return 0 if passed else 1


def _described(model: str, patrol: bool) -> str:
    if is_tiny(model):
        return (
            "a tiny checkpoint with fixed random weights: the WORDS of its answers are NOISE, while memory, stamps and "
            "timings are real"
        )
    if not is_embedded(model):
        return model
    known = "the small one that ships with the package, trained on simulated patrols"
    return known if patrol else f"{known}: about anything else it answers NOISE. Try --model with other weights"


def _start(processes: Processes, camera: Camera, model: str, fps: float, rate: float) -> None:
    processes.start(
        "fvs_ros.nodes.stream_node",
        ros_arguments({"model": model, "fps": fps, "image_transport": camera.transport}, remap={"image": camera.topic}),
    )
    processes.start(
        "fvs_ros.nodes.replay_node",
        ros_arguments(
            {"bag": camera.path.resolve(), "rate": rate, "wait_for_subscriber": _START_TIMEOUT_S, **camera.replay}
        ),
        # A bag may end while the last answer is still on its way.
        may_finish=True,
    )


def _summary(
    questions: Sequence[DemoQuestion],
    answers: Sequence[Ask.Response | None],
    memory: MemoryState | None,
    codes: dict[str, int],
) -> list[str]:
    answered = [answer for answer in answers if answer is not None]
    lines = [f"{len(answered)} of {len(questions)} questions answered while frames arrived"]
    right, known = right_answers(questions[: len(answers)], [answer.answer if answer else "" for answer in answers])
    if known:
        lines.append(f"{right} of {known} answers right, {right / known:.0%}")
    if answered:
        first = [answer.first_token_s for answer in answered]
        lines.append(
            f"first token: median {statistics.median(first):.3f} s, slowest {max(first):.3f} s, waiting included"
        )
    if memory is not None and memory.steps:
        span_s = (stamp_nanoseconds(memory.end) - stamp_nanoseconds(memory.start)) / SECOND_NS
        lines.append(f"memory: {memory.bytes / 1e6:.2f} MB for {memory.steps} steps over {span_s:.1f} s")
    lines.extend(f"{name} ended with exit code {code}" for name, code in codes.items() if code)
    return lines


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m fvs_ros.ros_tools.demo", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument(
        "--model",
        default=EMBEDDED,
        help=f"checkpoint: a folder, a hub name, {TINY} for random weights (default: %(default)s, the one that ships)",
    )
    parser.add_argument(
        "--video",
        "--bag",
        type=Path,
        help="recording that plays the camera; a bag's questions.jsonl is asked (default: the patrol that ships, or a "
        "short clip of traffic for another model)",
    )
    parser.add_argument(
        "--seconds", type=_positive, help=f"length of the stream (default: all of a bag, {VIDEO_SECONDS:g} of a video)"
    )
    parser.add_argument(
        "--rate", type=_positive, help=f"speed of the camera (default: 1; {_PATROL_RATE:g} for the patrol that ships)"
    )
    parser.add_argument("--fps", type=_positive, default=1.0, help="frames kept per second (default: %(default)g)")
    parser.add_argument("--domain", type=int, help="ROS_DOMAIN_ID (default: a random one)")
    return parser.parse_args(arguments)


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def _terminate(*_: object) -> None:
    raise KeyboardInterrupt


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; returns 0 if every question was answered, 1 if not, 130 when interrupted."""
    options = parse_arguments(arguments)
    # Frames and answers stay on this machine.
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    signal.signal(signal.SIGTERM, _terminate)
    with tempfile.TemporaryDirectory(prefix="fvs_demo_") as folder:
        try:
            return play(options, Path(folder))
        except (ProcessError, SourceError, DataError) as error:
            print(f"demo: {error}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            print("demo: interrupted", file=sys.stderr)
            return 130


if __name__ == "__main__":
    sys.exit(main())
