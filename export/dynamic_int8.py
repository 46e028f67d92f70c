"""The dynamic int8 file: weights are stored as integers, activations are quantized at run time."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path

import onnx
from kdedge.export.scheme import QuantScheme
from onnxruntime.quantization import QuantType, quantize_dynamic

OPERATORS = ["MatMul", "Gather", "LSTM"]
"""Products, the recurrent layer, and the embedding tables: most bytes of a small student."""


def quantize(model: onnx.ModelProto, scheme: QuantScheme) -> onnx.ModelProto:
    """Return the int8 form of an fp32 graph, which is left unchanged."""
    level = logging.getLogger().level
    # The quantizer recommends a pre-processing that changes nothing here.
    logging.getLogger().setLevel(logging.ERROR)
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "int8.onnx"
            quantize_dynamic(
                model,
                str(path),
                op_types_to_quantize=OPERATORS,
                per_channel=True,
                reduce_range=scheme.weight_bits == 7,
                weight_type=QuantType.QInt8,
                extra_options={"WeightSymmetric": True, "MatMulConstBOnly": True},
            )
            return onnx.load(str(path))
    finally:
        logging.getLogger().setLevel(level)
