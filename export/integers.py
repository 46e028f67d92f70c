"""The gate between fake-quantized torch and the int8 file, on what ONNX Runtime really executes."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from transformers import BertForSequenceClassification, PreTrainedModel

from kdedge.errors import GateFailed
from kdedge.runtime.classifier import SLOW_FUSIONS
from kdedge.runtime.spec import Kind

from .fakeattention import FakeQuantAttention, Operand
from .fakelstm import FakeQuantLstm, state_scale
from .fakemodel import quantized_layers, quantized_products, range_owners
from .fakequant import FakeQuantLinear, activation_scale, to_integers
from .parity import Encoded, compare
from .scheme import STEPS
from .writer import INPUT_SCALE, IR_VERSION, OPSET

EQUAL_INTEGERS = 1e-5
"""Largest logit difference of a text whose activations all become the same integers in torch and in the file."""

TIE = 1e-3
"""How near to a half, in steps, an activation lies that two correct implementations may round to two integers."""

SAME_ANSWERS = 0.999
INTEGER_KERNELS = ("MatMulIntegerToFloat", "MatMulInteger", "QLinearMatMul", "DynamicQuantizeMatMul")
FLOAT_KERNELS = ("MatMul", "Gemm", "FusedMatMul", "FusedGemm")
ATTENTIONS = ("MultiHeadAttention", "Attention")
"""Operators that hold both products of attention, in float."""

LSTM_STATES = "lstm_states"


def check_integers(model: PreTrainedModel, graph: bytes, texts: Sequence[Encoded], kind: Kind) -> dict[str, Any]:
    """The int8 gate over encoded single texts (1, T); returns its figures for the manifest.

    A fake-quantized model and its file do the same integer arithmetic, but float operations between them (norms,
    softmax, GELU) differ in the last bit, and where that falls on a half an activation rounds to the next integer.
    So: every product that is enabled runs as an integer kernel, and every table and weight is stored in integers; where all integers are equal, so are the logits to
    1e-5; where some are not, the first of them lie on a half; and 99.9 % of the answers are the same, of which one
    may always differ. Raises GateFailed with the figures otherwise.
    """
    coverage = integer_coverage(graph)
    wanted = _wanted_coverage(model)
    if any(coverage[name] != count for name, count in wanted.items()):
        raise GateFailed("every quantized product must run in integers", f"{coverage}, wanted are {wanted}", "nothing was packed")
    if coverage["float_matrix_bytes"] > (most := _float_bytes(model)):
        found = f"{coverage['float_matrix_bytes']:,} bytes of matrices in fp32, those that nothing rounds have {most:,}"
        raise GateFailed("every rounded table and weight must be stored in integers", found, "nothing was packed")
    session, outputs = _watched_session(graph)
    if unseen := _rounded(model) - set(outputs):
        raise GateFailed("the int8 file must round what fake-quantized torch rounds", f"it does not round {', '.join(sorted(unseen))}", "nothing was packed")
    mine_all, theirs_all, flips, farthest, where = [], [], 0, 0.0, ""
    for text in texts:
        theirs = dict(zip(outputs, session.run(list(outputs), dict(text)), strict=True))
        mine, logits = _integers_of(model, text)
        if LSTM_STATES in theirs:
            theirs |= rounded_states(mine, theirs.pop(LSTM_STATES))
        mine_all.append(logits)
        theirs_all.append(theirs["logits"])
        distance = _first_difference(mine, theirs)
        if distance is not None:
            flips += 1
            farthest, where = max((farthest, where), distance)
        elif (difference := np.abs(theirs["logits"] - logits).max()) > EQUAL_INTEGERS:
            found = f"equal integers, but logits differ by {difference:.3g}"
            raise GateFailed("the int8 file must answer as fake-quantized torch does", found, "nothing was packed; the former bundle is intact")
    report = compare(np.concatenate(mine_all), np.concatenate(theirs_all), kind)
    differences = np.abs(np.concatenate(mine_all) - np.concatenate(theirs_all)).max(1)
    figures = {
        **coverage,
        "compared_with_torch": len(texts),
        "max_abs_logit_torch": report.max_abs_logit,
        "same_answers_torch": report.agreement,
        "texts_with_a_rounding_tie": flips,
        "farthest_from_a_tie": farthest,
        "share_within_1e-3": float((differences <= 1e-3).mean()),
    }
    if farthest > TIE or report.differs(SAME_ANSWERS):
        found = (
            f"{100 * report.agreement:.2f} % same answers over {len(texts)} texts; activations {farthest:.2g} steps from a half are rounded apart, of {where or 'none'}; "
            f"{TIE:g} is allowed; logits differ by up to {report.max_abs_logit:.2g}"
        )
        raise GateFailed("the int8 file must answer as fake-quantized torch does", found, "nothing was packed; the former bundle is intact")
    return figures


def overflows(largest: int) -> bool:
    """Whether this CPU's kernels lose what does not fit into 16 bits where uint8 activations meet weights of `largest`.

    Without VNNI two products are added up in 16 bits: with 127 (8 bits) that overflows, with 63 (7 bits) it never does.
    """
    weight, width = np.full((64, 64), largest, np.int8), 64
    node = onnx.helper.make_node("MatMulInteger", ["x", "w"], ["y"])
    ends = [onnx.helper.make_tensor_value_info(name, kind, [1, width]) for name, kind in (("x", onnx.TensorProto.UINT8), ("y", onnx.TensorProto.INT32))]
    graph = onnx.helper.make_graph([node], "overflow", ends[:1], ends[1:], [onnx.numpy_helper.from_array(weight, "w")])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    session = onnxruntime.InferenceSession(model.SerializeToString(), _options(), providers=["CPUExecutionProvider"])
    return bool((session.run(None, {"x": np.full((1, width), 255, np.uint8)})[0] != 255 * largest * width).any())


def _wanted_coverage(model: PreTrainedModel) -> dict[str, int]:
    products = [layer.enabled for layer in quantized_products(model).values()]
    lstms, attentions = ([layer.enabled for _, layer in quantized_layers(model) if isinstance(layer, kind)] for kind in (FakeQuantLstm, FakeQuantAttention))
    layers = model.config.num_hidden_layers if isinstance(model, BertForSequenceClassification) else 0
    return {
        "integer_products": sum(products),
        "float_products": len(products) - sum(products),
        "integer_attention_products": 2 * sum(attentions),
        "float_attention_products": 2 * (layers - sum(attentions)),
        "integer_lstms": sum(lstms),
        "float_lstms": len(lstms) - sum(lstms),
    }


def _rounded(model: PreTrainedModel) -> set[str]:
    """What has a range of its own and is in use, by name; an LSTM rounds inside."""
    enabled = {name: layer.enabled for name, layer in quantized_layers(model)}
    owners = {name: reader for name, reader in range_owners(model).items() if not isinstance(reader, FakeQuantLstm)}
    return {name for name, reader in owners.items() if enabled[name.rpartition(".")[0] if isinstance(reader, Operand) else name]}


def integer_coverage(graph: bytes) -> dict[str, int]:
    """LSTMs and products in the graph that ONNX Runtime executes after its own rewriting, and bytes of float matrices.

    Products with a fixed weight, and those of attention, whose operands are both computed.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "executed.onnx"
        options = _options()
        options.optimized_model_filepath = str(path)
        onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"], disabled_optimizers=SLOW_FUSIONS)
        executed = onnx.load(str(path))
    weights = {tensor.name: tensor for tensor in executed.graph.initializer}
    fixed = [node for node in executed.graph.node if any(name in weights and len(weights[name].dims) == 2 for name in node.input)]
    nodes = [node for node in executed.graph.node if node not in fixed]
    return {
        "integer_products": sum(node.op_type in INTEGER_KERNELS for node in fixed),
        "integer_attention_products": sum(node.op_type in INTEGER_KERNELS for node in nodes),
        "float_attention_products": sum(node.op_type in FLOAT_KERNELS for node in nodes) + 2 * sum(node.op_type in ATTENTIONS for node in nodes),
        "float_products": sum(node.op_type in FLOAT_KERNELS for node in fixed),
        "integer_lstms": sum(node.op_type == "DynamicQuantizeLSTM" for node in executed.graph.node),
        "float_lstms": sum(node.op_type == "LSTM" for node in executed.graph.node),
        "float_matrix_bytes": sum(4 * int(np.prod(weights[name].dims)) for name in _float_matrices(executed.graph)),
    }


