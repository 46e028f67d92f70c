"""What the subjects of a bench are compared with: the teacher's logits on the same texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from kdedge.benchmarks.agreement import curve_of
from kdedge.benchmarks.examples import Examples
from kdedge.benchmarks.measure import RetentionOf
from kdedge.benchmarks.options import Options
from kdedge.benchmarks.retention import REFERENCE, Retention, paired_retention
from kdedge.benchmarks.row import Row
from kdedge.benchmarks.subjects import Subject

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


def retention_of_bundle(spec: TaskSpec, examples: Examples, options: Options) -> RetentionOf | None:
    """Compare with the teacher's logits on the same texts; None without them or without labels."""
    if examples.labels is None or examples.teacher_logits is None:
        return None
    return retention_against(spec, examples.labels, examples.teacher_logits, options)


def unknown_teacher_notes(scores: Mapping[str, Any], examples: Examples) -> list[str]:
    """Return a note if there is a score on these texts, but nothing to compare it with.

    The teacher's score in the manifest belongs to other texts: a ratio of both is no retention.
    """
    if examples.labels is None or examples.teacher_logits is not None:
        return []
    known = ""
    teacher, size, metric = (scores.get(key) for key in ("teacher", "split_size", "metric"))
    if teacher is not None and size and metric in METRICS:
        name = str(metric).replace("_", " ")
        known = f" (on {size:,} test texts of its own it reaches {name} {teacher:.4f})"
    return [
        f"no retention: the teacher's predictions for these texts are not known{known};"
        " `kdedge export --with-eval` packs the test texts with them"
    ]
