"""Muon for the matrices of layers, AdamW for all other weights, as one optimiser.

Muon (Jordan et al., 2024; torch.optim.Muon) moves a matrix along the nearest orthogonal one to its momentum, so that
no few directions take all of the step. Steps are scaled to AdamW's usual length, so that both share a learning rate.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.optim import AdamW, Optimizer

from fvs_ros.training.errors import TrainingError

_TABLES = ("embed_tokens.weight", "lm_head.weight")
"""Matrices whose rows are words: each has a gradient of its own."""


class MuonAdamW(Optimizer):
    """One optimiser of two. Its parameter groups are theirs, so that a schedule sets the learning rates of both.

    Args:
        named: weights with their names.
        learning_rate: of all of them.
        weight_decay: of matrices and larger ones; vectors have none.
        betas: of AdamW.

    Raises:
        TrainingError: this torch has no Muon.
    """

    def __init__(
        self,
        named: Sequence[tuple[str, nn.Parameter]],
        *,
        learning_rate: float,
        weight_decay: float,
        betas: tuple[float, float],
    ) -> None:
        if not hasattr(torch.optim, "Muon"):
            raise TrainingError(f"method is muon, which torch {torch.__version__} lacks; install torch 2.9 or newer")
        matrices = [weight for name, weight in named if weight.ndim == 2 and not name.endswith(_TABLES)]
        tables = [weight for name, weight in named if weight.ndim > 2 or name.endswith(_TABLES)]
        vectors = [weight for _, weight in named if weight.ndim < 2]
        rest = [
            {"params": weights, "weight_decay": decay}
            for weights, decay in ((tables, weight_decay), (vectors, 0.0))
            if weights
        ]
        self._parts: list[Optimizer] = []
        if matrices:
            self._parts.append(
                torch.optim.Muon(matrices, lr=learning_rate, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw")
            )
        if rest:
            self._parts.append(AdamW(rest, lr=learning_rate, betas=betas, fused=True))
        super().__init__([weight for _, weight in named], {"lr": learning_rate})
        self._share_groups()

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Moves all weights."""
        assert closure is None, "neither part evaluates the loss again"
        for part in self._parts:
            part.step()

    def state_dict(self) -> dict[str, Any]:
        """Of both parts."""
        return {"parts": [part.state_dict() for part in self._parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Of both parts."""
        for part, state in zip(self._parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self._share_groups()

    def _share_groups(self) -> None:
        self.param_groups = [group for part in self._parts for group in part.param_groups]
