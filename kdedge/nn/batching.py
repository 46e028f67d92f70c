"""Tokenized texts, and how they are padded to batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from kdedge.nn.ragged import RaggedArray


@dataclass
class Encoded(Dataset[dict[str, Any]]):
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

    def __getitem__(self, index: int) -> dict[str, Any]:
        row: dict[str, Any] = self.inputs(index)
        for name, values in self.columns.items():
            row[name] = values[index]
        return row

    def inputs(self, index: int) -> dict[str, list[int]]:
        """Return the model's inputs for one text."""
        return {name: values[index] for name, values in self.tokens.items()}

    @property
    def lengths(self) -> np.ndarray:
        """Number of tokens of each text. *Shape:* (N,)"""
        return self.tokens["input_ids"].lengths


@dataclass(frozen=True)
class PaddingCollator:
    """Collate rows to a batch, padded on the right to its longest text."""

    pad_token_id: int

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        longest = max(len(row["input_ids"]) for row in rows)
        batch: dict[str, torch.Tensor] = {}
        for name, first in rows[0].items():
            if isinstance(first, list):
                fill = self.pad_token_id if name == "input_ids" else 0
                padded = [row[name] + [fill] * (longest - len(row[name])) for row in rows]
                batch[name] = torch.tensor(padded)  # (B, T)
            else:
                batch[name] = torch.from_numpy(np.stack([row[name] for row in rows]))
        return batch


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
