import gc
import threading
import weakref
from typing import Any, cast

import numpy as np
import pytest
from engines import MakeEngine, assert_adds_up, failure, feed, result
from fakes import PATIENCE_S, SECOND_NS, FakeModel, frame

from fvs_ros.memory.snapshot import PatchGrid
from fvs_ros.memory.streaming import StreamingFlashMemory
from fvs_ros.sources.frame import Frame, ImageError
from fvs_ros.stream.engine import StreamEngine
from fvs_ros.stream.types import AskOptions, ErrorCode, MemoryStatus


def test_two_frames_make_a_step_and_a_single_newest_one_a_provisional_step(
    engine: StreamEngine, model: FakeModel
) -> None:
    feed(engine, frame(1))
    assert engine.status.steps == 1
    feed(engine, frame(2))
    assert engine.status.steps == 1
    feed(engine, frame(3))
    assert engine.status.steps == 2
    assert model.encoded == [[1, 1], [1, 2], [3, 3]]
    assert result(engine.ask("What?")).text == "2 steps: 1.5 3", "the provisional step left no trace"


def test_memory_does_not_depend_on_how_frames_were_batched(make_engine: MakeEngine, model: FakeModel) -> None:
    one_by_one, behind = make_engine(frame_queue=32), make_engine(frame_queue=32, batch_steps=3)
    frames = [frame(second) for second in range(1, 24)]
    feed(one_by_one, *frames)
    model.encoding.shut()
    behind.submit(frames[0])
    model.encoding.wait_reached()
    model.encoded.clear()
    for one in frames[1:]:
        behind.submit(one)
    model.encoding.open()
    assert behind.flush(PATIENCE_S)
    assert [len(batch) for batch in model.encoded] == [6, 6, 6, 6], "never more than batch_steps steps at once"
    first, second = result(one_by_one.ask("What?")), result(behind.ask("What?"))
    assert (first.text, first.moments) == (second.text, second.moments)


def test_frames_are_kept_at_the_rate_and_others_are_never_decoded(make_engine: MakeEngine) -> None:
    engine = make_engine(fps=1.0, frame_queue=200)
    decoded: list[int] = []

    def camera_frame(index: int) -> Frame:
        original = frame(index / 30)

        def image() -> np.ndarray:
            decoded.append(index)
            return original.image()

        return Frame(original.stamp_ns, image)

    kept = [engine.submit(camera_frame(index)) for index in range(300)]
    assert engine.flush(PATIENCE_S)
    assert decoded == [index for index in range(300) if kept[index]]
    assert len(decoded) == 11
    assert (engine.statistics.received, engine.statistics.skipped) == (300, 289)


def test_when_the_model_is_too_slow_the_newest_frames_win(make_engine: MakeEngine, model: FakeModel) -> None:
    engine = make_engine(frame_queue=4)
    model.encoding.shut()
    engine.submit(frame(0))
    model.encoding.wait_reached()
    for second in range(1, 11):
        assert engine.submit(frame(second))
    assert (engine.statistics.dropped, engine.statistics.waiting) == (6, 5)
    model.encoding.open()
    assert engine.flush(PATIENCE_S)
    assert model.encoded == [[0, 0], [0, 7, 8, 9, 10, 10]]
    assert_adds_up(engine.statistics)


def test_the_status_says_what_is_in_memory(make_engine: MakeEngine) -> None:
    reported: list[MemoryStatus] = []
    engine = make_engine(reported.append)
    feed(engine, *[frame(second, frame_id="camera") for second in range(10, 33)])
    engine.close()
    status = engine.status
    assert reported[-1] == status
    assert [one.version for one in reported] == sorted({one.version for one in reported})
    assert (status.steps, status.csm_slots, status.dam_slots) == (12, 8, 4)
    assert (status.start_ns, status.end_ns, status.frame_id) == (10 * SECOND_NS, 32 * SECOND_NS, "camera")
    assert status.bytes > 0


