"""Files that are small alone: half and a quarter of the bytes, computed in fp32."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import test_fake_lstm as recurrent
import tiny
import tinybundle
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kdedge.export import export
from kdedge.export.export import ExportOptions, export_run
from kdedge.export.graph import to_onnx
from kdedge.export.scheme import QuantScheme
from kdedge.export.weightonly import BLOCK, _nibbles, half, weight_only

from kdedge.errors import UsageError
from kdedge.runtime import Bundle, Classifier

PARTS = {"int4", "int8", "sixteen", "four", "low", "high", "scales", "float"}


def graph(kind: str) -> onnx.ModelProto:
    """Of a student wide enough that weights outweigh the names of nodes."""
    if kind == "bilstm":
        return to_onnx(
            recurrent.bilstm(
                False, 0.1, vocab_size=4000, embedding_dim=64, hidden_size=40, head_size=50
            )
        )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return to_onnx(
            tiny.bert(layers=2, hidden=64, heads=4, vocabulary=4000, initializer_range=0.1).eval()
        )


def answers(model: onnx.ModelProto) -> np.ndarray:
    names, random = {item.name for item in model.graph.input}, np.random.default_rng(0)
    opened, rows = recurrent.session(model), []
    for length in (1, 5, 17, 40):
        ids = random.integers(5, 4000, (8, length))
        given = {
            "input_ids": ids,
            "attention_mask": np.ones_like(ids),
            "token_type_ids": np.zeros_like(ids),
        }
        rows.append(
            opened.run(
                ["logits"], {name: values for name, values in given.items() if name in names}
            )[0]
        )
    return np.concatenate(rows)


@pytest.mark.parametrize("kind", ["bert", "bilstm"])
@pytest.mark.parametrize(
    "make, bytes_left, within",
    [(half, 0.52, 2e-3), (weight_only, 0.29, 0.03), (partial(weight_only, bits=4), 0.19, 0.25)],
)
def test_it_is_small_and_answers_nearly_as_before(
    kind: str, make: object, bytes_left: float, within: float
) -> None:
    full = graph(kind)
    before = full.SerializeToString()
    small = make(full)  # type: ignore[operator]
    assert full.SerializeToString() == before and small.ByteSize() < bytes_left * full.ByteSize()
    assert {node.domain for node in small.graph.node} == {""}
    one, other = answers(full), answers(small)
    assert 0 < np.abs(one - other).max() < within * np.ptp(one)


def test_each_row_and_each_output_has_a_scale_of_its_own() -> None:
    full, small = graph("bert"), weight_only(graph("bert"))
    floats = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in full.graph.initializer}
    held = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in small.graph.initializer}
    for name, shape in (
        ("bert.embeddings.word_embeddings.weight", (4000, 1)),
        ("bert.encoder.layer.0.intermediate.dense.weight", (1, 128)),
    ):
        scales = held[f"{name}.scales"]
        assert (
            scales.shape == shape
            and np.abs(held[f"{name}.int8"] * scales - floats[name]).max() <= 0.501 * scales.max()
        )


@given(st.integers(1, 3), st.integers(1, 70), st.sampled_from([-1, -2]), st.integers(0, 99))
@settings(deadline=None, max_examples=40)
def test_four_bits_are_nearest_within_each_block(
    rows: int, columns: int, axis: int, seed: int
) -> None:
    values = (
        np.random.default_rng(seed)
        .normal(size=(rows, columns) if axis == -1 else (columns, rows))
        .astype(np.float32)
    )
    tensors, nodes = _nibbles(values, "w", axis)
    graph_of_it = onnx.helper.make_graph(
        nodes,
        "w",
        [],
        [onnx.helper.make_tensor_value_info("w", onnx.TensorProto.FLOAT, values.shape)],
        tensors,
    )
    opset = [onnx.helper.make_opsetid("", 17)]
    (made,) = recurrent.session(
        onnx.helper.make_model(graph_of_it, opset_imports=opset, ir_version=9)
    ).run(["w"], {})
    off = np.abs(made - values)
    for start in range(0, columns, BLOCK):
        block = (..., slice(start, start + BLOCK)) if axis == -1 else (slice(start, start + BLOCK),)
        largest = np.abs(values[block]).max(axis, keepdims=True)
        assert (off[block] <= largest / 14 * 1.01 + 1e-6).all(), (
            "half a step of the block's own scale, and what fp16 rounds off it"
        )


@pytest.mark.parametrize("bits", [4, 8])
def test_weights_are_worked_out_once_when_the_file_is_opened(bits: int, tmp_path: Path) -> None:
    small = weight_only(graph("bert"), bits)
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "executed.onnx")
    onnxruntime.InferenceSession(
        small.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    weights = {
        node.output[0]
        for node in small.graph.node
        if node.input and all(part.split(".")[-1] in PARTS for part in node.input)
    }
    assert weights, "the file holds nodes that make weights"
    assert not weights & {
        made
        for node in onnx.load(str(tmp_path / "executed.onnx")).graph.node
        for made in node.output
    }


@pytest.mark.parametrize(
    "choice, name",
    [
        (ExportOptions(("fp32", "int8"), QuantScheme.named("weight_only")), "int8"),
        (ExportOptions(("fp32", "int8"), QuantScheme.named("weight_only", 4)), "int8"),
        (ExportOptions(("fp16",)), "fp16"),
    ],
)
def test_a_bundle_may_hold_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, choice: ExportOptions, name: str
) -> None:
    monkeypatch.setattr(export, "_export_teacher", lambda *_, **__: None)
    task = tiny.single_task()
    run = tinybundle.make_run(tmp_path, task)
    (folder,) = export_run(run, ["bilstm"], task=task, choice=choice)
    manifest = Bundle.open(folder).manifest
    assert (
        list(manifest.precisions) == (["fp32", "int8"] if name == "int8" else ["fp16"])
        and manifest.parity[name]["agreement"] >= 0.97
    )
    assert Classifier.load(folder).precision == name
    if name == "int8":
        assert (
            manifest.scheme == choice.scheme.to_json()
            and manifest.parity["int8"]["batch_dependence"] < 1e-6
        )


def test_schemes_by_name() -> None:
    assert QuantScheme.named("static", 8) == QuantScheme(weight_bits=8, activations="static")
    assert QuantScheme.named("weight_only", 4) == QuantScheme(weight_bits=4, activations="float")
    assert (
        QuantScheme.named("dynamic") == QuantScheme()
        and QuantScheme.named("weight_only").weight_bits == 8
    )
    with pytest.raises(UsageError, match="weight_only takes 8 or 4"):
        QuantScheme.named("weight_only", 7)
    for wrong in (
        {"activations": "float"},
        {"activations": "static", "weight_bits": 4},
        {"weights": "per_tensor", "activations": "float", "weight_bits": 8},
    ):
        with pytest.raises(UsageError, match="no such quantization scheme"):
            QuantScheme(**wrong)  # type: ignore[arg-type]
