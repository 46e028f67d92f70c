"""A new regression head predicts the mean label before it learns."""

from __future__ import annotations

from pathlib import Path

import encoders
import factories
import pytest
import torch

from kdedge.nn.text_model import TextClassifier
from kdedge.recipe import TeacherConfig
from kdedge.recipe.task import TeacherFitConfig
from kdedge.teacher.finetune import fine_tune_teacher, predict_mean_first

NO_CHANGE = TeacherFitConfig(epochs=1.0, checks=1, learning_rate=1e-12)
"""Training that leaves the first weights as they are."""


@pytest.mark.parametrize("name", ["bert", *encoders.ENCODERS])
def test_the_mean_is_added_to_every_prediction(name: str) -> None:
    model = factories.bert(vocabulary=50) if name == "bert" else encoders.encoder(name, 50)
    inputs = {"input_ids": torch.tensor([[5, 6, 7, 8], [9, 9, 9, 9]])}
    predict_mean_first(model, 0.0)
    before = model.eval()(**inputs).logits
    predict_mean_first(model, 2.5)
    torch.testing.assert_close(model(**inputs).logits, before + 2.5)


def fine_tuned(folder: Path, model: str) -> TextClassifier:
    config = TeacherConfig(model=model, max_length=32, fine_tune=True, fit=NO_CHANGE)
    return fine_tune_teacher(config, factories.regression_task(), folder / "run", seed=0)


def test_fine_tuning_starts_at_the_mean_label_unless_there_is_a_head(tmp_path: Path) -> None:
    labels = factories.regression_task().train.labels
    encoder = tmp_path / "encoder"
    factories.bert(vocabulary=len(factories.tokenizer())).bert.save_pretrained(encoder)
    factories.tokenizer().save_pretrained(encoder)
    teacher = fine_tuned(tmp_path / "new", str(encoder))
    assert teacher.model.classifier.bias.item() == pytest.approx(float(labels.mean()), abs=1e-5)
    teacher.model.classifier.bias.data.fill_(7.0)
    teacher.model.save_pretrained(tmp_path / "head")
    teacher.tokenizer.save_pretrained(tmp_path / "head")
    again = fine_tuned(tmp_path / "again", str(tmp_path / "head"))
    assert again.model.classifier.bias.item() == pytest.approx(7.0, abs=1e-5)
