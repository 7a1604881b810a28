from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from fakes import CHANNELS, GRID

from fvs_ros.evaluation.timed.controls import MEMORY, Condition, ConditionKind, StepHistory, check_conditions, show
from fvs_ros.memory.config import FlashMemoryConfig
from fvs_ros.memory.offline import build_memory
from fvs_ros.memory.positions import memory_positions
from fvs_ros.memory.snapshot import StepFeatures

CONFIG = FlashMemoryConfig(csm_slots=6, dam_slots=3, horizon=12)
UNIFORM, LAST4 = Condition(ConditionKind.UNIFORM), Condition(ConditionKind.LAST, 4)


def features(steps: int) -> StepFeatures:
    generator = torch.Generator().manual_seed(steps)
    return StepFeatures(
        torch.randn(steps, GRID.patches, CHANNELS, generator=generator),
        torch.randn(steps, GRID.low_patches, CHANNELS, generator=generator),
    )


def history(steps: StepFeatures, *conditions: Condition, **options: Any) -> StepHistory:
    made = StepHistory(conditions, GRID, CONFIG, **options)
    for index, (high, low) in enumerate(zip(steps.high, steps.low, strict=True)):
        made.add(high, low, 2 * index, 2 * index + 1)
    return made


@pytest.mark.parametrize(
    "name",
    ["memory", "last4", "last120", "uniform", "question-only", "csm-only", "dam-only", "newest", "random", "oracle"],
)
def test_a_view_is_called_what_it_was_parsed_from(name: str) -> None:
    assert Condition.parse(name).name == name


@pytest.mark.parametrize("name", ["", "last", "last0", "last3", "Memory", "everything"])
def test_what_is_no_view_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="last4"):
        Condition.parse(name)


def test_more_frames_than_the_memory_holds_are_refused() -> None:
    check_conditions([Condition.parse("last12")], CONFIG)
    with pytest.raises(ValueError, match="last14 shows 14 frames; the memory's 6 slots hold 12"):
        StepHistory([Condition.parse("last14")], GRID, CONFIG)


@pytest.mark.parametrize("steps", [1, 2, 6])
def test_a_short_stream_is_shown_uniformly_as_the_memory_holds_it(steps: int) -> None:
    stream = features(steps)
    shown = history(stream, UNIFORM).uniform()
    expected = build_memory(stream, GRID, CONFIG)
    assert torch.equal(shown.features(), expected.features())
    assert torch.equal(memory_positions(shown, 9, CONFIG.horizon), memory_positions(expected, 9, CONFIG.horizon))


def test_uniform_sampling_spans_the_stream_within_the_memorys_budget() -> None:
    stream = features(31)
    shown = history(stream, UNIFORM).uniform()
    assert shown.csm_times.tolist() == [0, 6, 12, 18, 24, 30]
    assert torch.equal(shown.csm, stream.low[::6])
    assert torch.equal(shown.dam, stream.high[shown.dam_steps])
    assert torch.equal(shown.dam_steps.float(), shown.csm_times[shown.dam_slots])
    assert shown.dam_stamps_ns.tolist() == [2 * step for step in shown.dam_steps.tolist()]
    memory = build_memory(stream, GRID, CONFIG, generator=torch.Generator().manual_seed(0))
    assert shown.tokens == memory.tokens
    assert shown.steps == 31


def test_the_published_choice_of_detail_is_kept() -> None:
    """Of a stream as long as the slots, uniform sampling chooses what the memory does, here of every sixth step."""
    stream = features(31)
    chosen = StepFeatures(stream.high[::6], stream.low[::6])
    assert torch.equal(history(stream, UNIFORM).uniform().dam, build_memory(chosen, GRID, CONFIG).dam)


def test_uniform_sampling_stays_bounded_and_nearly_even() -> None:
    stream = features(400)
    kept = history(stream, UNIFORM, uniform_bytes=0)
    assert len(kept._spaced) <= 4 * CONFIG.csm_slots
    times = kept.uniform().csm_times
    wanted = torch.linspace(0, 399, CONFIG.csm_slots)
    spacing = 399 / (CONFIG.csm_slots - 1)
    assert ((times - wanted).abs() <= spacing / 4).all()


def test_the_last_frames_stand_at_their_true_times() -> None:
    stream = features(20)
    shown = history(stream, LAST4).last(4)
    assert torch.equal(shown.csm, stream.low[-2:])
    assert torch.equal(shown.dam, stream.high[-2:])
    assert shown.dam_steps.tolist() == [18, 19]
    assert shown.csm_times.tolist() == [18, 19]
    assert shown.csm_start_ns.tolist() == [36, 38]
    # The stream is longer than the horizon of 12, and rescaled onto it as the memory is.
    assert memory_positions(shown, 0, CONFIG.horizon)[0, [0, GRID.dam_tokens]].tolist() == [10, 11]


