"""Images over DDS: transports, QoS, poses, and everything that can be wrong with one."""

from __future__ import annotations

import signal
from array import array
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import cv2
import numpy as np
import pytest
from node_harness import Client, StreamProcess, header, image, running_node

from diagnostic_msgs.msg import DiagnosticStatus  # isort: skip
from fvs_ros.msg import Moment  # isort: skip
from nav_msgs.msg import Odometry  # isort: skip
from rclpy.qos import QoSProfile, ReliabilityPolicy  # isort: skip
from sensor_msgs.msg import CompressedImage, Image  # isort: skip

from fvs_ros.sources.frame import SECOND_NS  # isort: skip

BEST_EFFORT = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
RELIABLE = QoSProfile(depth=5, reliability=ReliabilityPolicy.RELIABLE)

TOPIC = "/camera/image/compressed"

# Stamps that rise over the whole module, so that no test begins an episode unless it means to.
_seconds = count(1000)


class TestRaw:
    """Raw images with the default QoS."""

    @pytest.fixture(scope="class")
    @staticmethod
    def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[StreamProcess, Client]]:
        with running_node(tmp_path_factory.mktemp("model"), image_timeout_s=2.0) as (process, client):
            yield process, client

    @pytest.fixture
    def client(self, node: tuple[StreamProcess, Client]) -> Client:
        assert node[0].alive
        return node[1]

    def test_silence_is_warned_about_with_what_to_do(self, client: Client) -> None:
        client.unpublish()
        client.wait_for(lambda: "nobody publishes there" in client.status("stream").message, "the warning")
        assert client.status("stream").level == DiagnosticStatus.WARN
        client.feed(next(_seconds))
        client.wait_for(lambda: "nobody publishes" not in client.status("stream").message, "the warning to end")

    @pytest.mark.parametrize("qos", [RELIABLE, BEST_EFFORT], ids=["reliable", "best_effort"])
    def test_publishers_of_both_reliabilities_are_heard(self, client: Client, qos: QoSProfile) -> None:
        second = next(_seconds)
        publisher = client.publisher(Image, "image", qos)
        client.deliver(lambda: publisher.publish(image(second)), lambda: client.in_memory(second), "the image")

    @pytest.mark.parametrize(
        ("reason", "fields"),
        [
            ("empty", {"height": 0, "width": 0, "step": 0, "data": array("B")}),
            ("data_length", {"data": array("B")}),
            ("data_length", {"data": array("B", bytes(100))}),
            ("step", {"step": 10}),
            ("unknown_encoding", {"encoding": "jpeg2000"}),
            ("odd_size", {"encoding": "yuv422", "width": 31}),
            ("too_large", {"height": 2**32 - 1, "width": 2**32 - 1, "step": 2**32 - 1}),
            (
                "not_finite",
                {"encoding": "32FC1", "step": 128, "data": array("B", np.full(1024, np.nan, np.float32).tobytes())},
            ),
            ("no_stamp", {"header": header(0)}),
        ],
    )
    def test_a_bad_image_is_counted_and_harms_nothing(
        self, node: tuple[StreamProcess, Client], client: Client, reason: str, fields: dict
    ) -> None:
        before = client.next_counters().rejected.get(reason, 0)
        client.publish(next(_seconds), **fields)
        client.wait_for(lambda: client.counters.rejected.get(reason) == before + 1, "the image to be rejected")
        client.wait_diagnostic("stream", f"rejected: {reason}", str(before + 1))
        assert client.diagnostic("stream")["last rejection"]
        assert client.status("stream").level == DiagnosticStatus.WARN
        memory = client.feed(next(_seconds))
        assert memory.steps > 0
        assert client.ask_anything(fresh=True).success
        assert "rejected" in node[0].log

    def test_a_frame_id_without_an_end_is_not_kept(self, client: Client) -> None:
        before = client.next_counters().rejected.get("frame_id", 0)
        second = next(_seconds)
        client.publish(second, header=header(second, "x" * 100_000))
        client.wait_for(lambda: client.counters.rejected.get("frame_id") == before + 1, "the image to be rejected")
        client.wait_for(
            lambda: "frame_id has 100000 characters; at most 255" in client.diagnostic("stream")["last rejection"],
            "diagnostics to say why",
        )

    @pytest.mark.parametrize("encoding", ["bgr8", "mono8", "rgba8", "yuv422_yuy2", "16UC1", "32FC1"])
    def test_common_encodings_are_taken(self, client: Client, encoding: str) -> None:
        values = {"rgba8": 4, "bgr8": 3, "mono8": 1, "yuv422_yuy2": 2, "16UC1": 2, "32FC1": 4}[encoding]
        second = next(_seconds)
        # All bytes are 7, which as float32 is a finite number too.
        client.publish(second, encoding=encoding, step=32 * values, data=array("B", bytes([7]) * 32 * 32 * values))
        client.wait_for_memory(lambda memory: memory.end.sec == second)

    def test_a_clock_that_was_set_back_begins_a_new_episode(self, client: Client) -> None:
        before = client.feed(next(_seconds), next(_seconds))
        episodes = client.next_counters().episodes

        def publish_by_another_clock() -> None:
            for second in range(10, 20):
                client.publish(second)
                client.spin_for(0.05)

        client.deliver(publish_by_another_clock, lambda: client.in_memory(19), "the images of another clock")
        after = client.wait_for_memory()
        assert after.episode == before.episode + 1
        assert after.version > before.version
        assert 10 <= after.start.sec < 19
        client.wait_for(lambda: client.counters.episodes == episodes + 1, "the episode to be counted")
        assert client.counters.clock_move is not None
        assert client.counters.clock_move.before_ns == before.end.sec * SECOND_NS
        assert client.ask_anything(fresh=True).memory_start == after.start
        # The next test's stamps follow no clock of this one.
        client.reset()


