import torch

from fvs_ros.memory.micro_clusters import MicroClusters


def filled(rows, capacity, **time):
    """Micro-clusters of the rows, and the places that each row's steps ended in."""
    micro = MicroClusters(capacity, rows.shape[1], torch.device("cpu"), **time)
    micro.set_reference(rows[0])
    places = []
    for index, row in enumerate(rows):
        places.append(int(micro.spare))
        micro.insert(row, torch.tensor([index]), torch.tensor([10 * index, 10 * index + 5]))
        if index < capacity:
            micro.occupy()
        else:
            first, second = micro.merge()
            places = [int(first) if place == int(second) else place for place in places]
    return micro, torch.tensor(places)


def test_each_micro_cluster_is_the_mean_of_its_steps() -> None:
    rows = torch.randn(60, 7) + 3
    micro, places = filled(rows, capacity=9)
    for place in places.unique():
        steps = torch.nonzero(places == place)[:, 0]
        assert int(micro.weights[place]) == len(steps)
        assert torch.allclose(micro.means[place], rows[steps].mean(0), atol=1e-5)
        assert torch.isclose(micro.times[place], steps.double().mean())
        assert int(micro.start_ns[place]) == 10 * int(steps.min())
        assert int(micro.end_ns[place]) == 10 * int(steps.max()) + 5
    assert micro.weights[micro.spare].item() == 0


def test_distances_kept_incrementally_are_those_of_the_means() -> None:
    for offset in (0, 100):
        micro, places = filled(torch.randn(300, 64) + offset, capacity=20)
        present = places.unique()
        means = micro.means[present].double()
        expected = torch.cdist(means, means).square()
        kept = micro.distances[present][:, present]
        assert torch.allclose(kept, expected, rtol=1e-3, atol=1e-3)
        norms = (means - micro.means[-1].double()).square().sum(1)
        assert torch.allclose(micro.norms[present], norms, rtol=1e-3)


def test_with_a_time_weight_clusters_are_as_far_apart_as_with_time_for_a_coordinate() -> None:
    for steps, horizon in ((300, 100), (60, 100)):
        rows = torch.randn(steps, 16)
        micro, places = filled(rows, capacity=20, time_weight=0.3, horizon=horizon)
        present = places.unique()
        scale = min(1, (horizon - 1) / (steps - 1))
        timed = torch.cat([rows.double(), 0.3**0.5 * scale * torch.arange(steps)[:, None]], dim=1)
        means = torch.stack([timed[places == place].mean(0) for place in present])
        found = micro.separations()[present][:, present]
        assert torch.allclose(found, torch.cdist(means, means).square(), rtol=1e-3, atol=1e-3)


def test_identical_steps_are_at_no_distance() -> None:
    row = torch.randn(1, 5_000) + 10
    micro, places = filled(torch.cat([torch.randn(1, 5_000), row.expand(40, -1)]), capacity=6)
    still = places[1:].unique()
    assert torch.equal(micro.distances[still][:, still], torch.zeros(len(still), len(still), dtype=torch.float64))
    assert torch.equal(micro.means[still], row.expand(len(still), -1))


def test_means_and_weights_stand_a_hundred_thousand_steps() -> None:
    micro, _ = filled(torch.zeros(1, 8) + 7, capacity=1)
    micro.weights[0] = 1e5
    row = torch.full((8,), 8.0)
    for index in range(1, 11):
        micro.insert(row, torch.tensor([index]), torch.tensor([0, 0]))
        micro.merge()
    assert float(micro.weights.sum()) == 1e5 + 10
    assert torch.allclose(micro.means[:2][micro.weights > 0], torch.tensor(7 + 1e-4), rtol=1e-6)


def test_the_prospect_is_the_mean_after_the_next_join() -> None:
    rows = torch.tensor([[0.0, 0.0], [9.0, 0.0], [0.0, 2.0]])
    micro, _ = filled(rows, capacity=3)
    assert micro.prospect(torch.tensor([0])).tolist() == [[0.0, 1.0]]
