"""A student is trained again if something changes that decides what it learns."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import factories
import pytest

from kdedge.distillation import student_training
from kdedge.distillation.pipeline import distill
from kdedge.errors import UsageError
from kdedge.run.stage import StageContext, read_stage


@pytest.fixture(autouse=True)
def untrained(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave each student at its first weights: these tests look at inputs alone."""
    monkeypatch.setattr(student_training, "train", lambda *_, **__: 0.0)


def test_other_lengths_of_the_teachers_texts_make_the_student_stale(tmp_path: Path) -> None:
    document = factories.write_data_and_teacher(tmp_path, train=32)
    student = factories.tinybert_config(start="shrink", heads=2, baseline=False)
    run = distill(factories.make_recipe(document, student=student), tmp_path / "runs")
    before = read_stage(run.folder / "student").inputs
    document["teacher"]["max_length"] = 8
    shorter = factories.make_recipe(document, student=student)
    run = distill(shorter, tmp_path / "runs", stages=StageContext(force=True))
    after = read_stage(run.folder / "student").inputs
    assert before["teacher"] == after["teacher"], "the weights are the same"
    assert before["transfer"] != after["transfer"], "the logits are not"


def test_a_changed_tokenizer_makes_the_student_stale(tmp_path: Path) -> None:
    document = factories.write_data_and_teacher(tmp_path, train=32)
    folder = tmp_path / "tokenizer"
    factories.tokenizer().save_pretrained(folder)
    student = factories.tinybert_config(tokenizer=str(folder), baseline=False)
    recipe = factories.make_recipe(document, student=student)
    distill(recipe, tmp_path / "runs")
    _exchange_two_words(folder / "tokenizer.json")
    with pytest.raises(UsageError, match="tokenizer: was"):
        distill(recipe, tmp_path / "runs")


def _exchange_two_words(file: Path) -> None:
    tokenizer: dict[str, Any] = json.loads(file.read_text())
    ids = tokenizer["model"]["vocab"]
    ids["film"], ids["plot"] = ids["plot"], ids["film"]
    file.write_text(json.dumps(tokenizer))
