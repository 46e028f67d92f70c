"""A first int8 file: weights stored as integers, activations quantized as they come."""

from __future__ import annotations

import logging
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import onnx
from onnxruntime.quantization import QuantType, quantize_dynamic

from kdedge.errors import UsageError


@dataclass(frozen=True)
class QuantScheme:
    """How numbers become integers; read by the quantizer and written into the manifest.

    weights: symmetric int8, one scale per output channel or per tensor; embedding tables uint8, one scale per table.
    weight_bits: 7 uses -64..63: the product with a uint8 activation then never overflows the 16-bit sums of
    CPUs without VNNI, so the answers are the same there; 8 uses the whole range.
    activations: `dynamic` uint8, one scale per tensor of a batch, found while running.
    """

    weights: Literal["per_channel", "per_tensor"] = "per_channel"
    weight_bits: Literal[7, 8] = 7
    activations: Literal["dynamic"] = "dynamic"

    def __post_init__(self) -> None:
        if self.weights not in ("per_channel", "per_tensor") or self.weight_bits not in (7, 8) or self.activations != "dynamic":
            raise UsageError("no such quantization scheme", str(self), "weights per_channel or per_tensor, weight_bits 7 or 8, activations dynamic")

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


OPERATORS = ["MatMul", "Gather", "LSTM"]
"""Products, the recurrent layer, and the embedding tables, which are most of a small student's bytes."""


def quantize(model: onnx.ModelProto, scheme: QuantScheme) -> onnx.ModelProto:
    """The int8 form of an fp32 graph; the given model is left as it is."""
    quiet = logging.getLogger().level
    logging.getLogger().setLevel(logging.ERROR)  # the quantizer advises pre-processing that changes nothing here
    try:
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "int8.onnx"
            quantize_dynamic(
                model,
                str(out),
                op_types_to_quantize=OPERATORS,
                per_channel=scheme.weights == "per_channel",
                reduce_range=scheme.weight_bits == 7,
                weight_type=QuantType.QInt8,
                extra_options={"WeightSymmetric": True, "MatMulConstBOnly": True},
            )
            return onnx.load(str(out))
    finally:
        logging.getLogger().setLevel(quiet)
