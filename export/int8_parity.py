"""The gate between fake-quantized torch and the int8 file, on what ONNX Runtime really executes."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from kdedge.export.fake_attention import FakeQuantAttention
from kdedge.export.fake_lstm import FakeQuantLstm
from kdedge.export.fake_model import quantized_layers, quantized_products
from kdedge.export.graph_writer import IR_VERSION, OPSET
from kdedge.export.guided_replay import GuidedReplay, InstrumentedSession
from kdedge.export.parity import Encoded, compare_logits
from transformers import BertForSequenceClassification, PreTrainedModel

from kdedge.errors import CheckFailed
from kdedge.runtime.classifier import SLOW_FUSIONS
from kdedge.runtime.spec import Kind

EQUAL_INTEGERS = 1e-5
"""Largest logit difference of torch and the file where all activations are the same integers."""

TIE = 1e-3
"""How near to a half, in steps, an activation lies that two correct implementations may round to two integers."""

SAME_ANSWERS = 0.999
INTEGER_KERNELS = (
    "MatMulIntegerToFloat",
    "MatMulInteger",
    "QLinearMatMul",
    "DynamicQuantizeMatMul",
)
FLOAT_KERNELS = ("MatMul", "Gemm", "FusedMatMul", "FusedGemm")
ATTENTIONS = ("MultiHeadAttention", "Attention")
"""Operators that hold both products of attention, in float."""


def check_integers(
    model: PreTrainedModel, graph: bytes, texts: Sequence[Encoded], kind: Kind
) -> dict[str, Any]:
    """The int8 gate over encoded single texts (1, T); returns its figures for the manifest.

    A fake-quantized model and its file do the same integer arithmetic, but float operations between them (norms,
    softmax, GELU) differ in the last bit, and where that falls on a half an activation rounds to the next integer.
    So: every product that is enabled runs as an integer kernel, and every table and weight is stored in integers. Led by the
    file's integers (`Lockstep`), torch would round every number to the same one, or lies on a half, and comes to the
    file's logits to 1e-5, on each text. Left to itself, it gives 99.9 % of the file's answers, of which one may always differ.
    Raises GateFailed with the figures otherwise.
    """
    coverage = integer_coverage(graph)
    wanted = _wanted_coverage(model)
    if any(coverage[name] != count for name, count in wanted.items()):
        raise CheckFailed(
            "every quantized product must run in integers",
            f"{coverage}, wanted are {wanted}",
            "nothing was packed",
        )
    if coverage["float_matrix_bytes"] > (most := _float_bytes(model)):
        found = f"{coverage['float_matrix_bytes']:,} bytes of matrices in fp32, those that nothing rounds have {most:,}"
        raise CheckFailed(
            "every rounded table and weight must be stored in integers", found, "nothing was packed"
        )
    file = InstrumentedSession(graph, _options())
    if unseen := _rounded(model) - file.read.keys():
        raise CheckFailed(
            "the int8 file must round what fake-quantized torch rounds",
            f"it does not round {', '.join(sorted(unseen))}",
            "nothing was packed",
        )
    alone, theirs, strays, ties, apart = [], [], [], 0, 0.0
    for text in texts:
        answers = file.run(text)
        led = GuidedReplay(model, text, file, answers)
        strays.append(led.farthest)
        ties += led.tied
        apart = float(
            np.maximum(apart, np.abs(led.logits - answers["logits"]).max())
        )  # keeps what is no number
        theirs.append(answers["logits"])
        with torch.inference_mode():
            alone.append(
                model(
                    **{name: torch.from_numpy(values) for name, values in text.items()}
                ).logits.numpy()
            )
    report, farthest = (
        compare_logits(np.concatenate(alone), np.concatenate(theirs), kind),
        max(strays),
    )
    differences = np.abs(np.concatenate(alone) - np.concatenate(theirs)).max(1)
    figures = {
        **coverage,
        "compared_with_torch": len(texts),
        "max_abs_logit_same_integers": apart,
        "max_abs_logit_torch": report.max_abs_logit,
        "same_answers_torch": report.agreement,
        "texts_with_a_rounding_tie": ties,
        "farthest_from_a_tie": farthest.steps,
        "share_within_1e-3": float((differences <= 1e-3).mean()),
    }
    if farthest.steps > TIE or not apart <= EQUAL_INTEGERS or report.differs(SAME_ANSWERS):
        found = (
            f"{100 * report.agreement:.2f} % same answers over {len(texts)} texts; given the file's integers, torch is up to {farthest.steps:.2g} steps from "
            f"rounding to the next of them ({farthest.name}; {TIE:g} is allowed), and its logits differ by {apart:.2g} ({EQUAL_INTEGERS:g})"
        )
        raise CheckFailed(
            "the int8 file must answer as fake-quantized torch does",
            found,
            "nothing was packed; the former bundle is intact",
        )
    return figures


def overflows(largest: int) -> bool:
    """Whether this CPU's kernels lose what does not fit into 16 bits where uint8 activations meet weights of `largest`.

    Without VNNI two products are added up in 16 bits: with 127 (8 bits) that overflows, with 63 (7 bits) it never does.
    """
    weight, width = np.full((64, 64), largest, np.int8), 64
    node = onnx.helper.make_node("MatMulInteger", ["x", "w"], ["y"])
    ends = [
        onnx.helper.make_tensor_value_info(name, kind, [1, width])
        for name, kind in (("x", onnx.TensorProto.UINT8), ("y", onnx.TensorProto.INT32))
    ]
    graph = onnx.helper.make_graph(
        [node], "overflow", ends[:1], ends[1:], [onnx.numpy_helper.from_array(weight, "w")]
    )
    model = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", OPSET)], ir_version=IR_VERSION
    )
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), _options(), providers=["CPUExecutionProvider"]
    )
    return bool(
        (
            session.run(None, {"x": np.full((1, width), 255, np.uint8)})[0] != 255 * largest * width
        ).any()
    )


def _wanted_coverage(model: PreTrainedModel) -> dict[str, int]:
    products = [layer.enabled for layer in quantized_products(model).values()]
    lstms, attentions = (
        [layer.enabled for _, layer in quantized_layers(model) if isinstance(layer, kind)]
        for kind in (FakeQuantLstm, FakeQuantAttention)
    )
    layers = (
        model.config.num_hidden_layers if isinstance(model, BertForSequenceClassification) else 0
    )
    return {
        "integer_products": sum(products),
        "float_products": len(products) - sum(products),
        "integer_attention_products": 2 * sum(attentions),
        "float_attention_products": 2 * (layers - sum(attentions)),
        "integer_lstms": sum(lstms),
        "float_lstms": len(lstms) - sum(lstms),
    }


def _rounded(model: PreTrainedModel) -> set[str]:
    """Products and operands of attention that are in use, by name; an LSTM rounds inside."""
    attentions = [
        name
        for name, layer in quantized_layers(model)
        if isinstance(layer, FakeQuantAttention) and layer.enabled
    ]
    operands = {
        f"{name}.{part}"
        for name in attentions
        for part, _ in model.get_submodule(name).named_children()
    }
    return operands | {name for name, layer in quantized_products(model).items() if layer.enabled}


def integer_coverage(graph: bytes) -> dict[str, int]:
    """LSTMs and products in the graph that ONNX Runtime executes after its own rewriting, and bytes of float matrices.

    Products with a fixed weight, and those of attention, whose operands are both computed.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "executed.onnx"
        options = _options()
        options.optimized_model_filepath = str(path)
        onnxruntime.InferenceSession(
            graph, options, providers=["CPUExecutionProvider"], disabled_optimizers=SLOW_FUSIONS
        )
        executed = onnx.load(str(path))
    weights = {tensor.name: tensor for tensor in executed.graph.initializer}
    fixed = [
        node
        for node in executed.graph.node
        if any(name in weights and len(weights[name].dims) == 2 for name in node.input)
    ]
    nodes = [node for node in executed.graph.node if node not in fixed]
    return {
        "integer_products": sum(node.op_type in INTEGER_KERNELS for node in fixed),
        "integer_attention_products": sum(node.op_type in INTEGER_KERNELS for node in nodes),
        "float_attention_products": sum(node.op_type in FLOAT_KERNELS for node in nodes)
        + 2 * sum(node.op_type in ATTENTIONS for node in nodes),
        "float_products": sum(node.op_type in FLOAT_KERNELS for node in fixed),
        "integer_lstms": sum(node.op_type == "DynamicQuantizeLSTM" for node in executed.graph.node),
        "float_lstms": sum(node.op_type == "LSTM" for node in executed.graph.node),
        "float_matrix_bytes": sum(
            4 * int(np.prod(weights[name].dims)) for name in _float_matrices(executed.graph)
        ),
    }


def _float_matrices(graph: onnx.GraphProto) -> list[str]:
    """Names of tables and weights in fp32; not of columns of scales, nor of an LSTM's scales and biases, one row a direction."""
    beside = {name for node in graph.node if node.op_type.endswith("LSTM") for name in node.input}
    matrices = (
        t
        for t in graph.initializer
        if t.data_type == onnx.TensorProto.FLOAT and len(t.dims) == 2 and min(t.dims) > 1
    )
    return [tensor.name for tensor in matrices if tensor.name not in beside]


def _float_bytes(model: PreTrainedModel) -> int:
    """Of the matrices that no layer in use rounds."""
    rounded = {
        id(weight)
        for _, layer in quantized_layers(model)
        if layer.enabled
        for weight in layer.parameters()
    }
    return 4 * sum(
        weight.numel()
        for weight in model.parameters()
        if weight.dim() == 2 and id(weight) not in rounded
    )


def _options() -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return options
