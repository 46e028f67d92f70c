"""A general student learns a teacher's layers without a task, and several tasks start from it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import encoders
import factories
import numpy as np
import pytest
import torch
from transformers import BertModel

from kdedge.data.load import load_task
from kdedge.data.task import Task
from kdedge.distillation.estimate import estimate_run
from kdedge.distillation.general import GeneralTraining, train_general_students
from kdedge.distillation.general_texts import read_general_texts
from kdedge.distillation.layer_source import LayerSource
from kdedge.distillation.pipeline import distill, prepare_context
from kdedge.distillation.plan import plan_stages
from kdedge.distillation.student_training import StudentTraining, TrainingStep
from kdedge.errors import DataError, Interrupted, UsageError
from kdedge.nn import training_callbacks
from kdedge.nn.text_model import TextClassifier
from kdedge.nn.tokenization import encode, load_tokenizer
from kdedge.recipe import BiLstmConfig, GeneralConfig, Recipe, TinyBertConfig
from kdedge.run.layout import RunDir
from kdedge.run.progress import SILENT, Silent
from kdedge.run.stage import StageContext, read_stage
from kdedge.tuning.checks import check_recipe

FIT = {"epochs": 6.0, "learning_rate": 3e-3, "batch_size": 16}


class Lines(Silent):
    """Progress that keeps what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, message: str) -> None:
        self.lines.append(message)


@pytest.fixture
def document(tmp_path: Path) -> dict[str, Any]:
    """The document of a recipe, without students, next to a file of texts and one of pairs."""
    first, _ = factories.sentences(64, 11)
    second, _ = factories.sentences(32, 12)
    (tmp_path / "texts.txt").write_text("\n".join(first) + "\n")
    rows = [f"{one}\t{two}" for one, two in zip(first, second, strict=False)]
    (tmp_path / "pairs.tsv").write_text("\n".join(["one\ttwo", *rows]) + "\n")
    return factories.write_data_and_teacher(tmp_path)


def general_table(folder: Path, **settings: Any) -> dict[str, Any]:
    texts = [
        {"file": str(folder / "texts.txt")},
        {"file": str(folder / "pairs.tsv"), "text": "one", "pair": "two"},
    ]
    return {"texts": texts, "max_length": 32, "fit": FIT, **settings}


def recipe_of(document: dict[str, Any], folder: Path, name: str = "r", **student: Any) -> Recipe:
    student = {"general": general_table(folder), "objective": {"logits": "mse"}, **student}
    return factories.make_recipe(document, name=name, student=factories.tinybert_config(**student))


def task_of(recipe: Recipe) -> Task:
    return load_task(recipe.data, recipe.task, name=recipe.name, seed=recipe.seed)


def use_mpnet(folder: Path) -> None:
    """Replace the teacher's model by an MPNet, whose tokenizer has no token types."""
    model = encoders.encoder("mpnet", len(factories.tokenizer()))
    model.config.pad_token_id = 0
    model.save_pretrained(folder / "model")
    tokenizer = factories.tokenizer()
    tokenizer.model_input_names = ["input_ids", "attention_mask"]
    tokenizer.save_pretrained(folder / "model")


def logged(folder: Path, name: str) -> list[float]:
    """Return the values of one part of the loss, in the order of the training."""
    lines = (folder / "log.jsonl").read_text().splitlines()
    return [line[name] for line in map(json.loads, lines) if name in line]


@pytest.mark.parametrize(("teacher", "attention"), [("bert", 0.95), ("mpnet", 1.0)])
def test_the_layer_losses_of_a_general_student_fall(
    tmp_path: Path, document: dict[str, Any], teacher: str, attention: float
) -> None:
    other_tokens = {}
    if teacher == "mpnet":
        use_mpnet(tmp_path)
        other_tokens = {"tokenizer": "wordpiece", "vocabulary": 90}
    recipe = recipe_of(document, tmp_path, **other_tokens)
    run = distill(recipe, tmp_path / "runs")
    folder = run.general_student(recipe.student[0])
    assert folder == tmp_path / "runs" / "r" / "general" / "tinybert"
    for part, share in (("part/hidden", 0.8), ("part/attention", attention)):
        values = logged(folder, part)
        assert values[-1] < share * values[0], part
    for part in ("part/logits", "part/labels"):
        assert not logged(folder, part)
    assert read_stage(folder).result["texts"] == 64 + 32
    student_pieces = load_tokenizer(run.folder / "student").get_vocab()
    assert student_pieces == load_tokenizer(folder).get_vocab()


