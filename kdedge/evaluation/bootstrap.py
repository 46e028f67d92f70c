"""Bootstrap: estimate how much a score, or a difference, varies with the texts (Efron 1979)."""

from __future__ import annotations

import numpy as np

from kdedge.runtime import metrics
from kdedge.runtime.spec import TaskSpec

RESAMPLES = 1000

TAIL = 0.025
"""Share of the resamples beyond each end of an interval: 95 % are inside."""


def bootstrap_rows(size: int, seed: int, count: int = RESAMPLES) -> np.ndarray:
    """Draw row indices with replacement. *Shape:* (count, size)"""
    return np.random.default_rng(seed).integers(0, size, (count, size), dtype=np.int32)


def bootstrap_scores(
    spec: TaskSpec, logits: np.ndarray, labels: np.ndarray, draws: np.ndarray
) -> np.ndarray:
    """Compute the task's metric on each resample.

    Args:
        spec: The task.
        logits: *Shape:* (N, C)
        labels: As in `Split.labels`.
        draws: Row indices of R resamples. *Shape:* (R, N)

    Returns:
        Scores; 0 where the metric is undefined on a resample. *Shape:* (R,)
    """
    metric = metrics.METRICS[spec.metric].function
    predictions = metrics.decide(spec, logits)
    return np.array([metric(predictions[rows], labels[rows]) for rows in draws])


def percentile_interval(values: np.ndarray) -> tuple[float, float]:
    """Return the 95 % percentile interval of resampled values (R,)."""
    low, high = np.quantile(values, [TAIL, 1 - TAIL])
    return float(low), float(high)
