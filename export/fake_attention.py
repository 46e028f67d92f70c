"""Attention whose two products, queries with keys and shares with values, are of integers too.

Queries and shares are uint8 between learned ends, as the inputs of a Linear are. Keys and values stand where a weight
stands there: symmetric int8, one learned range a tensor. Padding has a share of exactly 0, so that a text answers alike
whatever it is padded to. One range for the shares of all heads: where one head looks at a single token, their step is
1/255, and a head that looks at several hundred tokens alike loses what it reads.
"""

from __future__ import annotations

from typing import Any

import torch
from kdedge.export.fake_quant import SMALLEST_RANGE, ActivationRange, Hook, observed_by, to_integers
from kdedge.export.scheme import STEPS, QuantScheme
from torch import nn
from transformers import AttentionInterface, BertForSequenceClassification
from transformers.masking_utils import AttentionMaskInterface, eager_mask
from transformers.models.bert.modeling_bert import BertSelfAttention

IMPLEMENTATION = "kdedge_integers"
"""Under this name transformers finds `attend`."""

PRODUCTS = "products"
"""The module of an attention that holds its FakeQuantAttention."""


class Operand(nn.Module):
    """A tensor that is rounded before it is multiplied. seen, watch: as in FakeQuantLinear.

    largest: of a symmetric int8 operand the integer that its range becomes; None: uint8 between both ends.
    """

    def __init__(self, largest: int | None = None) -> None:
        super().__init__()
        self.range, self.largest = ActivationRange(), largest
        self.watch: Hook | None = None
        self.seen: list[torch.Tensor] | None = None

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
        """Scale and zero point of so many values, as an ActivationRange gives them."""
        if self.largest is None:
            return self.range(values)
        low, high = self.range.ends(values)
        scale = torch.maximum(low.abs(), high.abs()).clamp(min=SMALLEST_RANGE) / self.largest
        return scale, torch.zeros_like(scale)

    def forward(self, x: torch.Tensor, enabled: bool) -> tuple[torch.Tensor, torch.Tensor | float]:
        """Whole numbers less their zero point, and what one of them is worth; where not enabled, x and 1."""
        if self.seen is not None:
            self.seen.append(observed_by(x))
        if not enabled:
            return x, 1.0
        scale, zero = self.scale(x.numel())
        whole = to_integers(x, scale, zero, self.lowest, self.highest)
        if self.watch is not None:
            whole = self.watch(x / scale + zero, whole)
        return whole - zero, scale


class FakeQuantAttention(nn.Module):
    """softmax(Q K' + mask) V with integer products."""

    def __init__(self, scheme: QuantScheme) -> None:
        super().__init__()
        self.query, self.key = Operand(), Operand(scheme.largest_weight)
        self.shares, self.value = Operand(), Operand(scheme.largest_weight)
        self.enabled = True

    def forward(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        mask: torch.Tensor | None,
        scaling: float,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, A, S, D), (B, A, T, D), (B, A, T, D), None or (B, 1, 1 or S, T) to be added -> context (B, A, S, D), shares (B, A, S, T)."""
        (queries, one), (keys, other) = self.query(query, self.enabled), self.key(key, self.enabled)
        scores = queries @ keys.transpose(2, 3) * (one * other * scaling)
        shares = (scores if mask is None else scores + mask).softmax(-1)
        (parts, one), (values, other) = (
            self.shares(shares, self.enabled),
            self.value(value, self.enabled),
        )
        return parts @ values * (one * other), shares


def attend(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    **_: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """As transformers asks for attention: context (B, S, A, D) and shares. Without dropout: tuning has none."""
    context, shares = getattr(module, PRODUCTS)(query, key, value, attention_mask, scaling)
    return context.transpose(1, 2).contiguous(), shares


AttentionInterface.register(IMPLEMENTATION, attend)
AttentionMaskInterface.register(IMPLEMENTATION, eager_mask)


def round_attention(model: BertForSequenceClassification, scheme: QuantScheme) -> None:
    """Let every attention of a BERT multiply integers."""
    for module in model.modules():
        if isinstance(module, BertSelfAttention):
            setattr(module, PRODUCTS, FakeQuantAttention(scheme))
    model.set_attn_implementation(IMPLEMENTATION)
