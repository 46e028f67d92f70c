"""Compute the equivalence of every subject of a bench with its teacher."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from kdedge.benchmarks.equivalence.calibration import calibration_of
from kdedge.benchmarks.equivalence.flips import flips_of, is_right
from kdedge.benchmarks.equivalence.groups import Masks, classes_of, groups_of, quarters_of
from kdedge.benchmarks.equivalence.loyalty import loyalty_of
from kdedge.benchmarks.equivalence.other_tasks import label_set_agreement, number_agreement
from kdedge.benchmarks.equivalence.quality import quality_classes
from kdedge.benchmarks.equivalence.robustness import FEWEST, measure_robustness, too_slow
from kdedge.benchmarks.equivalence.text_changes import Robustness
from kdedge.benchmarks.equivalence.values import Equivalence
from kdedge.benchmarks.examples import Examples
from kdedge.benchmarks.row import Row
from kdedge.benchmarks.subjects import Subject

from kdedge.run.progress import Progress
from kdedge.runtime.agreement import same_label
from kdedge.runtime.spec import TaskSpec


@dataclass(frozen=True)
class Evidence:
    """What subjects are compared with.

    Attributes:
        spec: The task.
        examples: The N test texts, and their labels if they are known.
        tokens: Number of tokens of each text. *Shape:* (N,)
        teacher: The teacher's logits on these texts (N, C), or None.
        golden: Whether the texts are the golden ones of a bundle, and not of its task.
    """

    spec: TaskSpec
    examples: Examples
    tokens: np.ndarray
    teacher: np.ndarray | None
    golden: bool = False


def rows_with_equivalence(
    pairs: Sequence[tuple[Row, Subject]], evidence: Evidence, *, seed: int, progress: Progress
) -> list[Row]:
    """Add its equivalence with the teacher to each row of a model."""
    robustness: dict[str, tuple[Robustness, ...]] = {}
    if not evidence.golden:
        robustness = measure_robustness(
            evidence.spec, pairs, evidence.examples, seed=seed, progress=progress
        )
    compared = []
    for row, subject in pairs:
        equivalence = None
        if row.kind == "model":
            equivalence = replace(
                equivalence_of(subject, evidence),
                quality=quality_classes(row.retention),
                robustness=robustness.get(subject.key, ()),
            )
        compared.append(replace(row, equivalence=equivalence))
    return compared


def left_out(pairs: Sequence[tuple[Row, Subject]], evidence: Evidence) -> list[str]:
    """List the figures that this bench cannot compute, with the reason."""
    lines = []
    if evidence.teacher is None:
        lines.append(
            "agreement with the teacher, flips, sharpest disagreements: the teacher's logits for"
            " these texts are not known; bench the run to compare them"
        )
    if evidence.examples.labels is None:
        lines.append("score by class and by length, and calibration: the texts have no labels")
    if evidence.golden:
        lines.append("changed texts: golden texts are not of this task; give texts with --data")
    elif len(evidence.examples) < FEWEST:
        lines.append(f"changed texts: fewer than {FEWEST} texts; give more texts with --data")
    elif too_slow(pairs):
        lines.append(f"changed texts: these are too slow: {', '.join(too_slow(pairs))}")
    return lines


def equivalence_of(subject: Subject, evidence: Evidence) -> Equivalence:
    """Compare the logits of a subject with labels and teacher, as far as they are known."""
    if subject.logits is None:
        return Equivalence()
    if evidence.spec.kind == "regression":
        return _of_numbers(subject.logits, evidence)
    return _of_labels(subject, subject.logits, evidence)


def _of_numbers(logits: np.ndarray, evidence: Evidence) -> Equivalence:
    if evidence.teacher is None or logits is evidence.teacher:
        return Equivalence()
    return Equivalence(numbers=number_agreement(logits, evidence.teacher))


def _of_labels(subject: Subject, logits: np.ndarray, evidence: Evidence) -> Equivalence:
    spec, labels = evidence.spec, evidence.examples.labels
    teacher = None if logits is evidence.teacher else evidence.teacher
    right = None if labels is None else is_right(spec, logits, labels)
    agrees = None if teacher is None else same_label(spec, logits, teacher)
    classes: Masks = []
    if spec.kind == "classification" and labels is not None:
        classes = classes_of(spec.labels, labels)
    found = Equivalence(
        classes=groups_of(classes, right, agrees),
        lengths=groups_of(quarters_of(evidence.tokens), right, agrees),
    )
    if teacher is not None:
        found = _against_teacher(found, spec, logits, teacher)
        if right is not None and labels is not None:
            found = replace(found, flips=flips_of(right, is_right(spec, teacher, labels)))
    if spec.kind == "classification" and labels is not None:
        found = _with_calibration(found, subject, logits, evidence)
    return found


def _against_teacher(
    found: Equivalence, spec: TaskSpec, logits: np.ndarray, teacher: np.ndarray
) -> Equivalence:
    found = replace(found, loyalty=loyalty_of(spec, logits, teacher))
    if spec.kind != "multilabel":
        return found
    return replace(found, label_sets=label_set_agreement(spec, logits, teacher))


def _with_calibration(
    found: Equivalence, subject: Subject, logits: np.ndarray, evidence: Evidence
) -> Equivalence:
    """Add the calibration without a temperature, and with that of the subject's bundle."""
    labels = evidence.examples.labels
    assert labels is not None
    found = replace(found, raw=calibration_of(evidence.spec, logits, labels, 1.0))
    if subject.form != "onnx":
        return found
    calibrated = calibration_of(evidence.spec, logits, labels, subject.temperature)
    return replace(found, calibrated=calibrated)
