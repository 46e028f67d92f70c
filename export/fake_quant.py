"""Training in the numbers of the int8 file: layers that round as it does, and pass gradients as if they did not.

The scale arithmetic is pure functions on tensors; the layers only call them. Rounding is straight-through
(Bengio et al. 2013); the range of an activation is learned (LSQ+, Bhalgat et al. 2020), that of a weight follows it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from kdedge.export.scheme import STEPS, QuantScheme
from torch import nn
from torch.nn import functional as F

SMALLEST_RANGE = 1e-6
EMBEDDING_LEVEL = 127
"""The integer that the largest number of an embedding row becomes: rows are looked up, never multiplied, so all bits may be used."""


class _Round(torch.autograd.Function):
    """Half to even, as ONNX's QuantizeLinear; its gradient is that of the identity."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x.round()

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        return gradients[0]


class _Scaled(torch.autograd.Function):
    """The identity, whose gradient is scaled."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, factor: float) -> torch.Tensor:
        ctx.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        return gradients[0] * ctx.factor, None


def round_through(x: torch.Tensor) -> torch.Tensor:
    rounded: torch.Tensor = _Round.apply(x)
    return rounded


def activation_scale(low: torch.Tensor, high: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Scale and zero point (both float, the latter whole) of uint8 numbers over [low, high], which is widened to hold 0."""
    low, high = low.clamp(max=0.0), high.clamp(min=0.0)
    scale = (high - low).clamp(min=SMALLEST_RANGE) / STEPS
    return scale, round_through(-low / scale).clamp(0, STEPS)


def weight_scale(weight: torch.Tensor, largest: int) -> torch.Tensor:
    """(rows, 1): the scale that takes each row's largest magnitude to `largest`; 1 for a row of zeros, or so small that its scale would be 0."""
    scale = weight.abs().amax(1, keepdim=True) / largest
    return torch.where(scale > 0, scale, torch.ones_like(scale))


def to_integers(
    x: torch.Tensor, scale: torch.Tensor, zero_point: torch.Tensor | float, low: int, high: int
) -> torch.Tensor:
    """round(x / scale) + zero_point, kept within [low, high]; whole numbers in a float tensor (ONNX QuantizeLinear)."""
    return (round_through(x / scale) + zero_point).clamp(low, high)


SEEN = 100_000
"""Values of a tensor that calibration looks at, drawn at random: at equal steps some columns would never be met."""


def observed_by(x: torch.Tensor) -> torch.Tensor:
    """(N,) of the values of x, always the same ones of as many, its lowest and highest among them."""
    flat = x.detach().reshape(-1)
    if len(flat) <= SEEN:
        return flat
    places = torch.randint(len(flat), (SEEN,), generator=torch.Generator().manual_seed(0))
    return torch.cat([flat[places.to(flat.device)], torch.stack(flat.aminmax())])


Hook = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Looks on while a tensor is rounded: what it was, in steps above the zero point's 0, and its whole numbers -> those to go on with."""


class ActivationRange(nn.Module):
    """The range of one activation tensor: two learned numbers, set by calibration."""

    def __init__(self) -> None:
        super().__init__()
        self.low, self.high = nn.Parameter(torch.tensor(0.0)), nn.Parameter(torch.tensor(0.0))

    def ends(self, values: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
        """Low and high. Each of the `values` that are rounded between them adds to their gradients, which are scaled as LSQ scales
        a step's, by 1 / sqrt(values · steps), the step being a range's width over `STEPS` (Esser et al. 2020, section 2.2).
        So a limit on the norm of all gradients is not the ranges' alone; Adam itself does not see the factor."""
        factor = (STEPS / values) ** 0.5
        return _Scaled.apply(self.low, factor), _Scaled.apply(self.high, factor)

    def forward(self, values: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
        """Scale and zero point, as `activation_scale` gives them."""
        return activation_scale(*self.ends(values))


class FakeQuantLinear(nn.Module):
    """A Linear on uint8 activations and int8 weights.

    Products of whole numbers, exact in fp32 up to 2^24, scaled afterwards: the arithmetic of ONNX Runtime's
    MatMulIntegerToFloat, with straight-through gradients.
    enabled = False computes in float. watch looks on while the input is rounded. seen is a list while calibrating: what `seen_of` takes of each input is put there.
    """

    def __init__(
        self, linear: nn.Linear, scheme: QuantScheme, shared: FakeQuantLinear | None = None
    ) -> None:
        """shared: a layer that reads the same input; its range is used, so that the input is rounded once."""
        super().__init__()
        self.weight, self.bias, self.scheme = linear.weight, linear.bias, scheme
        if shared is None:
            self.range = ActivationRange()
        self._shared: tuple[FakeQuantLinear, ...] = (
            () if shared is None else (shared,)
        )  # in a tuple: saved once, by its owner
        self.enabled = True
        self.watch: Hook | None = None
        self.seen: list[torch.Tensor] | None = None

    @property
    def input_range(self) -> ActivationRange:
        return self._shared[0].range if self._shared else self.range

    def integer_weight(self) -> tuple[torch.Tensor, torch.Tensor]:
        """(out, in) whole numbers and their scales (out, 1)."""
        scale = weight_scale(self.weight.detach(), self.scheme.largest_weight)
        return to_integers(
            self.weight, scale, 0.0, -self.scheme.largest_weight, self.scheme.largest_weight
        ), scale

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.seen is not None:
            self.seen.append(observed_by(x))
        if not self.enabled:
            return F.linear(x, self.weight, self.bias)
        scale, zero = self.input_range(x.numel())
        whole = to_integers(x, scale, zero, 0, STEPS)
        if self.watch is not None:
            whole = self.watch(x / scale + zero, whole)
        weight, weight_scales = self.integer_weight()
        return F.linear(whole - zero, weight) * (scale * weight_scales.T) + self.bias


class FakeQuantEmbedding(nn.Module):
    """An Embedding of int8 rows, each with a scale of its own."""

    def __init__(self, embedding: nn.Embedding) -> None:
        super().__init__()
        self.weight, self.padding_idx = embedding.weight, embedding.padding_idx
        self.enabled = True

    def integer_weight(self, rows: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """(rows, width) whole numbers and their scales (rows, 1)."""
        rows = self.weight if rows is None else rows
        scale = weight_scale(rows.detach(), EMBEDDING_LEVEL)
        return to_integers(rows, scale, 0.0, -EMBEDDING_LEVEL, EMBEDDING_LEVEL), scale

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        rows = F.embedding(ids, self.weight, self.padding_idx)  # (B, T, H)
        if not self.enabled:
            return rows
        whole, scale = self.integer_weight(rows.reshape(-1, rows.shape[-1]))
        return (whole * scale).reshape(rows.shape)
