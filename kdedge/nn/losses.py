"""Losses of distillation as pure functions: tensors in, one number out."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch.nn import functional as F

from kdedge.nn import losses
from kdedge.recipe import ObjectiveConfig
from kdedge.runtime.spec import Kind


def logit_mse(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Mean squared difference of logits (B, C) (Ba and Caruana 2014; Tang et al. 2019, section 3.1)."""
    return F.mse_loss(student, teacher)


def soft_cross_entropy_kl(
    student: torch.Tensor, teacher: torch.Tensor, temperature: float
) -> torch.Tensor:
    """T² · mean over texts of KL(softmax(teacher / T) || softmax(student / T)), logits (B, C) (Hinton et al. 2015)."""
    target = F.log_softmax(teacher / temperature, dim=-1)
    answer = F.log_softmax(student / temperature, dim=-1)
    return temperature**2 * (target.exp() * (target - answer)).sum(-1).mean()


def soft_binary_kl(
    student: torch.Tensor, teacher: torch.Tensor, temperature: float
) -> torch.Tensor:
    """T² · mean over texts and labels of the KL between Bernoulli(sigmoid(· / T)) of teacher and student, logits (B, C)."""
    p = torch.sigmoid(teacher / temperature)
    cross = F.binary_cross_entropy_with_logits(student / temperature, p)
    entropy = F.binary_cross_entropy_with_logits(teacher / temperature, p)
    return temperature**2 * (cross - entropy)


