"""Losses of distillation as pure functions: tensors in, one number out."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from kdedge.runtime.spec import Kind


def logit_mse(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Mean squared difference of logits (B, C) (Ba and Caruana 2014; Tang et al. 2019, section 3.1)."""
    return F.mse_loss(student, teacher)


def soft_cross_entropy_kl(student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
    """T² · mean over texts of KL(softmax(teacher / T) || softmax(student / T)), logits (B, C) (Hinton et al. 2015)."""
    target = F.log_softmax(teacher / temperature, dim=-1)
    answer = F.log_softmax(student / temperature, dim=-1)
    return temperature**2 * F.kl_div(answer, target, reduction="batchmean", log_target=True)


def soft_binary_kl(student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
    """T² · mean over texts and labels of the KL between Bernoulli(sigmoid(· / T)) of teacher and student, logits (B, C)."""
    p = torch.sigmoid(teacher / temperature)
    cross = F.binary_cross_entropy_with_logits(student / temperature, p)
    entropy = F.binary_cross_entropy_with_logits(teacher / temperature, p)
    return temperature**2 * (cross - entropy)


def label_loss(logits: torch.Tensor, labels: torch.Tensor, kind: Kind) -> torch.Tensor:
    """Cross-entropy, binary cross-entropy or squared error, over the rows that have a label; 0 where none has.

    labels: (B,) int64 with -1 for none; (B, C) float or (B,) float with NaN for none.
    """
    known = labels >= 0 if kind == "classification" else ~torch.isnan(labels.reshape(len(labels), -1)).any(1)
    if not bool(known.any()):
        return logits.sum() * 0.0
    logits, labels = logits[known], labels[known]
    if kind == "classification":
        return F.cross_entropy(logits, labels)
    if kind == "multilabel":
        return F.binary_cross_entropy_with_logits(logits, labels)
    return F.mse_loss(logits.squeeze(-1), labels)


def hidden_mse(student: torch.Tensor, teacher: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean squared difference of hidden states (B, T, H) over real tokens, mask (B, T) (TinyBERT, eq. 8 and 9)."""
    squared = (student - teacher).square().mean(-1)  # (B, T)
    return (squared * mask).sum() / mask.sum()


def attention_mse(student: torch.Tensor, teacher: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean squared difference of attention scores (B, A, T, T) over heads and pairs of real tokens, mask (B, T).

    TinyBERT, eq. 7, which matches the scores before softmax; both must have the same number of heads.
    """
    both = (mask[:, None, :, None] * mask[:, None, None, :]).to(student.dtype)  # (B, 1, T, T)
    return ((student - teacher).square() * both).sum() / (both.sum() * student.shape[1])
