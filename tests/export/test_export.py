"""From a trained run to bundles: checks can fail, figures are measured, folders are whole."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import factories
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from kdedge.export import build, export, pack, prepare, qat
from kdedge.export.build import token_lengths
from kdedge.export.card import model_card
from kdedge.export.export import ExportOptions, export_run
from kdedge.export.figures import ParityFigures
from kdedge.export.graph import to_onnx
from kdedge.export.int8_parity import overflows
from kdedge.export.parity import (
    FP32_TOLERANCE,
    BatchDependence,
    ParityReport,
    check_batch_independence,
    check_parity,
    compare_logits,
    generated_batch,
    length_steps,
    measure_batch_dependence,
    of_one_length,
    parity_batches,
)
from kdedge.export.scheme import QuantScheme

from kdedge.cli import export as command
from kdedge.errors import CheckFailed, IntegrityError, Interrupted, MachineError, UsageError
from kdedge.io.model_files import hash_model
from kdedge.run.layout import RunDir
from kdedge.run.progress import Silent
from kdedge.run.stage import STAGE_FILE, StageContext
from kdedge.runtime import Bundle, Classifier
from kdedge.runtime.metrics import score

TASK = factories.single_task()


class RecordedMessages(Silent):
    """Records messages."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)

    @property
    def text(self) -> str:
        return "\n".join(self.lines)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """Two students and a teacher, exported."""
    run = factories.make_run(tmp_path_factory.mktemp("runs"), TASK, ("tinybert", "bilstm"))
    export_run(run, ["tinybert", "bilstm"], task=TASK, options=factories.both_files())
    return run


@pytest.fixture
def run(exported: RunDir, tmp_path: Path) -> RunDir:
    """A copy to break."""
    return RunDir.open(Path(shutil.copytree(exported.folder, tmp_path / "runs" / "tiny")))[0]


