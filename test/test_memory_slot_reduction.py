import contextlib
import itertools
from collections.abc import Iterator
from types import ModuleType

import pytest
import torch
from memory_steps import append_all, assert_same, empty_memory, random_steps
from reduction_problems import KINDS, degenerate, micro_clusters, without
from torch import Tensor

from fvs_ros.memory import reduction_by_tensors, slot_reduction
from fvs_ros.memory.reduction_by_tensors import sum_of_squares
from fvs_ros.memory.slot_reduction import implementation, reduce_clusters
from fvs_ros.memory.ward import cheapest_pair, merge_distances

CPU = torch.device("cpu")


@pytest.fixture(params=["tensors", "loops"])
def parts(request: pytest.FixtureRequest) -> ModuleType:
    """Both implementations, one after the other."""
    if request.param == "tensors":
        return reduction_by_tensors
    assert implementation(CPU, 40) is not reduction_by_tensors
    return implementation(CPU, 40)


@pytest.fixture
def without_numba(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with without(monkeypatch, "numba", "reduction_by_loops", slot_reduction._loops.cache_clear):
        yield


def direct_sum_of_squares(means: Tensor, weights: Tensor, labels: Tensor) -> float:
    total = 0.0
    for label in labels.unique():
        points, mass = means[labels == label], weights[labels == label, None]
        total += float(((points - (points * mass).sum(0) / mass.sum()).square() * mass).sum())
    return total


def test_the_sum_of_squares_needs_distances_only() -> None:
    distances, weights, _, means = micro_clusters(12, seed=3)
    labels = torch.arange(12) % 4
    expected = direct_sum_of_squares(means, weights, labels)
    assert float(sum_of_squares(distances, weights, labels, 4)) == pytest.approx(expected)


def test_segments_of_time_are_the_best_ones(parts: ModuleType) -> None:
    distances, weights, _, means = micro_clusters(9, seed=4)
    labels = parts.segment_time(distances, weights, 3)
    best = min(
        direct_sum_of_squares(means, weights, torch.tensor([0] * a + [1] * (b - a) + [2] * (9 - b)))
        for a, b in itertools.combinations(range(1, 9), 2)
    )
    assert labels.tolist() == sorted(labels.tolist())
    assert direct_sum_of_squares(means, weights, labels) == pytest.approx(best)


def test_agglomeration_finds_scenes_and_their_returns(parts: ModuleType) -> None:
    scenes = torch.tensor([0, 1, 0, 2, 1, 1, 2, 0])
    means = 10.0 * scenes[:, None].double() + 0.1 * torch.arange(8)[:, None]
    distances = torch.cdist(means, means).square()
    labels = parts.agglomerate(distances, torch.ones(8, dtype=torch.float64), torch.arange(8).double(), 3)
    assert torch.equal(labels[:, None] == labels, scenes[:, None] == scenes)


@pytest.mark.parametrize("seed", range(8))
def test_refinement_improves_and_ends_where_no_single_move_helps(seed: int, parts: ModuleType) -> None:
    distances, weights, _, means = micro_clusters(14, seed)
    labels = torch.arange(14) % 5
    before = direct_sum_of_squares(means, weights, labels)
    for _ in range(20):
        labels = parts.refine(distances, weights, labels, 5)
    after = direct_sum_of_squares(means, weights, labels)
    assert after < before
    assert labels.unique().numel() == 5
    for index, slot in itertools.product(range(14), range(5)):
        moved = labels.clone()
        moved[index] = slot
        if moved.unique().numel() == 5:
            assert direct_sum_of_squares(means, weights, moved) >= after * (1 - 1e-6)


@pytest.mark.parametrize("slots", [1, 2, 7])
def test_every_slot_gets_a_micro_cluster(slots: int) -> None:
    distances, weights, times, _ = micro_clusters(7, seed=5)
    labels = reduce_clusters(distances, weights, times, slots)
    assert sorted(labels.unique().tolist()) == list(range(slots))


def plain_agglomerate(distances: Tensor, weights: Tensor, times: Tensor, slots: int) -> Tensor:
    """`agglomerate` with the costs of all pairs computed anew for each merge."""
    distances, weights, times = distances.clone(), weights.clone(), times.clone()
    heads = torch.arange(len(weights))
    for _ in range(len(weights) - slots):
        first, second = cheapest_pair(distances, weights, times)
        total = weights[first] + weights[second]
        merge_distances(distances, weights, first, second)
        times[first] = torch.lerp(times[first], times[second], weights[second] / total)
        weights[first], weights[second] = total, 0
        heads[heads == second] = first
    return ((weights > 0).cumsum(0) - 1)[heads]


@pytest.mark.parametrize("repeated", [1, 3, 20])
@pytest.mark.parametrize("seed", range(4))
def test_costs_that_are_kept_agree_with_those_computed_anew(seed: int, repeated: int, parts: ModuleType) -> None:
    """Also where many micro-clusters are identical, so that merges tie."""
    distances, weights, times, _ = micro_clusters(20, seed)
    copies = torch.arange(20) // repeated
    distances = distances[copies][:, copies]
    for slots in (1, 7, 19):
        labels = parts.agglomerate(distances, weights, times, slots)
        assert torch.equal(labels, plain_agglomerate(distances, weights, times, slots))


def test_identical_micro_clusters_become_segments_of_equal_length() -> None:
    still = torch.zeros(16, 16, dtype=torch.float64)
    labels = reduce_clusters(still, torch.ones(16, dtype=torch.float64), torch.arange(16).double(), 4)
    assert labels.bincount().tolist() == [4, 4, 4, 4]


def test_a_drift_is_segmented_better_than_agglomeration_alone_does() -> None:
    means = torch.arange(30, dtype=torch.float64)[:, None]
    distances, weights = torch.cdist(means, means).square(), torch.ones(30, dtype=torch.float64)
    labels = reduce_clusters(distances, weights, means[:, 0], 5)
    assert labels.bincount().tolist() == [6] * 5


@pytest.mark.parametrize("time_weight", [0.0, 250.0])
@pytest.mark.parametrize("kind", KINDS)
def test_compiled_loops_decide_as_tensors_do(kind: str, time_weight: float) -> None:
    loops = implementation(CPU, 40)
    assert loops is not reduction_by_tensors
    sizes = [(1, 1), (2, 1), (9, 9), (10, 9), (31, 1), (33, 16), (40, 13), (137, 60)]
    for seed, (count, slots) in itertools.product(range(4), sizes):
        distances, weights, times = degenerate(kind, count, seed)
        distances = distances + time_weight * (times[:, None] - times).square() / max(1, count / 50) ** 2
        starts = [
            (part.agglomerate(distances, weights, times, slots), part.segment_time(distances, weights, slots))
            for part in (reduction_by_tensors, loops)
        ]
        for expected, found in zip(*starts, strict=True):
            assert torch.equal(found, expected), (count, slots, seed)
            refined = reduction_by_tensors.refine(distances, weights, expected, slots)
            assert torch.equal(loops.refine(distances, weights, expected, slots), refined), (count, slots, seed)
        # From a start that is far from any optimum, so that many moves follow.
        spread = torch.arange(count) % slots
        refined = reduction_by_tensors.refine(distances, weights, spread, slots)
        assert torch.equal(loops.refine(distances, weights, spread, slots), refined), (count, slots, seed)


def test_loops_leave_their_arguments_as_they_are(parts: ModuleType) -> None:
    distances, weights, times, _ = micro_clusters(20, seed=6)
    labels = torch.arange(20) % 5
    arguments = (distances, weights, times, labels)
    kept = [tensor.clone() for tensor in arguments]
    parts.agglomerate(distances, weights, times, 5)
    parts.segment_time(distances, weights, 5)
    parts.refine(distances, weights, labels, 5)
    for before, after in zip(kept, arguments, strict=True):
        assert torch.equal(before, after)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e308])
