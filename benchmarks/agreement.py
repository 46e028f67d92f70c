"""The share of texts that a student can answer alone, and its agreement with the teacher on them.

The report shows both under "What a student can answer alone". Agreement on all texts is a figure of
equivalence: see `equivalence/loyalty.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from kdedge.benchmarks.subjects import Subject

from kdedge.errors import CheckFailed
from kdedge.runtime.agreement import Threshold, confidence, same_label, usualness
from kdedge.runtime.spec import TaskSpec

POINTS = 100
"""Number of points of a curve."""

PROMISES = (0.99, 0.95, 0.9)
"""Levels of agreement for which a report chooses a threshold: the first that is possible."""


@dataclass(frozen=True)
class ChosenThreshold:
    """A threshold that was chosen on the validation texts, measured on the test texts.

    Attributes:
        promised: The agreement for which it was chosen.
        share: Share of the test texts that pass it, so that the student answers alone.
        agreement: Share of these on which student and teacher agree; None without such texts.
        texts: Number of these texts.
    """

    promised: float
    share: float
    agreement: float | None
    texts: int


@dataclass(frozen=True)
class AgreementCurve:
    """Agreement with the teacher, for growing shares of the most confident test texts.

    Attributes:
        shares: Shares of the texts, growing.
        agreements: Agreement on each share.
        chosen: The threshold of a cascade; None if no level of agreement can be promised.
    """

    shares: tuple[float, ...]
    agreements: tuple[float, ...]
    chosen: ChosenThreshold | None = None


def curve_of(spec: TaskSpec, subject: Subject, teacher: np.ndarray) -> AgreementCurve | None:
    """Compute the curve of a subject whose bundle has an agreement table.

    The threshold is chosen for the first of `PROMISES` that the table can keep.
    """
    if subject.logits is None or subject.agreement is None:
        return None
    threshold, promised = None, 0.0
    for promise in PROMISES:
        try:
            threshold, promised = subject.agreement.threshold(promise), promise
            break
        except CheckFailed:
            continue
    return agreement_curve(spec, subject.logits, teacher, subject.temperature, threshold, promised)


def agreement_curve(
    spec: TaskSpec,
    student: np.ndarray,
    teacher: np.ndarray,
    temperature: float,
    threshold: Threshold | None = None,
    promised: float = 0.0,
) -> AgreementCurve:
    """Compute the curve of a student on N test texts.

    Args:
        spec: A classification or multilabel task.
        student: Logits. *Shape:* (N, C)
        teacher: Logits of the same shape.
        temperature: Divides the student's logits before the softmax.
        threshold: The threshold that a cascade chose on other texts.
        promised: The agreement for which it was chosen.
    """
    sure = confidence(spec, student, temperature)
    agrees = same_label(spec, student, teacher)
    order = np.argsort(-sure, kind="stable")
    counts = np.unique(np.linspace(1, len(order), POINTS).astype(int))
    agreements = (np.cumsum(agrees[order]) / np.arange(1, len(order) + 1))[counts - 1]
    chosen = None
    if threshold is not None:
        alone = (sure >= threshold.confidence) & (usualness(student) >= threshold.usualness)
        chosen = ChosenThreshold(
            promised,
            float(alone.mean()),
            float(agrees[alone].mean()) if alone.any() else None,
            int(alone.sum()),
        )
    return AgreementCurve(tuple((counts / len(order)).tolist()), tuple(agreements.tolist()), chosen)
