"""A recording replayed with timed questions: asked, answered from every view, kept on disk, and scored."""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from fvs_ros.evaluation.answers import ANSWERS, AnswerFile, claim_folder
from fvs_ros.evaluation.benchmarks.long_video import ANSWER_PREFIX, plain_prompt
from fvs_ros.evaluation.benchmarks.predictions import AnswerRow
from fvs_ros.evaluation.benchmarks.question import BenchmarkQuestion
from fvs_ros.evaluation.errors import DataError
from fvs_ros.evaluation.parsing import LETTERS
from fvs_ros.evaluation.progress import RateColumn
from fvs_ros.evaluation.questions import TimedQuestion
from fvs_ros.evaluation.timed.controls import MEMORY
from fvs_ros.evaluation.timed.stream_run import Reply, RunOptions, StreamQuestion, StreamRun
from fvs_ros.process import resident_bytes
from fvs_ros.sources.bags import SourceError
from fvs_ros.sources.frame import SECOND_NS, Frame
from fvs_ros.sources.recordings import FrameSource
from fvs_ros.stream.model_protocol import StreamModel
from fvs_ros.stream.types import MemoryStatus, StreamStatistics

PLAIN, OPTIONS = "plain", "options"
# Header stamps and the recorder's clock may differ by the transport's delay; more is a wrong clock.
_CLOCK_TOLERANCE_S = 10.0


@dataclass(frozen=True)
class MemoryPoint:
    """The memory at a moment of the stream.

    Attributes:
        time_s: seconds from the first frame to the newest in memory.
        bytes: that the stream's state takes, see `MemoryStatus`.
    """

    time_s: float
    steps: int
    csm_slots: int
    dam_slots: int
    bytes: int


@dataclass(frozen=True)
class ReplayResult:
    """What a replay gave.

    Attributes:
        start_ns, end_ns: stamps of the recording's first and last frame.
        questions: with their times on the recording's clock, in their file's order.
        answers: rows by question's id, for each view by its name.
        memory: as it grew.
        statistics: of the frames.
        wall_s: seconds that it took.
        resident: host memory of the process in bytes, beside the seconds of stream, by the way.
    """

    start_ns: int
    end_ns: int
    questions: tuple[TimedQuestion, ...]
    answers: Mapping[str, Mapping[str, AnswerRow]]
    memory: tuple[MemoryPoint, ...]
    statistics: StreamStatistics
    wall_s: float
    resident: tuple[tuple[float, int], ...]


@dataclass(frozen=True)
class Replayed:
    """A replay with what its report tells about it.

    Attributes:
        settings: what the answers depend on.
        timings: what was measured with a clock.
        notes: what a reader must know.
    """

    result: ReplayResult
    settings: Mapping[str, object]
    timings: Mapping[str, object]
    notes: Sequence[str]


def on_recording_clock(questions: Sequence[TimedQuestion], start_ns: int) -> list[TimedQuestion]:
    """The questions with absolute stamps; those relative to the first frame, at `start_ns`, are moved."""
    return [
        replace(
            one,
            time_ns=one.time_ns + start_ns,
            relative=False,
            proof_ns=tuple((start + start_ns, end + start_ns) for start, end in one.proof_ns),
        )
        if one.relative
        else one
        for one in questions
    ]


def check_times(questions: Sequence[TimedQuestion], source: FrameSource, start_ns: int, file: Path) -> None:
    """Refuses questions that are asked outside of the recording: their stamps are of another clock.

    Raises:
        DataError: the first one, with both times.
    """
    end_ns = start_ns + source.duration_ns + round(_CLOCK_TOLERANCE_S * SECOND_NS)
    for one in questions:
        if one.time_ns < start_ns or (source.duration_ns and one.time_ns > end_ns):
            raise DataError(
                file,
                f"id {one.id!r}",
                f"is asked at {one.time_ns / SECOND_NS:.3f} s, but {source.name} runs from {start_ns / SECOND_NS:.3f} "
                f"to {(start_ns + source.duration_ns) / SECOND_NS:.3f} s; give stamps on the recording's clock, or "
                "'t' in seconds after its first frame",
            )


def first_frame(source: FrameSource) -> Frame:
    """The first frame of a recording that can be evaluated.

    Raises:
        SourceError: if it holds fewer than two frames.
    """
    found = list(itertools.islice(source.frames(), 2))
    if len(found) < 2:
        raise SourceError(
            f"{source.name} holds {len(found)} frame(s); a grid step takes two, so record or choose a longer stream"
        )
    return found[0]


