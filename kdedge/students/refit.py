"""Fit a shrunk student's norms and head to its teacher in closed form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers import BertForSequenceClassification, PreTrainedModel

from kdedge.students.activation_stats import Batch
from kdedge.students.as_bert import norms_of

RIDGE = 1e-2
"""Ridge penalty of the fitted head, as a share of its inputs' variance."""


@torch.no_grad()
def refit_norms(
    student: BertForSequenceClassification,
    teacher: PreTrainedModel,
    batch: Batch,
    directions: torch.Tensor,
    layers: list[int],
) -> None:
    """Fit scale and shift of each LayerNorm of the student, in order, to the teacher's states.

    Args:
        student: Changed in place.
        teacher: The model that the student was cut from, of a type that `as_bert` knows.
        batch: Inputs of the model.
        directions: Basis of the student's hidden space in the teacher's. *Shape:* (H, h)
        layers: Teacher layer (1-based) of each student layer.
    """
    real = batch["attention_mask"].bool()
    targets: dict[int, torch.Tensor] = {}
    hooks = []
    for i, norm in enumerate(norms_of(teacher, layers)):

        def record(_: Any, __: Any, output: torch.Tensor, i: int = i) -> None:
            targets[i] = output[real].double() @ directions  # (N, h)

        hooks.append(norm.register_forward_hook(record))
    _run(teacher, batch, hooks)

    hooks = []
    own_layers = list(range(1, len(layers) + 1))
    for i, norm in enumerate(norms_of(student, own_layers)):

        def fit(norm: Any, inputs: Any, _: Any, i: int = i) -> torch.Tensor:
            return _fit_norm(norm, inputs[0], real, targets[i])

        hooks.append(norm.register_forward_hook(fit))
    _run(student, batch, hooks)


def _run(model: PreTrainedModel, batch: Batch, hooks: list[Any]) -> None:
    try:
        model.eval()(**batch)
    finally:
        for hook in hooks:
            hook.remove()


def _fit_norm(
    norm: Any, states: torch.Tensor, real: torch.Tensor, target: torch.Tensor
) -> torch.Tensor:
    """Fit scale and shift by least squares over real tokens; return the new output (B, T, h)."""
    layer_norm = nn.functional.layer_norm
    plain = layer_norm(states[real], norm.normalized_shape, eps=norm.eps).double()  # (N, h)
    centred = plain - plain.mean(0)
    centred_target = target - target.mean(0)
    scale = (centred * centred_target).mean(0) / centred.square().mean(0).clamp(min=1e-9)
    norm.weight.copy_(scale)
    norm.bias.copy_(target.mean(0) - scale * plain.mean(0))
    output: torch.Tensor = layer_norm(
        states, norm.normalized_shape, norm.weight, norm.bias, norm.eps
    )
    return output


@torch.no_grad()
def refit_head(
    student: BertForSequenceClassification, teacher: PreTrainedModel, batches: Sequence[Batch]
) -> None:
    """Fit the student's classifier to the teacher's logits by ridge regression.

    The penalty is on changes of the weights.
    """
    head = student.eval().classifier
    inputs: list[torch.Tensor] = []
    hook = head.register_forward_pre_hook(lambda _, given: inputs.append(given[0].double()))
    errors = []
    try:
        for batch in batches:
            errors.append(teacher(**batch).logits.double() - student(**batch).logits.double())
    finally:
        hook.remove()
    error = torch.cat(errors)  # (N, C)
    x = torch.cat(inputs)  # (N, h)
    centred = x - x.mean(0)
    penalty = RIDGE * centred.square().sum() / x.shape[1]
    identity = torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    change = torch.linalg.solve(
        centred.T @ centred + penalty * identity, centred.T @ (error - error.mean(0))
    )
    head.weight += change.T
    head.bias += error.mean(0) - x.mean(0) @ change
