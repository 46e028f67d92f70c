"""A stop while a trained model is measured does not repeat its training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import factories
import pytest

from kdedge.distillation import student_training
from kdedge.distillation.pipeline import distill
from kdedge.errors import Interrupted
from kdedge.nn import training
from kdedge.recipe import Recipe
from kdedge.run.stage import read_stage
from kdedge.teacher import finetune


def small_recipe(folder: Path) -> Recipe:
    document = factories.write_data_and_teacher(folder, train=32)
    document["teacher"] |= {"fine_tune": True, "fit": {"epochs": 1, "checks": 1}}
    student = factories.tinybert_config(baseline=False, fit={"epochs": 1, "checks": 1})
    return factories.make_recipe(document, student=student)


@pytest.mark.parametrize("owner, module", [("teacher", finetune), ("student", student_training)])
def test_a_stop_while_measuring_keeps_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: str, module: Any
) -> None:
    recipe = small_recipe(tmp_path)
    undisturbed = distill(recipe, tmp_path / "undisturbed")

    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "save_measured", stop)
        with pytest.raises(Interrupted):
            distill(recipe, tmp_path / "runs")
    with monkeypatch.context() as patch:
        patch.setattr(training._Trainer, "train", _train_only_others(owner))
        run = distill(recipe, tmp_path / "runs")
    finished = run.folder / owner
    assert read_stage(finished).result == read_stage(undisturbed.folder / owner).result | (
        {"seconds": read_stage(finished).result["seconds"]} if owner == "teacher" else {}
    )
    weights = "model.safetensors"
    assert (finished / weights).read_bytes() == (undisturbed.folder / owner / weights).read_bytes()
    assert not list(run.folder.rglob("best*")), "they are removed once the stage is finished"


def _train_only_others(owner: str) -> Any:
    """Return a method that trains all but one model, which is trained already."""
    original = training._Trainer.train

    def train(self: training._Trainer, *args: Any, **settings: Any) -> Any:
        assert f"{owner}.part" not in str(self.args.output_dir), "it is trained again"
        return original(self, *args, **settings)

    return train
