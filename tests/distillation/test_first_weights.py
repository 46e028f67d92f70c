"""First weights that are fitted to training texts are computed once, and kept in the run."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import encoders
import factories
import pytest

from kdedge.distillation import first_weights
from kdedge.distillation.pipeline import distill
from kdedge.io.atomic import hash_files
from kdedge.run.layout import RunDir
from kdedge.students.build import new_student


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Record how the first weights of each student were chosen, whenever they are computed."""
    starts: list[str] = []

    def record(config: Any, *others: Any) -> Any:
        starts.append(config.start)
        return new_student(config, *others)

    monkeypatch.setattr(first_weights, "new_student", record)
    return starts


def distill_with(tmp_path: Path, document: dict[str, Any], **student: Any) -> RunDir:
    section = factories.tinybert_config(**student)
    return distill(factories.make_recipe(document, student=section), tmp_path / "runs")


def starts_of(run: RunDir) -> list[Path]:
    return [folder for folder in run.folder.glob("start-*") if folder.is_dir()]


def trained(run: RunDir) -> str:
    return hash_files(run.folder / "student", ["model.safetensors"])


def test_the_baseline_uses_the_first_weights_of_its_student(
    tmp_path: Path, built: list[str]
) -> None:
    document = factories.write_data_and_teacher(tmp_path)
    run = distill_with(tmp_path, document, start="shrink", baseline=True)
    assert (run.folder / "baseline" / "model.safetensors").is_file()
    assert built == ["shrink"]
    assert len(starts_of(run)) == 1


@pytest.mark.parametrize("start", ["shrink", "teacher"])
def test_a_student_is_the_same_with_kept_and_with_new_first_weights(
    tmp_path: Path, built: list[str], start: str
) -> None:
    document = factories.write_data_and_teacher(tmp_path)
    encoders.encoder("mpnet", len(factories.tokenizer())).save_pretrained(tmp_path / "model")
    # The loss on hidden states of another width starts from random projections.
    student = {"start": start, "baseline": False, "objective": {"hidden_weight": 1.0}}
    if start == "shrink":
        student["hidden"] = 12
    run = distill_with(tmp_path, document, **student)
    once = trained(run)
    shutil.rmtree(run.folder / "student")
    distill_with(tmp_path, document, **student)
    assert built == [start]
    assert trained(run) == once
    shutil.rmtree(run.folder / "student")
    for folder in starts_of(run):
        shutil.rmtree(folder)
    distill_with(tmp_path, document, **student)
    assert built == [start, start]
    assert trained(run) == once


def test_damaged_first_weights_are_computed_again(tmp_path: Path, built: list[str]) -> None:
    document = factories.write_data_and_teacher(tmp_path)
    run = distill_with(tmp_path, document, start="shrink", baseline=False)
    once = trained(run)
    (folder,) = starts_of(run)
    (folder / "model.safetensors").write_bytes(b"damaged")
    shutil.rmtree(run.folder / "student")
    distill_with(tmp_path, document, start="shrink", baseline=False)
    assert built == ["shrink", "shrink"]
    assert trained(run) == once


def test_other_sizes_and_seeds_have_first_weights_of_their_own(
    tmp_path: Path, built: list[str]
) -> None:
    document = factories.write_data_and_teacher(tmp_path)
    run = distill_with(tmp_path, document, start="shrink", baseline=False)
    for name, change in (("narrow", {"intermediate": 8}), ("seed", {})):
        section = factories.tinybert_config(start="shrink", baseline=False, **change)
        settings = {"student_seed": 5} if name == "seed" else {}
        recipe = factories.make_recipe(
            document, name=name, share=run.folder.name, student=section, **settings
        )
        distill(recipe, tmp_path / "runs")
    assert len(built) == len(starts_of(run)) == 3


def test_copied_layers_of_a_bert_are_not_kept(tmp_path: Path, built: list[str]) -> None:
    document = factories.write_data_and_teacher(tmp_path)
    run = distill_with(tmp_path, document, start="teacher", baseline=True)
    assert built == ["teacher", "teacher"]
    assert starts_of(run) == []
