"""Questions about whole clips, as published: sampled frames, the offline memory of all of them, a forced beginning."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from fvs_ros.evaluation.answers import AnswerRow
from fvs_ros.evaluation.benchmarks import BenchmarkQuestion, Media
from fvs_ros.evaluation.benchmarks.windows import Window
from fvs_ros.memory.geometry import FRAMES_PER_STEP
from fvs_ros.memory.kmeans import clip_generator
from fvs_ros.memory.offline import build_memory
from fvs_ros.memory.snapshot import MemorySnapshot, PatchGrid, StepFeatures
from fvs_ros.model.preprocess import resize_first, sampled_indices
from fvs_ros.sources.recordings import read_image
from fvs_ros.stream.config import StreamConfig
from fvs_ros.stream.model_protocol import StreamModel


class ClipModel(StreamModel, Protocol):
    """What clips need of a model beside what streams do; `FlashVStream` has it."""

    def answer(
        self,
        snapshot: MemorySnapshot,
        question: str,
        *,
        max_new_tokens: int,
        on_token: Callable[[str], None],
        answer_prefix: str,
    ) -> str:
        """See `FlashVStream.answer`."""


@dataclass(frozen=True)
class ClipProtocol:
    """How a clip is shown and asked about; the defaults are the published ones.

    Attributes:
        max_frames: of a clip at one frame per second; of more, as many at equal distances. Even.
        min_pixels, max_pixels: bounds on a processed frame's area.
        max_new_tokens: an answer's longest length.
        resizes: of each frame: 2 as published, or 1 straight to the final size, as the node does.

    Raises:
        ValueError: for frames that are odd or fewer than 2, for other resizes, or what the engine refuses of the rest.
    """

    max_frames: int = 240
    min_pixels: int = StreamConfig.min_pixels
    max_pixels: int = StreamConfig.max_pixels
    max_new_tokens: int = StreamConfig.max_new_tokens
    resizes: int = 2

    def __post_init__(self) -> None:
        if self.max_frames < FRAMES_PER_STEP or self.max_frames % FRAMES_PER_STEP:
            raise ValueError(f"max_frames is {self.max_frames}; a grid step is two frames, so give an even number")
        if self.resizes not in (1, 2):
            raise ValueError(f"resizes is {self.resizes}; a frame is resized twice as published, or once: 2 or 1")
        StreamConfig(min_pixels=self.min_pixels, max_pixels=self.max_pixels, max_new_tokens=self.max_new_tokens)


class ClipAnswerer:
    """Answers questions about clips.

    Args:
        model: encodes and answers.
        protocol: how clips are shown.
        batch_steps: grid steps encoded together; changes memory and speed only.
    """

    def __init__(self, model: ClipModel, protocol: ClipProtocol, batch_steps: int = StreamConfig.batch_steps) -> None:
        self._model = model
        self._protocol = protocol
        self._batch_frames = FRAMES_PER_STEP * batch_steps

    def answers(self, window: Window, media: Media, questions: Sequence[BenchmarkQuestion]) -> Iterator[AnswerRow]:
        """One row a question about one clip, in their order.

        Raises:
            ImageError: if a frame cannot be decoded.
        """
        memory = self.memory(media, window.video)
        for question in questions:
            yield self._answer(question, memory)

    def memory(self, media: Media, identity: str) -> MemorySnapshot:
        """The offline memory of a clip, the same each time for the same frames and `identity`.

        Raises:
            ImageError: if a frame cannot be decoded.
        """
        protocol = self._protocol
        taken = sampled_indices(len(media.frames), protocol.max_frames)
        grid: PatchGrid | None = None
        parts = []
        for start in range(0, len(taken), self._batch_frames):
            images = [read_image(media.frames[index]) for index in taken[start : start + self._batch_frames]]
            if grid is None:
                height, width = images[0].shape[:2]
                grid = self._model.frame_grid(height, width, protocol.min_pixels, protocol.max_pixels)
            if protocol.resizes == 2:
                bounds = protocol.min_pixels, protocol.max_pixels
                images = [resize_first(image, *bounds, grid.patch) for image in images]
            parts.append(self._model.encode_steps(images, grid))
        assert grid is not None, "a clip has frames"
        features = StepFeatures(torch.cat([part.high for part in parts]), torch.cat([part.low for part in parts]))
        random = clip_generator(identity, features.low.device)
        return build_memory(features, grid, self._model.memory_config, generator=random)

    def _answer(self, question: BenchmarkQuestion, memory: MemorySnapshot) -> AnswerRow:
        began = time.perf_counter()
        first_token_s: float | None = None

        def note(_: str) -> None:
            nonlocal first_token_s
            if first_token_s is None:
                first_token_s = time.perf_counter() - began

        response = self._model.answer(
            memory,
            question.prompt,
            max_new_tokens=self._protocol.max_new_tokens,
            answer_prefix=question.answer_prefix,
            on_token=note,
        )
        total_s = time.perf_counter() - began
        return AnswerRow(
            id=question.id,
            question=question.question,
            answer=question.answer,
            response=response,
            first_token_s=total_s if first_token_s is None else first_token_s,
            total_s=total_s,
        )
