"""`fvs bench answer`: time to the first token and rate of decoding, on young and old memories, idle and under load."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np

from fvs_ros.bench.camera import FRAMES_PER_S, NoiseCamera
from fvs_ros.bench.costs import ModelCosts
from fvs_ros.bench.measure import REPEATS, BenchError, Measurement, Setup, Stopwatch, single, summarise
from fvs_ros.bench.memory import MixedScenes
from fvs_ros.bench.shapes import SHAPES, random_checkpoint
from fvs_ros.bench.targets import model_targets
from fvs_ros.memory.snapshot import MemorySnapshot
from fvs_ros.memory.streaming import StreamingFlashMemory
from fvs_ros.model.flash_vstream import FlashVStream
from fvs_ros.model.prefix_cache import PrefilledMemory, PrefixCache
from fvs_ros.model.prompt import PromptBuilder
from fvs_ros.sources.frame import SECOND_NS
from fvs_ros.stream.config import StreamConfig
from fvs_ros.stream.engine import StreamEngine
from fvs_ros.stream.types import AskOptions

QUESTION = "What lay on the table?"
# Ten minutes of grid steps at the published rate, a frame a second; a day has 43,200.
YOUNG = 300
TOKENS = 32
AT_ONCE = 4
WARM_QUESTIONS, FRESH_QUESTIONS = 60, 20
# Between two questions under load, in seconds; random, so that they meet the work at any point.
LEAST_GAP_S, MOST_GAP_S = 0.1, 0.5


def bench_answer(name: str, setup: Setup) -> list[Measurement]:
    """Measures first tokens and decoding of the model shape `name`.

    The memory is measured after 300 steps and after `setup.steps`.

    Raises:
        BenchError: fewer than 300 steps.
    """
    if setup.steps < YOUNG:
        raise BenchError(f"asked for {setup.steps} steps; the memory is measured after {YOUNG} and after those")
    shape = SHAPES[name].memory
    checkpoint = random_checkpoint(name, setup.device, setup.dtype, setup.seed, setup.quantization)
    model, costs = FlashVStream(checkpoint, name), ModelCosts(checkpoint.network)
    memory = StreamingFlashMemory(shape.config, shape.grid, shape.feature_dim, device=setup.device, dtype=setup.dtype)
    scenes = MixedScenes(shape, setup.device, setup.dtype, setup.seed)
    measurements = []
    for age in sorted({YOUNG, setup.steps}):
        for index in setup.track(range(memory.steps, age), f"memory of {age} steps"):
            stamp = 2 * index * SECOND_NS
            memory.append(*scenes.step(), stamp, stamp + SECOND_NS)
        measurements += _Still(model, costs, setup, memory.snapshot()).measure()
    # Its gigabytes go before the engine allocates another.
    del memory
    return measurements + _under_load(model, costs, setup)


class _Still:
    """Answers on one memory, with nothing else going on."""

    def __init__(self, model: FlashVStream, costs: ModelCosts, setup: Setup, snapshot: MemorySnapshot) -> None:
        self._model, self._costs, self._setup, self._snapshot = model, costs, setup, snapshot
        self._watch = Stopwatch(model.device)

    def measure(self) -> list[Measurement]:
        """All figures of this memory."""
        tokens, machine = self._snapshot.tokens, self._setup.machine
        suffix = len(PromptBuilder(self._model.tokenizer, self._model.prompt_style).build(QUESTION).suffix)
        targets = model_targets(self._setup.device, self._model.name)
        cache = self._model.new_prefix_cache()
        prefilled = cache.allocate(self._snapshot)
        chunks = self._chunk_times(prefilled)
        prefill = self._watch.samples(lambda: self._prefill_whole(cache), REPEATS // 4)
        warm = self._watch.samples(lambda: prefilled.start(QUESTION, 1).close())
        decode = {count: self._decode(prefilled, count) for count in (1, AT_ONCE)}
        prefilled.close()
        cache.close()
        plain = self._watch.samples(self._plain, 3)
        rates = [1e3 / milliseconds for milliseconds in decode[1]]

        def floor(questions: int, count: int) -> float:
            return self._costs.extend(tokens, count, questions).floor_ms(machine)

        prefill_floor = self._costs.prefill(tokens).floor_ms(machine)
        return [
            summarise(f"prefill, step {self._snapshot.steps}", "ms", prefill, floor=prefill_floor),
            single("longest chunk of it", "ms", max(chunks)),
            summarise("first token then", "ms", warm, floor=floor(1, suffix)),
            summarise("first token, plain", "ms", plain),
            summarise("a token", "ms", decode[1], floor=floor(1, 1)),
            summarise(f"a token of {AT_ONCE} answers", "ms", decode[AT_ONCE], floor=floor(AT_ONCE, 1)),
            summarise("tokens a second", "1/s", rates, target=targets.tokens_per_s, least=True),
        ]

    def _chunk_times(self, prefilled: PrefilledMemory) -> list[float]:
        """Milliseconds of each chunk."""
        done = False

        def chunk() -> None:
            nonlocal done
            done = prefilled.prefill_chunk()

        times = []
        while not done:
            times.append(self._watch.milliseconds(chunk))
        return times

    def _prefill_whole(self, cache: PrefixCache) -> None:
        prefilled = cache.allocate(self._snapshot)
        while not prefilled.prefill_chunk():
            pass
        prefilled.close()

    def _decode(self, prefilled: PrefilledMemory, count: int) -> list[float]:
        answers = [prefilled.start(QUESTION, TOKENS) for _ in range(count)]
        times = self._watch.samples(prefilled.decode_step, TOKENS - 2)
        for answer in answers:
            answer.close()
        return times

    def _plain(self) -> None:
        """Answers from a copy of the memory, since the plain path keeps the prefix of the last one."""
        self._model.answer(replace(self._snapshot), QUESTION, max_new_tokens=1)


def _under_load(model: FlashVStream, costs: ModelCosts, setup: Setup) -> list[Measurement]:
    """First tokens through the engine, while a camera sends frames."""
    shape, rate = SHAPES[model.name], FRAMES_PER_S[setup.device.type]
    config = StreamConfig(fps=0, max_pixels=shape.frame**2, min_pixels=shape.frame**2)
    gaps = np.random.default_rng(setup.seed)
    times: dict[bool, list[float]] = {False: [], True: []}
    behind = []
    with StreamEngine(model, config) as engine:
        camera = NoiseCamera(engine, shape.frame, rate, setup.seed)
        camera.fill(2 * shape.memory.config.csm_slots + 2)
        camera.start()
        try:
            for index in setup.track(range(WARM_QUESTIONS + FRESH_QUESTIONS), "questions under load"):
                fresh = index >= WARM_QUESTIONS
                time.sleep(gaps.uniform(LEAST_GAP_S, MOST_GAP_S))
                newest = engine.status.version
                answer = engine.ask(QUESTION, AskOptions(max_new_tokens=8, fresh=fresh)).result()
                times[fresh].append(1e3 * answer.first_token_s)
                if not fresh:
                    behind.append(float(newest - answer.memory_version))
        finally:
            camera.close()
        statistics = engine.statistics
    tokens = shape.memory.config.tokens(shape.memory.grid)
    warm_cost = costs.extend(tokens, len(PromptBuilder(model.tokenizer, model.prompt_style).build(QUESTION).suffix))
    fresh_cost = costs.prefill(tokens) + warm_cost
    targets = model_targets(setup.device, model.name)
    return [
        summarise(
            f"first token, {rate:g} fps in",
            "ms",
            times[False],
            floor=warm_cost.floor_ms(setup.machine),
            target=targets.warm_ms,
            of="p95",
        ),
        summarise(
            f"fresh, {rate:g} fps in",
            "ms",
            times[True],
            floor=fresh_cost.floor_ms(setup.machine),
            target=targets.fresh_ms,
            of="p95",
        ),
        summarise("frames not prefilled yet", "", behind),
        single("frames dropped", "", float(statistics.dropped), 0.0),
    ]
