"""Writes a fake-quantized student as the graph that ONNX Runtime executes in integers.

One QuantizeLinear for every activation, MatMulIntegerToFloat for every product, tables of integers, attention as one
node, an LSTM as one node. The operators of `com.microsoft` tie the file to ONNX Runtime.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np
import onnx
import torch
from kdedge.export.bert_graph import BERT_INPUTS, write_bert
from kdedge.export.bilstm_graph import bilstm_inputs, write_bilstm
from kdedge.export.fake_attention import PRODUCTS, FakeQuantAttention, Operand
from kdedge.export.fake_lstm import FakeQuantLstm, FakeQuantTable
from kdedge.export.fake_model import quantized_layers
from kdedge.export.fake_quant import FakeQuantEmbedding, FakeQuantLinear
from kdedge.export.graph_writer import INPUT_SCALE, OPSET, GraphWriter
from kdedge.export.lstm_weights import IntegerLstm, UniformTable
from transformers import PreTrainedModel

from kdedge.students.bilstm import BiLstmForSequenceClassification

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


@dataclass(frozen=True)
class IntegerOperand:
    """A tensor's scale, its zero point as uint8 or int8, and the largest integer of a symmetric one, which may be less than int8 holds."""

    scale: np.ndarray
    zero: np.ndarray
    largest: int | None

    @classmethod
    def of(cls, operand: Operand, divide: float = 1.0) -> IntegerOperand:
        """divide: what the tensor has been divided by in the file."""
        with torch.inference_mode():
            scale, zero = operand.scale()
        kind = np.uint8 if operand.largest is None else np.int8
        return cls(
            (scale.numpy() / np.float32(divide)).astype(np.float32),
            zero.numpy().astype(kind),
            operand.largest,
        )


@dataclass(frozen=True)
class Int8Weights:
    """What of a student is stored and computed in integers, by the name of the layer; all else stays in fp32."""

    products: dict[str, IntegerProduct] = field(default_factory=dict)
    tables: dict[str, IntegerTable | UniformTable] = field(default_factory=dict)
    operands: dict[str, IntegerOperand] = field(default_factory=dict)
    lstm: IntegerLstm | None = None

    @classmethod
    def of(cls, model: PreTrainedModel) -> Int8Weights:
        """Of the layers of a fake-quantized model that are enabled. An LSTM in integers reads a table of integers, whatever that table says."""
        found, heads = cls(), getattr(model.config, "num_attention_heads", 0)
        root = (
            (model.config.hidden_size / heads) ** 0.5 if heads else 1.0
        )  # by which the file divides its queries
        lstm = None
        for name, layer in quantized_layers(model):
            if isinstance(layer, FakeQuantTable) and (layer.enabled or model.lstm.enabled):
                found.tables[name] = UniformTable.of(layer)
            elif not layer.enabled:
                continue
            elif isinstance(layer, FakeQuantEmbedding):
                found.tables[name] = IntegerTable.of(layer)
            elif isinstance(layer, FakeQuantLstm):
                lstm = IntegerLstm.of(layer)
            elif isinstance(layer, FakeQuantLinear):
                found.products[name] = IntegerProduct.of(
                    layer, root if name.endswith("self.query") else 1.0
                )
            elif isinstance(layer, FakeQuantAttention):
                found.operands.update(
                    {
                        f"{name}.{part}": IntegerOperand.of(one, root if part == "query" else 1.0)
                        for part, one in layer.named_children()
                    }
                )
        return replace(found, lstm=lstm)


