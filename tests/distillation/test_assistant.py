"""The residual assistant: it learns teacher minus student, both answers are summed, and what that costs is told."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
import tinyrun
import torch
from kdedge.export.export import export_run

from kdedge.cli.distill import show
from kdedge.data import load_task
from kdedge.distillation.assistant import Gain, gained, residual
from kdedge.distillation.pipeline import distill, gains, prepare_context, scores
from kdedge.errors import UsageError
from kdedge.nn.text_model import TextClassifier
from kdedge.nn.tokenization import load_tokenizer
from kdedge.recipe import Recipe, load_recipe, with_values
from kdedge.run.layout import RunDir
from kdedge.run.stage import read_stage
from kdedge.students.build import load_student

ASSISTANT = {
    "kind": "bilstm",
    "start": "scratch",
    "embedding": 16,
    "hidden": 8,
    "head": 8,
    "max_length": 24,
}
ASSISTANT |= {"fit": {"epochs": 12.0, "checks": 3, "learning_rate": 1e-2, "batch_size": 16}}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """A student that has hardly learned, and its assistant."""
    folder = tmp_path_factory.mktemp("assistant")
    student = tinyrun.tinybert(
        assistant=ASSISTANT, fit={"epochs": 1.0, "checks": 1, "learning_rate": 1e-6}
    )
    return distill(tinyrun.recipe(tinyrun.prepare(folder), student=student), folder / "runs")


def opened(run: RunDir, name: str) -> TextClassifier:
    folder = run.folder / name
    return TextClassifier(
        load_student(folder), load_tokenizer(folder), read_stage(folder)["result"]["max_length"]
    )


def test_the_assistant_comes_nearer_to_the_residual_than_nothing_does(made: RunDir) -> None:
    context = prepare_context(made.recipe, made)
    texts = context.transfer.texts.replace_mask_token(
        context.teacher.tokenizer, opened(made, "student").tokenizer
    )
    left = residual(context, opened(made, "student")).logits
    said = left + opened(made, "student").predict_logits(texts.texts, texts.pairs)
    assert (said.argmax(1) == context.transfer.logits.argmax(1)).all() and np.allclose(
        left.mean(1), 0, atol=1e-5
    ), "the teacher's answers, and no more"
    after = left - opened(made, "assistant").predict_logits(texts.texts, texts.pairs)
    assert (after**2).mean() < 0.8 * (left**2).mean(), (
        "teacher minus student is what it was trained on"
    )


def test_what_is_reported_is_the_sum(made: RunDir) -> None:
    task = load_task(made.recipe.data, made.recipe.task, name="r", seed=0)
    student, assistant = opened(made, "student"), opened(made, "assistant")
    together = student.predict_logits(task.test.texts, None) + assistant.predict_logits(
        task.test.texts, None
    )
    result = read_stage(made.folder / "assistant")["result"]
    assert np.allclose(np.load(made.folder / "assistant" / "test_logits.npy"), together, atol=1e-5)
    assert result["test"] == pytest.approx((together.argmax(1) == task.test.labels).mean())
    rows = {row["model"]: row for row in scores(made)}
    assert list(rows) == ["teacher", "tinybert", "tinybert + assistant"]
    assert (
        rows["tinybert + assistant"]["test"] == result["test"]
        and rows["tinybert"]["test"] != result["test"]
    )
    sizes = [sum(p.numel() for p in model.model.parameters()) for model in (student, assistant)]
    gain = gains(made)["tinybert"]
    assert rows["tinybert + assistant"]["parameters"] == sum(sizes) and gain.parameters == sizes[1]
    assert gain.validation == pytest.approx(
        rows["tinybert + assistant"]["validation"] - rows["tinybert"]["validation"]
    )
    assert gain.low <= gain.validation <= gain.high and gain.both_us > gain.alone_us > 0
    assert gain.bytes == (made.folder / "assistant" / "model.safetensors").stat().st_size


def test_the_report_says_what_it_adds_and_costs(
    made: RunDir, capsys: pytest.CaptureFixture[str]
) -> None:
    show(made, as_json=False)
    said = capsys.readouterr().out
    assert f"tinybert + assistant: {gains(made)['tinybert']}" in " ".join(said.split())


def test_whether_it_pays_is_said_no_louder_than_it_shows() -> None:
    gain = Gain(
        validation=0.01,
        low=-0.002,
        high=0.02,
        parameters=1000,
        bytes=4000,
        alone_us=100.0,
        both_us=150.0,
    )
    assert (
        "inconclusive" in str(gain)
        and "1.50x the time" in str(gain)
        and "1,000 parameters" in str(gain)
    )
    assert gain.verdict != replace(gain, low=0.001).verdict == "pays"
    assert replace(gain, validation=-0.001).verdict == "does not pay"


def test_the_interval_of_a_gain() -> None:
    task = tiny.single_task()
    right = np.eye(2, dtype=np.float32)[task.validation.labels]
    assert gained(task, right, right, 0) == (0.0, 0.0)
    assert gained(task, 1 - right, right, 0) == (1.0, 1.0)
    half = right.copy()
    half[:4] = 1 - half[:4]
    low, high = gained(task, half, right, 0)
    assert 0 < low < 4 / 32 < high < 0.4


def test_a_student_is_the_same_with_and_without_one_and_a_run_with_one_is_not_exported(
    made: RunDir,
) -> None:
    before = (made.folder / "student" / "stage.json").read_text()
    with pytest.raises(UsageError, match="an assistant is not exported") as caught:
        export_run(made, ["tinybert"])
    assert "--set student.assistant=" in str(caught.value.hint)
    document = made.recipe.model_dump(mode="json")
    document["student"][0]["assistant"] = None
    bare = distill(Recipe.model_validate(document), made.folder.parent)
    assert (made.folder / "student" / "stage.json").read_text() == before and not gains(bare)
    torch.manual_seed(0)
    assert distill(made.recipe, made.folder.parent).assistant("tinybert")


def test_an_assistant_learns_nothing_else(tmp_path: Path) -> None:
    base = {"name": "r", "data": {"source": "x"}, "teacher": {"model": "y"}}
    recipe = Recipe.model_validate(base | {"student": tinyrun.tinybert(assistant=ASSISTANT)})
    path = tmp_path / "r.toml"
    path.write_text(recipe.to_toml())
    assert load_recipe(path) == recipe, (
        "the resolved recipe, defaults and all, is the same experiment"
    )
    assert load_recipe(path, ("student.assistant=",)).student[0].assistant is None
    assert with_values(recipe, {"student.assistant.hidden": 9}).student[0].assistant.hidden == 9
    Recipe.model_validate(
        base | {"student": tinyrun.tinybert(assistant=ASSISTANT | {"objective": {"logits": "mse"}})}
    )  # what it learns
    for wish in ({"objective": {"logits": "cosine"}}, {"name": "x"}, {"assistant": ASSISTANT}):
        with pytest.raises(ValueError, match=f"takes no {next(iter(wish))}"):
            Recipe.model_validate(base | {"student": tinyrun.tinybert(assistant=ASSISTANT | wish)})
    with pytest.raises(UsageError, match="did you mean hidden"):
        load_recipe(path, ("student.assistant.hiden=3",))
    with pytest.raises(ValueError, match="trials train no assistant"):
        Recipe.model_validate(
            recipe.model_dump() | {"tune": {"ranges": {"student.assistant.hidden": [3, 4]}}}
        )
