"""Watches and their events as ROS messages."""

from __future__ import annotations

from fvs_ros.msg import WatchEvent as WatchEventMessage
from fvs_ros.msg import WatchState
from fvs_ros.nodes.messages import moment_message, pictured_moment, stamp_nanoseconds, time_message
from fvs_ros.stream.watch import Watch, WatchEvent
from fvs_ros.stream.watch_condition import Change


def watch_event_message(event: WatchEvent, condition: str, name: str = "") -> WatchEventMessage:
    """One look at a condition; `name` is that of a watch in a file."""
    return WatchEventMessage(
        watch=event.watch,
        name=name,
        condition=condition,
        change=int(event.change),
        is_true=event.is_true,
        probability=float(event.probability),
        stamp=time_message(event.stamp_ns),
        since=time_message(event.since_ns),
        moments=[moment_message(moment) for moment in event.moments],
        memory_version=event.memory_version,
    )


def watch_event_of(message: WatchEventMessage) -> WatchEvent:
    """The look of a message; the opposite of `watch_event_message`."""
    return WatchEvent(
        watch=message.watch,
        change=Change(message.change),
        is_true=message.is_true,
        probability=message.probability,
        stamp_ns=stamp_nanoseconds(message.stamp),
        since_ns=stamp_nanoseconds(message.since),
        memory_version=message.memory_version,
        moments=tuple(map(pictured_moment, message.moments)),
    )


def watch_state_message(watch: Watch, last: WatchEvent | None) -> WatchState:
    """A watch as its last look left it, None before the first."""
    options = watch.options
    message = WatchState(
        watch=watch.number,
        name=options.name,
        condition=watch.condition,
        question=watch.asked.questions[0],
        period_s=float(options.period_s),
        hold_s=float(options.hold_s),
        once=options.once,
        timeout_s=float(options.timeout_s),
        with_images=options.with_images,
        looked_at=last is not None,
    )
    if last is not None:
        message.is_true, message.since = last.is_true, time_message(last.since_ns)
        message.probability = float(last.probability)
    return message
