"""Writes an ONNX graph node by node: operators as calls, weights as initializers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
import onnx
from kdedge.export.lstm_weights import lstm_weights
from onnx import TensorProto, helper, numpy_helper
from transformers import PreTrainedModel

OPSET = 17
"""The oldest operator set with LayerNormalization; every current runtime reads it."""

IR_VERSION = 8

INPUT_SCALE = ".input_scale"
"""Suffix of a scale's name; the rest is the name of what it rounds."""

Weights = dict[str, np.ndarray]


class LstmOutputs(NamedTuple):
    """The outputs of an LSTM's node.

    Attributes:
        states: After every token, and 0 for padding. *Shape:* (T, 2, B, H)
        final: After the last token of each text. *Shape:* (2, B, H)
    """

    states: str
    final: str


class GraphWriter:
    """Collects nodes and weights of a graph with float32 logits.

    The order of the calls decides the order of nodes and initializers in the file.
    """

    opsets: ClassVar[dict[str, int]] = {"": OPSET}
    """Operator domains of the graph and their versions."""

    def __init__(self, inputs: Sequence[str]) -> None:
        """Start a graph with int64 inputs (batch, sequence)."""
        self.inputs = tuple(inputs)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: dict[str, onnx.TensorProto] = {}
        self.count = 0

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Append a node with one output and return the output's name."""
        self.count += 1
        output = f"{kind.lower()}_{self.count}"
        self._append(kind, inputs, [output], attributes)
        return output

    def op_with_outputs(
        self, kind: str, *inputs: str, outputs: int, **attributes: Any
    ) -> tuple[str, ...]:
        """Append a node with several outputs and return their names."""
        self.count += 1
        names = [f"{kind.lower()}_{self.count}_{i}" for i in range(outputs)]
        self._append(kind, inputs, names, attributes)
        return tuple(names)

    def _append(
        self, kind: str, inputs: Sequence[str], outputs: list[str], attributes: dict[str, Any]
    ) -> None:
        name = f"{kind}_{self.count}"
        self.nodes.append(helper.make_node(kind, list(inputs), outputs, name=name, **attributes))

    def tensor(self, values: np.ndarray, name: str) -> str:
        """Store a named weight once and return its name."""
        if name not in self.weights:
            self.weights[name] = numpy_helper.from_array(np.ascontiguousarray(values), name)
        return name

    def ints(self, values: int | Sequence[int]) -> str:
        array = np.array(values, dtype=np.int64)
        digits = "_".join(str(value) for value in array.ravel().tolist())
        return self.tensor(array, f"int_{digits}_{array.ndim}".replace("-", "m"))

    def scalar(self, value: float) -> str:
        name = f"float_{value:g}".replace("-", "m").replace("+", "")
        return self.tensor(np.array(value, dtype=np.float32), name)

    def linear(self, x: str, weights: Weights, prefix: str) -> str:
        """Write x @ W.T + b of a torch Linear; W (out, in) is stored transposed, as (in, out)."""
        weight = self.tensor(weights[f"{prefix}.weight"].T, f"{prefix}.weight")
        product = self.op("MatMul", x, weight)
        bias = self.tensor(weights[f"{prefix}.bias"], f"{prefix}.bias")
        return self.op("Add", product, bias)

    def rows(self, ids: str, weights: Weights, prefix: str) -> str:
        """Look up rows (..., H) of an embedding table."""
        table = self.tensor(weights[f"{prefix}.weight"], f"{prefix}.weight")
        return self.op("Gather", table, ids)

    def first_rows(self, count: str, weights: Weights, prefix: str) -> str:
        """Return the first rows (count, H) of an embedding table; count is int64 (1,)."""
        table = self.tensor(weights[f"{prefix}.weight"], f"{prefix}.weight")
        return self.op("Slice", table, self.ints([0]), count)

    def padding_mask(self, mask: str) -> str:
        """Return (B, 1, 1, T) for `attention`: 0 on tokens, the lowest float on padding."""
        unsqueezed = self.op("Unsqueeze", mask, self.ints([1, 2]))  # (B, 1, 1, T)
        is_padding = self.op("Equal", unsqueezed, self.ints(0))
        lowest = self.scalar(float(np.finfo(np.float32).min))
        return self.op("Where", is_padding, lowest, self.scalar(0.0))

    def attention(self, query: str, key: str, value: str, mask: str, heads: int, size: int) -> str:
        """Write softmax(Q K' + mask) V with A `heads` of width D = `size`: (B, S, H).

        The query (B, S, H) is already scaled; key and value are (B, T, H).
        """
        keys = self._split_heads(key, heads, size)
        keys = self.op("Transpose", keys, perm=(0, 2, 3, 1))  # (B, A, D, T)
        queries = self._split_heads(query, heads, size)
        queries = self.op("Transpose", queries, perm=(0, 2, 1, 3))  # (B, A, S, D)
        scores = self.op("MatMul", queries, keys)  # (B, A, S, T)
        scores = self.op("Add", scores, mask)
        probs = self.op("Softmax", scores, axis=-1)
        values = self._split_heads(value, heads, size)
        values = self.op("Transpose", values, perm=(0, 2, 1, 3))  # (B, A, T, D)
        context = self.op("MatMul", probs, values)  # (B, A, S, D)
        context = self.op("Transpose", context, perm=(0, 2, 1, 3))  # (B, S, A, D)
        return self.op("Reshape", context, self.ints([0, 0, heads * size]))

    def _split_heads(self, states: str, heads: int, size: int) -> str:
        """Reshape (B, T, H) to (B, T, A, D)."""
        return self.op("Reshape", states, self.ints([0, 0, heads, size]))

    def layer_norm(self, x: str, weights: Weights, prefix: str, epsilon: float) -> str:
        scale = self.tensor(weights[f"{prefix}.weight"], f"{prefix}.weight")
        shift = self.tensor(weights[f"{prefix}.bias"], f"{prefix}.bias")
        return self.op("LayerNormalization", x, scale, shift, axis=-1, epsilon=epsilon)

    def recurrent(
        self,
        vectors: str,
        weights: Weights,
        steps: str,
        hidden: int,
        *,
        every_token: bool = False,
    ) -> str:
        """Write `lstm` over the first steps (B,) of vectors (T, B, E).

        Returns:
            The final states (2, B, H); or the states of every token (T, 2, B, H), which are 0 for
            padding.
        """
        w, r, b = lstm_weights(weights)
        names = (self.tensor(w, "lstm.W"), self.tensor(r, "lstm.R"), self.tensor(b, "lstm.B"))
        outputs = self.lstm_node(vectors, *names, steps, hidden)
        return outputs.states if every_token else outputs.final

    def lstm_node(
        self, vectors: str, w: str, r: str, b: str, steps: str, hidden: int
    ) -> LstmOutputs:
        """Append ONNX's LSTM."""
        outputs = self.op_with_outputs(
            "LSTM",
            vectors,
            w,
            r,
            b,
            steps,
            outputs=2,
            direction="bidirectional",
            hidden_size=hidden,
        )
        return LstmOutputs(*outputs)

    def activation(self, x: str, name: str) -> str:
        """Write an activation function.

        relu, tanh; silu = x sigmoid(x); gelu = 0.5 x (1 + erf(x / sqrt 2)); any other name is the
        tanh form of gelu (Hendrycks and Gimpel 2016).
        """
        if name in ("relu", "tanh"):
            return self.op(name.title(), x)
        if name in ("silu", "swish"):
            return self.op("Mul", x, self.op("Sigmoid", x))
        inner = self._gelu_erf(x) if name == "gelu" else self._gelu_tanh(x)
        shifted = self.op("Add", inner, self.scalar(1.0))
        product = self.op("Mul", x, shifted)
        return self.op("Mul", product, self.scalar(0.5))

    def _gelu_erf(self, x: str) -> str:
        """Write erf(x / sqrt 2)."""
        return self.op("Erf", self.op("Div", x, self.scalar(math.sqrt(2.0))))

    def _gelu_tanh(self, x: str) -> str:
        """Write tanh(sqrt(2 / pi) (x + 0.044715 x³))."""
        factor = self.scalar(0.044715)
        cube = self.op("Mul", x, self.op("Mul", x, x))
        correction = self.op("Mul", factor, cube)
        slope = self.scalar(math.sqrt(2.0 / math.pi))
        total = self.op("Add", x, correction)
        return self.op("Tanh", self.op("Mul", slope, total))

    def output(self, logits: str) -> None:
        self.nodes.append(helper.make_node("Identity", [logits], ["logits"], name="logits"))

    def model(self, outputs: int) -> onnx.ModelProto:
        """Return the finished, checked model with `outputs` logits."""
        inputs = []
        for name in self.inputs:
            shape = ["batch", "sequence"]
            inputs.append(helper.make_tensor_value_info(name, TensorProto.INT64, shape))
        logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", outputs])
        weights = list(self.weights.values())
        graph = helper.make_graph(self.nodes, "kdedge", inputs, [logits], weights)
        opsets = [helper.make_opsetid(domain, version) for domain, version in self.opsets.items()]
        model = helper.make_model(
            graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="kdedge"
        )
        onnx.checker.check_model(model)
        return model


def weights_of(model: PreTrainedModel) -> Weights:
    """Return a torch model's parameters as arrays."""
    return {name: value.detach().cpu().numpy() for name, value in model.state_dict().items()}
