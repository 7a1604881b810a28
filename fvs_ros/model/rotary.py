"""Rotary embedding of the halves of a head's values, for the vision tower and the language model alike."""

from __future__ import annotations

import torch
from torch import Tensor


def signed(sines: Tensor) -> Tensor:
    """Sines [..., d] as `rotate` takes them: the first half, by which the second one's values go over, is negated."""
    first, second = sines.chunk(2, dim=-1)
    return torch.cat([-first, second], dim=-1)


def rotate(states: Tensor, cosines: Tensor, signed_sines: Tensor) -> Tensor:
    """Turns states [..., d]; the result has the wider dtype of states and cosines.

    Launches three kernels; negating half of the values and adding two products launches five.
    """
    first, second = states.chunk(2, dim=-1)
    return torch.addcmul(states * cosines, torch.cat([second, first], dim=-1), signed_sines)
