"""Examples in memory, as a bench or an export reads them."""

from __future__ import annotations

import datasets
import numpy as np

from kdedge.api.examples import examples_of_task, read_examples
from kdedge.runtime.spec import TaskSpec


def test_the_order_of_a_data_sets_own_labels_may_be_another_one() -> None:
    spec = TaskSpec("t", "classification", ("bad", "good", "odd"), "accuracy", pair=False)
    features = datasets.Features(
        text=datasets.Value("string"), label=datasets.ClassLabel(names=["odd", "good", "bad"])
    )
    rows = {"text": ["a", "b", "c", "d"], "label": [0, 1, 2, 0]}
    data = datasets.Dataset.from_dict(rows, features=features)
    examples = examples_of_task(read_examples(data, "data"), spec)
    assert examples.labels is not None and examples.labels.tolist() == [2, 1, 0, 2]


def test_multi_hot_labels_are_no_indices() -> None:
    spec = TaskSpec("t", "multilabel", ("film", "plot", "cast"), "micro_f1", pair=False)
    hot = np.array([[1, 0, 0], [0, 1, 1], [0, 0, 0]])
    examples = examples_of_task(read_examples((["a", "b", "c"], hot), "data"), spec)
    assert examples.labels is not None and np.array_equal(examples.labels, hot)
