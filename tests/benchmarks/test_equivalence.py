"""Every figure of equivalence against scikit-learn, scipy or a loop."""

from __future__ import annotations

import math

import numpy as np
import pytest
from kdedge.benchmarks.equivalence.calibration import brier_score, calibration_of
from kdedge.benchmarks.equivalence.flips import flips_of, is_right, mcnemar
from kdedge.benchmarks.equivalence.groups import classes_of, groups_of, quarters_of
from kdedge.benchmarks.equivalence.loyalty import divergences, loyalty_of
from kdedge.benchmarks.equivalence.other_tasks import label_set_agreement, number_agreement
from kdedge.benchmarks.equivalence.quality import quality_classes
from kdedge.benchmarks.equivalence.shares import holm, less_than_rest, share_interval
from kdedge.benchmarks.retention import REFERENCE, Retention
from scipy import stats
from scipy.spatial.distance import jensenshannon
from scipy.special import expit, softmax
from sklearn.metrics import accuracy_score, hamming_loss, mean_absolute_error

from kdedge.runtime.spec import TaskSpec

CLASSES = TaskSpec("toy", "classification", ("a", "b", "c"), "accuracy", pair=False)
LABELS = TaskSpec("toy", "multilabel", ("a", "b", "c", "d"), "micro_f1", pair=False, threshold=0.4)
NUMBERS = TaskSpec("toy", "regression", ("score",), "pearson", pair=False)


