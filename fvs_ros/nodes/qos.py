"""The QoS profiles of the package's topics."""

from __future__ import annotations

from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy, qos_profile_sensor_data

# Requests, and replies, that can be on their way at once: twice the longest question_queue.
QUESTION_DEPTH = 2_048


def latched_qos(depth: int = 1) -> QoSProfile:
    """Reliable and transient local: late subscribers get the last `depth` messages at once."""
    return QoSProfile(depth=depth, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)


def question_qos() -> QoSProfile:
    """Of questions and their answers, on both sides: reliable, and deep enough for all that can be on their way.

    The default depth of services, 10, loses requests that come while the executor is busy, and replies that are sent
    together. On Fast DDS a client's reader also holds the replies to all other clients until it looks at them.
    """
    return QoSProfile(
        depth=QUESTION_DEPTH, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.VOLATILE
    )


def sensor_qos() -> QoSProfile:
    """Best effort, depth 5, as `qos_profile_sensor_data`; a copy, since overrides are written into the profile."""
    return QoSProfile(
        history=qos_profile_sensor_data.history,
        depth=qos_profile_sensor_data.depth,
        reliability=qos_profile_sensor_data.reliability,
        durability=qos_profile_sensor_data.durability,
    )
