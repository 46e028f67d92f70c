"""Choose the weights of quantization-aware tuning by score and by equal predictions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from kdedge.export.parity import SAME_PREDICTIONS, ParityReport, compare_logits

from kdedge.data.task import Task
from kdedge.runtime import metrics

CALIBRATION_AGREEMENT = 0.995
"""Share of the float student's predictions above which calibration alone is good enough."""


@dataclass(frozen=True)
class ScoreWithAgreement:
    """Rate logits (N, C) on the validation split.

    The rating is the score if enough predictions equal those of the float student (`reference`);
    otherwise their share - 2, which is below every score.
    """

    task: Task
    reference: np.ndarray
    calibrated: np.ndarray

    def __call__(self, logits: np.ndarray) -> float:
        score = self.score(logits)
        return score if self.agrees(logits) else self.compare(logits).agreement - 2

    def score(self, logits: np.ndarray) -> float:
        spec = self.task.spec
        labels = self.task.validation.labels
        return metrics.score(spec, logits, labels)

    def compare(self, logits: np.ndarray) -> ParityReport:
        """Compare with the float student."""
        return compare_logits(self.reference, logits, self.task.spec)

    def calibration_suffices(self) -> bool:
        """Whether calibration lost nothing, or changed too few predictions to matter."""
        if self.score(self.calibrated) >= self.score(self.reference):
            return True
        return not self.compare(self.calibrated).differs(CALIBRATION_AGREEMENT)

    def describe_calibration(self) -> str:
        agreement = self.compare(self.calibrated).agreement
        return (
            f"calibration kept {100 * agreement:.2f} % of the predictions on the validation split; "
            f"the score changed from {self.score(self.reference):.4f} to "
            f"{self.score(self.calibrated):.4f}"
        )

    def agrees(self, logits: np.ndarray) -> bool:
        """Whether 99 % of the predictions, or as many as after calibration, are the float ones."""
        least = min(SAME_PREDICTIONS, self.compare(self.calibrated).agreement)
        return not self.compare(logits).differs(least)

    def rejection(self, logits: np.ndarray) -> str | None:
        """Return why the tuned weights are not used; None if they are."""
        if not self.agrees(logits):
            agreement = self.compare(logits).agreement
            return (
                f"after tuning only {100 * agreement:.2f} % of the predictions on the validation "
                "split equal those of the float student"
            )
        if self.score(logits) > self.score(self.calibrated):
            return None
        return "tuning did not improve the validation score"
