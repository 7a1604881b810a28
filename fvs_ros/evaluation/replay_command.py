"""`fvs evaluate replay`: a recording with timed questions, through the engine that the node runs."""

from __future__ import annotations

import argparse
import hashlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from fvs_ros.evaluation.model_arguments import add_model_arguments, load_model, model_settings, run_options

if TYPE_CHECKING:
    from rich.console import Console

    from fvs_ros.evaluation.replay import ReplayResult
    from fvs_ros.evaluation.stream_run import RunOptions


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
    parser.add_argument(
        "--out",
        metavar="DIR",
        type=Path,
        required=True,
        help="gets answers.jsonl, report.json, report.html and timings.json; an interrupted run goes on there",
    )
    add_model_arguments(parser)
    parser.add_argument(
        "--prompt",
        choices=("plain", "options"),
        default="plain",
        help="plain asks as written; options lists the choices as the published evaluation does (%(default)s)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Replays, scores and prints; 0, or 1 with a message where something cannot be used."""
    from rich.console import Console

    from fvs_ros.evaluation.errors import DataError
    from fvs_ros.model.checkpoint import CheckpointError
    from fvs_ros.stream.bags import SourceError

    try:
        _replay(arguments, Console())
    except (DataError, SourceError, CheckpointError, OSError, ValueError) as error:
        print(f"fvs evaluate replay: {error}", file=sys.stderr)
        return 1
    return 0


def _replay(arguments: argparse.Namespace, console: Console) -> None:
    from fvs_ros.evaluation.questions import read_questions
    from fvs_ros.evaluation.replay import check_times, first_frame, frame_settings, on_recording_clock, replay
    from fvs_ros.stream.sources import open_source

    options = run_options(arguments)
    written = read_questions(arguments.questions)
    source = open_source(arguments.bag, arguments.topic)
    try:
        start_ns = first_frame(source).stamp_ns
        questions = on_recording_clock(written, start_ns)
        check_times(questions, source, start_ns, arguments.questions)
        model = load_model(arguments)
        settings = {
            "recording": f"{arguments.bag.name} {arguments.topic}".strip(),
            "start_ns": start_ns,
            "duration_ns": source.duration_ns,
            "frames": source.frame_count,
            "questions": hashlib.sha256(arguments.questions.read_bytes()).hexdigest()[:16],
            "prompt": arguments.prompt,
            **frame_settings(options),
            **model_settings(model),
        }
        result = replay(model, options, source, questions, arguments.prompt, settings, arguments.out, console)
    finally:
        source.close()
    _report(arguments, settings, options, result, console)


def _report(
    arguments: argparse.Namespace,
    settings: dict[str, object],
    options: RunOptions,
    result: ReplayResult,
    console: Console,
) -> None:
    from dataclasses import asdict

    from fvs_ros.evaluation.evaluation_console import print_evaluation
    from fvs_ros.evaluation.evaluation_report import evaluation_report, latencies, write_report
    from fvs_ros.evaluation.groups import outcome
    from fvs_ros.evaluation.replay_page import page, replay_notes

    views = [view.name for view in options.views]
    outcomes = [
        outcome(one, view, result.answers[view].get(one.id), drawn_with=one.time_ns)
        for view in views
        for one in result.questions
    ]
    counted = ("received", "skipped", "late", "dropped", "discarded", "ingested", "rejected", "episodes")
    streams = {
        "start_ns": result.start_ns,
        "end_ns": result.end_ns,
        "frames": {name: getattr(result.statistics, name) for name in counted},
        "memory": [asdict(point) for point in result.memory],
    }
    report = evaluation_report(
        title=f"{arguments.bag.name}: {len(result.questions)} timed questions",
        settings=settings,
        outcomes=outcomes,
        views=views,
        drawn_with="moments, since questions asked at one stamp share a memory",
        streams=streams,
        notes=replay_notes(result),
    )
    latency = latencies({view: rows.values() for view, rows in result.answers.items()})
    timings = {
        "wall_s": result.wall_s,
        "frames_per_s": result.statistics.received / result.wall_s,
        "latency": [asdict(one) for one in latency],
        "resident_bytes": result.resident,
        "model": arguments.model,
    }
    write_report(report, timings, page(report, result, latency), arguments.out)
    print_evaluation(report, latency, console)
    console.print(f"{arguments.out / 'report.html'} shows all of it", markup=False, highlight=False)
