"""Writes an ONNX graph node by node: operators as calls, weights as initializers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import onnx
from kdedge.export.lstm_weights import lstm_weights
from onnx import TensorProto, helper, numpy_helper

OPSET = 17
"""The oldest operator set that has LayerNormalization; every runtime of today reads it."""

IR_VERSION = 8

INPUT_SCALE = ".input_scale"
"""Ends the name of a scale; before it stands the name of what is rounded by it."""


class GraphWriter:
    """Collects nodes and weights; inputs are int64 (batch, sequence), the output is float32 logits."""

    opsets: ClassVar[dict[str, int]] = {"": OPSET}
    """Operator domains that the graph uses, and their versions."""

    def __init__(self, inputs: Sequence[str]) -> None:
        self.inputs = tuple(inputs)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: dict[str, onnx.TensorProto] = {}
        self.count = 0

    def op(self, kind: str, *inputs: str, outputs: int = 1, **attributes: Any) -> Any:
        """Append one node; returns the name of its output, or a tuple of names where `outputs` > 1."""
        self.count += 1
        names = tuple(
            f"{kind.lower()}_{self.count}" + (f"_{i}" if outputs > 1 else "")
            for i in range(outputs)
        )
        self.nodes.append(
            helper.make_node(
                kind, list(inputs), list(names), name=f"{kind}_{self.count}", **attributes
            )
        )
        return names if outputs > 1 else names[0]

    def tensor(self, values: np.ndarray, name: str) -> str:
        """A named weight, stored once."""
        if name not in self.weights:
            self.weights[name] = numpy_helper.from_array(np.ascontiguousarray(values), name)
        return name

    def ints(self, values: int | Sequence[int]) -> str:
        array = np.array(values, dtype=np.int64)
        return self.tensor(
            array,
            f"int_{'_'.join(map(str, array.ravel().tolist()))}_{array.ndim}".replace("-", "m"),
        )

    def scalar(self, value: float) -> str:
        return self.tensor(
            np.array(value, dtype=np.float32), f"float_{value:g}".replace("-", "m").replace("+", "")
        )

    def linear(self, x: str, weights: dict[str, np.ndarray], prefix: str) -> str:
        """x @ W.T + b with W (out, in), b (out) of a torch Linear; W is stored transposed, as MatMul reads it."""
        product = self.op(
            "MatMul", x, self.tensor(weights[f"{prefix}.weight"].T, f"{prefix}.weight")
        )
        return str(
            self.op("Add", product, self.tensor(weights[f"{prefix}.bias"], f"{prefix}.bias"))
        )

    def rows(self, ids: str, weights: dict[str, np.ndarray], prefix: str) -> str:
        """(..., H): the rows of an embedding table that `ids` name."""
        return str(
            self.op("Gather", self.tensor(weights[f"{prefix}.weight"], f"{prefix}.weight"), ids)
        )

    def first_rows(self, count: str, weights: dict[str, np.ndarray], prefix: str) -> str:
        """(count, H): the first rows of an embedding table; count is an int64 tensor (1,)."""
        return str(
            self.op(
                "Slice",
                self.tensor(weights[f"{prefix}.weight"], f"{prefix}.weight"),
                self.ints([0]),
                count,
            )
        )

    def padding_mask(self, mask: str) -> str:
        """What `attention` takes to leave out padding: here (B, 1, 1, T), 0 on real tokens and the lowest float on padding."""
        padding = self.op("Equal", self.op("Unsqueeze", mask, self.ints([1, 2])), self.ints(0))
        return str(
            self.op("Where", padding, self.scalar(np.finfo(np.float32).min), self.scalar(0.0))
        )

    def attention(
        self, query: str, key: str, value: str, mask: str, heads: int, size: int, prefix: str
    ) -> str:
        """softmax(Q K' + mask) V, head by head: (B, S, H), (B, T, H), (B, T, H) -> (B, S, H); the queries are scaled already."""

        def split(states: str, part: str, *order: int) -> str:
            return str(
                self.op(
                    "Transpose",
                    self.op(
                        "Reshape",
                        self.operand(states, prefix, part),
                        self.ints([0, 0, heads, size]),
                    ),
                    perm=order,
                )
            )

        keys = split(key, "key", 0, 2, 3, 1)
        scores = self.op(
            "Add",
            self.product(split(query, "query", 0, 2, 1, 3), keys, prefix, ("query", "key")),
            mask,
        )  # (B, A, S, T)
        shares = self.operand(self.op("Softmax", scores, axis=-1), prefix, "shares")
        context = self.product(
            shares, split(value, "value", 0, 2, 1, 3), prefix, ("shares", "value")
        )
        return str(
            self.op(
                "Reshape",
                self.op("Transpose", context, perm=(0, 2, 1, 3)),
                self.ints([0, 0, heads * size]),
            )
        )

    def operand(self, x: str, prefix: str, part: str) -> str:
        """`part` (query, key, shares, value) of the attention `prefix`, as its product reads it."""
        return x

    def product(self, x: str, y: str, prefix: str, parts: tuple[str, str]) -> str:
        """The product of two operands."""
        return str(self.op("MatMul", x, y))

    def layer_norm(
        self, x: str, weights: dict[str, np.ndarray], prefix: str, epsilon: float
    ) -> str:
        scale, shift = (
            self.tensor(weights[f"{prefix}.{part}"], f"{prefix}.{part}")
            for part in ("weight", "bias")
        )
        return str(self.op("LayerNormalization", x, scale, shift, axis=-1, epsilon=epsilon))

    def recurrent(
        self, vectors: str, weights: dict[str, np.ndarray], steps: str, hidden: int
    ) -> str:
        """Final states (2, B, H) of the layer `lstm` over the first steps (B,) of vectors (T, B, E)."""
        w, r, b = (
            self.tensor(value, f"lstm.{name}")
            for name, value in zip("WRB", lstm_weights(weights), strict=True)
        )
        return str(
            self.op(
                "LSTM",
                vectors,
                w,
                r,
                b,
                steps,
                outputs=2,
                direction="bidirectional",
                hidden_size=hidden,
            )[1]
        )

    def activation(self, x: str, name: str) -> str:
        """relu; tanh; silu as x sigmoid(x); gelu as 0.5 x (1 + erf(x / sqrt 2)); its tanh form (Hendrycks and Gimpel 2016)."""
        if name in ("relu", "tanh"):
            return str(self.op(name.title(), x))
        if name in ("silu", "swish"):
            return str(self.op("Mul", x, self.op("Sigmoid", x)))
        if name == "gelu":
            inner = self.op("Erf", self.op("Div", x, self.scalar(math.sqrt(2.0))))
        else:
            cubed = self.op("Mul", self.scalar(0.044715), self.op("Mul", x, self.op("Mul", x, x)))
            inner = self.op(
                "Tanh",
                self.op("Mul", self.scalar(math.sqrt(2.0 / math.pi)), self.op("Add", x, cubed)),
            )
        return str(
            self.op(
                "Mul", self.op("Mul", x, self.op("Add", inner, self.scalar(1.0))), self.scalar(0.5)
            )
        )

    def output(self, logits: str) -> None:
        self.nodes.append(helper.make_node("Identity", [logits], ["logits"], name="logits"))

    def model(self, outputs: int) -> onnx.ModelProto:
        """The finished, checked model with `outputs` logits."""
        inputs = [
            helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "sequence"])
            for name in self.inputs
        ]
        logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", outputs])
        graph = helper.make_graph(
            self.nodes, "kdedge", inputs, [logits], list(self.weights.values())
        )
        opsets = [helper.make_opsetid(domain, version) for domain, version in self.opsets.items()]
        model = helper.make_model(
            graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="kdedge"
        )
        onnx.checker.check_model(model)
        return model
