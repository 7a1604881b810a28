"""`fvs bench recall`: the first answer from a day's store, and first tokens of questions that recall under load."""

from __future__ import annotations

import math
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from fvs_ros.bench.answer import LEAST_GAP_S, MOST_GAP_S, QUESTION
from fvs_ros.bench.camera import FRAMES_PER_S, NoiseCamera
from fvs_ros.bench.measure import BenchError, Measurement, Setup, single, summarise
from fvs_ros.bench.shapes import SHAPES, random_checkpoint
from fvs_ros.bench.targets import model_targets
from fvs_ros.episodic.information import Opener
from fvs_ros.episodic.segment import Segment, SegmentFeatures
from fvs_ros.episodic.store import EpisodeStore, Resume
from fvs_ros.model.flash_vstream import FlashVStream
from fvs_ros.model.recall import RecallHead
from fvs_ros.sources.frame import SECOND_NS
from fvs_ros.stream.config import StreamConfig
from fvs_ros.stream.engine import StreamEngine
from fvs_ros.stream.pictures import encode_jpeg
from fvs_ros.stream.recording import Episodes
from fvs_ros.stream.segment_builder import rows_and_columns
from fvs_ros.stream.types import AskOptions

QUESTIONS = 40
# Of a segment, in seconds: four grid steps, and what lies between two segments.
_SEGMENT_S, _PERIOD_S = 7, 10
_CAMERA = "bench"
_READY_S = 120.0


def bench_recall(name: str, setup: Setup) -> list[Measurement]:
    """Measures the model shape `name`, with an untrained head, on a store of `setup.steps` segments.

    Raises:
        BenchError: no more segments than the Flash Memory holds apart, of which nothing is recalled.
    """
    shape = SHAPES[name]
    if setup.steps <= shape.memory.config.csm_slots:
        raise BenchError(
            f"asked for {setup.steps} segments; nothing is recalled of {shape.memory.config.csm_slots} or fewer"
        )
    checkpoint = random_checkpoint(name, setup.device, setup.dtype, setup.seed, setup.quantization)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(setup.seed)
        head = RecallHead(checkpoint.network.config.get_text_config().hidden_size).to(setup.device).eval()
    model = FlashVStream(replace(checkpoint, recall=head), name)
    with tempfile.TemporaryDirectory() as folder:
        _fill(Path(folder), model, setup)
        return _measure(Path(folder), model, setup)


def _fill(folder: Path, model: FlashVStream, setup: Setup) -> None:
    """Stores segments that differ by noise, as long as the store's default limit allows."""
    generator = np.random.default_rng(setup.seed)
    side = SHAPES[model.name].frame
    grid = model.frame_grid(side, side, side**2, side**2)
    picture = generator.integers(0, 256, (side, side, 3), dtype=np.uint8)
    keyframe, fingerprint = encode_jpeg(picture), model.fingerprint()
    low = model.encode_steps([picture, picture], grid).low[0].float().cpu()
    noise = torch.Generator().manual_seed(setup.seed)
    keys = model.recaller.head.keys if model.recaller is not None else 0
    with _opened(folder, fingerprint) as store:
        for index in setup.track(range(setup.steps), f"{setup.steps} segments"):
            start_ns = (1 + index * _PERIOD_S) * SECOND_NS
            end_ns = start_ns + _SEGMENT_S * SECOND_NS
            segment = Segment(start_ns, end_ns, 4, start_ns, _CAMERA, side, side, "camera")
            features = SegmentFeatures(
                fingerprint,
                rows_and_columns(low + 0.3 * torch.randn(low.shape, generator=noise), grid),
                generator.standard_normal((grid.csm_tokens, keys), dtype=np.float32).astype(np.float16),
            )
            store.append(segment, keyframe, features)


def _opened(folder: Path, fingerprint: str) -> EpisodeStore:
    return EpisodeStore.open(folder, opener=Opener(_CAMERA, fingerprint=fingerprint))


def _measure(folder: Path, model: FlashVStream, setup: Setup) -> list[Measurement]:
    side, rate = SHAPES[model.name].frame, FRAMES_PER_S[setup.device.type]
    targets = model_targets(setup.device, model.name)
    gaps = np.random.default_rng(setup.seed)
    config = StreamConfig(fps=0, max_pixels=side**2, min_pixels=side**2)
    begin = time.perf_counter()
    with _opened(folder, model.fingerprint()) as store:
        episodes = Episodes(store, _CAMERA, resume=Resume.ALWAYS, silence_s=math.inf)
        with StreamEngine(model, config, episodes=episodes) as engine:
            _wait_for_memory(engine)
            first = engine.ask(QUESTION, AskOptions(max_new_tokens=8)).result()
            store_s = time.perf_counter() - begin
            if not first.recalled:
                raise BenchError(f"of {setup.steps} segments nothing was recalled; this is a fault, please report it")
            camera = NoiseCamera(engine, side, rate, setup.seed, engine.status.end_ns)
            camera.start()
            times: dict[bool, list[float]] = {True: [], False: []}
            try:
                for index in setup.track(range(2 * QUESTIONS), "questions under load"):
                    time.sleep(gaps.uniform(LEAST_GAP_S, MOST_GAP_S))
                    recall = index % 2 == 0
                    answer = engine.ask(QUESTION, AskOptions(max_new_tokens=8, recall=recall)).result()
                    times[recall].append(1e3 * answer.first_token_s)
            finally:
                camera.close()
            dropped = engine.statistics.dropped
    recalled = summarise(
        f"first token with recall, {rate:g} fps in", "ms", times[True], target=targets.recall_ms, of="p95"
    )
    return [
        single("opening to the first answer", "s", store_s, targets.store_s),
        recalled,
        summarise(f"first token without, {rate:g} fps in", "ms", times[False]),
        single("frames dropped", "", float(dropped), 0.0),
    ]


def _wait_for_memory(engine: StreamEngine) -> None:
    deadline = time.perf_counter() + _READY_S
    while not engine.status.steps or engine.recording is None or engine.recording.restoring:
        if time.perf_counter() > deadline:
            raise BenchError(f"the store was not in memory after {_READY_S:g} s")
        time.sleep(0.005)
