"""Calibrate models with one temperature each, and average their logits."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit, softmax

from kdedge.runtime.spec import Kind

LOWEST, HIGHEST = 0.1, 10.0
"""Limits of a fitted temperature.

A fit ends at the lowest if every prediction is right, at the highest if they are no better than
chance.
"""


def fit_temperature(logits: np.ndarray, labels: np.ndarray, kind: Kind) -> float:
    """Fit the temperature T that minimises the negative log-likelihood of logits / T.

    Guo et al. 2017, section 4.2. As a function of b = 1 / T, with logits z and labels y, the loss
    is the mean of

        logsumexp(b z) - b z_y         for classes,
        log(1 + exp(b z)) - b z y      for label sets.

    It is convex, so its slope is 0 at one b only, and that b is found. The slope is the mean of
    E[z] - z_y: the logit that the model expects minus the logit of the label.

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

    def slope(b: float) -> float:
        if kind == "multilabel":
            return float((z * (expit(b * z) - labels)).sum(1).mean())
        expected = (softmax(b * z, axis=1) * z).sum(1)
        return float((expected - z[np.arange(len(z)), labels]).mean())

    if slope(1 / HIGHEST) >= 0:
        return HIGHEST
    if slope(1 / LOWEST) <= 0:
        return LOWEST
    return float(f"{1 / brentq(slope, 1 / HIGHEST, 1 / LOWEST, rtol=1e-12):.4g}")


def mean_logits(logits: Sequence[np.ndarray], temperatures: Sequence[float]) -> np.ndarray:
    """Return the mean over models of logits (N, C) / temperature, float32.

    Its softmax is the normalised geometric mean of the models' calibrated probabilities (Hinton et
    al. 2015, section 1).
    """
    scaled = []
    for z, temperature in zip(logits, temperatures, strict=True):
        scaled.append(z.astype(np.float32) / np.float32(temperature))
    return np.asarray(np.mean(scaled, axis=0))
