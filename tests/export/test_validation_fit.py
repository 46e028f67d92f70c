"""What a bundle takes from the validation split."""

from __future__ import annotations

from unittest import mock

import factories
import numpy as np
from kdedge.export import validation_fit

from kdedge.data.task import Split
from kdedge.runtime import Classifier


def test_an_agreement_table_has_no_more_rows_than_a_reader_accepts() -> None:
    texts, labels = factories.sentences(40, seed=3)
    classifier = Classifier.load(factories.tiny_bundle())
    split = Split(tuple(texts), None, np.asarray(labels))
    teacher = classifier.logits(texts)
    whole = validation_fit.fit_on_validation(classifier, split, teacher).table
    with mock.patch.object(validation_fit, "MAX_ROWS", 15):
        drawn = validation_fit.fit_on_validation(classifier, split, teacher).table
    assert whole is not None and drawn is not None
    assert (len(whole.confidence), len(drawn.confidence)) == (40, 15)
    assert set(drawn.confidence.tolist()) <= set(whole.confidence.tolist())
