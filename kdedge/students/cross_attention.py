"""Compare each token of one text with the tokens of the other text that it attends to.

"Enhanced LSTM for Natural Language Inference" (ESIM, Chen et al. 2017, arXiv:1609.06038), after
"A Decomposable Attention Model" (Parikh et al. 2016, arXiv:1606.01933).
"""

from __future__ import annotations

import torch
from torch import nn


class CrossAttention(nn.Module):
    """Dot-product attention between two texts, a ReLU layer, and pooling over the tokens.

    A token with the state a attends to the states of the other text; a' is their weighted mean. The
    layer reads [a; a'; |a - a'|; a * a'].
    """

    def __init__(self, width: int, features: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.compare = nn.Linear(4 * width, features)

    def forward(self, states: torch.Tensor, is_token: torch.Tensor) -> torch.Tensor:
        """Return the mean and the maximum over the tokens of each text.

        Padding affects neither.

        Args:
            states: Of the first texts, then of the second texts. *Shape:* (2B, T, width)
            is_token: False for padding. *Shape:* (2B, T)

        Returns:
            Mean and maximum of the first texts, then of the second. *Shape:* (B, 4 features)
        """
        others = _exchange(states)
        is_other = _exchange(is_token)
        scores = states @ others.transpose(1, 2)  # (2B, T, T)
        scores = scores.masked_fill(~is_other[:, None], torch.finfo(scores.dtype).min)
        aligned = scores.softmax(2) @ others  # (2B, T, width)
        compared = self.compare(self.dropout(matching_features(states, aligned)))
        compared = torch.relu(compared) * is_token[..., None]  # (2B, T, features)
        mean = compared.sum(1) / is_token.sum(1, keepdim=True)
        # No feature is negative, so the zeros of the padding do not raise a maximum.
        pooled = torch.cat([mean, compared.amax(1)], dim=1)  # (2B, 2 features)
        return torch.cat(pooled.chunk(2), dim=1)


def matching_features(u: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Return `[u; v; |u - v|; u * v]` along the last dimension."""
    return torch.cat([u, v, (u - v).abs(), u * v], dim=-1)


def _exchange(values: torch.Tensor) -> torch.Tensor:
    """Exchange the first half of the rows with the second."""
    first, second = values.chunk(2)
    return torch.cat([second, first])