def asked(question: TimedQuestion, form: str) -> StreamQuestion:
    """A question as it is put to the model.

    Args:
        question: with its stamp on the recording's clock.
        form: `plain` asks it as it is written; `options` lists its choices in the published evaluation's wording and
            makes the answer begin with `Best option: (`.
    """
    if form == PLAIN or not question.choices:
        return StreamQuestion(question.id, question.time_ns, question.question)
    listed = "\n".join(f"({LETTERS[index]}) {choice}" for index, choice in enumerate(question.choices))
    return StreamQuestion(
        question.id, question.time_ns, plain_prompt(f"{question.question}\n{listed}"), answer_prefix=ANSWER_PREFIX
    )


def answer_path(folder: Path, view: str) -> Path:
    """Where a view's answers are written: `answers.jsonl` are the memory's."""
    return folder / (ANSWERS if view == MEMORY.name else f"answers.{view}.jsonl")


def replay(
    model: StreamModel,
    options: RunOptions,
    source: FrameSource,
    questions: Sequence[TimedQuestion],
    form: str,
    settings: Mapping[str, object],
    out: Path,
    console: Console,
) -> ReplayResult:
    """Replays a recording, or what an interrupted replay into `out` left of it.

    Args:
        model: encodes and answers.
        options: views and how the stream is taken in.
        source: the recording, of at least two frames.
        questions: with stamps on the recording's clock.
        form: see `asked`.
        settings: what answers depend on, for JSON; another run's answers in `out` are refused.
        out: a folder, made where it is missing.
        console: shows progress.

    Raises:
        DataError: `out` holds answers of other settings, or damaged ones.
        SourceError: the recording turns out to be damaged.
        OSError: `out` cannot be written.
    """
    digest = claim_folder(out, settings)
    begin = time.perf_counter()
    with ExitStack() as stack:
        files = {
            view.name: stack.enter_context(AnswerFile(answer_path(out, view.name), digest)) for view in options.views
        }
        answered = {(identity, view) for view, file in files.items() for identity in file.rows}
        watch = _Watch(source, len(questions) * len(files), len(answered), console)
        run = StreamRun(model, options, watch.on_frame, watch.on_memory)
        by_id = {one.id: one for one in questions}
        with watch:
            for reply in run.replies(source.frames(), [asked(one, form) for one in questions], answered):
                row = answer_row(by_id[reply.question.id], reply)
                files[reply.view.name].append(row)
                watch.on_reply()
        answers = {view: dict(file.rows) for view, file in files.items()}
    return ReplayResult(
        start_ns=watch.start_ns,
        end_ns=watch.end_ns,
        questions=tuple(questions),
        answers=answers,
        memory=tuple(watch.memory),
        statistics=run.statistics,
        wall_s=time.perf_counter() - begin,
        resident=tuple(watch.resident),
    )


def answer_row(question: TimedQuestion | BenchmarkQuestion, reply: Reply) -> AnswerRow:
    """A reply as it is kept."""
    moments = tuple(
        (one.stamp_ns, one.start_ns, one.end_ns, one.weight, -1.0 if one.relevance is None else one.relevance)
        for one in reply.moments
    )
    return AnswerRow(
        id=question.id,
        question=question.question,
        answer=question.answer,
        response=reply.text,
        first_token_s=reply.first_token_s,
        total_s=reply.total_s,
        error=reply.error,
        memory_version=reply.memory.version,
        memory_steps=reply.memory.steps,
        moments=moments,
        prefilled=reply.prefilled,
    )


def frame_settings(options: RunOptions) -> dict[str, object]:
    """What answers depend on of how a stream is taken in."""
    used = ("fps", "min_pixels", "max_pixels", "batch_steps", "late_tolerance_s", "max_new_tokens")
    return {name: value for name, value in asdict(options.stream).items() if name in used}


class _Watch:
    """Shows how far a replay is, and notes how its memory grows."""

    def __init__(self, source: FrameSource, answers: int, answered: int, console: Console) -> None:
        self.start_ns = self.end_ns = 0
        self.memory: list[MemoryPoint] = []
        self.resident: list[tuple[float, int]] = []
        self._begun = False
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            RateColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
        )
        self._frames = self._progress.add_task("frames", total=source.frame_count or None)
        self._answers = self._progress.add_task("answers", total=answers, completed=answered)

    def __enter__(self) -> None:
        self._progress.start()

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def on_frame(self, frame: Frame) -> None:
        if not self._begun:
            self._begun = True
            self.start_ns = self.end_ns = frame.stamp_ns
        self.start_ns = min(self.start_ns, frame.stamp_ns)
        self.end_ns = max(self.end_ns, frame.stamp_ns)
        self._progress.advance(self._frames)

    def on_memory(self, status: MemoryStatus) -> None:
        if not status.steps:
            return
        time_s = (status.end_ns - self.start_ns) / SECOND_NS
        self.memory.append(MemoryPoint(time_s, status.steps, status.csm_slots, status.dam_slots, status.bytes))
        self.resident.append((time_s, resident_bytes()))

    def on_reply(self) -> None:
        self._progress.advance(self._answers)
