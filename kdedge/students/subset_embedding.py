"""Train only the word embeddings whose tokens occur in the training texts.

Gradients, optimizer state and checkpoints of the other rows would be wasted work.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel


class SubsetEmbedding(nn.Module):
    """An embedding reduced to the sorted rows `used` (U,); other ids raise IndexError."""

    positions: torch.Tensor

    def __init__(self, whole: nn.Embedding, used: torch.Tensor) -> None:
        super().__init__()
        positions = torch.full((whole.num_embeddings,), -1, device=used.device)
        positions[used] = torch.arange(len(used), device=used.device)
        self.register_buffer("positions", positions, persistent=False)
        pad = None if whole.padding_idx is None else int(positions[whole.padding_idx])
        self.rows = nn.Embedding(
            len(used),
            whole.embedding_dim,
            padding_idx=pad,
            _weight=whole.weight.detach()[used].clone(),
        )

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Return the embeddings (B, T, H) of token ids (B, T)."""
        vectors: torch.Tensor = self.rows(self.positions[input_ids])
        return vectors


@contextmanager
def train_used_embeddings_only(model: PreTrainedModel, used: np.ndarray) -> Iterator[None]:
    """Train only the embeddings of the token ids `used`; weight decay skips the others too.

    The used rows change exactly as in a training of all rows: no other row has a gradient.
    """
    whole: nn.Embedding = model.get_input_embeddings()
    padding = [] if whole.padding_idx is None else [whole.padding_idx]
    rows = torch.from_numpy(np.union1d(used, padding).astype(np.int64)).to(whole.weight.device)
    subset = SubsetEmbedding(whole, rows)
    model.set_input_embeddings(subset)
    try:
        yield
    finally:
        model.set_input_embeddings(whole)
        with torch.no_grad():
            whole.weight[rows] = subset.rows.weight.to(whole.weight.device)
