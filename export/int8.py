"""Writes a fake-quantized BERT as the graph that ONNX Runtime executes in integers.

One QuantizeLinear for every activation, MatMulIntegerToFloat for every product, tables of int8 rows, attention as
one node. The operators of `com.microsoft` tie the file to ONNX Runtime.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx
import torch
from transformers import BertForSequenceClassification

from .bert import BERT_INPUTS, write_bert
from .fakequant import FakeQuantEmbedding, FakeQuantLinear, quantized_layers
from .writer import OPSET, GraphWriter

MICROSOFT = "com.microsoft"


@dataclass(frozen=True)
class IntegerProduct:
    """x @ W.T + b in integers: weight (out, in) int8, scales (out,) float32, bias (out,), and the input's scale and uint8 zero point."""

    weight: np.ndarray
    scales: np.ndarray
    bias: np.ndarray
    input_scale: np.ndarray
    input_zero: np.ndarray

    @classmethod
    def of(cls, layer: FakeQuantLinear, divide: float = 1.0) -> IntegerProduct:
        """divide: what the result is to be divided by, which goes into scales and bias."""
        with torch.inference_mode():
            weight, scales = layer.integer_weight()
            scale, zero = layer.input_range()
        return cls(
            weight.numpy().astype(np.int8),
            (scales.numpy()[:, 0] / np.float32(divide)).astype(np.float32),
            (layer.bias.detach().numpy() / np.float32(divide)).astype(np.float32),
            scale.numpy().astype(np.float32),
            zero.numpy().astype(np.uint8),
        )


@dataclass(frozen=True)
class IntegerTable:
    """Rows (V, H) int8 and their scales (V, 1) float32."""

    rows: np.ndarray
    scales: np.ndarray

    @classmethod
    def of(cls, layer: FakeQuantEmbedding) -> IntegerTable:
        with torch.inference_mode():
            rows, scales = layer.integer_weight()
        return cls(rows.numpy().astype(np.int8), scales.numpy())


class Int8Writer(GraphWriter):
    """Writes the layers it has integers for in integers, all others in fp32."""

    opsets: ClassVar[dict[str, int]] = {"": OPSET, MICROSOFT: 1}

    def __init__(self, inputs: tuple[str, ...], products: dict[str, IntegerProduct], tables: dict[str, IntegerTable]) -> None:
        super().__init__(inputs)
        self.products, self.tables = products, tables
        self.rounded: dict[tuple[str, float, int], str] = {}

    def linear(self, x: str, weights: dict[str, np.ndarray], prefix: str) -> str:
        if prefix not in self.products:
            return super().linear(x, weights, prefix)
        product = self.products[prefix]
        scale = self.tensor(product.input_scale, f"{prefix}.input_scale")
        zero = self.tensor(product.input_zero, f"{prefix}.input_zero")
        weight = self.tensor(product.weight.T, f"{prefix}.weight")
        scales, bias = self.tensor(product.scales, f"{prefix}.scales"), self.tensor(product.bias, f"{prefix}.bias")
        return str(self.op("MatMulIntegerToFloat", self.round(x, scale, zero, product), weight, scale, scales, zero, "", bias, domain=MICROSOFT))

    def round(self, x: str, scale: str, zero: str, product: IntegerProduct) -> str:
        """x as uint8; asked again for the same numbers, the same tensor."""
        key = (x, float(product.input_scale), int(product.input_zero))
        if key not in self.rounded:
            self.rounded[key] = str(self.op("QuantizeLinear", x, scale, zero))
        return self.rounded[key]

    def rows(self, ids: str, weights: dict[str, np.ndarray], prefix: str) -> str:
        if prefix not in self.tables:
            return super().rows(ids, weights, prefix)
        whole, scales = self._table(prefix)
        return self._scaled(self.op("Gather", whole, ids), self.op("Gather", scales, ids))

    def first_rows(self, count: str, weights: dict[str, np.ndarray], prefix: str) -> str:
        if prefix not in self.tables:
            return super().first_rows(count, weights, prefix)
        whole, scales = (self.op("Slice", part, self.ints([0]), count) for part in self._table(prefix))
        return self._scaled(whole, scales)

    def _table(self, prefix: str) -> tuple[str, str]:
        table = self.tables[prefix]
        return self.tensor(table.rows, f"{prefix}.weight"), self.tensor(table.scales, f"{prefix}.scales")

    def _scaled(self, whole: str, scales: str) -> str:
        return str(self.op("Mul", self.op("Cast", whole, to=onnx.TensorProto.FLOAT), scales))

    def padding_mask(self, mask: str) -> str:
        """(B, T) int32, as MultiHeadAttention reads it."""
        return str(self.op("Cast", mask, to=onnx.TensorProto.INT32))

    def attention(self, query: str, key: str, value: str, mask: str, heads: int, size: int) -> str:
        return str(self.op("MultiHeadAttention", query, key, value, "", mask, domain=MICROSOFT, num_heads=heads, scale=1.0))

    def activation(self, x: str, name: str) -> str:
        return str(self.op("Gelu", x, domain=MICROSOFT)) if name == "gelu" else super().activation(x, name)


def to_int8(model: BertForSequenceClassification) -> onnx.ModelProto:
    """The int8 graph of a fake-quantized BERT; layers that are not enabled stay in fp32."""
    products, tables = {}, {}
    for name, layer in quantized_layers(model):
        if not layer.enabled:
            continue
        if isinstance(layer, FakeQuantEmbedding):
            tables[name] = IntegerTable.of(layer)
        else:
            size = model.config.hidden_size // model.config.num_attention_heads
            products[name] = IntegerProduct.of(layer, divide=size**0.5 if name.endswith("self.query") else 1.0)
    return write_bert(model, Int8Writer(BERT_INPUTS, products, tables)).model(model.config.num_labels)
