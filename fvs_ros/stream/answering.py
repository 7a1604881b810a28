"""Answers waiting questions, several at a time, from the newest memory whose prefill is complete."""

from __future__ import annotations

import logging
import time
from concurrent.futures import Future
from dataclasses import replace

from fvs_ros.stream.config import StreamConfig
from fvs_ros.stream.device_memory import free_device_memory, is_out_of_memory
from fvs_ros.stream.excerpts import ExcerptPrefill
from fvs_ros.stream.history import wordings
from fvs_ros.stream.json_schema import not_followed
from fvs_ros.stream.latest_memory import LatestMemory, PublishedMemory
from fvs_ros.stream.log import quotes, traceback_without
from fvs_ros.stream.model_protocol import StreamGeneration, StreamModel
from fvs_ros.stream.outcomes import done
from fvs_ros.stream.prefill import PrefillScheduler, ReadyMemory
from fvs_ros.stream.questions import AcceptedQuestion, QuestionQueue
from fvs_ros.stream.recall import QuestionRecall
from fvs_ros.stream.running_answer import RunningAnswer
from fvs_ros.stream.scene_pictures import ScenePictures
from fvs_ros.stream.types import Answer, AskError, ErrorCode
from fvs_ros.stream.watchdog import ModelCalls, Replaced
from fvs_ros.stream.watches import WatchRegister
from fvs_ros.stream.watching import Watching

logger = logging.getLogger(__name__)

# Longest time between two looks at whether what a question recalls takes too long.
RECALL_LOOK_S = 0.25