@pytest.mark.parametrize("slots", [1, 5, 20])
def test_loops_give_valid_slots_or_refuse_what_is_not_finite(value: float, slots: int) -> None:
    """They check no bounds, so that a choice that does not exist would be written outside an array."""
    distances, weights, times, _ = micro_clusters(20, seed=7)
    distances[3] = distances[:, 3] = value
    distances[3, 3] = 0
    loops = implementation(CPU, 40)
    for start in (
        lambda: loops.agglomerate(distances, weights, times, slots),
        lambda: loops.segment_time(distances, weights, slots),
        lambda: torch.arange(20) % slots,
    ):
        # Refused by name, which the next test sees.
        with contextlib.suppress(ValueError):
            assert set(loops.refine(distances, weights, start(), slots).tolist()) == set(range(slots))


def test_loops_name_features_that_are_not_finite() -> None:
    distances, weights, times, _ = micro_clusters(20, seed=7)
    distances[3] = distances[:, 3] = float("nan")
    for part in (
        lambda: implementation(CPU, 40).agglomerate(distances, weights, times, 5),
        lambda: implementation(CPU, 40).segment_time(distances, weights, 5),
    ):
        with pytest.raises(ValueError, match="not finite; the features must be"):
            part()


def test_other_devices_and_large_problems_have_tensors() -> None:
    assert implementation(torch.device("meta"), 40) is reduction_by_tensors
    too_many = slot_reduction.MOST_KERNEL_CLUSTERS + 1
    assert implementation(torch.device("cuda"), too_many) is reduction_by_tensors


@pytest.mark.usefixtures("without_numba")
def test_without_numba_tensors_take_over_and_it_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    assert implementation(CPU, 40) is reduction_by_tensors
    assert implementation(CPU, 40) is reduction_by_tensors
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "numba does not work here" in record.message


@pytest.mark.parametrize("time_weight", [0.0, 250.0])
def test_a_memory_is_the_same_with_loops_and_with_tensors(time_weight: float, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = append_all(empty_memory(12, 5, 3, time_weight=time_weight), random_steps(150))
    provisional = random_steps(1).high[0], random_steps(1).low[0], 1_500
    by_loops = memory.snapshot(), memory.snapshot(provisional=provisional)
    monkeypatch.setattr(slot_reduction, "implementation", lambda device, clusters: reduction_by_tensors)
    assert_same(memory.snapshot(), by_loops[0])
    assert_same(memory.snapshot(provisional=provisional), by_loops[1])
