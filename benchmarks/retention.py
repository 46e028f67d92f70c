"""Retention: a student's score as a share of its teacher's, with an interval and a verdict."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from kdedge.errors import DataError
from kdedge.evaluation.bootstrap import TAIL, bootstrap_rows, bootstrap_scores
from kdedge.evaluation.score_interval import widen_interval
from kdedge.runtime import metrics
from kdedge.runtime.spec import TaskSpec

Verdict = Literal["retained", "not retained", "inconclusive", "reference"]


@dataclass(frozen=True)
class Retention:
    """A student's metric divided by its teacher's, on the same texts.

    Attributes:
        ratio: None if the teacher's metric is not above 0.
        low: Lower end of the 95 % interval, or None if there is no interval.
        high: Upper end of the interval.
        verdict: `retained` if `low` reaches the target, `not retained` if `high` is below it,
            `reference` for the teacher itself.
        note: A warning about this interval, or "".
    """

    ratio: float | None
    low: float | None
    high: float | None
    verdict: Verdict
    note: str = ""


REFERENCE = Retention(1.0, 1.0, 1.0, "reference")
"""The teacher's own row."""


def paired_retention(
    spec: TaskSpec,
    student: np.ndarray,
    teacher: np.ndarray,
    labels: np.ndarray,
    *,
    target: float,
    seed: int = 0,
) -> Retention:
    """Compute retention with a paired percentile bootstrap.

    Both models are scored on the same resamples, so texts that are hard for both cancel out.

    Args:
        spec: The task; it names the metric.
        student: Logits. *Shape:* (N, C)
        teacher: Logits of the same shape.
        labels: Labels of the N texts.
        target: The retention that the student must reach.
        seed: Seeds the resamples.

    Raises:
        DataError: If the numbers of rows differ.
    """
    if not len(student) == len(teacher) == len(labels):
        raise DataError(
            "logits and examples do not belong together",
            f"{len(student)}, {len(teacher)} and {len(labels)} rows",
        )
    student_score = metrics.score(spec, student, labels)
    teacher_score = metrics.score(spec, teacher, labels)
    if teacher_score <= 0:
        return _undefined(f"the teacher's {spec.metric} is {teacher_score:.3f}")
    draws = bootstrap_rows(len(labels), seed)
    student_draws = bootstrap_scores(spec, student, labels, draws)
    teacher_draws = bootstrap_scores(spec, teacher, labels, draws)
    ratio = student_score / teacher_score
    return _from_resamples(ratio, student_draws, teacher_draws, len(labels), target)


def verdict_of(low: float, high: float, target: float) -> Verdict:
    """Compare an interval with the target."""
    if low >= target:
        return "retained"
    return "not retained" if high < target else "inconclusive"


def _undefined(reason: str) -> Retention:
    note = f"{reason}: retention is undefined"
    return Retention(None, None, None, "inconclusive", note)


def _from_resamples(
    ratio: float,
    student_draws: np.ndarray,
    teacher_draws: np.ndarray,
    size: int,
    target: float,
) -> Retention:
    """Build the interval and the verdict from (R,) scores on resamples of `size` texts."""
    defined = teacher_draws > 0
    if defined.mean() < 1 - TAIL:
        note = (
            f"the teacher's score is not above 0 in {np.sum(~defined)} of {len(defined)} resamples:"
            " no interval"
        )
        return Retention(ratio, None, None, "inconclusive", note)
    ratios = student_draws[defined] / teacher_draws[defined]
    low, high = np.quantile(ratios, [TAIL, 1 - TAIL])
    low, high = widen_interval(ratio, float(low), float(high), size)
    verdict = verdict_of(low, high, target)
    note = ""
    if verdict == "inconclusive":
        note = f"inconclusive: {size} texts are too few for a target of {100 * target:.4g} %"
    return Retention(ratio, low, high, verdict, note)
