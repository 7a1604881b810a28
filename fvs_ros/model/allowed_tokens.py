"""Which tokens the rows of a suffix cache may go on with, on the device.

Shapes: R rows, V vocabulary, W = V / 32 rounded up, Q questions.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

_ANY = -1  # All bits of an int32.


class AnswerConstraint(Protocol):
    """What an answer is held to while it is generated: `JsonConstraint`."""

    @property
    def complete(self) -> bool:
        """Whether nothing but the answer's end can follow."""

    @property
    def problem(self) -> str:
        """Why it cannot say any more what may follow; empty while it can."""

    def allowed(self) -> Tensor:
        """A bit for each token that may follow, int32 [W] on the CPU, the lowest first."""

    def take(self, token: int) -> None:
        """Goes on by the token that was chosen."""


class AllowedTokens:
    """A bit for each row and token.

    The host sets the bits of a row from the answer so far, and one copy of all rows brings them to the device before
    the step that chooses the next tokens: 76 kB for 4 rows of 152,000 tokens, on CUDA out of pinned memory, and nothing
    to wait for. A step without constraints copies nothing.

    Attributes:
        bits: [R, W] int32 on the device, the same storage for good, so that a captured graph may read it.
    """

    def __init__(self, rows: int, tokens: int, device: torch.device) -> None:
        self._tokens = tokens
        self.bits = torch.full((rows, -(-tokens // 32)), _ANY, dtype=torch.int32, device=device)
        self._host = torch.full(self.bits.shape, _ANY, dtype=torch.int32, pin_memory=device.type == "cuda")
        self._places = torch.arange(32, dtype=torch.int32, device=device)
        self._limited: set[int] = set()
        self._changed = False

    def grown(self, rows: int) -> AllowedTokens:
        """A copy with more rows."""
        other = AllowedTokens(rows, self._tokens, self.bits.device)
        other._host[: len(self._host)] = self._host
        other._limited, other._changed = set(self._limited), True
        return other

    @property
    def limited(self) -> bool:
        """Whether any row is held to something."""
        return bool(self._limited)

    def set(self, row: int, constraint: AnswerConstraint | None) -> None:
        """Notes what may come next in a row; None lets all tokens come."""
        if constraint is not None:
            self._host[row] = constraint.allowed()
            self._limited.add(row)
        elif row in self._limited:
            self._host[row] = _ANY
            self._limited.discard(row)
        else:
            return
        self._changed = True

    def upload(self) -> None:
        """Brings what changed to the device; the copy before it must have ended, as with the tokens of its step."""
        if self._changed:
            self.bits.copy_(self._host, non_blocking=True)
            self._changed = False

    def masked(self, rows: Tensor, logits: Tensor) -> Tensor:
        """Logits [Q, V] with minus infinity for what may not come; all others are unchanged bit for bit.

        Args:
            rows: [Q] int64.
            logits: [Q, V] float32.
        """
        bits = (self.bits[rows][:, :, None] >> self._places) & 1
        return torch.where(bits.flatten(1)[:, : logits.shape[1]] != 0, logits, -torch.inf)
