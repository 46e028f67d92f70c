"""A BERT classifier as an ONNX graph, written from its weights; the writer decides in which numbers it multiplies.

The last layer computes queries, feed-forward and norms for the first token only, since the head reads nothing
else: keys and values of all tokens are still used, so the answer is the same (exactly, not nearly).
"""

from __future__ import annotations

import math

import numpy as np
from kdedge.export.graph_writer import GraphWriter
from transformers import BertForSequenceClassification

from kdedge.errors import UsageError

ACTIVATIONS = (
    "gelu",
    "gelu_new",
    "gelu_pytorch_tanh",
    "gelu_fast",
    "relu",
    "silu",
    "swish",
    "tanh",
)
"""`hidden_act` values that can be written."""

BERT_INPUTS = ("input_ids", "attention_mask", "token_type_ids")


def write_bert(model: BertForSequenceClassification, w: GraphWriter | None = None) -> GraphWriter:
    """input_ids, attention_mask, token_type_ids (B, T) int64 -> logits (B, C) float32, any B and T.

    w: the writer to use; default: fp32 in plain operators. Its inputs are `BERT_INPUTS`.
    """
    config = model.config
    if config.hidden_act not in ACTIVATIONS:
        raise UsageError(
            "this activation cannot be written as a graph",
            config.hidden_act,
            f"one of {', '.join(ACTIVATIONS)}",
        )
    w = w or GraphWriter(BERT_INPUTS)
    weights = {name: value.detach().cpu().numpy() for name, value in model.state_dict().items()}
    hidden = _embeddings(w, weights, config.layer_norm_eps)  # (B, T, H)
    mask = w.padding_mask("attention_mask")
    for number in range(config.num_hidden_layers):
        last = number == config.num_hidden_layers - 1
        hidden = _layer(
            w, weights, f"bert.encoder.layer.{number}", hidden, mask, config, first_token_only=last
        )
    first = w.op("Squeeze", hidden, w.ints([1]))  # (B, H)
    pooled = w.op("Tanh", w.linear(first, weights, "bert.pooler.dense"))
    w.output(w.linear(pooled, weights, "classifier"))
    return w


def _embeddings(w: GraphWriter, weights: dict[str, np.ndarray], epsilon: float) -> str:
    prefix = "bert.embeddings"
    words = w.rows("input_ids", weights, f"{prefix}.word_embeddings")
    types = w.rows("token_type_ids", weights, f"{prefix}.token_type_embeddings")
    length = w.op("Shape", "input_ids", start=1, end=2)  # (1,)
    positions = w.first_rows(length, weights, f"{prefix}.position_embeddings")  # (T, H)
    summed = w.op("Add", w.op("Add", words, types), positions)
    return w.layer_norm(summed, weights, f"{prefix}.LayerNorm", epsilon)


def _layer(
    w: GraphWriter,
    weights: dict[str, np.ndarray],
    prefix: str,
    hidden: str,
    mask: str,
    config: object,
    *,
    first_token_only: bool,
) -> str:
    heads, width = config.num_attention_heads, config.hidden_size  # type: ignore[attr-defined]
    size = width // heads
    own = (
        w.op("Slice", hidden, w.ints([0]), w.ints([1]), w.ints([1])) if first_token_only else hidden
    )  # (B, 1 or T, H)
    attention = f"{prefix}.attention"
    # The scale 1/sqrt(size) is folded into the query weights.
    scaled = {
        f"{attention}.self.query.{part}": weights[f"{attention}.self.query.{part}"]
        / math.sqrt(size)
        for part in ("weight", "bias")
    }
    query = w.linear(own, weights | scaled, f"{attention}.self.query")
    key, value = (
        w.linear(hidden, weights, f"{attention}.self.{part}") for part in ("key", "value")
    )
    joined = w.attention(query, key, value, mask, heads, size, f"{attention}.self")
    epsilon = config.layer_norm_eps  # type: ignore[attr-defined]
    own = w.layer_norm(
        w.op("Add", own, w.linear(joined, weights, f"{attention}.output.dense")),
        weights,
        f"{attention}.output.LayerNorm",
        epsilon,
    )
    inner = w.activation(w.linear(own, weights, f"{prefix}.intermediate.dense"), config.hidden_act)  # type: ignore[attr-defined]
    outer = w.linear(inner, weights, f"{prefix}.output.dense")
    return w.layer_norm(w.op("Add", own, outer), weights, f"{prefix}.output.LayerNorm", epsilon)