def test_a_second_task_reuses_the_general_student(tmp_path: Path, document: dict[str, Any]) -> None:
    general = general_table(tmp_path, share="all-tasks")
    runs = tmp_path / "runs"
    first = recipe_of(document, tmp_path, "first", general=general)
    distill(first, runs)
    made = (runs / "all-tasks" / "general" / "tinybert" / "model.safetensors").stat().st_mtime_ns

    # Another task: fewer texts, so another teacher; and another student with the same shape.
    other = document | {"data": document["data"] | {"limit": 48}}
    progress = Lines()
    second = recipe_of(
        other, tmp_path, "second", general=general, max_length=24, fit={"epochs": 2.0}
    )
    run = distill(second, runs, stages=StageContext(progress=progress))
    folder = run.general_student(second.student[0])
    assert "stage 3 of 4, general/tinybert: same inputs, kept" in progress.lines
    assert (folder / "model.safetensors").stat().st_mtime_ns == made
    assert not (run.folder / "general").exists()

    changed = general | {"max_length": 16}
    third = recipe_of(document, tmp_path, "third", general=changed)
    with pytest.raises(UsageError, match="was made from other inputs") as caught:
        distill(third, runs)
    assert caught.value.detail == "max_length: was 32, now 16"
    assert "other runs share this stage" in caught.value.hint


def test_the_general_student_depends_on_the_teacher_before_fine_tuning(
    tmp_path: Path, document: dict[str, Any]
) -> None:
    recipe = recipe_of(document, tmp_path)
    run = RunDir(tmp_path / "runs" / "r", recipe)
    student = recipe.student[0]
    assert isinstance(student, TinyBertConfig) and student.general is not None
    texts = read_general_texts(student.general, "utf-8")
    before = GeneralTraining(run, student, student.general, texts, SILENT).inputs()
    torch.manual_seed(9)
    factories.bert(vocabulary=len(factories.tokenizer())).save_pretrained(tmp_path / "model")
    after = GeneralTraining(run, student, student.general, texts, SILENT).inputs()
    assert {key for key in before if before[key] != after[key]} == {"teacher"}


def test_a_student_starts_with_the_encoder_of_its_general_student(
    tmp_path: Path, document: dict[str, Any]
) -> None:
    recipe = recipe_of(document, tmp_path)
    run = RunDir.create(recipe, tmp_path / "runs")
    context = prepare_context(recipe, run)
    train_general_students(run, context.task, context.stages)
    student = recipe.student[0]
    step = TrainingStep(run.folder / "student", student.objective, student.fit)
    torch.manual_seed(0)
    model = StudentTraining(context, student, step)._build().model
    general = BertModel.from_pretrained(run.general_student(student))
    weights = model.bert.state_dict()
    assert weights.keys() == general.state_dict().keys()
    for name, value in general.state_dict().items():
        assert torch.equal(weights[name], value), name
    assert model.config.num_labels == 2 and model.classifier.weight.shape == (2, 24)


def test_pairs_are_read_as_pairs_and_lined_up_with_the_teachers_tokens(
    tmp_path: Path, document: dict[str, Any]
) -> None:
    texts = read_general_texts(GeneralConfig.model_validate(general_table(tmp_path)), "utf-8")
    pieces = factories.tokenizer()
    student = TextClassifier(factories.bert(vocabulary=len(pieces)), pieces, 32)
    data = texts.encode(student)
    first, second = texts.files
    expected = [
        *encode(pieces, first.texts, None, 32).tokens["token_type_ids"],
        *encode(pieces, second.texts, second.pairs, 32).tokens["token_type_ids"],
    ]
    assert list(data.tokens["token_type_ids"]) == expected
    assert sum(map(sum, expected)) > 0 and len(data) == 96

    assert texts.teacher_tokens(student, student) is None, "the same tokens need no alignment"
    document_text = pieces.backend_tokenizer.to_str().replace('"film"', '"reel"')
    (tmp_path / "other").mkdir()
    pieces.save_pretrained(tmp_path / "other")
    (tmp_path / "other" / "tokenizer.json").write_text(document_text)
    teacher = TextClassifier(student.model, load_tokenizer(tmp_path / "other"), 32)
    own = texts.teacher_tokens(teacher, student)
    assert own is not None and len(own) == 96
    assert np.array_equal(own.tokens["align_first"].lengths, data.lengths)