def content_of(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


# What is in a bundle


@pytest.mark.parametrize("name", ["tinybert", "bilstm"])
def test_the_figures_of_a_bundle_can_be_measured_again(exported: RunDir, name: str) -> None:
    manifest = Bundle.open(exported.students[name].bundle).manifest
    stored = np.load(exported.students[name].student / "test_logits.npy")
    assert manifest.scores["student"] == score(TASK.spec, stored, TASK.test.labels)
    assert (manifest.scores["split_size"], manifest.name, manifest.max_length) == (
        len(TASK.test),
        f"tiny-{name}",
        factories.RUN_MAX_LENGTH,
    )
    logits = {}
    for precision in ("fp32", "int8"):
        logits[precision] = Classifier.load(exported.students[name].bundle, precision).logits(
            TASK.test.texts
        )
        assert manifest.scores[precision] == score(TASK.spec, logits[precision], TASK.test.labels)
    assert np.abs(logits["fp32"] - stored).max() <= FP32_TOLERANCE
    int8 = manifest.parity["int8"]
    assert int8["agreement"] == np.mean(logits["fp32"].argmax(1) == logits["int8"].argmax(1))
    assert 0 < int8["max_abs_logit"] < 0.5 and int8["batch_dependence"] >= 0
    assert (
        manifest.parity["fp32"]["max_abs_logit"] <= FP32_TOLERANCE
        and manifest.parity["fp32"]["texts"] > 500
    )
    assert manifest.scheme == QuantScheme(activations="static").to_json()
    assert int8["batch_dependence"] <= 1e-6 and int8["float_products"] == 0
    assert (int8["integer_products"], int8["integer_lstms"]) == {
        "tinybert": (14, 0),
        "bilstm": (2, 1),
    }[name]
    assert int8["farthest_from_a_tie"] <= 1e-3 and int8["same_answers_torch"] >= 0.999
    validation = int8["tuning"]["validation"]
    assert ("tuned" in validation) == (validation["calibrated"] < validation["float"]) and {
        "float",
        "calibrated",
    } <= set(validation)


def test_a_dynamic_file_says_how_far_its_answers_move(run: RunDir) -> None:
    (bundle,) = export_run(run, ["bilstm"], task=TASK, options=ExportOptions(scheme=QuantScheme()))
    card, manifest = (bundle / "README.md").read_text(), Bundle.open(bundle).manifest
    assert manifest.scheme == QuantScheme().to_json() and "tuning" not in manifest.parity["int8"]
    int8 = manifest.parity["int8"]
    assert (
        f"{max(int8['batch_dependence'], int8['padding_dependence']):.2g}" in card
        and "other texts of its batch" in card
    )


def test_the_teacher_has_a_bundle_of_its_own(exported: RunDir) -> None:
    manifest = Bundle.open(exported.shared / "teacher-bundle").manifest
    assert manifest.name == "teacher" and set(manifest.precisions) == {"fp32", "int8"}
    assert manifest.scores["teacher"] == manifest.scores["student"] == manifest.scores["fp32"]


def test_the_bundle_is_a_hugging_face_repository_without_this_machine_in_it(
    exported: RunDir,
) -> None:
    bundle = exported.students["tinybert"].bundle
    assert json.loads((bundle / "config.json").read_text())["id2label"] == {"0": "bad", "1": "good"}
    tokenizer = json.loads((bundle / "tokenizer.json").read_text())
    assert tokenizer["padding"] is None and tokenizer["truncation"] is None
    for name, content in content_of(bundle).items():
        assert str(exported.folder).encode() not in content and b"site-packages" not in content, (
            name
        )


def test_the_card_says_what_was_measured(exported: RunDir) -> None:
    bundle = exported.students["bilstm"].bundle
    card, manifest = (bundle / "README.md").read_text(), Bundle.open(bundle).manifest
    for figure in ("teacher", "student", "fp32", "int8"):
        assert f"{manifest.scores[figure]:.4f}" in card
    for path in manifest.precisions.values():
        assert f"{(bundle / path).stat().st_size:,}" in card
    assert (
        f"{manifest.parity['int8']['padding_dependence']:.2g}" in card
        and "the same result alone and among texts of its length" in card
    )
    block = card.split("```python\n")[1].split("```")[0].replace("path/to/this/folder", str(bundle))
    exec(compile(block, "card", "exec"), {})


def test_labels_from_data_cannot_write_html_into_the_card(exported: RunDir) -> None:
    manifest = Bundle.open(exported.students["bilstm"].bundle).manifest
    spec = replace(manifest.spec, labels=("<script>alert(1)</script>", "a\n# b"))
    sizes = dict.fromkeys(manifest.precisions, 1)
    card = model_card(replace(manifest, spec=spec), ParityFigures(), sizes)
    assert "<script>" not in card and "\n# b" not in card


def test_golden_answers_are_neutral_texts_with_labels(exported: RunDir) -> None:
    bundle = Bundle.open(exported.students["bilstm"].bundle)
    golden = bundle.json("golden.json")
    texts = [row["text"] for row in golden["rows"]]
    assert len(texts) > 64 and not set(texts) & set(TASK.test.texts)
    assert golden["texts"] == "neutral" and golden["tolerance"]["fp32"] == 1e-4
    for row in golden["rows"]:
        assert row["labels"].keys() == bundle.manifest.precisions.keys()


# Checks


@pytest.mark.parametrize(
    "name, weight",
    [
        ("tinybert", "bert.pooler.dense.weight"),
        ("tinybert", "bert.encoder.layer.1.attention.self.key.weight"),
        ("bilstm", "lstm.weight_hh_l0_reverse"),
    ],
)
def test_a_changed_weight_fails_the_check_and_the_old_bundle_stays(
    run: RunDir, monkeypatch: pytest.MonkeyPatch, name: str, weight: str
) -> None:
    bundle = run.students[name].bundle
    before = content_of(bundle)

    def disturbed(model: Any) -> Any:
        graph = to_onnx(model)
        with torch.no_grad():
            model.state_dict()[weight].mul_(1.5)
        return graph

    monkeypatch.setattr(build, "to_onnx", disturbed)
    monkeypatch.setattr(export, "_export_teacher", lambda *_, **__: None)
    with pytest.raises(CheckFailed, match="largest difference"):
        export_run(run, [name], task=TASK, stages=StageContext(force=True))
    assert content_of(bundle) == before
    assert not list(run.folder.rglob("bundle.part")), "nothing that looks like a bundle stays"


def test_the_fp32_check_is_absolute_and_needs_equal_predictions() -> None:
    class Fixed(torch.nn.Module):
        def forward(self, input_ids: torch.Tensor) -> Any:
            return type(
                "Output", (), {"logits": 1000 * torch.ones(2, 2) + torch.tensor([0.0, 2e-4])}
            )

    model, batch = Fixed().eval(), {"input_ids": np.ones((2, 3), np.int64)}
    right = model(torch.ones(2, 3)).logits.numpy()
    assert check_parity(model, lambda _: right, [batch], TASK.spec) == ParityReport(
        2, 0.0, 1.0, 0.0, 0.0
    )  # type: ignore[arg-type]
    for wrong in (right + np.float32(1e-3), right * np.nan, right[:, ::-1]):
        with pytest.raises(CheckFailed, match="same predictions as torch"):
            check_parity(model, lambda _, wrong=wrong: wrong, [batch], TASK.spec)  # type: ignore[arg-type,misc]
    with pytest.raises(CheckFailed, match="evaluation mode"):
        check_parity(model.train(), lambda _: right, [batch], TASK.spec)  # type: ignore[arg-type]


def test_the_graph_may_have_twice_the_rounding_error_of_torch() -> None:
    class Rounding(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.tensor(1.0))

        def forward(self, input_ids: torch.Tensor) -> Any:
            off = 2e-5 if self.weight.dtype == torch.float32 else 0.0
            return type(
                "Output", (), {"logits": torch.tensor([[1.0 + off, 2.0]], dtype=torch.float64)}
            )

    model, batch = Rounding().eval(), {"input_ids": np.ones((1, 3), np.int64)}
    report = check_parity(model, lambda _: np.array([[1.0 - 3e-5, 2.0]]), [batch], TASK.spec)  # type: ignore[arg-type]
    assert (
        report.torch_rounding == pytest.approx(2e-5)
        and report.max_abs_logit == pytest.approx(3e-5)
        and report.torch_fp32 == pytest.approx(5e-5)
    )
    with pytest.raises(CheckFailed, match=r"(?s)within 4e-05.*torch's own: 2e-05"):
        check_parity(model, lambda _: np.array([[1.0 - 5e-5, 2.0]]), [batch], TASK.spec)  # type: ignore[arg-type]


def test_agreement_counted_by_hand() -> None:
    multilabel = factories.multilabel_task().spec
    regression = factories.regression_task().spec
    first, second = (
        np.array([[1, 0], [0, 1], [2, 3]], np.float32),
        np.array([[1, 0.5], [1, 0], [2, 3]], np.float32),
    )
    assert compare_logits(first, second, TASK.spec) == ParityReport(3, 1.0, pytest.approx(2 / 3))  # type: ignore[arg-type]
    assert compare_logits(first - 0.5, second - 0.5, multilabel).agreement == pytest.approx(
        1 / 3 + 1 / 3
    )
    assert compare_logits(first[:, :1], first[:, :1] + 0.01, regression).agreement == 1.0
    assert compare_logits(first[:, :1], first[:, :1] + 0.1, regression).agreement == 0.0


def test_parity_covers_batches_lengths_and_padding(exported: RunDir) -> None:
    classifier = Classifier.load(exported.students["bilstm"].bundle, "fp32")
    texts = TASK.test.texts
    lengths = token_lengths(classifier, texts, None)[:, 0]
    batches = parity_batches(
        lambda chosen: classifier.encode([texts[i] for i in chosen]),
        lengths,
        factories.RUN_MAX_LENGTH,
    )
    shapes = {batch["input_ids"].shape for batch in batches}
    assert {rows for rows, _ in shapes} == {1, 8, 32}
    for rows in (1, 8, 32):
        assert {length for size, length in shapes if size == rows} >= {
            1,
            2,
            3,
            factories.RUN_MAX_LENGTH,
        }
    assert any(batch["attention_mask"].min() == 0 for batch in batches)
    assert all(batch["attention_mask"].sum(1).min() >= 1 for batch in batches)


def test_length_steps_and_generated_rows_by_hand() -> None:
    assert length_steps(20) == [1, 2, 3, 5, 8, 13, 20] and length_steps(1) == [1]
    batch = generated_batch(
        {"input_ids": np.array([7, 8, 9]), "attention_mask": np.ones(3, np.int64)}, 2, 4
    )
    assert batch["input_ids"].tolist() == [[7, 8, 9, 7], [8, 9, 7, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 1, 0]]


# Cached, repeated, failed


def test_a_second_export_keeps_the_bundle_unless_something_changed(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, messages = content_of(run.students["bilstm"].bundle), RecordedMessages()
    with monkeypatch.context() as patch:
        patch.setattr(build, "to_onnx", lambda _: pytest.fail("nothing has changed"))
        stages = StageContext(progress=messages)
        export_run(run, ["bilstm"], task=TASK, options=factories.both_files(), stages=stages)
    assert (
        messages.text.count("same inputs, kept") == 2
        and content_of(run.students["bilstm"].bundle) == before
    )
    export_run(run, ["bilstm"], task=TASK, options=ExportOptions(scheme=QuantScheme()))
    manifest = Bundle.open(run.students["bilstm"].bundle).manifest
    assert manifest.scheme == QuantScheme().to_json()
    assert not list(run.folder.rglob("*.part")) and not list(run.folder.rglob("*.old"))


@pytest.mark.parametrize("damage", ["cut", "zeroed", "figures", "no stage"])
def test_a_damaged_int8_student_is_made_again(run: RunDir, damage: str) -> None:
    stage, before = (
        run.students["bilstm"].int8,
        content_of(run.students["bilstm"].bundle)["onnx/model_quantized.onnx"],
    )
    weights, note = stage / "model.safetensors", stage / "stage.json"
    if damage == "cut":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif damage == "zeroed":
        weights.write_bytes(weights.read_bytes()[:-100] + bytes(100))
    elif damage == "figures":
        document = json.loads(note.read_text())
        note.write_text(json.dumps(document | {"result": {}}))
    else:
        note.unlink()
    shutil.rmtree(run.students["bilstm"].bundle)
    export_run(run, ["bilstm"], task=TASK)
    assert content_of(run.students["bilstm"].bundle)["onnx/model_quantized.onnx"] == before


@pytest.mark.slow
def test_force_tunes_the_int8_student_again(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    monkeypatch.setattr(
        prepare,
        "quantize_aware_tune",
        lambda *args, **kwargs: made.append(1) or qat.quantize_aware_tune(*args, **kwargs),
    )
    shutil.rmtree(run.students["bilstm"].bundle)
    export_run(run, ["bilstm"], task=TASK)
    assert not made, "the stage has the same inputs"
    export_run(run, ["bilstm"], task=TASK, stages=StageContext(force=True))
    assert made == [1]


def test_truncated_weights_of_a_student_are_an_error(run: RunDir) -> None:
    weights, before = (
        run.students["bilstm"].student / "model.safetensors",
        content_of(run.students["bilstm"].bundle),
    )
    weights.write_bytes(weights.read_bytes()[:-100])
    factories.record_again(weights.parent)
    with pytest.raises(IntegrityError, match="weights cannot be read"):
        export_run(run, ["bilstm"], task=TASK)
    assert content_of(run.students["bilstm"].bundle) == before


@pytest.mark.parametrize(
    "options",
    [
        ExportOptions(("fp32",)),
        ExportOptions(scheme=QuantScheme()),
    ],
)
def test_the_teachers_bundle_is_the_same_whatever_is_chosen_for_students(
    run: RunDir, options: ExportOptions
) -> None:
    before = content_of(run.shared / "teacher-bundle")
    export_run(run, ["bilstm"], task=TASK, options=options)
    assert content_of(run.shared / "teacher-bundle") == before


@pytest.mark.parametrize(
    "options, detail",
    [
        ({"precisions": ("fp32",), "tune": False}, "--no-qat with --precision fp32"),
        (
            {"precisions": ("fp32",), "scheme": QuantScheme()},
            "--scheme dynamic --weight-bits 7 with --precision fp32",
        ),
        (
            {"scheme": QuantScheme(), "tune": False},
            "--no-qat with --scheme dynamic --weight-bits 7",
        ),
        ({"precisions": ("fp8",)}, "fp8"),
    ],
)
def test_options_without_effect_are_errors(options: dict[str, Any], detail: str) -> None:
    with pytest.raises(UsageError, match=detail):
        ExportOptions(**options)


@pytest.mark.parametrize("activations", ["static", "dynamic"])
@pytest.mark.parametrize("overflow", [True, False])
def test_eight_bits_are_an_error_if_they_overflow(
    run: RunDir, monkeypatch: pytest.MonkeyPatch, overflow: bool, activations: str
) -> None:
    monkeypatch.setattr(export, "overflows", lambda largest: overflow and largest == 127)
    monkeypatch.setattr(export, "_export_student", lambda *_, **__: Path("reached"))
    options = ExportOptions(scheme=QuantScheme(weight_bits=8, activations=activations))
    if overflow:
        with pytest.raises(UsageError, match="overflow on this CPU"):
            export_run(run, ["bilstm"], task=TASK, options=options)
    else:
        assert export_run(run, ["bilstm"], task=TASK, options=options) == [Path("reached")]
    assert not overflows(63), "seven bits overflow nowhere"


def test_a_text_is_compared_with_itself_among_others_of_its_length_and_padded() -> None:
    lengths = np.array([3, 3, 5, 5, 5, 9])
    alone = np.zeros(6, dtype=int)
    assert of_one_length(lengths, alone) == [[0, 1], [2, 3, 4], [5]]
    assert of_one_length(lengths, np.array([1, 2, 2, 3, 3, 4])) == [[0], [3, 4], [5]]

    def encode(rows: Sequence[int]) -> dict[str, np.ndarray]:
        return {"length": lengths[list(rows)].astype(float), "row": np.array(rows)}

    def run(batch: dict[str, np.ndarray]) -> np.ndarray:
        """Moves with padding, and a lone text of length 9 among others."""
        padded = batch["length"] < batch["length"].max()
        shift = 2.0 * padded + 0.5 * ((batch["length"] == 9) & (len(batch["row"]) > 1))
        return np.stack([batch["row"] - 2.5 + shift, np.zeros(len(shift))], 1)

    found = measure_batch_dependence(run, encode, lengths, alone, TASK.spec)
    assert found == BatchDependence(
        batch_dependence=0.5,
        padding_texts=6,
        padding_moved=6,
        padding_dependence=2.0,
        padding_changes=2,
    )


def dependence(batch: float = 0.0, changes: int = 0, texts: int = 32) -> BatchDependence:
    return BatchDependence(
        batch_dependence=batch,
        padding_texts=texts,
        padding_moved=0,
        padding_dependence=0.01,
        padding_changes=changes,
    )


def test_a_rounding_step_under_padding_passes_and_more_does_not() -> None:
    check_batch_independence(dependence(changes=1))
    check_batch_independence(dependence(changes=5, texts=512))
    with pytest.raises(CheckFailed, match="same result alone and in a batch"):
        check_batch_independence(dependence(changes=1, texts=512), exact=True)
    for wrong in (
        dependence(batch=1e-3),
        dependence(changes=2),
        dependence(changes=6, texts=512),
        dependence(batch=float("nan")),
    ):
        with pytest.raises(CheckFailed, match="same result alone and in a batch"):
            check_batch_independence(wrong)


def test_the_most_sensitive_layers_are_named_in_the_end(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kdedge.data.load_task", lambda *_, **__: TASK)
    shown = (
        CliRunner()
        .invoke(command.export, [str(run.students["tinybert"].folder)], catch_exceptions=False)
        .stdout
    )
    manifest = Bundle.open(run.students["tinybert"].bundle).manifest
    changes = manifest.parity["int8"]["tuning"]["sensitivity"]
    worst = max(changes, key=lambda name: changes[name])
    assert f"{worst} {changes[worst]:.2g}" in shown and f"these of {len(changes)} layers" in shown


def test_a_damaged_bundle_is_made_again(run: RunDir) -> None:
    (run.students["bilstm"].bundle / "golden.json").write_text("{}")
    (bundle,) = export_run(run, ["bilstm"], task=TASK)
    assert Bundle.open(bundle).json("golden.json")["rows"]


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_one_precision_alone(run: RunDir, precision: str) -> None:
    (bundle,) = export_run(run, ["bilstm"], task=TASK, options=ExportOptions((precision,)))
    manifest = Bundle.open(bundle).manifest
    assert list(manifest.precisions) == [precision] and [
        path.name for path in (bundle / "onnx").iterdir()
    ] == [Path(manifest.precisions[precision]).name]
    assert Classifier.load(bundle).precision == precision
    assert manifest.parity["fp32"]["max_abs_logit"] <= FP32_TOLERANCE, (
        "the fp32 graph is checked in any case"
    )


@pytest.mark.parametrize(
    "error",
    [
        MachineError("torch cannot export this architecture", "Odd"),
        RuntimeError("Inferred shape and existing shape differ"),
    ],
)
def test_a_teacher_that_cannot_be_exported_stops_nobody_and_leaves_no_stale_bundle(
    run: RunDir, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    (run.teacher / "tokenizer.json").write_text(
        (run.teacher / "tokenizer.json").read_text() + "\n"
    )  # another teacher than the exported one
    factories.record_again(run.teacher)
    trained = run.students["bilstm"].student / STAGE_FILE
    document = json.loads(trained.read_text())
    document["inputs"]["teacher"] = hash_model(run.teacher)
    trained.write_text(json.dumps(document))

    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(export, "load_teacher", fail)
    messages = RecordedMessages()
    (bundle,) = export_run(run, ["bilstm"], task=TASK, stages=StageContext(progress=messages))
    assert Bundle.open(bundle) and "teacher: not exported" in messages.text
    assert not (run.shared / "teacher-bundle").exists()


def test_an_interruption_in_the_teacher_is_not_swallowed(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any, **__: Any) -> None:
        raise Interrupted(2, "stopped")

    monkeypatch.setattr(export, "load_teacher", stop)
    with pytest.raises(Interrupted):
        export_run(run, ["bilstm"], task=TASK, stages=StageContext(force=True))


def test_a_full_disk_is_an_error_and_the_old_bundle_stays(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = content_of(run.students["bilstm"].bundle)

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pack, "_save_tokenizer", full)
    with pytest.raises(MachineError, match="No space left"):
        export_run(run, ["bilstm"], task=TASK, stages=StageContext(force=True))
    assert content_of(run.students["bilstm"].bundle) == before


def test_a_student_that_was_not_trained_is_an_error(run: RunDir) -> None:
    shutil.rmtree(run.students["bilstm"].student)
    with pytest.raises(UsageError, match="not been trained"):
        export_run(run, ["bilstm"], task=TASK)


@pytest.mark.slow
def test_a_pair_run_goes_through_with_both_students(tmp_path: Path) -> None:
    task = factories.pair_task()
    run = factories.make_run(tmp_path, task, ("tinybert", "bilstm"))
    for bundle in export_run(run, ["tinybert", "bilstm"], task=task):
        manifest = Bundle.open(bundle).manifest
        assert manifest.inputs == ("input_ids", "attention_mask", "token_type_ids")
        assert manifest.scores["fp32"] == manifest.scores["student"]


# kdedge export


def test_the_command_ends_with_a_table_and_one_document(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kdedge.data.load_task", lambda *_, **__: TASK)
    result = CliRunner().invoke(
        command.export, [str(run.students["bilstm"].folder), "--json"], catch_exceptions=False
    )
    assert result.exit_code == 0 and "same inputs, kept" in result.stderr
    document = json.loads(result.stdout.splitlines()[-1])
    (row,) = document["bundles"]
    bundle = Bundle.open(Path(row["bundle"]))
    assert row["scores"] == dict(bundle.manifest.scores)
    for path in bundle.manifest.precisions.values():
        assert f"{bundle.manifest.files[path]['bytes']:,}" in result.stdout


def test_bench_rejects_a_bundle_made_from_other_weights(run: RunDir) -> None:
    from kdedge.benchmarks.collect import collect_subjects
    from kdedge.benchmarks.options import Options

    (run.students["bilstm"].student / "tokenizer.json").write_text(
        (run.students["bilstm"].student / "tokenizer.json").read_text() + "\n"
    )
    factories.record_again(run.students["bilstm"].student)
    with pytest.raises(UsageError, match="made from other weights"):
        list(collect_subjects(run, ["bilstm"], TASK, Options(teacher=False)))
