"""The texts on which student and teacher differ the most. Off unless `--show-texts` is given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from kdedge.benchmarks.equivalence.compute import Evidence
from kdedge.benchmarks.equivalence.loyalty import divergences
from kdedge.benchmarks.equivalence.values import Disagreement
from kdedge.benchmarks.report import Report
from kdedge.benchmarks.subjects import Subject
from kdedge.benchmarks.summary import headline

from kdedge.runtime.agreement import same_label
from kdedge.runtime.prediction import to_prediction
from kdedge.runtime.spec import TaskSpec

MOST = 20
"""Number of texts that a report shows."""


def with_disagreements(report: Report, subjects: Sequence[Subject], evidence: Evidence) -> Report:
    """Add the sharpest disagreements of the student that the report's first sentence is about."""
    best = headline(report)
    if evidence.teacher is None:
        missing = "no texts are shown: the teacher's predictions for them are not known"
        return replace(report, notes=(*report.notes, missing))
    if best is None:
        return report
    subject = subjects[report.rows.index(best)]
    if subject.logits is None:
        return report
    found = sharpest(evidence, subject.logits, subject.temperature)
    return replace(report, disagreements=found)


def sharpest(
    evidence: Evidence, student: np.ndarray, temperature: float
) -> tuple[Disagreement, ...]:
    """Return the texts on which student and teacher differ the most, the sharpest first.

    Args:
        evidence: Texts, labels and the teacher's logits.
        student: Logits. *Shape:* (N, C)
        temperature: The student's; it changes the probabilities that are shown, not the order.
    """
    spec, teacher = evidence.spec, evidence.teacher
    assert teacher is not None
    if spec.kind == "regression":
        differs = np.ones(len(student), dtype=bool)
        sharpness = np.abs(student[:, 0] - teacher[:, 0])
    else:
        differs = ~same_label(spec, student, teacher)
        sharpness = np.sqrt(divergences(spec, student, teacher))
    order = np.argsort(-np.where(differs, sharpness, -1.0), kind="stable")
    found = []
    for row in order[: min(MOST, int(differs.sum()))].tolist():
        examples = evidence.examples
        found.append(
            Disagreement(
                text=examples.texts[row],
                pair=None if examples.pairs is None else examples.pairs[row],
                label=_true_label(evidence, row),
                teacher=prediction_text(spec, teacher[row], 1.0),
                student=prediction_text(spec, student[row], temperature),
                sharpness=float(sharpness[row]),
            )
        )
    return tuple(found)


def prediction_text(spec: TaskSpec, logits: np.ndarray, temperature: float) -> str:
    """Write the prediction for one text from logits (C,), such as `sport 97 %`."""
    prediction = to_prediction(spec, logits, temperature=temperature)
    if spec.kind == "regression":
        return f"{prediction.score:.3f}"
    if isinstance(prediction.label, str):
        return f"{prediction.label} {100 * prediction.score:.0f} %"
    return ", ".join(prediction.label) or "no label"


def _true_label(evidence: Evidence, row: int) -> str | None:
    """Write the true label of a text; None if it is not known."""
    labels, spec = evidence.examples.labels, evidence.spec
    if labels is None:
        return None
    if spec.kind == "regression":
        return f"{labels[row]:.3f}"
    if spec.kind == "classification":
        return spec.labels[int(labels[row])]
    return ", ".join(spec.labels[i] for i in np.flatnonzero(labels[row])) or "no label"
