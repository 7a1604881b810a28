"""`fvs evaluate replay`: a recording with timed questions, through the engine that the node runs."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fvs_ros.commands.evaluation import (
    add_timed_arguments,
    exit_code,
    model_settings,
    publish,
    run_options,
    stream_settings,
)
from fvs_ros.commands.model_arguments import load_model

if TYPE_CHECKING:
    from rich.console import Console

    from fvs_ros.evaluation.questions import TimedQuestion
    from fvs_ros.evaluation.timed.replay import Replayed
    from fvs_ros.sources.recordings import FrameSource

Form = Callable[[argparse.Namespace, Any, Any, Any, Any], "Replayed"]
"""Replays a recording: the arguments, the source, the questions on its clock, the settings so far, the console."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments; loads no heavy library."""
    parser.add_argument(
        "--bag",
        type=Path,
        required=True,
        help="rosbag2 folder, .mcap, .db3 or ROS 1 .bag file, video, or folder of images",
    )
    parser.add_argument("--topic", default="", help="image topic; may be left out where the bag has only one")
    parser.add_argument(
        "--questions",
        metavar="JSONL",
        type=Path,
        required=True,
        help="one JSON object a line: id, stamp or t, question, and choices, answer, proof, family where known",
    )
    add_timed_arguments(parser)
    parser.add_argument(
        "--prompt",
        choices=("plain", "options"),
        default="plain",
        help="plain asks as written; options lists the choices as the published evaluation does (%(default)s)",
    )
    live = parser.add_argument_group(
        "live", "drive the running stream node over DDS instead; its model, not --model, answers, and drops count"
    )
    live.add_argument("--live", action="store_true", help="play the recording with /clock to the node, and ask it")
    live.add_argument("--rate", type=float, default=1.0, help="recorded seconds per second (%(default)s)")
    live.add_argument("--node", default="/stream_node", help="the node's full name (%(default)s)")
    live.add_argument(
        "--start-timeout", metavar="S", type=float, default=600.0, help="longest wait for the node (%(default)g s)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Replays, scores and prints; 0, or 1 with a message where something cannot be used."""
    return exit_code("replay", lambda: _replay(arguments, _form(arguments)))


def _form(arguments: argparse.Namespace) -> Form:
    if not arguments.live:
        return _deterministic
    try:
        from fvs_ros.ros_tools.live_form import live_form
    except ImportError as error:
        raise ValueError(f"--live needs ROS 2 and the built interfaces ({error}): make setup") from error
    return live_form


def _replay(arguments: argparse.Namespace, form: Form) -> int:
    from rich.console import Console

    from fvs_ros.evaluation.questions import read_questions
    from fvs_ros.evaluation.timed.plots import require_plots
    from fvs_ros.evaluation.timed.replay import check_times, first_frame
    from fvs_ros.hashing import config_hash
    from fvs_ros.sources.recordings import open_source

    require_plots()
    console = Console()
    written = read_questions(arguments.questions)
    source = open_source(arguments.bag, arguments.topic)
    try:
        start_ns = first_frame(source).stamp_ns
        questions = [question.on_clock(start_ns) for question in written]
        check_times(questions, source, start_ns, arguments.questions)
        settings = {
            "recording": f"{arguments.bag.name} {arguments.topic}".strip(),
            "start_ns": start_ns,
            "duration_ns": source.duration_ns,
            "frames": source.frame_count,
            "questions": config_hash([question.to_json() for question in written]),
            "prompt": arguments.prompt,
        }
        _report(arguments, form(arguments, source, questions, settings, console), console)
    finally:
        source.close()
    return 0


def _deterministic(
    arguments: argparse.Namespace,
    source: FrameSource,
    questions: Sequence[TimedQuestion],
    settings: Mapping[str, object],
    console: Console,
) -> Replayed:
    from fvs_ros.evaluation.timed.page import replay_notes
    from fvs_ros.evaluation.timed.replay import Replayed, replay

    options = run_options(arguments)
    model = load_model(arguments)
    settings = {**settings, **stream_settings(options.stream), **model_settings(model)}
    result = replay(model, options, source, questions, arguments.prompt, settings, arguments.out, console)
    timings = {
        "wall_s": result.wall_s,
        "frames_per_s": result.statistics.received / result.wall_s,
        "resident_bytes": result.resident,
        "model": arguments.model,
    }
    return Replayed(result, settings, timings, replay_notes(result))


def _report(arguments: argparse.Namespace, replayed: Replayed, console: Console) -> None:
    from dataclasses import asdict

    from fvs_ros.evaluation.timed.breakdowns import graded_answers
    from fvs_ros.evaluation.timed.report import evaluation_report

    result = replayed.result
    graded = graded_answers([(one, one.time_ns) for one in result.questions], result.answers)
    counted = ("received", "skipped", "late", "dropped", "discarded", "ingested", "rejected", "episodes")
    report = evaluation_report(
        title=f"{arguments.bag.name}: {len(result.questions)} timed questions",
        settings=replayed.settings,
        graded=graded,
        conditions=list(result.answers),
        drawn_with="moments, since questions asked at one stamp share a memory",
        streams={
            "start_ns": result.start_ns,
            "end_ns": result.end_ns,
            "frames": {name: getattr(result.statistics, name) for name in counted},
            "memory": [asdict(point) for point in result.memory],
        },
        notes=replayed.notes,
    )
    publish(arguments.out, report, graded, result.answers, replayed.timings, console, result)
