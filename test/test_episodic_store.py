"""What goes into a store comes out of it, after a restart too: segments, pictures, features, episodes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from episodic_data import LIMIT, MODEL, features, fill, ids, picture, segment

from fvs_ros.episodic.errors import Problem, StoreError
from fvs_ros.episodic.information import Gap, Opener
from fvs_ros.episodic.store import EpisodeStore, Resume
from fvs_ros.sources.frame import SECOND_NS


@pytest.fixture(params=["disk", "RAM"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[EpisodeStore]:
    with EpisodeStore.open(tmp_path / "store" if request.param == "disk" else None, LIMIT) as opened:
        yield opened


def test_a_segment_comes_back_as_it_went_in(store: EpisodeStore) -> None:
    first, second = segment(1, x=2.5), segment(3)
    appended = store.append(first, picture(1), features(0.5))
    assert (appended.id, appended.episode, appended.evicted) == (1, 1, ())
    store.append(second, picture(3))
    assert [(stored.id, stored.episode, stored.segment) for stored in store.segments()] == [
        (1, 1, first),
        (2, 1, second),
    ]
    assert (store.keyframe(1), store.keyframe(2), store.keyframe(3)) == (picture(1), picture(3), None)
    (found,) = store.features(MODEL, [1, 2, 3]).items()
    assert found[0] == 1
    np.testing.assert_array_equal(found[1].mean, features(0.5).mean)
    np.testing.assert_array_equal(found[1].keys, features(0.5).keys)
    np.testing.assert_array_equal(store.keys(MODEL)[1], features(0.5).keys)


def test_segments_are_found_by_time_and_episode(store: EpisodeStore) -> None:
    fill(store, range(1, 5))
    assert store.begin_episode("reset") == 2
    fill(store, range(3, 6))

    def found(since: float | None, until: float | None, episode: int | None = None) -> list[int]:
        since_ns, until_ns = (None if second is None else round(second * SECOND_NS) for second in (since, until))
        return [stored.id for stored in store.segments(since_ns, until_ns, episode)]

    assert found(None, None) == [1, 2, 3, 4, 5, 6, 7]
    assert found(3.5, 4) == [3, 4, 5, 6]
    assert found(3.51, 3.99) == []
    assert found(3, None, 2) == [5, 6, 7]
    assert found(None, 2, 1) == [1, 2]


def test_features_of_two_models_live_beside_each_other(store: EpisodeStore) -> None:
    fill(store, range(4))
    assert store.missing_features(MODEL) == [4, 3, 2, 1]
    assert store.put_features(2, features(0.1)) == ()
    store.put_features(2, features(0.9, "model-2"))
    store.put_features(4, features(0.4))
    store.put_features(99, features(0.4))
    assert store.missing_features(MODEL) == [3, 1]
    assert store.missing_features("model-2") == [4, 3, 1]
    assert list(store.keys("model-2")) == [2]
    assert store.info().models == {MODEL: 2, "model-2": 1}
    store.put_features(2, features(0.2))
    np.testing.assert_array_equal(store.keys(MODEL)[2], features(0.2).keys)


def reopen(folder: Path, **options: object) -> EpisodeStore:
    return EpisodeStore.open(folder, LIMIT, **options)  # type: ignore[arg-type]


def test_everything_outlasts_a_restart(tmp_path: Path) -> None:
    with reopen(tmp_path) as store:
        store.append(segment(1, x=1.0), picture(1), features(0.3))
        fill(store, range(2, 30))
        before = store.segments(), store.info()
    with reopen(tmp_path) as store:
        assert (store.segments(), store.info().episodes) == (before[0], before[1].episodes)
        assert [store.keyframe(identifier) for identifier in ids(store)] == [picture(second) for second in range(1, 30)]
        assert store.info().models == {MODEL: 1}
        assert store.notices() == ()


@pytest.mark.parametrize(
    ("resume", "second", "episode", "gaps"),
    [
        (Resume.AUTO, 9, 1, (Gap(2 * SECOND_NS + SECOND_NS // 2, 9 * SECOND_NS),)),
        (Resume.AUTO, 1, 2, ()),
        (Resume.ALWAYS, 1, 1, (Gap(2 * SECOND_NS + SECOND_NS // 2, SECOND_NS),)),
        (Resume.NEVER, 9, 2, ()),
    ],
    ids=lambda value: value.name if isinstance(value, Resume) else None,
)
def test_a_restart_continues_the_episode_or_not(
    tmp_path: Path, resume: Resume, second: int, episode: int, gaps: tuple[Gap, ...]
) -> None:
    with reopen(tmp_path) as store:
        fill(store, range(1, 3))
    with reopen(tmp_path, resume=resume) as store:
        assert store.append(segment(second), picture(second)).episode == episode
        assert store.append(segment(second + 1), picture(second)).episode == episode
        newest = store.info().episodes[-1]
        assert (newest.number, newest.gaps) == (episode, gaps)


def test_a_clock_that_is_set_back_begins_an_episode(store: EpisodeStore) -> None:
    fill(store, range(5, 8))
    assert store.append(segment(6), picture(6)).episode == 2
    assert [(one.number, one.reason, one.segments) for one in store.info().episodes] == [
        (1, "start", 3),
        (2, "the stamps went back", 1),
    ]


def test_an_episode_without_segments_leaves_no_trace(store: EpisodeStore) -> None:
    for _ in range(5):
        store.begin_episode("reset")
    fill(store, range(1))
    assert [(one.number, one.segments) for one in store.info().episodes] == [(5, 1)]


def test_a_pose_of_another_map_is_never_returned(tmp_path: Path) -> None:
    with reopen(tmp_path) as store:
        store.append(segment(1, x=1.0, map_id="house"), picture(1))
        store.append(segment(2, x=2.0, map_id="shed"), picture(2))
    for map_id, known in (
        ("house", [True, False]),
        ("shed", [False, True]),
        ("", [False, False]),
        (None, [True, True]),
    ):
        with reopen(tmp_path, opener=Opener(map_id=map_id)) as store:
            found = [stored.segment for stored in store.segments()]
            assert [one.pose is not None for one in found] == known
            assert [one.spread is not None for one in found] == known
            assert [one.map_id for one in found] == ["house", "shed"]


def test_another_camera_size_or_model_is_told_and_works(tmp_path: Path) -> None:
    opener = Opener("front", 64, 48, MODEL)
    with reopen(tmp_path, opener=opener) as store:
        store.append(segment(1), picture(1), features(0.1))
        assert store.notices() == ()
    with reopen(tmp_path, opener=Opener("rear", 64, 48, MODEL)) as store:
        (notice,) = store.notices()
        assert notice.problem is Problem.ANOTHER_CAMERA
        assert "front beside those of rear" in notice.message
    with reopen(tmp_path, opener=Opener("front", 32, 24, MODEL)) as store:
        (notice,) = store.notices()
        assert notice.problem is Problem.ANOTHER_PICTURE_SIZE
        assert "64 x 48 pixels, and now come 32 x 24" in notice.message
    with reopen(tmp_path, opener=Opener("front", 64, 48, "model-2")) as store:
        (notice,) = store.notices()
        assert notice.problem is Problem.ANOTHER_MODEL
        assert "1 of 1 segments" in notice.message
        store.put_features(1, features(0.1, "model-2"))
        assert store.notices() == ()


CALLS: list[Callable[[EpisodeStore], object]] = [
    lambda store: store.append(segment(1), b"x"),
    lambda store: store.segments(),
    lambda store: store.keyframe(1),
    lambda store: store.keys(MODEL),
    lambda store: store.begin_episode("reset"),
    lambda store: store.forget(),
    lambda store: store.info(),
]


@pytest.mark.parametrize("call", CALLS)
def test_a_closed_store_says_so(store: EpisodeStore, call: Callable[[EpisodeStore], object]) -> None:
    fill(store, range(1))
    store.close()
    store.close()
    with pytest.raises(StoreError) as refused:
        call(store)
    assert refused.value.problem is Problem.CLOSED


@pytest.mark.slow
def test_a_days_store_opens_and_answers_by_time(tmp_path: Path) -> None:
    """A segment every four seconds for 22 hours; the time that it takes stands in docs/architecture.md."""
    with EpisodeStore.open(tmp_path) as store:
        for second in range(0, 80_000, 4):
            store.append(segment(second, x=second % 97), picture(second), features(second / 80_000))
    with EpisodeStore.open(tmp_path) as store:
        found = store.segments(40_000 * SECOND_NS, 40_036 * SECOND_NS)
        assert [stored.segment.start_ns // SECOND_NS for stored in found] == list(range(40_000, 40_037, 4))
        assert [store.keyframe(stored.id) for stored in found] == [
            picture(second) for second in range(40_000, 40_037, 4)
        ]
        assert len(store.keys(MODEL)) == store.info().segments == 20_000
        assert (store.info().evicted, store.notices()) == (0, ())
