import threading
from typing import Any

import pytest
from engines import MakeEngine, assert_adds_up, failure, feed
from fakes import PATIENCE_S, SECOND_NS, FakeModel, frame

from fvs_ros.sources.frame import Frame, ImageError
from fvs_ros.stream.config import StreamConfig
from fvs_ros.stream.engine import StreamEngine
from fvs_ros.stream.types import ErrorCode, MemoryStatus, StreamStatistics


def test_an_engine_that_does_not_run_says_so(model: FakeModel) -> None:
    engine = StreamEngine(model, StreamConfig())
    assert failure(engine.ask("What?")).code == ErrorCode.NOT_ACTIVE
    with engine:
        engine.start()
        feed(engine, frame(1))
    engine.close()
    assert failure(engine.ask("What?")).code == ErrorCode.NOT_ACTIVE
    assert not engine.submit(frame(2))
    assert not engine.flush(PATIENCE_S)
    with pytest.raises(RuntimeError, match="make a new one"):
        engine.start()


def test_closing_cancels_all_questions_and_ends_both_threads(engine: StreamEngine, model: FakeModel) -> None:
    feed(engine, frame(1), frame(2))
    before = set(threading.enumerate())
    model.answering.shut()
    pending = [engine.ask("What?")]
    model.answering.wait_reached()
    pending.append(engine.ask("What?"))
    pending[0].add_done_callback(lambda _: model.answering.open())
    engine.close()
    assert {failure(one).code for one in pending} == {ErrorCode.CANCELLED}
    ended = {thread.name for thread in before if not thread.is_alive()}
    assert ended >= {"fvs-ingest", "fvs-answer"}


def test_closing_in_mid_batch_discards_what_was_not_in_memory(engine: StreamEngine, model: FakeModel) -> None:
    model.encoding.shut()
    engine.submit(frame(1))
    model.encoding.wait_reached()
    engine.submit(frame(2))
    closing = threading.Thread(target=engine.close)
    closing.start()
    assert not engine.flush(PATIENCE_S), "ends when the engine is closed"
    model.encoding.open()
    closing.join(PATIENCE_S)
    assert not closing.is_alive()
    assert (engine.statistics.discarded, engine.statistics.ingested, engine.status.steps) == (2, 0, 0)


def test_closing_gives_up_a_model_call_that_goes_on(engine: StreamEngine, model: FakeModel) -> None:
    model.encoding.shut()
    engine.submit(frame(1))
    model.encoding.wait_reached()
    tries = iter([False, False, True])
    assert not engine.close(lambda: next(tries))
    assert list(tries) == [], "the call was waited for"
    # What the call brings is not used, and nobody is in the way of ending later.
    model.encoding.open()
    assert engine.close()
    assert (engine.statistics.ingested, engine.status.steps) == (0, 0)


def test_the_engine_can_be_closed_from_its_own_callback(make_engine: MakeEngine) -> None:
    closed = threading.Event()

    def close(status: MemoryStatus) -> None:
        engine.close()
        closed.set()

    engine = make_engine(close)
    engine.submit(frame(1))
    assert closed.wait(PATIENCE_S)


def test_counters_add_up_at_any_time_under_load(make_engine: MakeEngine) -> None:
    engine = make_engine(frame_queue=4, fps=10.0)
    stop = threading.Event()
    broken: list[StreamStatistics] = []

    def watch() -> None:
        while not stop.is_set():
            try:
                assert_adds_up(engine.statistics)
            except AssertionError:
                broken.append(engine.statistics)

    def bad_image() -> Any:
        raise ImageError("bad", "bad")

    watcher = threading.Thread(target=watch)
    watcher.start()
    for index in range(600):
        stamp_ns = (index - 250 * (index // 300)) * SECOND_NS // 20
        engine.submit(Frame(stamp_ns, bad_image) if index % 7 == 0 else frame(stamp_ns / SECOND_NS, value=index % 256))
        if index % 97 == 0:
            engine.reset()
    assert engine.flush(PATIENCE_S)
    stop.set()
    watcher.join()
    assert broken == []
    assert engine.statistics.received == 600