def _float_matrices(graph: onnx.GraphProto) -> list[str]:
    """Names of tables and weights in fp32; not of columns of scales, nor of an LSTM's scales and biases, one row a direction."""
    beside = {name for node in graph.node if node.op_type.endswith("LSTM") for name in node.input}
    matrices = (t for t in graph.initializer if t.data_type == onnx.TensorProto.FLOAT and len(t.dims) == 2 and min(t.dims) > 1)
    return [tensor.name for tensor in matrices if tensor.name not in beside]


def _float_bytes(model: PreTrainedModel) -> int:
    """Of the matrices that no layer in use rounds."""
    rounded = {id(weight) for _, layer in quantized_layers(model) if layer.enabled for weight in layer.parameters()}
    return 4 * sum(weight.numel() for weight in model.parameters() if weight.dim() == 2 and id(weight) not in rounded)


def _options() -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return options


def _watched_session(graph: bytes) -> tuple[onnxruntime.InferenceSession, list[str]]:
    """A session that also answers every rounded activation, under the name of what it is rounded for, and an LSTM's states."""
    model = onnx.load_from_string(graph)
    kinds = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    names = []
    for node in model.graph.node:
        if node.op_type == "DynamicQuantizeLSTM":
            node.output[0] = LSTM_STATES
            model.graph.output.append(onnx.helper.make_tensor_value_info(LSTM_STATES, onnx.TensorProto.FLOAT, None))
            names.append(LSTM_STATES)
        if node.op_type == "QuantizeLinear":
            name = node.input[1].removesuffix(INPUT_SCALE)
            model.graph.node.append(onnx.helper.make_node("Identity", [node.output[0]], [name]))
            model.graph.output.append(onnx.helper.make_tensor_value_info(name, kinds[node.input[2]], None))
            names.append(name)
    session = onnxruntime.InferenceSession(model.SerializeToString(), _options(), providers=["CPUExecutionProvider"], disabled_optimizers=SLOW_FUSIONS)
    return session, [*names, "logits"]


