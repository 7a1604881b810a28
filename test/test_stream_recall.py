"""What a question recalls of a long stream, and the memory that shows it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pytest
import torch
from fakes import CHANNELS, GRID, SECOND_NS, FakeModel
from recalling import (
    COMMON,
    PERIOD_S,
    RARE,
    RECALLED,
    SEGMENTS,
    SLOTS,
    ColourRecaller,
    colours,
    hidden_places,
    recalling_model,
    remember,
)

from fvs_ros.episodic.information import Opener
from fvs_ros.episodic.segment import Segment, SegmentFeatures
from fvs_ros.episodic.store import EpisodeStore
from fvs_ros.memory.recalled import NEWEST, SPACED, spaced
from fvs_ros.memory.snapshot import PatchGrid
from fvs_ros.stream.evidence import shown_moments
from fvs_ros.stream.latest_memory import PublishedMemory
from fvs_ros.stream.recall import SegmentRecall, most_recalled
from fvs_ros.stream.segment_builder import NO_KEYS, BuiltSegment, rows_and_columns
from fvs_ros.stream.types import MemoryStatus

QUESTION = f"Where was {RARE}"


@pytest.fixture
def store() -> Iterator[EpisodeStore]:
    with EpisodeStore.open(None, opener=Opener("front", fingerprint="fake-1", map_id="house")) as made:
        yield made


def newest(model: FakeModel, end_s: float = PERIOD_S * SEGMENTS, grid: PatchGrid = GRID) -> PublishedMemory:
    """The Flash Memory of a stream that ends then; what it holds plays no part."""
    memory = model.new_memory(grid)
    high, low = (torch.full((1, count, CHANNELS), 1.0) for count in (grid.patches, grid.low_patches))
    memory.append(high, low, [0], [round(end_s * SECOND_NS)])
    steps = 3 * SEGMENTS
    status = MemoryStatus(version=7, episode=1, steps=steps, start_ns=0, end_ns=round(end_s * SECOND_NS))
    return PublishedMemory(memory.snapshot(), {}, status)


def recall_of(store: EpisodeStore, recaller: ColourRecaller) -> SegmentRecall:
    return SegmentRecall(store, "fake-1", recaller, RECALLED, SLOTS)


def open_segment(value: int, second: float) -> BuiltSegment:
    start_ns = round(second * SECOND_NS)
    low = torch.full((GRID.low_patches, CHANNELS), float(value))
    keys = ColourRecaller().segment_keys(low[None], GRID)[0].numpy()
    features = SegmentFeatures("fake-1", rows_and_columns(low, GRID), keys)
    return BuiltSegment(Segment(start_ns, start_ns, 1, start_ns, "front", 56, 56), b"", features)


def shown_places(memory: PublishedMemory | None) -> list[int]:
    assert memory is not None
    return [one.start_ns // (PERIOD_S * SECOND_NS) for one in memory.recalled]


def test_a_question_recalls_the_segments_it_is_about_beside_the_newest_and_the_evenly_spaced(
    store: EpisodeStore,
) -> None:
    model, recaller = recalling_model()
    rare = hidden_places(4)
    remember(store, colours(rare))
    before = newest(model)
    memory = recall_of(store, recaller).memory([QUESTION], 1, [], before)
    shown = shown_places(memory)
    assert shown == sorted({*rare, *spaced(SEGMENTS, SPACED), *range(SEGMENTS - NEWEST, SEGMENTS)})
    assert memory is not None
    snapshot = memory.snapshot
    assert snapshot.csm.mean((1, 2)).tolist() == [RARE if place in rare else COMMON for place in shown]
    assert snapshot.csm_start_ns.tolist() == [one.start_ns for one in memory.recalled]
    assert snapshot.csm_end_ns.tolist() == [one.end_ns for one in memory.recalled]
    assert snapshot.ranked
    assert snapshot.dam.shape[0] == 0
    assert torch.equal(snapshot.window, before.snapshot.window)
    # The middle of a segment, in steps of which there are three in ten seconds.
    expected = [(PERIOD_S * place + 2.5) / (PERIOD_S * SEGMENTS) * (3 * SEGMENTS - 1) for place in shown]
    assert snapshot.csm_times.tolist() == pytest.approx(expected, rel=1e-5)
    assert memory.status == before.status
    starts, first_ns, now_ns = recaller.asked[0]
    assert (len(starts), first_ns, now_ns) == (SEGMENTS, 0, PERIOD_S * SEGMENTS * SECOND_NS)


def test_a_follow_up_recalls_what_any_of_its_wordings_is_about(store: EpisodeStore) -> None:
    model, recaller = recalling_model()
    first, second = hidden_places(4)[:2], hidden_places(4)[2:]
    values = colours(first)
    for place in second:
        values[place] = RARE + 20
    remember(store, values)
    recall = recall_of(store, recaller)
    always = {*spaced(SEGMENTS, SPACED), *range(SEGMENTS - NEWEST, SEGMENTS)}
    alone = recall.memory([QUESTION], 1, [], newest(model))
    assert not {*second} & ({*shown_places(alone)} - always)
    both = recall.memory([QUESTION, f"Where is it? {RARE + 20}"], 1, [], newest(model))
    assert shown_places(both) == sorted({*first, *second, *always})


def test_of_more_than_there_is_room_for_the_best_are_recalled(store: EpisodeStore) -> None:
    model, recaller = recalling_model()
    rare = hidden_places(RECALLED + 5)
    remember(store, colours(rare))
    shown = shown_places(recall_of(store, recaller).memory([QUESTION], 1, [], newest(model)))
    assert len(set(rare) & set(shown)) == RECALLED
    assert len(shown) <= SLOTS


@pytest.mark.parametrize(("stored", "unstored", "recalls"), [(SLOTS, 0, False), (SLOTS, 1, True), (SLOTS + 1, 0, True)])
def test_no_more_segments_than_the_memory_holds_apart_are_not_recalled(
    store: EpisodeStore, stored: int, unstored: int, recalls: bool
) -> None:
    model, recaller = recalling_model()
    remember(store, colours([5], stored))
    opened = [open_segment(90, PERIOD_S * stored)] * unstored
    memory = recall_of(store, recaller).memory([QUESTION], 1, opened, newest(model))
    assert (memory is not None) == recalls


def test_the_open_segment_is_the_newest_one(store: EpisodeStore) -> None:
    model, recaller = recalling_model()
    remember(store, colours([]))
    memory = recall_of(store, recaller).memory([QUESTION], 1, [open_segment(90, PERIOD_S * SEGMENTS)], newest(model))
    assert memory is not None
    assert shown_places(memory)[-1] == SEGMENTS
    assert memory.snapshot.csm[-1].mean() == 90
    assert len(recaller.asked[0][0]) == SEGMENTS + 1


def test_other_episodes_are_not_recalled(store: EpisodeStore) -> None:
    model, recaller = recalling_model()
    remember(store, [RARE] * SEGMENTS)
    second = store.begin_episode("reset")
    remember(store, colours([]), first_second=100_000)
    recall = recall_of(store, recaller)
    memory = recall.memory([QUESTION], second, [], newest(model, 200_000))
    assert memory is not None
    assert min(shown_places(memory)) == 10_000
    assert set(memory.snapshot.csm.mean((1, 2)).tolist()) == {COMMON}
    assert len(recaller.asked[0][0]) == SEGMENTS
    assert recall.memory([QUESTION], second + 1, [], newest(model)) is None


def test_segments_without_keys_are_shown_where_they_are_the_newest_and_never_recalled(store: EpisodeStore) -> None:
    model, recaller = recalling_model()
    remember(store, colours(range(SLOTS), SLOTS), keys=False)
    recall = recall_of(store, recaller)
    assert recall.memory([QUESTION], 1, [open_segment(90, PERIOD_S * SLOTS)], newest(model)) is not None
    assert len(recaller.asked[-1][0]) == 1, "the open segment alone has keys"
    remember(store, [COMMON] * 22, first_second=PERIOD_S * SLOTS, keys=False)
    assert recall.memory([QUESTION], 1, [], newest(model)) is None
    remember(store, [RARE], first_second=PERIOD_S * SEGMENTS)
    shown = shown_places(recall.memory([QUESTION], 1, [], newest(model)))
    assert shown == sorted({*spaced(SEGMENTS + 1, SPACED), *range(SEGMENTS + 1 - NEWEST, SEGMENTS + 1)})


@pytest.mark.parametrize(("other", "recalls"), [(SLOTS - 2, True), (2 * SLOTS + 10, False)])
def test_what_has_no_features_of_this_model_yet_is_left_out_and_half_is_not_enough(
    store: EpisodeStore, other: int, recalls: bool
) -> None:
    model, recaller = recalling_model()
    remember(store, [RARE] * other, "fake-2")
    remember(store, colours([]), first_second=PERIOD_S * other)
    recall = recall_of(store, recaller)
    memory = recall.memory([QUESTION], 1, [], newest(model))
    assert (memory is not None) == recalls
    if memory is not None:
        assert set(memory.snapshot.csm.mean((1, 2)).tolist()) == {COMMON}
    # Once they are made, they are recalled.
    for one in store.missing_features("fake-1"):
        made = store.features("fake-2", [one])[one]
        store.put_features(one, SegmentFeatures("fake-1", made.mean, made.keys))
    again = recall.memory([QUESTION], 1, [], newest(model))
    assert again is not None
    assert (again.snapshot.csm.mean((1, 2)) == RARE).sum() >= RECALLED


@pytest.mark.parametrize("grid", [PatchGrid(8, 4), PatchGrid(8, 8)])
def test_segments_of_another_size_are_not_shown(store: EpisodeStore, grid: PatchGrid) -> None:
    model, recaller = recalling_model()
    remember(store, [RARE] * SLOTS, grid=grid)
    remember(store, colours([]), first_second=PERIOD_S * SLOTS)
    recall = recall_of(store, recaller)
    memory = recall.memory([QUESTION], 1, [], newest(model))
    assert memory is not None
    assert set(memory.snapshot.csm.mean((1, 2)).tolist()) == {COMMON}
    assert len(recaller.asked[-1][0]) == SEGMENTS
    # Frames of the other size: there are too few of that.
    assert recall.memory([QUESTION], 1, [], newest(model, grid=grid)) is None
    assert recall.memory([QUESTION], 1, [], newest(model)) is not None


def test_features_that_lie_on_their_side_are_not_shown(store: EpisodeStore) -> None:
    model, recaller = recalling_model()
    wide, high = PatchGrid(4, 8), PatchGrid(8, 4)
    remember(store, [RARE] * SEGMENTS, grid=wide)
    assert recall_of(store, recaller).memory([QUESTION], 1, [], newest(model, grid=wide)) is not None
    assert recall_of(store, recaller).memory([QUESTION], 1, [], newest(model, grid=high)) is None


def test_poses_of_another_map_are_left_out(store: EpisodeStore) -> None:
    model, recaller = recalling_model()
    rare = hidden_places(2)
    remember(store, colours(rare)[: rare[1]], map_id="garden")
    remember(store, colours(rare)[rare[1] :], first_second=PERIOD_S * rare[1])
    memory = recall_of(store, recaller).memory([QUESTION], 1, [], newest(model))
    assert memory is not None
    moments = dict(zip(shown_places(memory), shown_moments(memory).moments, strict=True))
    for place, moment in moments.items():
        assert (moment.pose is None) == (place < rare[1])
        assert moment.stamp_ns == (PERIOD_S * place + 2) * SECOND_NS
        assert (moment.start_ns, moment.end_ns, moment.weight, moment.frame_id) == (
            PERIOD_S * place * SECOND_NS,
            (PERIOD_S * place + 5) * SECOND_NS,
            3,
            "eye",
        )


def test_each_segments_keys_are_read_once(store: EpisodeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    model, recaller = recalling_model()
    read: list[int] = []
    keys = store.keys

    def counted(fingerprint: str, ids: Sequence[int] | None = None) -> dict[int, np.ndarray]:
        assert ids is not None
        read.extend(ids)
        return keys(fingerprint, ids)

    monkeypatch.setattr(store, "keys", counted)
    ids = remember(store, colours([]))
    recall = recall_of(store, recaller)
    for _ in range(3):
        recall.memory([QUESTION], 1, [], newest(model))
    ids += remember(store, [RARE] * 2, first_second=PERIOD_S * SEGMENTS)
    for _ in range(2):
        recall.memory([QUESTION], 1, [], newest(model))
    assert read == ids
    assert recaller.made == 0
    assert [len(starts) for starts, _, _ in recaller.asked] == [SEGMENTS] * 3 + [SEGMENTS + 2] * 2


def test_what_is_forgotten_is_not_recalled_any_more(store: EpisodeStore) -> None:
    model, recaller = recalling_model()
    rare = hidden_places(4)
    remember(store, colours(rare))
    recall = recall_of(store, recaller)
    assert set(rare) <= set(shown_places(recall.memory([QUESTION], 1, [], newest(model))))
    for place in rare[:3]:
        store.forget(PERIOD_S * place * SECOND_NS, (PERIOD_S * place + 5) * SECOND_NS)
    # As many keys are kept as before, of which three are of nothing any more.
    shown = shown_places(recall.memory([QUESTION], 1, [], newest(model)))
    assert set(rare) & set(shown) == {rare[3]}
    assert len(recaller.asked[-1][0]) == SEGMENTS - 3
    # Of the first half nothing is left.
    store.forget(None, PERIOD_S * SEGMENTS // 2 * SECOND_NS)
    remember(store, [COMMON] * 30, first_second=PERIOD_S * SEGMENTS)
    assert min(shown_places(recall.memory([QUESTION], 1, [], newest(model)))) >= SEGMENTS // 2


def test_keys_of_what_was_evicted_are_let_go(store: EpisodeStore) -> None:
    model, recaller = recalling_model()
    remember(store, colours([]))
    recall = recall_of(store, recaller)
    recall.memory([QUESTION], 1, [], newest(model))
    store.begin_episode("reset")
    remember(store, [RARE] * SEGMENTS, first_second=100_000)
    assert recall.memory([QUESTION], 2, [], newest(model, 200_000)) is not None
    store.forget(episode=1)
    store.forget(episode=2)
    store.begin_episode("reset")
    remember(store, [COMMON] * (SLOTS + 1), first_second=200_000)
    memory = recall.memory([QUESTION], 3, [], newest(model, 300_000))
    assert memory is not None
    assert len(recaller.asked[-1][0]) == SLOTS + 1
    assert set(memory.snapshot.csm.mean((1, 2)).tolist()) == {COMMON}


def test_an_open_segment_without_keys_is_shown_all_the_same(store: EpisodeStore) -> None:
    model, recaller = recalling_model()
    remember(store, colours([]))
    one = open_segment(RARE, PERIOD_S * SEGMENTS)
    bare = BuiltSegment(one.segment, b"", SegmentFeatures("fake-1", one.features.mean, NO_KEYS))
    memory = recall_of(store, recaller).memory([QUESTION], 1, [bare], newest(model))
    assert memory is not None
    assert memory.snapshot.csm[-1].mean() == RARE
    assert len(recaller.asked[-1][0]) == SEGMENTS


@pytest.mark.parametrize(
    ("wanted", "slots", "recalled"), [(40, 120, 40), (1_000, 120, 72), (0, 120, 0), (40, 50, 2), (40, 8, 0)]
)
def test_no_more_are_recalled_than_fit_the_memory(wanted: int, slots: int, recalled: int) -> None:
    assert most_recalled(wanted, slots) == recalled
