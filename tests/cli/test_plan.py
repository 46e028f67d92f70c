"""`kdedge distill --plan` says what would happen, and `kdedge distill` then does it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import encoders
import factories
import pytest
from transformers import BertConfig, BertForSequenceClassification

from kdedge.data.load import load_task
from kdedge.data.task import Task
from kdedge.distillation.estimate import estimate_run
from kdedge.distillation.pipeline import distill
from kdedge.distillation.plan import plan_stages
from kdedge.errors import Interrupted
from kdedge.recipe import BiLstmConfig, Recipe
from kdedge.recipe.sizes import bert_parameters
from kdedge.run.progress import Silent
from kdedge.run.stage import StageContext
from kdedge.students.bilstm import BiLstmForSequenceClassification, BiLstmModelConfig
from kdedge.teacher import finetune


def load(recipe: Recipe) -> Task:
    return load_task(recipe.data, recipe.task, name=recipe.name, seed=recipe.seed)


def states(recipe: Recipe, runs: Path) -> dict[str, str]:
    planned = plan_stages(recipe, runs, load(recipe))
    return {str(stage.folder.relative_to(runs)): stage.state for stage in planned}


@pytest.fixture
def document(tmp_path: Path) -> dict[str, Any]:
    document = factories.write_data_and_teacher(tmp_path)
    first = factories.tinybert_config(name="one", baseline=True)
    second = factories.tinybert_config(name="two")
    return document | {"student": [first, second]}


def test_a_plan_names_new_cached_and_changed_stages(
    tmp_path: Path, document: dict[str, Any]
) -> None:
    runs = tmp_path / "runs"
    recipe = factories.make_recipe(document)
    folders = ["r/teacher", "r/transfer", "r/one/student", "r/one/baseline", "r/two/student"]
    assert states(recipe, runs) == dict.fromkeys(folders, "new")
    assert not runs.exists(), "a plan writes nothing"

    distill(recipe, runs)
    assert states(recipe, runs) == dict.fromkeys(folders, "cached")
    before = sorted(path for path in runs.rglob("*"))

    changed = factories.make_recipe(document)
    longer = changed.student[1].model_copy(update={"max_length": 16})
    changed = changed.model_copy(update={"student": [changed.student[0], longer]})
    planned = plan_stages(changed, runs, load(changed))
    assert [stage.state for stage in planned] == [*["cached"] * 4, "changed"]
    assert planned[-1].differences == ("student.max_length: was 32, now 16",)

    other_seed = changed.model_copy(update={"seed": 5})
    assert states(other_seed, runs) == dict.fromkeys(folders, "waits") | {"r/teacher": "changed"}
    assert sorted(path for path in runs.rglob("*")) == before, "a plan writes nothing"


def test_interrupted_work_goes_on_only_with_the_same_inputs(
    tmp_path: Path, document: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = tmp_path / "runs"
    recipe = factories.make_recipe(document)

    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(finetune, "save_measured", stop)
        with pytest.raises(Interrupted):
            distill(recipe, runs)
    assert states(recipe, runs)["r/teacher"] == "continues"
    other = recipe.model_copy(update={"seed": 5})
    assert states(other, runs)["r/teacher"] == "restarts"
    said: list[str] = []
    progress = Silent()
    monkeypatch.setattr(progress, "say", said.append)
    distill(other, runs, stages=StageContext(progress=progress))
    assert any("unfinished work is removed" in line for line in said)


def test_the_estimate_counts_the_parameters_that_training_reports(
    tmp_path: Path, document: dict[str, Any]
) -> None:
    recipe = factories.make_recipe(document)
    estimate = estimate_run(recipe, load(recipe))
    run = distill(recipe, tmp_path / "runs")
    saved = 0
    for title, folder in (("teacher", run.teacher), ("one", run.students["one"].student)):
        result = json.loads((folder / "stage.json").read_text())["result"]
        assert estimate.parameters[title] == result["parameters"]
    for weights in run.folder.rglob("model.safetensors"):
        saved += weights.stat().st_size
    assert 0.9 * saved < estimate.disk < 1.3 * saved
    assert estimate.unknown == ()


def test_a_teacher_of_the_hub_is_not_counted(tmp_path: Path, document: dict[str, Any]) -> None:
    recipe = factories.make_recipe(document, teacher={"model": "someone/some-model"})
    assert estimate_run(recipe, load(recipe)).unknown == ("teacher", "one", "two")


def test_the_estimate_counts_assistants_and_teachers_of_other_types(
    tmp_path: Path, document: dict[str, Any]
) -> None:
    teacher = encoders.encoder("mpnet", len(factories.tokenizer()))
    teacher.config.pad_token_id = 0
    teacher.save_pretrained(tmp_path / "model")
    between = factories.tinybert_config(name="between", start="shrink", hidden=12)
    student = {"assistant": "between", "start": "teacher"}
    small = factories.tinybert_config(name="small", hidden=12, **student)
    lstm = {"name": "lstm", "kind": "bilstm", "max_length": 32, "baseline": False, **student}
    recipe = factories.make_recipe(document, student=[between, small, lstm])
    estimate = estimate_run(recipe, load(recipe))
    assert estimate.parameters["teacher"] == teacher.num_parameters()
    run = distill(recipe, tmp_path / "runs")
    for name in ("between", "small", "lstm"):
        stage = json.loads((run.students[name].student / "stage.json").read_text())
        assert estimate.parameters[name] == stage["result"]["parameters"]
    assert estimate.unknown == ()


@pytest.mark.parametrize("content", [b"", b"\xff" * 20, b"\2\0\0\0\0\0\0\0[]"])
def test_a_teacher_whose_file_cannot_be_read_is_not_counted(
    tmp_path: Path, document: dict[str, Any], content: bytes
) -> None:
    encoders.encoder("mpnet", len(factories.tokenizer())).save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").write_bytes(content)
    recipe = factories.make_recipe(document)
    assert estimate_run(recipe, load(recipe)).unknown == ("teacher",)


@pytest.mark.parametrize("layers, hidden, outputs", [(1, 8, 2), (3, 24, 5)])
def test_parameters_of_a_bert_are_counted_as_torch_does(
    layers: int, hidden: int, outputs: int
) -> None:
    shape = {
        "vocab_size": 50,
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": 2,
        "intermediate_size": 3 * hidden,
        "max_position_embeddings": 40,
    }
    model = BertForSequenceClassification(BertConfig(**shape, num_labels=outputs))
    assert bert_parameters(shape, outputs) == model.num_parameters()


@pytest.mark.parametrize("name", ["single", "pair"])
def test_parameters_of_a_bilstm_are_counted_as_torch_does(name: str) -> None:
    task = factories.TASKS[name]()
    config = BiLstmConfig(kind="bilstm", hidden=6, head=5)
    model = BiLstmForSequenceClassification(
        BiLstmModelConfig(
            vocab_size=50,
            embedding_dim=7,
            hidden_size=6,
            head_size=5,
            pair=task.spec.pair,
            num_labels=task.spec.outputs,
        )
    )
    assert config.parameters(50, {"hidden_size": 7}, task.spec) == model.num_parameters()