class TestCompressed:
    """JPEG and PNG, in a namespace, remapped, reliable by override, and with odometry."""

    @pytest.fixture(scope="class")
    @staticmethod
    def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[StreamProcess, Client]]:
        with running_node(
            tmp_path_factory.mktemp("model"),
            *("-r", "__ns:=/robot", "-r", "image:=/camera/image"),
            *("-p", f"qos_overrides.{TOPIC}.subscription.reliability:=reliable"),
            name="/robot/stream_node",
            image_transport="compressed",
            pose_source="odometry",
        ) as (process, client):
            yield process, client

    @pytest.fixture
    def client(self, node: tuple[StreamProcess, Client]) -> Client:
        assert node[0].alive
        return node[1]

    def send(self, client: Client, second: float, data: bytes, qos: QoSProfile = RELIABLE) -> None:
        message = CompressedImage(header=header(second), format="rgb8; jpeg compressed bgr8", data=array("B", data))
        client.publisher(CompressedImage, TOPIC, qos).publish(message)

    def encoded(self, extension: str) -> bytes:
        noise = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
        return cv2.imencode(extension, noise)[1].tobytes()

    @pytest.mark.parametrize("extension", [".jpg", ".png"])
    def test_compressed_images_become_memory(self, client: Client, extension: str) -> None:
        second = next(_seconds)
        client.deliver(
            lambda: self.send(client, second, self.encoded(extension)), lambda: client.in_memory(second), "the image"
        )
        assert client.ask_anything().success

    @pytest.mark.parametrize(
        ("reason", "keep"), [("truncated", 500), ("empty", 0), ("unknown_format", -1)], ids=lambda value: str(value)
    )
    def test_a_bad_compressed_image_is_counted(self, client: Client, reason: str, keep: int) -> None:
        data = b"no image at all" if keep < 0 else self.encoded(".jpg")[:keep]
        self.send(client, next(_seconds), data)
        client.wait_for(lambda: client.counters.rejected.get(reason) == 1, "the image to be rejected")

    def test_moments_know_where_the_robot_was(self, client: Client) -> None:
        odometry_publisher = client.publisher(Odometry, "/robot/odom")

        def drive_and_look() -> None:
            """Odometry on both sides of an image, half a metre apart."""
            second = next(_seconds)
            for offset, x in ((-0.05, 1.0), (0.05, 2.0)):
                odometry = Odometry(header=header(second + offset, "odom"), child_frame_id="base_link")
                odometry.pose.pose.position.x = x
                odometry_publisher.publish(odometry)
            self.send(client, second, self.encoded(".jpg"))

        def known() -> list[Moment]:
            return [moment for moment in client.ask_anything(fresh=True).moments if moment.pose_valid]

        client.deliver(drive_and_look, known, "a moment with a pose")
        for moment in known():
            assert moment.pose.header.frame_id == "odom"
            assert moment.pose.header.stamp == moment.stamp
            # Odometry may overtake the image or not; both of its poses are within the tolerance.
            assert 1.0 <= moment.pose.pose.position.x <= 2.0

    def test_a_publisher_that_cannot_reach_the_node_is_explained(
        self, node: tuple[StreamProcess, Client], client: Client
    ) -> None:
        process = node[0]
        assert "Incompatible QoS" not in process.log
        offered = client.ros_node.create_publisher(CompressedImage, TOPIC, BEST_EFFORT)
        process.wait_for_log("Incompatible QoS")
        assert f"qos_overrides.{TOPIC}.subscription.reliability" in process.log
        client.ros_node.destroy_publisher(offered)


