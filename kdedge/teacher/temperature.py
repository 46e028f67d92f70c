"""Logits made comparable between models: one temperature for each, and the mean of what they say."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kdedge.runtime.spec import Kind

LOWEST, HIGHEST = 0.1, 10.0
"""Temperatures a fit may end at: the lowest where every label is answered right, the highest where answers are guesses."""


def fit_temperature(logits: np.ndarray, labels: np.ndarray, kind: Kind) -> float:
    """The T at which logits / T give the labels the least negative log-likelihood, to four digits (Guo et al. 2017).

    logits: (N, C). labels: (N,) classes, or (N, C) of 0 and 1 for label sets. A regression has no likelihood to fit: 1.
    With b = 1 / T the loss, the mean of logsumexp(b z) - b z_y or of log(1 + exp(b z)) - b z y, is convex in b: its slope,
    the mean of E[z] under the model minus z under the label, changes sign once.
    """
    if kind == "regression":
        return 1.0
    z = logits.astype(np.float64)
    low, high = np.log(1 / HIGHEST), np.log(1 / LOWEST)
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (
            (low, middle) if _slope(z, labels, kind, float(np.exp(middle))) > 0 else (middle, high)
        )
    return float(f"{np.exp(-(low + high) / 2):.4g}")


def _slope(z: np.ndarray, labels: np.ndarray, kind: Kind, b: float) -> float:
    if kind == "multilabel":
        return float((z * (_logistic(b * z) - labels)).sum(1).mean())
    chances = np.exp(b * (z - z.max(1, keepdims=True)))
    expected = (chances * z).sum(1) / chances.sum(1)
    return float((expected - z[np.arange(len(z)), labels]).mean())


def _logistic(z: np.ndarray) -> np.ndarray:
    half: np.ndarray = 0.5 * (1 + np.tanh(z / 2))
    return half


def mean_logits(logits: Sequence[np.ndarray], temperatures: Sequence[float]) -> np.ndarray:
    """(N, C) float32: the mean over models of logits (N, C) / temperature.

    Its softmax is the geometric mean of the models' calibrated probabilities, scaled to sum to 1 (Hinton et al. 2015 name both means).
    """
    mean: np.ndarray = np.mean(
        [z.astype(np.float32) / np.float32(t) for z, t in zip(logits, temperatures, strict=True)],
        axis=0,
    )
    return mean
