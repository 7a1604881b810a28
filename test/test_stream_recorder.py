"""The recorder through the engine's door: what of a stream is stored, and that the stream never pays for it."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
from engines import MakeEngine, feed
from fakes import GRID, FakeModel, frame, pose_at

from fvs_ros.episodic.store import EpisodeStore
from fvs_ros.sources.frame import SECOND_NS
from fvs_ros.stream.pictures import decode_jpeg
from fvs_ros.stream.recording import Episodes
from fvs_ros.stream.segment_builder import merge_blocks


@pytest.fixture
def store() -> Iterator[EpisodeStore]:
    with EpisodeStore.open(None) as made:
        yield made


@pytest.fixture
def episodes(store: EpisodeStore) -> Episodes:
    return Episodes(store, "front", "house", silence_s=math.inf)


def test_scenes_are_stored_with_their_pictures_places_and_mean_features(
    make_engine: MakeEngine, model: FakeModel, store: EpisodeStore, episodes: Episodes
) -> None:
    engine = make_engine(episodes=episodes)
    for second in range(12):
        feed(engine, frame(second, 40 if second < 6 else 200, frame_id="eye", pose=lambda x=second: pose_at(x)))
    engine.close()
    first, second_one = (stored.segment for stored in store.segments())
    assert (first.start_ns, first.end_ns, first.weight) == (0, 5 * SECOND_NS, 3)
    assert (second_one.start_ns, second_one.end_ns, second_one.weight) == (6 * SECOND_NS, 11 * SECOND_NS, 3)
    assert (first.camera, first.map_id, first.frame_id) == ("front", "house", "eye")
    assert (first.width, first.height) == (14 * GRID.width, 14 * GRID.height)
    assert first.pose == pose_at(first.keyframe_ns // SECOND_NS)
    for stored, value in zip(store.segments(), (40, 200), strict=True):
        picture = decode_jpeg(store.keyframe(stored.id) or b"")
        assert picture is not None
        assert np.abs(picture.astype(int) - value).max() <= 2
        mean = store.features(model.fingerprint(), [stored.id])[stored.id].mean
        assert mean.shape == (2, 2, 3)
        assert merge_blocks(mean).tolist() == [[value] * 3] * 4
