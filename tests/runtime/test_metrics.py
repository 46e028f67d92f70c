"""Every metric against scikit-learn or scipy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sk

from kdedge.runtime.metrics import DEFAULT_METRIC, METRICS, decide, metric_fits, score
from kdedge.runtime.spec import KINDS, Kind, TaskSpec

RANDOM = np.random.default_rng(5)


def spec(kind: Kind, metric: str, threshold: float = 0.5) -> TaskSpec:
    return TaskSpec("toy", kind, ("a", "b"), metric, pair=False, threshold=threshold)


def logits_and_classes(count: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    labels = RANDOM.integers(0, classes, count)
    return RANDOM.normal(size=(count, classes)) + 0.8 * np.eye(classes)[labels], labels


@pytest.mark.parametrize("count, classes", [(7, 2), (200, 2), (200, 5), (60, 30)])
def test_classification_against_scikit_learn(count: int, classes: int) -> None:
    logits, labels = logits_and_classes(count, classes)
    answers = logits.argmax(1)
    expected = {
        "accuracy": sk.accuracy_score(labels, answers),
        "macro_f1": sk.f1_score(labels, answers, average="macro", zero_division=0),
        "micro_f1": sk.f1_score(labels, answers, average="micro"),
        "matthews": sk.matthews_corrcoef(labels, answers),
    }
    if classes == 2:
        expected["f1"] = sk.f1_score(labels, answers, zero_division=0)
    for name, value in expected.items():
        assert score(spec("classification", name), logits, labels) == pytest.approx(
            value, abs=1e-12
        ), name


def test_multilabel_against_scikit_learn() -> None:
    labels = (RANDOM.random((80, 4)) < 0.4).astype(np.float32)
    logits = RANDOM.normal(size=(80, 4)) + labels
    answers = logits > 0
    assert score(spec("multilabel", "micro_f1"), logits, labels) == pytest.approx(
        sk.f1_score(labels, answers, average="micro")
    )
    assert score(spec("multilabel", "macro_f1"), logits, labels) == pytest.approx(
        sk.f1_score(labels, answers, average="macro")
    )
    assert score(spec("multilabel", "accuracy"), logits, labels) == pytest.approx(
        sk.accuracy_score(labels, answers)
    )


def test_correlations_against_scipy_with_ties() -> None:
    labels = RANDOM.integers(0, 6, 300).astype(np.float32)
    logits = (labels + RANDOM.normal(size=300)).round(1).astype(np.float32)[:, None]
    assert score(spec("regression", "pearson"), logits, labels) == pytest.approx(
        stats.pearsonr(logits[:, 0].astype(float), labels).statistic, abs=1e-9
    )
    assert score(spec("regression", "spearman"), logits, labels) == pytest.approx(
        stats.spearmanr(logits[:, 0], labels).statistic, abs=1e-12
    )


@pytest.mark.parametrize("metric", ["pearson", "spearman"])
@pytest.mark.parametrize("value", [0.0, 0.1, 0.3, 1 / 3, 1e6])
def test_a_correlation_with_a_constant_is_exactly_zero(metric: str, value: float) -> None:
    for count in range(1, 40):
        assert (
            score(spec("regression", metric), np.full((count, 1), value), np.arange(count) * 0.37)
            == 0.0
        )
        assert (
            score(
                spec("regression", metric),
                (np.arange(count) * 0.37)[:, None],
                np.full(count, value),
            )
            == 0.0
        )


def test_matthews_of_one_answer_alone_is_zero() -> None:
    assert (
        score(
            spec("classification", "matthews"),
            np.tile([2.0, 1.0], (5, 1)),
            np.array([0, 1, 0, 1, 1]),
        )
        == 0.0
    )


def test_every_kind_has_a_default_that_fits_it() -> None:
    assert set(DEFAULT_METRIC) == set(KINDS)
    for kind, metric in DEFAULT_METRIC.items():
        assert metric_fits(metric, kind)
    assert not metric_fits("pearson", "classification") and not metric_fits(
        "accurracy", "classification"
    )
    assert {name for name in METRICS if metric_fits(name, "regression")} == {"pearson", "spearman"}


def test_decisions_have_the_shape_of_labels() -> None:
    logits = np.array([[0.5, -1.0, 2.0], [3.0, 0.1, -0.1]], dtype=np.float32)
    assert decide(spec("classification", "accuracy"), logits).tolist() == [2, 0]
    assert decide(spec("multilabel", "accuracy"), logits).tolist() == [
        [True, False, True],
        [True, True, False],
    ]
    assert decide(spec("regression", "pearson"), logits[:, :1]).tolist() == [0.5, 3.0]
    above = decide(spec("multilabel", "accuracy", threshold=0.7), logits)
    assert above.tolist() == [[False, False, True], [True, False, False]]


def test_a_score_depends_on_the_threshold() -> None:
    logits, labels = np.array([[0.5], [2.0]]), np.array([[0.0], [1.0]])
    assert score(spec("multilabel", "accuracy"), logits, labels) == 0.5
    assert score(spec("multilabel", "accuracy", threshold=0.7), logits, labels) == 1.0
