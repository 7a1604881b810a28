"""A synthetic camera for `fvs bench node`: a few drawn 1080p scenes in turn, stamped by the clock.

``python -m fvs_ros.ros_tools.bench_camera --transport compressed --rate 30`` publishes until it is interrupted.
"""

from __future__ import annotations

import argparse
import sys
import time
from array import array
from collections.abc import Sequence

import cv2
import numpy as np
import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import CompressedImage, Image

from fvs_ros.nodes.messages import time_message

HEIGHT, WIDTH = 1_080, 1_920
SCENES = 8
# How often it looks whether somebody has subscribed.
WAIT_S = 0.05


def draw_scenes(seed: int) -> list[np.ndarray]:
    """BGR scenes: smooth, with a camera's noise, so that a JPEG of one has a usual size (0.5 MB)."""
    generator = np.random.default_rng(seed)
    scenes = []
    for _ in range(SCENES):
        coarse = generator.integers(0, 256, (HEIGHT // 60, WIDTH // 60, 3), dtype=np.uint8)
        scene = cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
        noise = generator.integers(-4, 5, (HEIGHT, WIDTH, 1), dtype=np.int8)
        scenes.append(cv2.add(scene, np.repeat(noise, 3, axis=2), dtype=cv2.CV_8U))
    return scenes


def message_of(scene: np.ndarray, transport: str) -> Image | CompressedImage:
    """A scene as a message without a stamp."""
    if transport == "raw":
        message = Image(height=HEIGHT, width=WIDTH, encoding="bgr8", step=3 * WIDTH)
        message.data = array("B", scene.tobytes())
    else:
        message = CompressedImage(format="bgr8; jpeg compressed bgr8")
        message.data = array("B", cv2.imencode(".jpg", scene)[1].tobytes())
    message.header.frame_id = "camera"
    return message


def main(arguments: Sequence[str] | None = None) -> int:
    """Publishes at a steady rate; a frame that is late is not made up for."""
    parser = argparse.ArgumentParser(prog="python -m fvs_ros.ros_tools.bench_camera", description=__doc__)
    parser.add_argument("--transport", choices=["raw", "compressed"], default="raw")
    parser.add_argument("--rate", type=float, default=30.0, help="frames a second (default: 30)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    rclpy.init(args=[])
    node = rclpy.create_node("bench_camera")
    messages = [message_of(scene, options.transport) for scene in draw_scenes(options.seed)]
    topic = "image" if options.transport == "raw" else "image/compressed"
    publisher = node.create_publisher(type(messages[0]), topic, qos_profile_sensor_data)
    try:
        while rclpy.ok() and not publisher.get_subscription_count():
            time.sleep(WAIT_S)
        due = time.monotonic()
        count = 0
        while rclpy.ok():
            message = messages[count % SCENES]
            message.header.stamp = time_message(time.time_ns())
            publisher.publish(message)
            count += 1
            due = max(due + 1 / options.rate, time.monotonic())
            time.sleep(max(0.0, due - time.monotonic()))
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        node.destroy_node()
        rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
