"""Next tokens as captured CUDA graphs: one token of all answers, or a chunk of one question.

Shapes: S rows of the suffix cache, Q questions that a graph runs, L tokens of each, N tokens of a prefix buffer,
T columns of a row, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fvs_ros.cuda_graph import CapturedCall
from fvs_ros.model.decoder import Decoder, KeyValues, SuffixAttention, SuffixChunk, later_columns
from fvs_ros.model.relevance import ObservedAttention
from fvs_ros.model.suffix_rows import SuffixRows

# L of the graphs. A shorter chunk is padded: with a 7B model on an H200 it takes 9.7, 11.5 and 16.8 ms as 32, 64 and
# 128 tokens, and took 28 when it was launched kernel by kernel.
GRAPH_LENGTHS = (1, 32, 64, 128)


class QuestionStep:
    """Logits after L more tokens of each question; every shape is fixed.

    With L = 1 it runs all S rows, whether or not a question has them; else a single one, in any row.

    What differs from call to call comes in one integer tensor, `inputs`: Q L tokens, Q L columns that they go to, Q L
    positions, Q rows, and the length of the prefix. Padding, in front, and a row without a question write to the last
    column of the suffixes, which is never read. The whole prefix buffer and all columns are read, and masked to what is
    filled.

    Args:
        rows: of the questions; take in what each question's last token attends to, and how likely answers are; say
            which tokens may come next.
        slot_of_token: [N, C], see `ObservedAttention`.

    Attributes:
        suffixes: keys and values of the rows.
        inputs: [3 Q L + Q + 1] int64.
        every_row: whether it runs all rows.
    """

    def __init__(
        self,
        decoder: Decoder,
        prefix: KeyValues,
        rows: SuffixRows,
        length: int,
        slot_of_token: Tensor,
    ) -> None:
        self._decoder, self._prefix, self.suffixes, self._length = decoder, prefix, rows.cache, length
        # As they are now: rows that grow later are other storage, with a step of their own.
        self._attention, self._likelihood, self._slot_of_token = rows.attention, rows.likelihood, slot_of_token
        self._allowed = rows.allowed
        self.every_row = length == 1
        self._row_count = rows.cache.keys.shape[1]
        self._questions = self._row_count if self.every_row else 1
        self._prefix_columns = torch.arange(prefix.tokens, device=decoder.device)
        self.inputs = torch.tensor(self.inputs_of(1, []), device=decoder.device)

    def inputs_of(self, prefix_length: int, chunks: Sequence[SuffixChunk]) -> list[int]:
        """The values of `inputs`. At least one token of the prefix is attended to: a softmax over nothing is NaN."""
        length, last_column = self._length, self.suffixes.tokens - 1
        rows = list(range(self._row_count)) if self.every_row else [chunk.row for chunk in chunks] or [0]
        tokens, columns, positions = ([value] * (length * len(rows)) for value in (0, last_column, 0))
        for chunk in chunks:
            end = length * (rows.index(chunk.row) + 1)
            count = len(chunk.tokens)
            tokens[end - count : end] = chunk.tokens
            columns[end - count : end] = range(chunk.column, chunk.column + count)
            positions[end - count : end] = range(chunk.position, chunk.position + count)
        return [*tokens, *columns, *positions, *rows, prefix_length]

    def logits(self) -> Tensor:
        """Logits [Q, V] float32 at each question's last token."""
        ids, columns, positions = self.inputs[: -self._questions - 1].view(3, self._questions, self._length)
        width = self.suffixes.tokens - 1
        rows = self.inputs[-self._questions - 1 : -1]
        observed = ObservedAttention(self._attention.layers, self._slot_of_token)
        attention = SuffixAttention(
            self._prefix.keys[:, 0],
            self._prefix.values[:, 0],
            self.suffixes,
            rows,
            columns,
            width,
            every_row=self.every_row,
            masked=later_columns(columns, width),
            prefix_masked=self._prefix_columns >= self.inputs[-1:],
            observed=observed,
        )
        logits = self._decoder.logits(ids, positions, attention)
        self._attention.keep(rows, observed.per_slot(), self._taking, answering=self._length == 1)
        return logits

    def __call__(self) -> Tensor:
        """Greedy next tokens [Q] int64."""
        rows = self.inputs[-self._questions - 1 : -1]
        logits = self._allowed.masked(rows, self.logits())
        return self._likelihood.choose(rows, logits, self._taking, answering=self._length == 1)

    @property
    def _taking(self) -> Tensor:
        """[Q] bool, the rows that have a question: their newest token is kept."""
        columns = self.inputs[: -self._questions - 1].view(3, self._questions, self._length)[1]
        return columns[:, -1] < self.suffixes.tokens - 1


class QuestionGraph:
    """A `QuestionStep`, captured. It refers to the storage of one prefix buffer and of the suffix cache for good.

    Args:
        step: is captured.

    Attributes:
        suffixes: of the step.
    """

    def __init__(self, step: QuestionStep) -> None:
        self.suffixes = step.suffixes
        self._step = step
        # Warming up and capturing write to the last column only, since no question is given.
        self._run = CapturedCall(self._step)
        self._host = torch.empty(self._step.inputs.shape, dtype=torch.int64, pin_memory=True)

    def run(self, prefix_length: int, chunks: Sequence[SuffixChunk]) -> list[int]:
        """The token that follows each chunk; waits for the device."""
        # The copy that read this storage before has ended: its step's tokens were waited for.
        self._host.copy_(torch.tensor(self._step.inputs_of(prefix_length, chunks)))
        self._step.inputs.copy_(self._host, non_blocking=True)
        result = self._run().tolist()
        return [result[chunk.row] for chunk in chunks] if self._step.every_row else result
