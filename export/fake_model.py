"""Whole students whose layers round as the int8 file does."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy

from kdedge.export.fake_lstm import FakeQuantLstm, FakeQuantTable
from kdedge.export.fake_quant import FakeQuantEmbedding, FakeQuantLinear
from kdedge.export.registry import export_of
from kdedge.export.scheme import QuantScheme
from torch import nn
from transformers import PreTrainedModel

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
    copy = deepcopy(model)
    export_of(model).fake_quantize(copy, scheme)
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


def quantized_lstms(model: nn.Module) -> list[FakeQuantLstm]:
    """Return the fake-quantized LSTMs of a model."""
    return [layer for _, layer in quantized_layers(model) if isinstance(layer, FakeQuantLstm)]


def range_owners(model: nn.Module) -> dict[str, Reader]:
    """Return the modules that own a range by name."""
    owners = {}
    for name, module in model.named_modules():
        if isinstance(module, Reader) and module.input_range is getattr(module, "range", None):
            owners[name] = module
    return owners
