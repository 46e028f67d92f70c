"""Float, calibrated and tuned files compared, and bundles with int8 only if it is worth it."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import factories
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from kdedge.export import export, qat, qat_training, variants
from kdedge.export.export import ExportOptions, export_run
from kdedge.export.fake_model import range_owners
from kdedge.export.figures import FLOAT, SplitFigures, Variant, VariantDecision, VocabularyFigures
from kdedge.export.qat_score import ScoreWithAgreement
from kdedge.export.qat_training import QatModule
from kdedge.export.variants import accuracy_loss_reason, latency_reason
from transformers import PreTrainedModel

from kdedge.cli import export as command
from kdedge.data.task import Split, Task
from kdedge.errors import CheckFailed
from kdedge.nn import losses
from kdedge.nn.batching import PaddingCollator
from kdedge.nn.inference import predict_logits
from kdedge.nn.losses import logit_loss
from kdedge.nn.tokenization import encode
from kdedge.nn.training_plan import Training
from kdedge.recipe import ObjectiveConfig, QuantizeConfig
from kdedge.run.layout import RunDir
from kdedge.run.progress import Silent
from kdedge.run.stage import StageContext
from kdedge.runtime import Bundle, Classifier
from kdedge.runtime.layout import PRECISIONS


def decided_student(kind: str) -> PreTrainedModel:
    """An untrained student that gives both labels, each to half of the texts."""
    task = factories.single_task()
    model = factories.random_student({"tinybert": "bert"}.get(kind, kind), task.spec)
    logits = logits_of(model, task.validation)
    with torch.no_grad():
        model.classifier.bias[0] -= float(np.median(logits[:, 0] - logits[:, 1]))
    return model


def logits_of(model: PreTrainedModel, split: Split) -> np.ndarray:
    return predict_logits(
        model,
        encode(factories.tokenizer(), split.texts, None, factories.RUN_MAX_LENGTH),
        PaddingCollator(0),
    )


def task_solved_by(model: PreTrainedModel) -> Task:
    """Return a task whose labels are the predictions of a student, which so scores 1."""
    task = factories.single_task()
    train, validation, test = (
        replace(split, labels=logits_of(model, split).argmax(1))
        for split in (task.train, task.validation, task.test)
    )
    assert 0.3 < validation.labels.mean() < 0.7 and 0.2 < test.labels.mean() < 0.8
    return replace(task, train=train, validation=validation, test=test)


def with_many_texts(task: Task, model: PreTrainedModel) -> Task:
    """Return the task with more texts to judge: with few, two files may score the same."""

    def split(count: int, seed: int) -> Split:
        texts, _ = factories.sentences(count, seed)
        unlabelled = Split(texts, None, np.zeros(count, np.int64))
        return replace(unlabelled, labels=logits_of(model, unlabelled).argmax(1))

    return replace(task, validation=split(300, seed=4), test=split(1000, seed=5))


TASK = task_solved_by(decided_student("bilstm"))


def decided_run(folder: Path, kind: str = "bilstm", **quantize: object) -> tuple[RunDir, Task]:
    model = decided_student(kind)
    task = task_solved_by(model)
    return factories.make_run(folder, task, (kind,), quantize=quantize, model=model), task


class RecordedMessages(Silent):
    def __init__(self) -> None:
        self.text = ""

    def say(self, line: str) -> None:
        self.text += line + "\n"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunDir:
    monkeypatch.setattr(export, "_export_teacher", lambda *_, **__: None)
    return decided_run(tmp_path)[0]


def spoil_ranges(model: torch.nn.Module, *_: object) -> float:
    """A failed calibration: every activation becomes nearly 0."""
    with torch.no_grad():
        for layer in range_owners(model).values():
            layer.range.high.fill_(1e-3)
    return 1.0


def test_the_figures_of_every_variant_can_be_measured_again(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kdedge.data.load_task", lambda *_, **__: TASK)
    arguments = [str(run.folder), "--precision", "all"]
    result = CliRunner().invoke(command.export, arguments, catch_exceptions=False)
    bundle = Bundle.open(run.students["bilstm"].bundle)
    judged, manifest = bundle.manifest.parity["variants"], bundle.manifest
    named = {FLOAT: "fp32", judged["int8"]: "int8"}
    assert judged["int8"] in ("calibrated", "tuned") and judged["loss_reason"] is None
    logits = {
        name: Classifier.from_bundle(bundle, precision).logits(TASK.test.texts)
        for name, precision in named.items()
    }
    for name, precision in named.items():
        way = judged["files"][name]
        assert (
            way["metric"] == manifest.scores[precision]
            and way["bytes"] == manifest.files[manifest.precisions[precision]]["bytes"]
        )
        assert (
            way["agreement"] == np.mean(logits[name].argmax(1) == logits[FLOAT].argmax(1))
            and way["p50_us"] > 1
        )
        assert f"{way['bytes']:,}" in result.stdout and f"{way['p50_us']:,.0f}" in result.stdout
    for name, way in judged["files"].items():
        assert (
            name in result.stdout
            and f"| {name} | {way['metric']:.4f} |" in (bundle.folder / "README.md").read_text()
        )


def test_there_is_no_tuning_if_calibration_lost_nothing(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ScoreWithAgreement, "score", lambda *_: 0.5)
    messages = RecordedMessages()
    manifest = Bundle.open(
        export_run(run, ["bilstm"], task=TASK, stages=StageContext(progress=messages))[0]
    ).manifest
    assert (
        manifest.parity["int8"]["tuning"]["validation"] == {"float": 0.5, "calibrated": 0.5}
        and "no tuning" in messages.text
    )
    assert set(manifest.parity["variants"]["files"]) == {FLOAT, "calibrated"}


@pytest.mark.slow
def test_tuning_recovers_what_calibration_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "_export_teacher", lambda *_, **__: None)
    model = decided_student("tinybert")
    task = with_many_texts(task_solved_by(model), model)
    settings = {"steps": 150, "learning_rate": 2e-4, "checks": 5}
    run = factories.make_run(
        tmp_path, task, ("tinybert",), teacher=deepcopy(model), model=model, quantize=settings
    )
    manifest = Bundle.open(export_run(run, ["tinybert"], task=task)[0]).manifest
    judged, validation = (
        manifest.parity["variants"],
        manifest.parity["int8"]["tuning"]["validation"],
    )
    assert (
        validation["calibrated"] < validation["tuned"] <= validation["float"]
        and judged["int8"] == "tuned"
    )
    assert judged["files"]["calibrated"]["agreement"] < judged["files"]["tuned"]["agreement"], (
        "of the reported texts, which chose nothing"
    )


@torch.no_grad()
@pytest.mark.parametrize("kind", ["tinybert", "bilstm"])
def test_tuning_matches_the_teacher_and_the_float_student(kind: str) -> None:
    student = decided_student(kind).eval()
    tuning = QatModule(
        deepcopy(student),
        student,
        QuantizeConfig(float_weight=2.0, hidden_weight=3.0),
        losses.logit_mse,
    )
    texts = factories.tokenizer()(
        list(TASK.validation.texts[:8]), padding=True, return_tensors="pt"
    )
    batch = {name: texts[name] for name in ("input_ids", "attention_mask", "token_type_ids")}
    logits = student(**batch).logits.detach()
    assert [float(part) for part in tuning(logits, **batch)["parts"].values()] == pytest.approx(
        [0.0, 0.0, 0.0]
    )
    tuning.model.classifier.bias += 0.5
    moved = tuning(logits - 0.5, **batch)
    assert {name: float(part) for name, part in moved["parts"].items()} == pytest.approx(
        {"logits": 1.0, "float": 0.25, "hidden": 0.0}, abs=1e-6
    )
    assert float(moved["loss"]) == pytest.approx(1.0 + 2 * 0.25, rel=1e-5)
    next(tuning.model.parameters()).add_(0.1 * torch.randn(next(tuning.model.parameters()).shape))
    changed = tuning(logits, **batch)
    assert changed["parts"]["hidden"] > 1e-6
    assert float(changed["loss"]) == pytest.approx(
        float(
            changed["parts"]["logits"]
            + 2 * changed["parts"]["float"]
            + 3 * changed["parts"]["hidden"]
        ),
        rel=1e-5,
    )


@torch.no_grad()
def test_a_student_distilled_with_kl_is_tuned_with_kl() -> None:
    """KL does not fix the level of logits, so only the float student's level counts."""
    student = decided_student("tinybert").eval()
    tuning = QatModule(
        deepcopy(student),
        student,
        QuantizeConfig(),
        logit_loss(ObjectiveConfig(), "classification"),
    )
    batch = dict(
        factories.tokenizer()(list(TASK.validation.texts[:8]), padding=True, return_tensors="pt")
    )
    logits = student(**batch).logits
    assert float(tuning(logits + 3.0, **batch)["parts"]["logits"]) == pytest.approx(0.0, abs=1e-6)
    assert float(
        QatModule(deepcopy(student), student, QuantizeConfig(), losses.logit_mse)(
            logits + 3.0, **batch
        )["parts"]["logits"]
    ) == pytest.approx(9.0, rel=1e-4)
    tuning.model.classifier.bias += 0.5
    assert float(tuning(logits, **batch)["parts"]["float"]) == pytest.approx(0.25, rel=1e-4)