def two_models(texts: int = 200, outputs: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Logits of a student and a teacher that agree on most texts."""
    generator = np.random.default_rng(4)
    teacher = generator.normal(size=(texts, outputs)) * 3
    student = teacher + generator.normal(size=(texts, outputs))
    return student.astype(np.float32), teacher.astype(np.float32)


def labels_like(teacher: np.ndarray) -> np.ndarray:
    """Classes that a teacher predicts for most texts."""
    generator = np.random.default_rng(5)
    labels = teacher.argmax(1)
    wrong = generator.random(len(labels)) < 0.2
    labels[wrong] = generator.integers(0, teacher.shape[1], wrong.sum())
    return labels


# Shares


@pytest.mark.parametrize(("successes", "trials"), [(0, 10), (10, 10), (3, 7), (955, 1002), (1, 1)])
def test_an_interval_of_a_share_is_that_of_scipy(successes: int, trials: int) -> None:
    expected = stats.binomtest(successes, trials).proportion_ci(method="wilson")
    assert share_interval(successes, trials) == pytest.approx((expected.low, expected.high))


@pytest.mark.parametrize(("size", "rate"), [(5, 0.1), (40, 0.3), (150, 0.9), (199, 0.5)])
def test_a_group_is_tested_as_by_scipy(size: int, rate: float) -> None:
    generator = np.random.default_rng(size)
    inside = np.arange(200) < size
    successes = generator.random(200) < np.where(inside, rate, 0.6)
    table = [
        [int((inside & successes).sum()), int((inside & ~successes).sum())],
        [int((~inside & successes).sum()), int((~inside & ~successes).sum())],
    ]
    expected = stats.fisher_exact(table, alternative="less").pvalue
    assert less_than_rest(inside, successes) == pytest.approx(expected, rel=1e-9)


def test_a_group_of_all_texts_is_not_less() -> None:
    everything = np.ones(10, dtype=bool)
    assert less_than_rest(everything, everything) == pytest.approx(1.0)
    assert less_than_rest(everything, ~everything) == pytest.approx(1.0)


def test_p_values_are_corrected_as_in_the_paper() -> None:
    """A second way: reject in order of the values while p <= alpha / (tests that are left)."""
    generator = np.random.default_rng(0)
    for _ in range(20):
        values = (generator.random(7) ** 3).tolist()
        corrected = holm(values)
        for alpha in (0.01, 0.05, 0.2, 0.7):
            rejected = set()
            for rank, index in enumerate(sorted(range(7), key=values.__getitem__)):
                if values[index] > alpha / (7 - rank):
                    break
                rejected.add(index)
            assert {i for i, p in enumerate(corrected) if p <= alpha} == rejected
    assert holm([]) == []


# Loyalty and flips


def test_loyalty_is_that_of_sklearn_and_scipy() -> None:
    student, teacher = two_models()
    found = loyalty_of(CLASSES, student, teacher)
    assert found.agreement == accuracy_score(teacher.argmax(1), student.argmax(1))
    assert 0.5 < found.agreement < 1
    distances = []
    for first, second in zip(student.astype(float), teacher.astype(float), strict=True):
        distances.append(jensenshannon(softmax(first), softmax(second), base=2))
    assert found.probability == pytest.approx(1 - np.mean(distances), rel=1e-9)
    assert np.sqrt(divergences(CLASSES, student, teacher)) == pytest.approx(distances)


def test_loyalty_has_its_limits() -> None:
    _, teacher = two_models()
    same = loyalty_of(CLASSES, teacher, teacher)
    assert (same.agreement, same.probability, same.high) == (1, 1, 1)
    certain = np.eye(3, dtype=np.float32) * 2000
    opposite = loyalty_of(CLASSES, certain, np.roll(certain, 1, axis=1))
    assert (opposite.agreement, opposite.probability, opposite.low) == (0, 0, 0)


def test_loyalty_of_label_sets_is_that_of_a_loop() -> None:
    student, teacher = two_models(60, 4)
    found = loyalty_of(LABELS, student, teacher)
    same, distances = 0, []
    for first, second in zip(student.astype(float), teacher.astype(float), strict=True):
        decided = [(expit(a) > 0.4) == (expit(b) > 0.4) for a, b in zip(first, second, strict=True)]
        same += all(decided)
        squares = []
        for a, b in zip(expit(first), expit(second), strict=True):
            squares.append(jensenshannon([a, 1 - a], [b, 1 - b], base=2) ** 2)
        distances.append(math.sqrt(np.mean(squares)))
    assert found.agreement == same / 60
    assert found.probability == pytest.approx(1 - np.mean(distances), rel=1e-6)


def test_flips_are_those_of_a_loop_and_scipy() -> None:
    student, teacher = two_models()
    labels = labels_like(teacher)
    lost = gained = 0
    for first, second, label in zip(student, teacher, labels, strict=True):
        lost += int(second.argmax() == label and first.argmax() != label)
        gained += int(second.argmax() != label and first.argmax() == label)
    found = flips_of(is_right(CLASSES, student, labels), is_right(CLASSES, teacher, labels))
    assert (found.lost, found.gained) == (lost, gained)
    assert lost > gained > 0
    expected = stats.binomtest(lost, lost + gained, 0.5).pvalue
    assert found.p == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("lost", "gained"), [(0, 5), (5, 0), (7, 7), (1, 12), (300, 240)])
def test_mcnemar_is_that_of_scipy(lost: int, gained: int) -> None:
    expected = stats.binomtest(lost, lost + gained, 0.5).pvalue
    assert mcnemar(lost, gained) == pytest.approx(expected, rel=1e-9)


def test_without_flips_mcnemar_finds_nothing() -> None:
    assert mcnemar(0, 0) == 1.0


# Calibration


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_calibration_is_that_of_a_loop(temperature: float) -> None:
    student, teacher = two_models()
    labels = labels_like(teacher)
    found = calibration_of(CLASSES, student, labels, temperature)
    shares = softmax(student.astype(float) / temperature, axis=1)
    brier, bins = 0.0, [[] for _ in range(15)]
    for row, label in zip(shares, labels, strict=True):
        brier += sum((p - (k == label)) ** 2 for k, p in enumerate(row))
        number = min(int(row.max() * 15), 14)
        bins[number].append((row.max(), row.argmax() == label))
    filled = [np.array(texts, dtype=float) for texts in bins if texts]
    ece = sum(len(b) / 200 * abs(b[:, 1].mean() - b[:, 0].mean()) for b in filled)
    assert found.brier == pytest.approx(brier / 200)
    assert found.ece == pytest.approx(ece)
    assert [each.texts for each in found.bins] == [len(b) for b in filled]
    assert [each.accuracy for each in found.bins] == pytest.approx([b[:, 1].mean() for b in filled])
    assert found.temperature == temperature


def test_the_brier_score_of_two_classes_is_twice_that_of_sklearn() -> None:
    from sklearn.metrics import brier_score_loss

    generator = np.random.default_rng(0)
    positive, labels = generator.random(50), generator.integers(0, 2, 50)
    shares = np.stack([1 - positive, positive], axis=1)
    assert brier_score(shares, labels) == pytest.approx(2 * brier_score_loss(labels, positive))


# Groups


def test_groups_by_class_are_those_of_a_loop() -> None:
    student, teacher = two_models()
    labels = labels_like(teacher)
    right = is_right(CLASSES, student, labels)
    agrees = student.argmax(1) == teacher.argmax(1)
    groups = groups_of(classes_of(CLASSES.labels, labels), right, agrees)
    assert [group.name for group in groups] == ["a", "b", "c"]
    p_values = []
    for number, group in enumerate(groups):
        rows = [i for i in range(200) if labels[i] == number]
        assert group.texts == len(rows)
        assert group.right == pytest.approx(sum(right[i] for i in rows) / len(rows))
        assert group.agreement == pytest.approx(sum(agrees[i] for i in rows) / len(rows))
        p_values.append(less_than_rest(labels == number, agrees))
    assert [group.p for group in groups] == holm(p_values)


def test_a_class_that_agrees_less_is_found_and_others_are_not() -> None:
    labels = np.repeat([0, 1, 2], 100)
    agrees = np.ones(300, dtype=bool)
    agrees[100:120] = False
    agrees[[3, 250]] = False
    groups = groups_of(classes_of(CLASSES.labels, labels), None, agrees)
    assert groups[1].p is not None and groups[1].p < 1e-6
    assert groups[0].p == groups[2].p == 1.0
    assert groups[0].right is None


def test_chance_alone_is_rarely_found() -> None:
    """With equal agreement everywhere, one of four groups is below 5 % in at most 5 % of trials."""
    generator = np.random.default_rng(1)
    tokens = np.arange(400)
    found = 0
    for _ in range(300):
        groups = groups_of(quarters_of(tokens), None, generator.random(400) < 0.9)
        found += min(group.p or 0.0 for group in groups) < 0.05
    assert found <= 25  # 15 expected; more than 25 has a probability of 0.5 %


def test_quarters_have_equal_numbers_of_texts() -> None:
    tokens = np.random.default_rng(0).permutation(np.arange(5, 105))
    masks = quarters_of(tokens)
    assert [name for name, _ in masks] == [
        "5 to 29 tokens",
        "30 to 54 tokens",
        "55 to 79 tokens",
        "80 to 104 tokens",
    ]
    assert [int(inside.sum()) for _, inside in masks] == [25, 25, 25, 25]


def test_truncated_texts_stay_together() -> None:
    tokens = np.array([10, 20, 30, *[48] * 9])
    masks = quarters_of(tokens)
    assert [(name, int(inside.sum())) for name, inside in masks] == [
        ("10 to 30 tokens", 3),
        ("48 tokens", 9),
    ]
    (only,) = quarters_of(np.array([7, 7, 7]))
    assert only[0] == "7 tokens"
    (group,) = groups_of([only], None, np.array([True, False, True]))
    assert group.p is None, "there are no other texts"


# Quality classes


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.9995, 1.01, ["met", "met"]),
        (0.992, 1.003, ["met", "inconclusive"]),
        (0.992, 0.998, ["met", "not met"]),
        (0.98, 0.995, ["inconclusive", "not met"]),
        (0.95, 0.97, ["not met", "not met"]),
    ],
)
def test_a_quality_class_needs_the_whole_interval(
    low: float, high: float, expected: list[str]
) -> None:
    found = quality_classes(Retention((low + high) / 2, low, high, "inconclusive"))
    assert [each.share for each in found] == [0.99, 0.999]
    assert [each.met for each in found] == expected


def test_no_interval_no_quality_class() -> None:
    assert quality_classes(None) == ()
    assert quality_classes(REFERENCE) == ()
    assert quality_classes(Retention(None, None, None, "inconclusive")) == ()


# Label sets and numbers


def test_label_sets_are_compared_as_by_sklearn() -> None:
    student, teacher = two_models(80, 4)
    found = label_set_agreement(LABELS, student, teacher)
    first = (expit(student) > 0.4).astype(int)
    second = (expit(teacher) > 0.4).astype(int)
    assert found.hamming == pytest.approx(hamming_loss(second, first))
    assert found.hamming > 0
    for number, label in enumerate(found.labels):
        assert label.name == LABELS.labels[number]
        assert label.agreement == accuracy_score(second[:, number], first[:, number])
    exact = loyalty_of(LABELS, student, teacher).agreement
    assert exact == accuracy_score(second, first)


def test_numbers_are_compared_as_by_scipy() -> None:
    student, teacher = two_models(70, 1)
    student += 0.25
    found = number_agreement(student, teacher)
    a, b = student[:, 0].astype(float), teacher[:, 0].astype(float)
    assert found.pearson == pytest.approx(stats.pearsonr(a, b).statistic)
    assert found.spearman == pytest.approx(stats.spearmanr(a, b).statistic)
    assert found.mean_absolute == pytest.approx(mean_absolute_error(b, a))
    spread = math.sqrt(sum((x - (a - b).mean()) ** 2 for x in a - b) / 69)
    assert found.bias == pytest.approx((a - b).mean())
    assert (found.low, found.high) == pytest.approx(
        (found.bias - 1.96 * spread, found.bias + 1.96 * spread)
    )
