"""Writes a fake-quantized student as a graph that ONNX Runtime executes in integers.

One QuantizeLinear for every activation, MatMulIntegerToFloat for every product, integer tables,
attention as one node, an LSTM as one node. The operators of `com.microsoft` tie the file to ONNX
Runtime.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import onnx
import torch
from kdedge.export.fake_lstm import FakeQuantLstm, FakeQuantTable
from kdedge.export.fake_model import quantized_layers
from kdedge.export.fake_quant import FakeQuantEmbedding, FakeQuantLinear
from kdedge.export.graph_writer import INPUT_SCALE, OPSET, GraphWriter, Weights
from kdedge.export.lstm_weights import IntegerLstm, UniformTable
from kdedge.export.registry import export_of
from transformers import PreTrainedModel

MICROSOFT = "com.microsoft"


@dataclass(frozen=True)
class IntegerProduct:
    """x @ W.T + b in integers.

    Attributes:
        weight: int8. *Shape:* (out, in)
        scales: float32. *Shape:* (out,)
        bias: float32. *Shape:* (out,)
        input_scale: float32 scalar.
        input_zero: uint8 scalar.
    """

    weight: np.ndarray
    scales: np.ndarray
    bias: np.ndarray
    input_scale: np.ndarray
    input_zero: np.ndarray

    @classmethod
    def of(cls, layer: FakeQuantLinear, divisor: float = 1.0) -> IntegerProduct:
        """Convert a layer whose result is divided by `divisor` in the file."""
        with torch.inference_mode():
            weight, scales = layer.integer_weight()
            scale, zero = layer.input_range()
        return cls(
            weight.numpy().astype(np.int8),
            (scales.numpy()[:, 0] / np.float32(divisor)).astype(np.float32),
            (layer.bias.detach().numpy() / np.float32(divisor)).astype(np.float32),
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


@dataclass
class Int8Weights:
    """The layers of a student that are stored and computed in integers, by name."""

    products: dict[str, IntegerProduct] = field(default_factory=dict)
    tables: dict[str, IntegerTable | UniformTable] = field(default_factory=dict)
    lstm: IntegerLstm | None = None
    row_layers: tuple[str, ...] = ()

    @classmethod
    def of(cls, model: PreTrainedModel) -> Int8Weights:
        """Convert the layers of a fake-quantized model."""
        export = export_of(model)
        weights = cls(row_layers=export.row_layers)
        for name, layer in quantized_layers(model):
            if isinstance(layer, FakeQuantTable):
                weights.tables[name] = UniformTable.of(layer)
            elif isinstance(layer, FakeQuantEmbedding):
                weights.tables[name] = IntegerTable.of(layer)
            elif isinstance(layer, FakeQuantLstm):
                weights.lstm = IntegerLstm.of(layer)
            else:
                divisor = export.product_divisor(name, model.config)
                weights.products[name] = IntegerProduct.of(layer, divisor)
        return weights


class Int8Writer(GraphWriter):
    """Writes products, tables and the LSTM in integers, and everything else in fp32."""

    opsets: ClassVar[dict[str, int]] = {"": OPSET, MICROSOFT: 1}

    def __init__(self, inputs: tuple[str, ...], weights: Int8Weights) -> None:
        super().__init__(inputs)
        self.products, self.tables = weights.products, weights.tables
        self.lstm, self.row_layers = weights.lstm, weights.row_layers
        self.mask = ""
        self.rounded: dict[tuple[str, float, int], str] = {}

    def linear(self, x: str, weights: Weights, prefix: str) -> str:
        product = self.products[prefix]
        scale = self.tensor(product.input_scale, f"{prefix}{INPUT_SCALE}")
        zero = self.tensor(product.input_zero, f"{prefix}.input_zero")
        weight = self.tensor(product.weight.T, f"{prefix}.weight")
        scales = self.tensor(product.scales, f"{prefix}.scales")
        bias = self.tensor(product.bias, f"{prefix}.bias")
        rounded = self.round(x, scale, zero, product)
        inputs = (rounded, weight, scale, scales, zero, "", bias)
        return self.op("MatMulIntegerToFloat", *inputs, domain=MICROSOFT)

    def round(self, x: str, scale: str, zero: str, product: IntegerProduct) -> str:
        """Round x to uint8, once for equal scales and zero points."""
        key = (x, float(product.input_scale), int(product.input_zero))
        if key not in self.rounded:
            self.rounded[key] = self.op("QuantizeLinear", x, scale, zero)
        return self.rounded[key]

    def rows(self, ids: str, weights: Weights, prefix: str) -> str:
        if prefix not in self.tables:
            return super().rows(ids, weights, prefix)
        table = self.tables[prefix]
        if isinstance(table, UniformTable):
            return self._uniform_rows(ids, self.stored_table(table), prefix)
        whole, scales = self._table(table, prefix)
        return self._scaled(self.op("Gather", whole, ids), self.op("Gather", scales, ids))

    def stored_table(self, table: UniformTable) -> UniformTable:
        """Return the table as the file stores it: the LSTM needs the range in every row."""
        return table.range_anchored

    def _uniform_rows(self, ids: str, table: UniformTable, prefix: str) -> str:
        rows = self.tensor(table.rows, f"{prefix}.rows")
        scale = self.tensor(table.scale, f"{prefix}.scale")
        zero = self.tensor(table.zero, f"{prefix}.zero")
        return self.op("DequantizeLinear", self.op("Gather", rows, ids), scale, zero)

    def first_rows(self, count: str, weights: Weights, prefix: str) -> str:
        table = self.tables[prefix]
        assert isinstance(table, IntegerTable)
        rows, scales = self._table(table, prefix)
        first = self.op("Slice", rows, self.ints([0]), count)
        return self._scaled(first, self.op("Slice", scales, self.ints([0]), count))

    def _table(self, table: IntegerTable, prefix: str) -> tuple[str, str]:
        rows = self.tensor(table.rows, f"{prefix}.weight")
        return rows, self.tensor(table.scales, f"{prefix}.scales")

    def _scaled(self, whole: str, scales: str) -> str:
        return self.op("Mul", self.op("Cast", whole, to=onnx.TensorProto.FLOAT), scales)

    def padding_mask(self, mask: str) -> str:
        """Return the mask itself: the first attention converts it for all."""
        return mask

    def attention(self, query: str, key: str, value: str, mask: str, heads: int, size: int) -> str:
        """Write attention as one node in fp32."""
        if not self.mask:
            self.mask = self.op("Cast", mask, to=onnx.TensorProto.INT32)
        inputs = (query, key, value, "", self.mask)
        settings = {"domain": MICROSOFT, "num_heads": heads, "scale": 1.0}
        return self.op("MultiHeadAttention", *inputs, **settings)

    def activation(self, x: str, name: str) -> str:
        if name == "gelu":
            return self.op("Gelu", x, domain=MICROSOFT)
        return super().activation(x, name)

    def recurrent(
        self,
        vectors: str,
        weights: Weights,
        steps: str,
        hidden: int,
        *,
        every_token: bool = False,
    ) -> str:
        assert self.lstm is not None
        lstm = self.lstm.range_anchored
        w = self.tensor(lstm.w, "lstm.w")
        r = self.tensor(lstm.r, "lstm.r")
        w_scales = self.tensor(lstm.w_scales, "lstm.w_scales")
        r_scales = self.tensor(lstm.r_scales, "lstm.r_scales")
        bias = self.tensor(lstm.bias, "lstm.bias")
        zeros = self.tensor(np.zeros(lstm.w_scales.shape, np.int8), "lstm.zeros")
        inputs = (vectors, w, r, bias, steps, "", "", "", w_scales, zeros, r_scales, zeros)
        states, final = self.op_with_outputs(
            "DynamicQuantizeLSTM",
            *inputs,
            outputs=2,
            domain=MICROSOFT,
            direction="bidirectional",
            hidden_size=lstm.bias.shape[1] // 8,
        )
        # The units that anchor the ranges follow the H units of the model.
        units, axis = (states, 3) if every_token else (final, 2)
        return self.op("Slice", units, self.ints([0]), self.ints([hidden]), self.ints([axis]))


def write_student(
    model: PreTrainedModel, new_writer: Callable[[tuple[str, ...], Int8Weights], Int8Writer]
) -> onnx.ModelProto:
    """Return the graph of a fake-quantized student, by the kind of writer that is given."""
    export = export_of(model)
    writer = new_writer(export.inputs(model.config), Int8Weights.of(model))
    export.write(model, writer)
    return writer.model(model.config.num_labels)


def to_int8(model: PreTrainedModel) -> onnx.ModelProto:
    """Return the int8 graph of a fake-quantized student."""
    return write_student(model, Int8Writer)
