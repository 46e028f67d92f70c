"""Whole runs with a teacher of another type, and with layers matched across vocabularies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import encoders
import factories
import pytest

from kdedge.distillation.pipeline import distill
from kdedge.errors import UsageError
from kdedge.nn.tokenization import load_tokenizer
from kdedge.run.layout import RunDir

LAYERS = {"hidden_weight": 1.0, "embedding_weight": 1.0, "layer_map": [[0, 0], [1, 4]]}


def run_with(
    tmp_path: Path,
    transfer: str = "cached",
    name: str = "r",
    teacher: str = "mpnet",
    **student: Any,
) -> RunDir:
    """Distill a student from a tiny teacher of a type."""
    document = tmp_path / "document.json"
    if not document.exists():
        made = factories.write_data_and_teacher(tmp_path)
        model = encoders.encoder(teacher, len(factories.tokenizer()))
        model.config.pad_token_id = 0
        model.save_pretrained(tmp_path / "model")
        tokenizer = factories.tokenizer()
        tokenizer.model_input_names = ["input_ids", "attention_mask"]
        tokenizer.save_pretrained(tmp_path / "model")
        document.write_text(json.dumps(made))
    recipe = factories.make_recipe(
        json.loads(document.read_text()),
        name=name,
        transfer={"layers": transfer},
        student=factories.tinybert_config(**student),
    )
    return distill(recipe, tmp_path / "runs")


@pytest.mark.parametrize("start", ["teacher", "shrink"])
def test_a_student_learns_layers_of_an_mpnet_with_other_tokens(tmp_path: Path, start: str) -> None:
    objective = LAYERS | {"attention": "minilm", "attention_weight": 0.1}
    run = run_with(tmp_path, start=start, tokenizer="wordpiece", vocabulary=90, objective=objective)
    assert len(load_tokenizer(run.folder / "student").get_vocab()) <= 90
    for name in ("part/hidden", "part/embedding", "part/attention"):
        assert logged(run, name)


@pytest.mark.parametrize("teacher", ["roberta", "distilbert", "electra", "projected_electra"])
def test_a_student_is_cut_out_of_a_teacher_of_any_type(tmp_path: Path, teacher: str) -> None:
    objective = LAYERS | {"attention": "minilm", "attention_weight": 0.1}
    run = run_with(tmp_path, teacher=teacher, start="shrink", objective=objective)
    for name in ("part/hidden", "part/embedding", "part/attention"):
        assert logged(run, name)


def logged(run: RunDir, name: str) -> list[float]:
    """Return the values of one part of the loss, in the order of the training."""
    values = []
    for line in (run.folder / "student" / "log.jsonl").read_text().splitlines():
        document = json.loads(line)
        if name in document:
            values.append(document[name])
    return values


def test_cached_and_live_layers_give_the_same_losses(tmp_path: Path) -> None:
    student = {"start": "scratch", "tokenizer": "wordpiece", "vocabulary": 90, "objective": LAYERS}
    cached = run_with(tmp_path, "cached", "cached", **student)
    live = run_with(tmp_path, "live", "live", **student)
    assert list(cached.shared.glob("signals-*/hidden.npy"))
    assert not list(live.shared.glob("signals-*"))
    for name in ("part/hidden", "part/embedding"):
        assert logged(cached, name) == pytest.approx(logged(live, name), rel=1e-3)
        assert logged(cached, name)


def test_attention_of_other_tokens_is_not_compared_head_by_head(tmp_path: Path) -> None:
    objective = LAYERS | {"attention": "scores", "attention_weight": 1.0}
    with pytest.raises(UsageError, match="can be matched only token by token") as caught:
        run_with(tmp_path, tokenizer="wordpiece", vocabulary=90, objective=objective)
    assert "minilm" in str(caught.value.hint)
