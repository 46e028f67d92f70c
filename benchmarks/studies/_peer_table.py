"""The table of benchmarks/studies/peers.py."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from _peer_runs import MeasuredModel

from kdedge.evaluation.bootstrap import bootstrap_rows, bootstrap_scores, percentile_interval
from kdedge.runtime import metrics
from kdedge.runtime.spec import TaskSpec

HEADER = (
    "method",
    "score [95 %]",
    "p50 µs",
    "p99 µs",
    "MB of the model",
    "MB with packages",
    "s to train or convert",
)
MB = 1e6


def render(subjects: Sequence[MeasuredModel], spec: TaskSpec, labels: np.ndarray) -> str:
    """Write one row for each subject; a subject without values has its reason."""
    lines = [f"| {' | '.join(HEADER)} |", "| --- | --- |" + " --: |" * (len(HEADER) - 2)]
    draws = bootstrap_rows(len(labels), seed=0)
    for subject in subjects:
        cells = [f"not measured: {subject.problem}", *["–"] * (len(HEADER) - 2)]
        if not subject.problem:
            cells = measured_cells(subject, spec, labels, draws)
        lines.append(f"| {' | '.join([subject.name, *cells])} |")
    return "\n".join(lines)


def measured_cells(
    subject: MeasuredModel, spec: TaskSpec, labels: np.ndarray, draws: np.ndarray
) -> list[str]:
    scores = np.array(subject.scores)
    metric = metrics.METRICS[spec.metric].function
    score = metric(metrics.decide(spec.kind, scores, spec.threshold), labels)
    low, high = percentile_interval(bootstrap_scores(spec, scores, labels, draws))
    model = folder_bytes(subject.model)
    seconds = "–" if subject.fit_seconds is None else f"{subject.fit_seconds:,.0f}"
    return [
        f"{score:.4f} [{low:.4f}, {high:.4f}]",
        f"{np.median(subject.microseconds):,.0f}",
        f"{np.quantile(subject.microseconds, 0.99):,.0f}",
        f"{model / MB:,.1f}",
        f"{(model + subject.package_bytes) / MB:,.0f}",
        seconds,
    ]


def folder_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
