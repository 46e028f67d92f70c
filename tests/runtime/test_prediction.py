"""From logits to labels and probabilities."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit, softmax

from kdedge.runtime.prediction import FEW_LABELS, probabilities, to_prediction
from kdedge.runtime.spec import TaskSpec

SPEC = TaskSpec("tiny", "classification", ("bad", "good"), "accuracy", pair=False)
MULTILABEL = TaskSpec("tiny", "multilabel", ("bad", "good"), "micro_f1", pair=False, threshold=0.7)

LOGITS = st.lists(st.floats(-80, 80, width=32), min_size=2, max_size=2)


def test_huge_logits_do_not_overflow() -> None:
    answer = to_prediction(SPEC, np.array([1e30, -1e30], np.float32))
    assert answer.scores == {"bad": 1.0, "good": 0.0}


@given(values=LOGITS)
def test_probabilities_are_those_of_scipy(values: list[float]) -> None:
    logits = np.array(values, np.float32)
    np.testing.assert_allclose(probabilities(SPEC, logits), softmax(logits.astype(float)))
    np.testing.assert_allclose(probabilities(MULTILABEL, logits), expit(logits.astype(float)))


@pytest.mark.parametrize("count", [2, FEW_LABELS, FEW_LABELS + 1])
def test_one_text_has_the_probabilities_of_scipy(count: int) -> None:
    labels = tuple(f"label {i}" for i in range(count))
    spec = TaskSpec("tiny", "classification", labels, "accuracy", pair=False)
    logits = np.random.default_rng(count).normal(size=count, scale=5).astype(np.float32)
    answer = to_prediction(spec, logits, temperature=0.4)
    np.testing.assert_allclose(list(answer.scores.values()), softmax(logits.astype(float) / 0.4))
    assert answer.label == labels[int(logits.argmax())]
    assert answer.score == answer.scores[answer.label]


def test_labels_of_a_text_are_those_above_the_threshold() -> None:
    answer = to_prediction(MULTILABEL, np.array([0.5, 2.0], np.float32))
    assert answer.label == ("good",)
    assert answer.score == max(answer.scores.values())
