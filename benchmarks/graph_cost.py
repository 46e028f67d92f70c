"""Count the operations and bytes of a graph's nodes, from the shapes of one run.

Only products, recurrent layers, attention and tables of embeddings count. Everything else, such as
a normalization, is left out, so that the counts give a lower bound in time.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from kdedge.benchmarks.machine_peaks import Peaks
from kdedge.benchmarks.onnx_profile import NodeRun

INTEGER_PRODUCTS = {
    "MatMulInteger",
    "MatMulIntegerToFloat",
    "DynamicQuantizeMatMul",
    "QLinearMatMul",
    "QGemm",
}
FLOAT_PRODUCTS = {"MatMul", "FusedMatMul", "Gemm", "FusedGemm"}
RECURRENT = {"LSTM": False, "DynamicQuantizeLSTM": True}
"""Operator -> whether it multiplies integers."""

ATTENTION = "MultiHeadAttention"
TABLE = "Gather"

FLOAT_BYTES = 4


@dataclass(frozen=True)
class Cost:
    """Operations (multiplications and additions) and bytes of weights.

    Attributes:
        fp32: Operations in fp32.
        int8: Operations in int8.
        bytes: Bytes of the weights that are read, with the rows of embedding tables.
    """

    fp32: int = 0
    int8: int = 0
    bytes: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.fp32 + other.fp32, self.int8 + other.int8, self.bytes + other.bytes)

    def bound(self, peaks: Peaks, bandwidth: float) -> float:
        """Return the seconds that a machine needs at least.

        Args:
            peaks: The fastest products of the machine.
            bandwidth: Bytes per second at which the weights can be read.
        """
        compute = self.fp32 / peaks.fp32 + self.int8 / peaks.int8
        return max(compute, self.bytes / bandwidth)


def total_cost(nodes: Iterable[NodeRun]) -> Cost:
    """Add the costs of all nodes of one run."""
    total = Cost()
    for node in nodes:
        total += node_cost(node)
    return total


def node_cost(node: NodeRun) -> Cost:
    """Return the cost of one node; nothing for operators that are not counted."""
    if node.operator in FLOAT_PRODUCTS or node.operator in INTEGER_PRODUCTS:
        return _product(node, node.operator in INTEGER_PRODUCTS)
    if node.operator in RECURRENT:
        return _recurrent(node, RECURRENT[node.operator])
    if node.operator == ATTENTION:
        return _attention(node)
    if node.operator == TABLE and len(node.inputs[0]) == 2 and len(node.outputs[0]) >= 2:
        # The type of the table is not known here: a byte for each value is a lower bound.
        return Cost(bytes=math.prod(node.outputs[0]))
    return Cost()


def _product(node: NodeRun, integer: bool) -> Cost:
    """Return the cost of A (..., M, K) by B (K, N): 2 M K N for each matrix of a batch."""
    depth = node.inputs[0][-1]
    operations = 2 * math.prod(node.outputs[0]) * depth
    weights = 0
    if not _has_two_activations(node):
        weights = depth * node.outputs[0][-1]
    return _cost(operations, weights, integer)


def _has_two_activations(node: NodeRun) -> bool:
    """Return whether both factors depend on the text, as queries and keys do."""
    return len(node.inputs) > 1 and len(node.inputs[0]) > 2 and len(node.inputs[1]) > 2


def _recurrent(node: NodeRun, integer: bool) -> Cost:
    """Return the cost of an LSTM: at each step, 4 H gates from I inputs and H states."""
    steps, batch, width = node.inputs[0]
    *_, hidden = node.outputs[0]
    directions = node.outputs[0][1] if len(node.outputs[0]) == 4 else node.outputs[0][0]
    weights = directions * 4 * hidden * (width + hidden)
    return _cost(2 * steps * batch * weights, weights, integer)


def _attention(node: NodeRun) -> Cost:
    """Return the cost of the scores (queries by keys) and of the weighted values."""
    batch, queries, width = node.inputs[0]
    keys = node.inputs[1][1]
    return Cost(fp32=2 * 2 * batch * queries * keys * width)


def _cost(operations: int, weights: int, integer: bool) -> Cost:
    if integer:
        return Cost(int8=operations, bytes=weights)
    return Cost(fp32=operations, bytes=FLOAT_BYTES * weights)
