"""The metrics of a task, computed from logits and labels with numpy only."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from kdedge.runtime.spec import KINDS, TaskSpec

DEFAULT_METRIC: dict[str, str] = {
    "classification": "accuracy",
    "multilabel": "micro_f1",
    "regression": "pearson",
}


def decide(spec: TaskSpec, logits: np.ndarray) -> np.ndarray:
    """Turn logits (N, C) into predictions: class indices (N,), booleans (N, C) or numbers (N,)."""
    if spec.kind == "classification":
        return np.asarray(logits.argmax(1))
    if spec.kind == "multilabel":
        return logits > math.log(spec.threshold / (1 - spec.threshold))
    return logits[:, 0].astype(np.float64)


def accuracy(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Compute the share of examples with the correct class; multilabel: with all labels."""
    correct = predictions == labels
    if correct.ndim > 1:
        correct = correct.all(1)
    return float(correct.mean())


@dataclass(frozen=True)
class _Counts:
    """Numbers of examples per label: (C,), or one number for all labels together."""

    true_positive: np.ndarray
    predicted: np.ndarray
    actual: np.ndarray

    def f1(self) -> np.ndarray:
        """Compute F1 per label; 0 for a label that is neither predicted nor actual."""
        total = self.predicted + self.actual
        f1: np.ndarray = np.where(total > 0, 2 * self.true_positive / np.maximum(total, 1), 0.0)
        return f1


def _count(predictions: np.ndarray, labels: np.ndarray) -> _Counts:
    """Count per label; each class of a classification counts as one label."""
    if predictions.ndim == 1:
        classes = np.arange(int(max(predictions.max(), labels.max())) + 1)
        predictions = predictions[:, None] == classes
        labels = labels[:, None] == classes
    predictions = predictions.astype(bool)
    labels = labels.astype(bool)
    return _Counts((predictions & labels).sum(0), predictions.sum(0), labels.sum(0))


def f1(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Compute F1 of class 1 of a two-class task."""
    scores = _count(predictions, labels).f1()
    return float(scores[1]) if len(scores) > 1 else 0.0


def macro_f1(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Compute the mean F1 over the labels that are predicted or actual at least once."""
    counts = _count(predictions, labels)
    present = counts.predicted + counts.actual > 0
    return float(counts.f1()[present].mean()) if present.any() else 0.0


def micro_f1(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Compute F1 over all decisions of all labels together."""
    counts = _count(predictions, labels)
    total = _Counts(counts.true_positive.sum(), counts.predicted.sum(), counts.actual.sum())
    return float(total.f1())


def matthews(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Compute Matthews correlation for C classes (Gorodkin 2004); 0 if it is undefined."""
    counts = _count(predictions, labels)
    predicted = counts.predicted.astype(np.float64)
    actual = counts.actual.astype(np.float64)
    n = float(len(labels))
    correct = float(counts.true_positive.astype(np.float64).sum())
    numerator = correct * n - float(predicted @ actual)
    denominator = np.sqrt(n**2 - float(predicted @ predicted))
    denominator *= np.sqrt(n**2 - float(actual @ actual))
    return float(numerator / denominator) if denominator > 0 else 0.0


def pearson(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Compute Pearson's correlation; 0 if one side is constant."""
    # A constant is tested first: its rounded mean would leave noise, which can correlate.
    if np.ptp(predictions) == 0 or np.ptp(labels) == 0:
        return 0.0
    a = predictions - predictions.mean()
    b = labels - labels.mean()
    denominator = np.sqrt(float(a @ a)) * np.sqrt(float(b @ b))
    return float(a @ b / denominator) if denominator > 0 else 0.0


def spearman(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Compute Spearman's correlation: Pearson's of the ranks; 0 if one side is constant."""
    return pearson(_ranks(predictions), _ranks(labels))


def _ranks(values: np.ndarray) -> np.ndarray:
    """Rank values from 1; equal values share their mean rank."""
    _, group, counts = np.unique(values, return_inverse=True, return_counts=True)
    last_rank = np.cumsum(counts)
    return (last_rank - (counts - 1) / 2)[group].astype(np.float64)


@dataclass(frozen=True)
class Metric:
    """A metric of predictions against labels and the kinds of task it fits; higher is better."""

    function: Callable[[np.ndarray, np.ndarray], float]
    kinds: tuple[str, ...]


METRICS: dict[str, Metric] = {
    "accuracy": Metric(accuracy, ("classification", "multilabel")),
    "f1": Metric(f1, ("classification",)),
    "macro_f1": Metric(macro_f1, ("classification", "multilabel")),
    "micro_f1": Metric(micro_f1, ("classification", "multilabel")),
    "matthews": Metric(matthews, ("classification",)),
    "pearson": Metric(pearson, ("regression",)),
    "spearman": Metric(spearman, ("regression",)),
}


def metric_fits(metric: str, kind: str) -> bool:
    """Check that `metric` exists and fits tasks of `kind`."""
    return kind in KINDS and metric in METRICS and kind in METRICS[metric].kinds


def score(spec: TaskSpec, logits: np.ndarray, labels: np.ndarray) -> float:
    """Compute the task's metric of logits (N, C) against labels as in `kdedge.data.task.Split`."""
    if spec.kind == "regression":
        labels = np.asarray(labels, dtype=np.float64)
    return METRICS[spec.metric].function(decide(spec, logits), labels)
