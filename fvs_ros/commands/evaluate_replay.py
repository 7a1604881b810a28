"""`fvs evaluate replay`: a recording with timed questions, through the engine that the node runs."""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from fvs_ros.commands.arguments import INCOMPLETE
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
    from fvs_ros.evaluation.timed.replay import ReplayResult
    from fvs_ros.ros_tools.live_replay import LiveResult
    from fvs_ros.sources.recordings import FrameSource


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
    """Replays, scores and prints; 0, INCOMPLETE where frames were left out, or 1 with a message."""
    return exit_code("replay", lambda: _replay(arguments))


def _replay(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from fvs_ros.evaluation.questions import read_questions
    from fvs_ros.evaluation.timed.plots import require_plots
    from fvs_ros.evaluation.timed.replay import check_times, first_frame
    from fvs_ros.hashing import config_hash
    from fvs_ros.sources.recordings import open_source

    require_plots()
    if arguments.live:
        _require_live(arguments)
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
        answer = _live if arguments.live else _deterministic
        result = answer(arguments, source, questions, settings, console)
        result = replace(result, notes=(*source.notes, *result.notes))
        _report(arguments, result, console)
    finally:
        source.close()
    # What a model that is too slow for a live stream drops is a result.
    return INCOMPLETE if source.notes or result.statistics.lost > result.statistics.dropped else 0


def _require_live(arguments: argparse.Namespace) -> None:
    """Before any work.

    Raises:
        ValueError: ROS 2 is missing, or for what the live form cannot do.
    """
    try:
        import fvs_ros.ros_tools.live_replay  # noqa: F401
    except ImportError as error:
        raise ValueError(f"--live needs ROS 2 and the built interfaces ({error}): make setup") from error
    if arguments.controls != () or arguments.prompt != "plain":
        raise ValueError("--live asks the node as it is; leave --controls and --prompt out")


def _deterministic(
    arguments: argparse.Namespace,
    source: FrameSource,
    questions: Sequence[TimedQuestion],
    settings: Mapping[str, object],
    console: Console,
) -> ReplayResult:
    from fvs_ros.evaluation.timed.replay import replay

    options = run_options(arguments)
    model = load_model(arguments)
    settings = {**settings, **stream_settings(options.stream), **model_settings(model)}
    result = replay(model, options, source, questions, arguments.prompt, settings, arguments.out, console)
    return replace(result, timings={**result.timings, "model": arguments.model})


def _live(
    arguments: argparse.Namespace,
    source: FrameSource,
    questions: Sequence[TimedQuestion],
    settings: Mapping[str, object],
    console: Console,
) -> ReplayResult:
    """Plays the recording to the running node. Each run is a new one, so that none continues where another ended.

    Raises:
        ValueError: a folder that holds a run already, or a node that cannot be used.
    """
    from fvs_ros.evaluation.answers import AnswerFile, claim_folder
    from fvs_ros.evaluation.progress import RunProgress
    from fvs_ros.evaluation.timed.controls import MEMORY
    from fvs_ros.evaluation.timed.replay import ReplayResult, answer_path
    from fvs_ros.ros_tools.client import RefusedError
    from fvs_ros.ros_tools.live_replay import LiveOptions, evaluate_live
    from fvs_ros.ros_tools.processes import ProcessError
    from fvs_ros.sources.frame import SECOND_NS

    options = LiveOptions(
        arguments.bag, arguments.rate, arguments.node, arguments.max_new_tokens, arguments.start_timeout
    )
    settings = {**settings, "live": True, "rate": arguments.rate, "max_new_tokens": arguments.max_new_tokens}
    config = claim_folder(arguments.out, settings)
    start_ns = int(str(settings["start_ns"]))
    begin = time.perf_counter()
    with AnswerFile(answer_path(arguments.out, MEMORY.name), config) as file:
        if file.rows:
            raise ValueError(f"{arguments.out} holds a live run already; choose another folder")
        with RunProgress({"seconds of stream": source.duration_ns / SECOND_NS}, console) as progress:
            try:
                live = evaluate_live(
                    options, questions, start_ns, partial(progress.reach, "seconds of stream"), on_row=file.append
                )
            except (ProcessError, RefusedError, TimeoutError) as error:
                raise ValueError(str(error)) from error
    timings = {
        "wall_s": time.perf_counter() - begin,
        "asked_late_s": live.asked_late_s,
        "behind_s": live.behind_s,
    }
    return ReplayResult(
        settings={**settings, "weights": live.model},
        start_ns=start_ns,
        end_ns=start_ns + source.duration_ns,
        questions=tuple(questions),
        answers={MEMORY.name: live.rows},
        memory=tuple(live.memory),
        statistics=live.statistics,
        timings=timings,
        notes=_live_notes(live, arguments.rate, source.frame_count),
    )


def _live_notes(live: LiveResult, rate: float, frames: int) -> tuple[str, ...]:
    import numpy as np

    counts = live.statistics
    late, behind = (np.quantile(some or [0.0], [0.5, 0.95]).tolist() for some in (live.asked_late_s, live.behind_s))
    return (
        f"Live at rate {rate:g}: {counts.received} of {frames or 'the'} frames arrived at the node, {counts.dropped} "
        f"were dropped because the model was too slow, {counts.late} late.",
        f"Questions were asked {late[0]:.2f} s late (median; p95 {late[1]:.2f} s of the recording), from a memory that "
        f"was {behind[0]:.2f} s behind (p95 {behind[1]:.2f} s).",
    )


def _report(arguments: argparse.Namespace, result: ReplayResult, console: Console) -> None:
    from fvs_ros.evaluation.timed.breakdowns import graded_answers
    from fvs_ros.evaluation.timed.page import replay_notes
    from fvs_ros.evaluation.timed.report import evaluation_report

    graded = graded_answers([(one, one.time_ns) for one in result.questions], result.answers)
    counted = ("received", "skipped", "late", "dropped", "discarded", "ingested", "rejected", "episodes")
    report = evaluation_report(
        title=f"{arguments.bag.name}: {len(result.questions)} timed questions",
        settings=result.settings,
        graded=graded,
        conditions=list(result.answers),
        drawn_with="moments, since questions asked at one stamp share a memory",
        streams={
            "start_ns": result.start_ns,
            "end_ns": result.end_ns,
            "frames": {name: getattr(result.statistics, name) for name in counted},
            "memory": [asdict(point) for point in result.memory],
        },
        notes=[*result.notes, *replay_notes(result)],
    )
    publish(arguments.out, report, graded, result.answers, result.timings, console, result)
