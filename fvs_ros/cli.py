"""The `fvs` command: a thin door to each room of the library.

Each subcommand imports what it needs when it runs, so that `fvs --help` answers without loading torch.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fvs_ros import __version__

INTERRUPTED = 130
"""Exit status after Ctrl-C: 128 plus the number of SIGINT, as shells count it."""


@dataclass(frozen=True)
class Command:
    """One subcommand.

    Attributes:
        name: the word after `fvs`.
        summary: one line for `fvs --help`.
        declare: adds the subcommand's arguments to its parser.
        run: does the work with the parsed arguments; returns the exit status.
    """

    name: str
    summary: str
    declare: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


def existing_file(text: str) -> Path:
    """An argument that must name a file; the error names what is wrong before anything is loaded."""
    path = Path(text)
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"{text} is a folder, a file is needed")
    if not path.exists():
        raise argparse.ArgumentTypeError(f"{text} does not exist")
    return path


def _declare_parity(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", metavar="FILE", nargs="+", type=existing_file, help="golden file (safetensors)")


def _parity(arguments: argparse.Namespace) -> int:
    from fvs_ros.commands import parity

    return parity.main(arguments.files)


def _declare_evaluate(parser: argparse.ArgumentParser) -> None:
    from fvs_ros.commands import evaluate_benchmark, evaluate_export, evaluate_patrol, evaluate_replay, evaluate_score

    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    summary = "replay a recording with timed questions, and score the answers"
    replay = commands.add_parser("replay", help=summary, description=summary)
    evaluate_replay.add_arguments(replay)
    replay.set_defaults(evaluate=_evaluate_replay)
    for name, summary, module in (
        (
            "patrol",
            "answer questions about robot patrols that were never trained on, and score the answers",
            evaluate_patrol,
        ),
        ("benchmark", "answer a public benchmark in its published protocol, and score the answers", evaluate_benchmark),
        ("export", "write a public benchmark as bags with timed questions", evaluate_export),
        ("score", "score finished predictions of a public benchmark, without a model", evaluate_score),
    ):
        command = commands.add_parser(name, help=summary, description=summary)
        module.add_arguments(command)
        command.set_defaults(evaluate=module.run)


def _evaluate_replay(arguments: argparse.Namespace) -> int:
    from fvs_ros.commands import evaluate_replay

    if not arguments.live:
        return evaluate_replay.run(arguments)
    try:
        from fvs_ros.ros_tools.live_form import live_form
    except ImportError as error:
        print(
            f"fvs evaluate replay: --live needs ROS 2 and the built interfaces ({error}): make setup", file=sys.stderr
        )
        return 1
    return evaluate_replay.run(arguments, live_form)


def _evaluate(arguments: argparse.Namespace) -> int:
    status: int = arguments.evaluate(arguments)
    return status


def _declare_chat(parser: argparse.ArgumentParser) -> None:
    from fvs_ros.commands import chat

    chat.add_arguments(parser)


def _chat(arguments: argparse.Namespace) -> int:
    from fvs_ros.commands import chat

    return chat.run(arguments)


def _declare_extract_frames(parser: argparse.ArgumentParser) -> None:
    from fvs_ros.commands import extract_frames

    extract_frames.add_arguments(parser)


def _extract_frames(arguments: argparse.Namespace) -> int:
    from fvs_ros.commands import extract_frames

    return extract_frames.run(arguments)


def _declare_patrol(parser: argparse.ArgumentParser) -> None:
    from fvs_ros.commands import patrol_make

    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    summary = "write a patrol as a rosbag2 folder with questions and their answers"
    patrol_make.add_arguments(commands.add_parser("make", help=summary, description=summary))


def _patrol(arguments: argparse.Namespace) -> int:
    from fvs_ros.commands import patrol_make

    return patrol_make.run(arguments)


def _declare_bench(parser: argparse.ArgumentParser) -> None:
    from fvs_ros.commands import bench

    bench.add_arguments(parser)


def _bench(arguments: argparse.Namespace) -> int:
    from fvs_ros.commands import bench

    return bench.run(arguments, _measure_node)


def _measure_node(*arguments: Any) -> Any:
    from fvs_ros.ros_tools import node_bench

    return node_bench.bench_node(*arguments)


def _declare_train(parser: argparse.ArgumentParser) -> None:
    from fvs_ros.commands import train

    train.add_arguments(parser)


def _train(arguments: argparse.Namespace) -> int:
    from fvs_ros.commands import train

    return train.run(arguments)


COMMANDS = (
    Command(
        "parity",
        "compare this library's results with golden files of the published model; exits 0 only if all agree",
        _declare_parity,
        _parity,
    ),
    Command("chat", "ask about a video, a camera or a bag while it plays", _declare_chat, _chat),
    Command("evaluate", "score answers to timed questions and public benchmarks", _declare_evaluate, _evaluate),
    Command("extract-frames", "turn videos into folders of JPEG files", _declare_extract_frames, _extract_frames),
    Command("bench", "measure speed and memory on this machine, beside targets and floors", _declare_bench, _bench),
    Command("patrol", "make episodes of robot patrols, to train on and to test with", _declare_patrol, _patrol),
    Command("train", "train a model by a recipe, or go on with a run", _declare_train, _train),
)


def build_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    parser = argparse.ArgumentParser(
        prog="fvs", description="Flash Memory of a camera stream, and answers about everything that it saw."
    )
    parser.add_argument("--version", action="version", version=f"fvs_ros {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in COMMANDS:
        subparser = commands.add_parser(command.name, help=command.summary, description=command.summary)
        command.declare(subparser)
        subparser.set_defaults(run=command.run)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line `argv` (default: the process's own) and returns the exit status."""
    arguments = build_parser().parse_args(argv)
    try:
        status: int = arguments.run(arguments)
    except KeyboardInterrupt:
        return INTERRUPTED
    return status


if __name__ == "__main__":
    sys.exit(main())
