"""Writes an ONNX graph node by node: operators as calls, weights as initializers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 17
"""The oldest operator set that has LayerNormalization; every runtime of today reads it."""

IR_VERSION = 8


class GraphWriter:
    """Collects nodes and weights; inputs are int64 (batch, sequence), the output is float32 logits."""

    def __init__(self, inputs: Sequence[str]) -> None:
        self.inputs = tuple(inputs)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: dict[str, onnx.TensorProto] = {}
        self.count = 0

    def op(self, kind: str, *inputs: str, outputs: int = 1, **attributes: Any) -> Any:
        """Append one node; returns the name of its output, or a tuple of names where `outputs` > 1."""
        self.count += 1
        names = tuple(f"{kind.lower()}_{self.count}" + (f"_{i}" if outputs > 1 else "") for i in range(outputs))
        self.nodes.append(helper.make_node(kind, list(inputs), list(names), name=f"{kind}_{self.count}", **attributes))
        return names if outputs > 1 else names[0]

    def tensor(self, values: np.ndarray, name: str) -> str:
        """A named weight, stored once."""
        if name not in self.weights:
            self.weights[name] = numpy_helper.from_array(np.ascontiguousarray(values), name)
        return name

    def ints(self, values: int | Sequence[int]) -> str:
        array = np.array(values, dtype=np.int64)
        return self.tensor(array, f"int_{'_'.join(map(str, array.ravel().tolist()))}_{array.ndim}".replace("-", "m"))

    def scalar(self, value: float) -> str:
        return self.tensor(np.array(value, dtype=np.float32), f"float_{value:g}".replace("-", "m").replace("+", ""))

    def linear(self, x: str, weights: dict[str, np.ndarray], prefix: str) -> str:
        """x @ W.T + b with W (out, in), b (out) of a torch Linear; W is stored transposed, as MatMul reads it."""
        product = self.op("MatMul", x, self.tensor(weights[f"{prefix}.weight"].T, f"{prefix}.weight"))
        return str(self.op("Add", product, self.tensor(weights[f"{prefix}.bias"], f"{prefix}.bias")))

    def layer_norm(self, x: str, weights: dict[str, np.ndarray], prefix: str, epsilon: float) -> str:
        scale, shift = (self.tensor(weights[f"{prefix}.{part}"], f"{prefix}.{part}") for part in ("weight", "bias"))
        return str(self.op("LayerNormalization", x, scale, shift, axis=-1, epsilon=epsilon))

    def activation(self, x: str, name: str) -> str:
        """relu; gelu as 0.5 x (1 + erf(x / sqrt 2)); its tanh form (Hendrycks and Gimpel 2016)."""
        if name == "relu":
            return str(self.op("Relu", x))
        if name == "gelu":
            inner = self.op("Erf", self.op("Div", x, self.scalar(math.sqrt(2.0))))
        else:
            cubed = self.op("Mul", self.scalar(0.044715), self.op("Mul", x, self.op("Mul", x, x)))
            inner = self.op("Tanh", self.op("Mul", self.scalar(math.sqrt(2.0 / math.pi)), self.op("Add", x, cubed)))
        return str(self.op("Mul", self.op("Mul", x, self.op("Add", inner, self.scalar(1.0))), self.scalar(0.5)))

    def output(self, logits: str) -> None:
        self.nodes.append(helper.make_node("Identity", [logits], ["logits"], name="logits"))

    def model(self, outputs: int) -> onnx.ModelProto:
        """The finished, checked model with `outputs` logits."""
        inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "sequence"]) for name in self.inputs]
        logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", outputs])
        graph = helper.make_graph(self.nodes, "kdedge", inputs, [logits], list(self.weights.values()))
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="kdedge")
        onnx.checker.check_model(model)
        return model
