"""The live form of `fvs evaluate replay`: the running node in the place of an engine."""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence

import numpy as np
from rich.console import Console

from fvs_ros.evaluation.answers import AnswerFile, claim_folder
from fvs_ros.evaluation.progress import Bars
from fvs_ros.evaluation.questions import TimedQuestion
from fvs_ros.evaluation.timed.controls import MEMORY
from fvs_ros.evaluation.timed.page import replay_notes
from fvs_ros.evaluation.timed.replay import Replayed, ReplayResult, answer_path
from fvs_ros.ros_tools.live_replay import LiveOptions, evaluate_live
from fvs_ros.ros_tools.processes import DemoError
from fvs_ros.sources.frame import SECOND_NS
from fvs_ros.sources.recordings import FrameSource


def live_form(
    arguments: argparse.Namespace,
    source: FrameSource,
    questions: Sequence[TimedQuestion],
    settings: Mapping[str, object],
    console: Console,
) -> Replayed:
    """Plays the recording to the node. Each run is another one, so that none goes on where another ended.

    Raises:
        ValueError: what the live form cannot do, a folder that holds a run already, or a node that is not there.
    """
    if arguments.controls != () or arguments.prompt != "plain":
        raise ValueError("--live asks the node as it is; leave --controls and --prompt out")
    options = LiveOptions(
        arguments.bag, arguments.rate, arguments.node, arguments.max_new_tokens, arguments.start_timeout
    )
    settings = {**settings, "live": True, "rate": arguments.rate, "max_new_tokens": arguments.max_new_tokens}
    digest = claim_folder(arguments.out, settings)
    begin = time.perf_counter()
    with AnswerFile(answer_path(arguments.out, MEMORY.name), digest) as file:
        if file.rows:
            raise ValueError(f"{arguments.out} holds a live run already; choose another folder")
        with Bars(console, {"seconds of stream": source.duration_ns / SECOND_NS}) as bars:
            start_ns = int(str(settings["start_ns"]))
            try:
                live = evaluate_live(
                    options,
                    questions,
                    start_ns,
                    on_time=lambda second: bars.reach("seconds of stream", second),
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
    return Replayed(result, {**settings, "weights": live.model}, timings, notes)
