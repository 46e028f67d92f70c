"""Scores on texts drawn again with replacement: how much of a score, or of a difference, is the luck of these texts (Efron 1979)."""

from __future__ import annotations

import numpy as np

from kdedge.runtime import metrics
from kdedge.runtime.spec import TaskSpec

RESAMPLES = 1000
TAIL = 0.025
"""Share of the resamples beyond each end of the interval: 95 % lie inside."""


def bootstrap_rows(size: int, seed: int, count: int = RESAMPLES) -> np.ndarray:
    """(count, size) indices drawn with replacement."""
    return np.random.default_rng(seed).integers(0, size, (count, size), dtype=np.int32)


def bootstrap_scores(
    spec: TaskSpec, logits: np.ndarray, labels: np.ndarray, draws: np.ndarray
) -> np.ndarray:
    """(R,) the metric of logits (N, C) on each row of `draws` (R, N); NaN where a draw leaves it undefined."""
    measure, answers = metrics.METRICS[spec.metric].function, metrics.decide(spec.kind, logits)
    return np.array([measure(answers[draw], labels[draw]) for draw in draws])


def percentile_interval(draws: np.ndarray) -> tuple[float, float]:
    """The 95 % percentile interval of (R,) resampled values, those left out that are undefined."""
    low, high = np.nanquantile(draws, [TAIL, 1 - TAIL])
    return float(low), float(high)
