"""Calibration: how far probabilities differ from the share of right predictions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kdedge.evaluation.calibration import ReliabilityBin, calibration_error, reliability_bins
from kdedge.runtime.prediction import probabilities
from kdedge.runtime.spec import TaskSpec


@dataclass(frozen=True)
class ReliabilityFigures:
    """How well the probabilities of a classification fit its labels.

    Attributes:
        temperature: The logits were divided by it before the softmax.
        ece: Expected calibration error (see `calibration_error`).
        brier: Brier score, 0 (best) to 2 (see `brier_score`).
        bins: The reliability diagram.
    """

    temperature: float
    ece: float
    brier: float
    bins: tuple[ReliabilityBin, ...]


def calibration_of(
    spec: TaskSpec, logits: np.ndarray, labels: np.ndarray, temperature: float
) -> ReliabilityFigures:
    """Compare the probabilities of logits (N, C) with the true classes (N,)."""
    probs = probabilities(spec, logits, temperature)
    return ReliabilityFigures(
        temperature,
        calibration_error(probs, labels),
        brier_score(probs, labels),
        reliability_bins(probs, labels),
    )


def brier_score(probs: np.ndarray, labels: np.ndarray) -> float:
    """Compute the Brier score in its first form, over all classes (Brier 1950, equation 2).

    It is the mean over the texts of the sum over the classes of (p - y)², with y = 1 for the label
    and 0 for the others.

    Args:
        probs: Probabilities. *Shape:* (N, C)
        labels: Classes. *Shape:* (N,)
    """
    wanted = np.zeros_like(probs)
    wanted[np.arange(len(labels)), labels] = 1
    return float(((probs - wanted) ** 2).sum(1).mean())
