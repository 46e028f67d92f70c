"""Fit what a bundle takes from the validation split: temperature and agreement table."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from kdedge.export.figures import TemperatureFigures

from kdedge.data.task import Split
from kdedge.evaluation.calibration import calibration_error, fit_temperature
from kdedge.runtime import Classifier
from kdedge.runtime.agreement import MAX_ROWS, AgreementTable, measure_agreement
from kdedge.runtime.prediction import probabilities


@dataclass(frozen=True)
class ValidationFit:
    """Results on the validation split.

    Attributes:
        figures: The fitted temperature and its effect; None for multilabel and regression tasks.
        table: How often student and teacher agree; None without the teacher's logits.
    """

    figures: TemperatureFigures | None = None
    table: AgreementTable | None = None

    @property
    def temperature(self) -> float:
        return 1.0 if self.figures is None else self.figures.temperature


NOT_FITTED = ValidationFit()


def fit_on_validation(
    classifier: Classifier, split: Split, teacher: np.ndarray | None
) -> ValidationFit:
    """Fit the temperature of an ONNX file, and compare the file with its teacher.

    Args:
        classifier: The file that applications will use.
        split: The validation split.
        teacher: The teacher's logits on it. *Shape:* (N, C)
    """
    spec = classifier.spec
    if spec.kind == "regression":
        return NOT_FITTED
    logits = classifier.logits(split.texts, split.pairs)
    figures = None
    if spec.kind == "classification":
        temperature = fit_temperature(logits, split.labels)
        figures = TemperatureFigures(
            temperature,
            calibration_error(probabilities(spec, logits), split.labels),
            calibration_error(probabilities(spec, logits, temperature), split.labels),
        )
    table = None
    if teacher is not None:
        temperature = 1.0 if figures is None else figures.temperature
        rows = _rows_of_table(len(logits))
        table = measure_agreement(
            spec, classifier.precision, logits[rows], teacher[rows], temperature
        )
    return ValidationFit(figures, table)


def _rows_of_table(texts: int) -> np.ndarray:
    """Choose the validation texts of the agreement table: all, or as many as it can hold."""
    if texts <= MAX_ROWS:
        return np.arange(texts)
    return np.sort(np.random.default_rng(0).choice(texts, MAX_ROWS, replace=False))
