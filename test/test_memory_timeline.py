"""Which slots a model is shown that was not trained on the published layout, in which order and at which times."""

from __future__ import annotations

import torch

from fvs_ros.memory.config import FlashMemoryConfig
from fvs_ros.memory.offline import build_memory
from fvs_ros.memory.snapshot import MemorySnapshot, PatchGrid, StepFeatures
from fvs_ros.memory.timeline import timeline, timeline_layout

GRID = PatchGrid(4, 8)
DETAIL, LOW = GRID.dam_tokens, GRID.csm_tokens
SECOND = 1_000_000_000
BEGINNING = 1_700_000_000 * SECOND


def memory(steps: int, config: FlashMemoryConfig, seconds: float = 2.0) -> MemorySnapshot:
    generator = torch.Generator().manual_seed(0)
    features = StepFeatures(
        torch.randn(steps, GRID.patches, 3, generator=generator),
        torch.randn(steps, GRID.low_patches, 3, generator=generator),
    )
    start_ns = BEGINNING + (torch.arange(steps) * seconds * SECOND).long()
    return build_memory(
        features, GRID, config, start_ns=start_ns, end_ns=start_ns + int(seconds * SECOND / 2), generator=generator
    )


def shown(snapshot: MemorySnapshot) -> list[tuple[str, float]]:
    """Kind and time of each slot that is shown."""
    line = timeline(snapshot)
    kinds = ["dam"] * len(snapshot.dam) + ["csm"] * len(snapshot.csm) + ["window"] * len(snapshot.window)
    return [(kinds[index], float(line.times_s[index])) for index in line.slots.tolist()]


def test_a_stream_that_is_kept_is_shown_once_in_detail() -> None:
    config = FlashMemoryConfig(csm_slots=8, dam_slots=6, window_slots=2)
    expected = [("dam", 0.0), ("dam", 2.0), ("dam", 4.0), ("window", 6.0), ("window", 8.0)]
    assert shown(memory(5, config)) == expected


def test_what_is_in_no_detail_is_shown_by_its_synopsis_in_between() -> None:
    """Eight steps, a slot each: two keyframes and a window of two leave the others to their synopsis."""
    snapshot = memory(8, FlashMemoryConfig(csm_slots=8, dam_slots=2, window_slots=2))
    keyframes = sorted(2.0 * step for step in snapshot.dam_steps.tolist() if step < 6)
    found = shown(snapshot)
    assert [time for _, time in found] == [2.0 * step for step in range(8)]
    assert [time for kind, time in found if kind == "dam"] == keyframes
    assert [kind for kind, _ in found[-2:]] == ["window", "window"]


def test_a_keyframe_of_two_clusters_is_shown_once() -> None:
    snapshot = memory(9, FlashMemoryConfig(csm_slots=4, dam_slots=3))
    twice = MemorySnapshot(**{**vars(snapshot), "dam_steps": snapshot.dam_steps[[0, 1, 1]]})
    assert len(shown(snapshot)) - len(shown(twice)) == 1


def test_a_cluster_is_at_the_middle_of_its_steps_and_gone_where_it_is_all_in_the_window() -> None:
    """A still scene of five steps, then one of three: offline k-means makes a slot of each."""
    low = torch.tensor([0.0] * 5 + [9.0] * 3)[:, None, None].expand(8, GRID.low_patches, 3)
    features = StepFeatures(torch.randn(8, GRID.patches, 3), low + 1e-3 * torch.arange(8.0)[:, None, None])
    start_ns = BEGINNING + torch.arange(8) * 2 * SECOND

    def of(window_slots: int) -> MemorySnapshot:
        config = FlashMemoryConfig(csm_slots=2, dam_slots=0, window_slots=window_slots)
        rows = torch.tensor([0, 7])
        return build_memory(features, GRID, config, start_ns=start_ns, end_ns=start_ns + SECOND, initial_rows=rows)

    assert of(0).csm_weights.tolist() == [5, 3]
    assert shown(of(0)) == [("csm", 4.0), ("csm", 12.0)]
    assert shown(of(3)) == [("csm", 4.0), ("window", 10.0), ("window", 12.0), ("window", 14.0)]


def test_positions_count_seconds_and_the_text_is_behind_them_all() -> None:
    snapshot = memory(3, FlashMemoryConfig(csm_slots=0, dam_slots=4), seconds=2.0)
    layout = timeline_layout(snapshot, first=10, per_second=2.0, longest_s=3_600.0)
    time, row, column = layout.positions
    assert time.tolist() == [10] * DETAIL + [14] * DETAIL + [18] * DETAIL
    assert row[:DETAIL].tolist() == [10] * 4 + [11] * 4
    assert column[:DETAIL].tolist() == [10, 11, 12, 13] * 2
    assert layout.next_position == 19
    assert layout.order is not None
    assert layout.order.tolist() == list(range(3 * DETAIL))


def test_a_wide_frame_reaches_further_than_a_short_time() -> None:
    layout = timeline_layout(memory(1, FlashMemoryConfig(csm_slots=0, dam_slots=4)), 10, 2.0, 3_600.0)
    assert layout.next_position == 10 + 4


def test_times_are_cut_to_positions_unless_a_camera_is_a_little_early() -> None:
    """0.75 s are position 1.5; a stamp that is 9 ms early is taken to be in time, one of 20 ms not."""
    snapshot = memory(2, FlashMemoryConfig(csm_slots=0, dam_slots=2))
    for seconds, position in ((0.75, 1), (1.991, 4), (1.98, 3), (2.009, 4)):
        stamps = BEGINNING + torch.tensor([0, int(seconds * SECOND)])
        moved = MemorySnapshot(**{**vars(snapshot), "dam_stamps_ns": stamps})
        assert timeline_layout(moved, 0, 2.0, 3_600.0).positions[0, -1] == position


def test_a_stream_beyond_the_trained_horizon_is_scaled_onto_it() -> None:
    config = FlashMemoryConfig(csm_slots=0, dam_slots=6)
    long = timeline_layout(memory(5, config, seconds=100.0), 0, 2.0, 200.0).positions[0, ::DETAIL]
    assert long.tolist() == [0, 100, 200, 300, 400]
    kept = timeline_layout(memory(5, config, seconds=50.0), 0, 2.0, 200.0).positions[0, ::DETAIL]
    assert kept.tolist() == [0, 100, 200, 300, 400]


def test_a_memory_without_slots_has_no_tokens() -> None:
    """As a control that shows the question alone."""
    snapshot = memory(4, FlashMemoryConfig(csm_slots=4, dam_slots=2))
    names = ("csm", "csm_times", "dam", "dam_steps", "dam_slots", "dam_stamps_ns")
    empty = MemorySnapshot(**{**vars(snapshot), **{name: getattr(snapshot, name)[:0] for name in names}})
    layout = timeline_layout(empty, 7, 2.0, 3_600.0)
    assert layout.positions.shape == (3, 0)
    assert layout.next_position == 7
