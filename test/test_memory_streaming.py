"""The streaming memory against the offline one, and against what it promises.

Where a test must know which steps a slot holds, every step carries a watermark: features of its own, so faint that
they do not move a decision, from which a slot's centroid tells its members.
"""

import dataclasses
from typing import Any

import pytest
import torch
from feature_streams import KINDS, stream
from hypothesis import given, settings
from hypothesis import strategies as st
from memory_steps import GRID, append_all, assert_same, empty_memory, random_steps, take
from safetensors.torch import load, save
from torch import Tensor

from fvs_ros.memory.config import FlashMemoryConfig
from fvs_ros.memory.kmeans import ordered_kmeans
from fvs_ros.memory.offline import build_memory
from fvs_ros.memory.snapshot import MemorySnapshot, PatchGrid, StepFeatures

WATERMARK = 1e-2
VARIANCE_LIMIT = 1.10
PICKS_LIMIT = 0.95
NEAR = 1.05


def watermarked(rows: Tensor) -> StepFeatures:
    """Steps whose low-resolution features begin with `rows` [T, F] and name their step in T more."""
    count = len(rows)
    low = torch.cat([rows, WATERMARK * torch.eye(count), torch.zeros(count, -(rows.shape[1] + count) % 4)], dim=1)
    low = low.view(count, GRID.low_patches, -1)
    # The high-resolution features carry the number of the step.
    high = torch.arange(float(count))[:, None, None].expand(-1, GRID.patches, low.shape[2])
    return StepFeatures(high, low)


def labels_of(snapshot: MemorySnapshot, features: int) -> Tensor:
    """The slot [T] of each of the T steps, read off the watermark that follows the first `features` features."""
    marks = snapshot.csm.flatten(1)[:, features : features + snapshot.steps] / WATERMARK * snapshot.csm_weights[:, None]
    assert torch.allclose(marks, marks.round(), atol=1e-2)
    assert torch.equal(marks.round().sum(0), torch.ones(snapshot.steps))
    return marks.argmax(0)


def sum_of_squares(rows: Tensor, labels: Tensor) -> float:
    rows = rows.double()
    _, labels = labels.unique(return_inverse=True)
    sums = torch.zeros(int(labels.max()) + 1, rows.shape[1], dtype=torch.float64).index_add_(0, labels, rows)
    return float((rows - (sums / labels.bincount()[:, None])[labels]).square().sum())


def best_offline(rows: Tensor, slots: int) -> float:
    starts = [torch.Generator().manual_seed(seed) for seed in range(5)]
    return min(sum_of_squares(rows, ordered_kmeans(rows, slots, generator=start).labels) for start in starts)


