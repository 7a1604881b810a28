"""`fvs bench answer`: how soon an answer begins and how fast it goes on: memories young and old, idle and busy."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from rich.progress import Progress

from fvs_ros.bench.costs import ModelCosts
from fvs_ros.bench.measure import Machine, Measure, Stopwatch, single, summarise
from fvs_ros.bench.memory import MixedScenes
from fvs_ros.bench.shapes import MODEL_SHAPES, MemoryShape, random_checkpoint
from fvs_ros.memory.snapshot import MemorySnapshot
from fvs_ros.memory.streaming import StreamingFlashMemory
from fvs_ros.model.flash_vstream import FlashVStream
from fvs_ros.model.prefix_cache import PrefilledMemory, PrefixCache
from fvs_ros.model.prompt import PromptBuilder
from fvs_ros.sources.frame import SECOND_NS, Frame
from fvs_ros.stream.config import StreamConfig
from fvs_ros.stream.engine import StreamEngine
from fvs_ros.stream.types import AskOptions

QUESTION = "What lay on the table?"
# Ten minutes of grid steps at the published rate, a frame a second; a day has 43,200.
YOUNG = 300
REPEATS = 20
TOKENS = 32
AT_ONCE = 4
WARM_QUESTIONS, FRESH_QUESTIONS = 60, 20
# Between two questions under load, in seconds; drawn, so that they meet the work at any point.
LEAST_GAP_S, MOST_GAP_S = 0.1, 0.5


@dataclass(frozen=True)
class AnswerTargets:
    """What is asked of an answer while frames come in.

    Attributes:
        frames_per_s: that come in.
        warm_ms, fresh_ms: p95 of the time to the first token.
        tokens_per_s: of a single answer.
    """

    frames_per_s: float
    warm_ms: float
    fresh_ms: float | None = None
    tokens_per_s: float | None = None


# On two CPU cores with the embedded model, and on an H100-class GPU with the 7B one.
TARGETS = {
    ("cpu", "tiny"): AnswerTargets(frames_per_s=4.0, warm_ms=100.0),
    ("cuda", "qwen2-vl-7b"): AnswerTargets(frames_per_s=10.0, warm_ms=30.0, fresh_ms=600.0, tokens_per_s=120.0),
}
FRAMES_PER_S = {"cpu": 4.0, "cuda": 10.0}


def bench_answer(
    name: str, shape: MemoryShape, machine: Machine, device: torch.device, dtype: torch.dtype, steps: int, seed: int
) -> list[Measure]:
    """Measures first tokens and decoding of a model with random weights.

    Args:
        name: of the model's shape.
        shape: of its memory.
        machine: for the floors.
        device: where the model is.
        dtype: of its weights.
        steps: grid steps after which the memory is old, at least 300.
        seed: of weights, features and the moments of questions.

    Raises:
        ValueError: too few steps.
    """
    if steps < YOUNG:
        raise ValueError(f"asked for {steps} steps; the memory is measured after {YOUNG} and after those")
    checkpoint = random_checkpoint(name, device, dtype, seed)
    model, costs = FlashVStream(checkpoint, name), ModelCosts(checkpoint.network)
    targets = TARGETS.get((device.type, name))
    memory = StreamingFlashMemory(shape.config, shape.grid, shape.feature_dim, device=device, dtype=dtype)
    scenes = MixedScenes(shape, device, dtype, seed)
    measures = []
    for age in sorted({YOUNG, steps}):
        _grow(memory, scenes, age)
        measures += _Still(model, costs, machine, memory.snapshot()).measure(age, targets)
    # Its gigabytes go before the engine makes another.
    del memory
    return measures + _under_load(model, machine, costs, shape, targets, device, seed)


def _grow(memory: StreamingFlashMemory, scenes: MixedScenes, steps: int) -> None:
    with Progress(transient=True) as progress:
        for index in progress.track(range(memory.steps, steps), description=f"memory of {steps} steps"):
            stamp = 2 * index * SECOND_NS
            memory.append(*scenes.step(), stamp, stamp + SECOND_NS)


class _Still:
    """Answers on one memory, with nothing else going on."""

    def __init__(self, model: FlashVStream, costs: ModelCosts, machine: Machine, snapshot: MemorySnapshot) -> None:
        self._model, self._costs, self._machine, self._snapshot = model, costs, machine, snapshot
        self._watch = Stopwatch(model.device)

    def measure(self, age: int, targets: AnswerTargets | None) -> list[Measure]:
        """All figures, of a memory of `age` steps."""
        tokens = self._snapshot.tokens
        asked = len(PromptBuilder(self._model.tokenizer).build(QUESTION).suffix)
        costs, machine = self._costs, self._machine
        cache = self._model.new_prefix_cache()
        prefilled = cache.allocate(self._snapshot)
        pieces: list[float] = []
        while not self._whole(prefilled, pieces):
            pass
        read = self._times(lambda: self._read(cache), REPEATS // 4)
        warm = self._times(lambda: prefilled.start(QUESTION, 1).close(), REPEATS)
        decode = {count: self._decode(prefilled, count) for count in (1, AT_ONCE)}
        prefilled.close()
        cache.close()
        plain = self._times(self._plain, 3)
        at = f"step {age}"
        rates = [1e3 / milliseconds for milliseconds in decode[1]]
        step = costs.extend(tokens, 1)
        return [
            summarise(f"read, {at}", "ms", read, floor=costs.read(tokens).floor_ms(machine)),
            summarise("longest piece of it", "ms", [max(pieces)]),
            summarise("first token then", "ms", warm, floor=costs.extend(tokens, asked).floor_ms(machine)),
            summarise("first token, plain", "ms", plain),
            summarise("a token", "ms", decode[1], floor=step.floor_ms(machine)),
            summarise(
                f"a token of {AT_ONCE} answers",
                "ms",
                decode[AT_ONCE],
                floor=costs.extend(tokens, 1, AT_ONCE).floor_ms(machine),
            ),
            summarise("tokens a second", "1/s", rates, target=targets.tokens_per_s if targets else None, least=True),
        ]

    def _whole(self, prefilled: PrefilledMemory, pieces: list[float]) -> bool:
        done = False

        def advance() -> None:
            nonlocal done
            done = prefilled.prefill_chunk()

        pieces.append(self._watch.milliseconds(advance))
        return done

    def _times(self, call: Callable[[], object], count: int) -> list[float]:
        call()
        return [self._watch.milliseconds(call) for _ in range(count)]

    def _read(self, cache: PrefixCache) -> None:
        prefilled = cache.allocate(self._snapshot)
        while not prefilled.prefill_chunk():
            pass
        prefilled.close()

    def _decode(self, prefilled: PrefilledMemory, count: int) -> list[float]:
        answers = [prefilled.start(QUESTION, TOKENS) for _ in range(count)]
        times = self._times(prefilled.decode_step, TOKENS - 2)
        for answer in answers:
            answer.close()
        return times

    def _plain(self) -> None:
        """With a copy of the memory, since the plain path keeps what it read of the last one."""
        self._model.answer(replace(self._snapshot), QUESTION, max_new_tokens=1)


class _Camera:
    """Noise at a steady rate, until it is closed."""

    def __init__(self, engine: StreamEngine, side: int, frames_per_s: float, seed: int) -> None:
        generator = np.random.default_rng(seed)
        self._images = [generator.integers(0, 256, (side, side, 3), dtype=np.uint8) for _ in range(8)]
        self._engine = engine
        self._period_s = 1 / frames_per_s
        self._count = 0
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def fill(self, frames: int) -> None:
        """So many frames as fast as they are taken in."""
        for _ in range(frames):
            self._submit()
            self._engine.flush(60.0)

    def start(self) -> None:
        """Goes on at its rate."""
        self._thread.start()

    def close(self) -> None:
        """Ends."""
        self._closed.set()
        self._thread.join()

    def _submit(self) -> None:
        image = self._images[self._count % len(self._images)]
        self._count += 1
        self._engine.submit(Frame(round(self._count * self._period_s * SECOND_NS), lambda: image))

    def _run(self) -> None:
        begin = time.perf_counter()
        due = 0
        while not self._closed.wait(max(0.0, begin + due * self._period_s - time.perf_counter())):
            self._submit()
            due += 1


def _under_load(
    model: FlashVStream,
    machine: Machine,
    costs: ModelCosts,
    shape: MemoryShape,
    targets: AnswerTargets | None,
    device: torch.device,
    seed: int,
) -> list[Measure]:
    """First tokens through the engine, while a camera's frames come in."""
    rate = FRAMES_PER_S[device.type] if targets is None else targets.frames_per_s
    side = MODEL_SHAPES[model.name].frame
    gaps = np.random.default_rng(seed)
    config = StreamConfig(fps=0, max_pixels=side**2, min_pixels=side**2)
    with StreamEngine(model, config) as engine:
        camera = _Camera(engine, side, rate, seed)
        camera.fill(2 * shape.config.csm_slots + 2)
        camera.start()
        try:
            times: dict[bool, list[float]] = {False: [], True: []}
            ages = []
            with Progress(transient=True) as progress:
                order = [False] * WARM_QUESTIONS + [True] * FRESH_QUESTIONS
                for fresh in progress.track(order, description="questions under load"):
                    time.sleep(gaps.uniform(LEAST_GAP_S, MOST_GAP_S))
                    newest = engine.status.version
                    answer = engine.ask(QUESTION, AskOptions(max_new_tokens=8, fresh=fresh)).result()
                    times[fresh].append(1e3 * answer.first_token_s)
                    if not fresh:
                        ages.append(float(newest - answer.memory_version))
        finally:
            camera.close()
        statistics = engine.statistics
    tokens = shape.config.tokens(shape.grid)
    read = costs.read(tokens)
    question = costs.extend(tokens, len(PromptBuilder(model.tokenizer).build(QUESTION).suffix))
    return [
        summarise(
            f"first token, {rate:g} fps in",
            "ms",
            times[False],
            floor=question.floor_ms(machine),
            target=targets.warm_ms if targets else None,
            of="p95",
        ),
        summarise(
            f"fresh, {rate:g} fps in",
            "ms",
            times[True],
            floor=(read + question).floor_ms(machine),
            target=targets.fresh_ms if targets else None,
            of="p95",
        ),
        summarise("frames not read yet", "", ages),
        single("frames dropped", "", float(statistics.dropped), 0.0),
    ]
