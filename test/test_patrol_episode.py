from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from fvs_ros.patrol.config import PatrolConfig, day_config
from fvs_ros.patrol.episode import EPOCH_NS, Episode, simulate
from fvs_ros.patrol.errors import PatrolError
from fvs_ros.patrol.motion import NOWHERE, SPEED_M_S
from fvs_ros.patrol.truth import EpisodeRecord
from fvs_ros.patrol.visibility import SEEN_PX, camera_in_base, camera_pose, visible_pixels
from fvs_ros.patrol.world import SceneObject

CONFIG = PatrolConfig(steps=100, rooms=3, views=3)


@pytest.fixture(scope="module")
def episode() -> Episode:
    return simulate(11, CONFIG)


def arrays(episode: Episode) -> list[np.ndarray]:
    return [episode.stamps_ns, episode.poses, episode.rooms, episode.views, episode.visits, episode.pixels]


def test_the_same_seed_gives_the_same_bytes(episode: Episode) -> None:
    again = simulate(11, CONFIG)
    assert again.world == episode.world
    assert [array.tobytes() for array in arrays(again)] == [array.tobytes() for array in arrays(episode)]
    assert again.gain.tobytes() == episode.gain.tobytes()
    assert simulate(12, CONFIG).poses.tobytes() != episode.poses.tobytes()


