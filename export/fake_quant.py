"""Layers that round as the int8 file does, with gradients as if they did not round.

The scale arithmetic is pure functions on tensors; the layers only call them. Rounding is
straight-through (Bengio et al. 2013). The range of an activation is learned (LSQ+, Bhalgat et al.
2020); the range of a weight follows the weight.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from kdedge.export.scheme import UINT8_MAX, QuantScheme
from torch import nn
from torch.nn import functional as F

SMALLEST_RANGE = 1e-6

EMBEDDING_LEVEL = 127
"""The integer of the largest number of an embedding row.

Rows are looked up and never multiplied, so all bits may be used.
"""

OBSERVED_VALUES = 100_000
"""Values of one tensor that calibration keeps."""

Hook = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Called when a tensor is rounded, with its values / scale + zero point and with its integers.

The layer continues with the integers that the hook returns.
"""


class _Round(torch.autograd.Function):
    """Half to even, as ONNX's QuantizeLinear; its gradient is that of the identity."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x.round()

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        return gradients[0]


class _ScaleGradient(torch.autograd.Function):
    """The identity, with a scaled gradient."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, factor: float) -> torch.Tensor:
        ctx.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        return gradients[0] * ctx.factor, None


def round_through(x: torch.Tensor) -> torch.Tensor:
    """Round half to even, with a straight-through gradient."""
    rounded: torch.Tensor = _Round.apply(x)
    return rounded


def activation_scale(low: torch.Tensor, high: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return scale and zero point of uint8 numbers over [low, high], widened to contain 0.

    Both are float tensors; the zero point is a whole number.
    """
    low, high = low.clamp(max=0.0), high.clamp(min=0.0)
    scale = (high - low).clamp(min=SMALLEST_RANGE) / UINT8_MAX
    return scale, round_through(-low / scale).clamp(0, UINT8_MAX)


def weight_scale(weight: torch.Tensor, largest: int) -> torch.Tensor:
    """Return scales (rows, 1) that take each row's largest magnitude to `largest`.

    The scale is 1 if it would be 0: the row is zero, or too small for fp32.
    """
    scale = weight.abs().amax(1, keepdim=True) / largest
    return torch.where(scale > 0, scale, torch.ones_like(scale))


def to_integers(
    x: torch.Tensor, scale: torch.Tensor, zero_point: torch.Tensor | float, low: int, high: int
) -> torch.Tensor:
    """Compute ONNX QuantizeLinear: round(x / scale) + zero_point, clamped to [low, high].

    The integers are returned in a float tensor.
    """
    return (round_through(x / scale) + zero_point).clamp(low, high)


def observed_values(x: torch.Tensor) -> torch.Tensor:
    """Return a sample (N,) of the values of x with its lowest and highest.

    The positions are random, with a fixed seed: equal steps would never meet some columns.
    """
    flat = x.detach().reshape(-1)
    if len(flat) <= OBSERVED_VALUES:
        return flat
    generator = torch.Generator().manual_seed(0)
    positions = torch.randint(len(flat), (OBSERVED_VALUES,), generator=generator)
    return torch.cat([flat[positions.to(flat.device)], torch.stack(flat.aminmax())])


class ActivationRange(nn.Module):
    """The range of one activation tensor: two learned numbers that calibration sets."""

    def __init__(self) -> None:
        super().__init__()
        self.low = nn.Parameter(torch.tensor(0.0))
        self.high = nn.Parameter(torch.tensor(0.0))

    def ends(self, values: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
        """Return low and high, with gradients scaled for the number of rounded `values`.

        Every value adds to the gradients of both ends. LSQ scales the gradient of a step by
        1 / sqrt(values · steps), and a step is the width / `UINT8_MAX` (Esser et al. 2020, section
        2.2). Without the factor, the ranges alone would decide a limit on the norm of all
        gradients. Adam itself does not depend on it.
        """
        factor = (UINT8_MAX / values) ** 0.5
        return _ScaleGradient.apply(self.low, factor), _ScaleGradient.apply(self.high, factor)

    def forward(self, values: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
        """Return scale and zero point, as `activation_scale` does."""
        return activation_scale(*self.ends(values))


class FakeQuantLinear(nn.Module):
    """A Linear on uint8 activations and int8 weights.

    It multiplies whole numbers, exact in fp32 up to 2^24, and scales the sums: the arithmetic of
    ONNX Runtime's MatMulIntegerToFloat, with straight-through gradients.

    Attributes:
        enabled: If False, the layer computes in float.
        hook: Called when the input is rounded.
        observed: During calibration a list that receives `observed_values` of each input.
    """

    def __init__(
        self, linear: nn.Linear, scheme: QuantScheme, shared: FakeQuantLinear | None = None
    ) -> None:
        """Take over a Linear's weights; `shared` has the same input and owns its range."""
        super().__init__()
        self.weight, self.bias, self.scheme = linear.weight, linear.bias, scheme
        if shared is None:
            self.range = ActivationRange()
        # In a tuple, so that only the owner saves the range.
        self._shared: tuple[FakeQuantLinear, ...] = () if shared is None else (shared,)
        self.enabled = True
        self.hook: Hook | None = None
        self.observed: list[torch.Tensor] | None = None

    @property
    def input_range(self) -> ActivationRange:
        return self._shared[0].range if self._shared else self.range

    def integer_weight(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return whole numbers (out, in) and their scales (out, 1)."""
        largest = self.scheme.largest_weight
        scale = weight_scale(self.weight.detach(), largest)
        return to_integers(self.weight, scale, 0.0, -largest, largest), scale

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.observed is not None:
            self.observed.append(observed_values(x))
        if not self.enabled:
            return F.linear(x, self.weight, self.bias)
        scale, zero = self.input_range(x.numel())
        whole = to_integers(x, scale, zero, 0, UINT8_MAX)
        if self.hook is not None:
            whole = self.hook(x / scale + zero, whole)
        weight, weight_scales = self.integer_weight()
        product: torch.Tensor = F.linear(whole - zero, weight) * (scale * weight_scales.T)
        return product + self.bias


class FakeQuantEmbedding(nn.Module):
    """An Embedding of int8 rows, each with its own scale."""

    def __init__(self, embedding: nn.Embedding) -> None:
        super().__init__()
        self.weight, self.padding_idx = embedding.weight, embedding.padding_idx
        self.enabled = True

    def integer_weight(self, rows: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Return whole numbers (rows, width) and their scales (rows, 1); default: all rows."""
        if rows is None:
            rows = self.weight
        scale = weight_scale(rows.detach(), EMBEDDING_LEVEL)
        return to_integers(rows, scale, 0.0, -EMBEDDING_LEVEL, EMBEDDING_LEVEL), scale

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        rows = F.embedding(ids, self.weight, self.padding_idx)  # (B, T, H)
        if not self.enabled:
            return rows
        whole, scale = self.integer_weight(rows.reshape(-1, rows.shape[-1]))
        return (whole * scale).reshape(rows.shape)
