"""What `Classifier.predict` accepts: a text, pairs, and iterables of them; nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import factories
import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, softmax

from kdedge.errors import UsageError
from kdedge.runtime import Classifier
from kdedge.runtime.digest import document_digest

TEXTS = ["the film was good", "the plot was awful", "the cast"]


@pytest.fixture(scope="module")
def single() -> Classifier:
    return Classifier.load(factories.tiny_bundle("bilstm", "single"), "fp32")


@pytest.fixture(scope="module")
def pairs() -> Classifier:
    return Classifier.load(factories.tiny_bundle("bilstm", "pair"), "fp32")


def generated() -> Iterator[str]:
    yield from TEXTS


def test_one_text_gives_one_prediction(single: Classifier) -> None:
    assert single.predict(TEXTS[0]) == single.predict([TEXTS[0]])[0]


@pytest.mark.parametrize(
    "texts",
    [TEXTS, tuple(TEXTS), generated(), np.array(TEXTS), pd.Series(TEXTS)],
    ids=["list", "tuple", "generator", "array", "series"],
)
def test_iterables_give_a_list_in_order(single: Classifier, texts: Any) -> None:
    expected = [single.predict(text) for text in TEXTS]
    predictions = single.predict(texts)
    assert [answer.label for answer in predictions] == [answer.label for answer in expected]
    assert [answer.score for answer in predictions] == pytest.approx(
        [answer.score for answer in expected], abs=1e-6
    )


@pytest.mark.parametrize("size", [0, -1, 1.5, None])
def test_a_batch_size_that_is_no_positive_number_is_refused(single: Classifier, size: Any) -> None:
    calls = (
        lambda: single.predict_batch(TEXTS, batch_size=size),
        lambda: single.predict_proba(TEXTS, batch_size=size),
        lambda: list(single.predict_stream(TEXTS, batch_size=size)),
    )
    for call in calls:
        with pytest.raises(UsageError, match="batch_size must be at least 1"):
            call()


def test_logits_and_tokens_of_one_string_are_refused(single: Classifier) -> None:
    for function in (single.logits, single.encode, single.predict_with_logits):
        with pytest.raises(UsageError, match="list of texts"):
            function(TEXTS[0])


def test_no_texts_give_an_empty_list(single: Classifier) -> None:
    assert single.predict([]) == []
    assert single.predict_proba([]).shape == (0, 2)


def test_two_texts_in_a_tuple_are_two_texts_unless_the_classifier_reads_pairs(
    single: Classifier, pairs: Classifier
) -> None:
    assert len(single.predict((TEXTS[0], TEXTS[1]))) == 2  # type: ignore[arg-type]
    assert pairs.predict((TEXTS[0], TEXTS[1])) == pairs.predict(TEXTS[0], TEXTS[1])


def test_a_list_of_pairs_gives_a_list(pairs: Classifier) -> None:
    given = [(TEXTS[0], TEXTS[1]), (TEXTS[1], TEXTS[2])]
    expected = [pairs.predict(first, second).score for first, second in given]
    assert [answer.score for answer in pairs.predict(given)] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    "texts",
    [None, 3, b"bytes", {"a": 1}, {"a", "b"}, pd.DataFrame({"text": TEXTS}), ["a", None], [["a"]]],
    ids=["none", "number", "bytes", "dict", "set", "frame", "missing", "nested"],
)
def test_anything_else_is_a_usage_error(single: Classifier, texts: Any) -> None:
    for function in (single.predict, single.predict_proba):
        with pytest.raises(UsageError, match="one text at a time"):
            function(texts)


@pytest.mark.parametrize("texts", ["a", ["a", "b"], [("a", "b", "c")], [("a", None)]])
def test_a_classifier_of_pairs_rejects_single_texts(pairs: Classifier, texts: Any) -> None:
    with pytest.raises(UsageError, match="two texts at a time"):
        pairs.predict(texts)


def test_the_error_names_the_item_and_the_form(single: Classifier) -> None:
    with pytest.raises(UsageError) as error:
        single.predict(["fine", 3])  # type: ignore[list-item]
    assert error.value.detail == "item 1 is 3 (int)"
    assert "list of texts" in error.value.hint


def test_a_string_is_not_three_texts(single: Classifier) -> None:
    with pytest.raises(UsageError, match="list of texts"):
        single.predict_batch("abc")
    with pytest.raises(UsageError, match="list of texts"):
        single.predict_batch(["abc"], "abc")
    with pytest.raises(UsageError, match="list of texts"):
        single.predict_proba("abc")


def test_a_pair_goes_with_one_text(pairs: Classifier) -> None:
    with pytest.raises(UsageError, match="one text"):
        pairs.predict(["a", "b"], "c")  # type: ignore[call-overload]


def test_an_unknown_argument_is_refused(single: Classifier) -> None:
    with pytest.raises(TypeError, match="treshold"):
        single.predict("a", treshold=0.3)  # type: ignore[call-overload]


def test_probabilities_against_scipy() -> None:
    single = Classifier.load(factories.tiny_bundle("bilstm", "single"), "fp32")
    many = Classifier.load(factories.tiny_bundle("bilstm", "multilabel"), "fp32")
    probabilities = single.predict_proba(TEXTS)
    assert probabilities.dtype == np.float32
    assert np.allclose(probabilities, softmax(single.logits(TEXTS), axis=1), atol=1e-6)
    assert np.allclose(many.predict_proba(TEXTS), expit(many.logits(TEXTS)), atol=1e-6)


def test_a_regression_has_no_probabilities() -> None:
    number = Classifier.load(factories.tiny_bundle("bilstm", "regression"), "fp32")
    with pytest.raises(UsageError, match="no probabilities"):
        number.predict_proba([("a", "b")])


def test_the_bundle_decides_the_threshold(tmp_path: Path) -> None:
    folder = factories.copy_bundle(factories.tiny_bundle("bilstm", "multilabel"), tmp_path)
    manifest = folder / "kdedge.json"
    scores = Classifier.load(folder, "fp32").predict(TEXTS[0]).scores
    low, middle, high = sorted(scores.values())
    for threshold, count in (((low + middle) / 2, 2), ((middle + high) / 2, 1)):
        document = json.loads(manifest.read_text())
        document["spec"]["threshold"] = threshold
        document["digest"] = document_digest(document)
        manifest.write_text(json.dumps(document))
        label = Classifier.load(folder, "fp32").predict(TEXTS[0]).label
        assert len(label) == count
        assert all(scores[name] > threshold for name in label)
