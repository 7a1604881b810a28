"""The last answer for screens and planners: `~/moments` as markers, and `~/place`, where to go to see it again."""

from __future__ import annotations

import math
from collections.abc import Callable

from geometry_msgs.msg import Point, PoseStamped, Quaternion, Vector3
from rclpy.node import Node
from std_msgs.msg import ColorRGBA, Header
from visualization_msgs.msg import Marker, MarkerArray

from fvs_ros.nodes.messages import pose_message
from fvs_ros.nodes.qos import latched_qos
from fvs_ros.sources.frame import SECOND_NS, Pose
from fvs_ros.sources.poses import Quaternion as Rotation
from fvs_ros.sources.poses import heading, multiplied
from fvs_ros.stream.types import Answer, Moment
from fvs_ros.stream.words import age_text

# An arrow as long as a small robot, and its label above it, in metres.
ARROW = Vector3(x=0.5, y=0.07, z=0.07)
LABEL_HEIGHT_M, LABEL_SIZE_M = 0.25, 0.15
# From the least relevant moment to the most: blue to orange, apart for colour-blind eyes too (Okabe and Ito 2008).
COOL, WARM = (0.34, 0.71, 0.91), (0.84, 0.37, 0.0)
UNRANKED = (0.6, 0.6, 0.6)
# From the optical frame of a camera (z ahead, x right) to its body (x ahead, y left), as REP-103 defines both.
OPTICAL_TO_BODY = (0.5, -0.5, 0.5, 0.5)


class AnswerTopics:
    """Publishes where the moments of the last answer were seen, both topics latched.

    Of an answer without poses there is no place; `~/place` then has nothing for late subscribers, rather than the place
    of another answer.

    Args:
        node: gets the topics.
        of_camera: whether poses are the camera's own, so that one in an optical frame looks along its z axis.
    """

    def __init__(self, node: Node, of_camera: Callable[[], bool]) -> None:
        self._node = node
        self._of_camera = of_camera
        self._moments = node.create_publisher(MarkerArray, "~/moments", latched_qos())
        self._new_place_publisher()
        # Whose markers nobody has subscribed to yet.
        self._unseen: Answer | None = None

    def _new_place_publisher(self) -> None:
        self._place = self._node.create_publisher(PoseStamped, "~/place", latched_qos())
        self._has_place = False

    def show(self, answer: Answer) -> None:
        """Takes a new answer. On the executor's thread."""
        of_camera = self._of_camera()
        place = best_place(answer.moments, of_camera)
        if place is not None:
            self._place.publish(place)
            self._has_place = True
        elif self._has_place:
            # DDS keeps the last message as long as its publisher lives.
            self._node.destroy_publisher(self._place)
            self._new_place_publisher()
        self._unseen = answer
        self.look()

    def look(self) -> None:
        """Builds the last answer's markers if somebody has subscribed since; called every second."""
        if self._unseen is not None and self._moments.get_subscription_count():
            answer, self._unseen = self._unseen, None
            self._moments.publish(MarkerArray(markers=markers(answer, self._of_camera())))


def best_place(moments: tuple[Moment, ...], of_camera: bool) -> PoseStamped | None:
    """Where the most relevant moment with a pose was seen from, looking the same way on level ground; None without one.

    Args:
        moments: the most relevant first.
        of_camera: see `AnswerTopics`.
    """
    for moment in moments:
        if moment.pose is not None:
            yaw = heading(facing(moment.pose, moment.frame_id, of_camera))
            level = Pose(moment.pose.frame_id, moment.pose.position, (0.0, 0.0, math.sin(yaw / 2), math.cos(yaw / 2)))
            return pose_message(level, moment.stamp_ns)
    return None


def facing(pose: Pose, camera_frame: str, of_camera: bool) -> Rotation:
    """The rotation whose x axis points to what was seen.

    Args:
        pose: of the camera or of the robot.
        camera_frame: the camera's coordinate frame; an optical one says so in its name, by REP-103.
        of_camera: see `AnswerTopics`.
    """
    if of_camera and "optical" in camera_frame:
        return multiplied(pose.orientation, OPTICAL_TO_BODY)
    return pose.orientation


def markers(answer: Answer, of_camera: bool) -> list[Marker]:
    """An arrow and a label for each moment with a pose, in place of all that were shown before."""
    most = max((moment.relevance or 0.0 for moment in answer.moments), default=0.0)
    shown = [Marker(action=Marker.DELETEALL)]
    for rank, moment in enumerate(answer.moments, 1):
        if moment.pose is None:
            continue
        share = None if moment.relevance is None or not most else moment.relevance / most
        # Without a stamp: the newest transform, as that of the moment may be long gone from tf.
        header = Header(frame_id=moment.pose.frame_id)
        arrow = Marker(header=header, ns="arrows", id=rank, type=Marker.ARROW, scale=ARROW, color=colour(share))
        arrow.pose = pose_message(moment.pose, moment.stamp_ns).pose
        arrow.pose.orientation = Quaternion(
            **dict(zip("xyzw", facing(moment.pose, moment.frame_id, of_camera), strict=True))
        )
        label = Marker(header=header, ns="labels", id=rank, type=Marker.TEXT_VIEW_FACING, color=colour(share))
        label.pose.position = Point(
            x=arrow.pose.position.x, y=arrow.pose.position.y, z=arrow.pose.position.z + LABEL_HEIGHT_M
        )
        label.scale.z = LABEL_SIZE_M
        label.text = label_text(rank, moment, answer.end_ns)
        shown += [arrow, label]
    return shown


def label_text(rank: int, moment: Moment, now_ns: int) -> str:
    """Such as "1: 64%, 3 min ago"."""
    relevance = "" if moment.relevance is None else f"{moment.relevance:.0%}, "
    return f"{rank}: {relevance}{age_text((now_ns - moment.stamp_ns) / SECOND_NS)}"


def colour(share: float | None) -> ColorRGBA:
    """The colour of a relevance as a share of the highest one, 0 to 1; None is grey."""
    mixed = UNRANKED if share is None else [cool + share * (warm - cool) for cool, warm in zip(COOL, WARM, strict=True)]
    return ColorRGBA(**dict(zip("rgb", mixed, strict=True)), a=1.0)
