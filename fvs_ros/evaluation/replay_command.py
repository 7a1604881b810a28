"""`fvs evaluate replay`: a recording with timed questions, through the engine that the node runs."""

from __future__ import annotations

import argparse
import hashlib
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fvs_ros.evaluation.model_arguments import add_model_arguments, model_settings, run_options
from fvs_ros.model.arguments import load_model

if TYPE_CHECKING:
    from rich.console import Console

    from fvs_ros.evaluation.questions import TimedQuestion
    from fvs_ros.evaluation.replay import ReplayResult
    from fvs_ros.stream.sources import FrameSource


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
    add_model_arguments(parser, optional=True)
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
    from fvs_ros.evaluation.replay import check_times, first_frame, on_recording_clock
    from fvs_ros.stream.sources import open_source

    written = read_questions(arguments.questions)
    source = open_source(arguments.bag, arguments.topic)
    try:
        start_ns = first_frame(source).stamp_ns
        questions = on_recording_clock(written, start_ns)
        check_times(questions, source, start_ns, arguments.questions)
        settings = {
            "recording": f"{arguments.bag.name} {arguments.topic}".strip(),
            "start_ns": start_ns,
            "duration_ns": source.duration_ns,
            "frames": source.frame_count,
            "questions": hashlib.sha256(arguments.questions.read_bytes()).hexdigest()[:16],
            "prompt": arguments.prompt,
        }
        if arguments.live:
            _run_live(arguments, source, questions, settings, console)
        else:
            _run(arguments, source, questions, settings, console)
    finally:
        source.close()


def _run(
    arguments: argparse.Namespace,
    source: FrameSource,
    questions: Sequence[TimedQuestion],
    settings: dict[str, object],
    console: Console,
) -> None:
    """The deterministic form: through an engine of this process."""
    from fvs_ros.evaluation.replay import frame_settings, replay
    from fvs_ros.evaluation.replay_page import replay_notes

    if arguments.model is None:
        raise ValueError("no model is given; name one with --model, or drive a running node with --live")
    options = run_options(arguments)
    model = load_model(arguments)
    settings |= {**frame_settings(options), **model_settings(model)}
    result = replay(model, options, source, questions, arguments.prompt, settings, arguments.out, console)
    timings = {
        "wall_s": result.wall_s,
        "frames_per_s": result.statistics.received / result.wall_s,
        "resident_bytes": result.resident,
        "model": arguments.model,
    }
    _report(arguments, settings, result, timings, replay_notes(result), console)


def _run_live(
    arguments: argparse.Namespace,
    source: FrameSource,
    questions: Sequence[TimedQuestion],
    settings: dict[str, object],
    console: Console,
) -> None:
    """The live form: through the running node. Each run is another one, so that none goes on where another ended."""
    import numpy as np

    from fvs_ros.evaluation.answers import AnswerFile, claim_folder
    from fvs_ros.evaluation.progress import RateColumn
    from fvs_ros.evaluation.replay import ReplayResult, answer_path
    from fvs_ros.evaluation.replay_page import replay_notes
    from fvs_ros.evaluation.views import MEMORY

    if arguments.controls != () or arguments.prompt != "plain":
        raise ValueError("--live asks the node as it is; leave --controls and --prompt out")
    try:
        from fvs_ros.nodes.demo_processes import DemoError
        from fvs_ros.nodes.evaluate_live import LiveOptions, evaluate_live
    except ImportError as error:
        raise ValueError(f"--live needs ROS 2 and this package's interfaces: {error}; run make setup") from error
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    options = LiveOptions(
        arguments.bag, arguments.rate, arguments.node, arguments.max_new_tokens, arguments.start_timeout
    )
    settings |= {"live": True, "rate": arguments.rate, "max_new_tokens": arguments.max_new_tokens}
    digest = claim_folder(arguments.out, settings)
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=20), RateColumn(), TimeRemainingColumn())
    begin = time.perf_counter()
    with AnswerFile(answer_path(arguments.out, MEMORY.name), digest) as file:
        if file.rows:
            raise ValueError(f"{arguments.out} holds a live run already; choose another folder")
        with Progress(*columns, console=console, transient=True) as progress:
            task = progress.add_task("seconds of stream", total=source.duration_ns / 1e9)
            start_ns = int(str(settings["start_ns"]))
            try:
                live = evaluate_live(
                    options,
                    questions,
                    start_ns,
                    on_time=lambda second: progress.update(task, completed=second),
                    on_row=file.append,
                )
            except DemoError as error:
                raise ValueError(str(error)) from error
    result = ReplayResult(
        start_ns=start_ns,
        end_ns=start_ns + source.duration_ns,
        questions=tuple(questions),
        answers={MEMORY.name: live.rows},
        memory=tuple(live.memory),
        statistics=live.statistics,
        wall_s=time.perf_counter() - begin,
        resident=(),
    )
    counts = live.statistics
    late, behind = (np.quantile(some or [0.0], [0.5, 0.95]).tolist() for some in (live.asked_late_s, live.behind_s))
    notes = [
        f"Live at rate {arguments.rate:g}: {counts.received} of {source.frame_count or 'the'} frames arrived at the "
        f"node, {counts.dropped} were dropped because the model was too slow, {counts.late} late.",
        f"Questions were asked {late[0]:.2f} s late (median; p95 {late[1]:.2f} s of the recording), from a memory that "
        f"was {behind[0]:.2f} s behind (p95 {behind[1]:.2f} s).",
        *replay_notes(result),
    ]
    timings = {"wall_s": result.wall_s, "asked_late_s": live.asked_late_s, "behind_s": live.behind_s}
    _report(arguments, settings | {"weights": live.model}, result, timings, notes, console)


def _report(
    arguments: argparse.Namespace,
    settings: dict[str, object],
    result: ReplayResult,
    timings: dict[str, object],
    notes: Sequence[str],
    console: Console,
) -> None:
    from dataclasses import asdict

    from fvs_ros.evaluation.evaluation_console import print_evaluation
    from fvs_ros.evaluation.evaluation_report import evaluation_report, latencies, write_report
    from fvs_ros.evaluation.groups import outcome
    from fvs_ros.evaluation.replay_page import page

    views = list(result.answers)
    outcomes = [
        outcome(one, view, result.answers[view].get(one.id), drawn_with=one.time_ns)
        for view in views
        for one in result.questions
    ]
    counted = ("received", "skipped", "late", "dropped", "discarded", "ingested", "rejected", "episodes")
    report = evaluation_report(
        title=f"{arguments.bag.name}: {len(result.questions)} timed questions",
        settings=settings,
        outcomes=outcomes,
        views=views,
        drawn_with="moments, since questions asked at one stamp share a memory",
        streams={
            "start_ns": result.start_ns,
            "end_ns": result.end_ns,
            "frames": {name: getattr(result.statistics, name) for name in counted},
            "memory": [asdict(point) for point in result.memory],
        },
        notes=notes,
    )
    latency = latencies({view: rows.values() for view, rows in result.answers.items()})
    timings = {**timings, "latency": [asdict(one) for one in latency]}
    write_report(report, timings, page(report, result, latency), arguments.out)
    print_evaluation(report, latency, console)
    console.print(f"{arguments.out / 'report.html'} shows all of it", markup=False, highlight=False)
