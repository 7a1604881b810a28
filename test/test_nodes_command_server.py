"""The node's commands over DDS: what they do, what they refuse, and that they hold nothing up."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from conftest import require_ros, ros_domain
from node_harness import PATIENCE_S, Client, write_talkative_checkpoint
from store_nodes import node_on, wait_for_episodes

require_ros()
import rclpy
from builtin_interfaces.msg import Time
from rclpy.executors import SingleThreadedExecutor

from fvs_ros.episodic.errors import Problem, StoreError
from fvs_ros.nodes.command_server import CommandServer
from fvs_ros.nodes.messages import time_message
from fvs_ros.ros_tools.client import FlashVStreamClient, RefusedError
from fvs_ros.sources.frame import SECOND_NS
from fvs_ros.stream.recording import RecordingError

JPEG = b"\xff\xd8\xff"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    write_talkative_checkpoint(folder)
    return folder


def refused(command: Callable[[], object]) -> str:
    with pytest.raises(RefusedError) as caught:
        command()
    return str(caught.value)


def pictures(folder: Path) -> int:
    """Beginnings of JPEG files in all files of a folder, whatever they are."""
    return sum(file.read_bytes().count(JPEG) for file in folder.rglob("*") if file.is_file())


def scenes(client: Client, first: int, last: int) -> None:
    """Images each of which differs from the last one, so that steps end segments; all but the last are stored then."""
    client.feed(*range(first, last + 1))


def test_a_node_that_was_killed_knows_what_it_knew(model: Path, tmp_path: Path) -> None:
    """Before any new image, with the old stamps; then its stream goes on in the same memory."""
    with node_on(model, tmp_path, signal.SIGKILL) as (_, client):
        client.wait_until_active(PATIENCE_S)
        scenes(client, 100, 119)
        wait_for_episodes(client, segments=4)
        stored = client.next_statistics().segments
    with node_on(model, tmp_path) as (_, client):
        client.wait_until_active(PATIENCE_S)
        memory = client.wait_for_memory(lambda memory: memory.steps > 0)
        assert client.next_statistics().segments >= stored
        assert (memory.start.sec, 110 < memory.end.sec <= 119) == (100, True)
        response = client.ask_anything()
        assert (response.memory_start, response.memory_end) == (memory.start, memory.end)
        assert response.moments
        # What is kept of a store may not be the newest step, but none is counted twice.
        assert 5 <= memory.steps <= 10
        after = client.feed(130, 131)
        assert (after.start.sec, after.steps) == (100, memory.steps + 1)
        client.wait_for(lambda: "goes on after a gap of" in client.diagnostic("episodes")["resumed"], "the gap")


def test_a_stamp_gives_the_stored_picture_after_a_kill_too(model: Path, tmp_path: Path) -> None:
    def shown(client: Client, second: int | None) -> tuple[int, float]:
        """When the picture was taken, and its shade."""
        response = client.keyframe(None if second is None else Time(sec=second))
        assert response.success
        assert (response.image.format, response.image.header.frame_id) == ("jpeg", "camera")
        assert not response.pose_valid
        picture = cv2.imdecode(np.frombuffer(response.image.data, np.uint8), cv2.IMREAD_COLOR)
        assert picture is not None
        return response.image.header.stamp.sec, float(picture.mean())

    with node_on(model, tmp_path, signal.SIGKILL) as (_, client):
        client.wait_until_active(PATIENCE_S)
        assert "no picture is kept" in refused(client.keyframe)
        # Each step differs from the last one, by the shades of its images.
        scenes(client, 100, 119)
        wait_for_episodes(client, segments=4)
        for second, taken in ((None, 119), (103, 103), (102, 103)):
            when, shade = shown(client, second)
            assert when == taken
            assert shade == pytest.approx(40 * (taken - 100) % 256, abs=3)
        early = shown(client, 103)
    with node_on(model, tmp_path) as (_, client):
        client.wait_until_active(PATIENCE_S)
        assert shown(client, 103) == early
        assert shown(client, 50)[0] == 101, "the nearest"
        for label in ("deactivate", "cleanup"):
            assert client.change_state(label)
        assert "ros2 lifecycle set" in refused(client.keyframe)


def test_saving_ends_the_open_segment_and_says_what_is_kept(model: Path, tmp_path: Path) -> None:
    with node_on(model, tmp_path, signal.SIGKILL) as (_, client):
        client.wait_until_active(PATIENCE_S)
        assert client.feed(100, 101).steps == 1
        assert client.save_memory().startswith("1 segments in ")
        assert client.next_statistics().segments == 1
    with node_on(model, tmp_path) as (_, client):
        client.wait_until_active(PATIENCE_S)
        memory = client.wait_for_memory(lambda memory: memory.steps > 0)
        assert (memory.steps, memory.start.sec, memory.end.sec) == (1, 100, 101)


def test_an_earlier_episode_is_loaded_and_forgotten_ones_are_gone(model: Path, tmp_path: Path) -> None:
    with node_on(model, tmp_path) as (process, client):
        client.wait_until_active(PATIENCE_S)
        scenes(client, 100, 111)
        client.reset()
        client.wait_for_memory(lambda memory: memory.steps == 0)
        scenes(client, 500, 511)
        client.save_memory()
        assert "nothing is kept of episode 7; kept are 1, 2" in refused(lambda: client.load_memory(7))
        assert "episode 1" in client.load_memory(1)
        assert client.wait_for_memory(lambda memory: memory.start.sec == 100).end.sec == 111
        assert "episode 2" in client.load_memory()
        client.wait_for_memory(lambda memory: memory.start.sec == 500)

        # A range of time: what is left of the memory begins after it.
        forgotten = client.forget(until=time_message(505 * SECOND_NS))
        assert forgotten >= 6
        memory = client.wait_for_memory(lambda memory: memory.start.sec > 505)
        assert client.ask_anything(fresh=True).memory_start == memory.start
        assert "nothing is kept of episode 1; kept are 2" in refused(lambda: client.load_memory(1))
        assert pictures(tmp_path) > 0

        assert client.forget(everything=True) > 0
        client.wait_for_memory(lambda memory: memory.steps == 0)
        assert pictures(tmp_path) == 0
        assert client.next_statistics().segments == 0
        assert refused(client.load_memory).startswith("nothing is kept of any episode")
        assert process.stop() == 0
    with node_on(model, tmp_path) as (_, client):
        client.wait_until_active(PATIENCE_S)
        client.wait_diagnostic("episodes", "segments", "0")
        assert client.wait_for_memory().steps == 0


def test_deactivating_saves_and_a_node_that_is_not_configured_refuses(model: Path, tmp_path: Path) -> None:
    with node_on(model, tmp_path, signal.SIGKILL) as (_, client):
        client.wait_until_active(PATIENCE_S)
        client.feed(100, 101)
        assert client.change_state("deactivate")
        # The open segment ends by itself after a while, but no memory is saved then.
        client.wait_for((tmp_path / "memory.safetensors").exists, "the memory to be saved")
        wait_for_episodes(client, segments=1)
    with node_on(model, tmp_path, autostart="false") as (process, client):
        for command in (client.save_memory, client.load_memory, lambda: client.forget(everything=True)):
            assert refused(command).startswith(
                "there is no memory: it is unconfigured; ros2 lifecycle set /stream_node"
            )
        assert client.change_state("configure"), process.log
        assert client.wait_for_memory(lambda memory: memory.steps > 0).end.sec == 101


class SlowEngine:
    """An engine whose commands wait until they are let go."""

    def __init__(self) -> None:
        self.go_on = threading.Event()
        self.begun = threading.Event()
        self.failure: Exception | None = None
        self.resets = 0

    def save_memory(self, timeout_s: float) -> str:
        self.begun.set()
        assert self.go_on.wait(PATIENCE_S)
        if self.failure is not None:
            raise self.failure
        return "saved"

    def forget(self, since_ns: int | None, until_ns: int | None, episode: int | None, timeout_s: float) -> int:
        return sum(value or 0 for value in (since_ns, until_ns, episode))

    def reset(self) -> None:
        self.resets += 1


@contextmanager
def commands(engine: Any) -> Iterator[tuple[FlashVStreamClient, FlashVStreamClient]]:
    """Two clients of a command server on an engine of the test's own."""
    with ros_domain() as domain:
        context = rclpy.Context()
        rclpy.init(context=context, domain_id=domain)
        node = rclpy.create_node("commands", context=context)
        executor = SingleThreadedExecutor(context=context)
        executor.add_node(node)
        server = CommandServer(node, lambda: engine, lambda: "start it")
        thread = threading.Thread(target=executor.spin)
        thread.start()
        try:
            with (
                FlashVStreamClient("/commands", domain=domain) as first,
                FlashVStreamClient("/commands", domain=domain) as second,
            ):
                yield first, second
        finally:
            assert server.wait(lambda: False)
            executor.shutdown()
            thread.join(PATIENCE_S)
            node.destroy_node()
            rclpy.shutdown(context=context)


