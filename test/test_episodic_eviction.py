"""A full store stays below its limit, and loses what resembles the rest, not what is old."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from episodic_data import LIMIT, MODEL, features, fill, ids, picture, segment

from fvs_ros.episodic import store as store_module
from fvs_ros.episodic.database import PAGE_BYTES, Budget
from fvs_ros.episodic.errors import Problem, StoreError
from fvs_ros.episodic.index import SegmentIndex, sketch
from fvs_ros.episodic.information import Opener
from fvs_ros.episodic.segment import SegmentFeatures, StoredSegment
from fvs_ros.episodic.store import EpisodeStore


def disk_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def test_the_files_stay_below_the_limit_while_everything_new_is_kept(tmp_path: Path) -> None:
    sizes = random.Random(1)
    with EpisodeStore.open(tmp_path, LIMIT) as store:
        largest = store._database.budget.largest_segment
        evicted: set[int] = set()
        for second in range(400):
            jpeg = picture(second)[:1] * sizes.choice([10, 900, 5_000, largest])
            appended = store.append(segment(second), jpeg)
            evicted.update(appended.evicted)
            assert disk_bytes(tmp_path) <= LIMIT
            assert store.keyframe(appended.id) == jpeg
        assert store.info().evicted == len(evicted) > 200
        assert sorted({*ids(store), *evicted}) == list(range(1, 401))
        assert not set(ids(store)) & evicted


def test_sqlite_itself_keeps_the_limit_where_room_was_misjudged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "pages_for", lambda sizes: 0)
    with EpisodeStore.open(tmp_path, LIMIT) as store:
        with pytest.raises(StoreError) as refused:
            fill(store, range(2_000))
        assert refused.value.problem is Problem.DISK_FULL
        assert disk_bytes(tmp_path) <= LIMIT


def test_in_ram_the_limit_holds_too() -> None:
    with EpisodeStore.open(None, LIMIT) as store:
        fill(store, range(500))
        assert store.info().file_bytes <= LIMIT
        assert 100 < store.info().segments < 500


def test_a_lower_limit_evicts_when_the_store_is_opened(tmp_path: Path) -> None:
    with EpisodeStore.open(tmp_path, 3 * LIMIT) as store:
        fill(store, range(450))
        before = store.info()
    assert before.file_bytes > 1.5 * LIMIT
    with EpisodeStore.open(tmp_path, LIMIT) as store:
        assert store.info().file_bytes <= LIMIT
        assert 0 < store.info().segments < before.segments
        assert all(store.keyframe(stored.id) == picture(stored.id - 1) for stored in store.segments())
        fill(store, range(500, 520))
    assert disk_bytes(tmp_path) <= LIMIT
    with EpisodeStore.open(tmp_path) as store:
        assert store.info().limit_bytes == LIMIT


def test_a_lower_limit_holds_for_what_comes_after_it_too(tmp_path: Path) -> None:
    """Where the database alone is below it when it is opened, and has more pages than its share."""
    with EpisodeStore.open(tmp_path, 2 * LIMIT) as store:
        fill(store, range(150))
    assert Budget(LIMIT).database_pages * PAGE_BYTES < disk_bytes(tmp_path) < LIMIT
    with EpisodeStore.open(tmp_path, LIMIT) as store:
        for later in range(150, 450):
            fill(store, range(later, later + 1))
            assert disk_bytes(tmp_path) <= LIMIT


def test_what_was_seen_once_outlasts_what_is_seen_all_day(tmp_path: Path) -> None:
    """A glimpse every 100 segments of one scene, which alone would fill the store several times over."""
    with EpisodeStore.open(tmp_path, LIMIT) as store:
        glimpses = []
        for second in range(1_000):
            seldom = second % 100 == 50
            appended = store.append(segment(second), picture(second), features(0.2 + second / 1_000 if seldom else 0.0))
            glimpses += [appended.id] * seldom
        kept = ids(store)
        assert len(kept) < 400
        assert set(glimpses) <= set(kept)
        # Of the scene itself all times are kept, thinned: neither only old nor only new ones.
        quarters = np.histogram(kept, bins=4, range=(0, 1_000))[0]
        assert quarters.min() > len(kept) / 10


def test_features_of_other_models_go_before_any_segment(tmp_path: Path) -> None:
    def large(model: str) -> SegmentFeatures:
        return SegmentFeatures(model, np.ones((8, 8, 40), np.float16), np.ones(4, np.float16))

    with EpisodeStore.open(tmp_path, LIMIT, opener=Opener(fingerprint="old")) as store:
        for second in range(50):
            assert store.append(segment(second), picture(second)[:3_000], large("old")).evicted == ()
    with EpisodeStore.open(tmp_path, LIMIT, opener=Opener(fingerprint=MODEL)) as store:
        evicted = [one for identifier in ids(store) for one in store.put_features(identifier, large(MODEL))]
        assert evicted == []
        assert store.info().models[MODEL] == 50
        assert store.info().models["old"] < 50


def test_what_is_too_large_is_refused_with_both_numbers(tmp_path: Path) -> None:
    with EpisodeStore.open(tmp_path, LIMIT) as store:
        with pytest.raises(StoreError, match="a segment of 1000000 bytes; with a limit of 1048576") as refused:
            store.append(segment(1), bytes(1_000_000))
        assert refused.value.problem is Problem.TOO_LARGE
        assert store.append(segment(2), picture(2)).id == 1
    with pytest.raises(ValueError, match="a limit of 5 bytes; an episode store needs 1048576"):
        EpisodeStore.open(None, 5)


def indexed(*entries: tuple[float, float | None, float | None], episodes: tuple[int, ...] = ()) -> SegmentIndex:
    """An index of segments by second, x in metres (None: no pose) and look (None: no features)."""
    index = SegmentIndex()
    for place, (second, x, look) in enumerate(entries):
        index.add(StoredSegment(place + 1, episodes[place] if episodes else 1, segment(second, x=x)))
        if look is not None:
            index.set_sketch(place + 1, 1, sketch(features(look).mean))
    return index


@pytest.mark.parametrize(
    ("entries", "cheapest"),
    [
        # The twins in looks, whatever their times.
        ([(0, None, 0.0), (10, None, 0.8), (20, None, 1.5), (30, None, 0.1), (40, None, 0.05)], {1, 4, 5}),
        # Without features and poses: the middle one of three that are close in time.
        ([(0, None, None), (100, None, None), (101, None, None), (102, None, None), (900, None, None)], {3}),
        # Alike in looks, apart in place but for three.
        ([(0, 0.0, 0.3), (100, 9.0, 0.3), (200, 9.1, 0.3), (300, 9.2, 0.3), (400, 30.0, 0.3)], {2, 3, 4}),
    ],
    ids=["looks", "time", "place"],
)
def test_the_segment_most_like_its_neighbours_costs_least(
    entries: list[tuple[float, float | None, float | None]], cheapest: set[int]
) -> None:
    assert indexed(*entries).least_lost() in cheapest


def test_neither_the_clock_of_another_episode_nor_another_map_makes_neighbours() -> None:
    entries = [(0.0, None, None), (1.0, None, None), (2.0, None, None), (1.5, None, None)]
    assert indexed(*entries, episodes=(1, 1, 1, 2)).least_lost() in {1, 2, 3}


def test_few_segments_can_be_evicted_too() -> None:
    assert SegmentIndex().least_lost() is None
    assert indexed((0, None, None)).least_lost() == 1
    assert indexed((0, None, None), (1, None, None)).least_lost() in {1, 2}


def test_sketches_keep_distances() -> None:
    random = np.random.default_rng(5)
    for _ in range(20):
        a = random.normal(size=(8, 8, 64)).astype(np.float16)
        b = (a + random.uniform(0.1, 1.0) * random.normal(size=a.shape)).astype(np.float16)
        unit = [one.astype(np.float64).ravel() / np.linalg.norm(one.astype(np.float64)) for one in (a, b)]
        exact = np.linalg.norm(unit[0] - unit[1])
        assert np.linalg.norm(sketch(a).astype(float) - sketch(b).astype(float)) == pytest.approx(exact, rel=0.4)
    assert not sketch(np.zeros((1, 1, 2), np.float16)).any()


def test_removed_segments_leave_the_others_in_order() -> None:
    index = indexed(*[(float(second), float(second), 0.1) for second in range(600)])
    index.remove([1, 300, 600, 999])
    index.remove([])
    assert index.ids.tolist() == [one for one in range(1, 601) if one not in (1, 300, 600)]
    assert index.find(299 * 10**9, 300 * 10**9, None) == [301]
    assert index.count(1) == 597
