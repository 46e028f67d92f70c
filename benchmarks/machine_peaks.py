"""Measure the peaks of one core: products in fp32 and int8 by ONNX Runtime, and memory by numpy.

The products are ONNX models of one node. They are written here byte by byte, because a device
install has no package that writes ONNX.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter

import numpy as np

SIZES = (256, 512, 1024)
"""Rows and columns of the matrices; the fastest size is the peak."""

SECONDS = 0.3
"""Time for each size; the fastest try counts, because noise only adds time."""

MEMORY_BYTES = 64 << 20
"""Larger than the caches of most machines."""

FLOAT, UINT8, INT8, INT32 = 1, 2, 3, 6
"""ONNX's numbers of element types."""

OPSET = 17
IR_VERSION = 8


@dataclass(frozen=True)
class Peaks:
    """What one core reached.

    Attributes:
        fp32: Multiplications and additions per second, in fp32.
        int8: The same in int8, with sums in int32.
        memory: Bytes per second that a copy of a large array reads and writes.
    """

    fp32: float
    int8: float
    memory: float


def measure_peaks() -> Peaks:
    """Measure the peaks of one core; takes about two seconds."""
    fp32 = max(_product_speed(size, "MatMul", FLOAT, FLOAT, FLOAT) for size in SIZES)
    int8 = max(_product_speed(size, "MatMulInteger", UINT8, INT8, INT32) for size in SIZES)
    return Peaks(fp32, int8, copy_speed(MEMORY_BYTES))


def copy_speed(size: int) -> float:
    """Return the bytes per second that a copy of `size` bytes reads and writes."""
    source = np.ones(max(size, 1), np.uint8)
    target = np.zeros_like(source)
    return 2 * len(source) / _fastest(lambda: np.copyto(target, source))


def _product_speed(size: int, operator: str, left: int, right: int, result: int) -> float:
    """Return the operations per second of a product of two square matrices."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    weights = np.ones((size, size), np.float32 if right == FLOAT else np.int8)
    graph = product_model(operator, size, (left, right, result), weights.tobytes())
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    inputs = {"a": np.ones((size, size), np.float32 if left == FLOAT else np.uint8)}
    return 2 * size**3 / _fastest(lambda: session.run(None, inputs))


def _fastest(work: Callable[[], object]) -> float:
    """Return the seconds of the fastest of many tries."""
    fastest = float("inf")
    end = perf_counter() + SECONDS
    tries = 0
    while tries < 3 or perf_counter() < end:
        start = perf_counter()
        work()
        fastest = min(fastest, perf_counter() - start)
        tries += 1
    return fastest


def product_model(operator: str, size: int, types: tuple[int, int, int], weights: bytes) -> bytes:
    """Write an ONNX model with one product: input `a`, weights `b`, output `y`, all square.

    Args:
        operator: Such as `MatMul`.
        size: Rows and columns of every matrix.
        types: Element types of a, b and y.
        weights: The content of b.
    """
    left, right, result = types
    shape = [size, size]
    node = _text(1, "a") + _text(1, "b") + _text(2, "y") + _text(4, operator)
    dimensions = b"".join(_number(1, count) for count in shape)
    initializer = dimensions + _number(2, right) + _text(8, "b") + _bytes(9, weights)
    graph = (
        _bytes(1, node)
        + _text(2, "product")
        + _bytes(5, initializer)
        + _bytes(11, _value("a", left, shape))
        + _bytes(12, _value("y", result, shape))
    )
    opset = _text(1, "") + _number(2, OPSET)
    return _number(1, IR_VERSION) + _bytes(7, graph) + _bytes(8, opset)


def _value(name: str, element: int, shape: Sequence[int]) -> bytes:
    """Write a ValueInfoProto."""
    dimensions = b"".join(_bytes(1, _number(1, count)) for count in shape)
    tensor = _number(1, element) + _bytes(2, dimensions)
    return _text(1, name) + _bytes(2, _bytes(1, tensor))


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _text(field: int, value: str) -> bytes:
    return _bytes(field, value.encode("utf-8"))


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
