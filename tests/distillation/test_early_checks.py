"""Faults that would stop a run later are found before the teacher is prepared."""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import factories
import numpy as np
import pytest
from click.testing import CliRunner
from tokenizers import Tokenizer, models
from transformers import (
    AutoTokenizer,
    BertConfig,
    CLIPTextConfig,
    GPT2Config,
    PreTrainedTokenizerFast,
)

from kdedge.cli.main import cli
from kdedge.data.load import load_task
from kdedge.distillation.early_checks import check_before_training
from kdedge.distillation.pipeline import distill
from kdedge.distillation.plan import plan_stages
from kdedge.errors import DataError, KdedgeError, UsageError
from kdedge.recipe import Recipe


def check(recipe: Recipe) -> None:
    check_before_training(
        recipe, load_task(recipe.data, recipe.task, name=recipe.name, seed=recipe.seed)
    )


@pytest.fixture
def document(tmp_path: Path) -> dict[str, Any]:
    """A recipe's document with a teacher of 4 layers, next to an empty file of texts."""
    (tmp_path / "empty.csv").write_text("text\n")
    return factories.write_data_and_teacher(tmp_path, layers=4)


def test_a_recipe_without_faults_passes(document: dict[str, Any]) -> None:
    students = [
        factories.tinybert_config(name="cut", start="shrink", layers=3, hidden=12),
        factories.tinybert_config(name="copied", start="teacher", layers=3),
        {"kind": "bilstm", "hidden": 4, "assistant": "cut"},
    ]
    check(factories.make_recipe(document, student=students))


@pytest.mark.parametrize(
    "sizes", [{"start": "shrink", "layers": 4}, {"start": "teacher", "hidden": 12}]
)
def test_a_student_that_does_not_fit_its_assistant_may_go_without_one(
    document: dict[str, Any], sizes: dict[str, Any]
) -> None:
    assistant = factories.tinybert_config(name="middle", start="shrink", layers=3)
    student = factories.tinybert_config(name="small", assistant="middle", **sizes)
    with pytest.raises(UsageError, match="middle") as error:
        check(factories.make_recipe(document, student=[assistant, student]))
    assert "remove student.assistant" in error.value.hint and "scratch" not in error.value.hint


@pytest.mark.parametrize(
    "student, message",
    [
        ({"start": "shrink", "layers": 9}, "cannot be bigger than the teacher"),
        ({"start": "teacher", "hidden": 12}, "layers of the teacher fit only"),
        ({"start": "teacher", "layers": 9}, "cannot start from 4 layers"),
        ({"layers": 3, "objective": {"hidden_weight": 1.0}}, "do not map uniformly"),
        ({"start": "shrink", "max_length": 4096}, "reads fewer tokens than max_length"),
        (
            {"objective": {"attention_weight": 1.0, "attention": "scores"}, "vocabulary": 80},
            "can be matched only token by token",
        ),
        (
            {"max_length": 100, "objective": {"hidden_weight": 1.0, "layer_map": "last"}},
            "the teacher must read as many tokens",
        ),
        ({"kind": "bilstm", "hidden": 4, "cross_attention": True}, "compares the two texts"),
        ({"kind": "bilstm", "hidden": 4, "embedding": 4096}, "cannot be wider than the teacher's"),
    ],
)
def test_a_student_that_does_not_fit_is_found_before_the_teacher_is_prepared(
    document: dict[str, Any], tmp_path: Path, student: dict[str, Any], message: str
) -> None:
    section = student if "kind" in student else factories.tinybert_config(**student)
    recipe = factories.make_recipe(document, student=section)
    with pytest.raises(UsageError, match=message):
        distill(recipe, tmp_path / "runs")
    assert not (tmp_path / "runs" / "r" / "teacher").exists()
    task = load_task(recipe.data, recipe.task, name=recipe.name, seed=recipe.seed)
    with pytest.raises(UsageError, match=message):
        plan_stages(recipe, tmp_path / "runs", task)


@pytest.mark.parametrize(
    "augment, message",
    [
        ({"filters": {"shortest": 900}}, "no text can pass the length filter"),
        ({"generate": {"prompts": ["second"]}}, "second text of a pair"),
        ({"size": "auto"}, "trains each student in one stage"),
    ],
)
def test_a_source_that_does_not_fit_is_found(
    document: dict[str, Any], augment: dict[str, Any], message: str
) -> None:
    layers = {"layers_first": {}, "objective": {"hidden_weight": 1.0}, "layers": 2}
    recipe = factories.make_recipe(
        document, augment={"rules": {}} | augment, student=factories.tinybert_config(**layers)
    )
    with pytest.raises(UsageError, match=message):
        check(recipe)


