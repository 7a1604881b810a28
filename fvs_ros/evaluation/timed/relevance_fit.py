"""Weights of layers and heads that make the model's attention say which moments an answer rests on.

Log-linear: a slot's score is the weighted sum of the logarithms of each head's share of attention, its relevance the
softmax over slots. The weights maximise the relevance of the slots whose keyframes lie on a proof.

Shapes: A layers, q query heads, C slots of a memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

# As in `model.relevance`: what a head pays to a slot at the least.
LEAST_SHARE = 1e-5
STEPS, RATE, DECAY = 300, 0.02, 0.003


@dataclass(frozen=True)
class RelevanceSample:
    """An answer to a question that has a proof.

    Attributes:
        attention: [2, A, q, C] float32, from the question's last token, and the mean from the answer's tokens.
        on_proof: [C] bool, the slots that show the proof.
    """

    attention: Tensor
    on_proof: Tensor


def fit_relevance(samples: Sequence[RelevanceSample]) -> Tensor:
    """Weights [2, A, q] float32, of the question's attention and the answer's; the same for the same samples.

    Raises:
        ValueError: no sample shows its proof.
    """
    usable = [one for one in samples if bool(one.on_proof.any())]
    if not usable:
        raise ValueError(f"none of {len(samples)} answers was given from a memory that shows its proof")
    shape = usable[0].attention.shape[:-1]
    slots = max(one.on_proof.shape[0] for one in usable)
    scores = torch.zeros(len(usable), shape.numel(), slots)
    hidden = torch.ones(len(usable), slots, dtype=torch.bool)
    off_proof = torch.ones(len(usable), slots, dtype=torch.bool)
    for row, one in enumerate(usable):
        count = one.on_proof.shape[0]
        shares = one.attention / one.attention.sum(-1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
        scores[row, :, :count] = (shares + LEAST_SHARE).log().flatten(0, -2)
        hidden[row, :count] = False
        off_proof[row, :count] = ~one.on_proof
    weights = torch.full((shape.numel(),), 1 / shape.numel(), requires_grad=True)
    optimizer = torch.optim.Adam([weights], lr=RATE)
    for _ in range(STEPS):
        relevance = torch.einsum("f,nfc->nc", weights, scores).masked_fill(hidden, -torch.inf).log_softmax(-1)
        on_proof = relevance.masked_fill(off_proof, -torch.inf).logsumexp(-1)
        loss = DECAY * weights.square().sum() - on_proof.mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return weights.detach().view(shape)
