"""The `fvs` command: a table of subcommands, each a module of `fvs_ros.commands`.

These modules import heavy libraries only when they run, so `fvs --help` answers without loading torch.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module

from fvs_ros import __version__
from fvs_ros.errors import ReadableError, one_line

INTERRUPTED = 130
"""Exit status after Ctrl-C: 128 plus the number of SIGINT, as shells count it."""


@dataclass(frozen=True)
class Command:
    """One subcommand.

    Attributes:
        name: the word on the command line.
        summary: one line for `--help`.
        module: in `fvs_ros.commands`; has `add_arguments(parser)`, and `run(arguments)`, which returns the exit status.
            A `ReadableError` or an `OSError` that it raises becomes one line, and status 1.
    """

    name: str
    summary: str
    module: str


@dataclass(frozen=True)
class Group:
    """A word that only leads to further subcommands."""

    name: str
    summary: str
    commands: tuple[Command, ...]


COMMANDS = (
    Command(
        "parity",
        "compare this library's results with golden files of the published model; exits 0 only if all agree",
        "parity",
    ),
    Command("chat", "ask about a video, a camera or a bag while it plays", "chat"),
    Command("web", "show what is seen and remembered on a live page, and ask there", "web"),
    Command("mcp", "let language-model agents ask a node, a recording or a store, as an MCP server", "mcp"),
    Group(
        "evaluate",
        "score answers to timed questions and public benchmarks",
        (
            Command("replay", "replay a recording with timed questions, and score the answers", "evaluate_replay"),
            Command(
                "patrol",
                "answer questions about robot patrols that were never trained on, and score the answers",
                "evaluate_patrol",
            ),
            Command(
                "benchmark",
                "answer a public benchmark in its published protocol, and score the answers",
                "evaluate_benchmark",
            ),
            Command("export", "write a public benchmark as bags with timed questions", "evaluate_export"),
            Command("score", "score finished predictions of a public benchmark, without a model", "evaluate_score"),
        ),
    ),
    Command("extract-frames", "turn videos into folders of JPEG files", "extract_frames"),
    Command("bench", "measure speed and memory on this machine, beside targets and floors", "bench"),
    Group(
        "patrol",
        "make episodes of robot patrols, to train on and to test with",
        (Command("make", "write a patrol as a rosbag2 folder with questions and their answers", "patrol_make"),),
    ),
    Group(
        "memory",
        "look into a robot's episode store, and make it forget",
        (
            Command("info", "show what a store holds, episode by episode", "memory_info"),
            Command("export", "write a store's pictures as JPEG files and its segments as JSON lines", "memory_export"),
            Command("forget", "remove segments from a store, so that none of their bytes stay", "memory_forget"),
        ),
    ),
    Command("memory-plan", "say what a model needs at each quantization and frame size", "memory_plan"),
    Command("quantize", "write a checkpoint whose language model has 8 or 4 bits a weight", "quantize"),
    Command("train", "train a model by a recipe, or go on with a run", "train"),
)


def build_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line; it stores the chosen module's `run`, and by which words it was chosen."""
    parser = argparse.ArgumentParser(
        prog="fvs", description="Flash Memory of a camera stream, and answers about everything that it saw."
    )
    parser.add_argument("--version", action="version", version=f"fvs_ros {__version__}")
    _add_commands(parser, COMMANDS)
    return parser


def _add_commands(parser: argparse.ArgumentParser, commands: Sequence[Command | Group]) -> None:
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in commands:
        subparser = subparsers.add_parser(command.name, help=command.summary, description=command.summary)
        if isinstance(command, Group):
            _add_commands(subparser, command.commands)
            continue
        module = import_module(f"fvs_ros.commands.{command.module}")
        module.add_arguments(subparser)
        subparser.set_defaults(run=module.run, program=subparser.prog)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line `argv` (default: the process's own) and returns the exit status."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Names of files may be no text, and terminals may lack the letters of an answer.
            stream.reconfigure(errors="backslashreplace")
    program = "fvs"
    try:
        arguments = build_parser().parse_args(argv)
        program = vars(arguments).pop("program")
        status: int = arguments.run(arguments)
    except KeyboardInterrupt:
        return INTERRUPTED
    except (ReadableError, OSError) as error:
        print(f"{program}: {one_line(str(error))}", file=sys.stderr)
        return 1
    return status


if __name__ == "__main__":
    sys.exit(main())
