"""Where the moments of the last answer were seen: `~/moments` and `~/place`."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from conftest import require_ros, ros_domain
from fakes import PATIENCE_S

require_ros()
import rclpy
from geometry_msgs.msg import PoseStamped
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from visualization_msgs.msg import Marker, MarkerArray

from fvs_ros.nodes import answer_topics
from fvs_ros.nodes.answer_topics import AnswerTopics, best_place, facing, label_text, markers
from fvs_ros.nodes.messages import time_message
from fvs_ros.nodes.qos import latched_qos
from fvs_ros.sources.frame import SECOND_NS, Pose
from fvs_ros.sources.poses import heading
from fvs_ros.stream.types import Answer, Moment

UPRIGHT = (0.0, 0.0, 0.0, 1.0)
# Of an optical frame that looks along the map's x axis: z ahead, x to the right, y down.
OPTICAL_AHEAD = (-0.5, 0.5, -0.5, 0.5)
# A quarter turn to the left.
LEFT = (0.0, 0.0, math.sqrt(0.5), math.sqrt(0.5))


def moment(second: float, x: float | None, relevance: float | None = None, frame_id: str = "camera") -> Moment:
    stamp_ns = round(second * SECOND_NS)
    pose = None if x is None else Pose("map", (x, 2.0, 0.5), UPRIGHT)
    return Moment(stamp_ns, stamp_ns, stamp_ns, 1.0, frame_id, pose, relevance)


def answer(*moments: Moment) -> Answer:
    return Answer("A door.", moments, 7, 0, 300 * SECOND_NS, 12, 0.5, 1.5, "tiny")


SEEN = answer(moment(120, None, 0.5), moment(100, 1.0, 0.25), moment(299, 3.0, 0.05))


def test_the_place_is_that_of_the_most_relevant_moment_with_a_pose() -> None:
    place = best_place(SEEN.moments, of_camera=False)
    assert place is not None
    assert (place.header.frame_id, place.header.stamp) == ("map", time_message(100 * SECOND_NS))
    assert (place.pose.position.x, place.pose.position.y, place.pose.position.z) == (1.0, 2.0, 0.5)
    assert best_place(answer(moment(1, None)).moments, of_camera=False) is None


@pytest.mark.parametrize(
    ("orientation", "of_camera", "frame_id", "degrees"),
    [
        (UPRIGHT, False, "camera_optical_frame", 0),
        (LEFT, False, "camera", 90),
        (LEFT, True, "camera_link", 90),
        (OPTICAL_AHEAD, True, "camera_optical_frame", 0),
        # The same turned by 90 degrees about the vertical: LEFT times OPTICAL_AHEAD.
        ((-math.sqrt(0.5), 0.0, 0.0, math.sqrt(0.5)), True, "front_optical", 90),
    ],
)
def test_the_place_looks_where_the_camera_looked(
    orientation: tuple[float, float, float, float], of_camera: bool, frame_id: str, degrees: float
) -> None:
    seen = replace(moment(1, 0.0, frame_id=frame_id), pose=Pose("map", (0.0, 0.0, 0.0), orientation))
    assert seen.pose is not None
    assert math.degrees(heading(facing(seen.pose, frame_id, of_camera))) == pytest.approx(degrees, abs=1e-6)
    place = best_place((seen,), of_camera)
    assert place is not None
    turned = place.pose.orientation
    assert (turned.x, turned.y) == (0.0, 0.0), "level, as a robot drives"
    assert math.degrees(2 * math.atan2(turned.z, turned.w)) == pytest.approx(degrees, abs=1e-6)


def test_each_moment_with_a_pose_has_an_arrow_and_a_label() -> None:
    cleared, *shown = markers(SEEN, of_camera=False)
    assert cleared.action == Marker.DELETEALL
    assert [(one.type, one.id) for one in shown] == [
        (Marker.ARROW, 2),
        (Marker.TEXT_VIEW_FACING, 2),
        (Marker.ARROW, 3),
        (Marker.TEXT_VIEW_FACING, 3),
    ]
    assert {(one.header.frame_id, one.header.stamp.sec) for one in shown} == {("map", 0)}
    assert [one.text for one in shown if one.text] == ["2: 25%, 3 min ago", "3: 5%, now"]
    assert len({(one.ns, one.id) for one in shown}) == len(shown)
    arrow, label = shown[0], shown[1]
    assert (arrow.pose.position.x, label.pose.position.x) == (1.0, 1.0)
    assert label.pose.position.z > arrow.pose.position.z
    assert arrow.scale.x > arrow.scale.y > 0
    assert all(one.color.a == 1.0 for one in shown)
    warmth = [one.color.r - one.color.b for one in (shown[0], shown[2])]
    assert warmth[0] > warmth[1], "the more relevant, the warmer"


def test_moments_that_are_not_ranked_are_grey() -> None:
    _, arrow, label = markers(answer(moment(100, 1.0)), of_camera=False)
    assert arrow.color.r == arrow.color.g == arrow.color.b
    assert label.text == label_text(1, moment(100, 1.0), 300 * SECOND_NS) == "1: 3 min ago"


class Watcher:
    """Subscribes to both topics of a node in the same process."""

    def __init__(self, executor: SingleThreadedExecutor, node: Node) -> None:
        self.executor = executor
        self.node = node
        self.places: list[PoseStamped] = []
        self.moments: list[MarkerArray] = []

    def watch_places(self) -> None:
        self.node.create_subscription(PoseStamped, "/seer/place", self.places.append, latched_qos())

    def watch_moments(self) -> None:
        self.node.create_subscription(MarkerArray, "/seer/moments", self.moments.append, latched_qos())

    def wait_for(self, condition: Callable[[], object], topics: AnswerTopics | None = None) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < deadline, "it never came true"
            if topics is not None:
                topics.look()
            self.executor.spin_once(timeout_sec=0.02)


@pytest.fixture
def pair() -> Iterator[tuple[Node, Watcher]]:
    with ros_domain() as domain:
        context = rclpy.Context()
        rclpy.init(context=context, domain_id=domain)
        nodes = [rclpy.create_node(name, context=context) for name in ("seer", "watcher")]
        executor = SingleThreadedExecutor(context=context)
        for node in nodes:
            executor.add_node(node)
        try:
            yield nodes[0], Watcher(executor, nodes[1])
        finally:
            executor.shutdown()
            for node in nodes:
                node.destroy_node()
            rclpy.shutdown(context=context)


def test_markers_are_built_once_somebody_looks_and_are_there_for_who_comes_later(
    pair: tuple[Node, Watcher], monkeypatch: pytest.MonkeyPatch
) -> None:
    node, watcher = pair
    built: list[Answer] = []

    def counted(of: Answer, of_camera: bool) -> list[Marker]:
        built.append(of)
        return markers(of, of_camera)

    monkeypatch.setattr(answer_topics, "markers", counted)
    topics = AnswerTopics(node, lambda: False)
    topics.show(SEEN)
    topics.look()
    assert not built
    watcher.watch_moments()
    watcher.wait_for(lambda: watcher.moments, topics)
    watcher.watch_moments()
    watcher.wait_for(lambda: len(watcher.moments) == 2, topics)
    assert [len(one.markers) for one in watcher.moments] == [5, 5]
    assert len(built) == 1


def test_the_place_of_another_answer_is_never_given(pair: tuple[Node, Watcher]) -> None:
    node, watcher = pair
    topics = AnswerTopics(node, lambda: False)
    topics.show(SEEN)
    watcher.watch_places()
    watcher.wait_for(lambda: watcher.places)
    assert watcher.places[0].pose.position.x == 1.0
    topics.show(answer(moment(5, None)))
    # Whoever comes now gets nothing, until there is a place again.
    late = Watcher(watcher.executor, watcher.node)
    late.watch_places()
    late.wait_for(lambda: node.count_subscribers("/seer/place") == 2)
    topics.show(answer(moment(6, 9.0)))
    late.wait_for(lambda: late.places)
    assert [one.pose.position.x for one in late.places] == [9.0]
