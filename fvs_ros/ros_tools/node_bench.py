"""`fvs bench node`: the real node over DDS with a synthetic 1080p camera, in processes of their own.

The time that a process computes is read from the kernel, between two of the node's own counts.
"""

from __future__ import annotations

import os
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import rclpy
import torch
from ament_index_python.packages import get_package_share_directory
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import DurabilityPolicy, QoSProfile
from std_srvs.srv import SetBool

from fvs_ros.bench.answer import QUESTION
from fvs_ros.bench.measure import Measurement, Setup, Stopwatch, single, summarise
from fvs_ros.bench.shapes import SHAPES, random_checkpoint
from fvs_ros.bench.targets import AGE_ALLOWANCE_MS
from fvs_ros.model.checkpoint import save_checkpoint
from fvs_ros.model.flash_vstream import FlashVStream
from fvs_ros.msg import MemoryState
from fvs_ros.nodes.messages import stamp_nanoseconds
from fvs_ros.ros_tools.bench_camera import draw_scenes, message_of
from fvs_ros.ros_tools.processes import DemoError, Processes
from fvs_ros.sources.frame import Frame
from fvs_ros.sources.images import decode_compressed_image
from fvs_ros.srv import Ask
from fvs_ros.stream.config import StreamConfig
from fvs_ros.stream.engine import StreamEngine

CAMERA_FPS = 30.0
# Two grid steps a second.
KEPT_FPS = 4.0
# What a kept frame costs is told from these two: a node that keeps none computes differently in other ways as well.
COST_FPS = (2.0, 10.0)
TRANSPORTS = ("raw", "compressed")
START_TIMEOUT_S = 300.0
TICK_S = 0.01
LAST_DOMAIN = 101


@dataclass(frozen=True)
class Reading:
    """The node at one moment.

    Attributes:
        now_s: steady clock.
        cpu_s: that the node has computed.
        received, ingested: frames, as it counts them.
    """

    now_s: float
    cpu_s: float
    received: int
    ingested: int


@dataclass(frozen=True)
class Usage:
    """Between two readings, per second.

    Attributes:
        cpu: seconds of computing.
        received, ingested: frames.
    """

    cpu: float
    received: float
    ingested: float

    @classmethod
    def between(cls, first: Reading, last: Reading) -> Usage:
        """Rates from `first` to `last`."""
        seconds = last.now_s - first.now_s
        return cls(
            (last.cpu_s - first.cpu_s) / seconds,
            (last.received - first.received) / seconds,
            (last.ingested - first.ingested) / seconds,
        )


@dataclass(frozen=True)
class Phases:
    """One node's usage: `idle` without a camera, `dropped` while it is paused, `kept` at its rate."""

    idle: Usage
    dropped: Usage
    kept: Usage

    @property
    def dropped_ms(self) -> float:
        """What a frame costs that the paused node drops, in milliseconds."""
        return 1e3 * (self.dropped.cpu - self.idle.cpu) / self.dropped.received


class NodeClient:
    """What the benchmark sees of the node, and what it asks of it."""

    def __init__(self, processes: Processes, domain: int) -> None:
        self._processes = processes
        self._context = rclpy.Context()
        rclpy.init(args=[], context=self._context, domain_id=domain)
        self._node = rclpy.create_node("fvs_bench", context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._node.create_subscription(MemoryState, "stream_node/memory", self._on_memory, latched)
        self._node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)
        self._ask = self._node.create_client(Ask, "ask")
        self._pause = self._node.create_client(SetBool, "stream_node/pause")
        self._readings: list[Reading] = []
        self._end_ns = 0

    def close(self) -> None:
        """Leaves DDS."""
        self._executor.shutdown()
        self._node.destroy_node()
        rclpy.shutdown(context=self._context)

    def spin_until(self, condition: Callable[[], Any], timeout_s: float, problem: str) -> None:
        """Spins until `condition` holds.

        Raises:
            DemoError: it does not in time, or a process has ended.
        """
        deadline = time.monotonic() + timeout_s
        while not condition():
            self._processes.check()
            if time.monotonic() > deadline:
                raise DemoError(f"{problem} within {timeout_s:.0f} s")
            self._executor.spin_once(timeout_sec=TICK_S)

    def start_camera(self, transport: str, seed: int) -> None:
        """Starts the camera, and waits until its frames are in memory."""
        arguments = ["--transport", transport, "--rate", str(CAMERA_FPS), "--seed", str(seed)]
        self._processes.start("fvs_ros.ros_tools.bench_camera", arguments)
        self.spin_until(lambda: self._end_ns, START_TIMEOUT_S, "no frame came into memory")

    def reading(self) -> Reading:
        """The next one; the node tells its counts once a second."""
        known = len(self._readings)
        self.spin_until(lambda: len(self._readings) > known, START_TIMEOUT_S, "the node told nothing of itself")
        return self._readings[-1]

    def usage(self, seconds: float, watch: Callable[[], None] = lambda: None) -> Usage:
        """Over at least so many seconds; `watch` is called every few milliseconds."""
        first = self.reading()

        def over() -> bool:
            watch()
            return time.monotonic() - first.now_s >= seconds

        self.spin_until(over, seconds + START_TIMEOUT_S, "time stood still")
        return Usage.between(first, self.reading())

    def age_ms(self) -> float:
        """How long ago the newest frame in memory was taken."""
        return (time.time_ns() - self._end_ns) / 1e6

    def pause(self, paused: bool) -> bool:
        """Lets the node skip all frames, or take them again; False while it has no model yet."""
        return bool(self._call(self._pause, SetBool.Request(data=paused)).success)

    def ask(self) -> Any:
        """The response to a question."""
        return self._call(self._ask, Ask.Request(question=QUESTION, max_new_tokens=8))

    def _call(self, client: Any, request: Any) -> Any:
        self.spin_until(client.service_is_ready, START_TIMEOUT_S, f"{client.srv_name} was not offered")
        future = client.call_async(request)
        self.spin_until(future.done, START_TIMEOUT_S, f"no response of {client.srv_name} came")
        return future.result()

    def _on_memory(self, message: MemoryState) -> None:
        self._end_ns = stamp_nanoseconds(message.end)

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name.endswith(": stream"):
                values = {value.key: value.value for value in status.values}
                cpu_s = process_seconds(self._processes.pid("stream_node"))
                counts = int(values.get("received", 0)), int(values.get("ingested", 0))
                self._readings.append(Reading(time.monotonic(), cpu_s, *counts))


