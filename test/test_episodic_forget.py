"""What is forgotten is in no byte of any file; the rest stays as it was."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from episodic_data import LIMIT, MODEL, features, folder_bytes, ids, mark, picture, segment

from fvs_ros.episodic.database import Database
from fvs_ros.episodic.information import Opener
from fvs_ros.episodic.store import EpisodeStore
from fvs_ros.episodic.writer import Writer
from fvs_ros.sources.frame import SECOND_NS


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A full store that has evicted, in which rows were moved and replaced; segment n is of second n."""
    folder, order = tmp_path_factory.mktemp("full"), random.Random(3)
    with EpisodeStore.open(folder, LIMIT, opener=Opener(fingerprint=MODEL)) as store:
        for episode in range(3):
            store.begin_episode(f"reason {episode}")
            for second in range(episode * 150 + 1, episode * 150 + 151):
                jpeg = mark(second) * order.choice([4, 20, 60, 250, 270, 600])
                appended = store.append(segment(second, x=float(second)), jpeg, features(second / 100))
                assert appended.id == second
                if order.random() < 0.3:
                    store.put_features(order.choice(ids(store)), features(0.5))
    return folder


@pytest.fixture
def folder(full: Path, tmp_path: Path) -> Path:
    """A copy of it, of the test's own."""
    return Path(shutil.copytree(full, tmp_path / "store"))


@pytest.mark.parametrize(
    ("forget", "gone"),
    [
        (lambda store: store.forget(), lambda second: True),
        (lambda store: store.forget(episode=2), lambda second: 150 < second <= 300),
        (
            lambda store: store.forget(200 * SECOND_NS, 380 * SECOND_NS + 5),
            lambda second: 200 <= second <= 380,
        ),
        (lambda store: store.forget(since_ns=310 * SECOND_NS, episode=3), lambda second: second >= 310),
    ],
    ids=["all", "episode", "range", "range of an episode"],
)
def test_no_byte_of_what_is_forgotten_stays(
    folder: Path, forget: Callable[[EpisodeStore], tuple[int, ...]], gone: Callable[[int], bool]
) -> None:
    with EpisodeStore.open(folder) as store:
        before = ids(store)
        kept = [one for one in before if not gone(one)]
        pictures = {one: store.keyframe(one) for one in kept}
        in_files = folder_bytes(folder)
        assert all(mark(one) in in_files for one in before)
        assert sorted(forget(store)) == [one for one in before if gone(one)]
        in_files = folder_bytes(folder)
        # The evicted ones are gone from the files as well.
        assert [one for one in range(1, 451) if mark(one) in in_files] == kept
        stamps = [one for one in before if gone(one) and (one * SECOND_NS).to_bytes(8, "big")[2:] in in_files]
        assert stamps == []
        assert ids(store) == kept
        assert {one: store.keyframe(one) for one in kept} == pictures
        assert set(store.keys(MODEL)) <= set(kept)
        assert store._database.execute("PRAGMA integrity_check") == [("ok",)]
        assert store.append(segment(1_000), picture(1_000)).id == 451
    with EpisodeStore.open(folder) as store:
        assert ids(store) == [*kept, 451]


def test_the_files_shrink(folder: Path) -> None:
    with EpisodeStore.open(folder) as store:
        store.forget()
        assert len(folder_bytes(folder)) < 100_000
        assert [(one.number, one.segments) for one in store.info().episodes] == [(3, 0)]


@pytest.mark.parametrize("step", ["delete", "scrub"])
def test_a_forgetting_that_was_interrupted_is_finished_by_the_next_opening(
    folder: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    store = EpisodeStore.open(folder)
    with monkeypatch.context() as patch:
        patch.setattr(Writer if step == "delete" else Database, step, interrupted)
        with pytest.raises(KeyboardInterrupt):
            store.forget(episode=2)
    store.close()
    assert [one for one in range(151, 301) if mark(one) in folder_bytes(folder)] != [] or step == "scrub"
    with EpisodeStore.open(folder, read_only=True) as reader:
        assert not [one for one in ids(reader) if 150 < one <= 300]
    with EpisodeStore.open(folder) as store:
        kept = ids(store)
        assert not [one for one in kept if 150 < one <= 300]
        in_files = folder_bytes(folder)
        assert [one for one in range(1, 451) if mark(one) in in_files] == kept


def test_what_is_forgotten_in_ram_is_gone() -> None:
    with EpisodeStore.open(None, LIMIT) as store:
        store.append(segment(1), picture(1), features(0.1))
        assert store.forget(since_ns=0) == (1,)
        assert (ids(store), store.keyframe(1), store.keys(MODEL), store.info().models) == ([], None, {}, {})
        assert store.forget() == ()
