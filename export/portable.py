"""The int8 file for other runtimes: standard ONNX operators with every rounding spelled out.

A runtime that knows the pattern of QuantizeLinear and DequantizeLinear multiplies in integers; any
other computes the same numbers in float. With 7-bit weights no 16-bit sum overflows on any CPU. An
LSTM's weights and inputs are rounded as in the int8 file; its hidden states are not, because
standard ONNX has no operator for that.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import onnx
from kdedge.export.graph_writer import INPUT_SCALE, OPSET, GraphWriter, Weights
from kdedge.export.int8_writer import Int8Writer, write_student
from kdedge.export.lstm_weights import UniformTable
from transformers import PreTrainedModel

from kdedge.errors import CheckFailed


class PortableWriter(Int8Writer):
    """Writes layers with integer weights as float operators between DequantizeLinear nodes."""

    opsets: ClassVar[dict[str, int]] = {"": OPSET}

    # Float operators instead of those of com.microsoft.
    padding_mask = GraphWriter.padding_mask
    attention = GraphWriter.attention
    activation = GraphWriter.activation

    def linear(self, x: str, weights: Weights, prefix: str) -> str:
        product, one_row = self.products[prefix], prefix in self.row_layers
        if one_row:
            # ONNX Runtime fuses a matrix product and its bias into a Gemm, which it leaves in
            # float. It does not fuse a batch of matrix products.
            x = self.op("Unsqueeze", x, self.ints([1]))
        scale = self.tensor(product.input_scale, f"{prefix}{INPUT_SCALE}")
        zero = self.tensor(product.input_zero, f"{prefix}.input_zero")
        # One pair per reader: if readers share a pair, ONNX Runtime leaves all but one in float.
        rounded = self.op("QuantizeLinear", x, scale, zero)
        rounded = self.op("DequantizeLinear", rounded, scale, zero)
        weight = self.dequantized(product.weight.T, product.scales, f"{prefix}.weight", axis=1)
        result = self.op("MatMul", rounded, weight)
        result = self.op("Add", result, self.tensor(product.bias, f"{prefix}.bias"))
        return self.op("Squeeze", result, self.ints([1])) if one_row else result

    def dequantized(self, whole: np.ndarray, scales: np.ndarray, name: str, axis: int) -> str:
        """Return int8 numbers as floats, with one scale per index along `axis`."""
        zeros = self.tensor(np.zeros(scales.shape, np.int8), f"{name}.zeros")
        stored = self.tensor(whole, name)
        scale = self.tensor(scales, f"{name}.scales")
        return self.op("DequantizeLinear", stored, scale, zeros, axis=axis)

    def stored_table(self, table: UniformTable) -> UniformTable:
        return table

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
        w = self._both_directions("w", self.lstm.w, self.lstm.w_scales)
        r = self._both_directions("r", self.lstm.r, self.lstm.r_scales)
        bias = self.tensor(self.lstm.bias, "lstm.bias")
        outputs = self.lstm_node(vectors, w, r, bias, steps, hidden)
        return outputs.states if every_token else outputs.final

    def _both_directions(self, name: str, whole: np.ndarray, scales: np.ndarray) -> str:
        """Return (2, 4H, in) from int8 (2, in, 4H).

        DequantizeLinear has one axis, so each direction needs its own.
        """
        parts = []
        for direction in range(2):
            part = f"lstm.{name}.{direction}"
            parts.append(self.dequantized(whole[direction].T, scales[direction], part, axis=0))
        unsqueezed = [self.op("Unsqueeze", part, self.ints([0])) for part in parts]
        return self.op("Concat", *unsqueezed, axis=0)


def to_portable(model: PreTrainedModel) -> onnx.ModelProto:
    """Return a fake-quantized student in standard ONNX.

    Raises:
        CheckFailed: If the graph has an operator of another domain.
    """
    graph = write_student(model, PortableWriter)
    domains = {node.domain for node in graph.graph.node}
    domains |= {opset.domain for opset in graph.opset_import}
    foreign = sorted(domains - {""})
    if foreign:
        raise CheckFailed(
            "a portable file must consist of standard ONNX operators",
            ", ".join(foreign),
            "leave the portable file out",
        )
    return graph
