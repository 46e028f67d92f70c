"""The 16-bit file: for GPUs, but a CPU computes it too, in fp32 with rounded results."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import factories
import numpy as np
import onnx
import pytest
import torch
from kdedge.benchmarks.subjects import _precisions_for
from kdedge.export import export
from kdedge.export.export import export_run
from kdedge.export.graph import to_onnx
from kdedge.export.half import to_half
from kdedge.export.options import ExportOptions
from kdedge.export.pack import GOLDEN_TOLERANCE
from onnx import TensorProto
from test_portable import answers
from transformers import PreTrainedModel

from kdedge.errors import UsageError
from kdedge.run.progress import Silent
from kdedge.run.stage import StageContext
from kdedge.runtime import Bundle, Classifier, golden
from kdedge.runtime.golden import QUARTILE_TOLERANCE, replay
from kdedge.runtime.onnx_check import check_graph


class RecordedMessages(Silent):
    def __init__(self) -> None:
        self.text = ""

    def say(self, line: str) -> None:
        self.text += line + "\n"


@pytest.fixture(scope="module")
def model() -> PreTrainedModel:
    torch.manual_seed(3)
    return factories.bert(layers=3, hidden=32, heads=4, initializer_range=0.2).eval()


def token_ids(model: PreTrainedModel, count: int) -> list[dict[str, np.ndarray]]:
    """Texts of 2 to 20 tokens; every third has padding."""
    chance = np.random.default_rng(0)
    texts = []
    for number in range(count):
        tokens = int(chance.integers(2, 21))
        ids = chance.integers(1, model.config.vocab_size, (1, tokens))
        mask = np.ones_like(ids)
        if number % 3 == 0:
            mask[:, -1] = 0
        texts.append(
            {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        )
    return texts


@pytest.mark.parametrize("rewriting", [True, False])
def test_a_cpu_finds_the_logits_of_fp32_up_to_the_rounding_of_16_bits(
    model: PreTrainedModel, rewriting: bool
) -> None:
    graph = to_onnx(model)
    texts = token_ids(model, 200)
    exact = answers(graph, texts)
    rounded = answers(to_half(graph), texts, rewriting)
    assert rounded.dtype == np.float32
    difference = np.abs(exact - rounded).max(1)
    # About 12 roundings in each of 3 layers, see GOLDEN_TOLERANCE; three standard deviations.
    expected = math.sqrt(12 * 3) * 2**-11 * np.abs(exact).max()
    assert 0 < difference.max() <= min(3 * expected, GOLDEN_TOLERANCE["fp16"])
    assert np.quantile(difference, 0.25) <= QUARTILE_TOLERANCE["fp16"]
    sure = np.abs(exact[:, 0] - exact[:, 1]) > 2 * difference.max()
    assert sure.mean() > 0.9
    assert np.array_equal(exact.argmax(1)[sure], rounded.argmax(1)[sure])


def test_weights_are_16_bits_and_inputs_and_logits_stay(model: PreTrainedModel) -> None:
    graph = to_onnx(model)
    before = graph.SerializeToString()
    half = to_half(graph)
    content = half.SerializeToString()
    assert graph.SerializeToString() == before, "the fp32 graph is not changed"
    onnx.checker.check_model(half, full_check=True)
    check_graph(content)
    types = {tensor.data_type for tensor in half.graph.initializer}
    assert types == {TensorProto.FLOAT16, TensorProto.INT64}
    assert {item.type.tensor_type.elem_type for item in half.graph.input} == {TensorProto.INT64}
    (logits,) = half.graph.output
    assert (logits.name, logits.type.tensor_type.elem_type) == ("logits", TensorProto.FLOAT)
    assert len(content) < 0.6 * len(before)


def exported(
    folder: Path, kind: str, precisions: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> tuple[Bundle, str]:
    monkeypatch.setattr(export, "_export_teacher", lambda *_, **__: None)
    task = factories.single_task()
    run = factories.make_run(folder, task, (kind,), quantize={"largest_drop": 1.0})
    messages = RecordedMessages()
    options = ExportOptions(precisions)
    stages = StageContext(progress=messages)
    (bundle,) = export_run(run, [kind], task=task, options=options, stages=stages)
    return Bundle.open(bundle), messages.text


def test_a_bundle_of_a_tinybert_holds_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle, _ = exported(tmp_path, "tinybert", ("fp32", "fp16"), monkeypatch)
    assert dict(bundle.manifest.precisions) == {
        "fp32": "onnx/model.onnx",
        "fp16": "onnx/model_fp16.onnx",
    }
    replays = {file.precision: file for file in replay(bundle)}
    assert all(file.passed for file in replays.values())
    assert replays["fp16"].tolerance == GOLDEN_TOLERANCE["fp16"]
    size = bundle.manifest.files["onnx/model_fp16.onnx"]["bytes"]
    card = (bundle.folder / "README.md").read_text()
    assert f"| {size:,} |" in card and "The fp16 file is for GPUs" in card
    assert bundle.manifest.parity["fp16"]["agreement"] >= 0.99
    assert Classifier.load(bundle).precision == "fp32", "never on a CPU"
    assert _precisions_for(bundle, "cpu") == ["fp32"]
    assert set(_precisions_for(bundle, "cuda")) == {"fp32", "fp16"}


def test_a_bundle_of_16_bits_alone_still_runs_on_a_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle, _ = exported(tmp_path, "tinybert", ("fp16",), monkeypatch)
    assert list(bundle.manifest.precisions) == ["fp16"] == _precisions_for(bundle, "cpu")
    assert Classifier.load(bundle).predict("good").label in ("bad", "good")


def test_a_bilstm_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="only a BERT") as error:
        exported(tmp_path / "alone", "bilstm", ("fp16",), monkeypatch)
    assert "--precision fp32" in str(error.value.hint)
    bundle, said = exported(tmp_path / "both", "bilstm", ("fp32", "fp16"), monkeypatch)
    assert list(bundle.manifest.precisions) == ["fp32"] and "no 16-bit file" in said


def test_it_has_a_tolerance_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle, _ = exported(tmp_path, "tinybert", ("fp32", "fp16"), monkeypatch)
    run = Classifier.run

    def shifted(share: float) -> Any:
        def compute(self: Classifier, batch: Any) -> np.ndarray:
            return run(self, batch) + np.float32(share)

        return compute

    for share, passed in ((3e-3, {"fp16"}), (2e-2, set())):
        monkeypatch.setattr(golden.Classifier, "run", shifted(share))
        assert {file.precision for file in replay(bundle) if file.passed} == passed
