"""A model whose calls hang, or run out of the device's memory, over the engine's public doors."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from engines import MakeEngine, failure, feed, result
from episode_engines import running, scenes, wait_until
from fakes import GRID, PATIENCE_S, FakeGeneration, FakeModel, FakePrefilledMemory, frame

from fvs_ros.memory.streaming import StreamingFlashMemory
from fvs_ros.sources.frame import SECOND_NS
from fvs_ros.stream.recording import RecordingError
from fvs_ros.stream.types import AskOptions, ErrorCode

HUNG_S = 0.2


@pytest.fixture(autouse=True, scope="module")
def compiled() -> None:
    """Compiles the reduction, which the first memory of a process otherwise does, for longer than `HUNG_S`."""
    FakeModel().new_memory(GRID)


class HangsOnce:
    """Makes the next call of a method hang until it is let go; those after it work."""

    def __init__(self, patch: pytest.MonkeyPatch, owner: Any, name: str) -> None:
        self.reached = threading.Event()
        self.returned = threading.Event()
        self._let_go = threading.Event()
        self._original: Callable[..., Any] = getattr(owner, name)
        patch.setattr(owner, name, lambda *arguments, **named: self._call(*arguments, **named))

    def _call(self, *arguments: Any, **named: Any) -> Any:
        if self.reached.is_set():
            return self._original(*arguments, **named)
        self.reached.set()
        assert self._let_go.wait(PATIENCE_S)
        try:
            return self._original(*arguments, **named)
        finally:
            self.returned.set()

    def let_go(self) -> None:
        """Lets the call return, which is of use to nobody any more."""
        self._let_go.set()
        assert self.returned.wait(PATIENCE_S)


@pytest.fixture
def hangs_once(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Any, str], HangsOnce]]:
    hanging: list[HangsOnce] = []

    def make(owner: Any, name: str) -> HangsOnce:
        hanging.append(HangsOnce(monkeypatch, owner, name))
        return hanging[-1]

    yield make
    for one in hanging:
        one._let_go.set()


def wait_for(condition: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.005)


def test_an_encoding_that_hangs_is_given_up_and_the_memory_goes_on(
    make_engine: MakeEngine,
    model: FakeModel,
    hangs_once: Callable[[Any, str], HangsOnce],
    caplog: pytest.LogCaptureFixture,
) -> None:
    engine = make_engine(model_timeout_s=HUNG_S)
    feed(engine, frame(1), frame(2))
    hang = hangs_once(model, "encode_steps")
    engine.submit(frame(3))
    assert engine.flush(PATIENCE_S), "its frame is accounted for"
    assert engine.statistics.rejected == {"model_error": 1}
    assert "encode_steps has not returned since" in engine.faults.ingest
    assert "a new worker has taken over" in engine.faults.ingest
    assert "encode_steps has not returned since" in engine.statistics.ingest_error
    feed(engine, frame(5), frame(6))
    assert result(engine.ask("What?")).text == "2 steps: 1.5 5.5", "the memory before it is kept, in the same episode"
    hang.let_go()
    wait_for(lambda: not engine.faults.ingest, "the old thread to end")
    assert "encode_steps" in engine.faults.last
    feed(engine, frame(7), frame(8))
    assert result(engine.ask("What?")).text == "3 steps: 1.5 5.5 7.5", "what it brought is discarded"
    assert "its result is discarded" in caplog.text


def test_a_memory_update_that_hangs_begins_a_new_episode_and_keeps_the_published_memory(
    make_engine: MakeEngine, hangs_once: Callable[[Any, str], HangsOnce]
) -> None:
    engine = make_engine(model_timeout_s=HUNG_S)
    feed(engine, frame(1), frame(2))
    hang = hangs_once(StreamingFlashMemory, "append")
    engine.submit(frame(3))
    engine.submit(frame(4))
    wait_for(lambda: "memory update" in engine.faults.ingest, "the watchdog")
    assert result(engine.ask("What?")).text == "1 steps: 1.5", "what was published can be asked"
    feed(engine, frame(5), frame(6))
    assert result(engine.ask("What?")).text == "1 steps: 5.5", "what was half written is not"
    hang.let_go()


@pytest.mark.parametrize(("method", "call"), [("start", "question"), ("decode_step", "decode_step")])
def test_a_question_that_hangs_is_refused_and_the_next_answered(
    make_engine: MakeEngine, hangs_once: Callable[[Any, str], HangsOnce], method: str, call: str
) -> None:
    engine = make_engine(model_timeout_s=HUNG_S)
    feed(engine, frame(1), frame(2))
    hang = hangs_once(FakePrefilledMemory, method)
    error = failure(engine.ask("What?"))
    assert error.code == ErrorCode.MODEL_ERROR
    assert f"the model's {call} has not returned since" in str(error)
    assert call in engine.faults.answers
    assert result(engine.ask("And now?")).text == "1 steps: 1.5"
    hang.let_go()
    wait_for(lambda: not engine.faults.answers, "the old thread to end")
    assert result(engine.ask("And now?")).text == "1 steps: 1.5"
    assert engine.statistics.failed == {"MODEL_ERROR": 1}


def test_a_prefill_that_hangs_costs_no_question(
    make_engine: MakeEngine, hangs_once: Callable[[Any, str], HangsOnce]
) -> None:
    engine = make_engine(model_timeout_s=HUNG_S)
    feed(engine, frame(1), frame(2))
    hang = hangs_once(FakePrefilledMemory, "prefill_chunk")
    assert result(engine.ask("What?")).text == "1 steps: 1.5"
    assert "prefill_chunk has not returned" in engine.faults.answers
    hang.let_go()
    wait_for(lambda: not engine.faults.answers, "the old thread to end")


def test_after_three_calls_that_hang_no_more_threads_are_left_behind(make_engine: MakeEngine, model: FakeModel) -> None:
    engine = make_engine(model_timeout_s=HUNG_S)
    model.encoding.shut()
    for second in range(8):
        engine.submit(frame(second))
        if second < 3:
            assert engine.flush(PATIENCE_S)
    wait_for(lambda: "restart the node" in engine.faults.ingest, "the last replacement")
    assert sum(thread.name == "fvs-ingest" for thread in threading.enumerate()) == 4
    assert failure(engine.ask("What?")).code == ErrorCode.NO_FRAMES, "questions are told all the same"
    assert failure(engine.ask("What?", AskOptions(fresh=True, timeout_s=0.1))).code == ErrorCode.TIMEOUT


def test_an_engine_whose_model_hangs_can_be_closed(
    make_engine: MakeEngine, hangs_once: Callable[[Any, str], HangsOnce], model: FakeModel
) -> None:
    engine = make_engine(model_timeout_s=HUNG_S)
    hang = hangs_once(model, "encode_steps")
    engine.submit(frame(1))
    assert hang.reached.wait(PATIENCE_S)
    engine.close()
    assert not hang.returned.is_set()


def test_a_range_whose_pictures_hang_fails_that_question_alone_and_what_waits_behind_it_is_done(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = FakeModel()
    with running(None, model, model_timeout_s=HUNG_S) as (engine, _):
        scenes(engine)
        hangs = HangsOnce(monkeypatch, model, "encode_steps")
        hung = engine.ask("What?", AskOptions(since_ns=0, until_ns=5 * SECOND_NS))
        assert hangs.reached.wait(PATIENCE_S)
        behind = engine.ask("What?", AskOptions(since_ns=6 * SECOND_NS, until_ns=11 * SECOND_NS))
        assert result(behind).steps == 3
        assert "encode_steps" in engine.faults.ingest
        error = failure(hung)
        assert error.code is ErrorCode.MODEL_ERROR
        assert "encode_steps has not returned" in str(error)
        hangs.let_go()
        wait_until(lambda: not engine.faults.ingest)
        assert result(engine.ask("What?")).steps == 9
        assert engine.faults.answers == ""
        assert engine.save_memory(PATIENCE_S)


def test_a_forgetting_whose_rebuilding_hangs_says_so_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was asked for is gone all the same, and other commands are not held up."""
    model = FakeModel()
    with running(None, model, model_timeout_s=HUNG_S) as (engine, store):
        scenes(engine)
        hangs = HangsOnce(monkeypatch, model, "encode_steps")
        with pytest.raises(RecordingError, match="encode_steps has not returned"):
            engine.forget(0, 5 * SECOND_NS, None, PATIENCE_S)
        assert not hangs.returned.is_set()
        assert [stored.segment.start_ns for stored in store.segments()] == [6 * SECOND_NS, 12 * SECOND_NS]
        assert "episode 1" in engine.load_memory(1, PATIENCE_S)
        assert engine.status.steps == 6
        hangs.let_go()
        wait_until(lambda: not engine.faults.ingest)
        scenes(engine, 50, (7,))
        assert engine.status.steps == 9


