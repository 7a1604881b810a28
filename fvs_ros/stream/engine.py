"""The streaming engine: camera frames in, memory kept, questions answered. No ROS.

For instance::

    with StreamEngine(model, StreamConfig()) as engine:
        engine.submit(Frame(stamp_ns, image))
        answer = engine.ask("What do you see?", AskOptions(fresh=True)).result()
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import AbstractContextManager
from dataclasses import replace

from fvs_ros.sources.frame import Frame
from fvs_ros.stream.answering import AnswerWorker
from fvs_ros.stream.config import StreamConfig
from fvs_ros.stream.episode_keeping import keep_episodes
from fvs_ros.stream.evidence import NOTHING_SHOWN, ShownMoments, shown_moments
from fvs_ros.stream.frame_queue import FrameQueue
from fvs_ros.stream.history import check_history
from fvs_ros.stream.ingest import IngestWorker
from fvs_ros.stream.json_schema import constraint_of
from fvs_ros.stream.latest_memory import LatestMemory, PublishedMemory
from fvs_ros.stream.log import traceback_without
from fvs_ros.stream.memory_keeper import MemoryKeeper
from fvs_ros.stream.model_protocol import StreamModel
from fvs_ros.stream.outcomes import Result, done, fail, settle
from fvs_ros.stream.questions import AcceptedQuestion, PendingAnswer, QuestionQueue, check_question
from fvs_ros.stream.recall import QuestionRecall
from fvs_ros.stream.recorder import Recorder
from fvs_ros.stream.recording import NOTHING_KEPT, Episodes, RecordingError, RecordingStatus
from fvs_ros.stream.remake import FeatureRemaker
from fvs_ros.stream.scene_pictures import ScenePictures
from fvs_ros.stream.types import AskError, AskOptions, ErrorCode, MemoryStatus, ModelFaults, Picture, StreamStatistics
from fvs_ros.stream.watchdog import Watchdog
from fvs_ros.stream.watches import WatchRegister

logger = logging.getLogger(__name__)

DEFAULT_OPTIONS = AskOptions()
# Longest time between two looks at what is overdue.
OVERDUE_PERIOD_S = 1.0


class StreamEngine:
    """Keeps the Flash Memory of a frame stream and answers questions about it.

    The ingest thread turns frames into memory; the answer thread prefills the newest memory and answers questions from
    it. They share the model, one lock that guards the queues of frames and questions and is never held during a model
    call, and the reference to the newest memory, which is never written again once published. So neither thread waits
    for the other's model calls.

    Every public method may be called from any thread, and so may those of `watches`, which takes conditions to watch
    for. Only `close`, `flush` and `PendingAnswer.result` wait for the model.

    Args:
        model: encodes frames and answers questions; owned by the caller, and must outlive the engine.
        config: rates, bounds, limits and defaults.
        on_memory: called on the ingest thread after the memory changed, resets included; changes in quick succession
            may be reported as one. No frame is ingested before it returns.
        episodes: where the stream is kept as segments, and what it goes on with; None keeps nothing.
    """

    def __init__(
        self,
        model: StreamModel,
        config: StreamConfig,
        on_memory: Callable[[MemoryStatus], None] | None = None,
        episodes: Episodes | None = None,
    ) -> None:
        self._model = model
        self._config = config
        # The one lock of frames, questions and memory: held to move references, never during a model call.
        self._changed = threading.Condition()
        self._latest = LatestMemory()
        self._frames = FrameQueue(config, self._changed, self._latest.clear)
        self._questions = QuestionQueue(config, self._changed, self._frames.accounted)
        self._recorder: Recorder | None = None
        self._keeper: MemoryKeeper | None = None
        self._remaker: FeatureRemaker | None = None
        self._pictures: ScenePictures | None = None
        recall: QuestionRecall | None = None
        if episodes is not None:
            kept = keep_episodes(episodes, model, config, self._frames, self._latest)
            self._recorder, self._keeper, self._remaker = kept.recorder, kept.keeper, kept.remaker
            recall, self._pictures = kept.recall, kept.pictures
        self.watches = WatchRegister(config, self._changed, model, self._pictures is not None)
        ingest = IngestWorker(model, config, self._frames, self._latest, on_memory, self._recorder, self._keeper)
        answers = AnswerWorker(model, config, self._questions, self._latest, self.watches, recall, self._pictures)
        limit_s = config.model_timeout_s
        self._ingest = Watchdog(ingest, "fvs-ingest", limit_s)
        self._answers = Watchdog(answers, "fvs-answer", limit_s)
        # Often enough for a short limit, too.
        self._overdue_period_s = min(OVERDUE_PERIOD_S, limit_s / 4 or OVERDUE_PERIOD_S)
        self._overdue_thread = threading.Thread(target=self._end_overdue, name="fvs-overdue", daemon=True)
        self._started = False
        self._closed = False

    def __enter__(self) -> StreamEngine:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Starts the threads; does nothing if they are running.

        Raises:
            RuntimeError: the engine has been closed.
        """
        with self._changed:
            if self._closed:
                raise RuntimeError("the engine was closed and cannot start again; make a new one")
            if self._started:
                return
            self._started = True
            self._questions.activate()
            self.watches.activate()
            for started in (self._recorder, self._remaker, self._ingest, self._answers, self._overdue_thread):
                if started is not None:
                    started.start()

    def close(self, give_up: Callable[[], bool] = lambda: False) -> bool:
        """Discards waiting frames, cancels all questions, ends the threads and frees the memory.

        Waits for a model call in progress, unless it hangs; an answer stops at its next token. Closing again does
        nothing.

        Args:
            give_up: ends the wait where it becomes true; asked ten times a second.

        Returns:
            Whether all threads have ended. What a call that goes on brings is not used.
        """
        with self._changed:
            self._closed = True
            self._frames.close()
        self._questions.close()
        self.watches.close()
        ended = True
        if self._started:
            # A callback that closes the engine runs on one of the threads, which ends after it.
            if self._overdue_thread is not threading.current_thread():
                self._overdue_thread.join()
            # Both, whatever the first says.
            ended = self._ingest.join(give_up) & self._answers.join(give_up)
            if self._recorder is not None:
                ended &= self._recorder.close(give_up)
        self._latest.current = None
        return ended

    def _end_overdue(self) -> None:
        """Ends questions and watches at their deadlines, and replaces workers whose model calls hang."""
        while self._questions.expire(min(self._overdue_period_s, self.watches.expire())):
            self._ingest.look()
            self._answers.look()

    def submit(self, frame: Frame) -> bool:
        """Submits a frame; never waits, never decodes.

        Returns:
            Whether the frame was due and is queued now. Newer frames can still push it out of the queue.
        """
        return self._frames.offer(frame)

    def ask(
        self, question: str, options: AskOptions = DEFAULT_OPTIONS, on_token: Callable[[str], None] | None = None
    ) -> PendingAnswer:
        """Asks about everything in memory. Never raises: `PendingAnswer.result` raises what went wrong.

        Args:
            question: in any language that the model knows.
            options: limits, freshness, what it is to be answered from and with.
            on_token: called on the answer thread with each chunk of the answer's text as it is decoded.
        """
        asked = time.perf_counter()
        pending = self._questions.new_pending()
        try:
            self._questions.require_active()
            limits = check_question(question, options, self._config, self._model.control_tokens_in)
            constraint = constraint_of(options.json_schema, options.choices, self._model.json_constraint)
            after_frame = self._frames.mark() if options.fresh else 0
            excerpt: Future[PublishedMemory] | None = Future() if options.ranged else None
            accepted = AcceptedQuestion(question, limits, on_token, pending, asked, options.fresh, after_frame, excerpt)
            accepted.choices, accepted.constraint = tuple(options.choices), constraint
            accepted.turns = check_history(options.history, self._config.question_characters)
            accepted.recalls, accepted.with_images = options.recall and not options.ranged, options.with_images
            if options.with_images and self._pictures is None:
                raise AskError(ErrorCode.INVALID_QUESTION, f"with_images needs stored segments: {NOTHING_KEPT}")
            self._questions.put(accepted)
            if excerpt is not None:
                self._make_excerpt(excerpt, pending, options, after_frame)
        except AskError as error:
            pending.settle(error)
        except Exception as error:
            logger.error("the model failed to check a question\n%s", traceback_without(error, [question]))
            logger.debug("the same in full", exc_info=error)
            pending.settle(AskError(ErrorCode.MODEL_ERROR, f"the model failed to check the question: {error}"))
        return pending

    def _make_excerpt(
        self, excerpt: Future[PublishedMemory], pending: PendingAnswer, options: AskOptions, after_frame: int
    ) -> None:
        """Has the memory of a range or an area made on the ingest thread, if the question still waits then."""

        def make(keeper: MemoryKeeper, ingest: IngestWorker) -> Future[PublishedMemory]:
            if pending.settled():
                raise AskError(ErrorCode.CANCELLED, "nobody waits for it any more")
            made = keeper.excerpt(ingest, options.since_ns, options.until_ns, options.near)
            return done(replace(made, forgettings=self._latest.forgettings))

        excerpt.add_done_callback(lambda _: self._questions.look_again())
        try:
            self._submit(make, excerpt, after_frame)
        except RecordingError as error:
            raise AskError(
                ErrorCode.INVALID_QUESTION, f"since, until and near need stored segments: {error}"
            ) from error

    def reset(self) -> None:
        """Forgets everything; the next frame begins a new episode. Running answers keep their memory."""
        self._frames.new_episode()

    @property
    def paused(self) -> bool:
        """Whether frames are skipped; the memory stays, and questions are still answered."""
        return self._frames.paused

    def pause(self, paused: bool) -> None:
        """Starts or stops skipping frames."""
        self._frames.pause(paused)

    def hold(self) -> AbstractContextManager[None]:
        """A block within which frames are only queued; they are ingested after it.

        The frames encoded together, and with them the features, bit for bit, then depend on what is submitted and not
        on the speed of the machine. For one thread at a time.
        """
        return self._frames.hold()

    def flush(self, timeout_s: float) -> bool:
        """Waits until each frame submitted so far is accounted for: in memory, dropped, discarded or rejected.

        Where episodes are kept, also until the recorder has taken all of them. False if that took longer than
        `timeout_s` seconds, or the engine was closed.
        """
        deadline = time.monotonic() + timeout_s
        accounted = self._frames.wait_accounted(self._frames.mark(), timeout_s)
        return accounted and (self._recorder is None or self._recorder.wait_idle(deadline - time.monotonic()))

    @property
    def status(self) -> MemoryStatus:
        """Status of the newest memory."""
        return self._latest.status

    def shown(self) -> ShownMoments:
        """What the newest memory shows the model. Waits for the device."""
        memory = self._latest.current
        return NOTHING_SHOWN if memory is None else shown_moments(memory)

    @property
    def recording(self) -> RecordingStatus | None:
        """What is stored of the stream; None where no episodes are kept."""
        return None if self._recorder is None else self._recorder.status

    def keyframe(self, stamp_ns: int | None) -> Future[Picture | None]:
        """The picture of the scene in view at a stamp, or else of the nearest one in time, of all that is kept.

        Returns:
            That picture, for None the newest; None where nothing is kept, `StoreError` where the store cannot be read.

        Raises:
            RecordingError: no episodes are kept, or the engine is not running.
        """
        if self._pictures is None:
            raise RecordingError(NOTHING_KEPT)
        if not self._started:
            raise RecordingError("the engine is not running; activate the node first")
        return self._pictures.nearest(stamp_ns)

    def save_memory(self, timeout_s: float) -> str:
        """Ends the open segment, and saves the Flash Memory beside the segments.

        Returns:
            What is kept now, in a sentence.

        Raises:
            RecordingError: no episodes are kept, the engine is closed, or `timeout_s` seconds were not enough.
            StoreError: the store cannot be written.
        """
        return self._request(lambda keeper, ingest: keeper.save(ingest), timeout_s)

    def load_memory(self, episode: int | None, timeout_s: float) -> str:
        """The Flash Memory becomes that of a stored episode; frames go on in it if their stamps do.

        Args:
            episode: the store's number; None takes the last of which anything is kept.
            timeout_s: longest wait. What takes longer goes on.

        Returns:
            What it is, in a sentence.

        Raises:
            RecordingError: as for `save_memory`.
            StoreError: nothing is kept of that episode, or the store cannot be read.
        """
        return self._request(lambda keeper, ingest: done(keeper.load(ingest, episode)), timeout_s)

    def forget(self, since_ns: int | None, until_ns: int | None, episode: int | None, timeout_s: float) -> int:
        """Removes what was seen in a closed range of stamps, for good: from the store, its files, and the Flash Memory.

        The Flash Memory is made again from what remains of its episode. Answers that are being given end as they began.

        Args:
            since_ns: None for all before `until_ns`.
            until_ns: None for all since `since_ns`.
            episode: of one episode only, by the store's number; None for all.
            timeout_s: longest wait. What takes longer goes on.

        Returns:
            How many segments were removed.

        Raises:
            RecordingError: as for `save_memory`.
            StoreError: the store cannot be written.
        """
        # What still waits for the model was seen, too.
        seen = self._frames.mark()
        return self._request(
            lambda keeper, ingest: done(keeper.forget(ingest, since_ns, until_ns, episode)), timeout_s, seen
        )

    def _request(
        self, work: Callable[[MemoryKeeper, IngestWorker], Future[Result]], timeout_s: float, after_frame: int = 0
    ) -> Result:
        """Has some work done on the ingest thread, between batches, and waits for its result."""
        outcome: Future[Result] = Future()
        self._submit(work, outcome, after_frame)
        try:
            return outcome.result(timeout_s)
        except FutureTimeoutError:
            raise RecordingError(f"that took longer than {timeout_s:g} s; it goes on, look again later") from None

    def _submit(
        self,
        work: Callable[[MemoryKeeper, IngestWorker], Future[Result]],
        outcome: Future[Result],
        after_frame: int = 0,
    ) -> None:
        """Has some work done on the ingest thread, between batches, once frames up to a number are accounted for."""
        keeper = self._keeper
        if keeper is None:
            raise RecordingError(NOTHING_KEPT)

        def run(ingest: IngestWorker) -> None:
            try:
                work(keeper, ingest).add_done_callback(lambda inner: settle(outcome, inner))
            except Exception as error:
                fail(outcome, error)

        def give_up(why: str) -> None:
            fail(outcome, RecordingError(f"{why}; it is given up, try again"))

        if not (self._started and self._frames.request(run, after_frame, give_up)):
            raise RecordingError("the engine is not running; activate the node first")

    @property
    def statistics(self) -> StreamStatistics:
        """All counters; those of frames are consistent with each other, and so are those of questions."""
        frames, questions = self._frames.counters, self._questions.counters
        ingest, answers = self._ingest.worker, self._answers.worker
        return StreamStatistics(
            **vars(frames),
            **vars(questions),
            ingest_s=ingest.last_batch_s,
            ingest_error=ingest.last_error,
            static_frames=ingest.static_frames,
            prefills=answers.prefill.prefills,
            prefill_s=answers.prefill.last_prefill_s,
        )

    @property
    def faults(self) -> ModelFaults:
        """What is wrong with the model's calls now, and what was."""
        ingest, answers = self._ingest.worker, self._answers.worker
        return ModelFaults(
            ingest=self._ingest.fault,
            answers=self._answers.fault,
            last=self._answers.last_fault or self._ingest.last_fault,
            out_of_memory=ingest.out_of_memory or answers.out_of_memory or answers.prefill.out_of_memory,
        )
