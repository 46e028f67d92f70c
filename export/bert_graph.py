"""A BERT classifier as an ONNX graph; the writer decides about the arithmetic of its products.

The last layer computes queries, feed-forward and norms for the first token only, because the head
reads nothing else. Keys and values of all tokens are still used, so the result is exactly the same.
"""

from __future__ import annotations

import math

from kdedge.export.graph_writer import GraphWriter, Weights, weights_of
from transformers import BertConfig, BertForSequenceClassification

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
"""Values of `hidden_act` that can be written."""

BERT_INPUTS = ("input_ids", "attention_mask", "token_type_ids")


def write_bert(model: BertForSequenceClassification, w: GraphWriter | None = None) -> GraphWriter:
    """Write a BERT from `BERT_INPUTS` (B, T) to logits (B, C), for any B and T.

    Args:
        model: The classifier.
        w: A writer with `BERT_INPUTS`; default: fp32 in standard operators.

    Raises:
        UsageError: If the activation function is not one of `ACTIVATIONS`.
    """
    config = model.config
    if config.hidden_act not in ACTIVATIONS:
        raise UsageError(
            "this activation function cannot be exported",
            config.hidden_act,
            f"use one of {', '.join(ACTIVATIONS)}",
        )
    w = w or GraphWriter(BERT_INPUTS)
    weights = weights_of(model)
    hidden = _embeddings(w, weights, config.layer_norm_eps)  # (B, T, H)
    mask = w.padding_mask("attention_mask")
    layers = config.num_hidden_layers
    for number in range(layers):
        rows = hidden
        if number == layers - 1:
            rows = w.op("Slice", hidden, w.ints([0]), w.ints([1]), w.ints([1]))  # (B, 1, H)
        prefix = f"bert.encoder.layer.{number}"
        rows = _attention(w, weights, prefix, rows, hidden, mask, config)
        hidden = _feed_forward(w, weights, prefix, rows, config)
    first = w.op("Squeeze", hidden, w.ints([1]))  # (B, H)
    pooled = w.op("Tanh", w.linear(first, weights, "bert.pooler.dense"))
    w.output(w.linear(pooled, weights, "classifier"))
    return w


def _embeddings(w: GraphWriter, weights: Weights, epsilon: float) -> str:
    prefix = "bert.embeddings"
    words = w.rows("input_ids", weights, f"{prefix}.word_embeddings")
    types = w.rows("token_type_ids", weights, f"{prefix}.token_type_embeddings")
    length = w.op("Shape", "input_ids", start=1, end=2)  # (1,)
    positions = w.first_rows(length, weights, f"{prefix}.position_embeddings")  # (T, H)
    summed = w.op("Add", w.op("Add", words, types), positions)
    return w.layer_norm(summed, weights, f"{prefix}.LayerNorm", epsilon)


def _attention(
    w: GraphWriter,
    weights: Weights,
    prefix: str,
    rows: str,
    hidden: str,
    mask: str,
    config: BertConfig,
) -> str:
    """Let rows (B, S, H) attend to hidden (B, T, H); returns (B, S, H)."""
    name = f"{prefix}.attention"
    heads = config.num_attention_heads
    size = config.hidden_size // heads
    # The scale 1 / sqrt(size) is folded into the weights of the queries.
    scaled = {}
    for part in ("weight", "bias"):
        parameter = f"{name}.self.query.{part}"
        scaled[parameter] = weights[parameter] / math.sqrt(size)
    query = w.linear(rows, weights | scaled, f"{name}.self.query")
    key = w.linear(hidden, weights, f"{name}.self.key")
    value = w.linear(hidden, weights, f"{name}.self.value")
    context = w.attention(query, key, value, mask, heads, size)
    output = w.linear(context, weights, f"{name}.output.dense")
    summed = w.op("Add", rows, output)
    return w.layer_norm(summed, weights, f"{name}.output.LayerNorm", config.layer_norm_eps)


def _feed_forward(
    w: GraphWriter, weights: Weights, prefix: str, rows: str, config: BertConfig
) -> str:
    inner = w.linear(rows, weights, f"{prefix}.intermediate.dense")
    activated = w.activation(inner, config.hidden_act)
    output = w.linear(activated, weights, f"{prefix}.output.dense")
    summed = w.op("Add", rows, output)
    return w.layer_norm(summed, weights, f"{prefix}.output.LayerNorm", config.layer_norm_eps)
