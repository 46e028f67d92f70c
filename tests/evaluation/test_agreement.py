"""Agreement of student and teacher by text, and the error of a difference, counted by hand."""

from __future__ import annotations

import numpy as np
import pytest

from kdedge.evaluation.agreement import agreement_by_text, agreement_difference_error
from kdedge.runtime.spec import TaskSpec


def spec(kind: str, outputs: int) -> TaskSpec:
    labels = tuple(f"l{i}" for i in range(outputs))
    return TaskSpec("t", kind, labels, "accuracy", pair=False)  # type: ignore[arg-type]


def test_classes_agree_or_not() -> None:
    teacher = np.array([[2, 1, 0], [0, 1, 0], [0, 0, 3]], np.float16)
    student = np.array([[9, 8, 7], [1, 0, 0], [0, 0, 1]], np.float32)
    agreement = agreement_by_text(spec("classification", 3), student, teacher)
    assert agreement.tolist() == [1.0, 0.0, 1.0]


def test_label_sets_agree_by_share_of_labels() -> None:
    teacher = np.array([[1, -1, 1, -1], [1, 1, 1, 1]], np.float16)
    student = np.array([[1, 1, 1, -1], [2, 3, 4, 5]], np.float32)
    agreement = agreement_by_text(spec("multilabel", 4), student, teacher)
    assert agreement.tolist() == [0.75, 1.0]


def test_the_mean_of_a_regression_is_r_squared() -> None:
    rng = np.random.default_rng(0)
    teacher = rng.normal(3, 2, (500, 1)).astype(np.float16)
    student = teacher.astype(np.float32) + rng.normal(0, 1, (500, 1)).astype(np.float32)
    agreement = agreement_by_text(spec("regression", 1), student, teacher)
    truth, prediction = teacher[:, 0].astype(float), student[:, 0].astype(float)
    residual = ((truth - prediction) ** 2).sum()
    assert agreement.mean() == pytest.approx(1 - residual / ((truth - truth.mean()) ** 2).sum())
    constant = np.ones((3, 1))
    same = agreement_by_text(spec("regression", 1), constant, constant)
    assert same.tolist() == [1.0, 1.0, 1.0]


def test_shared_errors_do_not_widen_the_error_of_a_difference() -> None:
    """20 and 22 of 32 texts agree, 20 of them in both.

    The difference is smaller than the error of either agreement, but larger than its own.
    """
    texts = np.arange(32)
    fewer, more = (texts < 20)[None].astype(float), (texts < 22)[None].astype(float)
    found = agreement_difference_error(more, fewer)
    assert found == pytest.approx(np.sqrt(2 / 32 * 30 / 32 / 32), rel=0.15)
    assert found < 2 / 32 < np.sqrt(22 / 32 * 10 / 32 / 32)


def test_the_error_knows_seeds_and_texts() -> None:
    texts = np.arange(32)
    first = np.stack([texts < right for right in (26, 28, 30)]).astype(float)
    second = np.stack([texts < 20] * 3).astype(float)
    by_text = (first - second).mean(0)
    over_texts = by_text.std() / np.sqrt(32)
    over_seeds = (2 / 32) / np.sqrt(3)
    error = agreement_difference_error(first, second)
    assert error == pytest.approx(np.hypot(over_texts, over_seeds), rel=0.1)
