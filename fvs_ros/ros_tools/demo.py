"""The whole product in about two minutes: a recording as a camera, the real node over DDS, and questions.

In a second act the node is killed in mid-patrol, started again on its episode store, and asked about what it saw.

``make demo`` runs it; ``python -m fvs_ros.ros_tools.demo --help`` lists the options.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from fvs_ros.evaluation.errors import DataError
from fvs_ros.model.names import EMBEDDED, EMBEDDED_RECORDING, TINY, is_embedded, is_tiny
from fvs_ros.msg import MemoryState
from fvs_ros.nodes.messages import stamp_nanoseconds
from fvs_ros.ros_tools.demo_camera import VIDEO_SECONDS, find_video, open_camera
from fvs_ros.ros_tools.demo_cast import Cast
from fvs_ros.ros_tools.demo_console import DemoConsole
from fvs_ros.ros_tools.demo_questions import DemoQuestion, right_answers
from fvs_ros.ros_tools.demo_restart import RestartAct
from fvs_ros.ros_tools.demo_viewer import Viewer
from fvs_ros.ros_tools.processes import ProcessError, Processes, random_domain
from fvs_ros.sources.bags import SourceError
from fvs_ros.sources.frame import SECOND_NS
from fvs_ros.srv import Ask

# The patrol that ships lasts minutes; people watch for one.
_PATROL_RATE = 5.0


def play(options: argparse.Namespace, folder: Path) -> int:
    """Run the demo with its files in `folder`; returns the exit code."""
    patrol = options.video is None and is_embedded(options.model)
    camera = open_camera(EMBEDDED_RECORDING if patrol else options.video or find_video(), options.seconds)
    rate = options.rate or (_PATROL_RATE if patrol else 1.0)
    domain = options.domain or random_domain()
    processes = Processes(folder, {**os.environ, "ROS_DOMAIN_ID": str(domain)})
    cast = Cast(processes, camera, options.model, options.fps, rate, domain)
    with DemoConsole(camera.seconds) as console:
        console.heading(
            {
                "camera": camera.description + (f", played {rate:g} times as fast" if rate != 1 else ""),
                "node": f"fvs_ros.nodes.stream_node over DDS, domain {domain}, keeping {options.fps:g} frames a second",
                "model": _described(options.model, patrol),
            }
        )
        lines, passed = _first_act(cast, console)
        if passed and camera.after_restart:
            second = RestartAct(cast, console, folder / "memory", answers_are_known=is_embedded(options.model))
            passed = second.run()
            lines += second.summary()
        console.closing(lines, passed)
    return 0 if passed else 1


def _first_act(cast: Cast, console: DemoConsole) -> tuple[list[str], bool]:
    """Asks while the recording plays; returns what came of it, and whether every question was answered."""
    answers: list[Ask.Response | None] = []
    problem = ""
    with Viewer(cast.camera, console, cast.processes, cast.domain) as viewer:
        try:
            console.note("starting the node and the camera")
            cast.start_node()
            cast.start_camera()
            viewer.run(answers)
        except (ProcessError, TimeoutError) as error:
            problem = str(error)
        finally:
            console.note("stopping the node and the camera")
            codes = cast.processes.stop()
    if problem:
        console.error(problem)
    passed = not problem and None not in answers and not any(codes.values())
    return _summary(cast.camera.questions, answers, viewer.client.memory, codes), passed


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