def streamed(kind: str, slots: int, steps: int, seed: int, features: int = 128) -> tuple[Tensor, MemorySnapshot]:
    rows = stream(kind, slots=slots, steps=steps, features=features, seed=seed)
    steps_features = watermarked(rows)
    memory = empty_memory(slots, max(1, slots // 2), steps_features.low.shape[2])
    return rows, append_all(memory, steps_features).snapshot()


def near_picks(rows: Tensor, snapshot: MemorySnapshot) -> Tensor:
    """For each keyframe, whether it is as near to its slot's centroid, within 5 percent, as any step ever was."""
    means = snapshot.csm.flatten(1)[snapshot.dam_slots, : rows.shape[1]]
    distances = torch.cdist(means.double(), rows.double())
    picked = distances.gather(1, snapshot.dam_steps[:, None])[:, 0]
    return picked <= NEAR * distances.amin(1)


@pytest.mark.parametrize("kind", KINDS)
def test_variance_is_near_that_of_offline_kmeans(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    ratios = []
    for slots, length, seed in [(8, 2, 1), (8, 5, 2), (8, 20, 3), (8, 20, 4), (20, 20, 5), (60, 5, 6)]:
        rows, snapshot = streamed(kind, slots, length * slots, seed)
        squares = sum_of_squares(rows, labels_of(snapshot, rows.shape[1]))
        ratios.append((f"K={slots} T={length}K", squares / best_offline(rows, slots)))
    with capsys.disabled():
        print(f"\n  variance / offline, {kind:22}", "  ".join(f"{name}: {ratio:.3f}" for name, ratio in ratios))
    assert max(ratio for _, ratio in ratios) <= VARIANCE_LIMIT


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_variance_and_picks_at_the_published_size(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    ratios, picks = [], []
    for seed in (7, 100, 101, 102, 103, 104):
        rows, snapshot = streamed(kind, slots=60, steps=1200, seed=seed)
        ratios.append(sum_of_squares(rows, labels_of(snapshot, rows.shape[1])) / best_offline(rows, 60))
        picks.append(near_picks(rows, snapshot))
    share = torch.cat(picks).double().mean()
    with capsys.disabled():
        print(f"\n  K=60 T=20K {kind:22} variance / offline: {max(ratios):.3f}  near picks: {share:.3f}", end="")
    assert max(ratios) <= VARIANCE_LIMIT
    # See the next test.
    assert share >= (PICKS_LIMIT if kind != "curved_drift" else 0.60)


# Not on `curved_drift`: its slots are long and thin, the true nearest step is one of twenty at any place along them,
# and no few candidates can foresee which. The printed figure says how far off that is.
@pytest.mark.parametrize("kind", KINDS)
def test_keyframes_are_those_that_an_unbounded_bank_would_give(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    cases = [(8, 5, 11), (8, 20, 12), (8, 20, 13), (8, 20, 14), (20, 20, 15)]
    picks = [near_picks(*streamed(kind, slots, length * slots, seed)) for slots, length, seed in cases]
    share = torch.cat(picks).double().mean()
    with capsys.disabled():
        print(f"\n  near picks, {kind:22} {share:.3f} of {len(torch.cat(picks))}", end="")
    assert share >= (PICKS_LIMIT if kind != "curved_drift" else 0.75)


@settings(deadline=None, max_examples=40)
@given(
    slots=st.integers(1, 8),
    details=st.integers(1, 8),
    steps=st.integers(1, 8),
    width=st.integers(1, 5),
    grid=st.sampled_from([PatchGrid(4, 4), PatchGrid(8, 4), PatchGrid(4, 12)]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    repeated=st.booleans(),
)
def test_up_to_the_slots_streaming_equals_offline(
    slots: int, details: int, steps: int, width: int, grid: PatchGrid, dtype: torch.dtype, repeated: bool
) -> None:
    details, steps = min(details, slots), min(steps, slots)
    features = random_steps(steps, width, grid, seed=steps)
    if repeated:
        features = StepFeatures(features.high[:1].repeat(steps, 1, 1), features.low[:1].repeat(steps, 1, 1))
    features = StepFeatures(features.high.to(dtype), features.low.to(dtype))
    memory = append_all(empty_memory(slots, details, width, grid, dtype), features)
    start = torch.arange(steps) * 10
    config = FlashMemoryConfig(csm_slots=slots, dam_slots=details)
    assert_same(memory.snapshot(), build_memory(features, grid, config, start_ns=start, end_ns=start + 5))


@settings(deadline=None, max_examples=25)
@given(slots=st.integers(1, 6), details=st.integers(1, 6), steps=st.integers(1, 70), seed=st.integers(0, 99))
def test_every_step_is_accounted_for(slots: int, details: int, steps: int, seed: int) -> None:
    rows = stream("random_walk", slots=slots, steps=steps, features=16, seed=seed)
    features = watermarked(rows)
    memory = empty_memory(slots, min(details, slots), features.low.shape[2])
    size = memory.bytes
    snapshot = append_all(memory, features).snapshot()
    labels = labels_of(snapshot, rows.shape[1])
    assert memory.bytes == size
    assert snapshot.steps == memory.steps == steps == snapshot.csm_weights.sum()
    assert torch.equal(labels.bincount().float(), snapshot.csm_weights)
    assert torch.equal(snapshot.csm_times, snapshot.csm_times.sort().values)
    for slot in range(min(slots, steps)):
        members = torch.nonzero(labels == slot)[:, 0]
        assert torch.allclose(snapshot.csm[slot].flatten(), features.low[members].mean(0).flatten(), atol=1e-5)
        assert snapshot.csm_times[slot] == pytest.approx(float(members.float().mean()), abs=1e-4)
        assert int(snapshot.csm_start_ns[slot]) == 10 * int(members.min())
        assert int(snapshot.csm_end_ns[slot]) == 10 * int(members.max()) + 5
    assert snapshot.dam.shape[0] == min(details, slots, steps)
    assert torch.equal(snapshot.dam, features.high[snapshot.dam_steps])
    assert torch.equal(snapshot.dam_stamps_ns, 10 * snapshot.dam_steps)
    kept = snapshot.csm_weights[snapshot.dam_slots]
    assert torch.equal(kept, snapshot.csm_weights.sort(descending=True).values[: len(kept)])
    assert set(snapshot.dam_steps.tolist()) <= set(memory.candidate_steps().tolist()) <= set(range(steps))


@pytest.mark.parametrize("steps", [3, 30, 90])
def test_equal_streams_give_equal_memories_whenever_they_are_looked_at(steps: int) -> None:
    features, other = random_steps(steps), random_steps(steps, seed=1)
    memory, watched = empty_memory(5, 3, 3), empty_memory(5, 3, 3)
    append_all(memory, features)
    for step in range(steps):
        watched.snapshot(provisional=(other.high[step], other.low[step], 10 * step))
        append_all(watched, take(features, step, step + 1), first=step)
        watched.snapshot()
    assert_same(memory.snapshot(), watched.snapshot())
    # And from there on.
    for later in (memory, watched):
        append_all(later, other, first=steps)
    assert_same(memory.snapshot(), watched.snapshot())


@pytest.mark.parametrize("steps", [1, 3, 5, 9, 25, 26])
def test_a_provisional_step_counts_like_the_step_itself(steps: int) -> None:
    """Up to 26 steps, the capacity for 5 slots, nothing is joined but in the snapshot."""
    features = random_steps(steps)
    memory = append_all(empty_memory(5, 3, 3), take(features, 0, steps - 1))
    provisional = memory.snapshot(provisional=(features.high[-1], features.low[-1], 10 * (steps - 1)))
    assert memory.steps == memory.state_dict()["micro.weights"].sum() == steps - 1
    memory.append(features.high[-1], features.low[-1], 10 * (steps - 1), 10 * (steps - 1))
    assert_same(dataclasses.replace(provisional, provisional=False), memory.snapshot())


def test_beyond_the_capacity_a_provisional_step_counts_too() -> None:
    features = random_steps(100)
    memory = append_all(empty_memory(5, 3, 3), take(features, 0, 99))
    far = 100 + torch.zeros(4, 3)
    snapshot = memory.snapshot(provisional=(features.high[99], far, 990))
    assert snapshot.steps == snapshot.csm_weights.sum() == 100
    assert torch.equal(snapshot.csm[-1], far)
    assert snapshot.csm_times[-1] == 99
    assert int(snapshot.csm_end_ns[-1]) == 990


@pytest.mark.parametrize("steps", [4, 80])
def test_a_snapshot_is_never_written_again(steps: int) -> None:
    features = random_steps(steps + 40)
    memory = append_all(empty_memory(5, 3, 3), take(features, 0, steps))
    snapshot = memory.snapshot()
    copies: dict[str, Any] = {
        field.name: value.clone()
        for field in dataclasses.fields(snapshot)
        if isinstance(value := getattr(snapshot, field.name), torch.Tensor)
    }
    append_all(memory, take(features, steps, steps + 40), first=steps)
    memory.snapshot()
    assert_same(snapshot, dataclasses.replace(snapshot, **copies))


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 23])
def test_the_window_holds_the_newest_steps_and_changes_nothing_else(steps: int) -> None:
    features = random_steps(steps + 1)
    memory = append_all(empty_memory(5, 3, 3, window_slots=3), take(features, 0, steps))
    snapshot = memory.snapshot()
    assert torch.equal(snapshot.window, features.high[max(0, steps - 3) : steps])
    assert snapshot.window_steps.tolist() == list(range(max(0, steps - 3), steps))
    without = append_all(empty_memory(5, 3, 3), take(features, 0, steps)).snapshot()
    assert without.window.shape == (0, GRID.patches, 3)
    assert snapshot.window_stamps_ns.tolist() == [10 * step for step in range(max(0, steps - 3), steps)]
    none = without.window_stamps_ns
    assert_same(dataclasses.replace(snapshot, window=without.window, window_stamps_ns=none), without)
    # A provisional step is the newest one, and leaves no trace.
    provisional = memory.snapshot((features.high[steps], features.low[steps], 10 * steps))
    assert torch.equal(provisional.window, features.high[max(0, steps - 2) : steps + 1])
    assert provisional.window_stamps_ns[-1] == 10 * steps
    assert_same(memory.snapshot(), snapshot)
    restored = empty_memory(5, 3, 3, window_slots=3)
    restored.load_state_dict(load(save(memory.state_dict())))
    assert_same(
        append_all(restored, take(features, steps, steps + 1), steps).snapshot(),
        append_all(memory, take(features, steps, steps + 1), steps).snapshot(),
    )


def test_a_still_scene_becomes_stretches_of_equal_length() -> None:
    step = random_steps(1)
    still = StepFeatures(step.high.expand(800, -1, -1), step.low.expand(800, -1, -1))
    snapshot = append_all(empty_memory(8, 4, 3), still).snapshot()
    assert torch.allclose(snapshot.csm, step.low.expand(8, -1, -1))
    assert snapshot.csm_weights.min() * 3 >= snapshot.csm_weights.max()
    assert torch.all(snapshot.csm_times.diff() > 0)


def test_fewer_distinct_steps_than_slots_are_kept_exactly() -> None:
    scenes = random_steps(3)
    order = torch.tensor([0, 0, 1, 0, 2] * 40)
    snapshot = append_all(empty_memory(6, 3, 3), StepFeatures(scenes.high[order], scenes.low[order])).snapshot()
    nearest = torch.cdist(snapshot.csm.flatten(1), scenes.low.flatten(1)).amin(1)
    assert float(nearest.max()) < 1e-5
    assert int(snapshot.csm_weights.sum()) == 200


def test_one_slot_is_the_mean_of_everything() -> None:
    features = random_steps(500)
    snapshot = append_all(empty_memory(1, 1, 3), features).snapshot()
    assert torch.allclose(snapshot.csm[0], features.low.double().mean(0).float(), atol=1e-6)
    assert snapshot.csm_times.tolist() == [249.5]


@pytest.mark.parametrize("kind", ["slow_drift", "random_walk", "revisited_scenes"])
def test_a_large_mean_common_to_all_features_changes_nothing(kind: str) -> None:
    rows = stream(kind, slots=8, steps=160, features=128, seed=21)
    features = watermarked(rows + 1_000)
    snapshot = append_all(empty_memory(8, 4, features.low.shape[2]), features).snapshot()
    # float32 tells 1000 to 6e-5, as faint as a mark in a slot of 160 steps, so that labels cannot be read off here.
    assert int(snapshot.csm_weights.sum()) == 160
    nearest = torch.cdist(rows.double(), snapshot.csm.flatten(1)[:, :128].double() - 1_000).square().amin(1).sum()
    assert float(nearest) <= VARIANCE_LIMIT * best_offline(rows, 8)


@pytest.mark.parametrize(
    ("high", "low", "starts", "ends", "message"),
    [
        ((2, 16, 4), (2, 4, 3), [0, 1], [1, 2], r"\(16, 4\).*needs \(16, 3\)"),
        ((2, 16, 3), (2, 16, 3), [0, 1], [1, 2], r"\(16, 3\).*needs \(16, 3\) and \(4, 3\)"),
        ((2, 16, 3), (1, 4, 3), [0, 1], [1, 2], r"\(2, 1, 2, 2\)"),
        ((2, 16, 3), (2, 4, 3), [0], [1, 2], r"\(2, 2, 1, 2\)"),
        ((2, 16, 3), (2, 4, 3), [0, 5], [1, 2], "ends at 2 ns, before its start at 5 ns"),
    ],
)
def test_steps_that_do_not_fit_are_refused_and_leave_no_trace(
    high: tuple[int, ...], low: tuple[int, ...], starts: list[int], ends: list[int], message: str
) -> None:
    memory = append_all(empty_memory(5, 3, 3), random_steps(4))
    before = memory.snapshot()
    with pytest.raises(ValueError, match=message):
        memory.append(torch.zeros(high), torch.zeros(low), starts, ends)
    assert_same(before, memory.snapshot())


@pytest.mark.parametrize(("time_weight", "kept_apart"), [(0.0, False), (0.1, True)])
def test_a_time_weight_keeps_visits_to_one_scene_apart(time_weight: float, kept_apart: bool) -> None:
    """Four scenes in turn, ten steps each, three rounds of them: twelve stays, for twelve slots."""
    scenes = 10 * torch.randn(4, 16, generator=torch.Generator().manual_seed(0))
    stays = torch.arange(120) // 10
    rows = scenes[stays % 4] + torch.randn(120, 16, generator=torch.Generator().manual_seed(1))
    features = watermarked(rows)
    memory = empty_memory(12, 4, features.low.shape[2], time_weight=time_weight, horizon=120)
    labels = labels_of(append_all(memory, features).snapshot(), rows.shape[1])
    if kept_apart:
        assert torch.equal(labels, stays)
    else:
        assert any(len(stays[labels == slot].unique()) > 1 for slot in range(12))


def test_a_time_weight_leaves_a_long_stream_its_scenes() -> None:
    """Eight scenes in turn for 4,000 steps: in slots of so few stretches of time no mean would be of one scene."""
    scenes = 10 * torch.randn(8, 16, generator=torch.Generator().manual_seed(0))
    stays = torch.arange(4000) // 5
    rows = scenes[stays % 8] + torch.randn(4000, 16, generator=torch.Generator().manual_seed(1))
    low = rows.view(4000, GRID.low_patches, -1)
    features = StepFeatures(torch.zeros(4000, GRID.patches, low.shape[2]), low)
    memory = empty_memory(24, 4, low.shape[2], time_weight=0.1, horizon=120)
    slots = append_all(memory, features).snapshot().csm.flatten(1)
    assert torch.cdist(slots, scenes).amin(1).max() < 2.0 < torch.cdist(scenes, scenes).fill_diagonal_(99).min()


def test_a_time_weight_keeps_provisional_steps_without_a_trace() -> None:
    features = random_steps(150)
    plain, watched = (empty_memory(5, 2, 3, time_weight=0.5, horizon=20) for _ in range(2))
    for step in range(150):
        for memory in (plain, watched):
            append_all(memory, take(features, step, step + 1), step)
        watched.snapshot(provisional=(features.high[0], features.low[0], 10 * step + 9))
    assert_same(plain.snapshot(), watched.snapshot())


def test_an_empty_memory_has_no_snapshot_but_a_provisional_one() -> None:
    memory = empty_memory(5, 3, 3)
    with pytest.raises(ValueError, match="holds no steps"):
        memory.snapshot()
    features = random_steps(1)
    assert memory.snapshot(provisional=(features.high[0], features.low[0], 7)).dam_stamps_ns.tolist() == [7]
    assert memory.steps == 0
    assert memory.candidate_steps().tolist() == []
