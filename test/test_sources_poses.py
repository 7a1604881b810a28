"""Poses between measured poses."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fvs_ros.sources.frame import Pose
from fvs_ros.sources.poses import PoseBuffer, interpolate

MS = 1_000_000


def yawed(x: float, yaw: float, frame_id: str = "odom") -> Pose:
    return Pose(frame_id, (x, 0.0, 0.0), (0.0, 0.0, math.sin(yaw / 2), math.cos(yaw / 2)))


def known(buffer: PoseBuffer, stamp_ns: int) -> Pose:
    pose = buffer.at(stamp_ns)
    assert pose is not None
    return pose


def yaw_of(pose: Pose) -> float:
    x, y, z, w = pose.orientation
    return math.atan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))


def test_between_two_poses_lies_the_pose_between() -> None:
    buffer = PoseBuffer(tolerance_s=0.1)
    buffer.add(0, yawed(1.0, 0.0))
    buffer.add(100 * MS, yawed(2.0, 1.0))
    pose = known(buffer, 25 * MS)
    assert pose.frame_id == "odom"
    assert pose.position == pytest.approx((1.25, 0, 0))
    assert yaw_of(pose) == pytest.approx(0.25)


def test_the_way_over_pi_is_the_short_one() -> None:
    """Averaging the angles would point backwards."""
    middle = interpolate(yawed(0, math.pi - 0.2), yawed(0, -math.pi + 0.2), 0.5)
    assert abs(yaw_of(middle)) == pytest.approx(math.pi)


@given(st.floats(-3.1, 3.1), st.floats(-3.1, 3.1), st.floats(0, 1))
def test_interpolated_quaternions_are_units_and_turn_evenly(start: float, turn: float, share: float) -> None:
    pose = interpolate(yawed(0, start), yawed(0, start + turn), share)
    assert math.hypot(*pose.orientation) == pytest.approx(1)
    error = math.remainder(yaw_of(pose) - (start + share * turn), math.tau)
    assert error == pytest.approx(0, abs=1e-6)


def test_a_pose_is_unknown_where_none_was_measured_nearby() -> None:
    buffer = PoseBuffer(tolerance_s=0.1)
    assert buffer.at(0) is None
    buffer.add(1000 * MS, yawed(1.0, 0.0))
    buffer.add(2000 * MS, yawed(2.0, 0.0))
    assert buffer.at(1500 * MS) is None
    assert buffer.at(899 * MS) is None
    assert known(buffer, 900 * MS).position[0] == 1.0
    assert known(buffer, 1100 * MS).position[0] == 1.0
    assert known(buffer, 2099 * MS).position[0] == 2.0


def test_poses_of_different_frames_are_not_mixed() -> None:
    buffer = PoseBuffer(tolerance_s=1)
    buffer.add(0, yawed(1.0, 0.0, "map"))
    buffer.add(100 * MS, yawed(9.0, 0.0, "odom"))
    assert buffer.at(90 * MS) == yawed(1.0, 0.0, "map")


def test_a_stamp_that_jumps_back_begins_anew_and_a_late_one_is_left_out() -> None:
    buffer = PoseBuffer(tolerance_s=0.1)
    buffer.add(10_000 * MS, yawed(1.0, 0.0))
    buffer.add(9_950 * MS, yawed(5.0, 0.0))
    assert known(buffer, 9_950 * MS).position[0] == 1.0
    buffer.add(1_000 * MS, yawed(2.0, 0.0))
    assert buffer.at(10_000 * MS) is None
    assert known(buffer, 1_000 * MS).position[0] == 2.0


def test_the_newest_poses_are_kept_and_no_more() -> None:
    buffer = PoseBuffer(tolerance_s=0.001, capacity=100)
    for index in range(1000):
        buffer.add(index * 10 * MS, yawed(float(index), 0.0))
        assert len(buffer._poses) <= 150
    assert buffer.at(0) is None
    assert known(buffer, 900 * 10 * MS).position[0] == 900.0


@pytest.mark.parametrize(
    "pose",
    [
        Pose("odom", (0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 0.0)),
        Pose("odom", (0.0, 0.0, 0.0), (0.0, 0.0, math.nan, 1.0)),
        Pose("odom", (math.inf, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0)),
    ],
)
def test_a_pose_that_is_none_is_refused(pose: Pose) -> None:
    buffer = PoseBuffer(tolerance_s=1)
    with pytest.raises(ValueError, match="must be finite"):
        buffer.add(0, pose)
    assert buffer.at(0) is None
