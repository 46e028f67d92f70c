"""The temperature against a grid, the calibration error against a loop."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from kdedge.evaluation.calibration import (
    BINS,
    HIGHEST,
    LOWEST,
    calibration_error,
    fit_temperature,
)


def sure_model(factor: float) -> tuple[np.ndarray, np.ndarray]:
    """Return logits of a calibrated model times `factor`, and labels drawn from the model."""
    rng = np.random.default_rng(0)
    calm = rng.normal(0, 2, (4000, 4))
    labels = np.array([rng.choice(4, p=row) for row in softmax(calm, axis=1)])
    return factor * calm, labels


@pytest.mark.parametrize("factor", [0.5, 1.0, 3.0])
def test_temperature_is_the_best_of_a_grid(factor: float) -> None:
    logits, labels = sure_model(factor)
    found = fit_temperature(logits.astype(np.float32), labels)

    def loss(temperature: float) -> float:
        return -float(log_softmax(logits / temperature, axis=1)[np.arange(4000), labels].mean())

    grid = np.linspace(0.2, 5, 2000)
    assert found == pytest.approx(grid[np.argmin([loss(value) for value in grid])], abs=0.003)
    assert found == pytest.approx(factor, rel=0.1)


def test_limits() -> None:
    assert fit_temperature(np.eye(3), np.arange(3)) == LOWEST
    assert fit_temperature(np.eye(3), np.array([1, 2, 0])) == HIGHEST


def test_error_follows_its_definition() -> None:
    logits, labels = sure_model(2.0)
    shares = softmax(logits, axis=1)
    total = 0.0
    for number in range(BINS):
        inside = []
        for row, label in zip(shares, labels, strict=True):
            top = row.max()
            if number / BINS <= top < (number + 1) / BINS or (number == BINS - 1 and top == 1):
                inside.append((top, row.argmax() == label))
        if inside:
            confidence, right = np.mean(np.array(inside, dtype=float), axis=0)
            total += len(inside) / len(labels) * abs(right - confidence)
    assert calibration_error(shares, labels) == pytest.approx(total)


def test_temperature_lowers_the_error() -> None:
    logits, labels = sure_model(3.0)
    before = calibration_error(softmax(logits, axis=1), labels)
    after = calibration_error(softmax(logits / fit_temperature(logits, labels), axis=1), labels)
    assert after < 0.3 * before
