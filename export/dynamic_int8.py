"""The dynamic int8 file: weights are stored as integers, activations are quantized at run time."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path

import onnx
from kdedge.export.scheme import QuantScheme
from onnx import helper
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
            quantized = onnx.load(str(path))
    finally:
        logging.getLogger().setLevel(level)
    if any(item.name == "token_type_ids" for item in model.graph.input):
        _read_texts_apart(quantized)
    return quantized


def _read_texts_apart(model: onnx.ModelProto) -> None:
    """Replace an LSTM over both texts of a pair by one LSTM for each text.

    The LSTM finds its ranges over the rows that one thread reads. If both texts were rows of one
    LSTM, the logits of a pair would depend on the number of threads.
    """
    read = {name for node in model.graph.node for name in node.input}
    nodes = []
    for node in model.graph.node:
        if node.op_type == "DynamicQuantizeLSTM":
            nodes += _one_lstm_per_text(node, read)
        else:
            nodes.append(node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _one_lstm_per_text(both: onnx.NodeProto, read: set[str]) -> list[onnx.NodeProto]:
    """Return the nodes for a node that reads 2B rows: B first texts, then B second texts.

    Args:
        both: The node.
        read: All tensors that some node reads.
    """
    vectors, lengths, states = both.input[0], both.input[4], both.output[1]
    every_step = both.output[0]
    texts = ("first", "second")
    nodes = [
        helper.make_node("Split", [vectors], [f"{vectors}_{text}" for text in texts], axis=1),
        helper.make_node("Split", [lengths], [f"{lengths}_{text}" for text in texts], axis=0),
    ]
    for text in texts:
        lstm = onnx.NodeProto()
        lstm.CopyFrom(both)
        lstm.name = f"{both.name}_{text}"
        lstm.input[0], lstm.input[4] = f"{vectors}_{text}", f"{lengths}_{text}"
        lstm.output[0], lstm.output[1] = f"{every_step}_{text}", f"{states}_{text}"
        nodes.append(lstm)
    # Every step (T, 2, 2B, H) and the last one (2, 2B, H).
    for output, axis in ((every_step, 2), (states, 1)):
        if output in read:
            parts = [f"{output}_{text}" for text in texts]
            nodes.append(helper.make_node("Concat", parts, [output], axis=axis))
    return nodes
