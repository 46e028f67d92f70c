"""The texts of a transfer set, with origin and label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from transformers import PreTrainedTokenizerFast

from kdedge.data.task import Task
from kdedge.io.text_column import TextColumn
from kdedge.nn.tokenization import replace_mask_token
from kdedge.runtime.spec import Kind


@dataclass(frozen=True)
class TransferTexts:
    """N texts for the teacher to label.

    Attributes:
        texts: N strings.
        pairs: N second texts, or None.
        origins: N strings: `labelled`, `rules`, `replace`, `generate` or `pool`.
        labels: As in `Split.labels`; NaN (float) or -1 (class) for texts without a label.
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
        """Create TransferTexts from any sequences of N strings."""
        pair_column = None if pairs is None else TextColumn.of(pairs)
        return cls(TextColumn.of(texts), pair_column, TextColumn.of(origins), labels)

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, rows: np.ndarray) -> TransferTexts:
        """Return the texts at `rows`, in that order."""
        rows = np.asarray(rows, np.int64)
        pairs = None if self.pairs is None else self.pairs.take(rows)
        return TransferTexts(
            self.texts.take(rows), pairs, self.origins.take(rows), self.labels[rows]
        )

    def rows(self, *origins: str) -> np.ndarray:
        """Return the rows of the texts with one of these origins, in order."""
        return np.flatnonzero(self.origins.among(origins))

    @property
    def labelled(self) -> np.ndarray:
        """Rows of the labelled texts, in order."""
        return self.rows("labelled")

    @property
    def written(self) -> TextColumn:
        """The texts that people wrote: labelled texts and pool, both texts of a pair."""
        return self._all_texts("labelled", "pool")

    @property
    def made(self) -> TextColumn:
        """The texts that kdedge made (rewritten or generated), both texts of a pair."""
        return self._all_texts("rules", "replace", "generate")

    def _all_texts(self, *origins: str) -> TextColumn:
        subset = self.take(self.rows(*origins))
        return subset.texts if subset.pairs is None else subset.texts + subset.pairs

    def replace_mask_token(
        self, source: PreTrainedTokenizerFast, target: PreTrainedTokenizerFast
    ) -> TransferTexts:
        """Replace the mask token of tokenizer `source` by that of tokenizer `target`.

        Only rules mask words, so without texts from rules nothing changes.
        """
        if "rules" not in self.origins:
            return self
        texts = TextColumn.of(replace_mask_token(self.texts, source, target))
        pairs = self.pairs
        if pairs is not None:
            pairs = TextColumn.of(replace_mask_token(pairs, source, target))
        return replace(self, texts=texts, pairs=pairs)


def collect_texts(task: Task, augmented: TransferTexts | None = None) -> TransferTexts:
    """Return all texts that students learn from: the training split, then the augmented texts."""
    train = task.train
    labelled = TransferTexts.of(train.texts, train.pairs, ("labelled",) * len(train), train.labels)
    return labelled if augmented is None else joined(labelled, augmented)


def joined(first: TransferTexts, second: TransferTexts) -> TransferTexts:
    """Return the texts of `first`, then those of `second`."""
    pairs = None
    if first.pairs is not None and second.pairs is not None:
        pairs = first.pairs + second.pairs
    return TransferTexts(
        first.texts + second.texts,
        pairs,
        first.origins + second.origins,
        np.concatenate([first.labels, second.labels]),
    )


def no_labels(count: int, kind: Kind, outputs: int) -> np.ndarray:
    """Return placeholders for missing labels of `count` texts (see `TransferTexts.labels`)."""
    if kind == "classification":
        return np.full(count, -1, np.int64)
    shape = (count, outputs) if kind == "multilabel" else (count,)
    return np.full(shape, np.nan, np.float32)
