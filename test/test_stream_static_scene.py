import numpy as np
import pytest
from engines import MakeEngine, feed, result
from fakes import FakeModel, frame

from fvs_ros.sources.frame import Frame
from fvs_ros.stream.static_scene import StaticSceneFilter

SIZE = (360, 640, 3)


def scene(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(30, 220, SIZE, dtype=np.uint8)


def noisy(image: np.ndarray, seed: int, sigma: float = 4.0) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, sigma, SIZE)
    return (image + noise).clip(0, 255).astype(np.uint8)


def pair(image: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    return noisy(image, 2 * seed), noisy(image, 2 * seed + 1)


def test_noise_is_static_and_a_small_object_is_not() -> None:
    filter_, still = StaticSceneFilter(3.0), scene()
    assert not filter_.is_static(pair(still, 1)), "the first step has no reference"
    assert all(filter_.is_static(pair(still, seed)) for seed in range(2, 6))
    changed = still.copy()
    changed[100:112, 200:212] = 255
    assert not filter_.is_static((still, changed))
    assert not filter_.is_static(pair(changed, 7)), "the step before showed it come"
    assert filter_.is_static(pair(changed, 8))


def test_a_slow_change_adds_up_until_it_is_seen() -> None:
    filter_, still = StaticSceneFilter(3.0), np.full(SIZE, 100, np.uint8)
    filter_.is_static((still, still))
    verdicts = [filter_.is_static((still + level, still + level)) for level in range(1, 9)]
    assert verdicts == [True, True, True, False, True, True, True, False]


def test_what_is_provisional_leaves_no_trace() -> None:
    filter_ = StaticSceneFilter(3.0)
    filter_.is_static((scene(0), scene(0)))
    assert not filter_.is_static((scene(1), scene(1)), provisional=True)
    assert filter_.is_static((scene(0), scene(0)))


def test_without_a_tolerance_nothing_is_static() -> None:
    filter_ = StaticSceneFilter(0.0)
    assert not any(filter_.is_static((scene(0), scene(0))) for _ in range(3))


def test_after_forgetting_nothing_is_static() -> None:
    filter_ = StaticSceneFilter(3.0)
    filter_.is_static((scene(0), scene(0)))
    filter_.forget()
    assert not filter_.is_static((scene(0), scene(0)))


@pytest.mark.parametrize("batch", [1, 4])
def test_static_steps_add_weight_and_are_not_encoded(make_engine: MakeEngine, model: FakeModel, batch: int) -> None:
    engine = make_engine(static_tolerance=2.0, batch_steps=batch, frame_queue=64)
    values = [10, 10] * 5 + [90, 90] * 3 + [10, 10]
    model.encoding.shut()
    frames = [frame(second, value=value) for second, value in enumerate(values, 1)]
    engine.submit(frames[0])
    model.encoding.wait_reached()
    for one in frames[1:]:
        engine.submit(one)
    model.encoding.open()
    feed(engine)
    assert engine.flush(20.0)
    encoded = sum(len(call) for call in model.encoded)
    assert encoded == 2 + 2 * 3, "the first frame alone, then each scene once when it appears"
    assert engine.statistics.static_frames == 2 * (4 + 2)
    answer = result(engine.ask("What?"))
    assert answer.steps == 9
    plain = make_engine(frame_queue=64)
    feed(plain, *frames)
    expected = result(plain.ask("What?"))
    assert (answer.text, answer.moments) == (expected.text, expected.moments)


def test_after_a_failure_of_the_model_nothing_is_static(make_engine: MakeEngine, model: FakeModel) -> None:
    engine = make_engine(static_tolerance=2.0)
    feed(engine, *[frame(second, value=10) for second in range(1, 5)])
    model.encode_error = RuntimeError("out of memory")
    feed(engine, frame(5, value=90), frame(6, value=90))
    model.encode_error = None
    model.encoded.clear()
    feed(engine, frame(7, value=90), frame(8, value=90), frame(9, value=90), frame(10, value=90))
    assert result(engine.ask("What?")).text.endswith("90 90")
    assert model.encoded[0] == [90, 90]


def test_a_single_new_frame_is_provisional_and_a_static_one_needs_no_model(
    make_engine: MakeEngine, model: FakeModel
) -> None:
    engine = make_engine(static_tolerance=2.0)
    feed(engine, frame(1, value=10), frame(2, value=10))
    model.encoded.clear()
    feed(engine, frame(3, value=10))
    assert model.encoded == []
    assert result(engine.ask("What?")).text == "2 steps: 10 10"
    feed(engine, Frame(4_000_000_000, frame(4, value=50).image))
    assert model.encoded == [[10, 50]]
