"""A recording replayed with timed questions, each asked under every condition."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from fvs_ros.evaluation.answers import ANSWERS, AnswerFile, AnswerRow, claim_folder
from fvs_ros.evaluation.errors import DataError
from fvs_ros.evaluation.parsing import LETTERS
from fvs_ros.evaluation.progress import RunProgress
from fvs_ros.evaluation.questions import ANSWER_PREFIX, INSTRUCTION, TimedQuestion
from fvs_ros.evaluation.timed.controls import MEMORY, Condition
from fvs_ros.evaluation.timed.rerun_log import RerunLog
from fvs_ros.evaluation.timed.stream_run import Reply, RunOptions, StreamQuestion, StreamRun
from fvs_ros.process import resident_bytes
from fvs_ros.sources.bags import SourceError
from fvs_ros.sources.frame import SECOND_NS, Frame
from fvs_ros.sources.recordings import FrameSource
from fvs_ros.stream.model_protocol import StreamModel
from fvs_ros.stream.recording import Episodes
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
        settings: what the answers depend on.
        start_ns, end_ns: stamps of the recording's first and last frame.
        questions: with their times on the recording's clock, in their file's order.
        answers: rows by question's id, for each condition by its name.
        memory: as it grew.
        statistics: of the frames.
        timings: what a clock measured, by name.
        resident: host memory of the process in bytes, beside the seconds of stream.
        notes: what a reader must know, beyond `page.replay_notes`.
        pictures: of the page, see `page_pictures.pictures_of`.
    """

    settings: Mapping[str, object]
    start_ns: int
    end_ns: int
    questions: tuple[TimedQuestion, ...]
    answers: Mapping[str, Mapping[str, AnswerRow]]
    memory: tuple[MemoryPoint, ...]
    statistics: StreamStatistics
    timings: Mapping[str, object]
    resident: tuple[tuple[float, int], ...] = ()
    notes: tuple[str, ...] = ()
    pictures: Mapping[int, bytes] = field(default_factory=dict)


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
    text = f"{INSTRUCTION}{question.question}\n{listed}"
    return StreamQuestion(question.id, question.time_ns, text, answer_prefix=ANSWER_PREFIX)


def answer_path(folder: Path, condition: str) -> Path:
    """Where a condition's answers are written: `answers.jsonl` are the memory's."""
    return folder / (ANSWERS if condition == MEMORY.name else f"answers.{condition}.jsonl")


@contextmanager
def answer_files(folder: Path, conditions: Iterable[Condition], config: str) -> Iterator[dict[str, AnswerFile]]:
    """The files of each condition's answers, by its name, open for a run of the configuration `config`.

    Raises:
        DataError: see `AnswerFile`.
    """
    with ExitStack() as stack:
        yield {one.name: stack.enter_context(AnswerFile(answer_path(folder, one.name), config)) for one in conditions}


def replay(
    model: StreamModel,
    options: RunOptions,
    source: FrameSource,
    questions: Sequence[TimedQuestion],
    form: str,
    settings: Mapping[str, object],
    out: Path,
    console: Console,
    episodes: Episodes | None = None,
    log: RerunLog | None = None,
) -> ReplayResult:
    """Replays a recording, or the rest of an interrupted replay into `out`.

    Args:
        model: encodes and answers.
        options: conditions and how the stream is taken in.
        source: the recording, of at least two frames.
        questions: with stamps on the recording's clock.
        form: see `asked`.
        settings: what answers depend on, for JSON; another run's answers in `out` are refused.
        out: a folder, made where it is missing.
        console: shows progress.
        episodes: where the stream is kept, and what it goes on with.
        log: gets the stream and all answers, those of an interrupted replay too.

    Raises:
        DataError: `out` holds answers of other settings, or damaged ones.
        SourceError: the recording turns out to be damaged.
        OSError: `out` cannot be written.
    """
    config = claim_folder(out, settings)
    begin = time.perf_counter()
    with answer_files(out, options.conditions, config) as files:
        answered = {(identity, condition) for condition, file in files.items() for identity in file.rows}
        totals = {"frames": source.frame_count or None, "answers": len(questions) * len(files)}
        progress = RunProgress(totals, console)
        watch = _Watch(progress, log)
        run = StreamRun(model, options, watch.on_frame, watch.on_memory, episodes)
        by_id = {one.id: one for one in questions}
        with progress:
            progress.skip("answers", len(answered))
            watch.known(files, by_id)
            for reply in run.replies(watch.frames(source), [asked(one, form) for one in questions], answered):
                files[reply.condition.name].append(watch.on_answer(by_id[reply.question.id], reply))
        answers = {condition: dict(file.rows) for condition, file in files.items()}
    wall_s = time.perf_counter() - begin
    frames_per_s = run.statistics.received / wall_s
    return ReplayResult(
        settings=settings,
        start_ns=watch.start_ns,
        end_ns=watch.end_ns,
        questions=tuple(questions),
        answers=answers,
        memory=tuple(watch.memory),
        statistics=run.statistics,
        timings={"wall_s": wall_s, "frames_per_s": frames_per_s, "resident_bytes": watch.resident},
        resident=tuple(watch.resident),
        notes=run.recording.notes() if run.recording else (),
    )


class _Watch:
    """Counts the frames and answers of a replay, notes how its memory grows, and logs all of it."""

    def __init__(self, progress: RunProgress, log: RerunLog | None) -> None:
        self.start_ns = self.end_ns = 0
        self.memory: list[MemoryPoint] = []
        self.resident: list[tuple[float, int]] = []
        self._begun = False
        self._progress = progress
        self._log = log

    def frames(self, source: FrameSource) -> Iterator[Frame]:
        frames = source.frames()
        return frames if self._log is None else self._log.frames(frames)

    def on_answer(self, question: TimedQuestion, reply: Reply) -> AnswerRow:
        row = reply.row(question.id, question.question, question.answer)
        if self._log is not None:
            self._log.answer(question, reply.condition.name, row, reply.moments)
        self._progress.advance("answers")
        return row

    def known(self, files: Mapping[str, AnswerFile], questions: Mapping[str, TimedQuestion]) -> None:
        """Logs the answers of an earlier run, whose rows do not say where moments were."""
        if self._log is None:
            return
        for condition, file in files.items():
            for row in file.rows.values():
                if row.id in questions:
                    self._log.answer(questions[row.id], condition, row, row.moments or ())

    def on_frame(self, frame: Frame) -> None:
        if not self._begun:
            self._begun = True
            self.start_ns = self.end_ns = frame.stamp_ns
        self.start_ns = min(self.start_ns, frame.stamp_ns)
        self.end_ns = max(self.end_ns, frame.stamp_ns)
        self._progress.advance("frames")

    def on_memory(self, status: MemoryStatus) -> None:
        if not status.steps:
            return
        if self._log is not None:
            self._log.memory(status)
        time_s = (status.end_ns - self.start_ns) / SECOND_NS
        self.memory.append(MemoryPoint(time_s, status.steps, status.csm_slots, status.dam_slots, status.bytes))
        self.resident.append((time_s, resident_bytes()))
