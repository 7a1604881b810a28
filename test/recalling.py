"""A long stream in an episode store, of colours, and a fake recaller that finds the segments of a colour."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from fakes import CHANNELS, GRID, SECOND_NS, FakeModel, Gate, pose_at
from torch import Tensor

from fvs_ros.episodic.segment import Segment, SegmentFeatures
from fvs_ros.episodic.store import EpisodeStore
from fvs_ros.memory.recalled import NEWEST, SPACED, spaced
from fvs_ros.memory.snapshot import PatchGrid
from fvs_ros.stream.pictures import at_model_size, encode_jpeg
from fvs_ros.stream.segment_builder import NO_KEYS, rows_and_columns

RECALLED = 10
SLOTS = NEWEST + SPACED + RECALLED
"""Of a memory that shows ten segments beside the newest and the evenly spaced: as many as it holds apart."""
SEGMENTS = SLOTS + 22
COMMON, RARE = 40, 200
PERIOD_S = 10


class ColourRecaller:
    """A `SegmentRecaller` whose keys are colours; a question names one, and its segments alone matter.

    The gate `scoring` holds `scores`.

    Attributes:
        made: of how many segments keys were made.
        asked: of each question the stamps of the segments that it was held against, and of the stream's ends.
        questions: their words.
        error: raised by the next calls of `scores` while set.
        key_error: likewise by `segment_keys`.
    """

    def __init__(self) -> None:
        self.scoring = Gate()
        self.made = 0
        self.asked: list[tuple[list[int], int, int]] = []
        self.questions: list[str] = []
        self.error: Exception | None = None
        self.key_error: Exception | None = None

    def segment_keys(self, low: Tensor, grid: PatchGrid) -> Tensor:
        if self.key_error is not None:
            raise self.key_error
        self.made += low.shape[0]
        return low.mean(1, keepdim=True).expand(-1, grid.csm_tokens, -1).half()

    def scores(
        self, question: str, keys: Tensor, start_ns: Tensor, end_ns: Tensor, first_ns: int, now_ns: int
    ) -> Tensor:
        self.scoring.go_through()
        if self.error is not None:
            raise self.error
        assert keys.dtype == torch.float16
        assert len(keys) == len(start_ns) == len(end_ns)
        self.questions.append(question)
        self.asked.append((start_ns.tolist(), first_ns, now_ns))
        wanted = float(question.split()[-1])
        return torch.where((keys.float().mean((1, 2)) - wanted).abs() < 4, 0.0, -torch.inf)


def recalling_model(slots: int = SLOTS) -> tuple[FakeModel, ColourRecaller]:
    model, recaller = FakeModel(csm_slots=slots), ColourRecaller()
    model.recaller = recaller
    return model, recaller


def hidden_places(count: int, total: int = SEGMENTS) -> list[int]:
    """Places in a stream that are neither among the newest segments nor among the evenly spaced."""
    shown = {*spaced(total, SPACED), *range(total - NEWEST, total)}
    return [place for place in range(total) if place not in shown][:count]


def colours(rare: Sequence[int], total: int = SEGMENTS) -> list[int]:
    """One colour throughout, and a rare one at some places."""
    return [RARE if place in rare else COMMON for place in range(total)]


def remember(
    store: EpisodeStore,
    values: Sequence[int],
    fingerprint: str = "fake-1",
    *,
    first_second: int = 0,
    keys: bool = True,
    grid: PatchGrid = GRID,
    map_id: str = "house",
) -> list[int]:
    """Stores a segment of three steps of each colour, ten seconds apart, and returns their ids."""
    ids = []
    for place, value in enumerate(values):
        start_ns = (first_second + PERIOD_S * place) * SECOND_NS
        picture = at_model_size(np.full((8, 8, 3), value, np.uint8), grid)
        low = torch.full((grid.low_patches, CHANNELS), float(value))
        segment = Segment(
            start_ns=start_ns,
            end_ns=start_ns + 5 * SECOND_NS,
            weight=3,
            keyframe_ns=start_ns + 2 * SECOND_NS,
            camera="front",
            width=picture.shape[1],
            height=picture.shape[0],
            frame_id="eye",
            pose=pose_at(place),
            map_id=map_id,
        )
        made = ColourRecaller().segment_keys(low[None], grid)[0].numpy() if keys else NO_KEYS
        features = SegmentFeatures(fingerprint, rows_and_columns(low, grid), made)
        ids.append(store.append(segment, encode_jpeg(picture), features).id)
    return ids