def test_while_one_command_runs_others_go_on_and_a_second_of_its_kind_is_refused() -> None:
    engine = SlowEngine()
    saved: list[str] = []
    with commands(engine) as (first, second):
        saving = threading.Thread(target=lambda: saved.append(first.save_memory(PATIENCE_S)))
        saving.start()
        assert engine.begun.wait(PATIENCE_S)
        second.reset()
        assert engine.resets == 1
        for command in (second.save_memory, second.load_memory, lambda: second.forget(everything=True)):
            assert refused(command) == "save_memory is under way; call again when it has ended"
        assert not saved
        engine.go_on.set()
        saving.join(PATIENCE_S)
        assert saved == ["saved"]
        assert second.forget(episode=3) == 3, "the next one is taken"


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        (RecordingError("that took longer than 600 s"), "that took longer than 600 s"),
        (StoreError(Problem.DISK_FULL, "the disk is full; free space"), "the disk is full; free space"),
        (KeyError("slot"), "save_memory failed (KeyError); the node's log has the details"),
    ],
)
def test_a_command_that_fails_says_why_and_does_not_end_the_node(failure: Exception, said: str) -> None:
    engine = SlowEngine()
    engine.go_on.set()
    engine.failure = failure
    with commands(engine) as (client, _):
        assert refused(client.save_memory) == said
        engine.failure = None
        assert client.save_memory() == "saved"


def test_a_wish_to_forget_that_makes_no_sense_is_refused() -> None:
    with commands(SlowEngine()) as (client, _):
        second = time_message(SECOND_NS)
        assert "nothing says what to forget" in refused(client.forget)
        assert "everything is true beside a range" in refused(lambda: client.forget(second, everything=True))
        later = time_message(2 * SECOND_NS)
        assert "since is 2.000 s, after until, 1.000 s" in refused(lambda: client.forget(later, second))
        assert client.forget(second, later, 5) == 3 * SECOND_NS + 5
        for number in (-1, 2**32):
            with pytest.raises(ValueError, match=f"episode is {number}"):
                client.load_memory(number)
