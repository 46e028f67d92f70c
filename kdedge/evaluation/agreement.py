"""Measure how well a student agrees with its teacher on each text, without labels."""

from __future__ import annotations

import numpy as np

from kdedge.evaluation.bootstrap import bootstrap_rows
from kdedge.runtime import metrics
from kdedge.runtime.spec import TaskSpec

RESAMPLES = 500


def agreement_by_text(spec: TaskSpec, student: np.ndarray, teacher: np.ndarray) -> np.ndarray:
    """Compute the agreement of student and teacher on each text; higher is better.

    For classification it is 1 if both predict the same class, else 0. For multilabel tasks it is
    the share of labels with equal decisions. For regression it is 1 minus the squared difference
    divided by the variance of the teacher's predictions, so that the mean is R squared.

    Args:
        spec: The task.
        student: The student's logits. *Shape:* (N, C)
        teacher: The teacher's logits. *Shape:* (N, C)

    Returns:
        *Shape:* (N,)
    """
    own = metrics.decide(spec, student.astype(np.float64))
    other = metrics.decide(spec, teacher.astype(np.float64))
    if spec.kind == "regression":
        variance = float(np.var(other)) if len(other) else 0.0
        return np.asarray(1 - (own - other) ** 2 / (variance or 1.0))
    equal = np.asarray(own == other, np.float64)
    return equal if equal.ndim == 1 else np.asarray(equal.mean(1))


def agreement_difference_error(first: np.ndarray, second: np.ndarray) -> float:
    """Estimate the standard error of the difference between two students' agreement.

    The error over texts comes from bootstrap samples of the texts, the same for both students
    (Efron 1979): texts on which both agree with the teacher do not show which is better. The error
    over seeds comes from the differences at equal seeds. With one seed, it is left out.

    Args:
        first: Agreement of one student from S seeds on N texts. *Shape:* (S, N)
        second: That of the other student from the same seeds, on the same texts. *Shape:* (S, N)
    """
    differences = first - second
    by_text = differences.mean(0)
    rows = bootstrap_rows(len(by_text), seed=0, count=RESAMPLES)
    over_texts = float(np.std(by_text[rows].mean(1)))
    if len(differences) == 1:
        return over_texts
    over_seeds = float(np.std(differences.mean(1), ddof=1)) / np.sqrt(len(differences))
    return float(np.hypot(over_texts, over_seeds))
