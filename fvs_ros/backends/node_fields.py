"""What is asked of a node, as its messages hold it."""

from __future__ import annotations

from builtin_interfaces.msg import Time
from geometry_msgs.msg import Point, PointStamped
from std_msgs.msg import Header

from fvs_ros.backends.backend import BackendError
from fvs_ros.nodes.messages import time_message
from fvs_ros.ros_tools.requests import RequestOptions
from fvs_ros.sources.frame import SECOND_NS
from fvs_ros.sources.stamps import stamp_text
from fvs_ros.stream.types import AskOptions


def stamp_message(name: str, stamp_ns: int | None) -> Time | None:
    """One end of a range as a message, in which zero would leave it open.

    Raises:
        BackendError: no message can hold it; rclpy would end the process.
    """
    if stamp_ns is None:
        return None
    if not 0 < stamp_ns < 2**31 * SECOND_NS:
        raise BackendError(f"{name} is {stamp_text(stamp_ns)} s; ROS 2 knows stamps above 0 and below {2**31} s")
    return time_message(stamp_ns)


def request_fields(options: AskOptions) -> RequestOptions:
    """The options as a client gives them.

    Raises:
        BackendError: no message can hold them.
    """
    fields: RequestOptions = {
        "max_new_tokens": options.max_new_tokens or 0,
        "timeout_s": options.timeout_s or 0.0,
        "fresh": options.fresh,
        "since": stamp_message("since", options.since_ns),
        "until": stamp_message("until", options.until_ns),
        "choices": options.choices,
        "history": options.history,
        "json_schema": options.json_schema,
        "with_images": options.with_images,
        "with_all_moments": True,
    }
    if options.near is not None:
        area = options.near
        fields["near"] = PointStamped(header=Header(frame_id=area.frame_id), point=Point(x=area.x, y=area.y))
        fields["radius_m"] = area.radius_m
    return fields