def test_an_image_that_cannot_be_decoded_is_counted_by_reason_and_the_stream_goes_on(
    engine: StreamEngine, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(error: Exception) -> Frame:
        def image() -> Any:
            raise error

        return Frame(next(stamps), image)

    stamps = iter(range(1, 100))
    feed(engine, fails(ImageError("unknown_encoding", "the encoding is 'x'")))
    feed(engine, fails(ImageError("unknown_encoding", "the encoding is 'x'")), fails(KeyError("step")))
    feed(engine, Frame(next(stamps), lambda: frame(1).image()[..., 0]))
    feed(engine, Frame(next(stamps), lambda: cast(Any, None)))
    assert engine.statistics.rejected == {"unknown_encoding": 2, "decode_error": 3}
    assert caplog.text.count("the encoding is 'x'") == 1, "repeated messages are held back"
    assert "KeyError" in caplog.text
    feed(engine, Frame(next(stamps), frame(7).image))
    assert result(engine.ask("What?")).text == "1 steps: 7"


def test_a_failing_model_loses_the_batch_and_the_stream_goes_on(
    engine: StreamEngine, model: FakeModel, caplog: pytest.LogCaptureFixture
) -> None:
    feed(engine, frame(1), frame(2), frame(3))
    model.encode_error = RuntimeError("out of memory")
    feed(engine, frame(4))
    assert engine.statistics.rejected == {"model_error": 1}
    assert engine.statistics.ingest_error == "RuntimeError: out of memory"
    assert "Traceback" in caplog.text
    assert engine.status.end_ns == 3 * SECOND_NS, "the last good memory stays"
    model.encode_error = None
    feed(engine, frame(5), frame(6))
    assert model.encoded[-2:] == [[5, 5], [5, 6]], "the frame whose partner failed is not tried again"
    assert result(engine.ask("What?")).text == "2 steps: 1.5 5.5"


def test_frames_of_another_size_join_the_episode(engine: StreamEngine) -> None:
    feed(engine, frame(1, size=(8, 8)), frame(2, size=(6, 12)))
    assert result(engine.ask("What?")).text == "1 steps: 1.5"


# Episodes


def test_a_stamp_far_behind_begins_a_new_memory(engine: StreamEngine) -> None:
    feed(engine, frame(100), frame(101), frame(102))
    feed(engine, frame(5), frame(6))
    answer = result(engine.ask("What?"))
    assert answer.text == "1 steps: 5.5"
    assert (answer.start_ns, answer.end_ns) == (5 * SECOND_NS, 6 * SECOND_NS)
    assert (engine.status.episode, engine.statistics.episodes) == (1, 1)


def test_the_memory_before_a_clock_was_set_answers_until_there_is_a_new_one(
    engine: StreamEngine, model: FakeModel
) -> None:
    feed(engine, frame(100), frame(101))
    model.encoding.shut()
    engine.submit(frame(5))
    model.encoding.wait_reached()
    assert result(engine.ask("What?")).text == "1 steps: 100.5"
    model.encoding.open()
    assert engine.flush(PATIENCE_S)
    assert result(engine.ask("What?")).text == "1 steps: 5"


def test_reset_forgets_at_once_and_versions_go_on(make_engine: MakeEngine) -> None:
    reported: list[MemoryStatus] = []
    empty_reported = threading.Event()

    def on_memory(status: MemoryStatus) -> None:
        reported.append(status)
        if status.steps == 0:
            empty_reported.set()

    engine = make_engine(on_memory)
    feed(engine, frame(1), frame(2))
    version = engine.status.version
    engine.reset()
    assert engine.status == MemoryStatus(version=version + 1, episode=1)
    assert failure(engine.ask("What?")).code == ErrorCode.NO_FRAMES
    assert empty_reported.wait(PATIENCE_S), "a reset is announced without a new frame"
    feed(engine, frame(1))
    assert engine.status.version == version + 2
    assert engine.statistics.episodes == 0, "this counts stamps that jumped back"


def test_reset_in_mid_batch_discards_it_and_keeps_later_frames(make_engine: MakeEngine, model: FakeModel) -> None:
    reported: list[MemoryStatus] = []
    engine = make_engine(reported.append)
    model.encoding.shut()
    engine.submit(frame(10))
    model.encoding.wait_reached()
    engine.submit(frame(11))
    engine.reset()
    engine.submit(frame(3))
    assert engine.status.steps == 0
    model.encoding.open()
    assert engine.flush(PATIENCE_S)
    assert result(engine.ask("What?")).text == "1 steps: 3"
    statistics = engine.statistics
    assert (statistics.discarded, statistics.ingested) == (2, 1)
    engine.close()
    assert {status.episode for status in reported if status.steps} == {1}, "nothing of the old episode was published"


def test_reset_frees_the_old_memory_without_a_new_frame(
    make_engine: MakeEngine, model: FakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    memories: list[weakref.ref[StreamingFlashMemory]] = []
    new_memory = model.new_memory
    empty_reported = threading.Event()

    def watched(grid: PatchGrid) -> StreamingFlashMemory:
        memory = new_memory(grid)
        memories.append(weakref.ref(memory))
        return memory

    monkeypatch.setattr(model, "new_memory", watched)
    engine = make_engine(lambda status: empty_reported.set() if status.steps == 0 else None)
    feed(engine, frame(1), frame(2), frame(3))
    gc.disable()
    try:
        engine.reset()
        assert empty_reported.wait(PATIENCE_S)
        assert [memory() for memory in memories] == [None]
    finally:
        gc.enable()


def test_paused_skips_frames_keeps_the_memory_and_answers(engine: StreamEngine) -> None:
    feed(engine, frame(1), frame(2))
    engine.pause(True)
    assert engine.paused
    assert not engine.submit(frame(3))
    assert result(engine.ask("What?", AskOptions(fresh=True))).text == "1 steps: 1.5"
    engine.pause(False)
    feed(engine, frame(4))
    assert (engine.status.steps, engine.statistics.skipped) == (2, 1)
