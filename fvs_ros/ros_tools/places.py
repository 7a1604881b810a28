"""Where to go to see again what an answer rests on."""

from __future__ import annotations

from typing import Any

from geometry_msgs.msg import PoseStamped

from fvs_ros.nodes.qos import latched_qos
from fvs_ros.ros_tools.client import FlashVStreamClient

# The place is published before the answer is sent; discovery takes seconds.
_DISCOVERY_S = 30.0


def place_of(client: FlashVStreamClient, answer: Any) -> PoseStamped | None:
    """The pose that the node gave on `~/place` for an answer: where its best placed moment was seen from, on the level.

    Args:
        client: that asked.
        answer: its response or result.

    Returns:
        A goal for Nav2, in the frame of the moments' poses; None where no moment has a pose.

    Raises:
        TimeoutError: it did not come, as when the node has answered another question since.
    """
    stamp = next((moment.stamp for moment in answer.moments if moment.pose_valid), None)
    if stamp is None:
        return None
    places: list[PoseStamped] = []
    topic = f"{client.node}/place"
    subscription = client.ros_node.create_subscription(PoseStamped, topic, places.append, latched_qos())
    try:
        return client.wait_for(
            lambda: next((place for place in places if place.header.stamp == stamp), None),
            f"the place of {stamp.sec}.{stamp.nanosec:09d} s on {topic}; another question may have been answered since",
            _DISCOVERY_S,
        )
    finally:
        client.ros_node.destroy_subscription(subscription)
