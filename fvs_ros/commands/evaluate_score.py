"""`fvs evaluate score`: scores finished predictions without a model."""

from __future__ import annotations

import argparse
from pathlib import Path

from fvs_ros.commands.evaluation import add_benchmark_argument, exit_code


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments."""
    add_benchmark_argument(parser)
    parser.add_argument(
        "files",
        metavar="FILE",
        nargs="+",
        type=Path,
        help="answers.jsonl, Flash-VStream's result files (8_0.json ...), OVO-Bench's three-mode JSON, or "
        "StreamingBench's output (real_output_MODEL.json ...); shards are joined",
    )
    parser.add_argument(
        "--annotations",
        metavar="FILE",
        nargs="+",
        default=[],
        type=Path,
        help="the benchmark's annotations, of StreamingBench those of each part: adds breakdowns and missing "
        "questions; answers.jsonl of OVO-Bench, StreamingBench and NaVQA cannot be scored without",
    )
    parser.add_argument("--json", metavar="OUT", type=Path, help="also write all scores to this file")
    parser.add_argument(
        "--seed", type=int, default=0, help="of the answers that Flash-VStream's rule draws at random (default 0)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Scores and prints; 0, or 1 with a message where a file cannot be used."""
    return exit_code("score", lambda: _score(arguments))


def _score(arguments: argparse.Namespace) -> int:
    from fvs_ros.evaluation.benchmarks.report import print_report, write_json
    from fvs_ros.evaluation.benchmarks.scoring import score

    report = score(arguments.benchmark, arguments.files, arguments.annotations, arguments.seed)
    print_report(report)
    if arguments.json is not None:
        write_json(report, arguments.json)
    return 0
