"""Warn about meaningless results: few texts, constant predictions, a better simple baseline."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from kdedge.runtime import metrics
from kdedge.runtime.spec import TaskSpec
from kdedge.wording import counted

if TYPE_CHECKING:
    from kdedge.data.task import Task

FEWEST_TEST_TEXTS = 100
"""With fewer texts, the 95 % interval of an accuracy is wider than ±6 points."""


def split_warnings(task: Task) -> list[str]:
    """Return a warning if the test split is too small to compare models."""
    return size_warnings(len(task.test))


def size_warnings(texts: int) -> list[str]:
    """Return a warning if there are too few test texts to compare models."""
    if texts >= FEWEST_TEST_TEXTS:
        return []
    return [
        f"the test split has {counted(texts, 'text')}, fewer than {FEWEST_TEST_TEXTS}: "
        "differences between models are mostly chance"
    ]


def only_prediction(spec: TaskSpec, logits: np.ndarray) -> str | None:
    """Return the prediction of logits (N, C) as text if it is the same for all texts.

    Returns:
        None if the predictions differ, or if there is only one text.
    """
    predictions = metrics.decide(spec, logits)
    if len(predictions) < 2 or not (predictions == predictions[0]).all():
        return None
    first = predictions[0]
    if spec.kind == "regression":
        return f"{first:.4g}"
    if spec.kind == "classification":
        return spec.labels[int(first)]
    return ", ".join(spec.labels[i] for i in np.flatnonzero(first)) or "no label"


def one_class_warning(name: str, prediction: str) -> str:
    """Return the warning that a model predicts the same for every text."""
    return f"{name} predicts {prediction!r} for every test text"


def baseline_warnings(
    scores: Mapping[str, float], majority: float, bag_of_words: float | None
) -> list[str]:
    """Return warnings for models that are no better than a simple baseline.

    Args:
        scores: Model -> test score of the teacher and the students.
        majority: Score of predicting the most frequent label, or the mean.
        bag_of_words: Score of TF-IDF with a linear model; None if the texts have no words.

    Returns:
        One sentence for all models that are not above the majority, and one for all that a bag of
        words beats.
    """
    lines = []
    weak = {name: score for name, score in scores.items() if score <= majority}
    if weak:
        lines.append(
            f"not above the majority class ({majority:.4f}), so nothing is learned: {_listed(weak)}"
        )
    if bag_of_words is None:
        return lines
    beaten = {name: score for name, score in scores.items() if score < bag_of_words}
    if beaten:
        lines.append(
            f"a bag of words (TF-IDF with a linear model) scores {bag_of_words:.4f}, "
            f"more than {_listed(beaten)}"
        )
    return lines


def _listed(scores: Mapping[str, float]) -> str:
    return ", ".join(f"{name} ({score:.4f})" for name, score in scores.items())
