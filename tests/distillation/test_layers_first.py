"""How a student is trained: in one or two steps, from each kind of start."""

from __future__ import annotations

import json
from pathlib import Path

import factories
import pyarrow.parquet as pq
import pytest
import torch

from kdedge.distillation.pipeline import distill
from kdedge.nn.tokenization import load_tokenizer
from kdedge.recipe import TinyBertConfig, load_recipe
from kdedge.run.stage import read_stage
from kdedge.students.build import load_student

LAYERS = {"hidden_weight": 1.0, "attention_weight": 1.0, "labels_weight": 0.5}


def logged(folder: Path) -> set[str]:
    return set().union(
        *(json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines())
    )


def test_layers_first_continues_with_the_weights_of_the_first_step(tmp_path: Path) -> None:
    first = {"epochs": 2.0, "learning_rate": 1e-3}
    document = factories.write_data_and_teacher(tmp_path) | {
        "student": [factories.tinybert_config(objective=LAYERS, layers_first=first, baseline=True)]
    }
    run = distill(factories.make_recipe(document), tmp_path / "runs")
    assert {"part/hidden", "part/attention"} <= logged(
        run.folder / "layers"
    ) and "part/logits" not in logged(run.folder / "layers")
    assert {"part/logits", "part/labels"} <= logged(
        run.folder / "student"
    ) and "part/hidden" not in logged(run.folder / "student")
    layers, student = (
        load_student(run.folder / name).state_dict() for name in ("layers", "student")
    )
    assert torch.equal(layers["classifier.weight"], _untrained(run)["classifier.weight"]), (
        "the first step does not change the head"
    )
    name = "bert.encoder.layer.0.output.dense.weight"
    assert (
        0
        < float((student[name] - layers[name]).abs().max())
        < 0.2 * float((layers[name] - _untrained(run)[name]).abs().max() + 0.1)
    )
    assert run.students["tinybert"].current_baseline() is not None
    inputs = read_stage(run.folder / "student").inputs["objective"]
    assert inputs["previous"] and inputs["hidden_weight"] == 0


def _untrained(run) -> dict[str, torch.Tensor]:
    from kdedge.distillation.pipeline import prepare_context
    from kdedge.students.build import build_student

    context = prepare_context(run.recipe, run)
    torch.manual_seed(run.recipe.seed)
    return build_student(
        run.recipe.student[0], context.task.spec, context.teacher.model, context.teacher.tokenizer
    )[0].state_dict()


@pytest.mark.parametrize(
    "objective", [{"hidden_weight": 0.0}, {"hidden_weight": 1.0, "logits_weight": 0.0}]
)
def test_each_of_two_steps_needs_a_term(tmp_path: Path, objective: dict) -> None:
    with pytest.raises(ValueError, match=r"two stages|nothing to learn"):
        TinyBertConfig.model_validate(
            factories.tinybert_config(objective=objective, layers_first={})
        )


def test_a_shrunk_start_goes_through_a_whole_run(tmp_path: Path) -> None:
    document = factories.write_data_and_teacher(tmp_path, layers=3)
    student = factories.tinybert_config(
        start="shrink", hidden=12, objective={"hidden_weight": 1.0, "layer_map": "last"}
    )
    run = distill(factories.make_recipe(document, student=student), tmp_path / "runs")
    assert load_student(run.folder / "student").config.hidden_size == 12
    assert load_recipe(run.folder / "recipe.toml") == run.recipe


def test_a_shrunk_student_can_have_another_vocabulary(tmp_path: Path) -> None:
    document = factories.write_data_and_teacher(tmp_path, layers=2)
    other = tmp_path / "other"
    factories.tokenizer().save_pretrained(other)
    words = (other / "tokenizer.json").read_text()
    (other / "tokenizer.json").write_text(words.replace('"film"', '"reel"'))
    student = factories.tinybert_config(start="shrink", hidden=12, tokenizer=str(other))
    run = distill(factories.make_recipe(document, student=student), tmp_path / "runs")
    assert "reel" in load_tokenizer(run.folder / "student").get_vocab()
    assert load_student(run.folder / "student").config.hidden_size == 12


def test_a_student_is_trained_with_the_pieces_that_its_texts_use(tmp_path: Path) -> None:
    document = factories.write_data_and_teacher(tmp_path)
    whole = len(factories.tokenizer())
    run = distill(
        factories.make_recipe(document, student=factories.tinybert_config(vocabulary=whole - 20)),
        tmp_path / "runs",
    )
    model, pieces = (
        load_student(run.folder / "student"),
        load_tokenizer(run.folder / "student").get_vocab(),
    )
    assert (
        len(pieces)
        == model.config.vocab_size
        == model.get_input_embeddings().num_embeddings
        == whole - 20
    )
    assert set(pieces) < set(factories.tokenizer().get_vocab())
    rows = pq.read_table(tmp_path / "data" / "train.parquet").column("text").to_pylist()
    unknown = load_tokenizer(run.folder / "student").unk_token_id
    assert not any(
        unknown in ids for ids in load_tokenizer(run.folder / "student")(rows)["input_ids"]
    )
