"""Label shift: how the teacher's labels of new texts differ from those of the labelled texts."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.stats import ks_2samp

from kdedge.runtime.metrics import decide
from kdedge.runtime.spec import TaskSpec
from kdedge.transfer.texts import TransferTexts


@dataclass(frozen=True)
class LabelShift:
    """What the teacher predicts for the texts of one origin.

    Attributes:
        texts: Number of texts.
        shares: Label -> share of the texts with it, most frequent first; empty for regression.
        quartiles: Lower quartile, median and upper quartile of the predicted numbers of a
            regression; else None.
        shift: Distance from the labelled texts, from 0 (same labels) to 1 (no label in common).
    """

    texts: int
    shares: dict[str, float]
    quartiles: tuple[float, float, float] | None
    shift: float

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def measure_label_shift(
    spec: TaskSpec, logits: np.ndarray, texts: TransferTexts
) -> dict[str, LabelShift]:
    """Compare the teacher's predictions for each origin with those for the labelled texts.

    The distance is the total variation distance of the labels. With several labels per text it is
    the largest difference of a label's share. For a regression it is the distance of Kolmogorov
    and Smirnov: the largest difference of the share of texts below any number.

    Args:
        spec: The task.
        logits: The teacher's. *Shape:* (N, C)
        texts: The N texts. Without labelled ones every distance is 0.

    Returns:
        Origin -> what the teacher predicts, in the order of the texts.
    """
    labelled = decide(spec, logits[texts.labelled])
    shifts = {}
    for origin in dict.fromkeys(texts.origins):
        predicted = decide(spec, logits[texts.rows(origin)])
        shifts[origin] = _compare(spec, predicted, labelled if len(labelled) else predicted)
    return shifts


def _compare(spec: TaskSpec, predicted: np.ndarray, labelled: np.ndarray) -> LabelShift:
    """Compare predictions for the texts of one origin with those for the labelled texts."""
    if spec.kind == "regression":
        quartiles = tuple(np.quantile(predicted, (0.25, 0.5, 0.75)).tolist())
        return LabelShift(len(predicted), {}, quartiles, _ks_distance(predicted, labelled))
    shares = _shares(spec, predicted)
    difference = np.abs(shares - _shares(spec, labelled))
    shift = difference.max() if spec.kind == "multilabel" else difference.sum() / 2
    order = np.argsort(-shares, kind="stable")
    by_label = {spec.labels[i]: float(shares[i]) for i in order}
    return LabelShift(len(predicted), by_label, None, float(shift))


def _shares(spec: TaskSpec, predicted: np.ndarray) -> np.ndarray:
    """Return the share of texts with each label, (C,)."""
    if spec.kind == "multilabel":
        return np.asarray(predicted.mean(0))
    return np.bincount(predicted, minlength=len(spec.labels)) / len(predicted)


def _ks_distance(values: np.ndarray, reference: np.ndarray) -> float:
    return float(ks_2samp(values, reference, method="asymp").statistic)
