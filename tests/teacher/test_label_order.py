"""A finished teacher whose outputs are in another order than the labels is an error."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import factories
import numpy as np
import pytest

from kdedge.errors import UsageError
from kdedge.nn.text_model import TextClassifier
from kdedge.recipe import TeacherConfig
from kdedge.runtime.spec import Kind, TaskSpec
from kdedge.teacher.finetune import prepare_teacher
from kdedge.teacher.label_order import check_label_order

LABELS = ("bad", "good", "odd")
TEXTS = 300


def spec(labels: tuple[str, ...] = LABELS, kind: Kind = "classification") -> TaskSpec:
    return TaskSpec("t", kind, labels, "accuracy", pair=False)


def answers(order: list[int], right: float) -> tuple[np.ndarray, np.ndarray]:
    """Return logits whose output i means label `order[i]`, and labels; a share is right."""
    rng = np.random.default_rng(0)
    labels = rng.integers(len(order), size=TEXTS)
    meant = np.where(rng.random(TEXTS) < right, labels, rng.integers(len(order), size=TEXTS))
    outputs = np.argsort(order)[meant]
    return np.eye(len(order), dtype=np.float32)[outputs], labels


def check(order: list[int], right: float, names: dict[int, str] | None = None) -> None:
    model = factories.bert(outputs=len(order), vocabulary=len(factories.tokenizer()))
    if names:
        model.config.id2label = names
    logits, labels = answers(order, right)
    check_label_order(model, spec(LABELS[: len(order)]), logits, labels)


@pytest.mark.parametrize("right", [0.5, 0.9])
def test_outputs_in_another_order_are_an_error(right: float) -> None:
    with pytest.raises(UsageError) as caught:
        check([1, 0, 2], right)
    message = str(caught.value)
    assert "output 0 fits good, not bad" in message and "good, bad, odd" in message, message


def test_two_exchanged_outputs_are_an_error() -> None:
    with pytest.raises(UsageError, match="output 0 fits good"):
        check([1, 0], 0.8)


@pytest.mark.parametrize("right", [0.0, 0.1, 0.9, 1.0])
def test_the_given_order_is_accepted(right: float) -> None:
    check([0, 1, 2], right)


def test_a_teacher_that_always_answers_the_rarer_label_is_accepted() -> None:
    model = factories.bert(outputs=2, vocabulary=len(factories.tokenizer()))
    logits = np.tile(np.array([[1.0, 0.0]], dtype=np.float32), (TEXTS, 1))
    labels = np.array([0] * 30 + [1] * (TEXTS - 30))
    check_label_order(model, spec(LABELS[:2]), logits, labels)


def test_equal_names_are_trusted() -> None:
    check([1, 0, 2], 0.9, names={0: "Bad", 1: "GOOD", 2: "odd"})


def test_few_texts_prove_nothing() -> None:
    model = factories.bert(outputs=2, vocabulary=len(factories.tokenizer()))
    labels = np.array([0, 1] * 4)
    check_label_order(model, spec(LABELS[:2]), np.eye(2)[1 - labels], labels)


def test_other_kinds_of_tasks_have_no_order_to_find() -> None:
    model = factories.bert(outputs=3, vocabulary=len(factories.tokenizer()))
    logits, labels = answers([1, 0, 2], 0.9)
    check_label_order(model, spec(kind="multilabel"), logits, np.eye(3)[labels])


def test_a_finished_teacher_with_exchanged_outputs_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    factories.write_teacher(tmp_path / "model")
    file = tmp_path / "model" / "config.json"
    document = json.loads(file.read_text())
    document["id2label"] = {"0": "LABEL_0", "1": "LABEL_1"}
    file.write_text(json.dumps(document))
    task = factories.single_task()
    task = replace(task, validation=task.train)  # enough texts
    exchanged: dict[str, np.ndarray] = {}
    for split in (task.validation, task.test):
        exchanged.update(zip(split.texts, np.eye(2)[1 - split.labels], strict=True))

    def predict(self: TextClassifier, texts: Any, pairs: Any, **_: Any) -> np.ndarray:
        return np.array([exchanged[text] for text in texts], dtype=np.float32)

    monkeypatch.setattr(TextClassifier, "predict_logits", predict)
    config = TeacherConfig(model=str(tmp_path / "model"), fine_tune=False)
    with pytest.raises(UsageError, match="96 of 96 validation texts are right, not 0"):
        prepare_teacher(config, task, tmp_path / "teacher")
    assert not (tmp_path / "teacher").exists(), "the stage is not finished"
