"""How likely given texts are as whole answers, without generating any: batch by batch, behind one prefilled memory.

A text's log-probability is the sum over its tokens *and* over the end of the answer after them. So it is that of the
model giving exactly this answer, and a softmax over several texts is the model's own distribution over answers, given
that it is one of them. Without the end, "red" would also count all that goes on as "red and green". The sum is not
divided by the text's length: a mean over tokens belongs to no distribution, and favours long texts, whose later tokens
follow from the first.

Shapes: L tokens of each text in a batch, V vocabulary.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from fvs_ros.model.decoder import Decoder, KeyValues, Prefix, SuffixChunk

# In a batch, as in a chunk of a question: other questions wait no longer for the one than for the other.
BATCH_TOKENS = 128
# Stands for any token that ends an answer.
_END = -1


@dataclass(frozen=True)
class ScoredQuestion:
    """A question and the texts that are scored as its answers, in tokens.

    Attributes:
        suffix: from the memory's end to where the answer begins, two tokens or more.
        texts: one or more tokens each.
    """

    suffix: Sequence[int]
    texts: Sequence[Sequence[int]]


@dataclass(frozen=True)
class _Text:
    """A text in a batch.

    Attributes:
        question, place: which text of which question it is.
        row: of its question in the group's keys and values.
        column: of its question's last token.
        tokens: that last token, which gives the text's first, and the text.
    """

    question: int
    place: int
    row: int
    column: int
    tokens: Sequence[int]


@dataclass(eq=False)
class _Group:
    """Questions that are computed together.

    Attributes:
        heads: their tokens but the last.
        rows: their keys and values, a row each; None before.
    """

    heads: Sequence[Sequence[int]]
    rows: KeyValues | None = None

    @property
    def longest(self) -> int:
        """Tokens of the longest head."""
        return max(map(len, self.heads))


class TextScoring:
    """Scores texts as answers to questions about one memory.

    The memory's keys and values are only read, a question's are computed once and copied to each of its texts. They are
    kept for a group of questions at a time, apart from those of answers that are being generated.

    Args:
        decoder: runs the model.
        running: where work on the device is launched.
        prefix: of the memory.
        position: position id of the first token behind it.
        questions: to be scored.
        end_tokens: each ends an answer; their probabilities are added up.
    """

    def __init__(
        self,
        decoder: Decoder,
        running: Callable[[], AbstractContextManager[None]],
        prefix: Prefix,
        position: int,
        questions: Sequence[ScoredQuestion],
        end_tokens: Sequence[int],
    ) -> None:
        self._decoder, self._running, self._prefix, self._position = decoder, running, prefix, position
        self._questions, self._end_tokens = questions, list(end_tokens)
        self._scores = [[0.0] * len(question.texts) for question in questions]
        self._left = sum(len(question.texts) for question in questions)
        # What is to be run, in order; a batch that fails, for want of memory for instance, can be run again.
        self._batches = deque(self._plan())

    @property
    def done(self) -> bool:
        """Whether all texts are scored."""
        return self._left == 0

    @property
    def log_probabilities(self) -> tuple[tuple[float, ...], ...]:
        """Of each question's texts, once all are scored."""
        return tuple(map(tuple, self._scores))

    def step(self) -> bool:
        """Computes a batch more, in bounded time; returns whether all is scored."""
        if not self.done:
            with self._running():
                self._batches[0]()
            self._batches.popleft()
        return self.done

    def _plan(self) -> Iterator[Callable[[], None]]:
        heads = [question.suffix[:-1] for question in self._questions]
        for indices in _batches([len(head) for head in heads]):
            group = _Group([heads[index] for index in indices])
            for start in range(0, group.longest, BATCH_TOKENS):
                yield partial(self._read, group, start)
            texts = [
                _Text(index, place, row, len(heads[index]), (self._questions[index].suffix[-1], *text))
                for row, index in enumerate(indices)
                for place, text in enumerate(self._questions[index].texts)
            ]
            for batch in _batches([len(text.tokens) for text in texts]):
                yield partial(self._score, group, [texts[index] for index in batch])

    def _read(self, group: _Group, start: int) -> None:
        """Computes a group's questions from a column on."""
        if group.rows is None:
            group.rows = self._decoder.allocate(len(group.heads), group.longest)
        width = min(BATCH_TOKENS, group.longest - start)
        chunks = [_padded(head[start : start + width], width) for head in group.heads]
        self._decoder.extend(self._prefix, group.rows, self._placed(chunks, [start] * len(chunks)))

    def _score(self, group: _Group, texts: Sequence[_Text]) -> None:
        """Scores a batch of texts of a group whose questions are computed."""
        questions = group.rows
        assert questions is not None
        longest = max(len(text.tokens) for text in texts)
        rows = self._decoder.allocate(len(texts), questions.tokens + longest)
        owners = [text.row for text in texts]
        # What a shorter question was padded with is overwritten, or lies behind what is attended to.
        rows.keys[:, :, : questions.tokens] = questions.keys[:, owners]
        rows.values[:, :, : questions.tokens] = questions.values[:, owners]
        chunks = self._placed([_padded(text.tokens, longest) for text in texts], [text.column for text in texts])
        lengths = [len(text.tokens) for text in texts]
        picked = [[column < length for column in range(longest)] for length in lengths]
        logits = self._decoder.logits_at(self._prefix, rows, chunks, picked)
        followers = [token for text in texts for token in (*text.tokens[1:], _END)]
        scores = self._of_followers(logits.log_softmax(-1), followers).double().split(lengths)
        for text, score in zip(texts, torch.stack([part.sum() for part in scores]).tolist(), strict=True):
            self._scores[text.question][text.place] = score
        self._left -= len(texts)

    def _of_followers(self, log_probabilities: Tensor, followers: Sequence[int]) -> Tensor:
        """Picks from log-probabilities [n, V] those [n] of the token that follows each."""
        followed = torch.tensor(followers, device=log_probabilities.device)
        tokens = log_probabilities.gather(1, followed.clamp_min(0)[:, None])[:, 0]
        if not self._end_tokens:
            # Nothing ends an answer of such a model but its length.
            return tokens.where(followed != _END, 0.0)
        return tokens.where(followed != _END, log_probabilities[:, self._end_tokens].logsumexp(-1))

    def _placed(self, chunks: Sequence[Sequence[int]], columns: Sequence[int]) -> list[SuffixChunk]:
        return [
            SuffixChunk(row, tokens, column, self._position + column)
            for row, (tokens, column) in enumerate(zip(chunks, columns, strict=True))
        ]


def _batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Indices of sequences in batches, in order: each has one, or at most BATCH_TOKENS when padded to its longest."""
    batch: list[int] = []
    for index, length in enumerate(lengths):
        if batch and (len(batch) + 1) * max(length, *(lengths[one] for one in batch)) > BATCH_TOKENS:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def _padded(tokens: Sequence[int], length: int) -> list[int]:
    """Padding comes last, where a causal mask hides it."""
    return [*tokens, *[0] * (length - len(tokens))]
