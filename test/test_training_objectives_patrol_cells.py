import numpy as np
import pytest

from fvs_ros.patrol.config import PatrolConfig
from fvs_ros.patrol.episode import Episode, simulate
from fvs_ros.patrol.motion import NOWHERE
from fvs_ros.patrol.visibility import SEEN_PX
from fvs_ros.training.objectives.patrol_cells import GROUPS, cell_labels


@pytest.fixture(scope="module")
def episode() -> Episode:
    return simulate(3, PatrolConfig(steps=40, dwell_s=(4, 6)))


def words(labels: np.ndarray) -> list[tuple[str, ...]]:
    """What each cell of a frame shows: kind, colour, room."""
    return [tuple(group[index] for group, index in zip(GROUPS, label, strict=True)) for label in labels]


def test_owners_are_the_pixels_that_the_episode_counts(episode: Episode) -> None:
    for frame in range(0, len(episode), 5):
        owner = episode.owners(frame)
        counted = np.bincount(owner[owner >= 0], minlength=len(episode.objects))
        assert counted.tolist() == episode.pixels[frame].tolist()


def test_a_cell_names_what_it_shows(episode: Episode) -> None:
    """Each object in view is named by some cell, and every cell that names one has pixels of it."""
    named = 0
    for frame in range(len(episode)):
        (labels,) = cell_labels(episode, [frame], 4)
        shown = words(labels)
        assert {room for _, _, room in shown} == {episode.room_name(frame)}
        objects = {f"{colour} {kind}" for kind, colour, _ in shown if kind != "nothing"}
        # A few pixels of an object may fall into each of several cells, so that none of them names it.
        surely = {episode.objects[object_id].name for object_id in np.flatnonzero(episode.pixels[frame] >= 4 * SEEN_PX)}
        possibly = {episode.objects[object_id].name for object_id in np.flatnonzero(episode.pixels[frame])}
        assert surely <= objects <= possibly
        named += len(objects)
        blocks = episode.owners(frame).reshape(4, 14, 4, 14).swapaxes(1, 2).reshape(16, -1)
        for (kind, colour, _), block in zip(shown, blocks, strict=True):
            names = [episode.objects[object_id].name for object_id in block[block >= 0]]
            if kind == "nothing":
                assert colour == "nothing"
                assert len(names) == 0 or max(names.count(name) for name in names) < 0.03 * block.size
            else:
                assert names.count(f"{colour} {kind}") == max(names.count(name) for name in set(names))
    assert named > 20


def test_the_corridor_holds_nothing(episode: Episode) -> None:
    on_the_way = np.flatnonzero(episode.rooms == NOWHERE)[:1].tolist()
    (labels,) = cell_labels(episode, on_the_way, 2)
    assert words(labels) == [("nothing", "nothing", "corridor")] * 4
