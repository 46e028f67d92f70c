"""A run from Python: what `distill` saves and what `scores` reads back."""

from __future__ import annotations

import json
import math
from pathlib import Path
from unittest import mock

import factories
import pytest
import torch

from kdedge.distillation.pipeline import baseline_epochs, distill
from kdedge.distillation.scores import ModelScores, scores
from kdedge.recipe import TinyBertConfig, load_recipe
from kdedge.run.stages import run_stages
from kdedge.transfer.dataset import read_transfer_set


def test_the_saved_recipe_holds_the_number_of_threads(tmp_path: Path) -> None:
    document = factories.write_data_and_teacher(tmp_path) | {
        "student": [factories.tinybert_config()]
    }
    del document["threads"]
    recipe = factories.make_recipe(document)
    assert recipe.threads is None
    before = torch.get_num_threads()
    try:
        run = distill(recipe, tmp_path / "runs")
        used = torch.get_num_threads()
    finally:
        torch.set_num_threads(before)
    assert run.recipe.threads == used
    assert load_recipe(run.folder / "recipe.toml").threads == used


def test_scores_are_relative_to_the_teacher_and_survive_json(tmp_path: Path) -> None:
    student = factories.tinybert_config(baseline=True)
    run = distill(
        factories.make_recipe(factories.write_data_and_teacher(tmp_path), student=student),
        tmp_path / "runs",
    )
    rows = scores(run)
    assert [row.model for row in rows] == ["teacher", "tinybert", "tinybert baseline"]
    teacher = rows[0]
    assert teacher.is_teacher and teacher.retention == 1.0
    for row in rows[1:]:
        assert not row.is_teacher
        assert row.retention == pytest.approx(row.test / teacher.test)
    documents = json.loads(json.dumps([row.to_json() for row in rows]))
    assert [ModelScores.from_json(document) for document in documents] == rows


def test_with_no_new_texts_no_source_is_prepared(tmp_path: Path) -> None:
    augment = {"size": 0, "rules": {}, "generate": {"fit": {"epochs": 1}}}
    document = factories.write_data_and_teacher(tmp_path) | {"augment": augment}
    run = distill(
        factories.make_recipe(document, student=factories.tinybert_config()), tmp_path / "runs"
    )
    assert run.generator not in run_stages(run)
    assert not run.generator.exists() and not run.augment.exists()
    transfer = read_transfer_set(run.transfer)
    assert len(transfer) == len(transfer.texts.labelled) > 0


def test_the_baseline_takes_as_many_steps_as_the_student(tmp_path: Path) -> None:
    augment = {"size": 2.0, "rules": {}}
    document = factories.write_data_and_teacher(tmp_path) | {"augment": augment}
    run = distill(
        factories.make_recipe(document, student=factories.tinybert_config(baseline=True)),
        tmp_path / "runs",
    )
    last_steps = []
    for folder in (run.folder / "student", run.folder / "baseline"):
        lines = (folder / "log.jsonl").read_text().splitlines()
        last_steps.append(max(json.loads(line)["step"] for line in lines))
    assert read_transfer_set(run.transfer).texts.origins.among(("rules",)).any()
    assert last_steps[0] == last_steps[1]


def test_the_baseline_counts_a_first_stage_with_batches_of_its_own() -> None:
    student = TinyBertConfig(
        kind="tinybert",
        fit={"epochs": 1, "batch_size": 32},
        objective={"hidden_weight": 1.0},
        layers_first={"epochs": 4, "batch_size": 8, "gradient_accumulation": 4},
    )
    transfer = mock.MagicMock()
    transfer.__len__.return_value = 300
    transfer.texts.labelled = range(100)
    context = mock.Mock(transfer=transfer)
    steps = 10 + 4 * 10  # of 32 texts each; the last batch of an epoch is smaller
    assert math.ceil(baseline_epochs(context, student) * 4) == steps