def test_tuning_that_changes_predictions_is_rejected_in_spite_of_its_score(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    def turned(tuning: torch.nn.Module, training: Training, *_: object, **__: object) -> float:
        """A student of other answers."""
        with torch.no_grad():
            tuning.model.classifier.weight.neg_()  # type: ignore[union-attr,operator]
        return training.score(training.predict(tuning))

    rising = {"float": 0.5, "calibrated": 0.4}
    monkeypatch.setattr(ScoreWithAgreement, "calibration_suffices", lambda _: False)
    monkeypatch.setattr(qat_training, "train", turned)
    monkeypatch.setattr(
        ScoreWithAgreement,
        "score",
        lambda judge, logits: (
            0.5 if logits is judge.reference else 0.4 if logits is judge.calibrated else 0.6
        ),
    )
    messages = RecordedMessages()
    manifest = Bundle.open(
        export_run(run, ["bilstm"], task=TASK, stages=StageContext(progress=messages))[0]
    ).manifest
    tuning = manifest.parity["int8"]["tuning"]
    assert tuning["validation"] == rising | {"tuned": 0.6} and tuning["weights"] == "calibrated"
    assert (
        tuning["agreement"]["tuned"] < 0.9 < tuning["agreement"]["calibrated"]
        and "split equal those of the float student" in messages.text
    )


def test_tuning_needs_a_lower_score_and_more_than_a_few_changed_predictions() -> None:
    labels = np.arange(400) % 2
    right = np.eye(2, dtype=np.float32)[labels]
    task = replace(TASK, validation=Split(tuple(map(str, range(400))), None, labels))

    def turned(rows: slice) -> np.ndarray:
        logits = right.copy()
        logits[rows] = logits[rows, ::-1]
        return logits

    assert ScoreWithAgreement(task, right, turned(slice(2))).calibration_suffices(), (
        "0.5 % of the answers"
    )
    assert not ScoreWithAgreement(task, right, turned(slice(3))).calibration_suffices()
    assert ScoreWithAgreement(task, turned(slice(3)), right).calibration_suffices(), (
        "many answers, and a better score"
    )


def test_a_tuned_student_is_rated_by_its_score_if_it_agrees() -> None:
    float_student = np.eye(2, dtype=np.float32)[np.arange(400) % 2]

    def others(count: int) -> np.ndarray:
        """Return the logits with the first `count` reversed."""
        return np.concatenate([float_student[:count, ::-1], float_student[count:]])

    task = replace(TASK, validation=Split(tuple(map(str, range(400))), None, np.arange(400) % 2))
    rated = ScoreWithAgreement(task, float_student, others(0))
    assert [rated(others(count)) for count in (0, 4, 5)] == pytest.approx([1.0, 0.99, -1 - 5 / 400])
    assert ScoreWithAgreement(task, float_student, others(20))(others(20)) == pytest.approx(0.95), (
        "no worse than calibration alone"
    )
    assert ScoreWithAgreement(task, float_student, others(20))(others(21)) == pytest.approx(
        -1 - 21 / 400
    )
    assert not ScoreWithAgreement(task, float_student, others(20)).agrees(
        others(21)
    ) and ScoreWithAgreement(task, float_student, others(20)).agrees(others(20))


def test_without_tuning_there_are_two_variants(run: RunDir) -> None:
    (bundle,) = export_run(run, ["bilstm"], task=TASK, options=ExportOptions(tune=False))
    judged = Bundle.open(bundle).manifest.parity["variants"]
    decision = VariantDecision.from_json(judged)
    assert [name for name, _ in decision.rows()] == [FLOAT, "calibrated"]
    assert decision.int8 == "calibrated"
    assert list(Bundle.open(bundle).manifest.precisions) == ["int8"], "packed by default"
    assert not (bundle / PRECISIONS["fp32"]).exists()


def test_an_int8_file_that_loses_too_much_is_left_out(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(qat, "calibrate", spoil_ranges)
    messages = RecordedMessages()
    (bundle,) = export_run(
        run,
        ["bilstm"],
        task=TASK,
        options=ExportOptions(tune=False),
        stages=StageContext(progress=messages),
    )
    manifest = Bundle.open(bundle).manifest
    assert (
        list(manifest.precisions) == ["fp32"]
        and manifest.scheme is None
        and Classifier.load(bundle).precision == "fp32"
    )
    assert (
        "int8 is not worth packing" in messages.text
        and "contains no int8 file" in (bundle / "README.md").read_text()
    )
    assert (
        manifest.parity["variants"]["files"]["calibrated"]["metric"]
        < manifest.scores["fp32"]
        == 1.0
    )


def test_an_int8_file_that_saves_no_bytes_is_left_out(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure = variants.measure_variants

    def large_int8(classifiers: object, sizes: dict[str, int], split: Split) -> object:
        return measure(classifiers, {**sizes, "calibrated": sizes[FLOAT]}, split)  # type: ignore[arg-type]

    monkeypatch.setattr(variants, "measure_variants", large_int8)
    messages = RecordedMessages()
    (bundle,) = export_run(
        run,
        ["bilstm"],
        task=TASK,
        options=ExportOptions(tune=False),
        stages=StageContext(progress=messages),
    )
    assert list(Bundle.open(bundle).manifest.precisions) == ["fp32"]
    assert "it is no smaller" in messages.text


def test_the_loss_of_a_smaller_vocabulary_counts_together_with_that_of_int8(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    split = SplitFigures(before=1.5, after=1.0, agreement=1.0)
    figures = VocabularyFigures({"before": 2, "after": 1}, split, split)
    monkeypatch.setattr(
        export, "apply_vocab_trim", lambda *args, **_: replace(args[3], vocabulary=figures)
    )
    messages = RecordedMessages()
    manifest = Bundle.open(
        export_run(
            run,
            ["bilstm"],
            task=TASK,
            options=ExportOptions(tune=False),
            stages=StageContext(progress=messages),
        )[0]
    ).manifest
    assert list(manifest.precisions) == ["fp32"] and "it loses 0.5" in messages.text


def test_a_bundle_of_int8_only_fails_if_int8_loses_too_much(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    (bundle,) = export_run(run, ["bilstm"], task=TASK, options=ExportOptions(("fp32",)))
    before = (bundle / "kdedge.json").read_bytes()
    monkeypatch.setattr(qat, "calibrate", spoil_ranges)
    with pytest.raises(CheckFailed, match="not worth packing"):
        export_run(run, ["bilstm"], task=TASK, options=ExportOptions(("int8",), tune=False))
    assert (bundle / "kdedge.json").read_bytes() == before


def test_a_drop_counts_when_it_is_more_than_the_limit_and_more_than_one_text() -> None:
    assert (
        accuracy_loss_reason(0.9, 0.89, 1000, 0.01) is None
        and accuracy_loss_reason(0.9, 0.91, 1000, 0.0) is None
    )
    assert (
        accuracy_loss_reason(0.9, 0.88, 1000, 0.01)
        == "it loses 0.0200 on the validation split, 0.01 is allowed"
    )
    assert (
        accuracy_loss_reason(1.0, 0.9, 10, 0.01) is None
        and accuracy_loss_reason(1.0, 0.8, 10, 0.01) is not None
    )


def test_a_file_that_is_not_faster_is_reported() -> None:
    times = {
        FLOAT: (100.0, (1.0, 1.0, 1.0)),
        "tuned": (130.0, (1.8, 1.7, 1.9)),
        "dynamic": (90.0, (0.9, 0.8, 1.1)),
    }
    files = {name: Variant(1.0, 1.0, 3, *figures) for name, figures in times.items()}
    assert latency_reason(files, "tuned") is None, (
        "a median over other moments says less than the ratios of the same ones"
    )
    assert (
        latency_reason(files, "dynamic")
        == "it is not faster: 90 µs compared with 100, 0.90x [0.80-1.10]"
    )


def test_files_are_timed_in_turn() -> None:
    calls: list[str] = []

    class Named:
        def __init__(self, name: str) -> None:
            self.name = name

        def logits(self, *_: object) -> None:
            calls.append(self.name)

    timings = variants.time_in_turn({name: Named(name) for name in "ab"}, TASK.test)  # type: ignore[misc]
    rounds = len(timings["a"].rounds)
    assert rounds == len(timings["b"].rounds) >= variants.TIMED_TEXTS
    timed = calls[-2 * rounds :]  # after the warm-up
    assert all({timed[i], timed[i + 1]} == {"a", "b"} for i in range(0, len(timed), 2))
