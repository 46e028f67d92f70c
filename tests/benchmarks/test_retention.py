"""The interval of retention covers the truth, and a small test set proves nothing."""

from __future__ import annotations

import factories
import numpy as np
import pytest
from kdedge.benchmarks.retention import paired_retention, verdict_of

from kdedge.distillation.scores import score_intervals
from kdedge.errors import DataError
from kdedge.evaluation.bootstrap import bootstrap_rows, bootstrap_scores
from kdedge.evaluation.score_interval import (
    largest_unseen_share,
    score_interval,
    widen_interval,
)
from kdedge.runtime import metrics
from kdedge.runtime.spec import Kind, TaskSpec


def spec_of(kind: Kind, metric: str, outputs: int) -> TaskSpec:
    return TaskSpec("toy", kind, tuple(f"label {i}" for i in range(outputs)), metric, pair=False)


def logits_that_are_right(right: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(N, 2) logits that answer `labels` where `right` and the other class elsewhere."""
    return np.eye(2, dtype=np.float32)[np.where(right, labels, 1 - labels)]


def example(
    kind: Kind, seed: int = 0, size: int = 300
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, a good teacher's logits and a slightly worse student's, for each kind of task."""
    generator = np.random.default_rng(seed)
    if kind == "regression":
        labels = generator.uniform(0, 5, size).astype(np.float32)
        teacher = labels[:, None] + generator.normal(0, 1, (size, 1))
    elif kind == "multilabel":
        labels = (generator.random((size, 4)) < 0.3).astype(np.float32)
        teacher = labels - 0.5 + generator.normal(0, 0.3, (size, 4))
    else:
        labels = generator.integers(0, 3, size)
        teacher = np.eye(3)[labels] + generator.normal(0, 0.5, (size, 3))
    student = teacher + generator.normal(0, 0.3, teacher.shape)
    return labels, teacher.astype(np.float32), student.astype(np.float32)


KINDS: list[tuple[Kind, str]] = [
    ("classification", "accuracy"),
    ("classification", "macro_f1"),
    ("classification", "matthews"),
    ("multilabel", "micro_f1"),
    ("multilabel", "accuracy"),
    ("regression", "pearson"),
    ("regression", "spearman"),
]


@pytest.mark.parametrize(("kind", "metric"), KINDS)
def test_every_resample_is_scored_as_the_metric_scores_it(kind: Kind, metric: str) -> None:
    labels, _, student = example(kind)
    spec = spec_of(kind, metric, student.shape[1])
    draws = bootstrap_rows(len(labels), seed=1, count=20)
    expected = [metrics.score(spec, student[draw], labels[draw]) for draw in draws]
    np.testing.assert_allclose(bootstrap_scores(spec, student, labels, draws), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("kind", "metric"),
    [("classification", "accuracy"), ("classification", "matthews"), ("regression", "spearman")],
)
def test_the_interval_holds_the_ratio_of_the_two_scores(kind: Kind, metric: str) -> None:
    labels, teacher, student = example(kind)
    spec = spec_of(kind, metric, student.shape[1])
    retention = paired_retention(spec, student, teacher, labels, target=0.99)
    ratio = metrics.score(spec, student, labels) / metrics.score(spec, teacher, labels)
    assert retention.ratio == pytest.approx(ratio)
    assert (
        retention.low is not None
        and retention.high is not None
        and retention.low < ratio < retention.high
    )
    assert retention == paired_retention(spec, student, teacher, labels, target=0.99)


def simulated(
    generator: np.random.Generator, size: int, teacher: float, lost: float, won: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Simulate a student that loses a share `lost` of the teacher's correct predictions.

    won: share of the teacher's wrong predictions that the student corrects.
    """
    labels = generator.integers(0, 2, size)
    teacher_right = generator.random(size) < teacher
    student_right = np.where(
        teacher_right, generator.random(size) >= lost, generator.random(size) < won
    )
    return (
        labels,
        logits_that_are_right(teacher_right, labels),
        logits_that_are_right(student_right, labels),
    )


@pytest.mark.parametrize("size", [60, 400])
def test_the_interval_covers_the_true_retention(size: int) -> None:
    generator = np.random.default_rng(4)
    truth = (0.9 * 0.94 + 0.1 * 0.2) / 0.9
    spec, hits = spec_of("classification", "accuracy", 2), 0
    for trial in range(100):
        labels, teacher, student = simulated(generator, size, 0.9, lost=0.06, won=0.2)
        retention = paired_retention(spec, student, teacher, labels, target=0.99, seed=trial)
        hits += (
            retention.low is not None
            and retention.high is not None
            and retention.low <= truth <= retention.high
        )
    assert hits / 100 >= 0.9


@pytest.mark.parametrize("size", [40, pytest.param(800, marks=pytest.mark.slow)])
def test_a_student_just_below_the_target_rarely_gets_the_verdict_retained(size: int) -> None:
    generator = np.random.default_rng(5)
    spec = spec_of("classification", "accuracy", 2)
    verdicts = []
    for trial in range(120):
        labels, teacher, student = simulated(
            generator, size, 0.9, lost=0.011, won=0.0
        )  # retention is 98.9 %
        verdicts.append(
            paired_retention(spec, student, teacher, labels, target=0.99, seed=trial).verdict
        )
    assert verdicts.count("retained") / len(verdicts) <= 0.05


def test_a_student_equal_to_its_teacher_needs_a_large_test_set() -> None:
    spec = spec_of("classification", "accuracy", 2)
    for size, verdict in (
        (50, "inconclusive"),
        (300, "inconclusive"),
        (400, "retained"),
        (2000, "retained"),
    ):
        labels, teacher, _ = simulated(np.random.default_rng(6), size, 0.9, 0, 0)
        retention = paired_retention(spec, teacher, teacher, labels, target=0.99)
        assert (retention.ratio, retention.verdict) == (1.0, verdict), size
    assert (
        "300 texts are too few"
        in paired_retention(spec, teacher[:300], teacher[:300], labels[:300], target=0.99).note
    )


def test_distill_and_bench_give_a_score_the_same_interval() -> None:
    task = factories.single_task()
    logits = np.eye(2)[task.test.labels] * 4
    (found,) = score_intervals(task, {"student": logits}).values()
    assert found == score_interval(task.spec, logits, task.test.labels)
    assert found[0] < 1, "40 right answers do not prove that all are right"


def test_the_note_of_a_verdict_names_the_target_in_full() -> None:
    spec = TaskSpec("toy", "classification", ("a", "b"), "accuracy", pair=False)
    labels = np.arange(40) % 2
    logits = np.eye(2)[labels]
    assert "a target of 99.5 %" in paired_retention(spec, logits, logits, labels, target=0.995).note


def test_a_clear_loss_and_a_clear_gain_get_a_verdict() -> None:
    spec = spec_of("classification", "accuracy", 2)
    labels, teacher, student = simulated(np.random.default_rng(7), 1000, 0.9, lost=0.1, won=0.0)
    assert paired_retention(spec, student, teacher, labels, target=0.99).verdict == "not retained"
    assert paired_retention(spec, teacher, student, labels, target=0.99).verdict == "retained"


def test_the_target_decides_only_at_the_ends_of_the_interval() -> None:
    assert verdict_of(0.99, 1.02, 0.99) == "retained"
    assert verdict_of(0.9899, 1.02, 0.99) == "inconclusive"
    assert verdict_of(0.95, 0.99, 0.99) == "inconclusive"
    assert verdict_of(0.95, 0.9899, 0.99) == "not retained"


def test_retention_is_undefined_for_a_teacher_below_zero() -> None:
    spec = spec_of("classification", "matthews", 2)
    labels = np.array([0, 1] * 50)
    wrong, right = (
        logits_that_are_right(np.zeros(100, bool), labels),
        logits_that_are_right(np.ones(100, bool), labels),
    )
    retention = paired_retention(spec, right, wrong, labels, target=0.99)
    assert (retention.ratio, retention.low, retention.high, retention.verdict) == (
        None,
        None,
        None,
        "inconclusive",
    )
    assert "matthews is -1.000" in retention.note


def test_a_teacher_near_zero_gets_no_interval() -> None:
    generator = np.random.default_rng(9)
    labels = generator.integers(0, 2, 200)
    teacher = logits_that_are_right(generator.random(200) < 0.53, labels)
    spec = spec_of("classification", "matthews", 2)
    assert metrics.score(spec, teacher, labels) > 0
    retention = paired_retention(
        spec, logits_that_are_right(np.ones(200, bool), labels), teacher, labels, target=0.99
    )
    assert (
        retention.low is None
        and retention.verdict == "inconclusive"
        and "no interval" in retention.note
    )


def test_the_interval_is_never_narrower_than_the_texts_allow() -> None:
    assert largest_unseen_share(1) == pytest.approx(0.975)
    assert largest_unseen_share(368) < 0.01 < largest_unseen_share(366)
    assert widen_interval(1.0, 1.0, 1.0, 100) == (
        pytest.approx(1 - largest_unseen_share(100)),
        pytest.approx(1 + largest_unseen_share(100)),
    )
    assert widen_interval(0.9, 0.5, 1.3, 100) == (pytest.approx(0.485), pytest.approx(1.315))
    assert widen_interval(0.1, 0.1, 0.1, 2)[0] == 0.0


def test_logits_of_other_texts_are_an_error() -> None:
    labels, teacher, student = example("classification")
    with pytest.raises(DataError, match="do not belong together"):
        paired_retention(
            spec_of("classification", "accuracy", 3), student[:-1], teacher, labels, target=0.99
        )


def test_the_interval_of_a_score_is_around_the_score_at_the_threshold() -> None:
    labels = np.ones((50, 1), np.float32)
    spec = TaskSpec("toy", "multilabel", ("a",), "accuracy", pair=False, threshold=0.9)
    interval = score_interval(spec, np.full((50, 1), 1.0, np.float32), labels)
    assert interval[0] == 0.0 and interval[1] < 0.2


@pytest.mark.parametrize(("accuracy", "size"), [(0.9, 200), (0.6, 100), (1.0, 50)])
def test_the_interval_of_a_score_covers_the_truth(accuracy: float, size: int) -> None:
    spec = spec_of("classification", "accuracy", 2)
    generator = np.random.default_rng(0)
    covered = 0
    for trial in range(100):
        labels = generator.integers(0, 2, size)
        logits = logits_that_are_right(generator.random(size) < accuracy, labels)
        interval = score_interval(spec, logits, labels, seed=trial)
        low, high = interval
        assert low < metrics.score(spec, logits, labels) <= high <= 1
        covered += low <= accuracy <= high
    assert covered >= 92
