"""The portable file: standard ONNX with the integers of the int8 file."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import factories
import numpy as np
import onnx
import onnxruntime
import pytest
import test_fake_lstm as recurrent
import torch
from kdedge.export import export
from kdedge.export.export import ExportOptions, export_run
from kdedge.export.int8_parity import integer_coverage
from kdedge.export.int8_writer import to_int8
from kdedge.export.parity import check_same_predictions
from kdedge.export.portable import to_portable
from kdedge.export.scheme import QuantScheme
from transformers import PreTrainedModel

from kdedge.errors import CheckFailed, UsageError
from kdedge.runtime import Bundle, Classifier
from kdedge.runtime.golden import replay
from kdedge.runtime.layout import PRECISIONS

Batches = list[dict[str, torch.Tensor]]


@cache
def quantized(kind: str) -> tuple[PreTrainedModel, list[dict[str, np.ndarray]]]:
    """A calibrated student, `bert`, `bilstm`, `pair` or `attention`, and texts (1, T)."""
    pair = kind in ("pair", "attention")
    batches = recurrent.read(pair)
    if kind == "bert":
        torch.manual_seed(3)
        model = factories.bert(layers=2, hidden=32, heads=4, initializer_range=0.2).eval()
    else:
        model = recurrent.bilstm(pair, cross_attention=kind == "attention")
    return recurrent.quantized(model, batches), recurrent.texts_of(batches, pair or kind == "bert")


def answers(
    graph: onnx.ModelProto, texts: list[dict[str, np.ndarray]], rewriting: bool = True
) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    levels = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = (
        levels.ORT_ENABLE_ALL if rewriting else levels.ORT_DISABLE_ALL
    )
    session = onnxruntime.InferenceSession(
        graph.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return np.concatenate([session.run(["logits"], text)[0] for text in texts])


@pytest.mark.parametrize("kind", ["bert", "bilstm", "pair", "attention"])
def test_every_operator_is_plain_onnx(kind: str) -> None:
    graph = to_portable(quantized(kind)[0])
    onnx.checker.check_model(graph, full_check=True)
    assert {node.domain for node in graph.graph.node} == {""} and [
        (item.domain, item.version) for item in graph.opset_import
    ] == [("", 17)]
    assert graph.ByteSize() < 1.5 * to_int8(quantized(kind)[0]).ByteSize(), (
        "integers are stored, not floats"
    )
    weights = [
        onnx.numpy_helper.to_array(t)
        for t in graph.graph.initializer
        if t.data_type == onnx.TensorProto.INT8 and "embedding" not in t.name
    ]
    assert max(int(np.abs(w.astype(int)).max()) for w in weights) == 63


def test_no_two_readers_share_a_dequantized_activation() -> None:
    graph = to_portable(quantized("bert")[0])
    fresh = [node.output[0] for node in graph.graph.node if node.op_type == "DequantizeLinear"]
    readers = [sum(name in node.input for node in graph.graph.node) for name in fresh]
    assert len(fresh) == 2 * 14 and set(readers) == {1}


@pytest.mark.parametrize("rewriting", [True, False])
@pytest.mark.parametrize(
    "kind, within", [("bert", 1e-5), ("bilstm", 0.02), ("pair", 0.05), ("attention", 0.15)]
)
def test_it_gives_the_results_of_the_int8_file(kind: str, within: float, rewriting: bool) -> None:
    """A BERT has the same integers; an LSTM's states are rounded in the int8 file only."""
    model, texts = quantized(kind)
    int8, portable = answers(to_int8(model), texts), answers(to_portable(model), texts, rewriting)
    assert np.abs(int8 - portable).max() <= within and np.ptp(int8) > 20 * within
    check_same_predictions("portable", portable, "int8", int8, factories.single_task().spec)


@pytest.mark.parametrize("kind, products", [("bert", 14), ("bilstm", 2), ("attention", 3)])
def test_onnx_runtime_multiplies_it_in_integers(kind: str, products: int) -> None:
    graph = to_portable(quantized(kind)[0]).SerializeToString()
    assert integer_coverage(graph).integer_products == products


def test_other_predictions_fail() -> None:
    logits = np.random.default_rng(0).normal(size=(200, 2)).astype(np.float32)
    other = logits.copy()
    other[:3] = other[:3, ::-1]
    with pytest.raises(CheckFailed, match="portable file must give the same predictions"):
        check_same_predictions("portable", other, "int8", logits, factories.single_task().spec)
    other[:1] = logits[:1]
    report = check_same_predictions("portable", other, "int8", logits, factories.single_task().spec)
    assert report.agreement == pytest.approx(0.99)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["tinybert", "bilstm"])
def test_a_bundle_contains_it_with_the_int8_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(export, "_export_teacher", lambda *_, **__: None)
    task = factories.single_task()
    run = factories.make_run(tmp_path, task, (kind,), quantize={"largest_drop": 1.0})
    (folder,) = export_run(
        run, [kind], task=task, options=ExportOptions(("fp32", "int8", "portable"), tune=False)
    )
    bundle = Bundle.open(folder)
    assert (
        dict(bundle.manifest.precisions) == {n: p for n, p in PRECISIONS.items() if n != "fp16"}
        and all(replayed.passed for replayed in replay(bundle))
        and len(replay(bundle)) == 3
    )
    assert (
        bundle.manifest.parity["portable"]["agreement"] >= 0.97
        and "in standard ONNX operators" in (folder / "README.md").read_text()
    )
    assert Classifier.from_bundle(bundle, "portable").predict(task.test.texts[0]).scores.keys() == {
        "bad",
        "good",
    }


def test_each_provider_uses_the_first_file_that_it_runs_well(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from kdedge.runtime import classifier

    bundle = Bundle.open(factories.tiny_bundle("bert"))
    taken: list[Any] = []
    monkeypatch.setattr(classifier, "open_session", lambda graph, *_: taken.append(graph))
    for held, provider, expected in (
        (("fp32", "int8", "portable"), "cpu", "int8"),
        (("fp32", "portable"), "cpu", "portable"),
        (("fp32",), "cpu", "fp32"),
        (("fp32", "int8", "portable"), "cuda", "fp32"),
        (("int8", "portable"), "coreml", "portable"),
        (("int8",), "cuda", "int8"),
        (("fp32", "fp16"), "cpu", "fp32"),
        (("fp16",), "cpu", "fp16"),
        (("fp32", "int8", "fp16"), "cuda", "fp16"),
        (("fp32", "int8", "fp16"), "tensorrt", "fp16"),
        (("fp32", "fp16"), "coreml", "fp32"),
    ):
        files = {name: PRECISIONS[name] for name in held}
        contents = {**bundle.contents, **{path: name.encode() for name, path in files.items()}}
        opened = replace(
            bundle, manifest=replace(bundle.manifest, precisions=files), contents=contents
        )
        assert (
            Classifier.from_bundle(opened, provider=provider).precision == expected
            and taken[-1] == expected.encode()
        )


@pytest.mark.parametrize(
    "options",
    [
        {"precisions": ("fp32", "portable")},
        {
            "precisions": ("fp32", "int8", "portable"),
            "scheme": QuantScheme(weight_bits=8, activations="static"),
        },
    ],
)
def test_a_portable_file_needs_a_seven_bit_int8_file(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="7-bit weights"):
        ExportOptions(**options)
