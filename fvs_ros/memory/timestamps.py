"""The memory as steps with their times in words before them, for language models that know videos in that form.

Which slots are shown, and in what order, is decided as in `timeline.py`. Here each stands alone, as an image would, and
the text before it tells when it was. Times stay what they are however long the stream: digits have no horizon that they
must be scaled onto, as rotary positions have.

Shapes: R DAM slots, S CSM slots, V window slots, m slots that are shown, n tokens of these and of the text among them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from fvs_ros.memory.geometry import MERGE
from fvs_ros.memory.positions import MemoryLayout, low_extent
from fvs_ros.memory.snapshot import MemorySnapshot
from fvs_ros.memory.timeline import timeline

LONGEST_S = 99_999_999.9
"""Three years. A stream that claims to be longer has broken stamps, whose digits must not overrun the prefix."""


class StepWords(Protocol):
    """The text tokens around each step."""

    @property
    def after(self) -> Sequence[int]:
        """What stands behind it."""

    def before(self, seconds: float) -> Sequence[int]:
        """What stands before a step at that time of the stream."""


def most_text_tokens(words: StepWords) -> int:
    """Of one step."""
    return len(words.before(LONGEST_S)) + len(words.after)


def step_times_s(snapshot: MemorySnapshot) -> Tensor:
    """The mean time of each slot's frames in seconds after the stream's first, float64 [R + S + V].

    Of a step of which only the first stamp is known, half a frame's time is added: its own where a CSM slot holds that
    step alone, else that of the slot, or of the pair of keyframes, whose frames are closest together; nothing for a
    single frame, and where one step is all that is known. So it is right for a constant rate, with pauses too where a
    slot is without one.
    """
    steps, count = torch.cat([snapshot.dam_steps, snapshot.window_steps]), snapshot.csm.shape[0]
    weights, end_ns = snapshot.csm_weights[:count].double(), snapshot.csm_end_ns[:count]
    # Evenly spaced, w steps have 2w - 1 times from the first frame to the last.
    halves = (end_ns - snapshot.csm_start_ns[:count]) / (4 * weights - 2)
    # A slot that ends with a single frame has one less, and would make all others early.
    whole = halves[end_ns < end_ns.max()] if snapshot.provisional and count else halves
    stamps_ns = torch.cat([snapshot.dam_stamps_ns, snapshot.window_stamps_ns])
    places, place = steps.unique(return_inverse=True)
    apart = stamps_ns.new_zeros(places.shape).scatter(0, place, stamps_ns).diff() / (4 * places.diff())
    known = torch.cat([whole, apart.double()])
    known = known[known > 0]
    usual = known.min() if known.shape[0] else known.new_zeros(())
    same = (snapshot.csm_times[:count].round().long() == steps[:, None]) & (weights == 1)
    own = torch.where(same.any(1), (same * halves).sum(1), usual)
    if snapshot.provisional:
        own = own.where(steps < snapshot.steps - 1, 0.0)
    of_keyframes, of_window = own.split([snapshot.dam.shape[0], snapshot.window.shape[0]])
    return timeline(snapshot).times_s + torch.cat([of_keyframes, halves, of_window]) / 1e9


def timestamped_layout(snapshot: MemorySnapshot, first: int, words: StepWords) -> MemoryLayout:
    """The memory as steps in order of time, each with text around it, as Qwen3-VL has them. Waits for the device.

    A step's tokens have one position in time, and rows and columns from there on; what follows stands behind the
    larger of both. The result is on the host.

    Args:
        snapshot: the memory.
        first: position of the first token.
        words: around each step.
    """
    grid, slots, times_s = snapshot.grid, timeline(snapshot).slots.cpu(), step_times_s(snapshot).cpu()
    # By the times that are told: the middle of a cluster's frames may be on the other side of a keyframe's than that of
    # the first frames of its steps.
    slots = slots[times_s[slots].argsort(stable=True)]
    before = [words.before(min(seconds, LONGEST_S)) for seconds in times_s[slots].tolist()]
    text = [token for words_before in before for token in (*words_before, *words.after)]
    detail, low = (grid.height // MERGE, grid.width // MERGE), low_extent(grid)
    kinds = [detail] * snapshot.dam.shape[0] + [low] * snapshot.csm.shape[0] + [detail] * snapshot.window.shape[0]
    sizes = torch.tensor(kinds, dtype=torch.int64).reshape(-1, 2)
    tokens = sizes.prod(1)
    first_token = (tokens.cumsum(0) - tokens)[slots]
    shown, columns, extents = tokens[slots], sizes[slots, 1], sizes[slots].amax(1)
    heads = torch.tensor([len(one) for one in before], dtype=torch.int64)
    lengths, advances = heads + shown + len(words.after), heads + extents + len(words.after)
    begins = advances.cumsum(0) - advances + first

    step = torch.arange(slots.shape[0]).repeat_interleave(lengths)
    place = torch.arange(step.shape[0]) - (lengths.cumsum(0) - lengths)[step] - heads[step]
    seen = (place >= 0) & (place < shown[step])
    behind = place >= shown[step]
    time = begins[step] + heads[step] + torch.where(behind, place - shown[step] + extents[step], place.clamp(max=0))
    rows, across = place // columns[step].clamp(min=1), place % columns[step].clamp(min=1)
    nothing = torch.zeros_like(place)
    ids = torch.full_like(place, -1)
    ids[~seen] = torch.tensor(text, dtype=torch.int64)
    return MemoryLayout(
        order=torch.where(seen, first_token[step] + place, -1),
        positions=torch.stack(
            [time, time + torch.where(seen, rows, nothing), time + torch.where(seen, across, nothing)]
        ),
        next_position=first + int(advances.sum()),
        text=ids,
    )
