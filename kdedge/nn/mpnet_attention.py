"""Record queries, keys, values and scores of an MPNet, whose attention cannot be replaced."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import PreTrainedModel

Vectors = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""Queries, keys and values of one layer, each (B, A, T, D)."""


@contextmanager
def recorded_vectors(model: PreTrainedModel) -> Iterator[list[torch.Tensor]]:
    """Record queries, keys and values (B, T, A·D) of all layers in one flat list."""
    outputs: list[torch.Tensor] = []

    def record(_: Any, __: Any, output: torch.Tensor) -> None:
        outputs.append(output)

    hooks = []
    for layer in model.base_model.encoder.layer:
        attention = layer.attention.attn
        for projection in (attention.q, attention.k, attention.v):
            hooks.append(projection.register_forward_hook(record))
    try:
        yield outputs
    finally:
        for hook in hooks:
            hook.remove()


def split_vectors(model: PreTrainedModel, recorded: list[torch.Tensor]) -> tuple[Vectors, ...]:
    """Split recorded vectors into heads (B, A, T, D); return one triple for each layer."""
    heads = model.config.num_attention_heads
    split = []
    for vectors in recorded:
        b, t, width = vectors.shape
        split.append(vectors.view(b, t, heads, width // heads).transpose(1, 2))
    return tuple(zip(split[0::3], split[1::3], split[2::3], strict=True))


def biased_scores(model: PreTrainedModel, vectors: tuple[Vectors, ...]) -> tuple[torch.Tensor, ...]:
    """Return each layer's scores (B, A, T, T) before mask and softmax, with the position bias."""
    example = vectors[0][0][:, 0]  # (B, T, D)
    bias = model.base_model.encoder.compute_position_bias(example)  # (B, A, T, T)
    scores = []
    for query, key, _ in vectors:
        scaled = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5
        scores.append(scaled + bias)
    return tuple(scores)
