"""Readers of the public benchmarks, by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from fvs_ros.evaluation.benchmarks import layouts, long_video, navqa, ovo_bench, streaming_bench
from fvs_ros.evaluation.benchmarks.layouts import Media
from fvs_ros.evaluation.benchmarks.question import BenchmarkQuestion

__all__ = ["BENCHMARKS", "Benchmark", "BenchmarkQuestion", "Media"]


@dataclass(frozen=True)
class Benchmark:
    """One benchmark: how it is read, and where its videos are.

    Attributes:
        title: as its authors write it.
        annotations: names of its annotation files in its data folder.
        read: the questions of one annotation file; raises `DataError`.
        media: what a question's video is under a data folder; raises `DataError`.
        subtitled: whether the prompt begins with the video's subtitles.
        streaming: whether questions are asked at moments of the video, of the memory of the stream so far; else of
            the offline memory of the whole clip.
    """

    title: str
    annotations: tuple[str, ...]
    read: Callable[[Path], list[BenchmarkQuestion]]
    media: Callable[[Path, BenchmarkQuestion], Media]
    subtitled: bool = False
    streaming: bool = False


def _long_video(name: str, title: str, subtitled: bool = False) -> Benchmark:
    read = partial(long_video.read, name=name)
    return Benchmark(title, (long_video.ANNOTATIONS,), read, layouts.long_video_media, subtitled)


BENCHMARKS = {
    "egoschema": _long_video("egoschema", "EgoSchema"),
    "mlvu": _long_video("mlvu", "MLVU"),
    "lvbench": _long_video("lvbench", "LVBench"),
    "mvbench": _long_video("mvbench", "MVBench"),
    "videomme": _long_video("videomme", "Video-MME without subtitles"),
    "videomme-subtitles": _long_video("videomme", "Video-MME with subtitles", subtitled=True),
    "ovo-bench": Benchmark(
        "OVO-Bench", (ovo_bench.ANNOTATIONS,), ovo_bench.read, layouts.ovo_bench_media, streaming=True
    ),
    "streamingbench": Benchmark(
        "StreamingBench",
        tuple(f"questions_{part}.json" for part in streaming_bench.PARTS),
        streaming_bench.read,
        layouts.streaming_bench_media,
        streaming=True,
    ),
    "navqa": Benchmark("NaVQA", (navqa.ANNOTATIONS,), navqa.read, layouts.navqa_media, streaming=True),
}
