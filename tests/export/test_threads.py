"""A text has the same logits for any number of threads, alone and in a batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import factories
import numpy as np
import pytest
import torch
from kdedge.export.pack import ExportInput
from kit_tools import static_bundle
from transformers import PreTrainedModel

from kdedge.data.task import Split, Task
from kdedge.runtime import Classifier
from kdedge.runtime.spec import TaskSpec
from kdedge.students.bilstm import BiLstmForSequenceClassification, BiLstmModelConfig

THREADS = (1, 2, 4)


def wide_bert(spec: TaskSpec) -> PreTrainedModel:
    return factories.bert(2, 128, 4, spec.outputs, initializer_range=0.1).eval()


def wide_bilstm(spec: TaskSpec, cross_attention: bool = False) -> PreTrainedModel:
    config = BiLstmModelConfig(
        vocab_size=200,
        embedding_dim=64,
        hidden_size=150,
        head_size=100,
        num_labels=spec.outputs,
        pair=spec.pair,
        cross_attention=cross_attention,
    )
    return BiLstmForSequenceClassification(config).eval()


MODELS: dict[str, Callable[[TaskSpec], PreTrainedModel]] = {
    "tinybert": wide_bert,
    "bilstm": wide_bilstm,
    "cross-attention": partial(wide_bilstm, cross_attention=True),
}
"""Students of a usual width: ONNX Runtime does not divide the work of tiny ones."""

CASES = [
    ("tinybert", "single"),
    ("tinybert", "pair"),
    ("bilstm", "single"),
    ("bilstm", "pair"),
    ("cross-attention", "pair"),
]


def export_input(kind: str, task: Task) -> ExportInput:
    with torch.random.fork_rng():
        torch.manual_seed(2)
        model = MODELS[kind](task.spec)
    made = factories.export_input("bert", task)
    model.config.update({"id2label": made.model.config.id2label})
    return replace(made, model=model)


def logits_alone(classifier: Classifier, split: Split) -> np.ndarray:
    rows = []
    for row, text in enumerate(split.texts):
        pair = None if split.pairs is None else [split.pairs[row]]
        rows.append(classifier.logits([text], pair))
    return np.concatenate(rows)


def logits_in_batches(classifier: Classifier, split: Split) -> np.ndarray:
    return classifier.logits(split.texts, split.pairs, batch_size=16)


@pytest.mark.slow
@pytest.mark.parametrize("kind, task_name", CASES)
def test_int8_logits_do_not_depend_on_threads_or_batches(
    kind: str, task_name: str, tmp_path: Path
) -> None:
    task = factories.TASKS[task_name]()
    bundle = static_bundle(export_input(kind, task), task, tmp_path / "bundle")
    expected = logits_alone(Classifier.load(bundle, "int8", threads=1), task.test)
    assert np.ptp(expected, axis=0).min() > 0.01
    for threads in THREADS:
        classifier = Classifier.load(bundle, "int8", threads=threads)
        assert np.array_equal(logits_alone(classifier, task.test), expected)
        assert np.array_equal(logits_in_batches(classifier, task.test), expected)


@pytest.mark.slow
@pytest.mark.parametrize("kind, task_name", CASES)
def test_dynamic_logits_of_one_row_and_fp32_logits_do_not_depend_on_threads(
    kind: str, task_name: str, tmp_path: Path
) -> None:
    """A dynamic file may depend on its batch; a pair is one row of a batch."""
    task = factories.TASKS[task_name]()
    bundle = factories.pack_bundle(export_input(kind, task), task, tmp_path / "bundle")
    for precision in ("int8", "fp32"):
        expected = logits_alone(Classifier.load(bundle, precision, threads=1), task.test)
        for threads in THREADS[1:]:
            classifier = Classifier.load(bundle, precision, threads=threads)
            assert np.array_equal(logits_alone(classifier, task.test), expected)
    for threads in THREADS:
        in_batches = logits_in_batches(Classifier.load(bundle, "fp32", threads=threads), task.test)
        assert np.abs(in_batches - expected).max() <= 1e-6
