"""New texts for the transfer set: their sources, the gates they must pass, and where each came from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kdedge.data.task import Task
from kdedge.runtime.spec import Kind

ORIGINS = ("gold", "rule", "replace", "generate", "pool")


@dataclass(frozen=True)
class TransferTexts:
    """N texts to be shown to the teacher.

    texts, pairs: N strings; pairs is None for single texts.
    origins: N of `ORIGINS`.
    labels: as in `Split.labels`; rows without a label hold NaN (float) or -1 (class index).
    """

    texts: tuple[str, ...]
    pairs: tuple[str, ...] | None
    origins: tuple[str, ...]
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, rows: np.ndarray) -> TransferTexts:
        """The texts at `rows`, in that order."""
        chosen = [int(row) for row in rows]
        pairs = None if self.pairs is None else tuple(self.pairs[i] for i in chosen)
        return TransferTexts(tuple(self.texts[i] for i in chosen), pairs, tuple(self.origins[i] for i in chosen), self.labels[chosen])

    @property
    def gold(self) -> np.ndarray:
        """Rows of the labelled texts, in order."""
        return np.flatnonzero(np.array(self.origins) == "gold")


def collect_texts(task: Task, made: TransferTexts | None = None) -> TransferTexts:
    """All texts the student will learn from: the training split as it stands, then the made ones."""
    train = task.train
    gold = TransferTexts(train.texts, train.pairs, ("gold",) * len(train), train.labels)
    return gold if made is None else joined(gold, made)


def joined(first: TransferTexts, second: TransferTexts) -> TransferTexts:
    """The texts of both, in order."""
    pairs = None if first.pairs is None or second.pairs is None else (*first.pairs, *second.pairs)
    return TransferTexts((*first.texts, *second.texts), pairs, (*first.origins, *second.origins), np.concatenate([first.labels, second.labels]))


def no_labels(count: int, kind: Kind, outputs: int) -> np.ndarray:
    """The labels of `count` texts that have none, in the form that the kind of task asks for."""
    if kind == "classification":
        return np.full(count, -1, np.int64)
    return np.full((count, outputs) if kind == "multilabel" else count, np.nan, np.float32)
