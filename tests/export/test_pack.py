"""A packed bundle: a changed weight fails the check, golden answers replay, figures are real."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import factories
import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from huggingface_hub import ModelCard
from kdedge.export import build
from kdedge.export.card import OWN_PREDICTIONS
from kdedge.export.card_metadata import HUB_METRICS, card_metadata
from kdedge.export.graph import to_onnx
from kdedge.export.neutral_texts import neutral_rows
from kdedge.export.options import ExportOptions
from kdedge.export.pack import GOLDEN_TOLERANCE
from kdedge.export.parity import spread_over
from onnx import numpy_helper

from kdedge.cli.verify import verify
from kdedge.errors import CheckFailed, UsageError
from kdedge.runtime import Bundle, Classifier
from kdedge.runtime.golden import replay
from kdedge.runtime.layout import MANIFEST
from kdedge.runtime.manifest import Manifest, write_manifest
from kdedge.runtime.metrics import METRICS


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def disturbed(weight: str, by: float) -> Callable[[Any], onnx.ModelProto]:
    """Return `to_onnx` with one changed number in one weight."""

    def write(model: Any) -> onnx.ModelProto:
        graph = to_onnx(model)
        (tensor,) = (item for item in graph.graph.initializer if item.name == weight)
        values = numpy_helper.to_array(tensor).copy()
        values.flat[0] += by
        tensor.CopyFrom(numpy_helper.from_array(values, weight))
        return graph

    return write


# The fp32 check


@pytest.mark.parametrize(
    "kind, weight",
    [
        ("bert", "classifier.bias"),
        ("bert", "bert.encoder.layer.0.output.dense.bias"),
        ("bert", "bert.encoder.layer.1.attention.self.query.weight"),
        ("bilstm", "classifier.bias"),
        ("bilstm", "lstm.B"),
    ],
)
def test_a_weight_that_moved_by_a_thousandth_fails_the_check(
    kind: str, weight: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, task = (
        factories.copy_bundle(factories.tiny_bundle(kind), tmp_path),
        factories.single_task(),
    )
    before = contents(folder)
    monkeypatch.setattr(build, "to_onnx", disturbed(weight, 1e-3))
    with pytest.raises(CheckFailed, match="same predictions as torch") as failed:
        factories.pack_bundle(factories.export_input(kind, task), task, folder)
    assert failed.value.exit_code == 1 and "largest difference" in failed.value.detail
    assert contents(folder) == before, "the former bundle is intact"
    assert Classifier.load(folder).predict("the film was good").label in ("bad", "good")


def test_an_unchanged_graph_replaces_the_old_bundle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, task = (
        factories.copy_bundle(factories.tiny_bundle("bilstm"), tmp_path),
        factories.single_task(),
    )
    monkeypatch.setattr(build, "to_onnx", disturbed("lstm.B", 0.0))
    factories.pack_bundle(
        replace(factories.export_input("bilstm", task), name="second"), task, folder
    )
    assert Bundle.open(folder).manifest.name == "second"
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"], (
        "neither a part nor an old bundle is left"
    )


def test_a_spread_holds_the_shortest_and_the_longest() -> None:
    lengths = np.random.default_rng(1).integers(3, 60, 200)
    chosen = spread_over(lengths)
    assert len(chosen) == len(set(chosen)) == 32
    assert lengths[chosen[0]] == lengths.min() and lengths[chosen[-1]] == lengths.max()
    assert sorted(spread_over(lengths[:5])) == [0, 1, 2, 3, 4]


# Golden answers


@pytest.mark.parametrize(
    "kind, task",
    [("bert", "pair"), ("bilstm", "single"), ("bert", "multilabel"), ("bert", "regression")],
)
def test_a_fresh_bundle_replays_its_golden_answers(kind: str, task: str) -> None:
    replays = replay(Bundle.open(factories.tiny_bundle(kind, task)))
    assert [replayed.precision for replayed in replays] == ["fp32", "int8"]
    for replayed in replays:
        assert (
            replayed.passed
            and replayed.texts == len(neutral_rows(pair=False))
            and replayed.token_mismatches == 0
            and replayed.tolerance == GOLDEN_TOLERANCE[replayed.precision]
        )
        assert replayed.max_abs_logit <= 5e-6, (
            "the same machine answers the same, but for seven written digits"
        )


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("share, code", [(0.5, 0), (1.5, 1), (-1.5, 1)])
def test_a_golden_logit_may_move_within_its_tolerance_alone(
    precision: str, share: float, code: int, tmp_path: Path
) -> None:
    folder = factories.copy_bundle(factories.tiny_bundle("bert"), tmp_path)
    golden = json.loads((folder / "golden.json").read_text())
    golden["rows"][-1]["logits"][precision][1] += share * GOLDEN_TOLERANCE[precision]
    (folder / "golden.json").write_text(json.dumps(golden))
    write_manifest(folder, Manifest.from_json(json.loads((folder / MANIFEST).read_text())))
    error = CliRunner().invoke(verify, [str(folder)]).exception
    assert (error.exit_code if isinstance(error, CheckFailed) else error) == (code or None)


# What is written


def test_the_manifest_lists_every_file_with_its_size_and_hash() -> None:
    folder = factories.tiny_bundle("bert")
    listed, found = json.loads((folder / MANIFEST).read_text())["files"], contents(folder)
    assert set(listed) == set(found) - {MANIFEST} == set(factories.BUNDLE_FILES)
    for name, entry in listed.items():
        assert entry == {
            "sha256": hashlib.sha256(found[name]).hexdigest(),
            "bytes": len(found[name]),
        }


@pytest.mark.parametrize(
    "kind, task", [("bert", "single"), ("bilstm", "pair"), ("bert", "multilabel")]
)
def test_a_written_manifest_reads_back_as_itself(kind: str, task: str) -> None:
    manifest = Bundle.open(factories.tiny_bundle(kind, task)).manifest
    assert Manifest.from_json(json.loads(json.dumps(manifest.to_json()))) == manifest


@pytest.mark.parametrize(
    "kind, task_name",
    [("bert", "single"), ("bilstm", "pair"), ("bert", "multilabel"), ("bert", "regression")],
)
def test_written_scores_are_those_of_the_files(kind: str, task_name: str) -> None:
    folder, task = factories.tiny_bundle(kind, task_name), factories.TASKS[task_name]()
    scores = Bundle.open(folder).manifest.scores
    for precision in ("fp32", "int8"):
        logits = Classifier.load(folder, precision).logits(task.test.texts, task.test.pairs)
        assert scores[precision] == pytest.approx(
            second_opinion(task.spec.metric, logits, task.test.labels), abs=1e-9
        )


def second_opinion(metric: str, logits: np.ndarray, labels: np.ndarray) -> float:
    from scipy.stats import spearmanr
    from sklearn.metrics import accuracy_score, f1_score

    if metric == "accuracy":
        return float(accuracy_score(labels, logits.argmax(1)))
    return float(
        f1_score(labels, logits > 0, average="micro")
        if metric == "micro_f1"
        else spearmanr(logits[:, 0], labels).statistic
    )


def test_the_model_card_shows_the_measured_numbers() -> None:
    folder = factories.tiny_bundle("bert")
    manifest, card = Bundle.open(folder).manifest, (folder / "README.md").read_text()
    for precision, path in manifest.precisions.items():
        value = manifest.scores[precision]
        size = f"{(folder / path).stat().st_size:,}"
        share = f"{100 * value / 0.9375:.1f} %"
        assert f"| {path} ({precision}) | {value:.4f} | {share} | {size} |" in card
    assert (
        "| teacher (torch) | 0.9375 | 100.0 % |" in card and "accuracy on the 48 examples" in card
    )
    fp32, int8 = manifest.parity["fp32"], manifest.parity["int8"]
    assert (
        f"largest logit difference {fp32['max_abs_logit']:.2g} over {fp32['texts']} texts" in card
    )
    assert f"on {100 * int8['agreement']:.2f} % of {int8['texts']} texts" in card
    assert (
        f"by up to {max(int8['batch_dependence'], int8['padding_dependence']):.2g} (measured)"
        in card
    )


def test_the_card_has_a_model_index_that_the_hub_reads() -> None:
    folder = factories.tiny_bundle("bert")
    manifest = Bundle.open(folder).manifest
    card = ModelCard.load(folder / "README.md")
    found = {result.metric_name: result for result in card.data.eval_results}
    assert found.keys() == {"accuracy, fp32", "accuracy, int8"}
    for precision in manifest.precisions:
        result = found[f"accuracy, {precision}"]
        assert result.metric_value == round(manifest.scores[precision], 4)
        assert (result.metric_type, result.dataset_split) == ("accuracy", "test")
        assert (result.dataset_name, result.task_type) == ("tiny", "text-classification")


def test_names_from_data_cannot_add_fields_to_the_front_matter() -> None:
    manifest = Bundle.open(factories.tiny_bundle("bert")).manifest
    name = "a: b\n---\nlicense: stolen"
    spec = replace(manifest.spec, name='"quoted": [x')
    text = card_metadata(replace(manifest, name=name, spec=spec))
    card = ModelCard(f"---\n{text}\n---\n# Title")
    assert card.data.license is None
    assert {result.dataset_name for result in card.data.eval_results} == {'"quoted": [x'}


def test_own_predictions_are_no_result_of_a_model_index() -> None:
    manifest = Bundle.open(factories.tiny_bundle("bert")).manifest
    scores = {**manifest.scores, "metric": OWN_PREDICTIONS}
    assert "model-index" not in card_metadata(replace(manifest, scores=scores))


def test_every_metric_has_a_name_on_the_hub() -> None:
    assert HUB_METRICS.keys() == METRICS.keys()


def test_the_written_tokenizer_neither_pads_nor_truncates_of_itself() -> None:
    document = Bundle.open(factories.tiny_bundle("bert")).json("tokenizer.json")
    assert document["padding"] is None and document["truncation"] is None


def test_the_tokenizer_has_a_class_that_transformers_4_and_5_know() -> None:
    config = Bundle.open(factories.tiny_bundle("bert")).json("tokenizer_config.json")
    assert config["tokenizer_class"] == "PreTrainedTokenizerFast"


# Whose texts travel


def test_no_text_of_the_task_is_in_a_bundle_by_default() -> None:
    task = factories.single_task()
    folder = factories.tiny_bundle("bilstm", "single")
    content = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    for split in (task.train, task.validation, task.test):
        for text in split.texts:
            assert text.encode() not in content
    assert "none of the task" in (folder / "README.md").read_text()


def test_golden_texts_of_the_test_split_are_named_in_the_card(tmp_path: Path) -> None:
    task = factories.single_task()
    options = ExportOptions(("fp32",), golden_from="test")
    made = factories.export_input("bilstm", task)
    folder = factories.pack_bundle(made, task, tmp_path / "bundle", options)
    rows = json.loads((folder / "golden.json").read_text())["rows"]
    assert len(rows) == 16 and {row["text"] for row in rows} <= set(task.test.texts)
    assert "texts of the test split, word for word" in (folder / "README.md").read_text()
    with pytest.raises(UsageError, match="golden texts"):
        ExportOptions(golden_from="train")