def process_seconds(pid: int) -> float:
    """What a process has computed so far, all its threads together, in seconds."""
    # The name, which may hold anything, ends with the last parenthesis.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    user, system = (int(field) for field in fields[11:13])
    return (user + system) / os.sysconf("SC_CLK_TCK")


def bench_node(name: str, setup: Setup) -> list[Measurement]:
    """Measures the node with a model of random weights, once with raw and once with compressed images.

    Args:
        name: of the model's shape.
        setup: `steps` are the seconds of each phase, at least 5.

    Raises:
        ValueError: too few seconds.
        DemoError: the node or the camera failed.
    """
    seconds, seed = setup.steps, setup.seed
    if seconds < 5:
        raise ValueError(f"asked for {seconds} seconds; the node tells its counts once a second, so ask for at least 5")
    with tempfile.TemporaryDirectory(prefix="fvs_bench_") as folder:
        model = Path(folder) / "model"
        save_checkpoint(random_checkpoint(name, torch.device("cpu"), setup.dtype, seed), model)
        engine_ms = _engine_ms(model, name, setup)
        measurements = [single("engine alone, a kept frame", "ms", engine_ms)]
        for transport in setup.track(TRANSPORTS, "node over DDS"):
            run = partial(_running, Path(folder), model, name, setup, transport)
            rates = []
            for fps in COST_FPS:
                with run(fps, prefill_ahead=False) as client:
                    rates.append(_phases(client, transport, seconds, seed))
            slow, fast = rates
            measurements += _costs(slow, fast, transport, engine_ms, seed)
            with run(KEPT_FPS, prefill_ahead=True) as client:
                measurements += _service(client, transport, seconds, seed)
    return measurements


def _engine_ms(model: Path, name: str, setup: Setup) -> float:
    """What the engine computes per kept frame without ROS, on frames that are decoded already, in milliseconds."""
    scenes = [cv2.cvtColor(scene, cv2.COLOR_BGR2RGB) for scene in draw_scenes(setup.seed)]
    loaded = FlashVStream.load(str(model), device=str(setup.device), dtype=_dtype_name(setup))
    side = SHAPES[name].frame
    config = StreamConfig(fps=0, min_pixels=side**2, max_pixels=side**2, prefill_share=0.0)
    with StreamEngine(loaded, config) as engine:

        def run(count: int) -> float:
            begin, cpu = time.monotonic(), time.process_time()
            for index in range(count):
                image = scenes[index % len(scenes)]
                engine.submit(Frame(time.time_ns(), partial(np.asarray, image)))
                time.sleep(max(0.0, begin + (index + 1) / COST_FPS[1] - time.monotonic()))
            engine.flush(START_TIMEOUT_S)
            return 1e3 * (time.process_time() - cpu) / count

        run(round(COST_FPS[1] * 2))
        return run(round(COST_FPS[1] * setup.steps))


def _dtype_name(setup: Setup) -> str:
    """The dtype as the node's parameter names it."""
    return str(setup.dtype).removeprefix("torch.")


