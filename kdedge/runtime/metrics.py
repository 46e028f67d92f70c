"""The metrics a task can be measured by, from logits and labels, in numpy alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from kdedge.runtime.spec import KINDS, Kind

DEFAULT_METRIC: dict[str, str] = {
    "classification": "accuracy",
    "multilabel": "micro_f1",
    "regression": "pearson",
}


def decide(kind: Kind, logits: np.ndarray) -> np.ndarray:
    """Answers from logits (N, C): class indices (N,), booleans (N, C) or numbers (N,)."""
    if kind == "classification":
        return np.asarray(logits.argmax(1))
    if kind == "multilabel":
        return logits > 0
    return logits[:, 0].astype(np.float64)


def accuracy(answers: np.ndarray, labels: np.ndarray) -> float:
    """Share of examples whose whole answer is right."""
    same = answers == labels
    return float((same if same.ndim == 1 else same.all(1)).mean())


def _counts(answers: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Per label: right, said, true; classes are taken one against the rest."""
    if answers.ndim == 1:
        classes = np.arange(int(max(answers.max(), labels.max())) + 1)
        answers, labels = answers[:, None] == classes, labels[:, None] == classes
    answers, labels = answers.astype(bool), labels.astype(bool)
    return (answers & labels).sum(0), answers.sum(0), labels.sum(0)


def _f1(right: np.ndarray, said: np.ndarray, true: np.ndarray) -> np.ndarray:
    return np.where(said + true > 0, 2 * right / np.maximum(said + true, 1), 0.0)


def f1(answers: np.ndarray, labels: np.ndarray) -> float:
    """F1 of class 1 of a two-class task."""
    right, said, true = (c[1:2] for c in _counts(answers, labels))
    return float(_f1(right, said, true)[0]) if len(right) else 0.0


def macro_f1(answers: np.ndarray, labels: np.ndarray) -> float:
    """Mean F1 over the labels that are said or true somewhere."""
    right, said, true = _counts(answers, labels)
    present = said + true > 0
    return float(_f1(right, said, true)[present].mean()) if present.any() else 0.0


def micro_f1(answers: np.ndarray, labels: np.ndarray) -> float:
    """F1 over all decisions of all labels together."""
    right, said, true = (c.sum() for c in _counts(answers, labels))
    return float(_f1(right, said, true))


def matthews(answers: np.ndarray, labels: np.ndarray) -> float:
    """Matthews correlation of any number of classes (Gorodkin 2004); 0 where it is undefined."""
    right, said, true = (c.astype(np.float64) for c in _counts(answers, labels))
    n, c = float(len(labels)), float(right.sum())
    top = c * n - float(said @ true)
    bottom = np.sqrt(n**2 - float(said @ said)) * np.sqrt(n**2 - float(true @ true))
    return float(top / bottom) if bottom > 0 else 0.0


def pearson(answers: np.ndarray, labels: np.ndarray) -> float:
    """Pearson's correlation; 0 where one side is constant and it is undefined."""
    if np.ptp(answers) == 0 or np.ptp(labels) == 0:  # a rounded mean would leave noise to correlate
        return 0.0
    a, b = answers - answers.mean(), labels - labels.mean()
    bottom = np.sqrt(float(a @ a)) * np.sqrt(float(b @ b))
    return float(a @ b / bottom) if bottom > 0 else 0.0


def spearman(answers: np.ndarray, labels: np.ndarray) -> float:
    """Pearson's correlation of ranks, ties sharing their mean rank; 0 where undefined."""
    return pearson(_ranks(answers), _ranks(labels))


def _ranks(values: np.ndarray) -> np.ndarray:
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return (ends - (counts - 1) / 2)[place].astype(np.float64)


@dataclass(frozen=True)
class Metric:
    """A measure of answers against labels, and the kinds of task it fits; higher is better for all."""

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
    """Whether `metric` is known and measures tasks of `kind`."""
    return kind in KINDS and metric in METRICS and kind in METRICS[metric].kinds


def score(metric: str, kind: Kind, logits: np.ndarray, labels: np.ndarray) -> float:
    """The metric of logits (N, C) against labels as in `kdedge.data.task.Split`."""
    return METRICS[metric].function(
        decide(kind, logits),
        np.asarray(labels, dtype=np.float64) if kind == "regression" else labels,
    )
