"""Memories prefilled before any question, and several answers at a time generated from them.

Two buffers take turns: questions are answered from one while a newer memory is prefilled into the other. A buffer keeps
its size while frames keep theirs. The rows of the suffix cache, which hold the questions' own tokens, double in number
and length to fit the most and the longest questions that were ever open at once; they shrink only when it is closed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from fvs_ros.memory.config import FlashMemoryConfig
from fvs_ros.memory.snapshot import MemorySnapshot, PatchGrid
from fvs_ros.memory.timestamps import most_text_tokens
from fvs_ros.model.allowed_tokens import AnswerConstraint
from fvs_ros.model.backbone import Backbone
from fvs_ros.model.choosing import ChoiceGeneration
from fvs_ros.model.confidence import PLAIN_ANSWERS, AnswerRules
from fvs_ros.model.decoder import Decoder, KeyValues, Prefix, SuffixChunk
from fvs_ros.model.generation import Generation
from fvs_ros.model.prompt import PromptBuilder
from fvs_ros.model.question_graph import GRAPH_LENGTHS, QuestionGraph, QuestionStep
from fvs_ros.model.relevance import (
    ObservedAttention,
    RelevanceRule,
    RelevanceWeights,
    slot_capacity,
    slots_of_tokens,
)
from fvs_ros.model.scoring import ScoredQuestion, TextScoring
from fvs_ros.model.sequence import MemorySegment, memory_segment
from fvs_ros.model.suffix_rows import SuffixRows
from fvs_ros.model.text_stream import TextStream

BUFFERS = 2
# A long question is computed in chunks, which bounds the memory of its attention: 0.1 GB on a 7B model.
QUESTION_CHUNK = GRAPH_LENGTHS[-1]
# What a question would else wait for, 0.4 s with a 7B model on an H200, is recorded before there is any memory.
RECORDED_AT_ONCE = GRAPH_LENGTHS[:3]
# A buffer's tokens are a multiple of it: cuBLAS reads bfloat16 rows that do not begin at 16 bytes by kernels that take
# 8.8 ms of a token of a 7B model on an H200, instead of 0.6.
ALIGNED_TOKENS = 8


class PrefixCache:
    """Allocates keys and values for memories and for the questions about them. Not thread-safe.

    On CUDA it works on a stream of its own, of higher priority than the streams that encode frames; a chunk of a
    question, like one token of all answers, is one captured graph. Answers equal those of `FlashVStream.answer`, up to
    the rounding of another order of sums.

    Attributes:
        suffixes: rows for the questions' own tokens.
    """

    def __init__(
        self,
        backbone: Backbone,
        tokenizer: PreTrainedTokenizerBase,
        prompts: PromptBuilder,
        config: FlashMemoryConfig,
        end_tokens: Sequence[int],
        relevance: RelevanceWeights | None = None,
        rules: AnswerRules = PLAIN_ANSWERS,
    ) -> None:
        self.backbone = backbone
        self.tokenizer = tokenizer
        self.prompts = prompts
        self.config = config
        self.end_tokens = frozenset(end_tokens)
        self.decoder = Decoder(backbone)
        self.relevance = RelevanceRule(relevance, len(backbone.layers), backbone.device)
        self.rules = rules
        self.on_cuda = backbone.device.type == "cuda"
        self._stream = torch.cuda.Stream(backbone.device, priority=-1) if self.on_cuda else None
        self._buffers: list[_Buffer] = []
        with self.running():
            heads, slots = backbone.text_config.num_attention_heads, slot_capacity(config)
            vocabulary = backbone.text_config.vocab_size
            self.suffixes = SuffixRows(self.decoder, self.relevance.layers, heads, slots, vocabulary)

    @property
    def bytes(self) -> int:
        """Bytes of all buffers and rows on the device."""
        return self.suffixes.cache.nbytes + sum(buffer.cache.nbytes for buffer in self._buffers)

    def allocate(self, snapshot: MemorySnapshot) -> PrefilledMemory:
        """Gives a memory a buffer, into which it is then prefilled chunk by chunk.

        Raises:
            RuntimeError: two memories are open.
        """
        tokens = self._buffer_tokens(snapshot.grid)
        if len(self._buffers) == BUFFERS and all(buffer.taken for buffer in self._buffers):
            raise RuntimeError(f"{BUFFERS} memories are open, as many as there are buffers; close one first")
        # Frames of another size: the old buffers go before new ones come, 0.6 GB each for a 7B model.
        self._buffers = [one for one in self._buffers if one.taken or one.cache.tokens == tokens]
        while len(self._buffers) < BUFFERS:
            self._buffers.append(self._new_buffer(tokens))
        buffer = next(one for one in self._buffers if not one.taken)
        buffer.taken = True
        return PrefilledMemory(self, snapshot, buffer)

    def free(self, buffer: _Buffer) -> None:
        """Takes a buffer back, for the next memory."""
        buffer.taken = False

    def _buffer_tokens(self, grid: PatchGrid) -> int:
        """Tokens of the longest prefix with frames of that size."""
        tokens = len(self.prompts.head) + self.config.tokens(grid)
        if self.prompts.words is not None:
            tokens += slot_capacity(self.config) * most_text_tokens(self.prompts.words)
        return tokens + -tokens % ALIGNED_TOKENS

    def _new_buffer(self, tokens: int) -> _Buffer:
        with self.running():
            cache = self.decoder.allocate(1, tokens)
            buffer = _Buffer(cache, cache.keys.new_zeros(tokens, slot_capacity(self.config)))
            for length in RECORDED_AT_ONCE if self.on_cuda else ():
                buffer.graph(self.decoder, self.suffixes, length)
        return buffer

    def close(self) -> None:
        """Frees all buffers and rows."""
        self._buffers.clear()
        del self.suffixes

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Where all work on the device is launched: without gradients, on CUDA on the cache's own stream.

        The host waits for that work at the end, so that at most one chunk is ever queued ahead of a question, and that
        no tensor of another stream is freed while it is still read.
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
    """One memory in a buffer of the cache: prefilled chunk by chunk, then asked about."""

    def __init__(self, cache: PrefixCache, snapshot: MemorySnapshot, buffer: _Buffer) -> None:
        self._cache = cache
        self._snapshot: MemorySnapshot | None = snapshot
        self._segment: MemorySegment | None = None
        self._buffer = buffer
        self._prefix = Prefix(buffer.cache, 0)
        self._position = 0
        self._slots = 0
        self._generations: list[Generation] = []
        self._choosing: list[ChoiceGeneration] = []

    def prefill_chunk(self) -> bool:
        """Computes a bounded chunk more; True once the whole memory is prefilled."""
        cache = self._cache
        with cache.running():
            if self._snapshot is not None:
                self._snapshot.wait_ready()
                prompts = cache.prompts
                segment = memory_segment(cache.backbone, self._snapshot, prompts.head, cache.config, prompts.words)
                self._segment, self._position = segment, segment.next_position
                self._slots = len(self._snapshot.slot_tokens)
                self._buffer.assign_slots(segment.slots)
            elif self._segment is not None:
                segment = self._segment
                chunk = slice(self._prefix.length, self._prefix.length + cache.decoder.chunk)
                deepstack = None if segment.deepstack is None else segment.deepstack[:, chunk]
                embeddings, positions = segment.embeddings[chunk], segment.positions[:, chunk]
                self._prefix = cache.decoder.prefill(self._prefix, embeddings, positions, deepstack)
        # Freed only now that the device has finished with it.
        self._snapshot = None
        if self._segment is not None and self._prefix.length == self._segment.embeddings.shape[0]:
            self._segment = None
        return self._segment is None

    def start(
        self,
        question: str,
        max_new_tokens: int,
        answer_prefix: str = "",
        constraint: AnswerConstraint | None = None,
        turns: Sequence[tuple[str, str]] = (),
    ) -> Generation:
        """Computes a question and the first token of its answer.

        Args:
            question: user text; control tokens that it spells out are read letter by letter.
            max_new_tokens: the answer's longest length.
            answer_prefix: what the answer is made to begin with; no part of its text.
            constraint: what the answer is held to; its own from here on.
            turns: earlier questions of the conversation with their answers, read as the question is.

        Raises:
            RuntimeError: the memory is not prefilled to its end yet.
        """
        self._require_prefilled()
        cache = self._cache
        suffix = cache.prompts.build(question, answer_prefix, turns).suffix
        generation = Generation(
            TextStream(cache.tokenizer),
            cache.end_tokens,
            max_new_tokens,
            asked=len(suffix),
            follows_up=bool(turns),
            constraint=constraint,
        )
        self._start(generation, suffix)
        return generation

    def start_choice(
        self, question: str, choices: Sequence[str], answer_prefix: str = "", turns: Sequence[tuple[str, str]] = ()
    ) -> ChoiceGeneration:
        """Begins an answer that is the likeliest of given texts, and computes a first batch of their scores.

        Args:
            question: as for `start`.
            choices: one text or more, none empty; control tokens that they spell out are read letter by letter.
            answer_prefix: as for `start`.
            turns: as for `start`.

        Raises:
            RuntimeError: the memory is not prefilled to its end yet.
        """
        cache = self._cache
        scoring = self.score([question], [choices], answer_prefix, turns)
        suffix = cache.prompts.build(question, answer_prefix, turns).suffix
        end = sorted(cache.end_tokens)[:1]

        def begin(choice: int) -> Generation:
            given = (*cache.prompts.encode_text(choices[choice]), *end)
            text = TextStream(cache.tokenizer)
            generation = Generation(text, cache.end_tokens, len(given), asked=len(suffix), given=given)
            self._start(generation, suffix)
            return generation

        choosing = ChoiceGeneration(choices, scoring, begin)
        choosing.advance()
        self._choosing.append(choosing)
        return choosing

    def score(
        self,
        questions: Sequence[str],
        texts: Sequence[Sequence[str]],
        answer_prefix: str = "",
        turns: Sequence[tuple[str, str]] = (),
    ) -> TextScoring:
        """How likely texts are as whole answers to questions, each answer by itself; `step` computes it.

        Args:
            questions: each as for `start`.
            texts: those of each question, none empty; control tokens that they spell out are read letter by letter.
            answer_prefix: what all answers are made to begin with, before the texts.
            turns: before each of the questions, as for `start`.

        Raises:
            RuntimeError: the memory is not prefilled to its end yet.
        """
        self._require_prefilled()
        cache = self._cache
        scored = [
            ScoredQuestion(
                cache.prompts.build(question, answer_prefix, turns).suffix,
                [cache.prompts.encode_text(one) for one in answers],
            )
            for question, answers in zip(questions, texts, strict=True)
        ]
        end_tokens = sorted(cache.end_tokens)
        return TextScoring(cache.decoder, cache.running, self._prefix, self._position, scored, end_tokens)

    def _require_prefilled(self) -> None:
        if self._snapshot is not None or self._segment is not None:
            raise RuntimeError(
                f"only {self._prefix.length} tokens of the memory are prefilled; call prefill_chunk until it is True"
            )

    def _start(self, generation: Generation, suffix: Sequence[int]) -> None:
        """Computes a question and the first token of its answer."""
        cache = self._cache
        with cache.running():
            cache.suffixes.allocate(generation, len(suffix) + generation.remaining)
            try:
                for start in range(0, len(suffix), QUESTION_CHUNK):
                    chunk = suffix[start : start + QUESTION_CHUNK]
                    (token,) = self._extend([generation], [chunk], answering=False)
            except BaseException:
                generation.close()
                raise
            generation.add(token)
            self._complete([generation])
        self._generations.append(generation)

    def decode_step(self) -> None:
        """Computes the next token, or batch of scores, of every answer that is neither complete nor closed."""
        self._choosing = [one for one in self._choosing if not (one.scored or one.closed)]
        for choosing in self._choosing:
            choosing.advance()
        self._generations = [one for one in self._generations if not (one.done or one.closed)]
        if not self._generations:
            return
        with self._cache.running():
            tokens = self._extend(self._generations, [[one.token] for one in self._generations], answering=True)
            for generation, token in zip(self._generations, tokens, strict=True):
                generation.add(token)
            self._complete(self._generations)

    def close(self) -> None:
        """Gives the buffer back to the cache; answers from this memory must be complete or closed."""
        self._snapshot = self._segment = None
        self._cache.free(self._buffer)

    def _complete(self, generations: Sequence[Generation]) -> None:
        """Gives complete answers what they rest on, and how sure they are."""
        suffixes, rule = self._cache.suffixes, self._cache.relevance
        attention, likelihood = suffixes.attention, suffixes.likelihood
        for one in generations:
            if one.done:
                answered = one.length - one.asked
                answer = attention.answer[one.row] / answered if answered else None
                one.relevance = tuple(rule.of(attention.question[one.row], answer, self._slots).tolist())
                # No questions with known answers were held to a schema, and JSON says nothing in words.
                rules = self._cache.rules if one.constraint is None else PLAIN_ANSWERS
                one.calibrated = rules.calibration is not None and not one.follows_up
                one.confidence = rules.confidence(float(likelihood.log_probability[one.row]), one.calibrated)
                one.not_seen = one.constraint is None and rules.says_not_seen(one.text)

    def _extend(
        self, generations: Sequence[Generation], tokens: Sequence[Sequence[int]], *, answering: bool
    ) -> list[int]:
        """Appends equally many tokens of questions, or of answers; returns the token that follows in each."""
        cache = self._cache
        suffixes, allowed = cache.suffixes.cache, cache.suffixes.allowed
        for one in generations:
            allowed.set(one.row, one.constraint)
        allowed.upload()
        chunks = [
            SuffixChunk(one.row, more, one.length, self._position + one.length)
            for one, more in zip(generations, tokens, strict=True)
        ]
        if cache.on_cuda:
            # The graph of single tokens is that of answers.
            graph = self._buffer.graph(cache.decoder, cache.suffixes, max(len(tokens[0]), 1 if answering else 2))
            following = graph.run(self._prefix.length, chunks)
        else:
            attention = cache.suffixes.attention
            observed = ObservedAttention(attention.layers, self._buffer.slot_of_token[: self._prefix.length])
            logits = cache.decoder.extend(self._prefix, suffixes, chunks, observed)
            rows = torch.tensor([one.row for one in generations])
            logits = allowed.masked(rows, logits) if allowed.limited else logits
            taking = torch.ones_like(rows, dtype=torch.bool)
            attention.keep(rows, observed.per_slot(), taking, answering=answering)
            following = cache.suffixes.likelihood.choose(rows, logits, taking, answering=answering).tolist()
        for one in generations:
            one.length += len(tokens[0])
        return following


@dataclass(eq=False)
class _Buffer:
    """Keys and values of one memory.

    Attributes:
        slot_of_token: [N, C], see `ObservedAttention`.
        graphs: what continues it on CUDA, by the tokens of each question.
        taken: whether a memory has it.
    """

    cache: KeyValues
    slot_of_token: Tensor
    graphs: dict[int, QuestionGraph] = field(default_factory=dict)
    taken: bool = False

    def assign_slots(self, owners: Tensor) -> None:
        """Notes the slot of each token, see `MemorySegment.slots`."""
        self.slot_of_token.copy_(slots_of_tokens(owners, *self.slot_of_token.shape))

    def graph(self, decoder: Decoder, rows: SuffixRows, tokens: int) -> QuestionGraph:
        """The smallest graph for that many tokens of a question, recorded anew once the suffix cache has grown."""
        length = next(length for length in GRAPH_LENGTHS if length >= tokens)
        graph = self.graphs.get(length)
        if graph is None or graph.suffixes is not rows.cache:
            step = QuestionStep(decoder, self.cache, rows, length, self.slot_of_token)
            self.graphs[length] = graph = QuestionGraph(step)
        return graph