def compressed_image(second: float) -> CompressedImage:
    data = cv2.imencode(".jpg", np.zeros((48, 64, 3), np.uint8))[1]
    return CompressedImage(header=header(second), format="jpeg", data=array("B", data.tobytes()))


@pytest.mark.parametrize(
    "remapping",
    [
        ("-r", "image:=/x/compressed"),
        ("-r", "image/compressed:=/x/compressed"),
        ("-r", "image:=/y", "-r", "/y/compressed:=/x/compressed"),
    ],
    ids=["full_name", "both_full", "chain"],
)
def test_a_compressed_topic_may_be_named_in_full(tmp_path: Path, remapping: tuple[str, ...]) -> None:
    with running_node(tmp_path, *remapping, image_transport="compressed") as (process, client):
        publisher = client.publisher(CompressedImage, "/x/compressed")
        client.deliver(lambda: publisher.publish(compressed_image(1)), lambda: client.in_memory(1), "the image")
        client.wait_diagnostic("stream", "topic", "/x/compressed")
        assert "Watching /x/compressed;" in process.log


def test_where_no_image_arrives_the_topic_and_what_does_not_fit_are_named(tmp_path: Path) -> None:
    """First nobody, then the other transport's type, then a weaker QoS; of the topic as it is subscribed to."""
    reliable = ("-p", "qos_overrides./camera/image.subscription.reliability:=reliable")
    with running_node(tmp_path, "-r", "image:=/a", "-r", "/a:=/camera/image", *reliable, image_timeout_s=0.5) as (
        process,
        client,
    ):
        node = client.ros_node
        other = node.create_publisher(Image, "/camera/other", 1)
        expected = "no image has arrived on /camera/image: nobody publishes there, but on /camera/other (sensor_msgs"
        client.wait_for(lambda: expected in str(client.refusal()), "the reason in the answer")
        process.wait_for_log("No image on /camera/image for")
        node.destroy_publisher(other)

        wrong_type = node.create_publisher(CompressedImage, "/camera/image", 1)
        expected = (
            "/flash_vstream_client sends sensor_msgs/msg/CompressedImage, not sensor_msgs/msg/Image; "
            "set image_transport to compressed"
        )
        client.wait_for(lambda: expected in str(client.refusal()), "the type in the answer")
        client.wait_for(lambda: expected in client.status("stream").message, "the type in the diagnostics")
        assert client.status("stream").level == DiagnosticStatus.WARN
        node.destroy_publisher(wrong_type)

        weak = node.create_publisher(Image, "/camera/image", BEST_EFFORT)
        expected = "the QoS of /flash_vstream_client does not fit"
        client.wait_for(lambda: expected in str(client.refusal()), "the QoS in the answer")
        assert "qos_overrides./camera/image.subscription" in str(client.refusal())
        node.destroy_publisher(weak)
        assert process.log.count("No image on /camera/image") == 1, "one line for one silence"


def test_it_ends_cleanly_when_it_is_terminated(tmp_path: Path) -> None:
    with running_node(tmp_path, image_transport="compressed", pose_source="odometry") as (process, _):
        assert process.stop(signal.SIGTERM) == 0
        assert "Traceback" not in process.log
