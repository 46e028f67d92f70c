"""Whole students whose layers round as the int8 file does."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy

from kdedge.export.fake_lstm import FakeQuantLstm, FakeQuantTable
from kdedge.export.fake_quant import FakeQuantEmbedding, FakeQuantLinear
from kdedge.export.scheme import QuantScheme
from torch import nn
from transformers import BertForSequenceClassification, PreTrainedModel

from kdedge.errors import UsageError
from kdedge.students.bilstm import BiLstmForSequenceClassification

Reader = FakeQuantLinear | FakeQuantLstm
"""A module that rounds its input, with its own range or that of another module."""

Layer = FakeQuantLinear | FakeQuantLstm | FakeQuantEmbedding | FakeQuantTable
"""A module that is computed in integers as a whole or not at all."""


def fake_quantized(model: PreTrainedModel, scheme: QuantScheme) -> PreTrainedModel:
    """Return a copy of a student whose products and tables round as the int8 file does.

    Its state dict is the model's plus `range.low` and `range.high` of every range owner.

    Raises:
        UsageError: If the model is no student.
    """
    if isinstance(model, BertForSequenceClassification):
        return _bert(deepcopy(model), scheme)
    if isinstance(model, BiLstmForSequenceClassification):
        return _bilstm(deepcopy(model), scheme)
    raise UsageError(
        "only students can be quantized with fixed ranges",
        type(model).__name__,
        "export with --scheme dynamic",
    )


def _bert(
    copy: BertForSequenceClassification, scheme: QuantScheme
) -> BertForSequenceClassification:
    owners: dict[str, FakeQuantLinear] = {}
    for name, module in list(copy.named_modules()):
        parent, _, leaf = name.rpartition(".")
        if isinstance(module, nn.Linear):
            # Query, key and value have the same input, so they share one range.
            owner = parent if leaf in ("query", "key", "value") else name
            layer = FakeQuantLinear(module, scheme, owners.get(owner))
            owners.setdefault(owner, layer)
            setattr(copy.get_submodule(parent), leaf, layer)
        elif isinstance(module, nn.Embedding) and leaf != "token_type_embeddings":
            setattr(copy.get_submodule(parent), leaf, FakeQuantEmbedding(module))
    return copy


def _bilstm(
    copy: BiLstmForSequenceClassification, scheme: QuantScheme
) -> BiLstmForSequenceClassification:
    lstm = FakeQuantLstm(copy.lstm, scheme)
    layers = {
        "lstm": lstm,
        "embedding": FakeQuantTable(copy.embedding, lstm),
        "dense": FakeQuantLinear(copy.dense, scheme),
        "classifier": FakeQuantLinear(copy.classifier, scheme),
        # Dropout would scale activations beyond their ranges.
        "dropout": nn.Identity(),
    }
    for name, layer in layers.items():
        setattr(copy, name, layer)
    return copy


def quantized_layers(model: nn.Module) -> Iterator[tuple[str, Layer]]:
    """Yield the names and fake-quantized layers of a model."""
    for name, module in model.named_modules():
        if isinstance(module, Layer):
            yield name, module


def quantized_products(model: nn.Module) -> dict[str, FakeQuantLinear]:
    """Return the fake-quantized Linears of a model by name."""
    products = {}
    for name, layer in quantized_layers(model):
        if isinstance(layer, FakeQuantLinear):
            products[name] = layer
    return products


def range_owners(model: nn.Module) -> dict[str, Reader]:
    """Return the modules that own a range by name."""
    owners = {}
    for name, module in model.named_modules():
        if isinstance(module, Reader) and module.input_range is getattr(module, "range", None):
            owners[name] = module
    return owners