def _integers_of(model: PreTrainedModel, text: Encoded) -> tuple[dict[str, tuple[np.ndarray, np.ndarray]], np.ndarray]:
    """Name of a product, or of an operand of attention -> what is rounded for it, in steps before and after, in the order of the computation; and the logits.

    (1, T, H), of shares (1, A, T, T).
    """
    steps: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    def note(name: str) -> Any:
        def hook(layer: FakeQuantLinear, inputs: tuple[torch.Tensor, ...]) -> None:
            scale, zero = layer.input_range()
            steps[name] = ((inputs[0] / scale).numpy(), to_integers(inputs[0], scale, zero, 0, STEPS).numpy())

        return hook

    def note_operand(name: str) -> Any:
        def hook(operand: Operand, inputs: tuple[torch.Tensor, ...]) -> None:
            scale, zero = operand.scale()
            x = inputs[0] if name.endswith(".shares") else inputs[0].transpose(1, 2).flatten(2)
            steps[name] = ((x / scale).numpy(), to_integers(x, scale, zero, operand.lowest, operand.highest).numpy())

        return hook

    lstms = [layer for _, layer in quantized_layers(model) if isinstance(layer, FakeQuantLstm)]
    for lstm in lstms:
        lstm.watched = []
    hooks = [layer.register_forward_pre_hook(note(name)) for name, layer in quantized_products(model).items()]
    hooks += [layer.register_forward_pre_hook(note_operand(name)) for name, layer in model.named_modules() if isinstance(layer, Operand)]
    try:
        with torch.inference_mode():
            logits = model(**{name: torch.from_numpy(values) for name, values in text.items()}).logits.numpy()
    finally:
        for hook in hooks:
            hook.remove()
    for lstm in lstms:
        calls, lstm.watched = lstm.watched or [], None
        early = {(row, step): (near.numpy(), whole.numpy()) for row, states in enumerate(calls) for step, (near, whole) in enumerate(states, 1)}
        steps = {f"{LSTM_STATES}.{row}.{step}": state for (row, step), state in early.items()} | steps
    return steps, logits


def rounded_states(mine: Mapping[str, Any], states: np.ndarray) -> dict[str, np.ndarray]:
    """The states (T, 2, rows, H) of a file's LSTM as it rounds them for its next step, under the names and in the form of ours.

    It finds its scale in its own states, pins included, which may differ from ours in the last bit: a state on a half
    then goes the other way, and with our scale that would be seen a step late.
    """
    named = [name.split(".") for name in mine if name.startswith(f"{LSTM_STATES}.")]
    found = {}
    for _, row, step in named:
        last = sum(other == row for _, other, _ in named)  # the backward direction stands in the order of the text
        hidden = mine[f"{LSTM_STATES}.{row}.{step}"][0].shape[-1]
        both = [torch.from_numpy(states[place, side, int(row)]) for side, place in enumerate((int(step) - 1, last + 1 - int(step)))]
        _, zero = state_scale(int(step))  # the file's may be the next one, for 127.5 lies between; what counts is how far a state is from it
        whole = [to_integers(state[:hidden], activation_scale(state.min(), state.max())[0], zero, 0, STEPS) for state in both]
        found[f"{LSTM_STATES}.{row}.{step}"] = torch.stack(whole)[:, None].numpy()
    return found


def _first_difference(mine: Mapping[str, tuple[np.ndarray, np.ndarray]], theirs: Mapping[str, np.ndarray]) -> tuple[float, str] | None:
    """How far from a half, in steps, the values lie that are the first to be rounded otherwise, and for what; None where all are rounded alike.

    Later ones differ because of the first and say nothing. The file computes the last layer for the first token alone.
    """
    for name, (steps, whole) in mine.items():
        if name not in theirs:
            continue
        found = theirs[name].astype(np.float32)
        apart = np.abs(whole[tuple(map(slice, found.shape))] - found)
        if apart.max() > 1:
            return math.inf, name
        if apart.any():
            near = steps[np.nonzero(apart)]  # the file's positions are the first of ours
            return float(np.abs(near - np.floor(near) - 0.5).max()), name
    return None
