"""Why no image arrives on a topic: what is published there, of which type and QoS."""

from __future__ import annotations

from rclpy.node import Node
from rclpy.qos import QoSCompatibility, qos_check_compatible
from rclpy.subscription import Subscription

RAW, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
SUFFIX = "/compressed"
# More names than that say nothing to a reader of the log.
MOST_NAMES = 5


def explain_silence(node: Node, subscription: Subscription, compressed: bool) -> str:
    """What keeps images from a subscription, and what to do about it.

    Args:
        node: has the subscription.
        subscription: to a topic of images.
        compressed: whether its type is CompressedImage rather than Image.
    """
    topic = subscription.topic_name
    publishers = node.get_publishers_info_by_topic(topic)
    if not publishers:
        return f"nobody publishes there{_other_images(node, topic)}; start the camera, or remap image:=ITS_TOPIC"
    wanted = COMPRESSED if compressed else RAW
    problems = []
    for publisher in publishers:
        name = f"{publisher.node_namespace.rstrip('/')}/{publisher.node_name}"
        compatibility, reason = qos_check_compatible(publisher.qos_profile, subscription.qos_profile)
        if publisher.topic_type != wanted:
            problems.append(
                f"{name} sends {publisher.topic_type}, not {wanted}{_other_transport(publisher.topic_type)}"
            )
        elif compatibility == QoSCompatibility.ERROR:
            policies = f"qos_overrides.{topic}.subscription"
            problems.append(
                f"the QoS of {name} does not fit ({reason.strip('; ')}); set {policies}.* to what it offers"
            )
        else:
            problems.append(f"{name} publishes there with fitting type and QoS, but sends nothing")
    return f"{'; '.join(problems[:MOST_NAMES])} (ros2 topic info -v {topic})"


def _other_transport(sent: str) -> str:
    if sent == COMPRESSED:
        return "; set image_transport to compressed"
    return "; set image_transport to raw" if sent == RAW else ""


def _other_images(node: Node, topic: str) -> str:
    names = sorted(
        f"{name} ({kind})"
        for name, kinds in node.get_topic_names_and_types()
        for kind in kinds
        if kind in (RAW, COMPRESSED) and name != topic and node.count_publishers(name)
    )
    return f", but on {', '.join(names[:MOST_NAMES])}" if names else ""