def logit_cosine(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Mean over texts of 1 - cos of logits (B, C): their direction counts, their size does not."""
    return (1 - F.cosine_similarity(student, teacher, dim=-1)).mean()


def soft_cross_entropy(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Mean over texts of -Σ softmax(teacher) · log softmax(student), logits (B, C) (TinyBERT, eq. 10, at temperature 1)."""
    return F.cross_entropy(student, teacher.softmax(-1))


def soft_binary_cross_entropy(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """The same for labels that do not exclude one another: mean over texts and labels, sigmoid(teacher) as target."""
    return F.binary_cross_entropy_with_logits(student, teacher.sigmoid())


def per_text(
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    student: torch.Tensor,
    teacher: torch.Tensor,
) -> torch.Tensor:
    """(B,) what a loss that is a mean over texts says of each text of logits (B, C) alone."""
    rows: torch.Tensor = torch.vmap(lambda s, t: loss(s[None], t[None]))(student, teacher)
    return rows


def label_rows(
    logits: torch.Tensor, labels: torch.Tensor, kind: Kind
) -> tuple[torch.Tensor, torch.Tensor]:
    """The label loss of each text (B,), 0 where it has no label, and whether it has one (B,) bool; labels as in `label_loss`."""
    known = (
        labels >= 0
        if kind == "classification"
        else ~torch.isnan(labels.reshape(len(labels), -1)).any(1)
    )
    rows = logits.sum(1) * 0.0  # zeros with a gradient
    if bool(known.any()):
        rows = rows.masked_scatter(known, _known_rows(logits[known], labels[known], kind))
    return rows, known


def _known_rows(logits: torch.Tensor, labels: torch.Tensor, kind: Kind) -> torch.Tensor:
    if kind == "classification":
        return F.cross_entropy(logits, labels, reduction="none")
    if kind == "multilabel":
        return F.binary_cross_entropy_with_logits(logits, labels, reduction="none").mean(1)
    return (logits.squeeze(-1) - labels).square()


def label_loss(logits: torch.Tensor, labels: torch.Tensor, kind: Kind) -> torch.Tensor:
    """Cross-entropy, binary cross-entropy or squared error, over the rows that have a label; 0 where none has.

    labels: (B,) int64 with -1 for none; (B, C) float or (B,) float with NaN for none.
    """
    rows, known = label_rows(logits, labels, kind)
    return rows.sum() / known.sum().clamp(min=1)


def hidden_mse(student: torch.Tensor, teacher: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean squared difference of hidden states (B, T, H) over real tokens, mask (B, T) (TinyBERT, eq. 8 and 9)."""
    squared = (student - teacher).square().mean(-1)  # (B, T)
    return (squared * mask).sum() / mask.sum()


def hidden_cosine(student: torch.Tensor, teacher: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean of 1 - cos of hidden states (B, T, H) over real tokens, mask (B, T) (DistilBERT, Sanh et al. 2019, section 3)."""
    apart = 1 - F.cosine_similarity(student, teacher, dim=-1)  # (B, T)
    return (apart * mask).sum() / mask.sum()


def hidden_pkd(student: torch.Tensor, teacher: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Squared distance of the first tokens' hidden states, each scaled to length 1; mean over texts of (B, T, H).

    Patient knowledge distillation (Sun et al. 2019, eq. 7). The first token is always real, so the mask (B, T) decides nothing.
    """
    mine, theirs = (F.normalize(states[:, 0], dim=-1) for states in (student, teacher))  # (B, H)
    return (mine - theirs).square().sum(-1).mean()


def hidden_cka(student: torch.Tensor, teacher: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """1 - linear CKA of the real tokens' hidden states (B, T, H) and (B, T, H'), of any two widths; mask (B, T).

    CKA = |Y'X|² / (|X'X| |Y'Y|) with Frobenius norms of centred X, Y (Kornblith et al. 2019, eq. 1 and section 3).
    """
    real = mask.bool()
    x, y = (states[real] - states[real].mean(0) for states in (student, teacher))  # (N, H), (N, H')
    own: torch.Tensor = torch.linalg.matrix_norm(x.T @ x) * torch.linalg.matrix_norm(y.T @ y)
    shared: torch.Tensor = (y.T @ x).square().sum() / own.clamp(min=torch.finfo(own.dtype).tiny)
    return 1 - shared


def attention_mse(student: torch.Tensor, teacher: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean squared difference of attention (B, A, T, T) over heads and pairs of real tokens, mask (B, T).

    TinyBERT, eq. 7, which matches the scores before softmax; both must have the same number of heads.
    """
    both = (mask[:, None, :, None] * mask[:, None, None, :]).to(student.dtype)  # (B, 1, T, T)
    return ((student - teacher).square() * both).sum() / (both.sum() * student.shape[1])


def attention_probability_mse(
    student: torch.Tensor, teacher: torch.Tensor, mask: torch.Tensor
) -> torch.Tensor:
    """`attention_mse` of the probabilities, from scores (B, A, T, T)."""
    return attention_mse(
        masked_log_softmax(student, mask).exp(), masked_log_softmax(teacher, mask).exp(), mask
    )


def attention_kl(student: torch.Tensor, teacher: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean over heads and real tokens of KL(teacher || student) of where a token looks, from scores (B, A, T, T).

    MiniLM, Wang et al. 2020, eq. 6; both must have the same number of heads.
    """
    answer, target = masked_log_softmax(student, mask), masked_log_softmax(teacher, mask)
    each = (target.exp() * (target - answer)).sum(-1)  # (B, A, T)
    return (each * mask[:, None, :]).sum() / (mask.sum() * student.shape[1])


def masked_log_softmax(scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Log-probabilities of scores (B, A, T, T) over the real tokens; elsewhere a number so low, but finite, that its probability is 0."""
    return scores.masked_fill(
        mask[:, None, None, :] == 0, torch.finfo(scores.dtype).min / 2
    ).log_softmax(-1)


def relation_scores(first: torch.Tensor, second: torch.Tensor, heads: int) -> torch.Tensor:
    """How each token's vector in `first` (B, A, T, D) meets that in `second`, cut anew into R heads: scores (B, R, T, T).

    The vectors of all heads are joined to A·D numbers and split into R equal parts of d, whose products are divided by √d:
    student and teacher become comparable whatever A and D are (MiniLMv2, Wang et al. 2021, section 3.1).
    """
    left, right = (_split_anew(vectors, heads) for vectors in (first, second))
    scores: torch.Tensor = left @ right.transpose(-1, -2) / math.sqrt(left.shape[-1])
    return scores


def _split_anew(vectors: torch.Tensor, heads: int) -> torch.Tensor:
    b, a, t, d = vectors.shape
    return (
        vectors.transpose(1, 2).reshape(b, t, heads, a * d // heads).transpose(1, 2)
    )  # (B, R, T, A·D / R)


LogitLoss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def logit_loss(recipe: ObjectiveConfig, kind: Kind) -> LogitLoss:
    """The loss that `objective.logits` names: (student, teacher), logits (N, C) -> mean over texts. KL and cross-entropy go label by label where there are many."""
    many = kind == "multilabel"
    if recipe.logits == "kl":
        return partial(
            losses.soft_binary_kl if many else losses.soft_cross_entropy_kl,
            temperature=recipe.temperature,
        )
    if recipe.logits == "soft_ce":
        return losses.soft_binary_cross_entropy if many else losses.soft_cross_entropy
    return losses.logit_cosine if recipe.logits == "cosine" else losses.logit_mse
