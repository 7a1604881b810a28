"""`fvs bench node`: the real node over DDS with a synthetic 1080p camera, in processes of their own.

The time that a process computes is read from the kernel, between two of the node's own counts.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import astuple, dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch
from ament_index_python.packages import get_package_share_directory

from fvs_ros.bench.answer import QUESTION
from fvs_ros.bench.measure import BenchError, Measurement, Setup, Stopwatch, single, summarise
from fvs_ros.bench.shapes import SHAPES, random_checkpoint
from fvs_ros.bench.targets import AGE_ALLOWANCE_MS
from fvs_ros.model.checkpoint import save_checkpoint
from fvs_ros.model.flash_vstream import FlashVStream
from fvs_ros.nodes.messages import stamp_nanoseconds
from fvs_ros.ros_tools.bench_camera import draw_scenes, message_of
from fvs_ros.ros_tools.client import FlashVStreamClient
from fvs_ros.ros_tools.processes import Processes, random_domain, ros_arguments
from fvs_ros.sources.frame import Frame
from fvs_ros.sources.images import decode_compressed_image
from fvs_ros.stream.config import StreamConfig
from fvs_ros.stream.engine import StreamEngine
from fvs_ros.stream.types import AskError

CAMERA_FPS = 30.0
# Two grid steps a second.
KEPT_FPS = 4.0
# The cost of a kept frame is the difference between these two: a node that keeps none differs in other ways as well.
COST_FPS = (2.0, 10.0)
TRANSPORTS = ("raw", "compressed")
START_TIMEOUT_S = 300.0
WATCH_S = 0.02


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
        seconds, *counted = np.subtract(astuple(last), astuple(first)).tolist()
        return cls(*(count / seconds for count in counted))


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


class MeasuredNode:
    """A node in a process of its own, and what the benchmark sees of it.

    Attributes:
        client: of the node.
    """

    def __init__(self, processes: Processes, domain: int) -> None:
        self._processes = processes
        self.client = FlashVStreamClient(domain=domain, on_wait=processes.check)

    def start_camera(self, transport: str, seed: int) -> None:
        """Starts the camera, and waits until its frames are in memory."""
        arguments = ["--transport", transport, "--rate", str(CAMERA_FPS), "--seed", str(seed)]
        self._processes.start("fvs_ros.ros_tools.bench_camera", arguments)
        self.client.wait_for_memory(lambda memory: memory.steps > 0, START_TIMEOUT_S)

    def reading(self) -> Reading:
        """The next one; the node publishes its counters once a second."""
        counters = self.client.next_statistics(START_TIMEOUT_S)
        cpu_s = process_seconds(self._processes.pid("stream_node"))
        return Reading(time.monotonic(), cpu_s, counters.received, counters.ingested)

    def usage(self, seconds: float, watch: Callable[[], None] = lambda: None) -> Usage:
        """Over at least `seconds`; `watch` is called about 50 times in each."""
        first = self.reading()
        while time.monotonic() - first.now_s < seconds:
            self.client.spin_for(WATCH_S)
            watch()
        return Usage.between(first, self.reading())

    def age_ms(self) -> float:
        """How long ago the newest frame in memory was taken."""
        return (time.time_ns() - stamp_nanoseconds(self.client.wait_for_memory().end)) / 1e6


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
        BenchError: too few seconds.
        ProcessError: the node or the camera failed.
        TimeoutError: nothing comes in time.
    """
    seconds, seed = setup.steps, setup.seed
    if seconds < 5:
        raise BenchError(f"asked for {seconds} seconds; the node counts once a second, so ask for at least 5")
    with tempfile.TemporaryDirectory(prefix="fvs_bench_") as folder:
        model = Path(folder) / "model"
        cpu = torch.device("cpu")
        save_checkpoint(random_checkpoint(name, cpu, setup.dtype, seed, setup.quantization), model)
        engine_ms = _engine_ms(model, name, setup)
        measurements = [single("engine alone, a kept frame", "ms", engine_ms)]
        for transport in setup.track(TRANSPORTS, "node over DDS"):
            run = partial(_running, Path(folder), model, name, setup, transport)
            rates = []
            for fps in COST_FPS:
                with run(fps, prefill_ahead=False) as node:
                    rates.append(_phases(node, transport, seconds, seed))
            slow, fast = rates
            measurements += _costs(slow, fast, transport, engine_ms, seed)
            with run(KEPT_FPS, prefill_ahead=True) as node:
                measurements += _service(node, transport, seconds, seed)
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
) -> Iterator[MeasuredNode]:
    """The node, active and without a camera, in a domain of its own.

    Prefilling takes all the time that is left, so only without it can costs be separated.
    """
    domain = random_domain()
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
    node = MeasuredNode(processes, domain)
    try:
        processes.start("fvs_ros.nodes.stream_node", ros_arguments(parameters))
        node.client.wait_until_active(START_TIMEOUT_S)
        yield node
    finally:
        processes.stop()
        node.client.close()


def _phases(node: MeasuredNode, transport: str, seconds: float, seed: int) -> Phases:
    """Lets no frames come, then come and be dropped all, then be kept at the node's rate."""
    idle = node.usage(seconds / 2)
    node.start_camera(transport, seed)
    node.client.pause()
    dropped = node.usage(seconds)
    node.client.pause(False)
    return Phases(idle, dropped, kept=node.usage(seconds))


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


def _service(node: MeasuredNode, transport: str, seconds: float, seed: int) -> list[Measurement]:
    """What the node gives as it is used: how new its memory is, then answers, one after the other."""
    node.start_camera(transport, seed)
    ages: list[float] = []
    kept = node.usage(seconds, lambda: ages.append(node.age_ms()))
    begin, first_tokens = time.monotonic(), []
    while time.monotonic() - begin < seconds / 2:
        with suppress(AskError):
            first_tokens.append(1e3 * node.client.ask(QUESTION, max_new_tokens=8).first_token_s)
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