class AnswerWorker:
    """Answers up to `parallel_questions` at a time, and prefills the newest memory in between.

    A question is answered from the newest memory whose prefill is complete, whatever is published meanwhile; a fresh
    one from the newest that was published once its frames were accounted for. Questions come before prefill: a new one
    waits for at most the chunk of a memory, or the token of other answers, that is being computed. What a question
    recalls is found elsewhere meanwhile; where it recalls nothing, it is answered from the newest memory, too. What is
    watched comes last.

    Args:
        model: gives the answers.
        config: `parallel_questions` and `prefill_share`.
        questions: the queue of questions.
        latest: the newest memory.
        watches: what is watched.
        recall: finds what questions recall; None where they recall nothing.
        pictures: of moments; None where none are kept.

    Attributes:
        prefill: which memory is prefilled when.
        calls: of the model.
        out_of_memory: the last time that the device's memory did not suffice for questions; empty before that.
    """

    def __init__(
        self,
        model: StreamModel,
        config: StreamConfig,
        questions: QuestionQueue,
        latest: LatestMemory,
        watches: WatchRegister,
        recall: QuestionRecall | None = None,
        pictures: ScenePictures | None = None,
    ) -> None:
        self._model = model
        self._config = config
        # Lowered where the device's memory does not suffice.
        self._parallel_questions = config.parallel_questions
        self._questions = questions
        self._latest = latest
        self._watches = watches
        self._recall = recall
        self._pictures = pictures
        self.calls = ModelCalls()
        self.prefill = PrefillScheduler(model, latest, config.prefill_share, self.calls)
        self._excerpts = ExcerptPrefill(model, self.calls)
        self._watching = Watching(config, watches, latest, self.prefill, self.calls, pictures)
        self.out_of_memory = ""
        # The question that the model is reading.
        self._starting: AcceptedQuestion | None = None
        # Taken from the queue and not started.
        self._waiting: list[AcceptedQuestion] = []
        self._running: list[RunningAnswer] = []

    def run(self) -> None:
        """Runs until the queue is closed."""
        try:
            while (questions := self._questions.take(self._room(), self._has_work, self._pause_s())) is not None:
                for question in questions:
                    self._admit(question)
                self._end_settled()
                self.prefill.release_unused()
                self._take_recalled()
                self._start_waiting()
                self._start_about_excerpts()
                self._decode_step()
                self._excerpts.release_unused()
                self._prefill_chunk()
                self._watching.advance(answering=self._busy)
        except Exception as error:
            self._fail([running.question for running in self._running], error)
            raise
        finally:
            for running in list(self._running):
                self._end(running)
            self._watching.close()
            self._excerpts.close()
            self.prefill.close()

    def successor(self, reason: str) -> AnswerWorker:
        """The worker that takes over from this one, whose thread hangs in a model call or has ended.

        Questions being answered fail, those that wait for their memory wait on. The new worker has a prefix cache of
        its own; the old one is freed when the hung call returns.
        """
        other = AnswerWorker(
            self._model, self._config, self._questions, self._latest, self._watches, self._recall, self._pictures
        )
        other._parallel_questions = self._parallel_questions
        other._waiting = list(self._waiting)
        other.out_of_memory = self.out_of_memory
        other.prefill.out_of_memory = self.prefill.out_of_memory
        other.prefill.prefills = self.prefill.prefills
        other.prefill.last_prefill_s = self.prefill.last_prefill_s
        other._watching.take_over(self._watching)
        failed = [running.question for running in list(self._running)]
        if self._starting is not None:
            failed.append(self._starting)
        for question in failed:
            question.pending.settle(AskError(ErrorCode.MODEL_ERROR, f"{reason}; the question is given up, ask again"))
        return other

    def _room(self) -> int:
        return self._parallel_questions - len(self._waiting) - len(self._running)

    @property
    def _busy(self) -> bool:
        """Whether questions wait or are answered."""
        return bool(self._running or self._waiting)

    def _pause_s(self) -> float | None:
        if self._running or any(question.recalled is None for question in self._waiting):
            return 0.0
        # What a question recalls is found by another thread, which this one must not keep from Python by looking at it.
        pauses_s = [self.prefill.pause_s(answering=self._busy), self._watching.pause_s(answering=self._busy)]
        if self._waiting:
            pauses_s.append(RECALL_LOOK_S)
        return min((pause_s for pause_s in pauses_s if pause_s is not None), default=None)

    def _has_work(self) -> bool:
        found = any(question.recalled is not None and question.recalled.done() for question in self._waiting)
        return found or self.prefill.is_due(answering=self._busy) or self._watching.is_due(answering=self._busy)

    def _admit(self, question: AcceptedQuestion) -> None:
        newest = self._latest.current
        if question.recalls and newest is not None and self._recall is not None and self._recall.due:
            about = wordings(question.text, question.turns)
            question.recalled = self._recall.begin(about, newest, question.pending.settled)
            question.recalled.add_done_callback(lambda _: self._questions.look_again())
        elif question.memory is None:
            self._ask_newest(question)
        self._waiting.append(question)

    def _ask_newest(self, question: AcceptedQuestion) -> None:
        """Has a question answered from the newest memory, or from one that is prefilled already where that may be."""
        question.memory = question.recalled = None
        newest = self._latest.current
        if newest is not None and (question.fresh or self.prefill.on_demand):
            question.needed_version = newest.status.version

    def _take_recalled(self) -> None:
        """Gives questions the memories of what they recalled."""
        for question in self._waiting:
            if question.recalled is None:
                continue
            if question.recalled.done() and (memory := question.recalled.result()) is not None:
                question.memory, question.recalled = done(memory), None
            elif question.recalled.done() or time.perf_counter() > question.recall_deadline:
                self._ask_newest(question)

    def _end_settled(self) -> None:
        """Drops the questions that were cancelled or timed out."""
        for question in [question for question in self._waiting if question.pending.settled()]:
            self._waiting.remove(question)
            if question.memory is not None and question.memory.exception() is None:
                self._excerpts.give_up(question.memory.result())
        for running in [running for running in self._running if running.question.pending.settled()]:
            self._end(running)

    def _start_waiting(self) -> None:
        """Starts the questions that the current memory serves; fails all if there is no memory."""
        memory = self.prefill.current
        for question in self._about_newest():
            if len(self._running) >= self._parallel_questions:
                return
            if self._latest.current is None:
                self._waiting.remove(question)
                question.pending.settle(
                    AskError(
                        ErrorCode.NO_FRAMES,
                        "no frame is in memory yet; check that the camera publishes, or ask again in a moment",
                    )
                )
            elif memory is not None and memory.status.version >= question.needed_version:
                self._start(question, memory)

    def _about_newest(self) -> list[AcceptedQuestion]:
        return [question for question in self._waiting if question.memory is None and question.recalled is None]

    def _start_about_excerpts(self) -> None:
        """Starts the questions with a memory of their own that is prefilled, and prefills that of the next."""
        for question in [question for question in self._waiting if question.memory is not None]:
            if len(self._running) >= self._parallel_questions:
                return
            assert question.memory is not None
            error = question.memory.exception()
            try:
                if error is not None:
                    raise error
                memory = question.memory.result()
                ready = self._excerpts.ready(memory)
                # After the chunk, during which something may be forgotten; what is ready by then is freed unused.
                if self._is_outdated(memory):
                    self._excerpts.give_up(memory)
                    if question.recalls:
                        self._ask_newest(question)
                        continue
                    raise AskError(
                        ErrorCode.CANCELLED, "something stored was forgotten while the question waited; ask again"
                    )
            except AskError as refusal:
                self._waiting.remove(question)
                question.pending.settle(refusal)
            except Exception as failure:
                if not self._goes_without_recall(question, failure):
                    self._waiting.remove(question)
                    self._fail([question], failure)
            else:
                if ready is not None:
                    self._start(question, ready)

    def _is_outdated(self, memory: PublishedMemory) -> bool:
        """Whether something was forgotten since it was made; what was recalled also ends with its episode."""
        ended = bool(memory.recalled) and memory.status.episode != self._latest.status.episode
        return ended or memory.forgettings != self._latest.forgettings

    def _goes_without_recall(self, question: AcceptedQuestion, error: Exception) -> bool:
        """Whether a question is answered from the newest memory, as there is no room for what it recalled."""
        if not (question.recalls and is_out_of_memory(error)):
            return False
        self._excerpts.shrink()
        free_device_memory()
        self.out_of_memory = (
            f"the device's memory did not suffice for what a question recalled ({error}), which is answered from the "
            "Flash Memory; set recall_segments to 0, or lower max_pixels"
        )
        logger.warning("%s", self.out_of_memory)
        self._ask_newest(question)
        return True

    def _start(self, question: AcceptedQuestion, memory: ReadyMemory) -> None:
        self._starting = question
        self._waiting.remove(question)
        question.started = True
        answer: StreamGeneration | None = None
        try:
            with self.calls.call("question"):
                answer = question.start(memory.prefilled)
        except Replaced:
            if answer is not None:
                answer.close()
            raise
        except Exception as error:
            if self._retries_smaller(len(self._running), error):
                question.started = False
                self._waiting.insert(0, question)
            else:
                self._fail([question], error)
            return
        finally:
            self._starting = None
        memory.answers += 1
        running = RunningAnswer(question, memory, answer)
        self._running.append(running)
        self._emit(running)

    def _retries_smaller(self, questions: int, error: Exception) -> bool:
        """Whether a call that failed for want of memory may succeed with this many questions at once, at least one."""
        if not is_out_of_memory(error):
            return False
        free_device_memory()
        self.out_of_memory = (
            f"the device's memory did not suffice for {questions + 1} questions at once ({error}); lower "
            "parallel_questions, max_new_tokens_limit or question_characters"
        )
        if questions < 1:
            return False
        self._parallel_questions = questions
        logger.warning("%s; going on with %d", self.out_of_memory, questions)
        return True

    def _decode_step(self) -> None:
        """Decodes the next token of every running answer."""
        for memory in {id(running.memory): running.memory for running in self._running}.values():
            answering = [running for running in self._running if running.memory is memory]
            try:
                with self.calls.call("decode_step"):
                    memory.prefilled.decode_step()
            except Exception as error:
                # Those that came first go on where fewer may fit; the last gives way.
                failed = answering[-1:] if self._retries_smaller(len(answering) - 1, error) else answering
                for running in failed:
                    self._end(running)
                self._fail([running.question for running in failed], error)
                continue
            for running in answering:
                self._emit(running)

    def _prefill_chunk(self) -> None:
        about_newest = self._about_newest()
        needed_version = max((question.needed_version for question in about_newest), default=None)
        try:
            self.prefill.advance(needed_version, answering=self._busy)
        except Exception as error:
            self._waiting = [question for question in self._waiting if question not in about_newest]
            if about_newest:
                self._fail(about_newest, error)

    def _emit(self, running: RunningAnswer) -> None:
        """Emits the new text of an answer, and ends a complete one. A settled question emits nothing more."""
        question, text = running.question, running.answer.text
        chunk = text[running.emitted :]
        if chunk and not question.pending.settled():
            running.emitted = len(text)
            if running.first_token_s is None:
                running.first_token_s = time.perf_counter() - question.asked
            question.chunks += 1
            if question.on_token is not None:
                try:
                    question.on_token(chunk)
                except Exception:
                    logger.exception("the callback on_token failed; it is not called again for this answer")
                    question.on_token = None
        if running.answer.done:
            self._end(running)
            if running.answer.problem:
                question.pending.settle(not_followed(running.answer.problem))
            else:
                self._settle(question, running.complete(self._model.name, self._config.moments_limit))

    def _settle(self, question: AcceptedQuestion, answer: Answer) -> None:
        """Ends a question with its answer, at once or when its pictures are there."""
        if not question.with_images or self._pictures is None:
            question.pending.settle(answer)
            return

        def settle(pictured: Future[Answer]) -> None:
            question.pending.settle(replace(pictured.result(), total_s=time.perf_counter() - question.asked))

        question.answer = answer
        self._pictures.add(answer).add_done_callback(settle)

    def _end(self, running: RunningAnswer) -> None:
        running.answer.close()
        running.memory.answers -= 1
        self._running.remove(running)

    def _fail(self, questions: list[AcceptedQuestion], error: Exception) -> None:
        texts = [text for question in questions for text in question.texts]
        logger.error("the model failed on a question\n%s", traceback_without(error, texts))
        logger.debug("the same in full", exc_info=error)
        for question in questions:
            # Answered together, they may be of different people.
            said = "" if quotes(str(error), set(texts) - set(question.texts)) else f": {error}"
            question.pending.settle(
                AskError(
                    ErrorCode.MODEL_ERROR,
                    f"the model failed with {type(error).__name__}{said}; the log has the details",
                )
            )
