"""The gain over labels alone: against its definition, and what the report says about it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import reports
from kdedge.benchmarks.gain import DistillationGain, gain_text, paired_gain
from kdedge.benchmarks.page import html_page
from kdedge.benchmarks.report import Report, warnings
from kdedge.benchmarks.row import Row
from kdedge.benchmarks.summary import summary

from kdedge.runtime.spec import TaskSpec

SPEC = TaskSpec("two", "classification", ("a", "b"), "accuracy", pair=False)


def logits(right: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return logits (N, 2) that are right where `right` says so."""
    return np.eye(2)[np.where(right, labels, 1 - labels)]


def test_gain_follows_its_definition() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 400)
    student, baseline = rng.uniform(size=400) < 0.9, rng.uniform(size=400) < 0.8
    gain = paired_gain(SPEC, logits(student, labels), logits(baseline, labels), labels, seed=1)
    assert gain is not None
    assert gain.difference == pytest.approx(student.mean() - baseline.mean())
    spread = np.std(student.astype(float) - baseline) / np.sqrt(400)
    assert gain.low == pytest.approx(gain.difference - 1.96 * spread, abs=0.006)
    assert gain.high == pytest.approx(gain.difference + 1.96 * spread, abs=0.006)


def report_with(gain: DistillationGain, baseline: float) -> Report:
    report = reports.report()
    rows = [replace(row, gain=gain) if row.subject == "student" else row for row in report.rows]
    score = reports.Retention(baseline / 0.9, 0.5, 1.0, "inconclusive")
    rows.append(
        Row("student baseline", "baseline", "torch", "fp32", value=baseline, retention=score)
    )
    return replace(report, rows=tuple(rows))


def test_sentence_says_whether_the_gain_is_real() -> None:
    real = report_with(DistillationGain(0.076, 0.05, 0.099), baseline=0.794)
    assert "a gain of 7.6 points, 95 % interval +5.0 to +9.9" in summary(real)
    chance = report_with(DistillationGain(0.004, -0.008, 0.017), baseline=0.866)
    assert "+0.4 points, within chance: 95 % interval -0.8 to +1.7" in summary(chance)
    assert "within chance" in html_page(chance)


def test_loss_is_called_a_loss() -> None:
    assert gain_text(DistillationGain(-0.03, -0.05, -0.01)).startswith("a loss of 3.0 points")


def test_warning_of_a_better_baseline_knows_about_chance() -> None:
    chance = "\n".join(warnings(report_with(DistillationGain(-0.01, -0.03, 0.01), baseline=0.89)))
    assert "these texts show no gain" in chance
    assert "brings nothing here" not in chance
    real = "\n".join(warnings(report_with(DistillationGain(-0.03, -0.05, -0.01), baseline=0.91)))
    assert "brings nothing here" in real
