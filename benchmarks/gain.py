"""What a student gained by its teacher: its score minus that of its label-only baseline."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kdedge.evaluation.bootstrap import bootstrap_rows, bootstrap_scores, percentile_interval
from kdedge.runtime import metrics
from kdedge.runtime.spec import TaskSpec


@dataclass(frozen=True)
class DistillationGain:
    """A difference of two scores on the same texts, with its 95 % interval over the texts."""

    difference: float
    low: float
    high: float

    @property
    def is_within_chance(self) -> bool:
        return self.low <= 0 <= self.high


def paired_gain(
    spec: TaskSpec, student: np.ndarray, baseline: np.ndarray, labels: np.ndarray, *, seed: int
) -> DistillationGain:
    """Compare a student with its label-only baseline by a paired bootstrap.

    Args:
        spec: The task; it names the metric.
        student: Logits. *Shape:* (N, C)
        baseline: Logits of the same shape.
        labels: Labels of the N texts.
        seed: Seeds the resamples.
    """
    draws = bootstrap_rows(len(labels), seed)
    differences = bootstrap_scores(spec, student, labels, draws) - bootstrap_scores(
        spec, baseline, labels, draws
    )
    low, high = percentile_interval(differences)
    scores = []
    for logits in (student, baseline):
        scores.append(metrics.score(spec, logits, labels))
    return DistillationGain(scores[0] - scores[1], low, high)


def gain_text(gain: DistillationGain) -> str:
    """Write a gain, such as `a gain of 7.6 points, 95 % interval +5.0 to +9.9`."""
    interval = f"95 % interval {100 * gain.low:+.1f} to {100 * gain.high:+.1f}"
    points = 100 * gain.difference
    if gain.is_within_chance:
        return f"a difference of {points:+.1f} points, within chance: {interval}"
    kind = "gain" if points > 0 else "loss"
    return f"a {kind} of {abs(points):.1f} points, {interval}"
