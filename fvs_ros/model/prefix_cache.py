"""Memories read ahead of any question, and questions answered several at a time from what was read.

Two buffers take turns: questions are answered from one while a newer memory is read into the other. Both are allocated
once and keep their size, as does the room for the questions' own tokens.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from transformers import PreTrainedTokenizerBase, Qwen2VLForConditionalGeneration

from fvs_ros.memory.config import FlashMemoryConfig
from fvs_ros.memory.snapshot import MemorySnapshot
from fvs_ros.model.decoder import Decoder, KeyValues, Prefix
from fvs_ros.model.prompt import PromptBuilder
from fvs_ros.model.question_graph import GRAPH_LENGTHS, Piece, QuestionGraph
from fvs_ros.model.sequence import Segment, memory_segment
from fvs_ros.model.text_stream import TextStream

BUFFERS = 2
# Room for questions at the start; it grows, by doubling, to the most and the longest that are asked at once.
FIRST_QUESTIONS, FIRST_TOKENS = 4, 256
# A long question is taken in such pieces, which bounds the memory of its attention: 0.1 GB on a 7B model.
QUESTION_CHUNK = GRAPH_LENGTHS[-1]
# What a question would else wait for, 0.4 s with a 7B model on an H200, is recorded before there is any memory.
RECORDED_AT_ONCE = GRAPH_LENGTHS[:3]
# A buffer's tokens are a multiple of it: cuBLAS reads bfloat16 rows that do not begin at 16 bytes by kernels that take
# 8.8 ms of a token of a 7B model on an H200, instead of 0.6.
ALIGNED_TOKENS = 8


@dataclass(eq=False)
class _Buffer:
    """Room for one memory's keys and values.

    Attributes:
        graphs: what continues it on CUDA, by the tokens of each question.
        taken: whether a memory has it.
    """

    cache: KeyValues
    graphs: dict[int, QuestionGraph] = field(default_factory=dict)
    taken: bool = False

    def graph(self, decoder: Decoder, tails: KeyValues, tokens: int) -> QuestionGraph:
        """The least graph that takes so many tokens of a question, recorded anew where the tails have grown."""
        length = next(length for length in GRAPH_LENGTHS if length >= tokens)
        graph = self.graphs.get(length)
        if graph is None or graph.tails is not tails:
            self.graphs[length] = graph = QuestionGraph(decoder, self.cache, tails, length)
        return graph


@dataclass(eq=False)
class Generation:
    """An answer that is being given.

    Attributes:
        slot: of the question's own keys and values.
        left: tokens that it may still grow by.
        length: tokens of the question and the answer that have keys and values.
        token: the newest, which has none yet.
        done: whether it is complete.
    """

    slot: int
    left: int
    stream: TextStream
    end_tokens: frozenset[int]
    free: set[int]
    length: int = 0
    token: int = -1
    done: bool = False
    closed: bool = False

    @property
    def text(self) -> str:
        """The answer so far; it only grows."""
        return self.stream.text

    def close(self) -> None:
        """Gives its place to other questions; at any time, and again without effect."""
        if not self.closed:
            self.closed = True
            self.free.add(self.slot)

    def add(self, token: int) -> None:
        """Takes the next token."""
        self.token = token
        if token in self.end_tokens:
            self.left = 0
        else:
            self.stream.add(token)
            self.left -= 1
        if self.left == 0:
            self.stream.finish()
            self.done = True


@dataclass(eq=False)
class _Tails:
    """Keys and values of the questions' own tokens, and which places are free. The last column is for discarding."""

    decoder: Decoder
    cache: KeyValues
    free: set[int] = field(default_factory=set)

    def take(self, tokens: int) -> int:
        """A place for a question and its answer."""
        slots, width = self.cache.keys.shape[1], self.cache.tokens - 1
        if not self.free or tokens > width:
            grown = self.decoder.allocate(
                slots if self.free else 2 * slots, 1 + (width if tokens <= width else 1 << (tokens - 1).bit_length())
            )
            for old, new in ((self.cache.keys, grown.keys), (self.cache.values, grown.values)):
                new[:, :slots, :width] = old[:, :, :width]
            self.free.update(range(slots, grown.keys.shape[1]))
            self.cache = grown
        slot = min(self.free)
        self.free.remove(slot)
        return slot


