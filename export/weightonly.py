"""Files that are small alone: weights stored in 8 bits or fp16, turned into fp32 when the file is opened, all else as before."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

LARGE = 1024
"""Numbers of a weight from which it is stored small; smaller ones, and all biases and norms, stay in fp32."""

LEVEL = 127

Stored = Callable[[np.ndarray, str], tuple[list[onnx.TensorProto], list[onnx.NodeProto]]]
"""A weight and its name -> what the file holds of it, and the nodes that make the weight of that."""


def weight_only(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose large weights are int8, each row of a table and each output of a product with a scale of its own.

    They become floats by Cast and Mul, which ONNX Runtime does once, when it opens the file: time and answers are
    those of the fp32 file with rounded weights.
    """
    products = {name for node in model.graph.node if node.op_type == "MatMul" for name in node.input}

    def stored(values: np.ndarray, name: str) -> tuple[list[onnx.TensorProto], list[onnx.NodeProto]]:
        magnitude = np.abs(values).max(-2 if name in products else -1, keepdims=True)
        scales = np.where(magnitude > 0, magnitude / LEVEL, 1).astype(np.float32)
        whole = np.rint(values / scales).clip(-LEVEL, LEVEL).astype(np.int8)
        tensors = [numpy_helper.from_array(whole, f"{name}.int8"), numpy_helper.from_array(scales, f"{name}.scales")]
        cast = helper.make_node("Cast", [f"{name}.int8"], [f"{name}.float"], to=TensorProto.FLOAT)
        return tensors, [cast, helper.make_node("Mul", [f"{name}.float", f"{name}.scales"], [name])]

    return _with_weights(model, stored)


def half(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose large weights are fp16; they become fp32 when the file is opened."""

    def stored(values: np.ndarray, name: str) -> tuple[list[onnx.TensorProto], list[onnx.NodeProto]]:
        small = numpy_helper.from_array(values.astype(np.float16), f"{name}.half")
        return [small], [helper.make_node("Cast", [f"{name}.half"], [name], to=TensorProto.FLOAT)]

    return _with_weights(model, stored)


def _with_weights(model: onnx.ModelProto, stored: Stored) -> onnx.ModelProto:
    made = onnx.ModelProto()
    made.CopyFrom(model)
    kept, nodes = [], []
    for tensor in made.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if tensor.data_type != TensorProto.FLOAT or values.ndim < 2 or values.size < LARGE:
            kept.append(tensor)
            continue
        tensors, more = stored(values, tensor.name)
        kept += tensors
        nodes += more
    before = [*made.graph.node]
    del made.graph.initializer[:], made.graph.node[:]
    made.graph.initializer.extend(kept)
    made.graph.node.extend([*nodes, *before])
    onnx.checker.check_model(made)
    return made