def test_an_interrupted_general_training_ends_with_the_same_weights(
    tmp_path: Path, document: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_of(document, tmp_path)

    def general_weights(runs: Path) -> bytes:
        run = RunDir.create(recipe, runs)
        train_general_students(run, task_of(recipe), StageContext())
        return (run.general_student(recipe.student[0]) / "model.safetensors").read_bytes()

    whole = general_weights(tmp_path / "whole")
    monkeypatch.setattr(training_callbacks, "SAVE_SECONDS", -1.0)
    advance = training_callbacks.ProgressCallback.on_step_end

    def stop(self: Any, args: Any, state: Any, control: Any, **rest: Any) -> None:
        advance(self, args, state, control, **rest)
        if state.global_step == 20:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training_callbacks.ProgressCallback, "on_step_end", stop)
        with pytest.raises(Interrupted):
            general_weights(tmp_path / "stopped")
    part = tmp_path / "stopped" / "r" / "general" / "tinybert.part"
    assert (part / "checkpoint-19" / "complete").exists()
    planned = plan_stages(recipe, tmp_path / "stopped", task_of(recipe))
    states = {stage.folder.name: stage.state for stage in planned}
    assert states["tinybert"] == "continues"
    assert general_weights(tmp_path / "stopped") == whole
    lines = (part.with_suffix("") / "log.jsonl").read_text().splitlines()
    steps = [json.loads(line)["step"] for line in lines]
    assert min(steps) < 19 < max(steps)


def test_a_plan_names_the_general_student_and_counts_it(
    tmp_path: Path, document: dict[str, Any]
) -> None:
    recipe = recipe_of(document, tmp_path)
    task = task_of(recipe)

    def states() -> dict[str, str]:
        planned = plan_stages(recipe, tmp_path / "runs", task)
        return {stage.folder.name: stage.state for stage in planned}

    names = ["teacher", "transfer", "tinybert", "student"]
    assert states() == dict.fromkeys(names, "new")
    distill(recipe, tmp_path / "runs")
    assert states() == dict.fromkeys(names, "cached")
    texts = (tmp_path / "texts.txt").read_text()
    (tmp_path / "texts.txt").write_text("another text\n")
    assert states() == dict.fromkeys(names, "cached") | {"tinybert": "changed", "student": "waits"}

    other = recipe_of(document, tmp_path, "other", general=general_table(tmp_path, share="r"))
    (tmp_path / "texts.txt").write_text(texts)
    planned = plan_stages(other, tmp_path / "runs", task)
    assert {stage.folder.name: stage.state for stage in planned} == {
        "teacher": "new",
        "transfer": "new",
        "tinybert": "cached",
        "student": "new",
    }

    without = recipe_of(document, tmp_path, general=None)
    more = estimate_run(recipe, task).disk - estimate_run(without, task).disk
    assert more == 4 * estimate_run(recipe, task).parameters["tinybert"]


def test_a_teacher_that_is_fine_tuned_already_is_pointed_out(
    tmp_path: Path, document: dict[str, Any]
) -> None:
    """A teacher with a head for the task is not what a general student should learn from."""
    progress = Lines()
    stages = StageContext(progress=progress)
    for name, changes in (("r", {}), ("named", {"teacher": str(tmp_path / "model")})):
        recipe = recipe_of(document, tmp_path, name, general=general_table(tmp_path, **changes))
        train_general_students(RunDir.create(recipe, tmp_path / "runs"), task_of(recipe), stages)
        warnings = [line for line in progress.lines if "is fine-tuned already" in line]
        assert len(warnings) == 1, "a teacher that is named is taken as it is"


