"""Filters that need the teacher's logits: confidence, agreement with a second teacher, balance."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from scipy.special import softmax

from kdedge.data.task import Task
from kdedge.errors import UsageError
from kdedge.io.atomic import hash_files
from kdedge.io.paths import resolve_model_path
from kdedge.nn.text_model import TextClassifier
from kdedge.recipe import FilterConfig
from kdedge.run.stage import WEIGHTS
from kdedge.runtime.spec import TaskSpec
from kdedge.teacher.finetune import has_head, load_teacher
from kdedge.transfer.dataset import FilterResult, TeacherFilter
from kdedge.transfer.texts import TransferTexts

BLOCK = 65536
"""Texts that the second teacher labels at once."""

TEACHER_FILTER_KEYS = {"confidence", "balance", "agree_with"}
EVERY_CONFIDENCE = (0.0, 1.0)


def teacher_filter_settings(filters: FilterConfig) -> dict[str, Any]:
    """Return the settings that decide these filters, with a hash of the second teacher."""
    settings = filters.model_dump(mode="json", include=TEACHER_FILTER_KEYS)
    folder = resolve_model_path(filters.agree_with) if filters.agree_with else None
    settings["second"] = hash_files(folder, WEIGHTS) if folder else None
    return settings


def check_teacher_filters(filters: FilterConfig, spec: TaskSpec) -> None:
    """Check that the filters fit the task.

    Raises:
        UsageError: If a filter needs classes and the task has none, or if the second
            teacher is not a classifier for this task.
    """
    if spec.kind != "classification":
        if filters.confidence != EVERY_CONFIDENCE:
            _reject_filter("confidence", spec)
        if filters.agree_with is not None:
            _reject_filter("agree_with", spec)
    if filters.agree_with and not has_head(filters.agree_with, spec):
        raise UsageError(
            "augment.filters.agree_with is no classifier for this task",
            f"{filters.agree_with} has no head for {spec.outputs} labels",
            "name a fine-tuned model, or remove this filter",
        )


def _reject_filter(key: str, spec: TaskSpec) -> None:
    raise UsageError(
        f"augment.filters.{key} needs a classification task",
        f"the task is {spec.kind}",
        "remove this filter",
    )


def teacher_filter(
    filters: FilterConfig, task: Task, max_length: int, precision: str = "auto"
) -> TeacherFilter:
    """Create the function that accepts or rejects texts by their logits.

    It never rejects labelled texts. For tasks other than classification it accepts all texts.

    Args:
        max_length: Tokens that a second teacher reads.
        precision: The precision in which a second teacher computes.
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
        if filters.agree_with:
            second = load_teacher(filters.agree_with, task.spec, max_length)
            passes = _predict_labels(second, texts, rows, precision) == labels[rows]
            reject("second teacher", rows[~passes])
            rows = rows[passes]
        if filters.balance is not None:
            passes = select_balanced(labels[rows], task.train.labels, filters.balance)
            reject("balance", rows[~passes])
        return FilterResult(accepted, rejected)

    return apply


def _predict_labels(
    teacher: TextClassifier, texts: TransferTexts, rows: np.ndarray, precision: str
) -> np.ndarray:
    """Return the teacher's class indices (n,) for the texts at n rows."""
    labels = [np.zeros(0, np.int64)]
    for start in range(0, len(rows), BLOCK):
        block = texts.take(rows[start : start + BLOCK])
        logits = teacher.predict_logits(block.texts, block.pairs, precision=precision)
        labels.append(logits.argmax(1))
    return np.concatenate(labels)


def within(values: np.ndarray, lowest: float, highest: float) -> np.ndarray:
    """Return which values lie in a range, both ends included."""
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
