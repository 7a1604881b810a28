"""Engines on a fake model, and short words for what tests do with them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from fakes import PATIENCE_S, FakeModel

from fvs_ros.sources.frame import Frame
from fvs_ros.stream.config import StreamConfig
from fvs_ros.stream.engine import StreamEngine
from fvs_ros.stream.questions import PendingAnswer
from fvs_ros.stream.recording import Episodes
from fvs_ros.stream.types import Answer, AskError, MemoryStatus, StreamStatistics

MakeEngine = Callable[..., StreamEngine]


@contextmanager
def engine_maker(model: FakeModel) -> Iterator[MakeEngine]:
    """Makes running engines that keep every frame; closes them at the end and checks that their counters add up.

    Unless `prefill_share` is set, they prefill on demand, so that every answer is from the newest memory.
    """
    engines: list[StreamEngine] = []

    def make(
        on_memory: Callable[[MemoryStatus], None] | None = None, episodes: Episodes | None = None, **settings: Any
    ) -> StreamEngine:
        defaults: dict[str, Any] = {"fps": 0, "timeout_s": PATIENCE_S, "prefill_share": 0.0}
        engines.append(StreamEngine(model, StreamConfig(**defaults | settings), on_memory, episodes))
        engines[-1].start()
        return engines[-1]

    try:
        yield make
    finally:
        model.encoding.open()
        model.prefilling.open()
        model.answering.open()
        for engine in engines:
            engine.close()
    for engine in engines:
        assert_adds_up(engine.statistics)
    assert all(cache.closed for cache in model.caches)


def assert_adds_up(statistics: StreamStatistics) -> None:
    fates = statistics.skipped + statistics.late + statistics.dropped + statistics.discarded + statistics.ingested
    assert statistics.received == fates + sum(statistics.rejected.values()) + statistics.waiting


def feed(engine: StreamEngine, *frames: Frame) -> None:
    """Submits frames one by one, each in memory before the next comes."""
    for one in frames:
        engine.submit(one)
        assert engine.flush(PATIENCE_S)


def result(pending: PendingAnswer) -> Answer:
    return pending.result(PATIENCE_S)


def failure(pending: PendingAnswer) -> AskError:
    with pytest.raises(AskError) as caught:
        pending.result(PATIENCE_S)
    return caught.value
