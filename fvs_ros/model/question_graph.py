"""The next tokens of questions as captured CUDA graphs: of all questions by one token, or of one by a piece of text.

Shapes: S places for questions, Q questions that a graph runs, L tokens of each, N tokens that a prefix has room for, T
columns of the questions' own tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fvs_ros.cuda_graph import CapturedCall
from fvs_ros.model.decoder import Decoder, KeyValues, QuestionAttention, hidden_columns

# L of the graphs. A shorter piece is padded: with a 7B model on an H200 it takes 9.7, 11.5 and 16.8 ms as 32, 64 and
# 128 tokens, and took 28 when it was launched kernel by kernel.
GRAPH_LENGTHS = (1, 32, 64, 128)


@dataclass(frozen=True)
class Piece:
    """More tokens of one question.

    Attributes:
        slot: place of the question.
        tokens: at least one, at most L.
        column: where in its place the first of them goes.
        position: position id of the first of them.
    """

    slot: int
    tokens: Sequence[int]
    column: int
    position: int


class QuestionStep:
    """Greedy next tokens after L more tokens of each question; every shape is fixed.

    With L = 1 it runs all S places, whether or not there is a question; else a single one, in any place.

    What differs from call to call comes in one integer tensor, `inputs`: Q L tokens, Q L columns that they go to, Q L
    positions, Q places, and the length of the prefix. Padding, in front, and a place without a question write to the
    tails' last column, which is never read. The whole room of the prefix and the tails is read, and masked to what is
    there.

    Attributes:
        inputs: [3 Q L + Q + 1] int64.
        every_slot: whether it runs all places.
    """

    def __init__(self, decoder: Decoder, prefix: KeyValues, tails: KeyValues, length: int) -> None:
        self._decoder, self._prefix, self._tails, self._length = decoder, prefix, tails, length
        self.every_slot = length == 1
        self._places = tails.keys.shape[1]
        self._rows = torch.arange(prefix.tokens, device=decoder.device)
        self.inputs = torch.tensor(self.inputs_of(1, []), device=decoder.device)

    def inputs_of(self, prefix_length: int, pieces: Sequence[Piece]) -> list[int]:
        """The values of `inputs` for some questions. One token of the prefix is seen: a softmax over nothing is NaN."""
        length, last_column = self._length, self._tails.tokens - 1
        slots = list(range(self._places)) if self.every_slot else [piece.slot for piece in pieces] or [0]
        tokens, columns, positions = ([value] * (length * len(slots)) for value in (0, last_column, 0))
        for piece in pieces:
            end = length * (slots.index(piece.slot) + 1)
            count = len(piece.tokens)
            tokens[end - count : end] = piece.tokens
            columns[end - count : end] = range(piece.column, piece.column + count)
            positions[end - count : end] = range(piece.position, piece.position + count)
        return [*tokens, *columns, *positions, *slots, prefix_length]

    def __call__(self) -> Tensor:
        """Next tokens [Q] int64."""
        questions = self._places if self.every_slot else 1
        ids, columns, positions = self.inputs[: -questions - 1].view(3, questions, self._length)
        width = self._tails.tokens - 1
        attention = QuestionAttention(
            self._prefix.keys[:, 0],
            self._prefix.values[:, 0],
            self._tails,
            self.inputs[-questions - 1 : -1],
            columns,
            width,
            every_slot=self.every_slot,
            hidden=hidden_columns(columns, width),
            prefix_hidden=self._rows >= self.inputs[-1:],
        )
        return self._decoder.logits(ids, positions, attention).argmax(-1)


class QuestionGraph:
    """`QuestionStep`, captured. It refers to the storage of one prefix buffer and of the tails for good.

    Attributes:
        tails: what it was captured with.
    """

    def __init__(self, decoder: Decoder, prefix: KeyValues, tails: KeyValues, length: int) -> None:
        self.tails = tails
        self._step = QuestionStep(decoder, prefix, tails, length)
        # Warming up and capturing write to the last column only, since no question is given.
        self._run = CapturedCall(self._step)
        self._host = torch.empty(self._step.inputs.shape, dtype=torch.int64, pin_memory=True)

    def run(self, prefix_length: int, pieces: Sequence[Piece]) -> list[int]:
        """The token that follows each piece; waits for the device."""
        # The copy that read this storage before has ended: its step's tokens were waited for.
        self._host.copy_(torch.tensor(self._step.inputs_of(prefix_length, pieces)))
        self._step.inputs.copy_(self._host, non_blocking=True)
        result = self._run().tolist()
        return [result[piece.slot] for piece in pieces] if self._step.every_slot else result
