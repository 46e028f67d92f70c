"""Results that mean nothing are found."""

from __future__ import annotations

import numpy as np
from factories import multilabel_task, regression_task, single_task

from kdedge.evaluation.sanity import baseline_warnings, only_prediction, split_warnings


def test_one_class_is_found_for_every_kind() -> None:
    spec = single_task().spec
    assert only_prediction(spec, np.array([[0.0, 1.0], [2.0, 3.0]])) == "good"
    assert only_prediction(spec, np.array([[0.0, 1.0], [3.0, 2.0]])) is None
    assert only_prediction(spec, np.array([[0.0, 1.0]])) is None
    spec = multilabel_task().spec
    assert only_prediction(spec, np.array([[1.0, -1, 1], [2, -3, 4]])) == "film, cast"
    assert only_prediction(spec, -np.ones((2, 3))) == "no label"
    spec = regression_task().spec
    assert only_prediction(spec, np.array([[1.5], [1.5]])) == "1.5"
    assert only_prediction(spec, np.array([[1.5], [1.6]])) is None


def test_a_small_test_split_is_found() -> None:
    (warning,) = split_warnings(single_task())
    assert "48 texts" in warning


def test_models_that_simple_baselines_beat_are_found() -> None:
    good = baseline_warnings({"teacher": 0.9, "tinybert": 0.88}, majority=0.5, bag_of_words=0.8)
    assert good == []
    bad = baseline_warnings({"teacher": 0.5, "tinybert": 0.85}, majority=0.5, bag_of_words=0.8)
    assert len(bad) == 2 and "teacher (0.5000)" in bad[0] and "tinybert" not in bad[0]
    assert "bag of words" in bad[1] and "teacher (0.5000)" in bad[1] and "tinybert" not in bad[1]
    (collapsed,) = baseline_warnings({"teacher": 0.9, "s": 0.5}, majority=0.5, bag_of_words=None)
    assert "s (0.5000)" in collapsed and "teacher" not in collapsed
    assert baseline_warnings({"teacher": 0.6}, majority=0.5, bag_of_words=None) == []
