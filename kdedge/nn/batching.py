"""Tokenized texts, and how they are padded to batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from kdedge.nn.ragged import RaggedArray, concatenate_ragged

ROW = "row"
"""Name of the column with the numbers of the texts."""


@dataclass
class Encoded(Dataset[Any]):
    """N tokenized texts without padding, and further columns.

    Attributes:
        tokens: Model input -> N lists of token ids, masks or types; text i has T_i of each.
        columns: Name -> N rows, such as labels (N,) or teacher_logits (N, C).
    """

    tokens: dict[str, RaggedArray]
    columns: dict[str, np.ndarray] = field(default_factory=dict)

    @classmethod
    def of(cls, ids: list[list[int]]) -> Encoded:
        """Build from token ids alone; the mask keeps every token."""
        input_ids = RaggedArray.of(ids)
        mask = RaggedArray(np.ones_like(input_ids.values), input_ids.lengths)
        return cls({"input_ids": input_ids, "attention_mask": mask})

    def __len__(self) -> int:
        return len(self.tokens["input_ids"])

    def __getitem__(self, index: int) -> Encoded:
        return self.take([index])

    def __getitems__(self, rows: Sequence[int]) -> Encoded:
        """Return a batch; torch's loader calls this instead of `__getitem__`."""
        return self.take(rows)

    def take(self, rows: np.ndarray | Sequence[int]) -> Encoded:
        """Return the texts at `rows`, in that order."""
        tokens = {name: values.take(rows) for name, values in self.tokens.items()}
        columns = {name: np.asarray(values[rows]) for name, values in self.columns.items()}
        return Encoded(tokens, columns)

    @property
    def lengths(self) -> np.ndarray:
        """Number of tokens of each text. *Shape:* (N,)"""
        return self.tokens["input_ids"].lengths


def joined_encoded(parts: Sequence[Encoded]) -> Encoded:
    """Return the texts of all parts, in order; all parts have the same tokens and columns."""
    tokens = {}
    for name in parts[0].tokens:
        tokens[name] = concatenate_ragged([part.tokens[name] for part in parts])
    columns = {}
    for name in parts[0].columns:
        columns[name] = np.concatenate([part.columns[name] for part in parts])
    return Encoded(tokens, columns)


@dataclass(frozen=True)
class PaddingCollator:
    """Pad texts on the right to the longest of them."""

    pad_token_id: int

    def __call__(self, batch: Encoded) -> dict[str, Any]:
        """Return tensors (B, T) of the tokens and (B, ...) of the columns.

        The column `row` stays a NumPy array: it holds the batch's rows in files on this machine,
        and the GPU does not need it.
        """
        padded: dict[str, Any] = {}
        for name, values in batch.tokens.items():
            fill = self.pad_token_id if name == "input_ids" else 0
            padded[name] = torch.from_numpy(values.padded(fill))
        for name, column in batch.columns.items():
            padded[name] = column if name == ROW else torch.from_numpy(column)
        return padded


class LengthGrouped(Sampler[int]):
    """Batches of similar length in random order.

    The order depends only on seed and epoch, so a resumed training sees the same batches.
    """

    def __init__(self, lengths: np.ndarray, batch_size: int, seed: int) -> None:
        self.lengths = lengths
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        generator = np.random.default_rng((self.seed, self.epoch))
        order = generator.permutation(len(self.lengths))
        window = self.batch_size * 50
        full: list[np.ndarray] = []
        short: list[np.ndarray] = []
        for start in range(0, len(order), window):
            rows = order[start : start + window]
            rows = rows[np.argsort(self.lengths[rows], kind="stable")]
            for i in range(0, len(rows), self.batch_size):
                batch = rows[i : i + self.batch_size]
                (full if len(batch) == self.batch_size else short).append(batch)
        for i in generator.permutation(len(full)):
            yield from full[i].tolist()
        # The loader cuts this stream into batches, so the short one must be the last.
        for batch in short:
            yield from batch.tolist()
