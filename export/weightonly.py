"""Files that are small alone: weights stored in 8 or 4 bits or fp16, turned into fp32 when the file is opened, all else as before."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

LARGE = 1024
"""Numbers of a weight from which it is stored small; smaller ones, and all biases and norms, stay in fp32."""

BLOCK = 32
"""Weights of one output that share a scale where they are stored in 4 bits."""

SMALLEST = 2.0**-14
"""The smallest fp16 number of full precision."""

Stored = Callable[[np.ndarray, str], tuple[list[onnx.TensorProto], list[onnx.NodeProto]]]
"""A weight and its name -> what the file holds of it, and the nodes that make the weight of that."""


def weight_only(model: onnx.ModelProto, bits: int = 8) -> onnx.ModelProto:
    """A copy whose large weights are integers of 8 bits, with a scale for each row of a table and each output of a product, or of 4.

    They become floats by ordinary nodes, which ONNX Runtime computes once, when it opens the file: time and answers are
    those of the fp32 file with rounded weights.
    """
    products = {
        name for node in model.graph.node if node.op_type == "MatMul" for name in node.input
    }
    return _with_weights(
        model,
        lambda values, name: (_bytes if bits == 8 else _nibbles)(
            values, name, -2 if name in products else -1
        ),
    )


def _bytes(
    values: np.ndarray, name: str, axis: int
) -> tuple[list[onnx.TensorProto], list[onnx.NodeProto]]:
    """Symmetric int8, one scale over `axis`, the inputs of one output."""
    whole, scales = _rounded(values, axis, 127)
    tensors = [
        numpy_helper.from_array(whole.astype(np.int8), f"{name}.int8"),
        numpy_helper.from_array(scales, f"{name}.scales"),
    ]
    cast = helper.make_node("Cast", [f"{name}.int8"], [f"{name}.float"], to=TensorProto.FLOAT)
    return tensors, [cast, helper.make_node("Mul", [f"{name}.float", f"{name}.scales"], [name])]


def _nibbles(
    values: np.ndarray, name: str, axis: int
) -> tuple[list[onnx.TensorProto], list[onnx.NodeProto]]:
    """Symmetric 4 bits, -7 to 7, one fp16 scale for every `BLOCK` inputs of one output; two weights a byte.

    A byte holds a weight of the first half of its block in its low and one of the second half in its high four bits.
    """
    turned = np.moveaxis(values, axis, -1)
    padded = np.pad(turned, [(0, 0)] * (turned.ndim - 1) + [(0, -turned.shape[-1] % BLOCK)])
    whole, scales = _rounded(padded.reshape(*padded.shape[:-1], -1, BLOCK), -1, 7)
    low, high = np.split((whole + 8).astype(np.uint8), 2, axis=-1)
    constants = {
        "int4": low | high << 4,
        "scales": scales.astype(np.float16),
        "sixteen": np.array(16, np.uint8),
        "four": np.array(4, np.uint8),
        "eight": np.array(8, np.float32),
        "padded": np.array(padded.shape, np.int64),
        "zero": np.array([0], np.int64),
        "length": np.array([turned.shape[-1]], np.int64),
        "last": np.array([-1], np.int64),
    }
    steps: list[tuple[str, list[str], str, dict[str, object]]] = [
        ("Mod", ["int4", "sixteen"], "low", {}),
        ("BitShift", ["int4", "four"], "high", {"direction": "RIGHT"}),
        ("Concat", ["low", "high"], "both", {"axis": -1}),
        ("Cast", ["both"], "float", {"to": TensorProto.FLOAT}),
        ("Sub", ["float", "eight"], "whole", {}),
        ("Cast", ["scales"], "steps", {"to": TensorProto.FLOAT}),
        ("Mul", ["whole", "steps"], "blocks", {}),
        ("Reshape", ["blocks", "padded"], "rows", {}),
        ("Slice", ["rows", "zero", "length", "last"], "turned", {}),
    ]
    order = [*range(values.ndim - 1)]
    order.insert(axis % values.ndim, values.ndim - 1)
    nodes = [
        helper.make_node(kind, [f"{name}.{each}" for each in given], [f"{name}.{made}"], **settings)
        for kind, given, made, settings in steps
    ]
    nodes.append(helper.make_node("Transpose", [f"{name}.turned"], [name], perm=order))
    return [
        numpy_helper.from_array(value, f"{name}.{key}") for key, value in constants.items()
    ], nodes


def _rounded(values: np.ndarray, axis: int, level: int) -> tuple[np.ndarray, np.ndarray]:
    """Whole numbers of at most `level`, and the scales (fp16 values where 4 bits are used) that make the values of them."""
    magnitude = np.abs(values).max(axis, keepdims=True)
    scales = np.where(magnitude > 0, magnitude / level, 1).astype(np.float32)
    if level < 127:
        scales = np.maximum(scales, SMALLEST).astype(np.float16).astype(np.float32)
    return np.rint(values / scales).clip(-level, level), scales


def half(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose large weights are fp16; they become fp32 when the file is opened."""

    def stored(
        values: np.ndarray, name: str
    ) -> tuple[list[onnx.TensorProto], list[onnx.NodeProto]]:
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
