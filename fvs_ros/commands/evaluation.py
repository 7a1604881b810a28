"""What the commands of `fvs evaluate` share: arguments, the settings that answers depend on, reports, exit codes."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from fvs_ros.commands.model_arguments import add_checkpoint_arguments
from fvs_ros.errors import ReadableError, one_line
from fvs_ros.stream.config import StreamConfig

if TYPE_CHECKING:
    from rich.console import Console

    from fvs_ros.evaluation.answers import AnswerRow
    from fvs_ros.evaluation.timed.breakdowns import GradedAnswer
    from fvs_ros.evaluation.timed.replay import ReplayResult
    from fvs_ros.evaluation.timed.report import EvaluationReport
    from fvs_ros.evaluation.timed.stream_run import RunOptions
    from fvs_ros.model.flash_vstream import FlashVStream

# The keys of `benchmarks.BENCHMARKS`, here without what importing that takes.
BENCHMARK_NAMES = (
    "egoschema",
    "mlvu",
    "lvbench",
    "mvbench",
    "videomme",
    "videomme-subtitles",
    "ovo-bench",
    "streamingbench",
    "navqa",
)
CONTROLS = ("last4", "uniform", "question-only", "csm-only", "dam-only")
UNUSED_STREAM_SETTINGS = {
    "frame_queue": "a run waits before its queue is full",
    "prefill_share": "a run prefills with the question",
    "parallel_questions": "a run asks one question at a time",
    "question_queue": "a run asks one question at a time",
    "question_characters": "a longer question gets an error instead of an answer",
    "max_new_tokens_limit": "bounds max_new_tokens alone",
    "timeout_s": "a run waits for every answer",
    "model_timeout_s": "frames and questions of a call that hangs are counted as failed",
    "watch_share": "looks at conditions come between questions",
    "watch_true_from": "answers about conditions are by probability, whatever counts as true",
    "watch_false_below": "answers about conditions are by probability, whatever counts as true",
}
"""What no recorded answer depends on, and why."""
_DEFAULTS = StreamConfig()
# Fields of it that can be set, and what `--help` says of them.
_STREAM_ARGUMENTS = {
    "fps": "frames kept per second of stamps, 0 for all",
    "max_new_tokens": "longest answer",
    "min_pixels": "minimum area of a processed frame",
    "max_pixels": "maximum area of a processed frame",
    "batch_steps": "grid steps encoded at once",
}


def add_benchmark_argument(parser: argparse.ArgumentParser) -> None:
    """Declares which benchmark."""
    parser.add_argument("benchmark", metavar="NAME", choices=BENCHMARK_NAMES, help=", ".join(BENCHMARK_NAMES))


def add_data_arguments(parser: argparse.ArgumentParser, out: str) -> None:
    """Declares which benchmark, where it lies, and the folder for `out`."""
    add_benchmark_argument(parser)
    parser.add_argument(
        "--data", metavar="DIR", required=True, type=Path, help="annotations and frames or videos, as published"
    )
    parser.add_argument("--out", metavar="DIR", required=True, type=Path, help=out)


def add_timed_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the model, how it takes frames in, what it is compared with and where reports go."""
    parser.add_argument(
        "--out",
        metavar="DIR",
        type=Path,
        required=True,
        help="gets answers.jsonl, report.json, report.html and timings.json; an interrupted run continues there",
    )
    add_checkpoint_arguments(parser)
    parser.add_argument(
        "--controls",
        metavar="NAME",
        nargs="*",
        default=(),
        help="ask the same questions of these too: lastN (the newest N frames), uniform (evenly spaced steps, as many "
        "tokens as the memory), question-only, csm-only, dam-only, recall (stored segments, where the model "
        "can); without a name, all of them but recall, with last4",
    )
    for name, about in _STREAM_ARGUMENTS.items():
        default = getattr(_DEFAULTS, name)
        flag = f"--{name.replace('_', '-')}"
        parser.add_argument(flag, type=type(default), default=default, help=f"{about} (%(default)s)")


def run_options(arguments: argparse.Namespace) -> RunOptions:
    """The options that the arguments ask for.

    Raises:
        ValueError: a value out of its range, or an unknown control.
    """
    from fvs_ros.evaluation.timed.controls import MEMORY, Condition
    from fvs_ros.evaluation.timed.stream_run import RunOptions

    names = CONTROLS if arguments.controls == [] else arguments.controls
    given = {name: getattr(arguments, name) for name in _STREAM_ARGUMENTS}
    limit = max(arguments.max_new_tokens, _DEFAULTS.max_new_tokens_limit)
    stream = replace(_DEFAULTS, **given, max_new_tokens_limit=limit)
    return RunOptions(stream, (MEMORY, *map(Condition.parse, names)))


def stream_settings(config: StreamConfig) -> dict[str, object]:
    """What answers depend on of how a stream is taken in: all but `UNUSED_STREAM_SETTINGS`."""
    return {name: value for name, value in asdict(config).items() if name not in UNUSED_STREAM_SETTINGS}


def model_settings(model: FlashVStream) -> dict[str, object]:
    """What answers depend on of a model; its name is not among it, the same weights may lie anywhere."""
    return {
        "weights": model.fingerprint(),
        "device": model.device.type,
        "dtype": str(model.dtype).removeprefix("torch."),
        **asdict(model.memory_config),
    }


def exit_code(command: str, work: Callable[[], int]) -> int:
    """What `work` returns; 1 with one line on stderr where something cannot be used or made."""
    try:
        return work()
    except (ReadableError, ValueError, OSError) as error:
        print(f"fvs evaluate {command}: {one_line(str(error))}", file=sys.stderr)
        return 1


def publish(
    out: Path,
    report: EvaluationReport,
    graded: Sequence[GradedAnswer],
    answers: Mapping[str, Mapping[str, AnswerRow]],
    run: Mapping[str, object],
    console: Console,
    replayed: ReplayResult | None = None,
    in_thirds: Sequence[str] = (),
    printed: bool = True,
) -> None:
    """Writes an evaluation's report, timings and page to `out`, and prints its tables.

    Args:
        out: folder of the run.
        report: its scores.
        graded: what they were made of.
        answers: that a model gave: rows of each condition by the question's id.
        run: what a clock measured of the whole run.
        console: where to print.
        replayed: the recording's replay, for its page.
        in_thirds: families that are also shown in thirds by age.
        printed: whether the tables are.
    """
    from fvs_ros.evaluation.answers import replace_text
    from fvs_ros.evaluation.timed.console import print_evaluation
    from fvs_ros.evaluation.timed.page import page
    from fvs_ros.evaluation.timed.report import PAGE, REPORT, TIMINGS, Timings

    timings = Timings.of(graded, answers, run)
    replace_text(out / REPORT, report.to_json())
    replace_text(out / TIMINGS, timings.to_json())
    replace_text(out / PAGE, page(report, timings, answers, replayed))
    if printed:
        print_evaluation(report, timings.latency, console, in_thirds)
    console.print(f"{out / PAGE} shows all of it", markup=False, highlight=False)