@pytest.mark.parametrize("mean, deviation, fits", [(2.5, 1.5, 1), (100, 15, 1), (2000, 5, 0)])
def test_scores_must_not_lie_too_far_from_0(
    tmp_path: Path, mean: float, deviation: float, fits: bool
) -> None:
    recipe = factories.make_recipe(
        factories.write_data_and_teacher(tmp_path),
        student=factories.tinybert_config(objective={"logits": "mse"}),
    )
    task = factories.regression_task()
    chance = np.random.default_rng(0).normal(mean, deviation, len(task.train))
    scores = replace(task.train, labels=chance.astype(np.float32))
    with nullcontext() if fits else pytest.raises(UsageError, match="too far from 0"):
        check_before_training(recipe, replace(task, train=scores))


def test_a_filter_of_classes_is_refused_for_numbers(tmp_path: Path) -> None:
    recipe = factories.make_recipe(
        factories.write_data_and_teacher(tmp_path),
        augment={"rules": {}, "filters": {"confidence": [0.5, 1.0]}},
        student=factories.tinybert_config(),
    )
    check(recipe)
    with pytest.raises(UsageError, match="confidence needs a classification task"):
        check_before_training(recipe, factories.regression_task())


@pytest.mark.parametrize(
    "augment, message",
    [
        ({"generate": {"model": "./missing"}}, "there is no such folder"),
        ({"generate": {"model": "{folder}"}}, "the language model cannot be loaded"),
        ({"generate": {"model": "{folder}/tiny.gguf"}}, "the language model cannot be loaded"),
        ({"generate": {"model": "{folder}/clip"}}, "not a causal language model"),
        ({"generate": {"model": ""}}, "the language model cannot be loaded"),
        ({"replace": {"model": ""}}, "the masked language model cannot be loaded"),
        ({"replace": {"model": "./missing"}}, "there is no such folder"),
        ({"replace": {"model": "{folder}"}}, "the masked language model cannot be loaded"),
        ({"replace": {"model": "{folder}/clip"}}, "no head that predicts them"),
    ],
)
def test_a_model_that_makes_texts_is_looked_up(
    document: dict[str, Any], tmp_path: Path, augment: dict[str, Any], message: str
) -> None:
    CLIPTextConfig(num_hidden_layers=1).save_pretrained(tmp_path / "clip")
    ((source, settings),) = augment.items()
    settings = {"model": settings["model"].format(folder=tmp_path)}
    recipe = factories.make_recipe(
        document, augment={source: settings}, student=factories.tinybert_config()
    )
    with pytest.raises(KdedgeError, match=message):
        distill(recipe, tmp_path / "runs")
    assert not (tmp_path / "runs" / "r" / "teacher").exists()


def test_models_of_new_texts_are_not_looked_up_if_none_are_asked_for(
    document: dict[str, Any], tmp_path: Path
) -> None:
    missing = {"model": "./missing"}
    pool = {"file": str(tmp_path / "missing.jsonl")}
    recipe = factories.make_recipe(
        document,
        augment={"size": 0, "generate": missing, "replace": missing, "pool": pool},
        student=factories.tinybert_config(),
    )
    check(recipe)


def test_check_names_the_models_that_make_texts(document: dict[str, Any], tmp_path: Path) -> None:
    words = factories.tokenizer()
    for name, config in (
        ("decoder", GPT2Config(n_layer=1, n_embd=8, n_head=1, vocab_size=len(words))),
        ("masked", BertConfig(num_hidden_layers=1, vocab_size=len(words))),
    ):
        config.save_pretrained(tmp_path / name)
        words.save_pretrained(tmp_path / name)
    augment = {
        "generate": {"model": str(tmp_path / "decoder")},
        "replace": {"model": str(tmp_path / "masked")},
    }
    recipe = tmp_path / "recipe.toml"
    made = factories.make_recipe(document, augment=augment, student=factories.tinybert_config())
    recipe.write_text(made.to_toml())
    answer = CliRunner().invoke(cli, ["check", str(recipe), "--json"])
    assert answer.exit_code == 0, answer.output
    models = json.loads(answer.output.splitlines()[-1])["models"]
    for source, settings in augment.items():
        assert models[f"augment.{source} {settings['model']}"] == settings["model"]


def test_a_vocabulary_that_cannot_be_trimmed_is_found(
    document: dict[str, Any], tmp_path: Path
) -> None:
    bpe = Tokenizer(models.BPE({"a": 0, "[PAD]": 1}, []))
    PreTrainedTokenizerFast(tokenizer_object=bpe, pad_token="[PAD]").save_pretrained(
        tmp_path / "bpe"
    )
    student = factories.tinybert_config(tokenizer=str(tmp_path / "bpe"), vocabulary=50)
    with pytest.raises(UsageError, match="only a WordPiece vocabulary can be trimmed"):
        check(factories.make_recipe(document, student=student))


