"""What the subjects of a bench are compared with: the teacher's logits, or its stored score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from kdedge.benchmarks.agreement import curve_of
from kdedge.benchmarks.examples import Examples
from kdedge.benchmarks.measure import RetentionOf
from kdedge.benchmarks.options import Options
from kdedge.benchmarks.report import Row
from kdedge.benchmarks.retention import REFERENCE, Retention, fixed_retention, paired_retention
from kdedge.benchmarks.subjects import Subject

from kdedge.runtime import Manifest
from kdedge.runtime.metrics import METRICS
from kdedge.runtime.spec import TaskSpec


def with_curves(
    rows: Sequence[Row], subjects: Sequence[Subject], spec: TaskSpec, teacher: np.ndarray | None
) -> list[Row]:
    """Add each subject's agreement with the teacher, if the teacher's logits are known."""
    if teacher is None:
        return list(rows)
    compared = []
    for row, subject in zip(rows, subjects, strict=True):
        compared.append(replace(row, agreement=curve_of(spec, subject, teacher)))
    return compared


def retention_against(
    spec: TaskSpec, labels: np.ndarray, reference: np.ndarray | None, options: Options
) -> RetentionOf:
    """Compare with the teacher's logits (N, C) on the same texts."""
    assert reference is not None

    def retention_of(logits: np.ndarray) -> Retention:
        if logits is reference:
            return REFERENCE
        return paired_retention(
            spec,
            logits,
            reference,
            labels,
            target=options.target,
            seed=options.seed,
        )

    return retention_of


def retention_of_bundle(
    manifest: Manifest, examples: Examples, options: Options
) -> RetentionOf | None:
    """Compare with the teacher's logits, or with its score in the manifest; None without both."""
    spec, scores, labels = manifest.spec, manifest.scores, examples.labels
    if labels is not None and examples.teacher_logits is not None:
        return retention_against(spec, labels, examples.teacher_logits, options)
    if labels is None or scores.get("teacher") is None or scores.get("metric") != spec.metric:
        return None
    teacher = float(scores["teacher"])

    def retention_of(logits: np.ndarray) -> Retention:
        return fixed_retention(
            spec, logits, labels, teacher, target=options.target, seed=options.seed
        )

    return retention_of


def stored_score_notes(scores: Mapping[str, Any], examples: Examples) -> list[str]:
    """Return notes on the texts of a stored teacher score, if it is the reference."""
    if examples.labels is None or scores.get("teacher") is None:
        return []
    if examples.teacher_logits is not None:
        return []
    if scores.get("metric") not in METRICS:
        return []
    size = scores.get("split_size")
    notes = [
        f"the teacher's score comes from the bundle, measured on {size} texts:"
        " only the student is resampled"
    ]
    if size != len(examples):
        notes.append(
            f"the bench uses {len(examples)} other texts: retention is valid only if both sets"
            " come from the same source"
        )
    return notes
