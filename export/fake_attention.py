"""Attention with integer products: queries with keys, and probabilities with values.

Queries and probabilities are uint8 between learned ends, as the inputs of a Linear are. Keys and
values take the part of a weight: symmetric int8 with one learned range per tensor. Padding has a
probability of exactly 0, so a text's output does not depend on its padding. All heads share one
range of probabilities: if one head attends to a single token, the step is 1/255, and a head that
attends equally to several hundred tokens loses its input.
"""

from __future__ import annotations

from typing import Any

import torch
from kdedge.export.fake_quant import (
    SMALLEST_RANGE,
    ActivationRange,
    Hook,
    activation_scale,
    observed_values,
    to_integers,
)
from kdedge.export.scheme import STEPS, QuantScheme
from torch import nn
from transformers import AttentionInterface, BertForSequenceClassification
from transformers.masking_utils import AttentionMaskInterface, eager_mask
from transformers.models.bert.modeling_bert import BertSelfAttention

IMPLEMENTATION = "kdedge_integers"
"""The name under which transformers knows `attend`."""

PRODUCTS = "products"
"""The submodule of an attention that holds its FakeQuantAttention."""


class Operand(nn.Module):
    """A tensor that is rounded before it is multiplied.

    Attributes:
        largest: The integer of the range's larger end, for symmetric int8; None: uint8.
        hook, observed: As in FakeQuantLinear.
    """

    def __init__(self, largest: int | None = None) -> None:
        super().__init__()
        self.range, self.largest = ActivationRange(), largest
        self.hook: Hook | None = None
        self.observed: list[torch.Tensor] | None = None

    @property
    def input_range(self) -> ActivationRange:
        return self.range

    @property
    def lowest(self) -> int:
        return 0 if self.largest is None else -self.largest

    @property
    def highest(self) -> int:
        return STEPS if self.largest is None else self.largest

    def scale(self, values: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
        """Return scale and zero point, as an ActivationRange does."""
        low, high = self.range.ends(values)
        if self.largest is None:
            return activation_scale(low, high)
        scale = torch.maximum(low.abs(), high.abs()).clamp(min=SMALLEST_RANGE) / self.largest
        return scale, torch.zeros_like(scale)

    def forward(self, x: torch.Tensor, enabled: bool) -> tuple[torch.Tensor, torch.Tensor | float]:
        """Return whole numbers minus the zero point, and their scale; x and 1 if not enabled."""
        if self.observed is not None:
            self.observed.append(observed_values(x))
        if not enabled:
            return x, 1.0
        scale, zero = self.scale(x.numel())
        whole = to_integers(x, scale, zero, self.lowest, self.highest)
        if self.hook is not None:
            whole = self.hook(x / scale + zero, whole)
        return whole - zero, scale


class FakeQuantAttention(nn.Module):
    """softmax(Q K' + mask) V with integer products.

    The names of the operands are part of the file's tensor names; `shares` are the probabilities.
    """

    def __init__(self, scheme: QuantScheme) -> None:
        super().__init__()
        self.query = Operand()
        self.key = Operand(scheme.largest_weight)
        self.shares = Operand()
        self.value = Operand(scheme.largest_weight)
        self.enabled = True

    def forward(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        mask: torch.Tensor | None,
        scaling: float,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the context (B, A, S, D) and the attention probabilities (B, A, S, T).

        Query (B, A, S, D), key and value (B, A, T, D); the mask (B, 1, 1 or S, T) is added.
        """
        queries, query_scale = self.query(query, self.enabled)
        keys, key_scale = self.key(key, self.enabled)
        scores = queries @ keys.transpose(2, 3) * (query_scale * key_scale * scaling)
        if mask is not None:
            scores = scores + mask
        attention_probs = scores.softmax(-1)  # (B, A, S, T)
        probs, probs_scale = self.shares(attention_probs, self.enabled)
        values, value_scale = self.value(value, self.enabled)
        return probs @ values * (probs_scale * value_scale), attention_probs


def attend(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    **_: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return context (B, S, A, D) and probabilities, as transformers expects of attention.

    There is no dropout, because quantization-aware tuning uses none.
    """
    products = getattr(module, PRODUCTS)
    context, attention_probs = products(query, key, value, attention_mask, scaling)
    return context.transpose(1, 2).contiguous(), attention_probs


AttentionInterface.register(IMPLEMENTATION, attend)
AttentionMaskInterface.register(IMPLEMENTATION, eager_mask)


def round_attention(model: BertForSequenceClassification, scheme: QuantScheme) -> None:
    """Give every attention of a BERT integer products, in place."""
    for module in model.modules():
        if isinstance(module, BertSelfAttention):
            setattr(module, PRODUCTS, FakeQuantAttention(scheme))
    model.set_attn_implementation(IMPLEMENTATION)
