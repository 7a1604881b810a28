#!/usr/bin/env python3
"""Runs the stream node for long under everything that robots and their users do to it, and watches what it takes.

    python scripts/soak.py --minutes 300

A camera of 10 Hz whose images change size and whose clock jumps; questions through the service and the action, alone
and in bursts; cancels, resets, and clients that are killed. Every question must be answered or refused, and resident
memory, threads, open files and latency must stay as they were after the first fifth of the run. Exits with 1 otherwise,
with the node's last lines.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np
from fvs_ros.srv import Ask
from sensor_msgs.msg import Image

from fvs_ros.nodes.messages import time_message
from fvs_ros.nodes.qos import question_qos
from fvs_ros.ros_tools.client import FlashVStreamClient
from fvs_ros.ros_tools.processes import random_domain, ros_arguments
from fvs_ros.sources.frame import SECOND_NS
from fvs_ros.stream.types import AskError, ErrorCode

RATE_HZ = 10.0
SIZES = ((48, 64), (120, 160), (64, 48))
JUMPS_S = (600.0, -300.0)
BURST = 40
TIMEOUT_S = 20.0
# Samples of the first fifth are the warm-up.
WARM_UP = 0.2


@dataclass
class Sample:
    """What the node takes, and how long a short answer takes, in the units of `LIMITS`."""

    resident_mb: float
    threads: float
    files: float
    latency_ms: float

    def __str__(self) -> str:
        return ", ".join(f"{name} {value:.1f}" for name, value in vars(self).items())


# How far the last third's median may lie above the first third's: a factor, and something more.
LIMITS = Sample(1.05, 1.0, 1.0, 2.0)
SLACK = Sample(16.0, 3.0, 3.0, 250.0)


class Soak:
    """One run.

    Args:
        client: of the node; its waits publish the camera's images.
        process: the node.
        domain: ROS domain of the clients that are killed.
        seed: of all that happens by chance.
    """

    def __init__(self, client: FlashVStreamClient, process: subprocess.Popen[bytes], domain: int, seed: int) -> None:
        self._client = client
        self._process = process
        self._domain = domain
        self._chance = random.Random(seed)
        self._publisher = client.ros_node.create_publisher(Image, "image", 5)
        self._ask = client.ros_node.create_client(Ask, "ask", qos_profile=question_qos())
        self._due_s = 0.0
        self._clock_offset_s = 0.0
        self._size = SIZES[0]
        self._latencies_ms: list[float] = []
        self.outcomes: Counter[str] = Counter()
        self.actions: Counter[str] = Counter()
        self.samples: list[Sample] = []

    def tick(self) -> None:
        """Publishes an image if one is due."""
        now_s = time.monotonic()
        if now_s < self._due_s:
            return
        self._due_s = max(self._due_s + 1 / RATE_HZ, now_s)
        height, width = self._size
        pixels = np.full((height, width, 3), self._chance.randrange(256), np.uint8)
        message = Image(height=height, width=width, encoding="rgb8", step=3 * width)
        message.data.frombytes(pixels.tobytes())
        message.header.stamp = time_message(time.time_ns() + round(self._clock_offset_s * SECOND_NS))
        message.header.frame_id = "camera"
        self._publisher.publish(message)

    def run(self, seconds: float, sample_period_s: float) -> None:
        """Does one thing after the other, and samples in between."""
        actions = (self.ask, self.stream, self.cancel, self.burst, self.reset, self.resize, self.jump, self.kill)
        end_s, sample_s = time.monotonic() + seconds, time.monotonic() + sample_period_s
        while time.monotonic() < end_s:
            action: Callable[[], None] = self._chance.choice(actions)
            self.actions[action.__name__] += 1
            action()
            self._client.spin_for(self._chance.uniform(0, 0.5))
            if self._process.poll() is not None:
                raise RuntimeError(f"the node ended with {self._process.returncode}")
            if time.monotonic() > sample_s:
                sample_s = time.monotonic() + sample_period_s
                self.sample()

    def ask(self) -> None:
        """A short question through the service."""
        began_s = time.perf_counter()
        self._count(lambda: self._client.ask("What do you see?", max_new_tokens=4, timeout_s=TIMEOUT_S))
        self._latencies_ms.append(1e3 * (time.perf_counter() - began_s))

    def stream(self) -> None:
        """A fresh question through the action."""
        self._count(lambda: self._client.ask_stream("And now?", timeout_s=TIMEOUT_S, fresh=True).result())

    def cancel(self) -> None:
        """A question that is cancelled at some moment."""
        stream = self._client.ask_stream("A long story?", max_new_tokens=500, timeout_s=TIMEOUT_S)
        self._client.spin_for(self._chance.uniform(0, 0.1))
        stream.cancel()
        self._count(stream.result)

    def burst(self) -> None:
        """Many questions at once."""
        request = Ask.Request(question="What?", max_new_tokens=2, timeout_s=TIMEOUT_S)
        futures = [self._ask.call_async(request) for _ in range(BURST)]
        try:
            self._client.wait_for(lambda: all(future.done() for future in futures), "the burst", TIMEOUT_S + 10)
        except TimeoutError:
            self.outcomes["LOST"] += sum(not future.done() for future in futures)
        self.outcomes.update(ErrorCode(future.result().error_code).name for future in futures if future.done())

    def reset(self) -> None:
        """Forgets everything."""
        self._client.reset()

    def resize(self) -> None:
        """Images of another size; a new episode, since their number of patches may differ."""
        self._size = self._chance.choice(SIZES)
        self._client.reset()

    def jump(self) -> None:
        """The camera's clock is set."""
        self._clock_offset_s += self._chance.choice(JUMPS_S)

    def kill(self) -> None:
        """A client that asks is killed."""
        command = [sys.executable, __file__, "--ask-for-ever", str(self._domain)]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as child:
            self._client.spin_for(self._chance.uniform(1, 4))
            child.kill()

    def sample(self) -> None:
        """Takes a sample of the node."""
        folder = Path("/proc") / str(self._process.pid)
        status = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines())
        self.ask()
        sample = Sample(
            resident_mb=int(status["VmRSS"].split()[0]) / 1024,
            threads=int(status["Threads"]),
            files=sum(1 for _ in (folder / "fd").iterdir()),
            latency_ms=statistics.median(self._latencies_ms),
        )
        self._latencies_ms.clear()
        self.samples.append(sample)
        print(f"{time.strftime('%H:%M:%S')} {sample} {dict(self.outcomes)}", flush=True)

    def _count(self, question: Callable[[], object]) -> None:
        try:
            question()
            self.outcomes[ErrorCode.NONE.name] += 1
        except AskError as error:
            self.outcomes[error.code.name] += 1
        except TimeoutError:
            self.outcomes["LOST"] += 1


