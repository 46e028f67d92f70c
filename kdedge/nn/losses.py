"""Distillation losses as pure functions: tensors in, one number out.

Shapes: B texts of T tokens, C logits, A heads, hidden states of H numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch.nn import functional as F

from kdedge.recipe import ObjectiveConfig
from kdedge.runtime.spec import Kind

LogitLoss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""(student, teacher) logits (B, C) -> mean over texts."""


def logit_mse(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Compute the mean squared error of logits (B, C).

    Ba and Caruana 2014; Tang et al. 2019, section 3.1.
    """
    return F.mse_loss(student, teacher)


def soft_cross_entropy_kl(
    student: torch.Tensor, teacher: torch.Tensor, temperature: float
) -> torch.Tensor:
    """Compute T² · mean over texts of KL(softmax(teacher / T) || softmax(student / T)).

    Hinton et al. 2015, section 2. Logits (B, C).
    """
    target = F.log_softmax(teacher / temperature, dim=-1)
    prediction = F.log_softmax(student / temperature, dim=-1)
    return temperature**2 * (target.exp() * (target - prediction)).sum(-1).mean()


def soft_binary_kl(
    student: torch.Tensor, teacher: torch.Tensor, temperature: float
) -> torch.Tensor:
    """Compute T² · mean over texts and labels of KL(teacher || student).

    Each is a Bernoulli distribution with probability sigmoid(logit / T). Logits (B, C).
    """
    p = torch.sigmoid(teacher / temperature)
    cross = F.binary_cross_entropy_with_logits(student / temperature, p)
    entropy = F.binary_cross_entropy_with_logits(teacher / temperature, p)
    return temperature**2 * (cross - entropy)


def logit_cosine(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Compute the mean over texts of 1 - cos of logits (B, C), whatever their scale."""
    return (1 - F.cosine_similarity(student, teacher, dim=-1)).mean()


def soft_cross_entropy(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Compute the mean over texts of -Σ softmax(teacher) · log softmax(student).

    TinyBERT, eq. 10, at temperature 1. Logits (B, C).
    """
    return F.cross_entropy(student, teacher.softmax(-1))


def soft_binary_cross_entropy(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Compute the mean over texts and labels of the cross-entropy to sigmoid(teacher).

    For labels that do not exclude each other. Logits (B, C).
    """
    return F.binary_cross_entropy_with_logits(student, teacher.sigmoid())


LOGIT_LOSSES: dict[str, LogitLoss] = {
    "mse": logit_mse,
    "cosine": logit_cosine,
    "soft_ce": soft_cross_entropy,
}
"""Name in a recipe -> loss without a temperature; `kl`, which has one, is in `logit_loss`."""

MULTILABEL_LOGIT_LOSSES = {**LOGIT_LOSSES, "soft_ce": soft_binary_cross_entropy}
"""The same for a multilabel task."""


def label_loss(logits: torch.Tensor, labels: torch.Tensor, kind: Kind) -> torch.Tensor:
    """Compute the mean loss of the labels, over the texts that have one.

    It is the cross-entropy for a classification, the binary cross-entropy for a multilabel task,
    and the squared error for a regression.

    Args:
        logits: *Shape:* (B, C)
        labels: Classes (B,), -1 for none; or zeros and ones (B, C) or scores (B,), NaN for none.
        kind: The kind of task.

    Returns:
        A scalar; 0 if no text has a label.
    """
    # No rows are selected by a mask: on a GPU, the CPU would wait for their number.
    if kind == "classification":
        known = labels >= 0
        rows = F.cross_entropy(logits, labels, reduction="none", ignore_index=-1)
        return rows.sum() / known.sum().clamp(min=1)
    known = ~torch.isnan(labels.reshape(len(labels), -1)).any(1)
    targets = labels.nan_to_num()
    if kind == "multilabel":
        rows = F.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(1)
    else:
        rows = (logits.squeeze(-1) - targets).square()
    return torch.where(known, rows, 0.0).sum() / known.sum().clamp(min=1)


def hidden_mse(student: torch.Tensor, teacher: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Compute the mean squared error of states (B, T, H) over real tokens, mask (B, T).

    TinyBERT, eq. 8 and 9.
    """
    squared = (student - teacher).square().mean(-1)  # (B, T)
    return (squared * mask).sum() / mask.sum()


def hidden_cosine(student: torch.Tensor, teacher: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Compute the mean of 1 - cos of states (B, T, H) over real tokens, mask (B, T).

    DistilBERT, Sanh et al. 2019, section 3.
    """
    distance = 1 - F.cosine_similarity(student, teacher, dim=-1)  # (B, T)
    return (distance * mask).sum() / mask.sum()


def hidden_pkd(student: torch.Tensor, teacher: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Compute the mean squared distance of the first tokens' states, scaled to length 1.

    Patient knowledge distillation, Sun et al. 2019, eq. 7. States (B, T, H). The mask is not used:
    the first token is never padding.
    """
    student_first = F.normalize(student[:, 0], dim=-1)  # (B, H)
    teacher_first = F.normalize(teacher[:, 0], dim=-1)
    return (student_first - teacher_first).square().sum(-1).mean()


def hidden_cka(student: torch.Tensor, teacher: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Compute 1 - linear CKA of real tokens' states (B, T, H) and (B, T, H'), mask (B, T).

    CKA = |Y'X|² / (|X'X| |Y'Y|) with Frobenius norms of centred X, Y (Kornblith et al. 2019,
    eq. 1 and section 3). The two widths may differ.
    """
    x = _centred(student, mask)  # (B·T, H)
    y = _centred(teacher, mask)  # (B·T, H')
    # These sums over all tokens leave the range of fp16, which a matrix product would be cast to.
    with torch.autocast(x.device.type, enabled=False):
        own: torch.Tensor = torch.linalg.matrix_norm(x.T @ x) * torch.linalg.matrix_norm(y.T @ y)
        shared: torch.Tensor = (y.T @ x).square().sum() / own.clamp(min=torch.finfo(own.dtype).tiny)
    return 1 - shared


def _centred(states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return states (B, T, H) minus their mean over real tokens, padding as 0: (B·T, H)."""
    real = mask[..., None].to(states.dtype)
    mean = (states * real).sum((0, 1)) / real.sum()
    return ((states - mean) * real).flatten(0, 1)


def attention_mse(student: torch.Tensor, teacher: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Compute the mean squared error of attention (B, A, T, T) over real tokens.

    The mean is over pairs of real tokens, mask (B, T). TinyBERT, eq. 7, compares scores before
    softmax; probabilities also work. Student and teacher have the same number of heads.
    """
    pairs = (mask[:, None, :, None] * mask[:, None, None, :]).to(student.dtype)  # (B, 1, T, T)
    return ((student - teacher).square() * pairs).sum() / (pairs.sum() * student.shape[1])


def attention_probability_mse(
    student: torch.Tensor, teacher: torch.Tensor, mask: torch.Tensor
) -> torch.Tensor:
    """Compute `attention_mse` of the probabilities, from scores (B, A, T, T)."""
    student_probs = masked_log_softmax(student, mask).exp()
    teacher_probs = masked_log_softmax(teacher, mask).exp()
    return attention_mse(student_probs, teacher_probs, mask)


def attention_kl(student: torch.Tensor, teacher: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Compute the mean over heads and tokens of KL(teacher || student), from scores.

    MiniLM, Wang et al. 2020, eq. 6. Scores (B, A, T, T); both have the same number of heads.
    """
    prediction = masked_log_softmax(student, mask)
    target = masked_log_softmax(teacher, mask)
    divergence = (target.exp() * (target - prediction)).sum(-1)  # (B, A, T)
    return (divergence * mask[:, None, :]).sum() / (mask.sum() * student.shape[1])


def masked_log_softmax(scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Compute log-probabilities of scores (B, A, T, T) over the real tokens.

    Scores of padding become a finite number that is low enough for a probability of 0.
    """
    lowest = torch.finfo(scores.dtype).min / 2
    return scores.masked_fill(mask[:, None, None, :] == 0, lowest).log_softmax(-1)


def relation_scores(first: torch.Tensor, second: torch.Tensor, heads: int) -> torch.Tensor:
    """Compute the scaled products of all pairs of tokens' vectors, in R heads.

    The vectors of all heads are joined to A·D numbers and split into R equal parts of d. Products
    are divided by √d. So student and teacher can have different A and D (MiniLMv2, Wang et al.
    2021, section 3.1).

    Args:
        first: Queries, keys or values. *Shape:* (B, A, T, D)
        second: The other factor, in the same shape.
        heads: R; it divides A·D.

    Returns:
        Scores. *Shape:* (B, R, T, T)
    """
    left = _regroup_heads(first, heads)
    right = _regroup_heads(second, heads)
    scores: torch.Tensor = left @ right.transpose(-1, -2) / math.sqrt(left.shape[-1])
    return scores


def _regroup_heads(vectors: torch.Tensor, heads: int) -> torch.Tensor:
    b, a, t, d = vectors.shape
    tokens = vectors.transpose(1, 2).reshape(b, t, heads, a * d // heads)
    return tokens.transpose(1, 2)  # (B, R, T, A·D / R)


def logit_loss(objective: ObjectiveConfig, kind: Kind) -> LogitLoss:
    """Return the loss that `objective.logits` names.

    For multilabel tasks KL and cross-entropy compare each label alone.
    """
    multilabel = kind == "multilabel"
    if objective.logits == "kl":
        kl = soft_binary_kl if multilabel else soft_cross_entropy_kl
        return partial(kl, temperature=objective.temperature)
    losses = MULTILABEL_LOGIT_LOSSES if multilabel else LOGIT_LOSSES
    return losses[objective.logits]
