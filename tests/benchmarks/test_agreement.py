"""The curve of agreement against a loop, and its place in the report."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import reports
from kdedge.benchmarks.agreement import AgreementCurve, agreement_curve, curve_of
from kdedge.benchmarks.page import html_page
from kdedge.benchmarks.pictures.agreement import agreement as draw_agreement
from kdedge.benchmarks.pictures.style import WIDE
from kdedge.benchmarks.report import Report
from kdedge.benchmarks.subjects import Subject

from kdedge.runtime.agreement import Threshold, measure_agreement
from kdedge.runtime.spec import TaskSpec

SPEC = TaskSpec("five", "classification", tuple("abcde"), "accuracy", pair=False)


def two_models(texts: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return logits of a student and its teacher, which differ on a few texts."""
    rng = np.random.default_rng(seed)
    teacher = rng.normal(0, 1, (texts, 5))
    teacher[np.arange(texts), rng.integers(0, 5, texts)] += 5
    return teacher + rng.normal(0, 1.2, (texts, 5)), teacher


def test_curve_follows_its_definition() -> None:
    student, teacher = two_models(500, seed=1)
    curve = agreement_curve(SPEC, student, teacher, 2.0)
    texts = []
    for own, other in zip(student, teacher, strict=True):
        scaled = np.exp(own / 2.0)
        texts.append((scaled.max() / scaled.sum(), own.argmax() == other.argmax()))
    texts.sort(key=lambda text: -text[0])
    for share, agreement in zip(curve.shares, curve.agreements, strict=True):
        answered = texts[: round(share * 500)]
        assert agreement == pytest.approx(np.mean([agrees for _, agrees in answered]))
    assert curve.shares[-1] == 1


def test_threshold_is_measured_on_the_test_texts() -> None:
    student, teacher = two_models(2000, seed=2)
    table = measure_agreement(SPEC, "int8", *two_models(3000, seed=3), temperature=1.0)
    subject = Subject("s", "model", "onnx", "int8", logits=student, agreement=table)
    curve = curve_of(SPEC, subject, teacher)
    assert curve is not None
    assert curve.chosen is not None
    assert curve.chosen.promised == 0.99
    assert curve.chosen.share == pytest.approx(table.threshold(0.99).share, abs=0.03)
    assert curve.chosen.texts == round(curve.chosen.share * 2000)
    assert curve.chosen.agreement is not None
    assert 0.98 < curve.chosen.agreement < 1


def test_small_table_promises_less_or_nothing() -> None:
    student, teacher = two_models(2000, seed=2)
    promised = []
    for texts in (3000, 400, 10):
        table = measure_agreement(SPEC, "int8", *two_models(texts, seed=3), temperature=1.0)
        subject = Subject("s", "model", "onnx", "int8", logits=student, agreement=table)
        curve = curve_of(SPEC, subject, teacher)
        assert curve is not None
        promised.append(curve.chosen.promised if curve.chosen else None)
    assert promised == [0.99, 0.95, None]


def test_subject_without_a_table_has_no_curve() -> None:
    student, teacher = two_models(20, seed=2)
    assert curve_of(SPEC, Subject("s", "model", "onnx", logits=student), teacher) is None


def report_with(curve: AgreementCurve) -> Report:
    report = reports.report()
    rows = [replace(row, agreement=curve) if row.form == "onnx" else row for row in report.rows]
    return replace(report, rows=tuple(rows))


def test_page_shows_curve_and_threshold() -> None:
    student, teacher = two_models(500, seed=1)
    threshold = Threshold(0.9, 0.0, 0.8, 0.99, 0.98, 500)
    curve = agreement_curve(SPEC, student, teacher, 1.0, threshold, 0.95)
    assert curve.chosen is not None
    page = html_page(report_with(curve))
    assert "What a student can answer alone" in page
    assert f"{100 * curve.chosen.share:.1f} %" in page
    assert "What a student can answer alone" not in html_page(reports.report())


def test_page_says_that_no_threshold_was_found() -> None:
    student, teacher = two_models(500, seed=1)
    page = html_page(report_with(agreement_curve(SPEC, student, teacher, 1.0)))
    assert "No threshold keeps an agreement of 90 %" in page


def test_line_of_a_low_promise_lies_inside_the_picture() -> None:
    """Both models agree nearly always, and the promise is far below the curve."""
    student, teacher = two_models(500, seed=1)
    threshold = Threshold(0.0, -100.0, 1.0, 0.99, 0.98, 500)
    sure = agreement_curve(SPEC, teacher + 0.01 * student, teacher, 1.0, threshold, 0.95)
    assert min(sure.agreements) > 0.96
    layer = draw_agreement(report_with(sure), WIDE)
    assert layer is not None
    low, high = layer.to_dict()["layer"][0]["encoding"]["y"]["scale"]["domain"]
    assert low < 0.95 < high
