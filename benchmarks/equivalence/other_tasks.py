"""Agreement figures that only multilabel tasks or only regressions have."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kdedge.runtime import metrics
from kdedge.runtime.spec import TaskSpec

LIMIT = 1.96
"""Standard deviations between the mean difference and a limit of agreement."""


@dataclass(frozen=True)
class LabelAgreement:
    """How often student and teacher make the same decision about one label."""

    name: str
    agreement: float


@dataclass(frozen=True)
class LabelSetAgreement:
    """How far student and teacher agree on sets of labels.

    Attributes:
        hamming: Share of all decisions (N texts times C labels) that differ: the Hamming loss
            with the teacher's labels as the truth.
        labels: Each label alone.
    """

    hamming: float
    labels: tuple[LabelAgreement, ...]


@dataclass(frozen=True)
class NumberAgreement:
    """How close the numbers of a student are to those of its teacher.

    Attributes:
        pearson: Correlation of both.
        spearman: Correlation of their ranks.
        mean_absolute: Mean absolute difference.
        bias: Mean of student minus teacher.
        low: Lower limit of agreement: bias - 1.96 standard deviations of the difference. About 95 %
            of the differences lie between the limits (Bland and Altman 1986).
        high: Upper limit.
    """

    pearson: float
    spearman: float
    mean_absolute: float
    bias: float
    low: float
    high: float


def label_set_agreement(
    spec: TaskSpec, student: np.ndarray, teacher: np.ndarray
) -> LabelSetAgreement:
    """Compare the sets of labels that logits (N, C) of two models predict."""
    same = metrics.decide(spec, student) == metrics.decide(spec, teacher)
    labels = []
    for name, share in zip(spec.labels, same.mean(0).tolist(), strict=True):
        labels.append(LabelAgreement(name, share))
    return LabelSetAgreement(float(1 - same.mean()), tuple(labels))


def number_agreement(student: np.ndarray, teacher: np.ndarray) -> NumberAgreement:
    """Compare the numbers that logits (N, 1) of two models predict."""
    first = student[:, 0].astype(np.float64)
    second = teacher[:, 0].astype(np.float64)
    difference = first - second
    bias = float(difference.mean())
    spread = float(difference.std(ddof=1)) if len(difference) > 1 else 0.0
    return NumberAgreement(
        pearson=metrics.pearson(first, second),
        spearman=metrics.spearman(first, second),
        mean_absolute=float(np.abs(difference).mean()),
        bias=bias,
        low=bias - LIMIT * spread,
        high=bias + LIMIT * spread,
    )
