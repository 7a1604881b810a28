"""The replay node over DDS: it runs in a process of its own, the test subscribes."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from conftest import require_ros
from recordings import (
    COMPRESSED_TOPIC,
    IMAGE_TOPIC,
    ODOMETRY_TOPIC,
    PERIOD_NS,
    STATIC_TOPIC,
    UNKNOWN_TOPIC,
    read_metadata,
    rgb_image,
    stamp_ns,
    write_bag,
    write_metadata,
    write_ros1_bag,
    write_video,
)
from rosbags.rosbag2 import StoragePlugin

from fvs_ros.sources.images import decode_compressed_image, decode_image

require_ros()
import rclpy
from geometry_msgs.msg import PoseStamped
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSProfile, ReliabilityPolicy, qos_profile_sensor_data
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from fvs_ros.nodes.messages import stamp_nanoseconds
from fvs_ros.nodes.qos import latched_qos
from fvs_ros.nodes.replay_parameters import ReplayConfig

ROOT = Path(__file__).resolve().parents[1]


class Listener:
    """A node in a domain of its own that keeps what the replay publishes."""

    def __init__(self, domain: int) -> None:
        self.domain = domain
        self.context = rclpy.Context()
        rclpy.init(context=self.context, domain_id=self.domain)
        self.node = rclpy.create_node("listener", context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.processes: list[subprocess.Popen[str]] = []

    def listen(self, message_type: type, topic: str, qos: QoSProfile | None = None) -> list[Any]:
        received: list[Any] = []
        reliable = QoSProfile(depth=1_000, reliability=ReliabilityPolicy.RELIABLE)
        self.node.create_subscription(message_type, topic, received.append, qos or reliable)
        return received

    def replay(self, path: Path, *arguments: str, **parameters: object) -> subprocess.Popen[str]:
        # Fast DDS confirms every 3 s; the tests that count messages see them arrive themselves.
        parameters = {"wait_for_acknowledgment": 0.5, **parameters}
        command = [sys.executable, "-m", "fvs_ros.nodes.replay_node", "--ros-args", *arguments, "-p", f"bag:={path}"]
        for name, value in parameters.items():
            command += ["-p", f"{name}:={value}"]
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, "ROS_DOMAIN_ID": str(self.domain), "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        self.processes.append(process)
        return process

    def spin_until(self, condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline, f"nothing in {timeout_s} s"
            self.executor.spin_once(timeout_sec=0.05)

    def finish(self, process: subprocess.Popen[str]) -> str:
        """Spin until the replay has ended, and once more for what is still on its way; returns its output."""
        self.spin_until(lambda: process.poll() is not None)
        settled = time.monotonic() + 0.2
        while time.monotonic() < settled:
            self.executor.spin_once(timeout_sec=0.05)
        return process.stdout.read() if process.stdout else ""

    def close(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.communicate()
        self.executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)


@pytest.fixture
def listener(ros_domain_id: int) -> Iterator[Listener]:
    made = Listener(ros_domain_id)
    yield made
    made.close()


def stamp_of(message: Any) -> int:
    return stamp_nanoseconds(message.header.stamp)


def clock_ns(message: Clock) -> int:
    return stamp_nanoseconds(message.clock)


@pytest.mark.parametrize("storage", list(StoragePlugin))
def test_bag_arrives_whole_in_order_and_on_time(listener: Listener, tmp_path: Path, storage: StoragePlugin) -> None:
    topics = [IMAGE_TOPIC, COMPRESSED_TOPIC, ODOMETRY_TOPIC, UNKNOWN_TOPIC]
    path = write_bag(tmp_path / "bag", 21, storage, topics)
    raw, compressed = listener.listen(Image, IMAGE_TOPIC), listener.listen(CompressedImage, COMPRESSED_TOPIC)
    odometry, clock = listener.listen(PoseStamped, ODOMETRY_TOPIC), listener.listen(Clock, "/clock")
    process = listener.replay(path, wait_for_subscriber=20.0, rate=2.0, clock_rate=200.0)
    output = listener.finish(process)

    assert process.returncode == 0, output
    for received in (raw, compressed, odometry):
        assert [stamp_of(message) for message in received] == [stamp_ns(i) for i in range(21)]
    for index in (0, 20):
        np.testing.assert_array_equal(decode_image(raw[index]), rgb_image(index))
        np.testing.assert_array_equal(decode_compressed_image(compressed[index]), rgb_image(index))
    assert [message.pose.position.x for message in odometry] == [float(i) for i in range(21)]
    times = [clock_ns(message) for message in clock]
    assert times == sorted(times)
    assert times[-1] == stamp_ns(20) + 1_000_000
    assert len(times) > 40  # between the frames too
    assert output.count("made_up_msgs") == 2, output  # one warning: the type, and the package to install
    assert "WARN" in output


def test_ros1_bag(listener: Listener, tmp_path: Path) -> None:
    images = listener.listen(Image, IMAGE_TOPIC)
    process = listener.replay(write_ros1_bag(tmp_path / "old.bag"), wait_for_subscriber=20.0)
    output = listener.finish(process)
    assert process.returncode == 0, output
    assert [stamp_of(message) for message in images] == [stamp_ns(i) for i in range(5)]
    np.testing.assert_array_equal(decode_image(images[4]), rgb_image(4))


def test_loop_jumps_back_and_ends_on_interrupt(listener: Listener, tmp_path: Path) -> None:
    images, clock = listener.listen(Image, IMAGE_TOPIC), listener.listen(Clock, "/clock")
    path = write_bag(tmp_path / "bag", 5)
    process = listener.replay(path, wait_for_subscriber=20.0, loop="true", rate=5.0)
    listener.spin_until(lambda: len(images) >= 12)
    process.send_signal(signal.SIGINT)
    output = listener.finish(process)
    assert process.returncode == 0, output
    assert "Traceback" not in output
    assert [stamp_of(message) for message in images[:12]] == [stamp_ns(i % 5) for i in range(12)]
    backward = [a for a, b in itertools.pairwise(map(clock_ns, clock)) if b < a]
    assert backward[0] == stamp_ns(4) + 1_000_000


def test_start_offset_duration_and_topics(listener: Listener, tmp_path: Path) -> None:
    path = write_bag(tmp_path / "bag", 10, topics=[IMAGE_TOPIC, ODOMETRY_TOPIC, STATIC_TOPIC])
    images, odometry = listener.listen(Image, IMAGE_TOPIC), listener.listen(PoseStamped, ODOMETRY_TOPIC)
    static = listener.listen(Header, STATIC_TOPIC, latched_qos(10))
    process = listener.replay(
        path,
        wait_for_subscriber=20.0,
        start_offset=0.2,
        duration=0.2,
        topics=f"[{IMAGE_TOPIC}, {STATIC_TOPIC}]",
    )
    output = listener.finish(process)
    assert process.returncode == 0, output
    assert [stamp_of(message) for message in images] == [stamp_ns(i) for i in range(4, 8)]
    assert odometry == []
    # Recorded before the offset, but latched: without it a replay from the middle would have no static transforms.
    assert [message.frame_id for message in static] == ["camera"]


def test_qos_can_be_overridden(listener: Listener, tmp_path: Path) -> None:
    path = write_bag(tmp_path / "bag", 5)
    sensor = listener.listen(Image, IMAGE_TOPIC, qos_profile_sensor_data)
    process = listener.replay(
        path,
        "-p",
        f"qos_overrides.{IMAGE_TOPIC}.publisher.reliability:=best_effort",
        wait_for_subscriber=20.0,
        rate=0.5,
        loop="true",
    )
    listener.spin_until(lambda: len(sensor) >= 5)
    (info,) = listener.node.get_publishers_info_by_topic(IMAGE_TOPIC)
    assert info.qos_profile.reliability == ReliabilityPolicy.BEST_EFFORT
    process.terminate()
    output = listener.finish(process)
    assert process.returncode == 0, output


def test_rate_paces_the_images(listener: Listener, tmp_path: Path) -> None:
    arrivals: list[float] = []
    listener.node.create_subscription(Image, IMAGE_TOPIC, lambda _: arrivals.append(time.monotonic()), 100)
    process = listener.replay(write_bag(tmp_path / "bag", 11), wait_for_subscriber=20.0, rate=0.5, clock_rate=0.0)
    output = listener.finish(process)
    assert process.returncode == 0, output
    assert len(arrivals) == 11
    # 10 periods of 50 ms at half the speed.
    assert 0.9 < arrivals[-1] - arrivals[0] < 1.3


@pytest.mark.parametrize(("transport", "encoding"), [("raw", "bgr8"), ("compressed", "rgb8")])
def test_video(listener: Listener, tmp_path: Path, transport: str, encoding: str) -> None:
    path = write_video(tmp_path / "clip.avi", 10, 20.0)
    message_type, topic = (
        (Image, "/robot/image") if transport == "raw" else (CompressedImage, "/robot/image/compressed")
    )
    images = listener.listen(message_type, topic)
    process = listener.replay(
        path,
        "-r",
        "__ns:=/robot",
        wait_for_subscriber=20.0,
        image_transport=transport,
        encoding=encoding,
        stamp_offset=100.0,
        rate=2.0,
    )
    output = listener.finish(process)
    assert process.returncode == 0, output
    assert [stamp_of(message) for message in images] == [100 * 10**9 + i * PERIOD_NS for i in range(10)]
    decode: Callable[[Any], np.ndarray] = decode_image if transport == "raw" else decode_compressed_image
    means = [decode(message).mean() for message in images]
    np.testing.assert_allclose(means, [10.0 * i for i in range(10)], atol=4.0)
    assert images[0].header.frame_id == "camera_optical_frame"
    if transport == "raw":
        assert {message.encoding for message in images} == {encoding}


def test_looped_video_may_go_on(listener: Listener, tmp_path: Path) -> None:
    images = listener.listen(Image, "/image")
    process = listener.replay(
        write_video(tmp_path / "clip.avi", 5, 20.0),
        wait_for_subscriber=20.0,
        loop="true",
        continue_stamps="true",
        rate=4.0,
    )
    listener.spin_until(lambda: len(images) >= 14)
    stamps = [stamp_of(message) for message in images]
    assert np.diff(stamps).tolist() == [PERIOD_NS] * (len(stamps) - 1)
    # No stamp_offset: the stream begins now.
    assert abs(stamps[0] / 1e9 - time.time()) < 30.0
    process.terminate()
    listener.finish(process)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"bag": "''"}, "no recording is given; set the parameter bag"),
        ({"rate": 0.0}, "rate"),
        ({"rate": "fast"}, "rate"),
        ({"encoding": "yuv9"}, "encoding is 'yuv9'; set it to one of rgb8, bgr8"),
        ({"bag": "nowhere.mcap"}, "nowhere.mcap does not exist"),
        ({"topics": "[/nothing]"}, "has no topic /nothing; it has /camera/image_raw"),
        ({"start_offset": 99.0}, "start_offset is 99 s, but"),
    ],
)
def test_what_cannot_be_played_is_said(
    listener: Listener, tmp_path: Path, parameters: dict[str, object], message: str
) -> None:
    path = write_bag(tmp_path / "bag", 5)
    process = listener.replay(path, **parameters)
    output = listener.finish(process)
    assert process.returncode == 1, output
    assert message in output
    assert "Traceback" not in output


@pytest.mark.parametrize("name", ["007", "yes", "[lab]", "run #3", "a: b", "~x", "*", "it's"])
def test_a_name_is_text_whatever_it_looks_like(
    listener: Listener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    write_bag(tmp_path / "made", 3).rename(tmp_path / name)
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    monkeypatch.setenv("PYTHONPATH", f"{Path(__file__).resolve().parents[1]}:{os.environ.get('PYTHONPATH', '')}")
    process = listener.replay(Path(name), rate=20.0)
    output = listener.finish(process)
    assert process.returncode == 0, output
    assert "Played 3 messages" in output


def test_damaged_recordings_end_with_an_error(listener: Listener, tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "bag", 50) / "bag.mcap"
    bag.write_bytes(bag.read_bytes()[:1000])
    short = write_bag(tmp_path / "short", 5)
    metadata = read_metadata(short)
    metadata["topics_with_message_count"][0]["message_count"] = 8
    write_metadata(short, metadata)
    video = write_video(tmp_path / "clip.avi", 60, 20.0)
    content = video.read_bytes()
    video.write_bytes(content[: len(content) // 2])
    cases = (
        (bag, "cut off at byte"),
        (short, "announces 8 messages on /camera/image_raw, but its files hold 5"),
        (video, "truncated"),
    )
    for path, message in cases:
        process = listener.replay(path, rate=20.0)
        output = listener.finish(process)
        assert process.returncode == 1, output
        assert message in output
        assert "Traceback" not in output


def test_example_parameters_are_the_defaults() -> None:
    listed = yaml.safe_load((ROOT / "config" / "replay.yaml").read_text())["/**"]["ros__parameters"]
    defaults = {item.name: item.default for item in fields(ReplayConfig)}
    assert {name: tuple(value) if isinstance(value, list) else value for name, value in listed.items()} == defaults
