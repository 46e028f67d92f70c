"""The dynamic int8 file: weights stored as integers, activations quantized as they come."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path

import onnx
from kdedge.export.scheme import QuantScheme
from onnxruntime.quantization import QuantType, quantize_dynamic

OPERATORS = ["MatMul", "Gather", "LSTM"]
"""Products, the recurrent layer, and the embedding tables, which are most of a small student's bytes."""


def quantize(model: onnx.ModelProto, scheme: QuantScheme) -> onnx.ModelProto:
    """The int8 form of an fp32 graph; the given model is left as it is."""
    quiet = logging.getLogger().level
    logging.getLogger().setLevel(
        logging.ERROR
    )  # the quantizer advises pre-processing that changes nothing here
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
