"""The int8 file for other runtimes: plain operators of ONNX, every rounding said by QuantizeLinear and DequantizeLinear.

A runtime that knows the pattern multiplies in integers; one that does not computes the same numbers in float. With
7-bit weights no 16-bit sum overflows, whatever the CPU. An LSTM's weights and inputs are rounded as in the int8 file;
its hidden states are not, since plain ONNX has no operator for that.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import onnx
from kdedge.export.graph_writer import INPUT_SCALE, OPSET, GraphWriter
from kdedge.export.int8_writer import Int8Weights, Int8Writer, write_student
from kdedge.export.lstm_weights import UniformTable
from transformers import PreTrainedModel

from kdedge.errors import CheckFailed

ROW_LAYERS = ("bert.pooler.dense", "dense", "classifier")
"""Layers that read one row a text, (B, H)."""


class PortableWriter(Int8Writer):
    """Writes layers that have integers as float operators between DequantizeLinear nodes."""

    opsets: ClassVar[dict[str, int]] = {"": OPSET}

    def linear(self, x: str, weights: dict[str, np.ndarray], prefix: str) -> str:
        if prefix not in self.products:
            return super().linear(x, weights, prefix)
        product, flat = self.products[prefix], prefix in ROW_LAYERS
        if flat:  # of a matrix product and its bias ONNX Runtime makes a Gemm, which it leaves in float; of a batch of them it does not
            x = self.op("Unsqueeze", x, self.ints([1]))
        scale = self.tensor(product.input_scale, f"{prefix}{INPUT_SCALE}")
        zero = self.tensor(product.input_zero, f"{prefix}.input_zero")
        # A pair for each reader: where readers share one, ONNX Runtime leaves all but the first in float.
        rounded = self.op(
            "DequantizeLinear", self.op("QuantizeLinear", x, scale, zero), scale, zero
        )
        product_of = self.op(
            "MatMul",
            rounded,
            self.dequantized(product.weight.T, product.scales, f"{prefix}.weight", axis=1),
        )
        answer = self.op("Add", product_of, self.tensor(product.bias, f"{prefix}.bias"))
        return str(self.op("Squeeze", answer, self.ints([1])) if flat else answer)

    def dequantized(self, whole: np.ndarray, scales: np.ndarray, name: str, axis: int) -> str:
        """int8 numbers with one scale for each index along `axis`, as floats."""
        zeros = self.tensor(np.zeros(scales.shape, np.int8), f"{name}.zeros")
        return str(
            self.op(
                "DequantizeLinear",
                self.tensor(whole, name),
                self.tensor(scales, f"{name}.scales"),
                zeros,
                axis=axis,
            )
        )

    def stored(self, table: UniformTable) -> UniformTable:
        return table

    def recurrent(
        self, vectors: str, weights: dict[str, np.ndarray], steps: str, hidden: int
    ) -> str:
        if self.lstm is None:
            return GraphWriter.recurrent(self, vectors, weights, steps, hidden)
        w, r = (
            self._both(*parts)
            for parts in (
                ("w", self.lstm.w, self.lstm.w_scales),
                ("r", self.lstm.r, self.lstm.r_scales),
            )
        )
        bias = self.tensor(self.lstm.bias, "lstm.bias")
        return str(
            self.op(
                "LSTM",
                vectors,
                w,
                r,
                bias,
                steps,
                outputs=2,
                direction="bidirectional",
                hidden_size=hidden,
            )[1]
        )

    def _both(self, name: str, whole: np.ndarray, scales: np.ndarray) -> str:
        """(2, 4H, in) from (2, in, 4H) int8: DequantizeLinear knows one axis, so one direction at a time."""
        ways = [
            self.dequantized(whole[way].T, scales[way], f"lstm.{name}.{way}", axis=0)
            for way in range(2)
        ]
        return str(
            self.op("Concat", *(self.op("Unsqueeze", way, self.ints([0])) for way in ways), axis=0)
        )

    def padding_mask(self, mask: str) -> str:
        return GraphWriter.padding_mask(self, mask)

    def attention(
        self, query: str, key: str, value: str, mask: str, heads: int, size: int, prefix: str
    ) -> str:
        return GraphWriter.attention(self, query, key, value, mask, heads, size, prefix)

    def operand(self, x: str, prefix: str, part: str) -> str:
        ends = self.operand_ends(prefix, part)
        return (
            str(self.op("DequantizeLinear", super().operand(x, prefix, part), *ends)) if ends else x
        )

    def product(self, x: str, y: str, prefix: str, parts: tuple[str, str]) -> str:
        return GraphWriter.product(self, x, y, prefix, parts)

    def activation(self, x: str, name: str) -> str:
        return GraphWriter.activation(self, x, name)


def to_portable(model: PreTrainedModel) -> onnx.ModelProto:
    """A fake-quantized student in plain ONNX. Raises GateFailed should an operator of another domain stand in it."""
    graph = write_student(model, lambda inputs: PortableWriter(inputs, Int8Weights.of(model)))
    foreign = sorted(
        {node.domain for node in graph.graph.node} - {""}
        | {item.domain for item in graph.opset_import} - {""}
    )
    if foreign:
        raise CheckFailed(
            "a portable file has plain operators of ONNX alone",
            ", ".join(foreign),
            "leave the portable file out",
        )
    return graph
