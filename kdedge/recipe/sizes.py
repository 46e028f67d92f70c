"""Compute numbers of parameters and positions from model configurations, without torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

POSITIONS_AFTER_PADDING = ("roberta", "xlm-roberta", "camembert")
"""Types of models that use no position up to their padding index."""


def first_position(shape: Mapping[str, Any]) -> int:
    """Return the row of the position embeddings that belongs to the first token."""
    kind = shape.get("model_type")
    if kind == "mpnet":
        return 2  # its padding index is always 1
    if kind in POSITIONS_AFTER_PADDING:
        return int(shape.get("pad_token_id", 1) or 0) + 1
    return 0


def usable_positions(shape: Mapping[str, Any]) -> int:
    """Return the maximum input length in tokens, by config.json (512 if it gives none)."""
    return int(shape.get("max_position_embeddings", 512)) - first_position(shape)


def bert_parameters(shape: Mapping[str, Any], outputs: int) -> int:
    """Count the parameters of a BERT classifier (Devlin et al. 2019) from its config.json."""
    hidden = int(shape["hidden_size"])
    inner = int(shape["intermediate_size"])
    tables = int(shape["vocab_size"]) + int(shape.get("max_position_embeddings", 512))
    tables += int(shape.get("type_vocab_size", 2))
    norm = 2 * hidden
    attention = 4 * (hidden * hidden + hidden) + norm
    feed_forward = 2 * hidden * inner + inner + hidden + norm
    layers = int(shape["num_hidden_layers"]) * (attention + feed_forward)
    pooler = hidden * hidden + hidden
    head = hidden * outputs + outputs
    return tables * hidden + norm + layers + pooler + head


def bilstm_parameters(
    pieces: int,
    embedding: int,
    hidden: int,
    head: int,
    outputs: int,
    *,
    pair: bool,
    cross_attention: bool = False,
) -> int:
    """Count the parameters of a BiLSTM classifier (Tang et al. 2019).

    With `cross_attention` a layer compares each token with the other text (Chen et al. 2017).
    """
    total = pieces * embedding
    total += 2 * 4 * hidden * (embedding + hidden + 2)
    features = (8 if pair else 2) * hidden
    if cross_attention:
        total += 8 * hidden * head + head
        features = 4 * head
    return total + features * head + head + head * outputs + outputs
