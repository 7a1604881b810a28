"""`fvs evaluate patrol`: the held-out test on robot patrols, with the controls beside the memory."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING

from fvs_ros.commands.evaluation import (
    add_timed_arguments,
    exit_code,
    model_settings,
    publish,
    run_options,
    stream_settings,
)
from fvs_ros.commands.model_arguments import CHECKPOINT_ARGUMENTS, load_model
from fvs_ros.patrol.config import FRAME_SIZE, TEST_SEED, Wording

if TYPE_CHECKING:
    from rich.console import Console

    from fvs_ros.evaluation.answers import AnswerFile, AnswerRow
    from fvs_ros.evaluation.timed.patrol import PatrolPlan
    from fvs_ros.patrol.questions import Question

DEFAULT_SEEDS = f"{TEST_SEED}:{TEST_SEED + 59}"
# A batch has a snapshot made, of which only those at the questions' moments are used.
_BATCH_STEPS = 16
_LONGEST_ANSWER = 32


def parse_seeds(text: str) -> list[int]:
    """`FIRST:LAST`, both included, or seeds with commas between.

    Raises:
        argparse.ArgumentTypeError: for anything else, and for a seed that comes twice.
    """
    first, colon, last = text.partition(":")
    try:
        seeds = list(range(int(first), int(last) + 1)) if colon else [int(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither FIRST:LAST nor a list such as 900000,900007") from None
    if not seeds or min(seeds) < 0 or len(set(seeds)) < len(seeds):
        raise argparse.ArgumentTypeError(f"{text!r} must name at least one seed, none below 0 and each once")
    return seeds


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments; loads no heavy library."""
    parser.add_argument(
        "--seeds",
        type=parse_seeds,
        default=DEFAULT_SEEDS,
        help="FIRST:LAST, both included, or a list with commas (%(default)s)",
    )
    parser.add_argument("--questions", type=int, help="of each episode (56)")
    parser.add_argument("--moments", type=int, help="at which they are asked (10)")
    parser.add_argument(
        "--steps",
        type=int,
        nargs=2,
        metavar=("SHORTEST", "LONGEST"),
        help="episodes' lengths in grid steps of 2 s (200 600)",
    )
    parser.add_argument(
        "--phrasings",
        choices=[wording.value for wording in Wording],
        help="whose words: the few phrasings that stand beside each kind of question, constructions that training may "
        "see, or those kept from it; see docs/phrasings.md (original)",
    )
    parser.add_argument(
        "--families", nargs="+", metavar="F", default=(), help="of questions, such as recall or order.after (all)"
    )
    parser.add_argument("--workers", type=int, default=1, help="processes (%(default)s)")
    add_timed_arguments(parser)
    parser.set_defaults(
        batch_steps=_BATCH_STEPS, max_new_tokens=_LONGEST_ANSWER, min_pixels=FRAME_SIZE**2, max_pixels=FRAME_SIZE**2
    )


def run(arguments: argparse.Namespace) -> int:
    """Makes the episodes, answers, scores and prints; 0, or 1 with a message where something cannot be used."""
    return exit_code("patrol", lambda: _evaluate(arguments))


def _plan(arguments: argparse.Namespace) -> PatrolPlan:
    from fvs_ros.evaluation.timed.patrol import PatrolPlan

    given = {name: vars(arguments)[name] for name in ("questions", "moments", "phrasings")}
    given["families"] = tuple(arguments.families)
    if arguments.steps:
        given["shortest"], given["longest"] = arguments.steps
    return PatrolPlan(**{name: value for name, value in given.items() if value is not None})


def _evaluate(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from fvs_ros.evaluation.answers import claim_folder
    from fvs_ros.evaluation.timed.patrol import answer_episodes
    from fvs_ros.evaluation.timed.plots import require_plots
    from fvs_ros.evaluation.timed.replay import answer_files

    require_plots()
    console = Console()
    options, plan = run_options(arguments), _plan(arguments)
    model = load_model(arguments)
    settings: dict[str, object] = {"plan": asdict(plan), **stream_settings(options.stream), **model_settings(model)}
    config = claim_folder(arguments.out, settings)
    begin = time.perf_counter()
    questions = {seed: plan.ask(plan.episode(seed)) for seed in arguments.seeds}
    # Each of several processes needs a model of its own.
    named = argparse.Namespace(**{name: vars(arguments)[name] for name in CHECKPOINT_ARGUMENTS})
    load = partial(load_model, named) if arguments.workers > 1 else lambda: model
    with answer_files(arguments.out, options.conditions, config) as files:
        _answer(partial(answer_episodes, load, options, plan, workers=arguments.workers), files, questions, console)
        answers = {condition: dict(file.rows) for condition, file in files.items()}
    run = {"wall_s": time.perf_counter() - begin, "model": arguments.model}
    _report(arguments, plan, settings, questions, answers, run, console)
    return 0


def _answer(
    answer: Callable[[Sequence[int]], Iterable[Mapping[str, Sequence[AnswerRow]]]],
    files: Mapping[str, AnswerFile],
    questions: Mapping[int, Sequence[Question]],
    console: Console,
) -> None:
    """Answers what the files do not hold yet; `answer` runs the episodes of seeds."""
    from fvs_ros.evaluation.progress import RunProgress

    missing = [
        seed
        for seed, some in questions.items()
        if any(question.id not in file.rows for question in some for file in files.values())
    ]
    asked = [question.id for some in questions.values() for question in some]
    known = sum(identity in file.rows for identity in asked for file in files.values())
    totals = {"episodes": len(questions), "answers": len(files) * len(asked)}
    with RunProgress(totals, console) as progress:
        progress.skip("episodes", len(questions) - len(missing))
        progress.skip("answers", known)
        for episode in answer(missing):
            for condition, rows in episode.items():
                new = [row for row in rows if row.id not in files[condition].rows]
                for row in new:
                    files[condition].append(row)
                progress.advance("answers", len(new))
            progress.advance("episodes")


def _report(
    arguments: argparse.Namespace,
    plan: PatrolPlan,
    settings: dict[str, object],
    questions: dict[int, list[Question]],
    answers: dict[str, dict[str, AnswerRow]],
    run: Mapping[str, object],
    console: Console,
) -> None:
    from fvs_ros.evaluation.timed.breakdowns import graded_answers
    from fvs_ros.evaluation.timed.patrol import GUESS, GUESS_EPISODES, declined, guessed, timed
    from fvs_ros.evaluation.timed.report import evaluation_report

    asked = [question for some in questions.values() for question in some]
    with console.status("guessing from the words alone"):
        guesses = guessed(plan, asked)
    conditions = {**answers, GUESS: {row.id: row for row in guesses}}
    graded = graded_answers([(timed(one), seed) for seed, some in questions.items() for one in some], conditions)
    lengths = [plan.steps(seed) for seed in questions]
    taken = [f"{name} {count} of {of}" for name, rows in answers.items() for count, of in [declined(asked, rows)]]
    report = evaluation_report(
        title=f"{len(questions)} patrols of {min(lengths)} to {max(lengths)} grid steps",
        settings={**settings, "seeds": list(questions)},
        graded=graded,
        conditions=list(conditions),
        drawn_with="episodes",
        streams={str(seed): {"steps": plan.steps(seed), "questions": len(some)} for seed, some in questions.items()},
        notes=[
            f"{GUESS}: the most frequent answer to the same words in {GUESS_EPISODES} other episodes.",
            "Correct is the exact text.",
            f"Questions about the patrol that were taken for ones from outside: {', '.join(taken)}.",
        ],
    )
    publish(arguments.out, report, graded, answers, run, console, in_thirds=("recall",))
