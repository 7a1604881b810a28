"""`fvs evaluate replay`: a recording with timed questions, through the engine that the node runs."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from fvs_ros.commands.arguments import INCOMPLETE
from fvs_ros.commands.episode_arguments import add_episode_arguments, opened_episodes
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
    add_episode_arguments(
        parser,
        "never",
        "with --memory-dir: never asks about this recording alone, whatever the store holds; with auto and always the "
        "memory begins with the store's last episode, and --controls, which know this recording alone, are refused",
    )
    parser.add_argument(
        "--rerun",
        metavar="FILE",
        type=Path,
        help="also write frames, memory, questions, moments and poses as a Rerun recording (.rrd); needs rerun-sdk",
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
    from fvs_ros.evaluation.timed.controls import MEMORY
    from fvs_ros.evaluation.timed.page_pictures import pictured_questions, pictures_of
    from fvs_ros.evaluation.timed.plots import require_plots
    from fvs_ros.evaluation.timed.replay import check_times, first_frame
    from fvs_ros.evaluation.timed.rerun_log import require_rerun
    from fvs_ros.hashing import config_hash
    from fvs_ros.sources.recordings import open_source

    require_plots()
    if arguments.rerun is not None:
        require_rerun()
    if arguments.live:
        _require_live(arguments)
    _check_episodes(arguments)
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
        notes = (*source.notes, *result.notes)
        pictured = pictured_questions(questions, result.answers.get(MEMORY.name, {}))
        result = replace(result, notes=notes, pictures=pictures_of(source.frames(), pictured))
        _report(arguments, result, console)
    finally:
        source.close()
    # What a model that is too slow for a live stream drops is a result.
    return INCOMPLETE if source.notes or result.statistics.lost > result.statistics.dropped else 0


def _check_episodes(arguments: argparse.Namespace) -> None:
    """Before any work.

    Raises:
        ValueError: for what cannot be asked of an episode store.
    """
    if arguments.live and arguments.memory_dir is not None:
        raise ValueError("--live asks the node, which keeps its own episodes (memory_dir); leave --memory-dir out")
    if arguments.resume != "never" and arguments.memory_dir is None:
        raise ValueError(f"--resume {arguments.resume} goes on with the episodes of --memory-dir, which is missing")
    if arguments.resume != "never" and arguments.controls != ():
        raise ValueError("--controls know this recording alone; leave out --controls or --resume")


def _require_live(arguments: argparse.Namespace) -> None:
    """Before any work.

    Raises:
        ValueError: ROS 2 is missing, or for what the live form cannot do.
    """
    try:
        import fvs_ros.ros_tools.live_replay  # noqa: F401
    except ImportError as error:
        raise ValueError(f"--live needs ROS 2 and the built interfaces ({error}): make setup") from error
    if arguments.rerun is not None:
        raise ValueError("--rerun shows what this process decodes, which --live leaves to the node; leave one out")
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
    from fvs_ros.evaluation.timed.rerun_log import RerunLog

    options = run_options(arguments)
    model = load_model(arguments)
    settings = {**settings, **stream_settings(options.stream), **model_settings(model)}
    with opened_episodes(arguments, model, source.name) as episodes:
        if episodes is not None and arguments.resume != "never":
            # Then answers depend on what is in the store.
            store = episodes.store
            after = f"episode {store.current_episode}, segment {store.last_segment}"
            settings = {**settings, "resume": f"{arguments.resume}, after {after}"}
        form, out = arguments.prompt, arguments.out
        with ExitStack() as stack:
            log = None
            if arguments.rerun is not None:
                log = stack.enter_context(closing(RerunLog(arguments.rerun, source.name)))
            result = replay(model, options, source, questions, form, settings, out, console, episodes, log)
    return replace(result, timings={**result.timings, "model": arguments.model})


def _live(
    arguments: argparse.Namespace,
    source: FrameSource,
    questions: Sequence[TimedQuestion],
    settings: Mapping[str, object],
    console: Console,
) -> ReplayResult:
    """Plays the recording to the running node.

    Raises:
        ValueError: a folder that holds a run already, or a node that cannot be used.
    """
    from fvs_ros.ros_tools.client import RefusedError
    from fvs_ros.ros_tools.live_replay import LiveOptions, replay_live
    from fvs_ros.ros_tools.processes import ProcessError

    options = LiveOptions(
        recording=arguments.bag,
        start_ns=int(str(settings["start_ns"])),
        rate=arguments.rate,
        node=arguments.node,
        max_new_tokens=arguments.max_new_tokens,
        start_timeout_s=arguments.start_timeout,
    )
    settings = {**settings, "live": True, "rate": options.rate, "max_new_tokens": options.max_new_tokens}
    try:
        return replay_live(options, source, questions, settings, arguments.out, console)
    except (ProcessError, RefusedError, TimeoutError) as error:
        raise ValueError(str(error)) from error


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
