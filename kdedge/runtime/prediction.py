"""Predictions: logits as labels and probabilities."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from kdedge.errors import CheckFailed
from kdedge.runtime.spec import TaskSpec

FEW_LABELS = 32
"""Up to this many labels of one text Python computes faster than numpy."""


@dataclass(frozen=True)
class Prediction:
    """The prediction for one text.

    Attributes:
        label: The best label; for multilabel all labels above the task's threshold; for
            regression "score".
        score: Probability of that label (multilabel: the highest one), or the predicted number.
        scores: Label -> probability, or {"score": number} for regression.
        truncated: Whether the text was longer than the model reads.
    """

    label: str | tuple[str, ...]
    score: float
    scores: dict[str, float]
    truncated: bool = False

    def to_json(self) -> dict[str, Any]:
        """Convert to a JSON object; `truncated` is present only if it is true."""
        label = list(self.label) if isinstance(self.label, tuple) else self.label
        document = {"label": label, "score": self.score, "scores": self.scores}
        if self.truncated:
            document["truncated"] = True
        return document


def to_prediction(
    spec: TaskSpec, logits: np.ndarray, truncated: bool = False, temperature: float = 1.0
) -> Prediction:
    """Convert the logits (C,) of one text to labels and probabilities."""
    if spec.kind == "regression":
        value = float(logits[0])
        return Prediction(spec.labels[0], value, {spec.labels[0]: value}, truncated)
    if spec.kind == "classification" and len(logits) <= FEW_LABELS:
        values = _softmax(logits.tolist(), temperature)
    else:
        values = probabilities(spec, logits, temperature).tolist()
    label: str | tuple[str, ...]
    if spec.kind == "multilabel":
        pairs = zip(spec.labels, values, strict=True)
        label = tuple(name for name, value in pairs if value > spec.threshold)
    else:
        label = spec.labels[int(logits.argmax())]
    return Prediction(label, max(values), dict(zip(spec.labels, values, strict=True)), truncated)


def _softmax(logits: list[float], temperature: float) -> list[float]:
    """Do the same as `probabilities` for one text of a classification."""
    highest = max(logits)
    powers = [math.exp((logit - highest) / temperature) for logit in logits]
    total = sum(powers)
    return [power / total for power in powers]


def probabilities(spec: TaskSpec, logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Convert logits (..., C) to probabilities, float64.

    Args:
        spec: A classification or multilabel task.
        logits: *Shape:* (..., C)
        temperature: Divides the logits of a classification. A multilabel task ignores it: its
            threshold was chosen for probabilities without a temperature.
    """
    values = logits.astype(np.float64)
    if spec.kind == "multilabel":
        return np.asarray(1 / (1 + np.exp(-values)))
    values -= np.maximum.reduce(values, axis=-1, keepdims=True)
    values /= temperature
    np.exp(values, out=values)
    values /= np.add.reduce(values, axis=-1, keepdims=True)
    return values


def check_finite(logits: np.ndarray) -> np.ndarray:
    """Return the logits (N, C). Raises CheckFailed if one of them is NaN or infinite."""
    if np.isfinite(logits).all():
        return logits
    bad_rows = np.flatnonzero(~np.isfinite(logits).all(1))
    row = int(bad_rows[0])
    raise CheckFailed(
        "the graph returns a logit that is not a number",
        f"text {row}: {logits[row][:8].tolist()}",
        "run `kdedge verify`",
    )
