"""A benchmark from annotations to scores: which questions are left, who answers them, and what is written where."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from fvs_ros.evaluation.answers import AnswerFile, AnswerRow, read_answers
from fvs_ros.evaluation.benchmarks import BenchmarkQuestion, Media
from fvs_ros.evaluation.benchmarks.shards import Shard, shard_files
from fvs_ros.evaluation.benchmarks.windows import Window, media_of
from fvs_ros.evaluation.errors import DataError
from fvs_ros.hashing import config_hash

logger = logging.getLogger(__name__)

# Problems that are shown of many.
_SHOWN = 5


class WindowAnswerer(Protocol):
    """Answers the questions of a window."""

    def answers(self, window: Window, media: Media, questions: Sequence[BenchmarkQuestion]) -> Iterator[AnswerRow]:
        """One row for each of `questions`, which are some of the window's. Raises what the media or the model raise."""


@dataclass(frozen=True)
class Work:
    """All questions of a benchmark, and what they are about.

    Attributes:
        name: of the benchmark, a key of `BENCHMARKS`.
        data: its folder.
        questions: in the order of its annotations.
        windows: of all questions.
        missing: why a window's media cannot be used, by its place in `windows`.
    """

    name: str
    data: Path
    questions: Sequence[BenchmarkQuestion]
    windows: Sequence[Window]
    missing: dict[int, str]

    @classmethod
    def plan(
        cls,
        name: str,
        data: Path,
        questions: Sequence[BenchmarkQuestion],
        windows: Sequence[Window],
        allow_missing: bool,
    ) -> Work:
        """Looks for the media of every window before anything is answered.

        Raises:
            DataError: for media that are missing, unless they are allowed to; the first ones are named.
        """
        missing = {}
        for place, window in enumerate(windows):
            try:
                media_of(name, data, window)
            except DataError as error:
                missing[place] = str(error)
        if missing and not allow_missing:
            shown = "".join(f"\n  {problem}" for problem in [*missing.values()][:_SHOWN])
            more = f"\n  and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
            raise DataError(
                data,
                "",
                f"lacks the frames of {len(missing)} of {len(windows)} parts; add them, or count their questions as "
                f"wrong with --allow-missing:{shown}{more}",
            )
        return cls(name, data, questions, windows, missing)

    def config(self) -> str:
        """Hash of all prompts."""
        return config_hash({one.id: [one.prompt, one.answer_prefix] for one in self.questions})


def answer_shard(
    work: Work,
    shard: Shard,
    folder: Path,
    config: str,
    answerer: WindowAnswerer,
    on_rows: Callable[[Window, Sequence[AnswerRow], bool], None],
) -> None:
    """Answers the rest of a process's share, and writes each answer as it comes.

    A window that fails costs its own questions alone: they get rows without a response, which count as wrong and are
    tried again by the next run.

    Args:
        work: of the benchmark.
        shard: which share.
        folder: of the run, from `claim_folder`.
        config: hash of its configuration.
        answerer: of the questions.
        on_rows: called with each window's rows, and True for those of an earlier run.

    Raises:
        DataError: if the folder's answers cannot be continued.
        OSError: if it cannot be written.
    """
    with AnswerFile(folder / shard.file, config) as answers:
        known = {
            identity: row
            for identity, row in read_answers(shard_files(folder), config).items()
            if row.response is not None
        }
        for place, window in shard.share(list(enumerate(work.windows))):
            before = [known[question.id] for question in window.questions if question.id in known]
            on_rows(window, before, True)
            todo = [question for question in window.questions if question.id not in known]
            if not todo:
                continue
            for row in _rows(work, place, window, todo, answerer):
                answers.append(row)
                on_rows(window, [row], False)


def _rows(
    work: Work, place: int, window: Window, todo: Sequence[BenchmarkQuestion], answerer: WindowAnswerer
) -> Iterator[AnswerRow]:
    left = {question.id: question for question in todo}
    error = work.missing.get(place, "")
    if not error:
        try:
            for row in answerer.answers(window, media_of(work.name, work.data, window), todo):
                del left[row.id]
                yield row
        except Exception as problem:
            # One broken video of thousands, or one question too many for the GPU, must not cost a night's answers.
            logger.debug("window %s of %s failed", window.start_s, window.video, exc_info=True)
            error = f"{type(problem).__name__}: {problem}"
    for question in left.values():
        reason = error or "it was not answered"
        yield AnswerRow(question.id, question.question, question.answer, None, error=reason)
