"""Approximate a relative position bias of attention by changes to its queries and keys.

MPNet adds a learned number b(i - j) of each head to the score of tokens at positions i and j
(Song et al. 2020); BERT only adds position embeddings to the word embeddings. Hidden states
still encode a token's position, so a linear map of them can give most of the bias.

For one head, h are the hidden states with a 1 at the end, G = Σ h hᵀ, and s_p is the sum of h over
tokens at position p. The least-squares solution of hᵀ D h' ≈ b(p - p') over all pairs of tokens is

    D = F B Fᵀ,  F = G⁻¹ [s_0 … s_P],  B = the matrix of b(p - p').

The scores of a head of width d have rank d. So the old scores plus hᵀ D h' are replaced by their
best approximation of rank d (Eckart and Young 1936).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import BertForSequenceClassification, PreTrainedModel

from kdedge.nn.signals import read_signals
from kdedge.students.activation_stats import Batch

RIDGE = 1e-3
"""Ridge penalty of the fit, as a share of the mean square of the hidden states."""


@dataclass(frozen=True)
class PositionSums:
    """Sums over the real tokens of texts, for one layer's hidden states with a 1 at the end.

    Attributes:
        products: G, with a ridge penalty. *Shape:* (H + 1, H + 1)
        by_position: s_p for each position p. *Shape:* (P, H + 1)
    """

    products: torch.Tensor
    by_position: torch.Tensor


@torch.no_grad()
def absorb_position_bias(
    student: BertForSequenceClassification, teacher: PreTrainedModel, batches: Sequence[Batch]
) -> None:
    """Change queries and keys of `student` so that its scores come close to the teacher's.

    Args:
        student: The teacher as a BERT, without the bias; changed in place.
        teacher: An MPNet.
        batches: Input batches of the model.
    """
    sums = _sum_states(teacher.eval(), batches)
    positions = len(sums[0].by_position)
    example = torch.zeros(1, positions, 1, device=teacher.device)
    bias = teacher.base_model.encoder.compute_position_bias(example)[0].double()  # (A, P, P)
    for layer, layer_sums in zip(student.bert.encoder.layer, sums, strict=True):
        _absorb(layer.attention.self, bias, layer_sums)


def _sum_states(teacher: PreTrainedModel, batches: Sequence[Batch]) -> list[PositionSums]:
    """Run the teacher, and return the sums over each layer's input states."""
    longest = max(batch["attention_mask"].shape[1] for batch in batches)
    layers, width = teacher.config.num_hidden_layers, teacher.config.hidden_size + 1
    options: dict[str, Any] = {"dtype": torch.float64, "device": teacher.device}
    products = torch.zeros(layers, width, width, **options)
    by_position = torch.zeros(layers, longest, width, **options)
    for batch in batches:
        real = batch["attention_mask"].double()[..., None]  # (B, T, 1)
        hidden = read_signals(teacher, batch, layers=True).hidden
        for layer in range(layers):
            states = torch.cat([hidden[layer].double(), torch.ones_like(real)], -1) * real
            rows = states.flatten(0, 1)
            products[layer] += rows.T @ rows
            by_position[layer, : states.shape[1]] += states.sum(0)
    sums = []
    for product, sum_by_position in zip(products, by_position, strict=True):
        penalty = RIDGE * product.diagonal().mean()
        ridged = product + penalty * torch.eye(width, **options)
        sums.append(PositionSums(ridged, sum_by_position))
    return sums


def _absorb(attention: Any, bias: torch.Tensor, sums: PositionSums) -> None:
    """Change the queries and keys of one layer to include the bias (A, P, P)."""
    root = torch.linalg.cholesky(sums.products)  # G = root @ root.T
    finder = torch.cholesky_solve(sums.by_position.T, root)  # F (H + 1, P)
    width = attention.attention_head_size
    queries, keys = _joined(attention.query), _joined(attention.key)  # (H + 1, A·D)
    for head, head_bias in enumerate(bias):
        rows = slice(head * width, (head + 1) * width)
        # Scores are divided by the root of the head's width, the bias is not.
        left = torch.cat([queries[:, rows], finder @ head_bias * width**0.5], 1)
        right = torch.cat([keys[:, rows], finder], 1)
        query, key = _best_product(left, right, root, width)
        queries[:, rows], keys[:, rows] = query, key
    _fill(attention.query, queries)
    _fill(attention.key, keys)


def _best_product(
    left: torch.Tensor, right: torch.Tensor, root: torch.Tensor, width: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return two matrices (H + 1, width) whose product is the nearest to left @ right.T.

    The distance of a product X is that of the scores: |rootᵀ (X - left @ right.T) root|.
    """
    left_basis, left_rest = torch.linalg.qr(root.T @ left)
    right_basis, right_rest = torch.linalg.qr(root.T @ right)
    u, sizes, v = torch.linalg.svd(left_rest @ right_rest.T)
    scale = sizes[:width].sqrt()
    query = left_basis @ u[:, :width] * scale
    key = right_basis @ v[:width].T * scale
    solve = torch.linalg.solve_triangular
    return solve(root.T, query, upper=True), solve(root.T, key, upper=True)


def _joined(linear: Any) -> torch.Tensor:
    """Return weight and bias of a layer as one matrix (inputs + 1, outputs)."""
    return torch.cat([linear.weight.T, linear.bias[None]]).double()


def _fill(linear: Any, joined: torch.Tensor) -> None:
    linear.weight.copy_(joined[:-1].T)
    linear.bias.copy_(joined[-1])
