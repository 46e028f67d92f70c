"""What a model says about B texts of T tokens; teacher and students answer in this one form."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import AttentionInterface, PreTrainedModel
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, AttentionMaskInterface

SCORES = "kdedge_scores"

Vectors = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""Queries, keys and values of one layer, each (B, A, T, D)."""

_SEEN: ContextVar[list[Vectors] | None] = ContextVar("seen", default=None)


@dataclass(frozen=True)
class Signals:
    """logits: (B, C).
    hidden: L + 1 of (B, T, H), [0] is the embedding output; empty when layers were not asked for.
    attention: L of (B, A, T, T), scaled scores before softmax, mask not added (TinyBERT matches these);
    empty when layers were not asked for.
    vectors: L of (queries, keys, values), each (B, A, T, D) (MiniLM matches how these relate); empty likewise.
    """

    logits: torch.Tensor
    hidden: tuple[torch.Tensor, ...] = ()
    attention: tuple[torch.Tensor, ...] = ()
    vectors: tuple[Vectors, ...] = ()


@dataclass(frozen=True)
class LayerSelection:
    """Which of a teacher's signals an objective reads: places in the tuples of `Signals`."""

    hidden: tuple[int, ...] = ()
    attention: tuple[int, ...] = ()
    vectors: tuple[int, ...] = ()


def read_signals(
    model: PreTrainedModel, batch: dict[str, torch.Tensor], *, layers: bool
) -> Signals:
    """One forward pass; with `layers` also hidden states, attention scores and the vectors they come from."""
    if not layers:
        return Signals(model(**batch)["logits"])
    with _answering_scores(model) as seen:
        outputs = model(**batch, output_hidden_states=True, output_attentions=True)
    return Signals(
        outputs.logits, tuple(outputs.hidden_states), tuple(outputs.attentions), tuple(seen)
    )


@contextmanager
def _answering_scores(model: PreTrainedModel) -> Iterator[list[Vectors]]:
    """Let the model's attention return scores where it otherwise returns probabilities, and list its vectors layer by layer."""
    before = model.config._attn_implementation
    model.config._attn_implementation = SCORES
    seen: list[Vectors] = []
    token = _SEEN.set(seen)
    try:
        yield seen
    finally:
        _SEEN.reset(token)
        model.config._attn_implementation = before


def _attention_with_scores(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """transformers' eager attention, but its second answer is the scores before mask and softmax; its inputs are noted."""
    if (seen := _SEEN.get()) is not None:
        seen.append((query, key, value))
    scale = query.size(-1) ** -0.5 if scaling is None else scaling
    scores = torch.matmul(query, key.transpose(2, 3)) * scale  # (B, A, T, T)
    masked = scores if attention_mask is None else scores + attention_mask
    weights = nn.functional.dropout(masked.softmax(-1), p=dropout, training=module.training)
    return torch.matmul(weights, value).transpose(1, 2).contiguous(), scores


AttentionInterface.register(SCORES, _attention_with_scores)
AttentionMaskInterface.register(SCORES, ALL_MASK_ATTENTION_FUNCTIONS["eager"])
