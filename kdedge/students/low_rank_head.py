"""An attention head of D numbers made to do with d of them."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class LowRankHead:
    """query, key, value: (d, D), to be put after the head's three layers; output: (h, d), in place of what read the values."""

    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    output: torch.Tensor


def fit_low_rank_head(moments: torch.Tensor, output: torch.Tensor, width: int) -> LowRankHead:
    """The best `width` directions of a head: of its scores q·k, and of what its values add to the hidden states.

    moments: (3, D, D), sums of outer products of queries, keys and values over tokens.
    output: (h, D), the layer that reads the head's values.
    Scores are divided by the root of a head's width, so queries and keys are scaled to make up for a new one.
    """
    old = output.shape[1]
    scale = (width / old) ** 0.25
    if width >= old:
        same = torch.eye(width, old, dtype=output.dtype, device=output.device)
        return LowRankHead(scale * same, scale * same, same, output @ same.T)
    query, key, value = (_roots(moment) for moment in moments)
    left, sizes, right = torch.linalg.svd(query[0] @ key[0])
    shares = scale * sizes[:width].sqrt()[:, None]
    u, s, v = torch.linalg.svd(output @ value[0], full_matrices=False)
    rank = min(width, len(s))
    values, outputs = (
        torch.zeros(shape, dtype=output.dtype, device=output.device)
        for shape in ((width, old), (len(output), width))
    )
    values[:rank], outputs[:, :rank] = v[:rank] @ value[1], u[:, :rank] * s[:rank]
    return LowRankHead(
        shares * (left.T[:width] @ query[1]), shares * (right[:width] @ key[1]), values, outputs
    )


def _roots(moment: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The symmetric root of a moment (D, D) and its inverse, directions without any weight left out."""
    sizes, directions = torch.linalg.eigh(moment)
    roots = sizes.clamp(min=float(sizes.max()) * 1e-9 + 1e-30).sqrt()
    return directions * roots @ directions.T, directions / roots @ directions.T
