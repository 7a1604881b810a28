"""When each slot is told to have been, and where the words of it stand among the memory's tokens."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

from fvs_ros.memory.config import FlashMemoryConfig
from fvs_ros.memory.offline import build_memory
from fvs_ros.memory.snapshot import MemorySnapshot, PatchGrid, StepFeatures
from fvs_ros.memory.streaming import StreamingFlashMemory
from fvs_ros.memory.timeline import timeline
from fvs_ros.memory.timestamps import LONGEST_S, most_text_tokens, step_times_s, timestamped_layout

GRID = PatchGrid(4, 8)
SECOND = 1_000_000_000
BEGINNING = 1_700_000_000 * SECOND


@dataclass(frozen=True)
class Words:
    """A token for each tenth of a second, and one for each digit of a whole one."""

    after: tuple[int, ...] = (7, 8)

    def before(self, seconds: float) -> tuple[int, ...]:
        return (round(10 * seconds), *map(int, f"{seconds:.0f}"))


def memory(config: FlashMemoryConfig, start_s: list[float], frame_s: float) -> MemorySnapshot:
    """Of steps that begin at these times, their two frames `frame_s` apart."""
    steps, generator = len(start_s), torch.Generator().manual_seed(0)
    features = StepFeatures(
        torch.randn(steps, GRID.patches, 3, generator=generator),
        torch.randn(steps, GRID.low_patches, 3, generator=generator),
    )
    start_ns = BEGINNING + (torch.tensor(start_s, dtype=torch.float64) * SECOND).long()
    return build_memory(
        features, GRID, config, start_ns=start_ns, end_ns=start_ns + int(frame_s * SECOND), generator=generator
    )


@pytest.mark.parametrize(
    "config",
    [
        FlashMemoryConfig(csm_slots=12, dam_slots=12, window_slots=2),
        FlashMemoryConfig(csm_slots=0, dam_slots=12, window_slots=1),
        FlashMemoryConfig(csm_slots=4, dam_slots=3, window_slots=8),
    ],
    ids=str,
)
def test_the_time_of_a_step_is_the_mean_of_its_two_frames(config: FlashMemoryConfig) -> None:
    snapshot = memory(config, [0.0, 0.5, 1.0, 1.5, 2.0, 2.5], frame_s=0.25)
    shown = timeline(snapshot).slots
    assert step_times_s(snapshot)[shown].tolist() == pytest.approx([0.125 + 0.5 * step for step in range(6)])


def test_a_pause_makes_no_step_late() -> None:
    """Ten minutes in which nothing new was seen, between steps of a tenth of a second."""
    config = FlashMemoryConfig(csm_slots=3, dam_slots=2, window_slots=2)
    snapshot = memory(config, [0.0, 0.2, 0.4, 600.0, 600.2, 600.4], frame_s=0.1)
    window = step_times_s(snapshot)[-2:]
    assert window.tolist() == pytest.approx([600.25, 600.45])


def test_a_cluster_is_at_the_middle_of_its_frames() -> None:
    still = torch.tensor([0.0] * 5 + [9.0] * 3)[:, None, None]
    features = StepFeatures(still.expand(8, GRID.patches, 3), still.expand(8, GRID.low_patches, 3))
    start_ns = BEGINNING + torch.arange(8) * 2 * SECOND
    snapshot = build_memory(
        features,
        GRID,
        FlashMemoryConfig(csm_slots=2, dam_slots=0, window_slots=0),
        start_ns=start_ns,
        end_ns=start_ns + SECOND,
        generator=torch.Generator().manual_seed(0),
    )
    assert step_times_s(snapshot).tolist() == pytest.approx([4.5, 12.5])


def test_nothing_is_known_of_a_single_frame_but_its_stamp() -> None:
    stream = StreamingFlashMemory(
        FlashMemoryConfig(csm_slots=0, dam_slots=2), GRID, 3, device=torch.device("cpu"), dtype=torch.float32
    )
    snapshot = stream.snapshot((torch.zeros(GRID.patches, 3), torch.zeros(GRID.low_patches, 3), BEGINNING))
    assert step_times_s(snapshot).tolist() == [0.0]


def test_each_step_stands_between_its_words_with_a_grid_of_its_own() -> None:
    """4 x 8 patches are 2 x 4 tokens in detail and 1 x 2 in synopsis; the text goes on behind the larger side."""
    snapshot = memory(FlashMemoryConfig(csm_slots=5, dam_slots=1, window_slots=1), [0, 2, 4, 6, 8], frame_s=1.0)
    layout = timestamped_layout(snapshot, 100, Words())
    assert layout.order is not None
    assert layout.text is not None
    shown, seconds = timeline(snapshot).slots.tolist(), step_times_s(snapshot).tolist()
    starts = torch.tensor([0, *snapshot.slot_tokens]).cumsum(0).tolist()
    order, text, positions, position = [], [], [], 100
    for slot in shown:
        rows, columns = (1, 2) if 1 <= slot <= 5 else (2, 4)
        before = Words().before(seconds[slot])
        order += [-1] * len(before) + list(range(starts[slot], starts[slot + 1])) + [-1, -1]
        text += [*before, *([-1] * (rows * columns)), 7, 8]
        positions += [(position + index,) * 3 for index in range(len(before))]
        position += len(before)
        positions += [(position, position + row, position + column) for row in range(rows) for column in range(columns)]
        position += columns
        positions += [(position,) * 3, (position + 1,) * 3]
        position += 2
    assert layout.order.tolist() == order
    assert layout.text.tolist() == text
    assert [tuple(one) for one in layout.positions.T.tolist()] == positions
    assert layout.next_position == position


def test_words_are_no_longer_than_the_longest() -> None:
    """Stamps that jump by ten years must not overrun the room that is kept for words."""
    snapshot = memory(FlashMemoryConfig(csm_slots=4, dam_slots=2), [0.0, 3e8], frame_s=1.0)
    layout = timestamped_layout(snapshot, 0, Words())
    assert layout.text is not None
    assert int(layout.text.max()) == round(10 * LONGEST_S)
    words = int((layout.text >= 0).sum())
    assert words <= most_text_tokens(Words()) * len(timeline(snapshot).slots)
