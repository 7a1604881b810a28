"""The QoS profiles of the package's topics."""

from __future__ import annotations

from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy, qos_profile_sensor_data


def latched_qos(depth: int = 1) -> QoSProfile:
    """Reliable and transient local: late subscribers get the last `depth` messages at once."""
    return QoSProfile(depth=depth, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)


def sensor_qos() -> QoSProfile:
    """Best effort, depth 5, as `qos_profile_sensor_data`; a copy, since overrides are written into the profile."""
    return QoSProfile(
        history=qos_profile_sensor_data.history,
        depth=qos_profile_sensor_data.depth,
        reliability=qos_profile_sensor_data.reliability,
        durability=qos_profile_sensor_data.durability,
    )
