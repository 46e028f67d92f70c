"""Calibrate probabilities: fit a temperature, and measure the calibration error."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

LOWEST, HIGHEST = 0.1, 10.0
"""Limits of a fitted temperature.

A fit ends at the lowest if every prediction is right, at the highest if they are no better than
chance.
"""

BINS = 15
"""Number of bins of the calibration error, as in Guo et al. 2017."""


@dataclass(frozen=True)
class ReliabilityBin:
    """Texts whose predicted labels have about the same probability.

    Attributes:
        texts: Number of these texts, at least 1.
        confidence: Mean probability of the predicted label.
        accuracy: Share of the texts whose predicted label is right.
    """

    texts: int
    confidence: float
    accuracy: float


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """Fit the temperature T that minimises the negative log-likelihood of logits / T.

    Guo et al. 2017, section 4.2. As a function of b = 1 / T, with logits z and labels y, the loss
    is the mean of logsumexp(b z) - b z_y. It is convex, so its derivative is 0 at only one b,
    which is found numerically. The derivative is the mean of E[z] - z_y: the expected logit under
    the model's probabilities minus the logit of the label.

    Args:
        logits: *Shape:* (N, C)
        labels: Classes. *Shape:* (N,)

    Returns:
        The temperature, rounded to four digits.
    """
    # Imported here because a device install, which measures calibration, has no scipy.
    from scipy.optimize import brentq
    from scipy.special import softmax

    z = logits.astype(np.float64)

    def slope(b: float) -> float:
        expected = (softmax(b * z, axis=1) * z).sum(1)
        return float((expected - z[np.arange(len(z)), labels]).mean())

    if slope(1 / HIGHEST) >= 0:
        return HIGHEST
    if slope(1 / LOWEST) <= 0:
        return LOWEST
    return float(f"{1 / brentq(slope, 1 / HIGHEST, 1 / LOWEST, rtol=1e-12):.4g}")


def reliability_bins(probabilities: np.ndarray, labels: np.ndarray) -> tuple[ReliabilityBin, ...]:
    """Group texts into bins of equal width by the probability of the predicted label.

    Args:
        probabilities: *Shape:* (N, C)
        labels: Classes. *Shape:* (N,)

    Returns:
        The bins that are not empty, in order of probability.
    """
    confidence = probabilities.max(1)
    right = probabilities.argmax(1) == labels
    numbers = np.minimum((confidence * BINS).astype(int), BINS - 1)
    bins = []
    for number in np.unique(numbers):
        inside = numbers == number
        bins.append(
            ReliabilityBin(
                int(inside.sum()), float(confidence[inside].mean()), float(right[inside].mean())
            )
        )
    return tuple(bins)


def calibration_error(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Compute the expected calibration error (Naeini et al. 2015; Guo et al. 2017, equation 3).

    It is the mean difference of confidence and accuracy over the bins of `reliability_bins`,
    weighted by their texts.

    Args:
        probabilities: *Shape:* (N, C)
        labels: Classes. *Shape:* (N,)
    """
    error = 0.0
    for each in reliability_bins(probabilities, labels):
        error += each.texts / len(labels) * abs(each.accuracy - each.confidence)
    return error
