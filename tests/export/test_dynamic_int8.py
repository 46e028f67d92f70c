"""The int8 file: what it stores, its size, and predictions close to those of the fp32 file."""

from __future__ import annotations

import factories
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from kdedge.export.dynamic_int8 import quantize
from kdedge.export.graph import to_onnx
from kdedge.export.scheme import QuantScheme
from onnx import numpy_helper

from kdedge.errors import UsageError

VOCABULARY = 2000


@pytest.fixture(scope="module")
def fp32() -> onnx.ModelProto:
    """A BERT of which nearly every byte is a weight."""
    with torch.random.fork_rng():
        torch.manual_seed(11)
        return to_onnx(
            factories.bert(
                layers=2, hidden=64, heads=4, vocabulary=VOCABULARY, initializer_range=0.15
            ).eval()
        )


@pytest.fixture(scope="module")
def int8(fp32: onnx.ModelProto) -> onnx.ModelProto:
    return quantize(fp32, QuantScheme())


def arrays(model: onnx.ModelProto, kind: int) -> dict[str, np.ndarray]:
    return {
        tensor.name: numpy_helper.to_array(tensor)
        for tensor in model.graph.initializer
        if tensor.data_type == kind
    }


def answers(model: onnx.ModelProto, rows: int = 64) -> np.ndarray:
    """Logits of random texts, one at a time, as golden answers are made."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    random, logits = np.random.default_rng(3), []
    for _ in range(rows):
        ids = random.integers(5, VOCABULARY, (1, random.integers(2, 40)))
        inputs = {
            "input_ids": ids,
            "attention_mask": np.ones_like(ids),
            "token_type_ids": np.zeros_like(ids),
        }
        logits.append(session.run(["logits"], inputs)[0][0])
    return np.array(logits)


def test_a_file_of_weights_shrinks_to_a_third_or_less(
    fp32: onnx.ModelProto, int8: onnx.ModelProto
) -> None:
    assert int8.ByteSize() <= 0.35 * fp32.ByteSize()


def test_decided_answers_stay_the_same(fp32: onnx.ModelProto, int8: onnx.ModelProto) -> None:
    """If the fp32 file is sure, by 15 % of its range, the int8 file predicts the same.

    The threshold is the median, so both predictions occur.
    """
    full, light = (logits[:, 0] - logits[:, 1] for logits in (answers(fp32), answers(int8)))
    middle = np.median(full)
    decided = np.abs(full - middle) > 0.15 * np.ptp(full)
    predicted = full[decided] > middle
    assert decided.sum() > 15 and 0 < predicted.sum() < len(predicted)
    assert (predicted == (light[decided] > middle)).all()
    assert 0 < np.abs(full - light).max() < 0.15 * np.ptp(full), (
        "int8 predicts nearly the same, and is not the same file"
    )


def test_products_and_tables_are_integers_and_have_no_float_copy(
    fp32: onnx.ModelProto, int8: onnx.ModelProto
) -> None:
    """The int8 file stores the weights of products as int8 and those of lookups as uint8."""
    read = {
        name
        for node in fp32.graph.node
        if node.op_type in ("MatMul", "Gather")
        for name in node.input
    }
    weights = {
        name: values
        for name, values in arrays(fp32, onnx.TensorProto.FLOAT).items()
        if name in read
    }
    stored, floats = (
        arrays(int8, onnx.TensorProto.INT8) | arrays(int8, onnx.TensorProto.UINT8),
        arrays(int8, onnx.TensorProto.FLOAT),
    )
    assert len(weights) == 2 + 2 * 6 + 2, "two tables, six products a layer, pooler and classifier"
    for name, values in weights.items():
        copies = [held for held in stored if held.startswith(name)]
        assert copies and any(stored[held].shape == values.shape for held in copies), name
        assert not any(
            held.shape == values.shape and np.array_equal(held, values) for held in floats.values()
        ), name
    kinds = [node.op_type for node in int8.graph.node]
    assert kinds.count("MatMulInteger") == 14
    assert kinds.count("MatMul") == 2 * 2, (
        "only attention's own two products, which have no weights, stay float"
    )


@pytest.mark.parametrize("bits, low, high", [(7, 50, 64), (8, 100, 128)])
def test_weights_use_the_bits_of_the_scheme(
    fp32: onnx.ModelProto, bits: int, low: int, high: int
) -> None:
    made = quantize(fp32, QuantScheme(weight_bits=bits))  # type: ignore[arg-type]
    integers = arrays(made, onnx.TensorProto.INT8)
    extremes = {
        name: int(np.abs(values.astype(int)).max())
        for name, values in integers.items()
        if values.ndim == 2
    }
    assert len(extremes) == 14 and all(low < extreme <= high for extreme in extremes.values()), (
        extremes
    )


def test_dequantized_weights_are_within_half_a_step(
    fp32: onnx.ModelProto, int8: onnx.ModelProto
) -> None:
    """scale * integer against the weight itself, symmetric per output channel."""
    weights, integers, scales = (
        arrays(fp32, onnx.TensorProto.FLOAT),
        arrays(int8, onnx.TensorProto.INT8),
        arrays(int8, onnx.TensorProto.FLOAT),
    )
    name = "bert.encoder.layer.0.attention.self.query.weight"
    scale = scales[f"{name}_scale"]
    assert scale.shape == (64,)
    assert (
        np.abs(integers[f"{name}_quantized"] * scale - weights[name]).max() <= 0.501 * scale.max()
    )


@pytest.mark.parametrize(
    "kind, task",
    [
        ("bert", "single"),
        ("bilstm", "single"),
        ("bilstm", "pair"),
        ("cross-attention", "pair"),
        ("bert", "regression"),
    ],
)
def test_the_int8_file_of_every_student_answers(kind: str, task: str) -> None:
    from kdedge.runtime import Classifier

    folder, given = factories.tiny_bundle(kind, task), factories.TASKS[task]().test
    full, light = (
        Classifier.load(folder, precision, threads=1).logits(given.texts, given.pairs)
        for precision in ("fp32", "int8")
    )
    assert np.ptp(full) > 0.05 and 0 < np.abs(full - light).max() < 0.15 * np.ptp(full)


def test_the_given_graph_is_left_as_it_is(fp32: onnx.ModelProto) -> None:
    before = fp32.SerializeToString()
    quantize(fp32, QuantScheme(weight_bits=8))
    assert fp32.SerializeToString() == before


@pytest.mark.parametrize(
    "settings",
    [
        {"weight_bits": 4},
        {"weight_bits": "7"},
        {"weights": "per_row"},
        {"activations": "sometimes"},
        {"activations": "float"},
        {"weights": "per_tensor"},
    ],
)
def test_an_unknown_scheme_is_an_error(settings: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="no such quantization scheme"):
        QuantScheme(**settings)  # type: ignore[arg-type]


def test_schemes_by_name() -> None:
    assert QuantScheme.named("static", 8) == QuantScheme(weight_bits=8, activations="static")
    assert QuantScheme.named("dynamic") == QuantScheme()
    with pytest.raises(UsageError, match="no such quantization scheme"):
        QuantScheme.named("weight_only")


def test_a_scheme_goes_to_json_and_back() -> None:
    for scheme in (QuantScheme(), QuantScheme(weight_bits=8, activations="static")):
        assert QuantScheme(**scheme.to_json()) == scheme
