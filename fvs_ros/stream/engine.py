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
from contextlib import AbstractContextManager
from types import TracebackType

from fvs_ros.sources.frame import Frame
from fvs_ros.stream.answering import AnswerWorker
from fvs_ros.stream.config import StreamConfig
from fvs_ros.stream.frame_queue import FrameQueue
from fvs_ros.stream.ingest import IngestWorker
from fvs_ros.stream.latest_memory import LatestMemory
from fvs_ros.stream.model_protocol import StreamModel
from fvs_ros.stream.questions import PendingAnswer, Question, QuestionQueue, check_question
from fvs_ros.stream.types import AskError, AskOptions, ErrorCode, MemoryStatus, StreamStatistics

logger = logging.getLogger(__name__)

DEFAULT_OPTIONS = AskOptions()


class StreamEngine:
    """Keeps the Flash Memory of a frame stream and answers questions about it.

    One thread turns frames into memory, another reads the newest memory ahead and answers. They share nothing but the
    reference to the newest published memory, which is never written again, so that neither waits for the other. Every
    public method may be called from any thread, and none waits for the model except `close`, `flush` and
    `PendingAnswer.result`.

    Args:
        model: encodes frames and answers; it stays the caller's and outlives the engine.
        config: how.
        on_memory: called on the ingest thread with each new memory, resets included; changes that follow each other
            quickly may be told as one. It must return soon: no frame is ingested meanwhile.
    """

    def __init__(
        self, model: StreamModel, config: StreamConfig, on_memory: Callable[[MemoryStatus], None] | None = None
    ) -> None:
        self._model = model
        self._config = config
        # The one lock of frames, questions and memory. It is held to move references, never during a model call.
        self._changed = threading.Condition()
        self._board = LatestMemory()
        self._frames = FrameQueue(config, self._changed, self._board.clear)
        self._questions = QuestionQueue(config, self._changed, self._frames.settled)
        self._ingest = IngestWorker(model, config, self._frames, self._board, on_memory)
        self._answers = AnswerWorker(model, config, self._questions, self._board)
        self._threads = (
            threading.Thread(target=self._ingest.run, name="fvs-ingest", daemon=True),
            threading.Thread(target=self._answers.run, name="fvs-answer", daemon=True),
        )
        self._started = False
        self._closed = False

    def __enter__(self) -> StreamEngine:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start(self) -> None:
        """Starts both threads; does nothing if they run.

        Raises:
            RuntimeError: the engine was closed.
        """
        with self._changed:
            if self._closed:
                raise RuntimeError("the engine was closed and cannot start again; make a new one")
            if self._started:
                return
            self._started = True
            self._questions.activate()
            for thread in self._threads:
                thread.start()

    def close(self) -> None:
        """Discards waiting frames, cancels all questions, ends both threads and frees the memory.

        A model call in progress is waited for; an answer stops at its next token. Closing again does nothing.
        """
        with self._changed:
            self._closed = True
            self._frames.close()
        self._questions.close()
        for thread in self._threads:
            # A callback that closes the engine runs on one of the threads, which ends after it.
            if self._started and thread is not threading.current_thread():
                thread.join()
        self._board.release()

    def submit(self, frame: Frame) -> bool:
        """Offers a frame; never waits, never decodes.

        Returns:
            True if its stamp was due and it waits for the model now. It can still be dropped for newer frames.
        """
        return self._frames.offer(frame)

    def ask(
        self,
        question: str,
        options: AskOptions = DEFAULT_OPTIONS,
        on_token: Callable[[str], None] | None = None,
    ) -> PendingAnswer:
        """Asks about everything in memory. Never raises for what a user asks: errors come with the result.

        Args:
            question: in any language that the model speaks.
            options: limits and freshness.
            on_token: called on the answer thread with each piece of the answer as it comes.
        """
        asked = time.perf_counter()
        pending = self._questions.new_pending()
        try:
            self._questions.require_active()
            limits = check_question(question, options, self._config, self._model.control_tokens_in)
            after_frame = self._frames.mark() if options.fresh else 0
            self._questions.put(Question(question, limits, on_token, pending, asked, options.fresh, after_frame))
        except AskError as error:
            pending.settle(error)
        except Exception as error:
            logger.exception("the model failed to check a question")
            pending.settle(AskError(ErrorCode.MODEL_ERROR, f"the model failed to check the question: {error}"))
        return pending

    def reset(self) -> None:
        """Forgets everything: a new episode begins with the next frame. Running answers keep what they read."""
        self._frames.new_episode()

    @property
    def paused(self) -> bool:
        """Whether frames are skipped; the memory stays, and questions are answered."""
        return self._frames.paused

    def pause(self, paused: bool) -> None:
        """Begins to skip frames, or ends it."""
        self._frames.pause(paused)

    def hold(self) -> AbstractContextManager[None]:
        """A block in which frames are only gathered: none is ingested before its end.

        How many frames are encoded together then follows from what is submitted, not from how fast this machine is,
        and so the features do, bit for bit. From one thread at a time.
        """
        return self._frames.hold()

    def flush(self, timeout_s: float) -> bool:
        """Waits until each frame submitted so far is in memory, dropped, discarded or rejected.

        Returns:
            False if that took longer than `timeout_s` seconds, or the engine was closed.
        """
        return self._frames.wait_settled(self._frames.mark(), timeout_s)

    @property
    def status(self) -> MemoryStatus:
        """The newest memory."""
        return self._board.status

    @property
    def statistics(self) -> StreamStatistics:
        """All counters, those of frames and those of questions each taken at one moment."""
        frames, questions = self._frames.counters, self._questions.counters
        return StreamStatistics(
            **vars(frames),
            **vars(questions),
            ingest_s=self._ingest.last_batch_s,
            ingest_error=self._ingest.last_error,
            static_frames=self._ingest.static_frames,
            prefills=self._answers.prefills,
            prefill_s=self._answers.last_prefill_s,
        )
