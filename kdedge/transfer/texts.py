"""The texts of a transfer set, with origin and label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kdedge.data.task import Task
from kdedge.io.text_column import TextColumn
from kdedge.runtime.spec import Kind

ORIGINS = ("labelled", "rule", "replace", "generate", "pool")


@dataclass(frozen=True)
class TransferTexts:
    """N texts to be shown to the teacher.

    texts, pairs: N strings; pairs is None for single texts. origins: N of `ORIGINS`.
    labels: as in `Split.labels`; rows without a label hold NaN (float) or -1 (class index).
    """

    texts: TextColumn
    pairs: TextColumn | None
    origins: TextColumn
    labels: np.ndarray

    @classmethod
    def of(
        cls,
        texts: Sequence[str],
        pairs: Sequence[str] | None,
        origins: Sequence[str],
        labels: np.ndarray,
    ) -> TransferTexts:
        """From any sequences of N strings."""
        return cls(
            TextColumn.of(texts),
            None if pairs is None else TextColumn.of(pairs),
            TextColumn.of(origins),
            labels,
        )

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, rows: np.ndarray) -> TransferTexts:
        """The texts at `rows`, in that order."""
        chosen = np.asarray(rows, np.int64)
        pairs = None if self.pairs is None else self.pairs.take(chosen)
        return TransferTexts(
            self.texts.take(chosen), pairs, self.origins.take(chosen), self.labels[chosen]
        )

    def rows(self, *origins: str) -> np.ndarray:
        """Rows of the texts that came from there, in order."""
        return np.flatnonzero(self.origins.among(origins))

    @property
    def labelled(self) -> np.ndarray:
        """Rows of the labelled texts, in order."""
        return self.rows("labelled")

    @property
    def written(self) -> TextColumn:
        """What somebody wrote, both texts of a pair: the labelled texts and the user's pool."""
        return self._of_origins("labelled", "pool")

    @property
    def made(self) -> TextColumn:
        """What was made from it."""
        return self._of_origins("rule", "replace", "generate")

    def _of_origins(self, *wanted: str) -> TextColumn:
        some = self.take(self.rows(*wanted))
        return some.texts if some.pairs is None else some.texts + some.pairs


def collect_texts(task: Task, made: TransferTexts | None = None) -> TransferTexts:
    """All texts the student will learn from: the training split as it stands, then the made ones."""
    train = task.train
    labelled = TransferTexts.of(train.texts, train.pairs, ("labelled",) * len(train), train.labels)
    return labelled if made is None else joined(labelled, made)


def joined(first: TransferTexts, second: TransferTexts) -> TransferTexts:
    """The texts of both, in order."""
    pairs = None if first.pairs is None or second.pairs is None else first.pairs + second.pairs
    return TransferTexts(
        first.texts + second.texts,
        pairs,
        first.origins + second.origins,
        np.concatenate([first.labels, second.labels]),
    )


def no_labels(count: int, kind: Kind, outputs: int) -> np.ndarray:
    """The labels of `count` texts that have none, in the form that the kind of task asks for."""
    if kind == "classification":
        return np.full(count, -1, np.int64)
    return np.full((count, outputs) if kind == "multilabel" else count, np.nan, np.float32)
