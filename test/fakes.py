"""A model without weights for tests of what surrounds it: features are mean colours, answers are plain facts."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from fvs_ros.memory.config import FlashMemoryConfig
from fvs_ros.memory.geometry import FRAMES_PER_STEP
from fvs_ros.memory.snapshot import MemorySnapshot, PatchGrid, StepFeatures
from fvs_ros.memory.streaming import StreamingFlashMemory
from fvs_ros.sources.frame import Frame, Pose
from fvs_ros.stream.model_protocol import SegmentRecaller, StreamConstraint

# Longest that a test waits for another thread; reached only by a test that fails.
PATIENCE_S = 20.0
SECOND_NS = 1_000_000_000
GRID = PatchGrid(4, 4)
CHANNELS = 3


class Gate:
    """Where a thread can be held: open at first; at a shut gate a thread is noticed and waits."""

    def __init__(self) -> None:
        self._open = threading.Event()
        self._open.set()
        self._reached = threading.Event()

    def shut(self) -> None:
        self._reached.clear()
        self._open.clear()

    def open(self) -> None:
        self._open.set()

    def wait_reached(self) -> None:
        assert self._reached.wait(PATIENCE_S), "no thread came to the gate"

    def go_through(self) -> None:
        if not self._open.is_set():
            self._reached.set()
            assert self._open.wait(PATIENCE_S), "the gate was left shut"


class FakeModel:
    """A `StreamModel`.

    The gate `encoding` holds `encode_steps`, `prefilling` holds each chunk of a memory, `answering` each token.

    Attributes:
        weights: its fingerprint.
        encoded: for each call of `encode_steps`, the mean value of each frame.
        work: in order, "prefill" with the steps of the memory of which a chunk was prefilled, and "answer" with the
            number of answers that got a token at once.
        asked: of each question the memory, the text, and what the answer is made to begin with.
        turns: of each question, the earlier ones with their answers.
        say: makes an answer of a question and the memory's steps, in place of the usual one.
        likelihood: a log-probability of a question and a text, in place of minus the text's length.
        pieces: of text, of all answers.
        chunks_of_a_memory: in how many it is prefilled.
        encode_error, prefill_error, answer_error, check_error: raised by the next calls while set.
    """

    name = "fake"
    device = torch.device("cpu")

    def __init__(self, csm_slots: int = 8, dam_slots: int = 4) -> None:
        self.memory_config = FlashMemoryConfig(csm_slots=csm_slots, dam_slots=dam_slots)
        self.weights = "fake-1"
        self.encoding = Gate()
        self.prefilling = Gate()
        self.answering = Gate()
        self.caches: list[FakePrefixCache] = []
        self.work: list[tuple[str, int]] = []
        self.asked: list[tuple[MemorySnapshot, str, str]] = []
        self.turns: list[Sequence[tuple[str, str]]] = []
        self.say: Callable[[str, int], str] | None = None
        self.likelihood: Callable[[str, str], float] = lambda question, text: -float(len(text))
        self.chunks_of_a_memory = 1
        self.prefill_error: Exception | None = None
        self.encoded: list[list[int]] = []
        self.pieces: list[str] = []
        self.recaller: SegmentRecaller | None = None
        self.encode_error: Exception | None = None
        self.answer_error: Exception | None = None
        self.check_error: Exception | None = None

    def fingerprint(self) -> str:
        return self.weights

    def frame_grid(self, height: int, width: int, min_pixels: int, max_pixels: int) -> PatchGrid:
        return GRID

    def new_memory(self, grid: PatchGrid) -> StreamingFlashMemory:
        return StreamingFlashMemory(self.memory_config, grid, CHANNELS, device=torch.device("cpu"), dtype=torch.float32)

    def encode_steps(self, frames: Sequence[np.ndarray], grid: PatchGrid) -> StepFeatures:
        if not frames or len(frames) % FRAMES_PER_STEP:
            raise ValueError(f"got {len(frames)} frames; a grid step has {FRAMES_PER_STEP}")
        self.encoded.append([round(float(frame.mean())) for frame in frames])
        self.encoding.go_through()
        if self.encode_error is not None:
            raise self.encode_error
        colours = torch.tensor(np.stack([frame.mean((0, 1)) for frame in frames]), dtype=torch.float32)
        steps = colours.reshape(-1, FRAMES_PER_STEP, CHANNELS).mean(1)[:, None]
        return StepFeatures(steps.repeat(1, grid.patches, 1), steps.repeat(1, grid.low_patches, 1))

    def control_tokens_in(self, text: str) -> list[str]:
        if self.check_error is not None:
            raise self.check_error
        return [token for token in ("<|im_end|>", "<|video_pad|>") if token in text]

    def condition_check(self, text: str) -> FakeConditionCheck:
        return FakeConditionCheck((f"Is it true that {text}?",))

    def json_constraint(self, schema: str) -> FakeConstraint:
        if "type" not in schema:
            raise ValueError("the fake takes schemas with a type alone")
        return FakeConstraint("it broke" if "broken" in schema else "")

    def new_prefix_cache(self) -> FakePrefixCache:
        self.caches.append(FakePrefixCache(self))
        return self.caches[-1]


@dataclass
class FakeConstraint:
    """Allows everything."""

    problem: str = ""
    complete: bool = False

    def allowed(self) -> torch.Tensor:
        return torch.full((1,), -1, dtype=torch.int32)

    def take(self, token: int) -> None:
        pass


class FakePrefixCache:
    """Holds its engine to two memories at a time.

    Attributes:
        open: memories that are not closed.
    """

    def __init__(self, model: FakeModel) -> None:
        self.model = model
        self.open: list[FakePrefilledMemory] = []
        self.closed = False

    def allocate(self, snapshot: MemorySnapshot) -> FakePrefilledMemory:
        assert not self.closed
        if len(self.open) == 2:
            raise RuntimeError("2 memories are open")
        assert all(memory.chunks_left == 0 for memory in self.open), "never more than one prefill in progress"
        self.open.append(FakePrefilledMemory(self, snapshot))
        return self.open[-1]

    def close(self) -> None:
        assert not self.open, "a memory was left open"
        self.closed = True


class FakePrefilledMemory:
    def __init__(self, cache: FakePrefixCache, snapshot: MemorySnapshot) -> None:
        self.cache = cache
        self.snapshot = snapshot
        self.chunks_left = cache.model.chunks_of_a_memory
        self.answers: list[FakeGeneration] = []

    def prefill_chunk(self) -> bool:
        if not self.chunks_left:
            return True
        model = self.cache.model
        model.prefilling.go_through()
        if model.prefill_error is not None:
            raise model.prefill_error
        self.chunks_left -= 1
        model.work.append(("prefill", self.snapshot.steps))
        return self.chunks_left == 0

    def start(
        self,
        question: str,
        max_new_tokens: int,
        answer_prefix: str = "",
        constraint: StreamConstraint | None = None,
        turns: Sequence[tuple[str, str]] = (),
    ) -> FakeGeneration:
        assert self in self.cache.open
        if self.chunks_left:
            raise RuntimeError(f"{self.chunks_left} chunks are not prefilled yet")
        model = self.cache.model
        model.asked.append((self.snapshot, question, answer_prefix))
        model.turns.append(turns)
        answer = FakeGeneration(self.snapshot, max_new_tokens, model.say and model.say(question, self.snapshot.steps))
        answer.problem = "" if constraint is None else constraint.problem
        self._next([answer])
        self.answers.append(answer)
        return answer

    def start_choice(
        self, question: str, choices: Sequence[str], answer_prefix: str = "", turns: Sequence[tuple[str, str]] = ()
    ) -> FakeGeneration:
        scoring = self.score([question], [choices], answer_prefix)
        while not scoring.step():
            pass
        (scores,) = scoring.log_probabilities
        model = self.cache.model
        model.asked.append((self.snapshot, question, answer_prefix))
        model.turns.append(turns)
        answer = FakeGeneration(self.snapshot, 1, choices[scores.index(max(scores))])
        answer.choice_probabilities = tuple(torch.tensor(scores).softmax(0).tolist())
        self._next([answer])
        self.answers.append(answer)
        return answer

    def score(self, questions: Sequence[str], texts: Sequence[Sequence[str]], answer_prefix: str = "") -> FakeScoring:
        assert self in self.cache.open
        if self.chunks_left:
            raise RuntimeError(f"{self.chunks_left} chunks are not prefilled yet")
        return FakeScoring(self.cache.model, questions, texts)

    def decode_step(self) -> None:
        assert self in self.cache.open
        self._next([answer for answer in self.answers if not (answer.done or answer.closed)])

    def _next(self, answers: Sequence[FakeGeneration]) -> None:
        if not answers:
            return
        model = self.cache.model
        model.answering.go_through()
        if model.answer_error is not None:
            raise model.answer_error
        model.work.append(("answer", len(answers)))
        for answer in answers:
            model.pieces.append(answer.grow())

    def close(self) -> None:
        assert all(answer.closed for answer in self.answers), "an answer is still being given"
        self.cache.open.remove(self)


@dataclass(frozen=True)
class FakeConditionCheck:
    """Yes/no questions about a condition; true where all are answered with yes."""

    questions: tuple[str, ...]

    @property
    def texts(self) -> tuple[tuple[str, str], ...]:
        return (("yes", "no"),) * len(self.questions)

    def probability(self, log_probabilities: Sequence[Sequence[float]]) -> float:
        return min(math.exp(yes) / (math.exp(yes) + math.exp(no)) for yes, no in log_probabilities)


class FakeScoring:
    """Scores one question's texts at a time, by the model's `likelihood`."""

    def __init__(self, model: FakeModel, questions: Sequence[str], texts: Sequence[Sequence[str]]) -> None:
        self.model = model
        self.left = list(zip(questions, texts, strict=True))
        self.log_probabilities: list[list[float]] = []

    @property
    def done(self) -> bool:
        return not self.left

    def step(self) -> bool:
        if self.left:
            question, texts = self.left.pop(0)
            self.log_probabilities.append([self.model.likelihood(question, text) for text in texts])
        return self.done


class FakeGeneration:
    """Says the number of steps, then each CSM slot's colour as it is when its turn comes; or what `say` made of it."""

    def __init__(self, snapshot: MemorySnapshot, max_new_tokens: int, said: str | None) -> None:
        self.snapshot = snapshot
        self.said = said
        self.text = ""
        self.tokens = 0
        self.most = 1 if said is not None else min(max_new_tokens, 1 + snapshot.csm.shape[0])
        self.closed = False
        self.relevance: tuple[float, ...] | None = None
        self.choice_probabilities: tuple[float, ...] | None = None
        self.confidence = 0.75
        self.calibrated = self.not_seen = True
        self.truncated = said is None and max_new_tokens <= snapshot.csm.shape[0]
        self.problem = ""

    @property
    def done(self) -> bool:
        return self.tokens == self.most

    def grow(self) -> str:
        snapshot, token = self.snapshot, self.tokens
        piece = f"{snapshot.steps} steps:" if token == 0 else f" {snapshot.csm[token - 1].mean():g}"
        piece = piece if self.said is None else self.said
        self.tokens += 1
        self.text += piece
        return piece

    def close(self) -> None:
        self.closed = True


def frame(second: float, value: int | None = None, size: tuple[int, int] = (8, 8), **fields: Any) -> Frame:
    """A frame of one colour, by default its second."""
    image = np.full((*size, 3), int(second) % 256 if value is None else value, np.uint8)
    return Frame(stamp_ns=round(second * SECOND_NS), image=lambda: image, **fields)


def pose_at(x: float) -> Pose:
    return Pose("map", (x, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0))