@pytest.mark.parametrize("steps", [1, 3, 6, 31])
def test_a_window_of_the_newest_steps_stays_beside_spaced_ones(steps: int) -> None:
    config = replace(CONFIG, window_slots=2)
    stream = features(steps)
    kept = StepHistory([UNIFORM, LAST4], GRID, config)
    for index, (high, low) in enumerate(zip(stream.high, stream.low, strict=True)):
        kept.add(high, low, 2 * index, 2 * index + 1)
    memory = build_memory(stream, GRID, config, generator=torch.Generator().manual_seed(0))
    for shown in (kept.uniform(), kept.last(4)):
        assert torch.equal(shown.window, stream.high[-2:])
        assert torch.equal(shown.window_steps, memory.window_steps)
    assert kept.uniform().tokens == memory.tokens
    for name in ("csm-only", "dam-only", "question-only"):
        assert show(Condition.parse(name), memory, kept).window.shape[0] == 0
    assert show(MEMORY, memory, kept) is memory


def test_without_a_csm_there_is_nothing_to_fill_with_other_steps() -> None:
    with pytest.raises(ValueError, match="uniform fills the CSM's slots, and this memory has none"):
        StepHistory([UNIFORM], GRID, FlashMemoryConfig(csm_slots=0, dam_slots=3))


def test_steps_are_kept_only_for_views_that_need_them() -> None:
    kept = history(features(20), MEMORY)
    assert not kept._spaced
    assert not kept._newest


def test_halves_of_the_memory_keep_their_own_tokens() -> None:
    stream = features(20)
    memory = build_memory(stream, GRID, CONFIG, generator=torch.Generator().manual_seed(0))
    none = history(stream)
    csm, dam, nothing = (
        show(Condition.parse(name), memory, none) for name in ("csm-only", "dam-only", "question-only")
    )
    assert csm.tokens + dam.tokens == memory.tokens
    assert torch.equal(torch.cat([dam.features(), csm.features()]), memory.features())
    assert nothing.tokens == 0
    for part in (csm, dam, nothing):
        assert memory_positions(part, 3, CONFIG.horizon).shape == (3, part.tokens)
    assert torch.equal(memory_positions(dam, 3, 12), memory_positions(memory, 3, 12)[:, : dam.tokens])
    assert show(MEMORY, memory, none) is memory


RANDOM, ORACLE, NEWEST = (Condition.parse(name) for name in ("random", "oracle", "newest"))


def test_the_newest_steps_fill_the_memorys_budget() -> None:
    stream = features(31)
    shown = show(NEWEST, build_memory(stream, GRID, CONFIG), history(stream, NEWEST))
    assert shown.csm_times.tolist() == [25, 26, 27, 28, 29, 30]
    assert shown.tokens == history(stream, UNIFORM).uniform().tokens


def test_told_steps_are_shown_at_their_true_times_with_as_many_tokens() -> None:
    stream = features(31)
    steps = (1, 2, 9, 17, 20, 30)
    kept = history(stream, RANDOM, ORACLE, UNIFORM, told=dict.fromkeys(steps, 100))
    memory = build_memory(stream, GRID, CONFIG)
    shown = show(RANDOM, memory, kept, steps)
    assert shown.csm_times.tolist() == list(steps)
    assert torch.equal(shown.csm, stream.low[list(steps)])
    assert shown.csm_start_ns.tolist() == [2 * step for step in steps]
    assert shown.steps == 31
    assert shown.tokens == history(stream, UNIFORM).uniform().tokens
    assert show(ORACLE, memory, kept, (2, 30)).csm_times.tolist() == [2, 30]
    with pytest.raises(ValueError, match="7 steps are to be shown; the memory has 6 slots"):
        kept.chosen((0, *steps))
    # Nothing is kept beside them.
    assert not kept._spaced


def test_evenly_spaced_steps_that_are_told_are_those_that_uniform_sampling_keeps() -> None:
    stream = features(31)
    steps = (0, 6, 12, 18, 24, 30)
    memory = build_memory(stream, GRID, CONFIG)
    told = show(UNIFORM, memory, history(stream, UNIFORM, told=dict.fromkeys(steps, 100)), steps)
    plain = show(UNIFORM, memory, history(stream, UNIFORM))
    assert torch.equal(told.features(), plain.features())
    assert torch.equal(memory_positions(told, 5, CONFIG.horizon), memory_positions(plain, 5, CONFIG.horizon))


def test_told_steps_are_let_go_after_the_last_question_that_shows_them() -> None:
    # Step 3 ends at 7; it is asked about at 9 and never again, step 1 at 9 and 31.
    kept = history(features(15), RANDOM, told={1: 31, 3: 9})
    assert kept.chosen([1]).csm_times.tolist() == [1]
    with pytest.raises(KeyError):
        kept.chosen([3])
    before = history(features(5), RANDOM, told={1: 31, 3: 9})
    assert before.chosen([1, 3]).csm_times.tolist() == [1, 3]


def test_told_steps_do_not_hold_on_to_the_batch_that_they_came_in() -> None:
    batch = features(64)
    kept = StepHistory([RANDOM], GRID, CONFIG, told={5: 1000})
    for index in range(64):
        kept.add(batch.high[index], batch.low[index], 2 * index, 2 * index + 1)
    assert kept._kept[5].high.untyped_storage().nbytes() == batch.high[5].nbytes
