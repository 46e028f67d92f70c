"""Filters that need the teacher's logits: confidence and balance."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from scipy.special import softmax

from kdedge.data.task import Task
from kdedge.errors import UsageError
from kdedge.recipe import FilterConfig
from kdedge.runtime.spec import TaskSpec
from kdedge.transfer.dataset import FilterResult, TeacherFilter
from kdedge.transfer.texts import TransferTexts

TEACHER_FILTER_KEYS = {"confidence", "balance"}
EVERY_CONFIDENCE = (0.0, 1.0)


def teacher_filter_settings(filters: FilterConfig) -> dict[str, Any]:
    """Return the settings of the filters on the teacher's logits."""
    return filters.model_dump(mode="json", include=TEACHER_FILTER_KEYS)


def check_teacher_filters(filters: FilterConfig, spec: TaskSpec) -> None:
    """Raise UsageError if a filter needs one class for each text and the task has none."""
    if spec.kind == "classification":
        return
    default = FilterConfig()
    for key in sorted(TEACHER_FILTER_KEYS):
        if getattr(filters, key) != getattr(default, key):
            raise UsageError(
                f"augment.filters.{key} needs a classification task",
                f"the task is {spec.kind}",
                "remove this filter",
            )


def teacher_filter(filters: FilterConfig, task: Task) -> TeacherFilter:
    """Create the function that accepts or rejects texts by their logits.

    It never rejects labelled texts. For tasks other than classification it accepts all texts.
    """

    def apply(texts: TransferTexts, logits: Iterable[np.ndarray]) -> FilterResult:
        accepted = np.ones(len(texts), dtype=bool)
        rejected: dict[str, int] = {}
        augmented = ~texts.origins.among(("labelled",))
        if task.spec.kind != "classification" or not augmented.any():
            return FilterResult(accepted, rejected)
        labels, confidence = _labels_and_confidence(logits)

        def reject(reason: str, rows: np.ndarray) -> None:
            accepted[rows] = False
            rejected[reason] = len(rows)

        rows = np.flatnonzero(augmented)
        if filters.confidence != EVERY_CONFIDENCE:
            passes = within(confidence[rows], *filters.confidence)
            reject("confidence", rows[~passes])
            rows = rows[passes]
        passes = select_balanced(labels[rows], task.train.labels, filters.balance)
        reject("balance", rows[~passes])
        return FilterResult(accepted, rejected)

    return apply


def within(values: np.ndarray, lowest: float, highest: float) -> np.ndarray:
    """Return whether each value lies in a range, both ends included. *Shape:* as `values`"""
    return np.asarray((values >= lowest) & (values <= highest))


def select_balanced(labels: np.ndarray, train_labels: np.ndarray, max_ratio: float) -> np.ndarray:
    """Select texts so that no label is much more frequent than in the training split.

    Args:
        labels: (N,) the teacher's class indices.
        train_labels: (M,) class indices.
        max_ratio: A label may have this many times its share of the training split.

    Returns:
        (N,) bool; the first texts of each label are selected.
    """
    classes = 1 + int(max(labels.max(initial=0), train_labels.max(initial=0)))
    shares = np.bincount(train_labels, minlength=classes) / max(1, len(train_labels))
    limits = np.ceil(max_ratio * shares * len(labels) - 1e-6)  # (classes,)
    earlier = np.zeros(len(labels), np.int64)  # texts of the same label before each text
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        earlier[rows] = np.arange(len(rows))
    return np.asarray(earlier < limits[labels])


def _labels_and_confidence(logits: Iterable[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return the most likely label (N,) and its probability (N,) from blocks of logits (n, C)."""
    labels = []
    confidence = []
    for block in logits:
        labels.append(block.argmax(1))
        confidence.append(softmax(block.astype(np.float32), axis=1).max(1))
    return np.concatenate(labels), np.concatenate(confidence)
