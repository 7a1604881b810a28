"""`fvs evaluate benchmark`: a model's answers to a public benchmark in its published protocol, and their scores."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from fvs_ros.commands.evaluation import add_data_arguments, exit_code, model_settings, stream_settings
from fvs_ros.commands.model_arguments import add_checkpoint_arguments, load_model

if TYPE_CHECKING:
    from fvs_ros.evaluation.answers import AnswerRow
    from fvs_ros.evaluation.benchmarks.clip_answerer import ClipProtocol
    from fvs_ros.evaluation.benchmarks.run import WindowAnswerer, Work
    from fvs_ros.evaluation.benchmarks.shards import Shard
    from fvs_ros.stream.config import StreamConfig

REPORT = "report.json"
# Failed questions that are named in the terminal; all are in answers.jsonl.
_SHOWN = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments."""
    add_data_arguments(parser, out="where answers.jsonl and report.json go; resumed if there")
    add_checkpoint_arguments(parser)
    parser.add_argument("--max-frames", type=int, metavar="N", help="of a clip, even (default: 240, as published)")
    parser.add_argument("--fps", type=float, help="frames kept per second of a stream (default: 1, as published)")
    parser.add_argument("--max-pixels", type=int, metavar="N", help="of a frame (default: 4 * 224 * 224, as published)")
    parser.add_argument(
        "--resizes", type=int, choices=(1, 2), help="of a clip's frame (default: 2, as published; 1: as the node does)"
    )
    parser.add_argument("--max-new-tokens", type=int, metavar="N", help="of an answer (default: 128, as published)")
    parser.add_argument(
        "--context",
        type=float,
        metavar="SECONDS",
        help="of StreamingBench: what is seen before a question (default: 60, its main setting; 0: everything)",
    )
    parser.add_argument(
        "--conversation",
        action="store_true",
        help="of StreamingBench: ask sequential questions as turns of a conversation, not in one prompt as published",
    )
    parser.add_argument(
        "--allow-missing", action="store_true", help="count questions whose frames are missing as wrong, and go on"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the published rule's random draws (default 0)")


def run(arguments: argparse.Namespace) -> int:
    """Answers what is left and scores; 0, or 1 with a message where something cannot be used or failed.

    Under torchrun each process answers its share; the one that completes the run joins and scores.
    """
    return exit_code("benchmark", lambda: _run(arguments))


def _run(arguments: argparse.Namespace) -> int:
    from fvs_ros.evaluation.answers import claim_folder, merge
    from fvs_ros.evaluation.benchmarks.clip_answerer import ClipAnswerer, ClipProtocol
    from fvs_ros.evaluation.benchmarks.run import Work
    from fvs_ros.evaluation.benchmarks.shards import Shard, shard_files
    from fvs_ros.evaluation.benchmarks.stream_answerer import StreamAnswerer
    from fvs_ros.evaluation.benchmarks.windows import annotation_files, context_of, load_questions, windows

    shard = Shard.from_environment()
    name, data = arguments.benchmark, arguments.data
    context_s, protocol = context_of(name, arguments.context), _protocol(arguments)
    if arguments.conversation and name != "streamingbench":
        raise ValueError(f"--conversation has no meaning for {name}; only StreamingBench has questions that follow up")
    annotations = annotation_files(name, data)
    questions = load_questions(name, data, annotations)
    work = Work.plan(name, data, questions, windows(questions, context_s), arguments.allow_missing)
    arguments.device = _device(arguments.device)
    model = load_model(arguments)
    settings = {
        "benchmark": name,
        "questions": work.config(),
        "context_s": context_s,
        **(asdict(protocol) if isinstance(protocol, ClipProtocol) else stream_settings(protocol)),
        **({"conversation": True} if arguments.conversation else {}),
        **model_settings(model),
    }
    config = claim_folder(arguments.out, settings)
    answerer: WindowAnswerer
    if isinstance(protocol, ClipProtocol):
        answerer = ClipAnswerer(model, protocol)
    else:
        answerer = StreamAnswerer(model, protocol, conversation=arguments.conversation)
    _answer(work, shard, arguments.out, config, answerer)
    left = merge(arguments.out, shard_files(arguments.out), [question.id for question in questions], config)
    if left:
        print(f"{left} of {len(questions)} questions are left to other processes; the last one joins and scores")
        return 0
    return _report(arguments, annotations, config)


def _device(device: str) -> str:
    """This process's GPU: torchrun starts one process per GPU."""
    import torch

    local_rank = os.environ.get("LOCAL_RANK", "")
    return f"cuda:{local_rank}" if device == "auto" and local_rank and torch.cuda.is_available() else device


def _protocol(arguments: argparse.Namespace) -> ClipProtocol | StreamConfig:
    """The benchmark's protocol with the settings that were given.

    Raises:
        ValueError: for settings that have no meaning, or not for this benchmark.
    """
    from fvs_ros.evaluation.benchmarks import BENCHMARKS
    from fvs_ros.evaluation.benchmarks.clip_answerer import ClipProtocol
    from fvs_ros.stream.config import StreamConfig

    streaming = BENCHMARKS[arguments.benchmark].streaming
    for foreign in ("max_frames", "resizes") if streaming else ("fps",):
        if getattr(arguments, foreign) is not None:
            kind = "asked while its videos stream" if streaming else "asked about whole clips of one frame a second"
            raise ValueError(f"--{foreign.replace('_', '-')} has no meaning for {arguments.benchmark}, which is {kind}")
    names = ("max_frames", "resizes", "fps", "max_pixels", "max_new_tokens")
    given = {name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None}
    return StreamConfig(**given) if streaming else ClipProtocol(**given)


def _answer(work: Work, shard: Shard, out: Path, config: str, answerer: WindowAnswerer) -> None:
    """Answers this process's share under a progress bar, which only the first of several processes shows."""
    from rich.console import Console

    from fvs_ros.evaluation.benchmarks.run import answer_shard
    from fvs_ros.evaluation.benchmarks.windows import Window
    from fvs_ros.evaluation.progress import RunProgress

    total = sum(len(window.questions) for window in shard.share(work.windows))
    with RunProgress({"questions": total}, Console(quiet=shard.rank > 0)) as progress:

        def on_rows(window: Window, rows: Sequence[AnswerRow], known: bool) -> None:
            if known:
                progress.skip("questions", len(rows))
                return
            progress.advance("questions", len(rows), window.video)
            for row in rows:
                if row.error:
                    progress.note(f"question {row.id} failed: {row.error}")

        answer_shard(work, shard, out, config, answerer, on_rows)


def _report(arguments: argparse.Namespace, annotations: Sequence[Path], config: str) -> int:
    from fvs_ros.evaluation.answers import ANSWERS, read_answers
    from fvs_ros.evaluation.benchmarks.report import print_report, write_json
    from fvs_ros.evaluation.benchmarks.scoring import score

    answers = arguments.out / ANSWERS
    report = score(arguments.benchmark, [answers], annotations, arguments.seed)
    print_report(report)
    write_json(report, arguments.out / REPORT)
    failed = [row for row in read_answers([answers], config).values() if row.response is None]
    if failed:
        named = "".join(f"\n  {row.id}: {row.error}" for row in failed[:_SHOWN])
        more = f"\n  and {len(failed) - _SHOWN} more in {answers}" if len(failed) > _SHOWN else ""
        print(
            f"{len(failed)} questions failed and count as wrong; the same command tries them again:{named}{more}",
            file=sys.stderr,
        )
    return 1 if failed else 0