class Int8Writer(GraphWriter):
    """Writes the layers it has integers for in integers, all others in fp32."""

    opsets: ClassVar[dict[str, int]] = {"": OPSET, MICROSOFT: 1}

    def __init__(self, inputs: tuple[str, ...], integers: Int8Weights) -> None:
        super().__init__(inputs)
        self.products, self.tables, self.lstm = integers.products, integers.tables, integers.lstm
        self.operands = integers.operands
        self.masks: dict[bool, str] = {}
        self.rounded: dict[tuple[str, float, int], str] = {}

    def linear(self, x: str, weights: dict[str, np.ndarray], prefix: str) -> str:
        if prefix not in self.products:
            return super().linear(x, weights, prefix)
        product = self.products[prefix]
        scale = self.tensor(product.input_scale, f"{prefix}{INPUT_SCALE}")
        zero = self.tensor(product.input_zero, f"{prefix}.input_zero")
        weight = self.tensor(product.weight.T, f"{prefix}.weight")
        scales, bias = (
            self.tensor(product.scales, f"{prefix}.scales"),
            self.tensor(product.bias, f"{prefix}.bias"),
        )
        return str(
            self.op(
                "MatMulIntegerToFloat",
                self.round(x, scale, zero, product),
                weight,
                scale,
                scales,
                zero,
                "",
                bias,
                domain=MICROSOFT,
            )
        )

    def round(self, x: str, scale: str, zero: str, product: IntegerProduct) -> str:
        """x as uint8; asked again for the same numbers, the same tensor."""
        key = (x, float(product.input_scale), int(product.input_zero))
        if key not in self.rounded:
            self.rounded[key] = str(self.op("QuantizeLinear", x, scale, zero))
        return self.rounded[key]

    def rows(self, ids: str, weights: dict[str, np.ndarray], prefix: str) -> str:
        if prefix not in self.tables:
            return super().rows(ids, weights, prefix)
        table = self.tables[prefix]
        if isinstance(table, UniformTable):
            return self._uniform_rows(ids, self.stored(table), prefix)
        whole, scales = self._table(table, prefix)
        return self._scaled(self.op("Gather", whole, ids), self.op("Gather", scales, ids))

    def stored(self, table: UniformTable) -> UniformTable:
        """The table as the file holds it: the LSTM that reads it needs its range in every row."""
        return table if self.lstm is None else table.pinned

    def _uniform_rows(self, ids: str, table: UniformTable, prefix: str) -> str:
        rows, scale, zero = (
            self.tensor(values, f"{prefix}.{name}") for name, values in vars(table).items()
        )
        return str(self.op("DequantizeLinear", self.op("Gather", rows, ids), scale, zero))

    def first_rows(self, count: str, weights: dict[str, np.ndarray], prefix: str) -> str:
        table = self.tables.get(prefix)
        if not isinstance(table, IntegerTable):
            return super().first_rows(count, weights, prefix)
        whole, scales = (
            self.op("Slice", part, self.ints([0]), count) for part in self._table(table, prefix)
        )
        return self._scaled(whole, scales)

    def _table(self, table: IntegerTable, prefix: str) -> tuple[str, str]:
        return self.tensor(table.rows, f"{prefix}.weight"), self.tensor(
            table.scales, f"{prefix}.scales"
        )

    def _scaled(self, whole: str, scales: str) -> str:
        return str(self.op("Mul", self.op("Cast", whole, to=onnx.TensorProto.FLOAT), scales))

    def padding_mask(self, mask: str) -> str:
        """The mask as it is: `attention` makes of it what each attention reads."""
        return mask

    def attention(
        self, query: str, key: str, value: str, mask: str, heads: int, size: int, prefix: str
    ) -> str:
        """In integers where it has operands, else as one node in fp32."""
        in_integers = f"{prefix}.{PRODUCTS}.query" in self.operands
        if in_integers not in self.masks:
            self.masks[in_integers] = (
                super().padding_mask(mask)
                if in_integers
                else str(self.op("Cast", mask, to=onnx.TensorProto.INT32))
            )
        if in_integers:
            return super().attention(query, key, value, self.masks[True], heads, size, prefix)
        return str(
            self.op(
                "MultiHeadAttention",
                query,
                key,
                value,
                "",
                self.masks[False],
                domain=MICROSOFT,
                num_heads=heads,
                scale=1.0,
            )
        )

    def operand(self, x: str, prefix: str, part: str) -> str:
        """Rounded before heads are turned about: a byte moves faster than four."""
        ends = self.operand_ends(prefix, part)
        return str(self.op("QuantizeLinear", self.within(x, prefix, part), *ends)) if ends else x

    def within(self, x: str, prefix: str, part: str) -> str:
        """x, cut off where a symmetric operand's integers end: QuantizeLinear knows the ends of its type alone."""
        name = f"{prefix}.{PRODUCTS}.{part}"
        operand = self.operands[name]
        if operand.largest is None:
            return x
        end = operand.scale * np.float32(operand.largest)
        return str(
            self.op(
                "Clip", x, self.tensor(-end, f"{name}.lowest"), self.tensor(end, f"{name}.highest")
            )
        )

    def operand_ends(self, prefix: str, part: str) -> tuple[str, str] | None:
        """Names of scale and zero point of an operand of attention; None where it stays in fp32."""
        name = f"{prefix}.{PRODUCTS}.{part}"
        if name not in self.operands:
            return None
        return self.tensor(self.operands[name].scale, f"{name}{INPUT_SCALE}"), self.tensor(
            self.operands[name].zero, f"{name}.input_zero"
        )

    def product(self, x: str, y: str, prefix: str, parts: tuple[str, str]) -> str:
        ends = [self.operand_ends(prefix, part) for part in parts]
        if None in ends:
            return super().product(x, y, prefix, parts)
        (x_scale, x_zero), (y_scale, y_zero) = ends  # type: ignore[misc]
        return str(
            self.op(
                "MatMulIntegerToFloat", x, y, x_scale, y_scale, x_zero, y_zero, domain=MICROSOFT
            )
        )

    def activation(self, x: str, name: str) -> str:
        return (
            str(self.op("Gelu", x, domain=MICROSOFT))
            if name == "gelu"
            else super().activation(x, name)
        )

    def recurrent(
        self, vectors: str, weights: dict[str, np.ndarray], steps: str, hidden: int
    ) -> str:
        if self.lstm is None:
            return super().recurrent(vectors, weights, steps, hidden)
        lstm = self.lstm.pinned
        w, r, w_scales, r_scales, bias = (
            self.tensor(values, f"lstm.{name}") for name, values in vars(lstm).items()
        )
        zeros = self.tensor(np.zeros(lstm.w_scales.shape, np.int8), "lstm.zeros")
        inputs = (vectors, w, r, bias, steps, "", "", "", w_scales, zeros, r_scales, zeros)
        sizes = {"direction": "bidirectional", "hidden_size": lstm.bias.shape[1] // 8}
        states = self.op("DynamicQuantizeLSTM", *inputs, outputs=2, domain=MICROSOFT, **sizes)[1]
        return str(self.op("Slice", states, self.ints([0]), self.ints([hidden]), self.ints([2])))


def write_student(
    model: PreTrainedModel, make: Callable[[tuple[str, ...]], Int8Writer]
) -> onnx.ModelProto:
    """The graph of a student by a writer that `make` gives for its inputs."""
    if isinstance(model, BiLstmForSequenceClassification):
        return write_bilstm(model, make(bilstm_inputs(model.config.pair))).model(
            model.config.num_labels
        )
    return write_bert(model, make(BERT_INPUTS)).model(model.config.num_labels)


def to_int8(model: PreTrainedModel) -> onnx.ModelProto:
    """The int8 graph of a fake-quantized student; layers that are not enabled stay in fp32."""
    return write_student(model, lambda inputs: Int8Writer(inputs, Int8Weights.of(model)))