class PrefixCache:
    """Reads memories into the language model and answers questions about them. Not thread-safe.

    On CUDA it works on a stream of its own, ahead of the streams that encode frames, and a piece of a question, like a
    token of all questions, is one captured graph. Answers equal those of `FlashVStream.answer`, up to the rounding of
    another order of sums.
    """

    def __init__(
        self,
        network: Qwen2VLForConditionalGeneration,
        tokenizer: PreTrainedTokenizerBase,
        prompts: PromptBuilder,
        config: FlashMemoryConfig,
        end_tokens: Sequence[int],
    ) -> None:
        self.network = network
        self.tokenizer = tokenizer
        self.prompts = prompts
        self.config = config
        self.end_tokens = frozenset(end_tokens)
        self.decoder = Decoder(network)
        self.on_cuda = network.device.type == "cuda"
        self._stream = torch.cuda.Stream(network.device, priority=-1) if self.on_cuda else None
        self._buffers: list[_Buffer] = []
        with self.running():
            self.tails = _Tails(self.decoder, self.decoder.allocate(FIRST_QUESTIONS, FIRST_TOKENS + 1))
        self.tails.free.update(range(FIRST_QUESTIONS))

    @property
    def bytes(self) -> int:
        """Bytes of all buffers on the device; constant once a memory was read."""
        return self.tails.cache.nbytes + sum(buffer.cache.nbytes for buffer in self._buffers)

    def allocate(self, snapshot: MemorySnapshot) -> PrefilledMemory:
        """Begins to read a memory.

        Raises:
            RuntimeError: two memories are open.
        """
        tokens = len(self.prompts.head) + self.config.tokens(snapshot.grid)
        tokens += -tokens % ALIGNED_TOKENS
        if all(one.taken for one in self._buffers) and len(self._buffers) == BUFFERS:
            raise RuntimeError(f"{BUFFERS} memories are open, as many as there are buffers; close one first")
        # Frames of another size: the old buffers go before new ones come, 0.6 GB each for a 7B model.
        self._buffers = [one for one in self._buffers if one.taken or one.cache.tokens == tokens]
        while len(self._buffers) < BUFFERS:
            self._buffers.append(self._new_buffer(tokens))
        buffer = next(one for one in self._buffers if not one.taken)
        buffer.taken = True
        return PrefilledMemory(self, snapshot, buffer)

    def _new_buffer(self, tokens: int) -> _Buffer:
        with self.running():
            buffer = _Buffer(self.decoder.allocate(1, tokens))
            for length in RECORDED_AT_ONCE if self.on_cuda else ():
                buffer.graph(self.decoder, self.tails.cache, length)
        return buffer

    def close(self) -> None:
        """Frees all buffers."""
        self._buffers.clear()
        del self.tails

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Where all work on the device is launched: without gradients, on CUDA on the cache's own stream.

        The host waits for that work at the end, so that no more than one piece of it is ever queued ahead of a
        question, and that no tensor of another stream is let go while it is still read.
        """
        with torch.no_grad():
            if self._stream is None:
                yield
                return
            try:
                with torch.cuda.stream(self._stream):
                    yield
            finally:
                self._stream.synchronize()


class PrefilledMemory:
    """One memory: first read piece by piece, then asked about."""

    def __init__(self, cache: PrefixCache, snapshot: MemorySnapshot, buffer: _Buffer) -> None:
        self._cache = cache
        self._snapshot: MemorySnapshot | None = snapshot
        self._segment: Segment | None = None
        self._buffer = buffer
        self._prefix = Prefix(buffer.cache, 0)
        self._position = 0
        self._answers: list[Generation] = []

    def prefill_chunk(self) -> bool:
        """Reads a bounded piece more; True once the memory is read whole."""
        cache = self._cache
        with cache.running():
            if self._snapshot is not None:
                self._snapshot.wait_ready()
                self._segment = memory_segment(cache.network, self._snapshot, cache.prompts.head, cache.config)
                self._position = self._segment.next_position
            elif self._segment is not None:
                chunk = slice(self._prefix.length, self._prefix.length + cache.decoder.chunk)
                self._prefix = cache.decoder.prefill(
                    self._prefix, self._segment.embeddings[chunk], self._segment.positions[:, chunk]
                )
        # Let go only now that the device has done with it.
        self._snapshot = None
        if self._segment is not None and self._prefix.length == self._segment.embeddings.shape[0]:
            self._segment = None
        return self._segment is None

    def start(self, question: str, max_new_tokens: int, answer_prefix: str = "") -> Generation:
        """Takes a question in and gives the first token of its answer.

        Args:
            question: user text; control tokens that it spells out are read letter by letter.
            max_new_tokens: the answer's longest length.
            answer_prefix: what the answer is made to begin with; no part of its text.

        Raises:
            RuntimeError: the memory is not read whole yet.
        """
        if self._snapshot is not None or self._segment is not None:
            raise RuntimeError(f"{self._prefix.length} tokens of the memory are read; advance until it is read whole")
        cache = self._cache
        tail = cache.prompts.build(question, answer_prefix).tail
        with cache.running():
            slot = cache.tails.take(len(tail) + max_new_tokens)
            answer = Generation(slot, max_new_tokens, TextStream(cache.tokenizer), cache.end_tokens, cache.tails.free)
            try:
                for start in range(0, len(tail), QUESTION_CHUNK):
                    tokens = tail[start : start + QUESTION_CHUNK]
                    (token,) = self._continue([answer], [tokens])
            except BaseException:
                answer.close()
                raise
        answer.add(token)
        self._answers.append(answer)
        return answer

    def decode_step(self) -> None:
        """Gives every open answer its next token."""
        self._answers = [answer for answer in self._answers if not (answer.done or answer.closed)]
        if not self._answers:
            return
        with self._cache.running():
            tokens = self._continue(self._answers, [[answer.token] for answer in self._answers])
        for answer, token in zip(self._answers, tokens, strict=True):
            answer.add(token)

    def close(self) -> None:
        """Gives the buffer to the next memory; its answers must be complete or given up."""
        self._snapshot = self._segment = None
        self._buffer.taken = False

    def _continue(self, answers: Sequence[Generation], tokens: Sequence[Sequence[int]]) -> list[int]:
        """Takes as many more tokens of each question or answer; the token that follows them."""
        cache, tails = self._cache, self._cache.tails.cache
        if cache.on_cuda:
            pieces = [
                Piece(answer.slot, more, answer.length, self._position + answer.length)
                for answer, more in zip(answers, tokens, strict=True)
            ]
            found = self._buffer.graph(cache.decoder, tails, len(tokens[0])).run(self._prefix.length, pieces)
        else:
            logits = cache.decoder.extend(
                self._prefix,
                tails,
                [answer.slot for answer in answers],
                [answer.length for answer in answers],
                tokens,
                [self._position + answer.length for answer in answers],
            )
            found = logits.argmax(-1).tolist()
        for answer in answers:
            answer.length += len(tokens[0])
        return found
