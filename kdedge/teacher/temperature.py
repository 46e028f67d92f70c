"""Calibrate models with one temperature each, and average their logits."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kdedge.runtime.spec import Kind

LOWEST, HIGHEST = 0.1, 10.0
"""Limits of a fitted temperature.

A fit ends at the lowest if every prediction is right, at the highest if they are no better than
chance.
"""


def fit_temperature(logits: np.ndarray, labels: np.ndarray, kind: Kind) -> float:
    """Fit the temperature T that minimises the negative log-likelihood of logits / T.

    Guo et al. 2017, section 4.2. With b = 1 / T the loss is convex: the mean of logsumexp(b z) -
    b z_y for classes, of log(1 + exp(b z)) - b z y for labels. So its slope changes sign once: the
    mean of E[z] under the model minus z under the label.

    Args:
        logits: *Shape:* (N, C)
        labels: Classes (N,), or label sets (N, C) of 0 and 1.
        kind: The kind of task; a regression has no likelihood.

    Returns:
        The temperature, rounded to four digits; 1 for a regression.
    """
    if kind == "regression":
        return 1.0
    z = logits.astype(np.float64)
    low, high = np.log(1 / HIGHEST), np.log(1 / LOWEST)
    for _ in range(50):
        middle = (low + high) / 2
        if _slope(z, labels, kind, float(np.exp(middle))) > 0:
            high = middle
        else:
            low = middle
    return float(f"{np.exp(-(low + high) / 2):.4g}")


def _slope(z: np.ndarray, labels: np.ndarray, kind: Kind, b: float) -> float:
    if kind == "multilabel":
        return float((z * (_sigmoid(b * z) - labels)).sum(1).mean())
    weights = np.exp(b * (z - z.max(1, keepdims=True)))
    expected = (weights * z).sum(1) / weights.sum(1)
    return float((expected - z[np.arange(len(z)), labels]).mean())


def _sigmoid(z: np.ndarray) -> np.ndarray:
    return np.asarray(0.5 * (1 + np.tanh(z / 2)))


def mean_logits(logits: Sequence[np.ndarray], temperatures: Sequence[float]) -> np.ndarray:
    """Return the mean over models of logits (N, C) / temperature, float32.

    Its softmax is the normalised geometric mean of the models' calibrated probabilities (Hinton et
    al. 2015, section 1).
    """
    scaled = []
    for z, temperature in zip(logits, temperatures, strict=True):
        scaled.append(z.astype(np.float32) / np.float32(temperature))
    return np.asarray(np.mean(scaled, axis=0))
