"""Questions asked while a video plays: each at its second, of a memory that holds nothing later."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial

from fvs_ros.evaluation.answers import AnswerRow
from fvs_ros.evaluation.benchmarks import BenchmarkQuestion, Media
from fvs_ros.evaluation.benchmarks.streaming_bench import PROACTIVE_POLL_AFTER_S, proactive_poll
from fvs_ros.evaluation.benchmarks.windows import Window
from fvs_ros.evaluation.grading import AnswerKind
from fvs_ros.evaluation.timed.stream_run import Reply, RunOptions, StreamQuestion, StreamRun, UpcomingFrames
from fvs_ros.evaluation.timed.watches import watch_steps
from fvs_ros.sources.frame import SECOND_NS, Frame
from fvs_ros.sources.recordings import read_image
from fvs_ros.sources.videos import VideoSource
from fvs_ros.stream.config import StreamConfig
from fvs_ros.stream.history import ASSISTANT, USER
from fvs_ros.stream.model_protocol import StreamModel
from fvs_ros.stream.types import ChatMessage

# Prompts with a conversation in them (StreamingBench's sequential part) are longer than what a user may type.
_QUESTION_CHARACTERS = 1_000_000
# The response where a proactive question's moment never came.
_NOT_YET = "no"


class StreamAnswerer:
    """Answers questions about streams with the engine that the node runs.

    Args:
        model: encodes and answers.
        config: how videos are streamed; the defaults are the node's, whose rate is also the published one.
        conversation: sequential questions follow as turns of a conversation (`BenchmarkQuestion.conversation`),
            instead of with those before them in one prompt, as published.
    """

    def __init__(self, model: StreamModel, config: StreamConfig, *, conversation: bool = False) -> None:
        self._model = model
        self._config = replace(config, question_characters=_QUESTION_CHARACTERS)
        self._conversation = conversation
        self._run = StreamRun(model, RunOptions(self._config))

    def answers(self, window: Window, media: Media, questions: Sequence[BenchmarkQuestion]) -> Iterator[AnswerRow]:
        """One row a question, in the order in which they are asked.

        Raises:
            SourceError: if the video cannot be read.
        """
        waiting = [question for question in questions if question.kind is AnswerKind.PROACTIVE]
        asked = {question.id: question for question in questions if question.kind is not AnswerKind.PROACTIVE}
        if asked:
            end_s = max(_ask_time(question) for question in asked.values())
            frames = media_frames(media, window.start_s, end_s)
            texts = [self._turn(question) for question in asked.values()]
            for reply in self._run.replies(frames, texts):
                yield _row(asked[reply.question.id], reply)
        for question in waiting:
            yield self._proactive(window, media, question)

    def _turn(self, question: BenchmarkQuestion) -> StreamQuestion:
        """A question at its moment, with its history where it has one that is asked for."""
        if not (self._conversation and question.conversation):
            return _at(question.id, _ask_time(question), question)
        *earlier, text = question.conversation
        roles = itertools.cycle((USER, ASSISTANT))
        history = tuple(ChatMessage(role, said) for role, said in zip(roles, earlier, strict=False))
        return replace(_at(question.id, _ask_time(question), question, text), history=history)

    def _proactive(self, window: Window, media: Media, question: BenchmarkQuestion) -> AnswerRow:
        """Watches every second for the time to answer, and asks for the output then. As published, for up to 4 s more.

        It is time once yes is likelier than no. The published evaluation looks for a yes in what the model writes.
        """
        assert question.answer_time_s is not None, "a proactive question has a right moment"
        first, last = round(_ask_time(question)) + 1, round(question.answer_time_s) + PROACTIVE_POLL_AFTER_S
        frames = media_frames(media, window.start_s, float(last))
        config = replace(self._config, prefill_share=0.0, watch_share=1.0, watch_true_from=0.5, watch_false_below=0.5)
        unanswered = AnswerRow(question.id, question.question, question.answer, None)
        if last < first:
            return replace(unanswered, error="it has no moment to answer at")
        try:
            seconds = _by_second(frames, first, last)
            (told,) = watch_steps(self._model, config, seconds, [proactive_poll(question)], once=True)
        except RuntimeError as error:
            return replace(unanswered, error=str(error))
        if not told:
            return replace(unanswered, response=_NOT_YET)
        ready_s = float(first + told[0])
        frames = media_frames(media, window.start_s, ready_s)
        (output,) = self._run.replies(frames, [_at(question.id, ready_s, question)])
        return replace(_row(question, output), answered_s=ready_s)


def _by_second(frames: Iterable[Frame], first: int, last: int) -> Iterator[list[Frame]]:
    """The frames up to each of these seconds, without those up to the one before."""
    upcoming = UpcomingFrames(frames)
    for second in range(first, last + 1):
        yield list(upcoming.until(second * SECOND_NS))


def media_frames(media: Media, start_s: float, end_s: float) -> Iterator[Frame]:
    """The frames of a window in the order of time, both ends included, stamped in nanoseconds of the question's clock.

    Raises:
        SourceError: if the video cannot be read.
    """
    if media.video is None:
        for path, time_s in zip(media.frames, media.times_s, strict=True):
            if start_s <= time_s <= end_s:
                yield Frame(round(time_s * SECOND_NS), partial(read_image, path))
        return
    for frame in VideoSource(media.video).frames(start_s):
        if frame.stamp_ns > end_s * SECOND_NS:
            return
        yield frame


def _row(question: BenchmarkQuestion, reply: Reply) -> AnswerRow:
    return reply.row(question.id, question.question, question.answer)


def _ask_time(question: BenchmarkQuestion) -> float:
    assert question.ask_time_s is not None, "a question of a streaming benchmark has its moment"
    return question.ask_time_s


def _at(identity: str, time_s: float, question: BenchmarkQuestion, text: str = "") -> StreamQuestion:
    return StreamQuestion(identity, round(time_s * SECOND_NS), text or question.prompt, question.answer_prefix)
