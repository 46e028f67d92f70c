"""From texts to padded batches of token ids, and a model's logits over many of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from kdedge.nn.ragged import RaggedArray


@dataclass
class Encoded(Dataset[dict[str, Any]]):
    """N tokenized texts, unpadded, with any number of columns beside them.

    tokens: input name -> N lists of token ids (or masks, or types), each of its own length T_i.
    columns: name -> N rows, such as labels (N,) or teacher_logits (N, C).
    """

    tokens: dict[str, RaggedArray]
    columns: dict[str, np.ndarray] = field(default_factory=dict)

    @classmethod
    def of(cls, ids: list[list[int]]) -> Encoded:
        """From token ids, with a mask that leaves none out."""
        whole = RaggedArray.of(ids)
        return cls(
            {
                "input_ids": whole,
                "attention_mask": RaggedArray(np.ones_like(whole.values), whole.lengths),
            }
        )

    def __len__(self) -> int:
        return len(self.tokens["input_ids"])

    def __getitem__(self, index: int) -> dict[str, Any]:
        row: dict[str, Any] = {name: values[index] for name, values in self.tokens.items()}
        return row | {name: values[index] for name, values in self.columns.items()}

    @property
    def lengths(self) -> np.ndarray:
        """(N,) tokens of each text."""
        return self.tokens["input_ids"].lengths


@dataclass(frozen=True)
class PaddingCollator:
    """Collator: right padding to the longest text of the batch."""

    pad_token_id: int

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        longest = max(len(row["input_ids"]) for row in rows)
        batch: dict[str, torch.Tensor] = {}
        for name in rows[0]:
            if isinstance(rows[0][name], list):
                fill = self.pad_token_id if name == "input_ids" else 0
                batch[name] = torch.tensor(
                    [[*row[name], *[fill] * (longest - len(row[name]))] for row in rows]
                )  # (B, T)
            else:
                batch[name] = torch.from_numpy(np.stack([row[name] for row in rows]))
        return batch
