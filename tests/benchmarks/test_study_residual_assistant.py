"""The residual assistant learns teacher minus student, and its gain is that of the sum."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import factories
import numpy as np
import pytest
from click.testing import CliRunner
from residual_assistant import Gain, assistant_config, gain_on, residual, study

from kdedge.distillation.pipeline import distill, prepare_context
from kdedge.distillation.student_training import load_trained_student
from kdedge.errors import UsageError
from kdedge.nn.text_model import TextClassifier
from kdedge.run.layout import RunDir

OVERRIDES = ("student.fit.epochs=12", "student.fit.learning_rate=0.01")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """A run whose student has hardly learned."""
    folder = tmp_path_factory.mktemp("assistant")
    student = factories.tinybert_config(fit={"epochs": 1.0, "checks": 1, "learning_rate": 1e-6})
    return distill(
        factories.make_recipe(factories.write_data_and_teacher(folder), student=student),
        folder / "runs",
    )


@pytest.fixture(scope="module")
def output(run: RunDir) -> str:
    arguments = [str(run.folder)]
    for override in OVERRIDES:
        arguments += ["--set", override]
    result = CliRunner().invoke(study, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout


def student_of(run: RunDir) -> TextClassifier:
    return load_trained_student(run.folder / "student")


def assistant_of(run: RunDir) -> TextClassifier:
    return load_trained_student(run.folder / "residual-assistant" / "tinybert")


def test_the_assistant_is_closer_to_the_residual_than_zero_is(run: RunDir, output: str) -> None:
    context = prepare_context(run.recipe, run)
    student = student_of(run)
    texts = context.transfer.texts.replace_mask_token(context.teacher.tokenizer, student.tokenizer)
    target = residual(context, student).logits
    together = target + student.predict_logits(texts.texts, texts.pairs)
    assert (together.argmax(1) == context.transfer.logits.argmax(1)).all()
    assert np.allclose(target.mean(1), 0, atol=1e-5)
    left = target - assistant_of(run).predict_logits(texts.texts, texts.pairs)
    assert (left**2).mean() < 0.8 * (target**2).mean()


def test_the_table_shows_the_scores_of_the_sum(run: RunDir, output: str) -> None:
    task = prepare_context(run.recipe, run).task
    logits = student_of(run).predict_logits(task.test.texts, None)
    logits = logits + assistant_of(run).predict_logits(task.test.texts, None)
    score = (logits.argmax(1) == task.test.labels).mean()
    (row,) = [line for line in output.splitlines() if line.startswith("| test |")]
    assert row.split("|")[3].strip() == f"{score:.4f}"


def test_the_run_and_its_student_stay_as_they_are(run: RunDir, output: str) -> None:
    before = (run.folder / "student" / "stage.json").read_text()
    again = distill(run.recipe, run.folder.parent)
    assert (again.folder / "student" / "stage.json").read_text() == before
    assert not (again.folder / "residual-assistant.part").exists()


def test_an_unknown_student_is_a_usage_error(run: RunDir) -> None:
    with pytest.raises(UsageError, match="no such student"):
        assistant_config(run.recipe, "bilstm")


def test_a_gain_helps_only_if_its_interval_excludes_zero() -> None:
    gain = Gain(student=0.8, both=0.81, low=-0.002, high=0.02)
    assert gain.verdict == "inconclusive"
    assert replace(gain, low=0.001).verdict == "helps"
    assert replace(gain, both=0.79).verdict == "does not help"


def test_the_interval_of_a_gain(tmp_path: Path) -> None:
    task = factories.single_task()
    right = np.eye(2, dtype=np.float32)[task.validation.labels]

    def gain(student: np.ndarray, both: np.ndarray) -> Gain:
        return gain_on(task.validation, task.spec, student, both - student)

    equal = gain(right, right)
    assert (equal.low, equal.high) == (0.0, 0.0)
    full = gain(1 - right, right)
    assert (full.low, full.high) == (1.0, 1.0)
    half = right.copy()
    half[:4] = 1 - half[:4]
    some = gain(half, right)
    assert 0 < some.low < 4 / 32 < some.high < 0.4
