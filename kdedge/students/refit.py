"""Closed-form fits of a shrunk student to its teacher: every norm to the teacher's states, then the head to its logits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers import BertForSequenceClassification, PreTrainedModel

from kdedge.students.activation_stats import Batch

RIDGE = 1e-2
"""How much a fitted head is held back to what it was, as a share of its inputs' variance."""


@torch.no_grad()
def refit_norms(
    student: BertForSequenceClassification,
    teacher: PreTrainedModel,
    batch: Batch,
    directions: torch.Tensor,
    layers: list[int],
) -> None:
    """Give every LayerNorm of the student, in the order they run, the scale and shift that come nearest to the teacher's states.

    batch: the model's inputs. directions: (H, h), how the student's space lies in the teacher's.
    """
    theirs = [
        teacher.bert.embeddings.LayerNorm,
        *(norm for number in layers for norm in _norms(teacher.bert.encoder.layer[number - 1])),
    ]
    mine = [
        student.bert.embeddings.LayerNorm,
        *(norm for layer in student.bert.encoder.layer for norm in _norms(layer)),
    ]
    real = batch["attention_mask"].bool()
    wanted: dict[int, torch.Tensor] = {}

    def note(place: int, output: torch.Tensor) -> None:
        wanted[place] = output[real].double() @ directions  # (N', h)

    _run(
        teacher,
        batch,
        [
            norm.register_forward_hook(lambda _, __, output, i=i: note(i, output))
            for i, norm in enumerate(theirs)
        ],
    )
    fit = [
        norm.register_forward_hook(
            lambda norm, inputs, _, i=i: _fit_norm(norm, inputs[0], real, wanted[i])
        )
        for i, norm in enumerate(mine)
    ]
    _run(student, batch, fit)


def _run(model: PreTrainedModel, batch: Batch, hooks: list[Any]) -> None:
    try:
        model.eval()(**batch)
    finally:
        for hook in hooks:
            hook.remove()


def _norms(layer: Any) -> tuple[Any, Any]:
    return layer.attention.output.LayerNorm, layer.output.LayerNorm


def _fit_norm(
    norm: Any, states: torch.Tensor, real: torch.Tensor, wanted: torch.Tensor
) -> torch.Tensor:
    """Least squares number by number over real tokens, then the norm's answer (B, T, h) with its new scale and shift."""
    plain = nn.functional.layer_norm(
        states[real], norm.normalized_shape, eps=norm.eps
    ).double()  # (N', h)
    centred, target = plain - plain.mean(0), wanted - wanted.mean(0)
    scale = (centred * target).mean(0) / centred.square().mean(0).clamp(min=1e-9)
    norm.weight.copy_(scale)
    norm.bias.copy_(wanted.mean(0) - scale * plain.mean(0))
    answer: torch.Tensor = nn.functional.layer_norm(
        states, norm.normalized_shape, norm.weight, norm.bias, norm.eps
    )
    return answer


@torch.no_grad()
def refit_head(
    student: BertForSequenceClassification, teacher: PreTrainedModel, batches: Sequence[Batch]
) -> None:
    """Fit the student's classifier to the teacher's logits by ridge regression around what it is."""
    head, read = student.eval().classifier, []
    hook = head.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0].double()))
    try:
        off = torch.cat(
            [
                teacher(**batch).logits.double() - student(**batch).logits.double()
                for batch in batches
            ]
        )  # (N, C)
    finally:
        hook.remove()
    x = torch.cat(read)  # (N, h)
    centred = x - x.mean(0)
    held = RIDGE * centred.square().sum() / x.shape[1]
    change = torch.linalg.solve(
        centred.T @ centred + held * torch.eye(x.shape[1], dtype=x.dtype, device=x.device),
        centred.T @ (off - off.mean(0)),
    )
    head.weight += change.T
    head.bias += off.mean(0) - x.mean(0) @ change
