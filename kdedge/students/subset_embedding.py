"""A word embedding cut to the rows that a training reads: gradient, optimizer and checkpoints of the others are work for nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from kdedge.students.bilstm import BiLstmForSequenceClassification


def word_embedding(model: PreTrainedModel) -> tuple[nn.Module, str]:
    """The module of a student that holds its word embedding, and the name it has there."""
    return (
        (model, "embedding")
        if isinstance(model, BiLstmForSequenceClassification)
        else (model.bert.embeddings, "word_embeddings")
    )


class SubsetEmbedding(nn.Module):
    """The rows `used` (U,) of an embedding, sorted; any other token id is an IndexError."""

    numbers: torch.Tensor

    def __init__(self, whole: nn.Embedding, used: torch.Tensor) -> None:
        super().__init__()
        numbers = torch.full((whole.num_embeddings,), -1, device=used.device)
        numbers[used] = torch.arange(len(used), device=used.device)
        self.register_buffer("numbers", numbers, persistent=False)
        pad = None if whole.padding_idx is None else int(numbers[whole.padding_idx])
        self.rows = nn.Embedding(
            len(used),
            whole.embedding_dim,
            padding_idx=pad,
            _weight=whole.weight.detach()[used].clone(),
        )

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Vectors (B, T, H)."""
        vectors: torch.Tensor = self.rows(self.numbers[input_ids])
        return vectors


@contextmanager
def train_used_embeddings_only(model: PreTrainedModel, used: np.ndarray) -> Iterator[None]:
    """Let a student train the embeddings of the token ids `used` alone; the others stay as they are, not even decayed.

    What the used rows become is what they become with all rows there: no other row has a gradient.
    """
    owner, name = word_embedding(model)
    whole: nn.Embedding = getattr(owner, name)
    padding = [] if whole.padding_idx is None else [whole.padding_idx]
    rows = torch.from_numpy(np.union1d(used, padding).astype(np.int64)).to(whole.weight.device)
    some = SubsetEmbedding(whole, rows)
    setattr(owner, name, some)
    try:
        yield
    finally:
        setattr(owner, name, whole)
        with torch.no_grad():
            whole.weight[rows] = some.rows.weight.to(whole.weight.device)