@contextmanager
def _running(
    folder: Path,
    model: Path,
    name: str,
    setup: Setup,
    transport: str,
    fps: float,
    prefill_ahead: bool,
) -> Iterator[NodeClient]:
    """The node and a client in its domain, without a camera.

    Prefilling ahead takes what time is left, so that costs can be told apart only without it.
    """
    domain = random.randint(1, LAST_DOMAIN)
    side = SHAPES[name].frame
    parameters = {
        "model": model,
        "device": setup.device,
        "dtype": _dtype_name(setup),
        "fps": fps,
        "image_transport": transport,
        "min_pixels": side**2,
        "max_pixels": side**2,
        "prefill_share": StreamConfig().prefill_share if prefill_ahead else 0.0,
    }
    # Without it hardly any raw image arrives; see the file.
    profile = Path(get_package_share_directory("fvs_ros")) / "config" / "fastdds_large_images.xml"
    environment = {
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
        **dict.fromkeys(("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE"), str(profile)),
        **os.environ,
        "ROS_DOMAIN_ID": str(domain),
    }
    processes = Processes(folder, environment)
    client = NodeClient(processes, domain)
    try:
        arguments = [part for key, value in parameters.items() for part in ("-p", f"{key}:={value}")]
        processes.start("fvs_ros.nodes.stream_node", ["--ros-args", *arguments])
        yield client
    finally:
        processes.stop()
        client.close()


def _phases(client: NodeClient, transport: str, seconds: float, seed: int) -> Phases:
    """Lets no frames come, then come and be dropped all, then be kept at the node's rate."""
    client.spin_until(lambda: client.pause(False), START_TIMEOUT_S, "the node did not load its model")
    idle = client.usage(seconds / 2)
    client.start_camera(transport, seed)
    client.pause(True)
    dropped = client.usage(seconds)
    client.pause(False)
    return Phases(idle, dropped, kept=client.usage(seconds))


def _costs(slow: Phases, fast: Phases, transport: str, engine_ms: float, seed: int) -> list[Measurement]:
    """What frames cost the node, from two nodes that keep different shares of what arrives."""
    dropped_ms = (slow.dropped_ms + fast.dropped_ms) / 2
    kept_ms = kept_frame_ms(slow, fast, dropped_ms)
    # A dropped frame must cost less than decoding it would; of a raw one, receiving its 6 MB alone costs more.
    jpeg_ms = _jpeg_ms(seed) if transport == "compressed" else None
    return [
        single(f"{transport}: a dropped frame", "ms", dropped_ms, jpeg_ms),
        single(f"{transport}: a kept frame", "ms", kept_ms),
        single(f"{transport}: of that ROS's", "ms", kept_ms - engine_ms),
    ]


def kept_frame_ms(slow: Phases, fast: Phases, dropped_ms: float) -> float:
    """What a kept frame costs, in milliseconds: two nodes' difference, less what either drops."""
    cpu_s = [
        phases.kept.cpu - phases.idle.cpu - dropped_ms / 1e3 * (phases.kept.received - phases.kept.ingested)
        for phases in (slow, fast)
    ]
    return 1e3 * (cpu_s[1] - cpu_s[0]) / (fast.kept.ingested - slow.kept.ingested)


def _service(client: NodeClient, transport: str, seconds: float, seed: int) -> list[Measurement]:
    """What the node gives as it is used: how new its memory is, then answers, one after the other."""
    client.spin_until(lambda: client.pause(False), START_TIMEOUT_S, "the node did not load its model")
    client.start_camera(transport, seed)
    ages: list[float] = []
    kept = client.usage(seconds, lambda: ages.append(client.age_ms()))
    begin, first_tokens = time.monotonic(), []
    while time.monotonic() - begin < seconds / 2:
        response = client.ask()
        if response.success:
            first_tokens.append(1e3 * response.first_token_s)
    rate = len(first_tokens) / (time.monotonic() - begin)
    interval_ms = 1e3 / KEPT_FPS
    return [
        single(f"{transport}: frames/s arriving", "", kept.received),
        summarise(f"{transport}: age of newest", "ms", ages, target=interval_ms + AGE_ALLOWANCE_MS, of="p95"),
        single(f"{transport}: CPU cores", "x", kept.cpu),
        single(f"{transport}: questions/s", "", rate),
        summarise(f"{transport}: first token", "ms", first_tokens),
    ]


def _jpeg_ms(seed: int) -> float:
    """What decoding one of the camera's compressed images takes, the least of a few."""
    message = message_of(draw_scenes(seed)[0], "compressed")
    return min(Stopwatch(torch.device("cpu")).milliseconds(lambda: decode_compressed_image(message)) for _ in range(5))