def test_a_teacher_without_a_head_must_be_fine_tuned(
    document: dict[str, Any], tmp_path: Path
) -> None:
    student = factories.tinybert_config()
    teacher = document["teacher"] | {"fine_tune": False}
    recipe = factories.make_recipe(document, teacher=teacher, student=student)
    check(recipe)
    config = tmp_path / "model" / "config.json"
    text = config.read_text()
    config.write_text(text.replace("BertForSequenceClassification", "BertForMaskedLM"))
    with pytest.raises(UsageError, match=r"(?s)no classification head.*is a BertForMaskedLM"):
        distill(recipe, tmp_path / "runs")


def test_a_student_that_does_not_fit_its_assistant_names_the_assistant(
    document: dict[str, Any],
) -> None:
    students = [
        factories.tinybert_config(name="between", hidden=16),
        factories.tinybert_config(name="small", start="teacher", assistant="between"),
    ]
    with pytest.raises(UsageError, match="layers of the assistant between fit only"):
        check(factories.make_recipe(document, student=students))


def test_a_teacher_that_cannot_be_a_bert_is_found(document: dict[str, Any], tmp_path: Path) -> None:
    config = tmp_path / "model" / "config.json"
    config.write_text(config.read_text().replace('"model_type": "bert"', '"model_type": "deberta"'))
    student = factories.tinybert_config(start="shrink")
    with pytest.raises(UsageError, match="cannot take layers from this type"):
        check(factories.make_recipe(document, student=student))
    check(factories.make_recipe(document, student=factories.tinybert_config()))


@pytest.mark.parametrize(
    ("sizes", "longest", "key"),
    [
        ({"start": "shrink"}, 4096, "student.general.max_length"),
        ({"start": "scratch"}, 4096, "student.general.max_length"),
        ({"start": "scratch", "max_length": 600}, 32, "student.max_length"),
    ],
)
def test_the_lengths_of_a_general_student_are_checked(
    document: dict[str, Any], tmp_path: Path, sizes: dict[str, Any], longest: int, key: str
) -> None:
    (tmp_path / "texts.txt").write_text("a text\nanother one\n")
    general = {"texts": [{"file": str(tmp_path / "texts.txt")}], "max_length": longest}
    student = factories.tinybert_config(layers=4, general=general, **sizes)
    with pytest.raises(UsageError, match="general student cannot read") as error:
        check(factories.make_recipe(document, student=student))
    assert error.value.hint == f"lower {key}"


def test_only_what_a_general_student_reads_of_its_teacher_must_fit_the_teacher(
    document: dict[str, Any], tmp_path: Path
) -> None:
    """A student may read more tokens than the teacher, from which it learns shorter texts."""
    (tmp_path / "texts.txt").write_text("a text\nanother one\n")
    general = {"texts": [{"file": str(tmp_path / "texts.txt")}], "max_length": 32}
    check(
        factories.make_recipe(
            document, student=factories.tinybert_config(layers=4, general=general, max_length=100)
        )
    )
    pieces = factories.tokenizer()
    start = factories.bert(layers=4, vocabulary=len(pieces), max_position_embeddings=1024)
    start.save_pretrained(tmp_path / "start")
    pieces.save_pretrained(tmp_path / "start")
    student = factories.tinybert_config(
        layers=4, general=general, max_length=600, start=str(tmp_path / "start")
    )
    check(factories.make_recipe(document, student=student))


def test_a_general_student_with_the_tokens_of_its_own_teacher_is_compared_with_that(
    document: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "texts.txt").write_text("a text\nanother one\n")
    pieces = factories.tokenizer()
    pieces.add_tokens(["newword"])
    factories.bert(layers=4, vocabulary=len(pieces)).save_pretrained(tmp_path / "other")
    pieces.save_pretrained(tmp_path / "other")
    other = str(tmp_path / "other")
    general = {
        "texts": [{"file": str(tmp_path / "texts.txt")}],
        "max_length": 100,
        "teacher": other,
    }
    student = factories.tinybert_config(layers=4, general=general, tokenizer=other)
    with pytest.raises(UsageError, match="general student cannot read"):
        check(factories.make_recipe(document, student=student))


def test_a_checkpoint_with_more_tokens_than_embeddings_is_found(
    document: dict[str, Any], tmp_path: Path
) -> None:
    pieces = factories.tokenizer()
    factories.bert(layers=1, vocabulary=len(pieces)).save_pretrained(tmp_path / "start")
    pieces.add_tokens(["newword"])
    pieces.save_pretrained(tmp_path / "start")
    student = factories.tinybert_config(start=str(tmp_path / "start"))
    with pytest.raises(UsageError, match="more tokens than the model has embeddings"):
        check(factories.make_recipe(document, student=student))


