"""A BERT classifier as an ONNX graph, and as a model that rounds as its int8 file does.

The last layer computes queries, feed-forward and norms for the first token only, because the head
reads nothing else. Keys and values of all tokens are still used, so the result is exactly the same.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from kdedge.export.fake_quant import FakeQuantEmbedding, FakeQuantLinear
from kdedge.export.graph_writer import GraphWriter, Weights, weights_of
from kdedge.export.scheme import QuantScheme
from kdedge.export.student_export import HiddenStates, StudentExport
from torch import nn
from transformers import BertConfig, BertForSequenceClassification, PretrainedConfig

from kdedge.errors import UsageError
from kdedge.nn.attention_mask import with_additive_mask

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


class BertExport(StudentExport):
    """A BERT: students and fine-tuned classifiers."""

    row_layers: ClassVar[tuple[str, ...]] = ("bert.pooler.dense", "classifier")
    gains_from_half: ClassVar[bool] = True

    def exact_in_batches(self, config: PretrainedConfig) -> bool:
        return False

    def can_write(self, config: PretrainedConfig) -> bool:
        return config.hidden_act in ACTIVATIONS

    def inputs(self, config: PretrainedConfig) -> tuple[str, ...]:
        return ("input_ids", "attention_mask", "token_type_ids")

    def write(self, model: BertForSequenceClassification, w: GraphWriter) -> None:
        config = model.config
        if not self.can_write(config):
            raise UsageError(
                "this activation function cannot be exported",
                config.hidden_act,
                f"use one of {', '.join(ACTIVATIONS)}",
            )
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

    def fake_quantize(self, model: BertForSequenceClassification, scheme: QuantScheme) -> None:
        owners: dict[str, FakeQuantLinear] = {}
        for name, module in list(model.named_modules()):
            parent, _, leaf = name.rpartition(".")
            if isinstance(module, nn.Linear):
                # Query, key and value have the same input, so they share one range.
                owner = parent if leaf in ("query", "key", "value") else name
                layer = FakeQuantLinear(module, scheme, owners.get(owner))
                owners.setdefault(owner, layer)
                setattr(model.get_submodule(parent), leaf, layer)
            elif isinstance(module, nn.Embedding) and leaf != "token_type_embeddings":
                setattr(model.get_submodule(parent), leaf, FakeQuantEmbedding(module))

    def read_states(
        self, model: BertForSequenceClassification, batch: dict[str, torch.Tensor]
    ) -> tuple[torch.Tensor, HiddenStates]:
        """Return logits (B, C) and the states after each layer except the last.

        The other tokens of the last layer are neither read by the head nor computed on the device.
        """
        output = model(**with_additive_mask(model, batch), output_hidden_states=True)
        mask = batch["attention_mask"]
        return output.logits, [(states, mask) for states in output.hidden_states[:-1]]

    def float_attention_products(self, config: PretrainedConfig) -> int:
        return 2 * int(config.num_hidden_layers)

    def product_divisor(self, name: str, config: PretrainedConfig) -> float:
        """Return sqrt(size of a head) for queries, else 1."""
        if not name.endswith("self.query"):
            return 1.0
        return float((config.hidden_size / config.num_attention_heads) ** 0.5)


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
