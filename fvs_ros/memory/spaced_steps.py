"""Evenly spaced steps of an endless stream, in bounded storage: the published `sample` methods while streaming.

Shapes: C steps kept, P patches of a frame, D width of a patch feature, F = P D / 4 features of a low-resolution step.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Steps kept for each one that is wanted.
KEPT_PER_WANTED = 4


def evenly_spaced(steps: int, count: int, device: torch.device) -> Tensor:
    """`count` of `steps` step indices, evenly spaced from the first to the last, [count] float32."""
    return torch.linspace(0, steps - 1, count, device=device)


class SpacedSteps:
    """The multiples of a stride among the steps of a stream, and the newest step.

    The stride begins at 1. When C steps are kept and another comes it doubles, and every second step is let go. Up to
    C steps every one is there. Beyond, with T steps seen, the kept step nearest to any wanted one is at most half a
    stride, (T - 1) / C, away: a quarter of the distance between the wanted ones where C is four times their number.

    Which step is kept, and in which row, depends on the number of steps alone. The host knows that number, so nothing
    waits for the device; no step's features ever move, only the order [C] of the rows is permuted.

    Args:
        wanted: steps that are asked for at most; C is `KEPT_PER_WANTED` times as many.
        patches: P to keep steps at high resolution, 0 to keep none.
        low_features: F to keep steps at low resolution, 0 to keep none.
        width: D.
        dtype: of the features, the model's.
    """

    def __init__(
        self, wanted: int, patches: int, low_features: int, width: int, device: torch.device, dtype: torch.dtype
    ) -> None:
        self._capacity = KEPT_PER_WANTED * wanted
        self._newest, self._provisional = self._capacity, self._capacity + 1
        rows = self._capacity + 2
        self.high = torch.zeros(rows, patches, width, dtype=dtype, device=device)
        self.low = torch.zeros(rows, low_features, dtype=dtype, device=device)
        self.start_ns = torch.zeros(rows, dtype=torch.int64, device=device)
        self.end_ns = torch.zeros(rows, dtype=torch.int64, device=device)
        # The row of the i-th multiple of the stride; free rows come last.
        self.order = torch.arange(self._capacity, device=device)

    def tensors(self) -> dict[str, Tensor]:
        """The whole state, by name."""
        return {name: getattr(self, name) for name in ("high", "low", "start_ns", "end_ns", "order")}

    def append(self, step: int, high: Tensor, low: Tensor, stamps_ns: Tensor, count: int = 1) -> None:
        """Adds `count` equal steps from number `step` on: `high` [P, D], `low` [F], stamps [2 or more] from and to."""
        self._write(self._newest, high, low, stamps_ns)
        for added in range(step, step + count):
            stride = self._stride(added + 1)
            if stride != self._stride(added):
                self.order.copy_(torch.cat([self.order[::2], self.order[1::2]]))
            if added % stride == 0:
                self._write(self.order[added // stride].view(1), high, low, stamps_ns)

    def provide(self, high: Tensor, low: Tensor, stamps_ns: Tensor) -> None:
        """Sets the provisional step, which `rows` can count as the newest."""
        self._write(self._provisional, high, low, stamps_ns)

    def kept_steps(self, steps: int) -> Tensor:
        """Indices [n] int64 of the steps that are kept after `steps` steps."""
        kept = torch.arange(0, steps, self._stride(steps), device=self.order.device)
        return torch.cat([kept, kept.new_full((min(steps, 1),), steps - 1)]).unique()

    def rows(self, wanted: Tensor, steps: int, provisional: bool) -> tuple[Tensor, Tensor]:
        """The rows [n] and the step indices [n] of the kept steps nearest to the `wanted` [n] int64.

        Args:
            wanted: step indices below `steps`.
            steps: T, with the provisional step if it counts.
            provisional: whether the provisional step counts, as the newest.
        """
        complete = steps - provisional
        stride = self._stride(complete)
        last = max(0, (complete - 1) // stride)
        multiple = ((wanted + stride // 2) // stride).clamp(max=last)
        newest = (steps - 1 - wanted).abs() <= (multiple * stride - wanted).abs()
        row = self._provisional if provisional else self._newest
        return torch.where(newest, row, self.order[multiple]), torch.where(newest, steps - 1, multiple * stride)

    def _stride(self, steps: int) -> int:
        """The least power of two of which at most C multiples are below `steps`."""
        return 1 << ((max(steps, 1) - 1) // self._capacity).bit_length()

    def _write(self, row: int | Tensor, high: Tensor, low: Tensor, stamps_ns: Tensor) -> None:
        # A number is passed with the launch; a tensor's value stays on the device.
        index = torch.full((1,), row, device=self.order.device) if isinstance(row, int) else row
        if self.high.numel():
            self.high.index_copy_(0, index, high[None])
        if self.low.numel():
            self.low.index_copy_(0, index, low[None])
        self.start_ns.index_copy_(0, index, stamps_ns[:1])
        self.end_ns.index_copy_(0, index, stamps_ns[1:2])