def test_a_student_may_have_the_teachers_tokenizer_after_a_trimmed_assistant(
    document: dict[str, Any],
) -> None:
    assistant = factories.tinybert_config(name="a", start="shrink", layers=2, vocabulary=80)
    student = factories.tinybert_config(
        name="b",
        start="shrink",
        assistant="a",
        tokenizer=document["teacher"]["model"],
        objective={"attention_weight": 1.0, "attention": "scores"},
    )
    check(factories.make_recipe(document, student=[assistant, student]))


@pytest.mark.parametrize("student", [{"kind": "bilstm", "hidden": 4}, {"start": "shrink"}])
def test_a_teacher_with_more_tokens_than_embeddings_is_found(
    document: dict[str, Any], tmp_path: Path, student: dict[str, Any]
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(document["teacher"]["model"])
    tokenizer.add_tokens(["newword"])
    tokenizer.save_pretrained(document["teacher"]["model"])
    section = student if "kind" in student else factories.tinybert_config(**student)
    with pytest.raises(UsageError, match="more tokens than the model has embeddings"):
        check(factories.make_recipe(document, student=section))


def test_attention_cannot_be_matched_after_an_assistants_vocabulary_was_trimmed(
    document: dict[str, Any],
) -> None:
    assistant = factories.tinybert_config(name="a", start="shrink", layers=2, vocabulary=80)
    objective = {"attention_weight": 1.0, "attention": "scores"}
    student = factories.tinybert_config(
        name="b", start="shrink", assistant="a", objective=objective
    )
    with pytest.raises(UsageError, match="only token by token"):
        check(factories.make_recipe(document, student=[assistant, student]))


@pytest.mark.parametrize("file", ["empty.csv", "missing.csv"])
@pytest.mark.parametrize("place", ["pool", "general"])
def test_a_file_without_texts_is_found(
    document: dict[str, Any], tmp_path: Path, file: str, place: str
) -> None:
    path = str(tmp_path / file)
    student = factories.tinybert_config()
    if place == "pool":
        document["augment"] = {"size": 1.0, "pool": {"file": path}}
    else:
        student["general"] = {"texts": [{"file": path}]}
    with pytest.raises((DataError, UsageError), match=r"empty|no texts|read"):
        check(factories.make_recipe(document, student=student))


def test_a_general_student_is_compared_with_its_encoder(
    document: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "texts.txt").write_text("a warm film\n")
    pieces = factories.tokenizer()
    factories.bert(layers=6, vocabulary=len(pieces)).save_pretrained(tmp_path / "six")
    pieces.save_pretrained(tmp_path / "six")
    texts = [{"file": str(tmp_path / "texts.txt")}]
    general = {"texts": texts, "teacher": str(tmp_path / "six"), "max_length": 32}
    student = factories.tinybert_config(layers=4, general=general)
    with pytest.raises(UsageError, match="4 student layers do not map uniformly onto 6") as error:
        check(factories.make_recipe(document, student=student))
    assert "student tinybert, general.objective: " in error.value.detail
    student["general"] = general | {"objective": {"layer_map": "last"}}
    check(factories.make_recipe(document, student=student))


def test_a_vocabulary_that_is_trained_later_separates_the_texts_of_a_pair(tmp_path: Path) -> None:
    """The tokenizer of a RoBERTa does not, so a BiLSTM on pairs needs one of its own."""
    document = factories.write_data_and_teacher(tmp_path)
    task = factories.pair_task()
    bilstm = {"kind": "bilstm", "hidden": 4}
    settings = tmp_path / "model" / "tokenizer_config.json"
    names = {"model_input_names": ["input_ids", "attention_mask"]}
    settings.write_text(json.dumps(json.loads(settings.read_text()) | names))
    with pytest.raises(UsageError, match="needs a tokenizer with token_type_ids"):
        check_before_training(factories.make_recipe(document, student=bilstm), task)
    own = {**bilstm, "tokenizer": "wordpiece"}
    check_before_training(factories.make_recipe(document, student=own), task)


def test_check_prints_the_error(document: dict[str, Any], tmp_path: Path) -> None:
    student = factories.tinybert_config(start="shrink", layers=9)
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(factories.make_recipe(document, student=student).to_toml())
    answer = CliRunner().invoke(cli, ["check", str(recipe)])
    assert isinstance(answer.exception, KdedgeError)
    assert "num_hidden_layers 9 > 4" in str(answer.exception)
