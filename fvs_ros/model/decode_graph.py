"""One token of every question as a captured CUDA graph.

Shapes: S places for questions, N tokens that a prefix has room for, T columns of the questions' own tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fvs_ros.memory.cuda_graph import CapturedCall
from fvs_ros.model.decoder import Decoder, KeyValues, QuestionAttention, hidden_columns


class DecodeStep:
    """Greedy next tokens of all S places at once, whether or not there is a question; every shape is fixed.

    What differs from step to step comes in one integer tensor, `inputs`: S tokens, S columns that they go to, S
    positions, and the length of the prefix. A place without a question writes to the tails' last column, which is
    never read. The whole room of the prefix and the tails is read, and masked to what is there.

    Attributes:
        inputs: [3 S + 1] int64.
    """

    def __init__(self, decoder: Decoder, prefix: KeyValues, tails: KeyValues) -> None:
        self._decoder, self._prefix, self._tails = decoder, prefix, tails
        places = tails.keys.shape[1]
        self._slots = torch.arange(places, device=decoder.device)
        self._rows = torch.arange(prefix.tokens, device=decoder.device)
        self.inputs = torch.tensor(idle_inputs(places, tails.tokens - 1), device=decoder.device)

    def __call__(self) -> Tensor:
        """Next tokens [S] int64."""
        places, width = self._slots.shape[0], self._tails.tokens - 1
        ids, columns, positions = self.inputs[:-1].view(3, places, 1)
        attention = QuestionAttention(
            self._prefix.keys[:, 0],
            self._prefix.values[:, 0],
            self._tails,
            self._slots,
            columns,
            width,
            every_slot=True,
            hidden=hidden_columns(columns, width),
            prefix_hidden=self._rows >= self.inputs[-1:],
        )
        return self._decoder.logits(ids, positions, attention).argmax(-1)


class DecodeGraph:
    """`DecodeStep`, captured. It refers to the storage of one prefix buffer and of the tails for good.

    Attributes:
        tails: what it was captured with.
    """

    def __init__(self, decoder: Decoder, prefix: KeyValues, tails: KeyValues) -> None:
        self.tails = tails
        self._step = DecodeStep(decoder, prefix, tails)
        # Warming up and capturing write to the last column only, since all places are idle.
        self._run = CapturedCall(self._step)
        self._host = torch.empty(self._step.inputs.shape, dtype=torch.int64, pin_memory=True)

    def run(
        self,
        prefix_length: int,
        *,
        slots: Sequence[int],
        tokens: Sequence[int],
        columns: Sequence[int],
        positions: Sequence[int],
    ) -> list[int]:
        """Next tokens of the questions in `slots`; waits for the device."""
        places = self.tails.keys.shape[1]
        values = idle_inputs(places, self.tails.tokens - 1)
        for part, given in enumerate((tokens, columns, positions)):
            for slot, value in zip(slots, given, strict=True):
                values[part * places + slot] = value
        values[-1] = prefix_length
        # The copy that read this storage before has ended: its step's tokens were waited for.
        self._host.copy_(torch.tensor(values))
        self._step.inputs.copy_(self._host, non_blocking=True)
        result = self._run().tolist()
        return [result[slot] for slot in slots]


def idle_inputs(places: int, last_column: int) -> list[int]:
    """`DecodeStep.inputs` without any question. One token of the prefix is seen: a softmax over nothing is NaN."""
    return [0] * places + [last_column] * places + [0] * places + [1]
