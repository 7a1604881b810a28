"""The reference path: prefill and greedy decoding through transformers' own layers and cache, one question at a time.

The engine does not use it. `fvs parity` compares it with the published code, and the answers of `prefix_cache.py` are
tested against it.

Shapes: L tokens, N memory tokens, H width of the language model, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import DynamicCache

from fvs_ros.memory.config import FlashMemoryConfig
from fvs_ros.memory.snapshot import MemorySnapshot
from fvs_ros.memory.timestamps import StepWords
from fvs_ros.model.backbone import Backbone
from fvs_ros.model.sequence import memory_segment, text_segment

# A stop is honoured between chunks of the prefill. On a GPU a chunk of a 7B model takes about 0.05 s; smaller ones
# would no longer fill it.
PREFILL_CHUNK = 1_024


@dataclass(frozen=True)
class ReferencePrefix:
    """Prompt head and memory, prefilled once; questions continue from it.

    Attributes:
        snapshot: the memory.
        head: ids of the prompt's head.
        cache: keys and values of the head and the memory.
        length: tokens in `cache`.
        next_position: position id of the token after the memory.
        logits: [V] float32, at the memory's last token.
    """

    snapshot: MemorySnapshot
    head: tuple[int, ...]
    cache: DynamicCache
    length: int
    next_position: int
    logits: Tensor


class ReferenceDecoder:
    """Decodes answers as transformers computes them. Not thread-safe: one question at a time."""

    def __init__(
        self,
        backbone: Backbone,
        config: FlashMemoryConfig,
        end_tokens: Sequence[int],
        words: StepWords | None = None,
    ) -> None:
        """Takes a backbone in evaluation mode; `end_tokens` end an answer, `words` see `memory_segment`."""
        self._backbone = backbone
        self._config = config
        self._end_tokens = frozenset(end_tokens)
        self._words = words
        self._prefix: ReferencePrefix | None = None

    def prefix(
        self, snapshot: MemorySnapshot, head: Sequence[int], should_stop: Callable[[], bool] = lambda: False
    ) -> ReferencePrefix | None:
        """The prefix of a memory, computed unless it is the last one asked for; None if stopped on the way."""
        if self._prefix is not None and self._prefix.snapshot is snapshot and self._prefix.head == tuple(head):
            return self._prefix
        self._prefix = None  # frees the old cache before the new one grows: 0.6 GB each for a 7B model
        self._prefix = self._prefill(snapshot, tuple(head), should_stop)
        return self._prefix

    def generate(
        self, prefix: ReferencePrefix, suffix: Sequence[int], should_stop: Callable[[], bool] = lambda: False
    ) -> Generator[int, None, None]:
        """Greedy tokens after the prompt's `suffix`, until an end token or a stop.

        The prefix is left as it was, so that it serves the next question.
        """
        position = prefix.next_position
        logits = self.continue_prefix(prefix, suffix, position)[-1]
        position += len(suffix)
        try:
            while not should_stop():
                token = int(logits.argmax())
                if token in self._end_tokens:
                    return
                yield token
                logits = self.continue_prefix(prefix, [token], position)[-1]
                position += 1
        finally:
            self.rewind(prefix)

    @torch.no_grad()
    def continue_prefix(self, prefix: ReferencePrefix, tokens: Sequence[int], position: int) -> Tensor:
        """Logits [L, V] float32 of text tokens appended to the prefix's cache, the first of them at `position`."""
        text = text_segment(self._backbone, tokens, position)
        return self._backbone.logits(self._run(text.embeddings, text.positions, prefix.cache))

    def rewind(self, prefix: ReferencePrefix) -> None:
        """Removes what a question appended to the prefix's cache."""
        prefix.cache.crop(prefix.length - prefix.cache.get_seq_length())

    @torch.no_grad()
    def _prefill(
        self, snapshot: MemorySnapshot, head: tuple[int, ...], should_stop: Callable[[], bool]
    ) -> ReferencePrefix | None:
        prefix = memory_segment(self._backbone, snapshot, head, self._config, self._words)
        length = prefix.embeddings.shape[0]
        cache = DynamicCache(config=self._backbone.text_config)
        for start in range(0, length, PREFILL_CHUNK):
            if should_stop():
                return None
            chunk = slice(start, start + PREFILL_CHUNK)
            deepstack = None if prefix.deepstack is None else prefix.deepstack[:, chunk]
            hidden = self._run(prefix.embeddings[chunk], prefix.positions[:, chunk], cache, deepstack)
        return ReferencePrefix(
            snapshot=snapshot,
            head=head,
            cache=cache,
            length=length,
            next_position=prefix.next_position,
            logits=self._backbone.logits(hidden[-1]),
        )

    def _run(
        self, embeddings: Tensor, positions: Tensor, cache: DynamicCache, deepstack: Tensor | None = None
    ) -> Tensor:
        """Hidden states [L, H] of embeddings [L, H] at positions [3, L], appended to the cache."""
        added = None if deepstack is None else deepstack[:, None]
        return self._backbone.hidden_states(embeddings[None], positions[:, None], cache=cache, deepstack=added)[0]