def problems_of(samples: Sequence[Sample], outcomes: Mapping[str, int]) -> list[str]:
    """What did not hold: questions without a reply, failures of the model, and what grew after the warm-up."""
    found = [f"{outcomes[name]} questions ended as {name}" for name in ("LOST", "MODEL_ERROR") if outcomes.get(name)]
    if not outcomes.get("NONE"):
        found.append("no question was answered")
    steady = samples[int(WARM_UP * len(samples)) :]
    third = len(steady) // 3
    if not third:
        return [*found, f"{len(samples)} samples are too few; run longer"]
    for index, name in enumerate(vars(LIMITS)):
        before = statistics.median(astuple(sample)[index] for sample in steady[:third])
        after = statistics.median(astuple(sample)[index] for sample in steady[-third:])
        if after > before * astuple(LIMITS)[index] + astuple(SLACK)[index]:
            found.append(f"{name} grew from {before:.1f} to {after:.1f}")
    return found


def ask_for_ever(domain: int) -> None:
    """A client to be killed."""
    with FlashVStreamClient(domain=domain) as client:
        while True:
            client.ask_stream("A long story?", max_new_tokens=200).result()


def main() -> int:
    """Runs the soak; 1 if something did not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0, help="how long (default: 60)")
    parser.add_argument("--samples", type=int, default=60, help="samples over the run (default: 60)")
    parser.add_argument("--model", default="embedded", help="as the node's parameter (default: embedded)")
    parser.add_argument("--seed", type=int, default=0, help="of all that happens by chance")
    parser.add_argument("--domain", type=int, help="ROS domain, which nobody else must use (default: any)")
    parser.add_argument("--ask-for-ever", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.ask_for_ever is not None:
        ask_for_ever(options.ask_for_ever)
    domain = random_domain() if options.domain is None else options.domain
    with tempfile.TemporaryFile() as log:
        parameters = {"model": options.model, "max_pixels": 50_176, "min_pixels": 12_544, "max_new_tokens": 16}
        process = subprocess.Popen(
            [sys.executable, "-m", "fvs_ros.nodes.stream_node", *ros_arguments(parameters)],
            env={**os.environ, "ROS_DOMAIN_ID": str(domain)},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            with FlashVStreamClient(domain=domain, on_wait=lambda: soak.tick()) as client:
                soak = Soak(client, process, domain, options.seed)
                client.wait_until_active(300)
                client.wait_for_memory(lambda memory: memory.steps > 0)
                seconds = 60 * options.minutes
                soak.run(seconds, seconds / options.samples)
            problems = problems_of(soak.samples, soak.outcomes)
            print(f"{dict(soak.actions)}\n{dict(soak.outcomes)}")
        finally:
            process.terminate()
            try:
                code = process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                code = process.wait()
        if code:
            problems.append(f"the node ended with {code}")
        if problems:
            log.seek(0)
            print("\n".join(log.read().decode(errors="replace").splitlines()[-20:]))
        print("\n".join(f"NOT HELD: {problem}" for problem in problems) or "all held")
        return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main())
