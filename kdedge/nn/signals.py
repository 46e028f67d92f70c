"""The outputs of a model for a batch, in one form for teachers and students."""

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

from kdedge.nn.attention_mask import with_additive_mask
from kdedge.nn.mpnet_attention import Vectors, biased_scores, recorded_vectors, split_vectors

SCORES = "kdedge_scores"
"""Name of our attention implementation in transformers."""

ATTENTION_TYPES = (
    "albert",
    "bert",
    "camembert",
    "distilbert",
    "electra",
    "modernbert",
    "mpnet",
    "roberta",
    "xlm-roberta",
)
"""Model types whose attention scores, queries, keys and values can be read."""

_RECORDED: ContextVar[list[Vectors] | None] = ContextVar("recorded", default=None)


@dataclass(frozen=True)
class Signals:
    """Outputs of a model of L layers for B texts of T tokens.

    If the layers were not requested, all but `logits` are empty.

    Attributes:
        logits: *Shape:* (B, C)
        hidden: L + 1 tensors (B, T, H); [0] is the embedding output.
        attention: L tensors (B, A, T, T) of scaled scores before mask and softmax (for TinyBERT);
            MPNet's include its relative position bias.
        vectors: L triples of queries, keys and values, each (B, A, T, D) (for MiniLM).
    """

    logits: torch.Tensor
    hidden: tuple[torch.Tensor, ...] = ()
    attention: tuple[torch.Tensor, ...] = ()
    vectors: tuple[Vectors, ...] = ()


@dataclass(frozen=True)
class LayerSelection:
    """The teacher's signals that an objective needs: indices into the tuples of `Signals`."""

    hidden: tuple[int, ...] = ()
    attention: tuple[int, ...] = ()
    vectors: tuple[int, ...] = ()


def read_signals(
    model: PreTrainedModel, batch: dict[str, torch.Tensor], *, layers: bool
) -> Signals:
    """Run one forward pass and return its outputs.

    With `layers`, they include hidden states, attention scores and vectors.
    """
    batch = with_additive_mask(model, batch)
    if not layers:
        return Signals(model(**batch)["logits"])
    if model.config.model_type == "mpnet":
        return _mpnet_signals(model, batch)
    with _attention_scores(model) as vectors:
        outputs = model(**batch, output_hidden_states=True, output_attentions=True)
    hidden, attention = tuple(outputs.hidden_states), tuple(outputs.attentions)
    return Signals(outputs.logits, hidden, attention, tuple(vectors))


def _mpnet_signals(model: PreTrainedModel, batch: dict[str, torch.Tensor]) -> Signals:
    """Run an MPNet, whose attention is different; its scores include the position bias."""
    with recorded_vectors(model) as recorded:
        outputs = model(**batch, output_hidden_states=True)
    vectors = split_vectors(model, recorded)
    hidden = tuple(outputs.hidden_states)
    return Signals(outputs.logits, hidden, biased_scores(model, vectors), vectors)


@contextmanager
def _attention_scores(model: PreTrainedModel) -> Iterator[list[Vectors]]:
    """Make the model return attention scores instead of probabilities, and record its vectors."""
    before = model.config._attn_implementation
    model.config._attn_implementation = SCORES
    recorded: list[Vectors] = []
    token = _RECORDED.set(recorded)
    try:
        yield recorded
    finally:
        _RECORDED.reset(token)
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
    """Compute transformers' eager attention, but return the scores before mask and softmax."""
    recorded = _RECORDED.get()
    heads_per_key = query.size(1) // key.size(1)
    if heads_per_key > 1:  # Grouped-query attention: several heads share keys and values.
        key = key.repeat_interleave(heads_per_key, dim=1)
        value = value.repeat_interleave(heads_per_key, dim=1)
    if recorded is not None:
        recorded.append((query, key, value))
    scale = query.size(-1) ** -0.5 if scaling is None else scaling
    scores = torch.matmul(query, key.transpose(2, 3)) * scale  # (B, A, T, T)
    masked = scores if attention_mask is None else scores + attention_mask
    weights = nn.functional.dropout(masked.softmax(-1), p=dropout, training=module.training)
    return torch.matmul(weights, value).transpose(1, 2).contiguous(), scores


AttentionInterface.register(SCORES, _attention_with_scores)
AttentionMaskInterface.register(SCORES, ALL_MASK_ATTENTION_FUNCTIONS["eager"])
