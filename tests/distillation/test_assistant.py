"""A student that takes its first weights from an assistant instead of the teacher."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import factories
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file

from kdedge.distillation.pipeline import distill
from kdedge.errors import UsageError
from kdedge.run.layout import RunDir

NO_CHANGE = {"epochs": 1.0, "checks": 1, "learning_rate": 1e-12}
"""Training that leaves the first weights as they are."""

ASSISTANT = {"name": "between", "start": "scratch", "layers": 2}


def students(**student: Any) -> list[dict[str, Any]]:
    """Return the sections of an assistant, and of a student of its shape that does not learn."""
    small = {"layers": 2, "start": "shrink", "assistant": "between", "fit": NO_CHANGE}
    return [
        factories.tinybert_config(**ASSISTANT),
        factories.tinybert_config(**small | student),
    ]


def distill_with(tmp_path: Path, document: dict[str, Any], **settings: Any) -> RunDir:
    return distill(factories.make_recipe(document, **settings), tmp_path / "runs")


@pytest.mark.parametrize("start", ["teacher", "shrink"])
def test_the_first_weights_are_those_of_the_assistant(tmp_path: Path, start: str) -> None:
    document = factories.write_data_and_teacher(tmp_path)
    run = distill_with(tmp_path, document, student=students(start=start))
    student = load_file(run.students["tinybert"].student / "model.safetensors")
    given = load_file(run.students["between"].student / "model.safetensors")
    teacher = load_file(tmp_path / "model" / "model.safetensors")
    for name in student:
        if name.startswith("bert."):
            torch.testing.assert_close(student[name], given[name], rtol=1e-5, atol=1e-6)
    words = "bert.embeddings.word_embeddings.weight"
    assert (student[words] - teacher[words]).abs().max() > 0.1


def test_a_student_is_kept_only_with_the_same_assistant(tmp_path: Path) -> None:
    document = factories.write_data_and_teacher(tmp_path)
    run = distill_with(tmp_path, document, student=students())
    weights = run.students["tinybert"].student / "model.safetensors"
    made = weights.stat().st_mtime_ns
    distill_with(tmp_path, document, student=students())
    assert weights.stat().st_mtime_ns == made
    changed = students()
    changed[0]["fit"] = {"epochs": 2.0, "checks": 1, "learning_rate": 1e-3}
    with pytest.raises(UsageError, match="was made from other inputs"):
        distill_with(tmp_path, document, student=changed)


def test_a_bilstm_takes_its_embeddings_from_the_assistant(tmp_path: Path) -> None:
    document = factories.write_data_and_teacher(tmp_path)
    between = factories.tinybert_config(name="between", start="scratch", hidden=16)
    bilstm = {"kind": "bilstm", "hidden": 4, "assistant": "between", "baseline": False}
    fit = {"epochs": 1.0, "checks": 1}
    run = distill_with(tmp_path, document, student=[between, {**bilstm, "fit": fit}])
    student = load_file(run.students["bilstm"].student / "model.safetensors")
    widths = {tuple(values.shape)[1:] for name, values in student.items() if "embed" in name}
    assert widths == {(16,)}


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        (students(start="scratch"), "does not read the assistant"),
        (students()[1:], "is not a TinyBERT that stands before it; these are: none"),
        (students()[::-1], "is not a TinyBERT that stands before it"),
        (
            [{"kind": "bilstm"}, students(assistant="bilstm")[1]],
            "is not a TinyBERT that stands before it",
        ),
        (students(general={"texts": [{"file": "texts.txt"}]}), "not from both"),
    ],
)
def test_a_recipe_names_an_assistant_that_can_help(
    tmp_path: Path, sections: list[dict[str, Any]], message: str
) -> None:
    document = factories.write_data_and_teacher(tmp_path)
    with pytest.raises(ValidationError, match=message):
        factories.make_recipe(document, student=sections)


def test_a_student_comes_from_what_its_assistant_comes_from(tmp_path: Path) -> None:
    document = factories.write_data_and_teacher(tmp_path)
    sections = students()
    sections[0]["start"] = "a-model-of-the-hub"
    recipe = factories.make_recipe(document, student=sections)
    assert recipe.pretrained(recipe.student[1]) == ("a-model-of-the-hub",)
