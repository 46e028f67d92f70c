"""Whole students whose layers round as the int8 file does."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy

from kdedge.export.fake_attention import FakeQuantAttention, Operand, round_attention
from kdedge.export.fake_lstm import FakeQuantLstm, FakeQuantTable
from kdedge.export.fake_quant import FakeQuantEmbedding, FakeQuantLinear
from kdedge.export.scheme import QuantScheme
from torch import nn
from transformers import BertForSequenceClassification, PreTrainedModel

from kdedge.errors import UsageError
from kdedge.students.bilstm import BiLstmForSequenceClassification

Reader = FakeQuantLinear | FakeQuantLstm | Operand
"""What rounds what it reads, between ends of its own or another's."""

Layer = FakeQuantLinear | FakeQuantLstm | FakeQuantAttention | FakeQuantEmbedding | FakeQuantTable
"""What is computed in integers as a whole or not at all."""


def fake_quantized(model: PreTrainedModel, scheme: QuantScheme) -> PreTrainedModel:
    """A copy of a student whose products and tables round as the int8 file does.

    Its state dict is that of the model and `range.low`, `range.high` of every product's input, of attention's both operands. A BiLSTM has none.
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
            # Query, key and value read the same tensor.
            reads = parent if leaf in ("query", "key", "value") else name
            made = FakeQuantLinear(module, scheme, owners.get(reads))
            owners.setdefault(reads, made)
            setattr(copy.get_submodule(parent), leaf, made)
        elif isinstance(module, nn.Embedding) and leaf != "token_type_embeddings":
            setattr(copy.get_submodule(parent), leaf, FakeQuantEmbedding(module))
    if scheme.attention == "integers":
        round_attention(copy, scheme)
    return copy


def _bilstm(
    copy: BiLstmForSequenceClassification, scheme: QuantScheme
) -> BiLstmForSequenceClassification:
    lstm = FakeQuantLstm(copy.lstm, scheme)
    made: dict[str, nn.Module] = {"lstm": lstm, "embedding": FakeQuantTable(copy.embedding, lstm)}
    made |= {
        name: FakeQuantLinear(copy.get_submodule(name), scheme) for name in ("dense", "classifier")
    }
    # Without dropout, which enlarges what it keeps beyond the ranges.
    for name, layer in (made | {"dropout": nn.Identity()}).items():
        setattr(copy, name, layer)
    return copy


def quantized_layers(model: nn.Module) -> Iterator[tuple[str, Layer]]:
    """The fake-quantized layers of a model, by name."""
    return ((name, module) for name, module in model.named_modules() if isinstance(module, Layer))


def quantized_products(model: nn.Module) -> dict[str, FakeQuantLinear]:
    """The fake-quantized products of a model, by name."""
    return {
        name: module
        for name, module in quantized_layers(model)
        if isinstance(module, FakeQuantLinear)
    }


def range_owners(model: nn.Module) -> dict[str, Reader]:
    """What has a range of its own, by name."""
    readers = (
        (name, module) for name, module in model.named_modules() if isinstance(module, Reader)
    )
    return {
        name: reader
        for name, reader in readers
        if reader.input_range is getattr(reader, "range", None)
    }
