"""Checks an int8 file against fake-quantized torch, on the nodes ONNX Runtime really executes."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from kdedge.export.fake_model import quantized_layers, quantized_lstms, quantized_products
from kdedge.export.graph_writer import IR_VERSION, OPSET
from kdedge.export.guided_replay import GuidedReplay, InstrumentedSession, RoundingError
from kdedge.export.parity import Encoded, ParityReport, compare_logits, torch_logits
from kdedge.export.registry import export_of
from transformers import PreTrainedModel

from kdedge.errors import CheckFailed
from kdedge.runtime.session import SLOW_FUSIONS
from kdedge.runtime.spec import TaskSpec

EQUAL_INTEGERS = 1e-5
"""Largest logit difference between torch and the file if all activations are the same integers."""

TIE = 1e-3
"""Distance, in steps, from a tie at which two correct implementations may round differently."""

SAME_IN_TORCH = 0.999
"""Least share of equal predictions of torch and the file if each rounds for itself."""

INTEGER_KERNELS = (
    "MatMulIntegerToFloat",
    "MatMulInteger",
    "QLinearMatMul",
    "DynamicQuantizeMatMul",
)
FLOAT_KERNELS = ("MatMul", "Gemm", "FusedMatMul", "FusedGemm")
ATTENTION_KERNELS = ("MultiHeadAttention", "Attention")
"""Operators that contain both products of attention, in float."""


@dataclass(frozen=True)
class Coverage:
    """What a file computes in integers and in float, and its bytes of fp32 tables and weights.

    `products` have a weight; `attention_products` multiply two activations.
    """

    integer_products: int
    float_products: int
    float_attention_products: int
    integer_lstms: int
    float_lstms: int
    float_matrix_bytes: int


@dataclass(frozen=True)
class ReplayStats:
    """Torch compared with the file on single texts.

    Attributes:
        unguided: The logits of torch and the file if each rounds for itself.
        same_integers: Largest logit difference if torch takes the file's integers.
        ties: Texts in which torch would have taken another integer.
        largest_error: Largest distance of a rounding from the file's integer.
        close: Share of texts with a logit difference of at most 1e-3.
    """

    unguided: ParityReport
    same_integers: float
    ties: int
    largest_error: RoundingError
    close: float


@dataclass(frozen=True)
class IntegerCheck:
    """Figures of a passed `check_integers`."""

    coverage: Coverage
    replay: ReplayStats

    def to_json(self) -> dict[str, Any]:
        replay = self.replay
        return {
            **asdict(self.coverage),
            "compared_with_torch": replay.unguided.texts,
            "max_abs_logit_same_integers": replay.same_integers,
            "max_abs_logit_torch": replay.unguided.max_abs_logit,
            "same_answers_torch": replay.unguided.agreement,
            "texts_with_a_rounding_tie": replay.ties,
            "farthest_from_a_tie": replay.largest_error.distance,
            "share_within_1e-3": replay.close,
        }


def check_integers(
    model: PreTrainedModel, graph: bytes, texts: Sequence[Encoded], spec: TaskSpec
) -> IntegerCheck:
    """Check that an int8 file does the integer arithmetic of fake-quantized torch.

    Every product must run as an integer kernel, and every rounded weight must be stored in
    integers. With the file's integers (`GuidedReplay`), torch must round to the same integers
    except at ties, and its logits must differ by at most 1e-5. If torch rounds for itself, 99.9 %
    of the predictions must be equal; a single one may always differ.

    Raises:
        CheckFailed: If one of these conditions does not hold for these single texts (1, T).
    """
    coverage = check_coverage(model, graph)
    file = InstrumentedSession(graph, _session_options())
    missing = quantized_products(model).keys() - file.rounded_input.keys()
    if missing:
        raise CheckFailed(
            "the int8 file must round everything that fake-quantized torch rounds",
            f"it does not round {', '.join(sorted(missing))}",
            "nothing was packed",
        )
    replay = replay_texts(model, file, texts, spec)
    require(replay)
    return IntegerCheck(coverage, replay)


def check_coverage(model: PreTrainedModel, graph: bytes) -> Coverage:
    """Check that a file computes and stores in integers what the model does."""
    actual, expected = integer_coverage(graph), expected_coverage(model)
    for name, count in asdict(expected).items():
        if name != "float_matrix_bytes" and getattr(actual, name) != count:
            raise CheckFailed(
                "every quantized product must run in integers",
                f"{actual}; expected {expected}",
                "nothing was packed",
            )
    if actual.float_matrix_bytes > expected.float_matrix_bytes:
        raise CheckFailed(
            "every rounded table and weight must be stored in integers",
            f"{actual.float_matrix_bytes:,} bytes of matrices in fp32; those that nothing rounds "
            f"have {expected.float_matrix_bytes:,}",
            "nothing was packed",
        )
    return actual


def replay_texts(
    model: PreTrainedModel, file: InstrumentedSession, texts: Sequence[Encoded], spec: TaskSpec
) -> ReplayStats:
    """Compare torch with the file on single texts (1, T)."""
    unguided, expected, errors = [], [], []
    ties, same_integers = 0, 0.0
    for text in texts:
        replayed = GuidedReplay(model, file, file.run(text)).run(text)
        errors.append(replayed.largest_error)
        ties += replayed.rounding_differs
        difference = np.abs(replayed.logits - replayed.file_logits).max()
        same_integers = float(np.maximum(same_integers, difference))  # keeps NaN
        expected.append(replayed.file_logits)
        unguided.append(torch_logits(model, text))
    torch_all, file_all = np.concatenate(unguided), np.concatenate(expected)
    differences = np.abs(torch_all - file_all).max(1)
    return ReplayStats(
        unguided=compare_logits(torch_all, file_all, spec),
        same_integers=same_integers,
        ties=ties,
        largest_error=max(errors),
        close=float((differences <= 1e-3).mean()),
    )


def require(stats: ReplayStats) -> None:
    """Raise CheckFailed unless torch and the file do the same integer arithmetic."""
    error, unguided = stats.largest_error, stats.unguided
    same_logits = stats.same_integers <= EQUAL_INTEGERS  # False for NaN
    if error.distance <= TIE and same_logits and not unguided.differs(SAME_IN_TORCH):
        return
    raise CheckFailed(
        "the int8 file must give the same results as fake-quantized torch",
        f"{100 * unguided.agreement:.2f} % equal predictions on {unguided.texts} texts; with the "
        f"file's integers, torch's values lie up to {error.distance:.2g} beyond those that round "
        f"to the file's integer ({error.name}; {TIE:g} is allowed), and its logits differ by "
        f"{stats.same_integers:.2g} ({EQUAL_INTEGERS:g} is allowed)",
        "nothing was packed; the previous bundle is unchanged",
    )


def overflows(largest: int) -> bool:
    """Whether this CPU's kernels overflow if uint8 activations meet weights of `largest`.

    Without VNNI two products are added in 16 bits. That overflows with 127 (8 bits) and never
    with 63 (7 bits).
    """
    width = 64
    weight = onnx.numpy_helper.from_array(np.full((width, width), largest, np.int8), "w")
    node = onnx.helper.make_node("MatMulInteger", ["x", "w"], ["y"])
    x = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.UINT8, [1, width])
    y = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.INT32, [1, width])
    graph = onnx.helper.make_graph([node], "overflow", [x], [y], [weight])
    opset = onnx.helper.make_opsetid("", OPSET)
    model = onnx.helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), _session_options(), providers=["CPUExecutionProvider"]
    )
    (sums,) = session.run(None, {"x": np.full((1, width), 255, np.uint8)})
    return bool((sums != 255 * largest * width).any())


def expected_coverage(model: PreTrainedModel) -> Coverage:
    """Return the coverage that a fake-quantized model needs."""
    return Coverage(
        integer_products=len(quantized_products(model)),
        float_products=0,
        float_attention_products=export_of(model).float_attention_products(model.config),
        integer_lstms=len(quantized_lstms(model)),
        float_lstms=0,
        float_matrix_bytes=_unrounded_bytes(model),
    )


def integer_coverage(graph: bytes) -> Coverage:
    """Count the products and LSTMs that ONNX Runtime executes after its own graph rewriting."""
    executed = _executed_graph(graph)
    matrices = {tensor.name for tensor in executed.initializer if len(tensor.dims) == 2}
    weighted: list[str] = []
    unweighted: list[str] = []
    for node in executed.node:
        types = unweighted if matrices.isdisjoint(node.input) else weighted
        types.append(node.op_type)
    all_types = weighted + unweighted
    return Coverage(
        integer_products=_count(weighted, INTEGER_KERNELS),
        float_products=_count(weighted, FLOAT_KERNELS),
        float_attention_products=_count(unweighted, FLOAT_KERNELS)
        + 2 * _count(unweighted, ATTENTION_KERNELS),
        integer_lstms=all_types.count("DynamicQuantizeLSTM"),
        float_lstms=all_types.count("LSTM"),
        float_matrix_bytes=_float_matrix_bytes(executed),
    )


def _executed_graph(graph: bytes) -> onnx.GraphProto:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "executed.onnx"
        options = _session_options()
        options.optimized_model_filepath = str(path)
        onnxruntime.InferenceSession(
            graph, options, providers=["CPUExecutionProvider"], disabled_optimizers=SLOW_FUSIONS
        )
        return onnx.load(str(path)).graph


def _count(types: Iterable[str], kernels: Sequence[str]) -> int:
    return sum(kind in kernels for kind in types)


def _float_matrix_bytes(graph: onnx.GraphProto) -> int:
    """Return the bytes of tables and weights in fp32, without scales and an LSTM's biases."""
    lstm_inputs: set[str] = set()
    for node in graph.node:
        if node.op_type.endswith("LSTM"):
            lstm_inputs |= set(node.input)
    total = 0
    for tensor in graph.initializer:
        is_float = tensor.data_type == onnx.TensorProto.FLOAT
        is_matrix = len(tensor.dims) == 2 and min(tensor.dims) > 1
        if is_float and is_matrix and tensor.name not in lstm_inputs:
            total += 4 * int(np.prod(tensor.dims))
    return total


def _unrounded_bytes(model: PreTrainedModel) -> int:
    """Return the fp32 bytes of the matrices that no layer rounds."""
    rounded: set[int] = set()
    for _, layer in quantized_layers(model):
        rounded |= {id(weight) for weight in layer.parameters()}
    total = 0
    for weight in model.parameters():
        if weight.dim() == 2 and id(weight) not in rounded:
            total += 4 * int(weight.numel())
    return total


def _session_options() -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return options
