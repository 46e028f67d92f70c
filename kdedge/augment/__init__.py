"""Where the texts of a transfer set come from: today the labelled ones; made ones join here, each with its origin."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kdedge.data.task import Task

ORIGINS = ("gold", "rule", "replace", "generate")


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


def collect_texts(task: Task) -> TransferTexts:
    """All texts the student will learn from: the training split as it stands."""
    train = task.train
    return TransferTexts(train.texts, train.pairs, ("gold",) * len(train), train.labels)
