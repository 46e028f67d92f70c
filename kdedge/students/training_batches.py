"""Batches of training texts, to run a teacher on them."""

from __future__ import annotations

import math

import numpy as np

from kdedge.data.task import Split, Task
from kdedge.nn.text_model import TextClassifier
from kdedge.students.activation_stats import Batch

TEXTS = 1024
"""Maximum of training texts for the teacher's statistics."""

LAYER_TOKENS = 16_384
"""About as many tokens, with padding, are used to fit layers."""

BATCH = 32


class TrainingBatches:
    """Up to `TEXTS` training texts, tokenized for a teacher.

    Texts of similar length share a batch, which needs less padding.

    Args:
        seed: Seed for the choice of texts if there are more.
    """

    def __init__(self, teacher: TextClassifier, task: Task, seed: int) -> None:
        self.teacher = teacher
        self.task = task
        rows = np.sort(np.random.default_rng(seed).permutation(len(task.train))[:TEXTS])
        self.rows = rows[np.argsort([_length(task.train, row) for row in rows], kind="stable")]

    def with_labels(self) -> list[Batch]:
        """Return all texts in batches of model inputs with `labels`."""
        return self._batches(self.rows)

    def inputs(self) -> list[Batch]:
        """Return the same batches without labels."""
        return [_without_labels(batch) for batch in self.with_labels()]

    def for_layers(self) -> list[Batch]:
        """Return batches without labels of about `LAYER_TOKENS` tokens, of all lengths."""
        tokens = sum(batch["attention_mask"].numel() for batch in self.inputs())
        step = math.ceil(tokens / LAYER_TOKENS)
        return [_without_labels(batch) for batch in self._batches(self.rows[::step])]

    def _batches(self, rows: np.ndarray) -> list[Batch]:
        starts = range(0, len(rows), BATCH)
        return [self._batch(rows[start : start + BATCH]) for start in starts]

    def _batch(self, rows: np.ndarray) -> Batch:
        part = self.task.train.take(rows)
        data = self.teacher.encode(part.texts, part.pairs, labels=part.labels)
        batch = self.teacher.pad(data)
        return {name: values.to(self.teacher.model.device) for name, values in batch.items()}


def _length(split: Split, row: int) -> int:
    """Return the characters of a text, with those of its second text."""
    return len(split.texts[row]) + len(split.pairs[row] if split.pairs else "")


def _without_labels(batch: Batch) -> Batch:
    return {name: values for name, values in batch.items() if name != "labels"}
