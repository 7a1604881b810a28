#!/usr/bin/env python3
"""Asks the stream node about something and drives to where it was seen, with Nav2. An example to copy.

For instance::

    python scripts/go_to_where_you_saw_it.py "Where did you last see the green chair?"

Needs Nav2 (nav2_simple_commander), and a stream node with poses in a frame that Nav2 can transform into its map's:
`pose_source:=tf`, or `odometry`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import rclpy
from nav2_simple_commander.robot_navigator import BasicNavigator, TaskResult

from fvs_ros.ros_tools.client import DEFAULT_NODE, FlashVStreamClient
from fvs_ros.ros_tools.places import place_of
from fvs_ros.stream.types import AskError


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns 0 where the robot has arrived, 1 where it has not, or does not know where to go."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("question")
    parser.add_argument("--node", default=DEFAULT_NODE, help="full name of the stream node (default: %(default)s)")
    options = parser.parse_args(arguments)
    with FlashVStreamClient(options.node) as client:
        try:
            answer = client.ask(options.question)
        except AskError as error:
            print(f"no answer: {error}", file=sys.stderr)
            return 1
        print(answer.answer)
        place = place_of(client, answer)
    if place is None:
        print("it was seen without a pose; set the node's pose_source", file=sys.stderr)
        return 1
    position = place.pose.position
    print(f"going to ({position.x:.2f}, {position.y:.2f}) in {place.header.frame_id}")
    return go(place)


def go(place: object) -> int:
    """Drives to a pose; returns 0 where the robot has arrived, else 1."""
    rclpy.init()
    try:
        navigator = BasicNavigator()
        navigator.goToPose(place)
        while not navigator.isTaskComplete():
            pass
        arrived = navigator.getResult() == TaskResult.SUCCEEDED
        print("arrived" if arrived else "not arrived")
        return 0 if arrived else 1
    finally:
        rclpy.shutdown()


if __name__ == "__main__":
    sys.exit(main())