def test_second_texts_of_the_test_pairs_are_found_among_the_texts(
    tmp_path: Path, document: dict[str, Any]
) -> None:
    task = factories.pair_task()
    assert task.test.pairs
    (tmp_path / "texts.txt").write_text("\n".join(set(task.test.pairs)) + "\n")
    progress = Lines()
    run = RunDir.create(recipe_of(document, tmp_path), tmp_path / "runs")
    train_general_students(run, task, StageContext(progress=progress))
    distinct = {*task.test.texts, *task.test.pairs}
    (line,) = [line for line in progress.lines if "test texts are among" in line]
    assert line.endswith(f"of {len(distinct)} test texts are among its texts, without labels")


def test_it_is_said_how_many_test_texts_are_among_the_texts(
    tmp_path: Path, document: dict[str, Any]
) -> None:
    recipe = recipe_of(document, tmp_path)
    test = task_of(recipe).test.texts
    with (tmp_path / "texts.txt").open("a") as stream:
        stream.write("\n".join(test[:5]) + "\n")
    progress = Lines()
    run = RunDir.create(recipe, tmp_path / "runs")
    train_general_students(run, task_of(recipe), StageContext(progress=progress))
    expected = f"5 of {len(set(test))} test texts are among its texts, without labels"
    assert f"general/tinybert: {expected}" in progress.lines


def test_faults_of_the_texts_are_named(tmp_path: Path, document: dict[str, Any]) -> None:
    def read(**file: Any) -> None:
        general = {"texts": [{"file": str(tmp_path / "texts.txt")}, file]}
        read_general_texts(GeneralConfig.model_validate(general), "utf-8")

    (tmp_path / "empty.txt").write_text("")
    with pytest.raises(DataError, match="a general student needs texts") as empty:
        read(file=str(tmp_path / "empty.txt"))
    assert "empty.txt is empty" in str(empty.value.detail)
    (tmp_path / "blank.csv").write_text("text\ngood\n \n")
    with pytest.raises(DataError) as blank:
        read(file=str(tmp_path / "blank.csv"))
    assert "blank.csv:3" in str(blank.value.detail)
    with pytest.raises(UsageError, match=r"no column .*student\.general\.texts\.pair"):
        read(file=str(tmp_path / "pairs.tsv"), text="one", pair="second")
    with pytest.raises(UsageError, match="file type is not supported"):
        read(file=str(tmp_path / "texts.docx"))


def test_settings_that_do_not_fit_a_general_student(
    tmp_path: Path, document: dict[str, Any]
) -> None:
    general = general_table(tmp_path)
    with pytest.raises(ValueError, match="a BiLSTM has no layers to match"):
        BiLstmConfig.model_validate({"kind": "bilstm", "general": general})
    with pytest.raises(ValueError, match="Extra inputs are not permitted"):
        GeneralConfig.model_validate(general | {"objective": {"logits_weight": 1.0}})
    weights = {"hidden_weight": 0.0, "attention_weight": 0.0}
    with pytest.raises(ValueError, match="nothing to learn from"):
        GeneralConfig.model_validate(general | {"objective": weights})
    with pytest.raises(ValueError, match="at least 1 item"):
        GeneralConfig.model_validate(general | {"texts": []})
    for key, is_allowed in (
        ("student.hidden", False),
        ("student.general.fit.epochs", False),
        ("student.fit.epochs", True),
    ):
        tuned = recipe_of(document | {"tune": {"ranges": {key: [1, 2]}}}, tmp_path)
        if is_allowed:
            check_recipe(tuned)
            continue
        with pytest.raises(UsageError, match="which all trials share"):
            check_recipe(tuned)


def test_the_teachers_layers_are_cached_in_the_run_of_the_general_student(
    tmp_path: Path, document: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = []

    def record(self: LayerSource, *_: Any) -> None:
        folders.append(self.folder)
        raise KeyboardInterrupt

    monkeypatch.setattr(LayerSource, "module", record)
    recipe = recipe_of(document, tmp_path, general=general_table(tmp_path, share="all-tasks"))
    with pytest.raises(Interrupted):
        distill(recipe, tmp_path / "runs")
    assert folders == [tmp_path / "runs" / "all-tasks"]