@pytest.mark.parametrize("rate", [1, 4])
def test_stamps_follow_the_frame_rate(rate: int) -> None:
    episode = simulate(2, dataclasses.replace(CONFIG, steps=5, frame_rate=rate))
    assert len(episode) == 10 * rate
    assert set(np.diff(episode.stamps_ns)) == {10**9 // rate}


def test_episodes_of_other_seeds_begin_on_other_days() -> None:
    one, other = (simulate(seed, PatrolConfig(steps=1)) for seed in (0, 1))
    assert other.stamps_ns[0] - one.stamps_ns[0] == 86_400 * 10**9


def test_the_robot_moves_no_faster_than_it_can(episode: Episode) -> None:
    jitter = 0.2
    moved = np.hypot(*np.diff(episode.poses[:, :2], axis=0).T)
    assert moved.max() < SPEED_M_S + jitter
    # It stays at each view, and it does get around.
    staying = (episode.views[1:] == episode.views[:-1]) & (episode.views[1:] != NOWHERE)
    assert moved[staying].max() < jitter
    assert np.ptp(episode.poses[:, 0]) > 5


def test_the_robot_is_where_its_room_is(episode: Episode) -> None:
    for frame in range(len(episode)):
        x, y, _ = episode.poses[frame]
        if episode.rooms[frame] == NOWHERE:
            assert abs(y) < 1.3
            assert episode.room_name(frame) == "corridor"
        else:
            room = episode.world.rooms[episode.rooms[frame]]
            assert abs(x - room.origin[0]) < room.width / 2
            assert 0 <= abs(y) - abs(room.origin[1]) < room.depth
            assert np.sign(y) == np.sign(room.origin[1])
            assert episode.room_name(frame) == room.name


def test_cuts_show_another_view_at_every_step() -> None:
    config = PatrolConfig(steps=12, rooms=3, views=2, drive=False, dwell_s=(2, 2))
    episode = simulate(4, config)
    assert (episode.views != NOWHERE).all()
    assert (episode.views[::2] == episode.views[1::2]).all()
    places = list(zip(episode.rooms[::2].tolist(), episode.views[::2].tolist(), strict=True))
    assert len(set(places[:6])) == 6


def test_between_two_visits_to_the_only_room_there_is_the_corridor() -> None:
    config = PatrolConfig(steps=10, rooms=1, views=1, drive=False, dwell_s=(4, 4))
    rooms = simulate(4, config).rooms.tolist()
    assert rooms[:12] == [0, 0, 0, 0, NOWHERE, NOWHERE, 0, 0, 0, 0, NOWHERE, NOWHERE]


def test_objects_at_the_view_are_seen_and_those_of_other_rooms_are_not(episode: Episode) -> None:
    for frame in np.flatnonzero(episode.views != NOWHERE):
        placements = episode.world.visits[episode.visits[frame]].placements
        for object_id in range(len(episode.objects)):
            placement = placements.get(object_id)
            at = None if placement is None else (placement.room, placement.view)
            if at == (episode.rooms[frame], episode.views[frame]):
                assert episode.pixels[frame, object_id] >= SEEN_PX
            elif at is None or at[0] != episode.rooms[frame]:
                assert episode.pixels[frame, object_id] == 0
    assert not episode.pixels[episode.rooms == NOWHERE].any()


def test_the_camera_is_mounted_as_rep_103_says() -> None:
    mounted = camera_in_base()
    np.testing.assert_allclose(mounted.rotation.T @ mounted.rotation, np.eye(3), atol=1e-12)
    assert np.linalg.det(mounted.rotation) == pytest.approx(1.0)
    right, down, ahead = mounted.rotation.T
    np.testing.assert_allclose(right, [0, -1, 0], atol=1e-12)
    assert ahead[0] > 0.98
    assert ahead[2] == pytest.approx(-np.sin(np.deg2rad(8)))
    assert down[2] < -0.98
    turned = camera_pose(2.0, 3.0, np.pi / 2)
    np.testing.assert_allclose(turned.position, [2.0, 3.15, 0.85], atol=1e-12)
    np.testing.assert_allclose(turned.rotation[:, 0], [1, 0, 0], atol=1e-12)


def test_pixels_are_counted_as_geometry_says() -> None:
    # A ball of radius 0.33 m whose middle is 3 m ahead of a camera with 48.5 pixels of focal length.
    camera = camera_pose(0.0, 0.0, 0.0)
    ball = SceneObject("ball", "red", 1.0, 0.0)
    distance = np.hypot(3.0 - 0.15, 0.85 - 0.33)
    expected = np.pi * (0.33 / distance * 28 / np.tan(np.pi / 6)) ** 2
    count = visible_pixels(camera, [(ball, (3.0, 0.0), 0.0)])
    assert count[0] == pytest.approx(expected, rel=0.08)
    # Twice as many pixels a side are four times as many pixels.
    assert visible_pixels(camera, [(ball, (3.0, 0.0), 0.0)], grid=112)[0] == pytest.approx(4 * count[0], rel=0.05)


def test_the_nearer_object_hides_the_farther_one() -> None:
    camera = camera_pose(0.0, 0.0, 0.0)
    box, ball = SceneObject("box", "red", 1.1, 0.0), SceneObject("ball", "blue", 0.9, 0.0)
    near, far = (box, (1.8, 0.0), 0.0), (ball, (2.8, 0.0), 0.0)
    alone = visible_pixels(camera, [far])[0]
    for order in ([near, far], [far, near]):
        counts = visible_pixels(camera, order)
        assert counts[order.index(far)] < 0.4 * alone
        assert counts[order.index(near)] == visible_pixels(camera, [near])[0]


@pytest.mark.parametrize("at", [(-3.0, 0.0), (2.0, 6.0), (0.16, 0.0)], ids=["behind", "aside", "inside"])
def test_what_is_outside_the_picture_has_no_pixels(at: tuple[float, float]) -> None:
    assert visible_pixels(camera_pose(0.0, 0.0, 0.0), [(SceneObject("lamp", "red", 1.0, 0.0), at, 0.0)]).tolist() == [0]


def test_a_glance_is_doubtful_and_two_seconds_are_a_sighting(episode: Episode) -> None:
    pixels = np.zeros_like(episode.pixels)
    frame = int(np.flatnonzero(episode.views != NOWHERE)[0])
    visit_frames = np.flatnonzero(episode.visits == episode.visits[frame])
    pixels[visit_frames[1], 0] = SEEN_PX
    pixels[visit_frames[1:3], 1] = SEEN_PX
    pixels[visit_frames[1:3], 2] = SEEN_PX - 1
    pixels[visit_frames[1:3], 3] = 4
    record = EpisodeRecord(dataclasses.replace(episode, pixels=pixels))
    truth = record.until(len(episode) - 1)
    assert list(truth.seen) == [1]
    assert truth.doubtful == {0, 2}
    # Until its second frame, the sighting is doubtful too.
    assert record.until(int(visit_frames[1])).doubtful == {0, 1, 2}


def test_an_episode_of_one_frame_is_refused(episode: Episode) -> None:
    cut = {field: getattr(episode, field)[:1] for field in ("stamps_ns", "poses", "rooms", "views", "visits", "pixels")}
    with pytest.raises(PatrolError, match="has 1 frame"):
        dataclasses.replace(episode, **cut)


@pytest.mark.parametrize("seed", [0, 3_999, 4_000, 900_000, 999_999, 2**31])
def test_stamps_fit_the_seconds_of_a_ros_message(seed: int) -> None:
    episode = simulate(seed, PatrolConfig(steps=2))
    assert EPOCH_NS <= episode.stamps_ns[0] < episode.stamps_ns[-1] < 2**31 * 10**9


DAY = 86_400 * 10**9


@pytest.fixture(scope="module")
def hours() -> Episode:
    return simulate(870_001, day_config(3060))


def test_a_clock_begins_at_a_whole_minute_of_the_seeds_day(hours: Episode) -> None:
    minutes = {simulate(seed, day_config(1)).stamps_ns[0] % DAY / 60e9 for seed in range(40)}
    assert len(minutes) > 30
    assert all(minute == int(minute) for minute in minutes)
    assert max(minutes) - min(minutes) > 1000
    assert hours.time_of_day_s(0) == int(hours.stamps_ns[0]) % DAY / 1e9
    assert hours.time_of_day_s(61) == hours.time_of_day_s(0) + 61
    for seed in (0, 3_999, 999_999):
        stamps = simulate(seed, day_config(2)).stamps_ns
        assert (stamps[0] - EPOCH_NS) // DAY in (seed % 4_000 - 1, seed % 4_000)
        assert stamps[-1] < 2**31 * 10**9


def test_a_resting_robot_shows_one_picture_until_its_light_changes(hours: Episode) -> None:
    still = hours.pictures != np.arange(len(hours))
    assert 0.3 < still.mean() < 0.7
    assert (hours.pictures <= np.arange(len(hours))).all()
    assert (np.arange(len(hours)) - hours.pictures).max() == 59
    for name in ("poses", "gain", "pixels", "rooms", "views", "visits"):
        array = getattr(hours, name)
        assert (array == array[hours.pictures]).all(), name
    # Only where it rests: at the last view of its visit.
    for visit in np.unique(hours.visits[still]):
        plan = hours.world.visits[visit]
        assert plan.rest_s > 0
        assert set(hours.views[still & (hours.visits == visit)]) == {plan.views[-1]}
    assert (simulate(1, CONFIG).pictures == np.arange(200)).all()


def test_nights_are_darker_and_warmer_than_days() -> None:
    day = simulate(2, day_config(43_200))
    hour = np.array([day.time_of_day_s(frame) for frame in range(len(day))]) // 3600
    noon, night = day.gain[hour == 12].mean(axis=0), day.gain[hour == 0].mean(axis=0)
    assert (night < 0.85 * noon).all()
    assert (night > 0.4 * noon).all()
    assert night[2] / night[0] < 0.9 * noon[2] / noon[0]
    means = [day.gain[hour == one].mean() for one in range(24)]
    assert means[18] < means[15]
    assert means[5] < means[8]
