"""Flips: texts on which only one of two models is right (Dutta et al. 2024)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kdedge.runtime import metrics
from kdedge.runtime.agreement import binomial_cdf
from kdedge.runtime.spec import TaskSpec


@dataclass(frozen=True)
class Flips:
    """Predictions that change from right to wrong, and from wrong to right.

    Two models with the same accuracy can differ on many texts, if there are as many flips in both
    directions (Dutta et al. 2024, arXiv 2407.09141).

    Attributes:
        lost: Texts on which the teacher is right and the student is wrong.
        gained: Texts on which the teacher is wrong and the student is right.
        p: p value of McNemar's exact test of lost = gained.
    """

    lost: int
    gained: int
    p: float


def is_right(spec: TaskSpec, logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return whether the label, or the whole set of labels, is right: (N,) bool.

    Args:
        spec: A classification or multilabel task.
        logits: *Shape:* (N, C)
        labels: Classes (N,), or zeros and ones (N, C) for a multilabel task.
    """
    predictions = metrics.decide(spec, logits)
    right = predictions == labels
    return np.asarray(right.all(1) if right.ndim > 1 else right)


def flips_of(student: np.ndarray, teacher: np.ndarray) -> Flips:
    """Count the flips between two models.

    Args:
        student: Whether the student is right. *Shape:* (N,) bool
        teacher: Whether the teacher is right, in the same shape.
    """
    lost = int((teacher & ~student).sum())
    gained = int((student & ~teacher).sum())
    return Flips(lost, gained, mcnemar(lost, gained))


def mcnemar(lost: int, gained: int) -> float:
    """Return the p value of McNemar's exact test (McNemar 1947) with two sides.

    If both directions are equally likely, `lost` is binomial with probability 1/2.
    """
    flipped = lost + gained
    if flipped == 0:
        return 1.0
    return min(1.0, 2 * binomial_cdf(min(lost, gained), flipped, 0.5))
