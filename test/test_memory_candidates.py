import torch

from fvs_ros.memory.candidates import NO_STEP, Candidates


def bank(values: list[float], per_cluster: int = 2) -> Candidates:
    """One candidate for each of three micro-clusters, whose features are all the same number."""
    candidates = Candidates(3, per_cluster, 4, 1, torch.device("cpu"), torch.float32)
    for index, value in enumerate(values):
        insert(candidates, index, index, value)
    return candidates


def insert(candidates: Candidates, cluster: int, step: int, value: float) -> None:
    candidates.insert(
        torch.tensor([cluster]),
        torch.full((4, 1), float(value)),
        torch.tensor([float(value)]),
        torch.tensor([step]),
        torch.tensor([step * 10]),
        torch.tensor([float(value) ** 2], dtype=torch.float64),
    )


def merge(candidates: Candidates, first: int, second: int, centroid: float, next_centroid: float) -> None:
    candidates.merge(
        torch.tensor([first]),
        torch.tensor([second]),
        torch.tensor([[centroid]]),
        torch.tensor([[next_centroid]]),
    )


def steps_of(candidates: Candidates, cluster: int) -> list[int]:
    return [step for step in candidates.steps[candidates.owned[cluster]].tolist() if step != NO_STEP]


def test_merged_clusters_keep_the_nearest_to_their_centroid_and_to_the_next_one() -> None:
    candidates = bank([0, 4, 9])
    merge(candidates, 0, 1, centroid=2.0, next_centroid=2.0)
    assert sorted(steps_of(candidates, 0)) == [0, 1]
    assert steps_of(candidates, 1) == []
    insert(candidates, 1, 3, value=3)
    merge(candidates, 0, 1, centroid=3.0, next_centroid=0.0)
    assert steps_of(candidates, 0) == [3, 0]


def test_features_stay_where_they_were_written() -> None:
    candidates = bank([0, 4, 9])
    merge(candidates, 0, 2, centroid=5.0, next_centroid=5.0)
    insert(candidates, 2, 3, value=7)
    for candidate, step in enumerate(candidates.steps.tolist()):
        if step != NO_STEP:
            value = [0, 4, 9, 7][step]
            assert candidates.high[candidate].unique().tolist() == [value]
            assert candidates.low[candidate].tolist() == [value]
            assert int(candidates.stamps_ns[candidate]) == step * 10
    assert sorted(candidates.owned.flatten().tolist()) == list(range(6))


def test_the_nearest_candidate_is_found_whatever_empty_ones_hold() -> None:
    candidates = bank([1, 4, 9])
    candidates.discard(torch.tensor([1]))
    nearest = candidates.nearest(torch.tensor([[3.9], [7.0]]))
    assert candidates.steps[nearest].tolist() == [0, 2]