def test_a_worker_that_an_error_ended_is_replaced(
    make_engine: MakeEngine, model: FakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make_engine(model_timeout_s=HUNG_S)
    feed(engine, frame(1), frame(2))
    original = FakeGeneration.close
    closed: list[FakeGeneration] = []

    def fails_once(answer: FakeGeneration) -> None:
        closed.append(answer)
        if len(closed) == 1:
            raise RuntimeError("the row is gone")
        original(answer)

    monkeypatch.setattr(FakeGeneration, "close", fails_once)
    error = failure(engine.ask("What?"))
    assert error.code == ErrorCode.MODEL_ERROR
    assert "RuntimeError: the row is gone" in str(error)
    assert result(engine.ask("What?")).text == "1 steps: 1.5"
    assert "the row is gone" in engine.faults.last


class TooSmall:
    """Makes a method run out of memory while `most` is exceeded by the size of its call."""

    def __init__(self, patch: pytest.MonkeyPatch, owner: Any, name: str, size: Callable[..., int], most: int) -> None:
        original = getattr(owner, name)

        def limited(*arguments: Any, **options: Any) -> Any:
            if size(*arguments) > most:
                raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
            return original(*arguments, **options)

        patch.setattr(owner, name, limited)


@pytest.mark.parametrize("most", [2, 4])
def test_frames_that_do_not_fit_together_are_encoded_in_halves(
    make_engine: MakeEngine, model: FakeModel, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    TooSmall(monkeypatch, model, "encode_steps", lambda frames, grid: len(frames), most)
    engine = make_engine()
    with engine.hold():
        for second in range(1, 9):
            engine.submit(frame(second))
    assert engine.flush(PATIENCE_S)
    assert [len(call) for call in model.encoded] == [most] * (8 // most)
    assert result(engine.ask("What?")).text == "4 steps: 1.5 3.5 5.5 7.5"
    assert (engine.statistics.ingested, engine.statistics.rejected) == (8, {})
    assert "lower batch_steps" in engine.faults.out_of_memory


def test_a_single_step_that_does_not_fit_is_rejected_and_says_so(
    make_engine: MakeEngine, model: FakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make_engine()
    with monkeypatch.context() as patch:
        TooSmall(patch, model, "encode_steps", lambda frames, grid: len(frames), 0)
        feed(engine, frame(1))
    assert engine.statistics.rejected == {"model_error": 1}
    assert "OutOfMemoryError" in engine.statistics.ingest_error
    assert "to encode 1 steps" in engine.faults.out_of_memory
    feed(engine, frame(2), frame(3))
    assert result(engine.ask("What?")).text == "1 steps: 2.5"


def test_a_question_that_does_not_fit_beside_others_waits_for_their_end(
    make_engine: MakeEngine, model: FakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make_engine()
    feed(engine, *[frame(second) for second in range(1, 9)])

    def running(memory: FakePrefilledMemory, *arguments: Any) -> int:
        return sum(not (answer.done or answer.closed) for answer in memory.answers)

    TooSmall(monkeypatch, FakePrefilledMemory, "start", running, 0)
    model.answering.shut()
    first = engine.ask("First?")
    model.answering.wait_reached()
    others = [engine.ask("Next?") for _ in range(3)]
    model.answering.open()
    assert [result(pending).steps for pending in [first, *others]] == [4] * 4
    assert max(number for kind, number in model.work if kind == "answer") == 1
    assert "for 2 questions at once" in engine.faults.out_of_memory


def test_of_answers_that_do_not_fit_together_the_last_gives_way(
    make_engine: MakeEngine, model: FakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make_engine()
    feed(engine, *[frame(second) for second in range(1, 9)])

    def running(memory: FakePrefilledMemory) -> int:
        return sum(not (answer.done or answer.closed) for answer in memory.answers)

    TooSmall(monkeypatch, FakePrefilledMemory, "decode_step", running, 1)
    model.prefilling.shut()
    pending = [engine.ask("First?")]
    model.prefilling.wait_reached()
    pending += [engine.ask("Second?") for _ in range(2)]
    model.prefilling.open()
    assert result(pending[0]).steps == 4
    errors = [failure(one) for one in pending[1:]]
    assert {error.code for error in errors} == {ErrorCode.MODEL_ERROR}
    assert "out of memory" in str(errors[0])
    assert result(engine.ask("And now?")).steps == 4


def test_a_memory_that_does_not_fit_beside_the_one_before_is_prefilled_alone(
    make_engine: MakeEngine, model: FakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make_engine()
    feed(engine, frame(1), frame(2))
    assert result(engine.ask("What?")).steps == 1
    TooSmall(monkeypatch, FakePrefilledMemory, "prefill_chunk", lambda memory: len(memory.cache.open), 1)
    feed(engine, frame(3), frame(4))
    assert result(engine.ask("What?")).text == "2 steps: 1.5 3.5"
    assert "to prefill a memory" in engine.faults.out_of_memory
    assert len(model.caches) == 2, "all buffers were freed before"


def test_the_host_running_out_of_memory_is_recognised_too(
    make_engine: MakeEngine, model: FakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = model.encode_steps
    sizes: list[int] = []

    def limited(frames: list[np.ndarray], grid: Any) -> Any:
        sizes.append(len(frames))
        if len(frames) > 2:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 9 bytes")
        return original(frames, grid)

    monkeypatch.setattr(model, "encode_steps", limited)
    engine = make_engine()
    with engine.hold():
        for second in range(1, 5):
            engine.submit(frame(second))
    assert engine.flush(PATIENCE_S)
    assert sizes == [4, 2, 2]
    assert engine.statistics.ingested == 4
