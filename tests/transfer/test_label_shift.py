"""The label shift of new texts, checked against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from kdedge.runtime.spec import TaskSpec
from kdedge.transfer.label_shift import measure_label_shift
from kdedge.transfer.texts import TransferTexts


def texts(*origins: str) -> TransferTexts:
    return TransferTexts.of(origins, None, origins, np.zeros(len(origins)))


TEXTS = texts(*["labelled"] * 4, *["rules"] * 2)


def spec(kind: str, *labels: str) -> TaskSpec:
    return TaskSpec("test", kind, labels, "any", pair=False)  # type: ignore[arg-type]


def test_classes_are_compared_by_total_variation() -> None:
    predicted = [0, 0, 1, 2, 1, 1]  # labelled: 1/2, 1/4, 1/4; rule: 0, 1, 0
    shifts = measure_label_shift(spec("classification", "a", "b", "c"), np.eye(3)[predicted], TEXTS)
    assert list(shifts) == ["labelled", "rules"]
    assert shifts["labelled"].shift == 0
    assert shifts["labelled"].shares == {"a": 0.5, "b": 0.25, "c": 0.25}
    assert shifts["rules"].shift == pytest.approx(0.75)
    assert shifts["rules"].texts == 2
    assert next(iter(shifts["rules"].shares.items())) == ("b", 1.0)


def test_several_labels_per_text_are_compared_one_by_one() -> None:
    logits = np.array([[1, -1], [1, -1], [1, 1], [1, 1], [1, -1], [-1, -1]])
    shifts = measure_label_shift(spec("multilabel", "a", "b"), logits, TEXTS)
    assert shifts["labelled"].shares == {"a": 1.0, "b": 0.5}
    assert shifts["rules"].shares == {"a": 0.5, "b": 0.0}
    assert shifts["rules"].shift == pytest.approx(0.5)


def test_numbers_are_compared_by_their_distributions() -> None:
    logits = np.array([[1.0], [2.0], [3.0], [4.0], [2.5], [2.6]])
    shifts = measure_label_shift(spec("regression", "score"), logits, TEXTS)
    assert shifts["labelled"].quartiles == (1.75, 2.5, 3.25)
    assert shifts["labelled"].shift == 0
    assert shifts["rules"].shift == pytest.approx(0.5)  # below 2.5: 0 instead of 1/2
    assert shifts["rules"].shares == {}


def test_without_labelled_texts_nothing_is_compared() -> None:
    shifts = measure_label_shift(spec("classification", "a", "b"), np.eye(2), texts("pool", "pool"))
    assert shifts["pool"].shift == 0
