"""Reduce an attention head from D numbers to d."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class LowRankHead:
    """Matrices that narrow one head.

    Attributes:
        query, key, value: Matrices to multiply the head's three layers with. *Shape:* (d, D)
        output: Replaces the output layer (h, D) of the head's values. *Shape:* (h, d)
    """

    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    output: torch.Tensor


def fit_low_rank_head(moments: torch.Tensor, output: torch.Tensor, width: int) -> LowRankHead:
    """Find the best approximation of rank `width` for a head's scores and for its output.

    Attention divides scores by the square root of the head's width; queries and keys are scaled so
    that the scores stay the same at the new width.

    Args:
        moments: Outer products of queries, keys and values, summed over tokens. *Shape:* (3, D, D)
        output: The output layer of the head's values. *Shape:* (h, D)
        width: The new width d.
    """
    old_width = output.shape[1]
    scale = (width / old_width) ** 0.25
    if width >= old_width:
        same = torch.eye(width, old_width, dtype=output.dtype, device=output.device)
        return LowRankHead(scale * same, scale * same, same, output @ same.T)
    query_root, query_inverse = _roots(moments[0])
    key_root, key_inverse = _roots(moments[1])
    value_root, value_inverse = _roots(moments[2])

    left, sizes, right = torch.linalg.svd(query_root @ key_root)
    score_scale = scale * sizes[:width].sqrt()[:, None]
    query = score_scale * (left.T[:width] @ query_inverse)
    key = score_scale * (right[:width] @ key_inverse)

    # The new values are as large as the old ones. Much smaller weights with a much larger output
    # layer would compute the same, but not survive one step of Adam.
    mean_size = (moments[2].trace() / old_width).sqrt().clamp(min=1e-12)
    left, sizes, right = torch.linalg.svd(output @ value_root, full_matrices=False)
    rank = min(width, len(sizes))
    value = torch.zeros(width, old_width, dtype=output.dtype, device=output.device)
    value[:rank] = mean_size * (right[:rank] @ value_inverse)
    narrow_output = torch.zeros(len(output), width, dtype=output.dtype, device=output.device)
    narrow_output[:, :rank] = left[:, :rank] * sizes[:rank] / mean_size
    return LowRankHead(query, key, value, narrow_output)


def _roots(moment: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the symmetric square root of a moment (D, D) and its inverse.

    Tiny eigenvalues are clamped.
    """
    sizes, directions = torch.linalg.eigh(moment)
    roots = sizes.clamp(min=float(sizes.max()) * 1e-9 + 1e-30).sqrt()
    return directions * roots @ directions.T, directions / roots @ directions.T
