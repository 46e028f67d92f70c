"""The threshold of a cascade: its bound against scipy, its promise against simulation."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.stats import beta

from kdedge.errors import CheckFailed, IntegrityError, UsageError
from kdedge.runtime.agreement import AgreementTable, lower_bound, needed_texts


def table(agrees: np.ndarray, confidence: np.ndarray) -> AgreementTable:
    return AgreementTable("int8", confidence, np.ones(len(agrees)), agrees)


@pytest.mark.parametrize(("trials", "failures"), [(1, 0), (300, 0), (300, 7), (3000, 31), (9, 9)])
def test_lower_bound_is_the_quantile_of_a_beta_distribution(trials: int, failures: int) -> None:
    successes = trials - failures
    expected = beta.ppf(0.05, successes, failures + 1) if successes else 0.0
    assert lower_bound(successes, trials, 0.05) == pytest.approx(expected, abs=1e-9)


def test_rule_of_three() -> None:
    assert needed_texts(0.99, 0.05) == 299
    assert lower_bound(299, 299, 0.05) >= 0.99 > lower_bound(298, 298, 0.05)


def test_promise_holds_in_simulation() -> None:
    """The chosen threshold breaks its promise in at most 5 % of 400 validation splits.

    The student is calibrated: a text of confidence 0.9 agrees with probability 0.9.
    """
    rng = np.random.default_rng(0)
    population = draw_confidence(rng, 200_000)
    broken = chosen = 0
    for _ in range(400):
        confidence = draw_confidence(rng, 1500)
        measured = table(rng.uniform(size=1500) < confidence, confidence)
        try:
            threshold = measured.threshold(0.95)
        except CheckFailed:
            continue
        chosen += 1
        broken += population[population >= threshold.confidence].mean() < 0.95
    assert chosen > 390
    assert broken <= 30  # 20 are expected; more than 30 have a probability below 2 %


def draw_confidence(rng: np.random.Generator, texts: int) -> np.ndarray:
    return rng.beta(4, 0.4, texts)


def test_more_agreement_means_fewer_answers() -> None:
    rng = np.random.default_rng(1)
    confidence = draw_confidence(rng, 5000)
    measured = table(rng.uniform(size=5000) < confidence, confidence)
    shares = [measured.threshold(value).share for value in (0.92, 0.95, 0.98)]
    assert shares == sorted(set(shares), reverse=True)
    assert measured.threshold(0.95).lower_bound >= 0.95


def test_unusual_texts_do_not_count() -> None:
    usualness = np.arange(1000.0)
    measured = AgreementTable("int8", np.ones(1000), usualness, np.ones(1000, bool))
    threshold = measured.threshold(0.95)
    assert threshold.usualness == pytest.approx(9.99)
    assert threshold.share == pytest.approx(0.99)


def test_too_few_texts_say_how_many_are_needed() -> None:
    with pytest.raises(CheckFailed, match="at least 408"):
        table(np.ones(100, bool), np.ones(100)).threshold(0.99)
    for agreement, fewest in ((0.99, 413), (0.95, 81)):
        for size in (fewest - 1, fewest):
            usualness = np.arange(float(size))
            measured = AgreementTable("int8", np.ones(size), usualness, np.ones(size, bool))
            if size < fewest:
                with pytest.raises(CheckFailed, match="usual validation texts are too few"):
                    measured.threshold(agreement)
            else:
                assert measured.threshold(agreement).agreement == 1.0


def test_disagreement_among_the_most_confident_is_refused() -> None:
    agrees = np.arange(2000) % 10 != 0
    with pytest.raises(CheckFailed, match="no threshold"):
        table(agrees, np.linspace(0.5, 1, 2000)).threshold(0.99)


def test_texts_of_equal_confidence_are_tested_together() -> None:
    """The student would answer all of them, whatever their order in the table is."""
    agrees = np.arange(600) < 450
    with pytest.raises(CheckFailed, match="no threshold"):
        table(agrees, np.ones(600)).threshold(0.99)
    confidence = np.where(np.arange(600) < 500, 0.9, 0.5)
    measured = table(np.arange(600) < 500, confidence).threshold(0.99)
    assert (measured.confidence, measured.share) == (0.9, pytest.approx(500 / 600))


@pytest.mark.parametrize("value", [0.0, 1.0, -1.0, 2.0])
def test_agreement_is_a_share(value: float) -> None:
    with pytest.raises(UsageError, match="between 0 and 1"):
        table(np.ones(10, bool), np.ones(10)).threshold(value)


def test_survives_json() -> None:
    measured = table(np.array([True, False]), np.array([0.75, 0.5]))
    again = AgreementTable.from_json(json.loads(json.dumps(measured.to_json())))
    assert again.agrees.tolist() == [True, False]
    assert again.confidence.tolist() == [0.75, 0.5]


@pytest.mark.parametrize(
    "document",
    [
        None,
        [],
        {},
        {"precision": "int8", "confidence": [1.0], "usualness": [1.0], "agrees": []},
        {"precision": "int8", "confidence": [1.0, 2.0], "usualness": [1.0], "agrees": [1]},
        {"precision": "int8", "confidence": ["x"], "usualness": [1.0], "agrees": [1]},
        {"precision": "int8", "confidence": [10**400], "usualness": [1.0], "agrees": [1]},
    ],
)
def test_malformed_tables_are_refused(document: object) -> None:
    with pytest.raises(IntegrityError, match=r"agreement\.json"):
        AgreementTable.from_json(document)
