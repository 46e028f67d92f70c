"""Fit a shrunk student's layers and head to its teacher in closed form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import BertForSequenceClassification, PreTrainedModel

from kdedge.students.activation_stats import Batch, recorded_calls
from kdedge.students.as_bert import norms_of

HEAD_RIDGE = 1e-2
"""Ridge penalty of the fitted head, as a share of its inputs' variance."""

LAYER_RIDGE = 0.1
"""Ridge penalty of other fitted linear layers. With 0.01 instead of 0.1, a 4x312 cut out of an
MPNet of 12 layers came less close to it on validation texts of TREC."""


@torch.no_grad()
def refit_layers(
    student: BertForSequenceClassification,
    teacher: PreTrainedModel,
    batches: Sequence[Batch],
    directions: torch.Tensor,
    layers: list[int],
) -> None:
    """Fit the student's layers to the teacher's states by ridge regression, from first to last.

    The input of each LayerNorm is the output of a linear layer plus the hidden states. The linear
    layer is fitted so that this sum equals the teacher's. So it makes up for left-out layers, heads
    and units, and for errors of earlier layers. Then scale and shift of the norm are fitted.

    Args:
        student: Changed in place.
        teacher: The model that the student was cut from, of a type that `as_bert` knows.
        batches: Inputs of the model; a few thousand tokens in all.
        directions: Basis of the student's hidden space in the teacher's. *Shape:* (H, h)
        layers: Teacher layer (1-based) of each student layer.
    """
    targets = iter(_norm_states(teacher, batches, directions, layers))
    student.eval()
    norm = student.bert.embeddings.LayerNorm
    (sums,) = _inputs_of(student, norm, batches)
    _fit_norm(norm, sums, next(targets))
    for layer in student.bert.encoder.layer:
        for block in (layer.attention.output, layer.output):
            inputs, states = _inputs_of(student, block, batches)
            target = next(targets)
            _fit_linear(block.dense, inputs, target.before - states)
            _fit_norm(block.LayerNorm, block.dense(inputs) + states, target)


@dataclass(frozen=True)
class NormStates:
    """What a LayerNorm of the teacher reads and returns for N tokens, in the student's space.

    Attributes:
        before: *Shape:* (N, h)
        after: *Shape:* (N, h)
    """

    before: torch.Tensor
    after: torch.Tensor


def _norm_states(
    teacher: PreTrainedModel,
    batches: Sequence[Batch],
    directions: torch.Tensor,
    layers: list[int],
) -> list[NormStates]:
    """Run the teacher, and return the states at each norm that corresponds to a student's.

    Returns:
        Those of the embeddings, then two for each of `layers`, in its order.
    """
    # Each norm is recorded once, in the order of the forward pass; `layers` may be in any order.
    recorded = sorted(set(layers))
    norms = norms_of(teacher, recorded)
    basis = directions.float()
    before: list[list[torch.Tensor]] = [[] for _ in norms]
    after: list[list[torch.Tensor]] = [[] for _ in norms]
    with recorded_calls(norms) as calls:
        for batch in batches:
            calls.clear()
            teacher.eval()(**batch)
            real = batch["attention_mask"].bool()
            for i, (inputs, output) in enumerate(calls):
                # A projection of embeddings stands in for a norm; what it reads is not compared.
                sums = inputs[0] if inputs[0].shape == output.shape else output
                before[i].append(sums[real].float() @ basis)
                after[i].append(output[real].float() @ basis)
    joined = zip(before, after, strict=True)
    found = [NormStates(torch.cat(sums), torch.cat(states)) for sums, states in joined]
    arranged = [found[0]]
    for number in layers:
        first = 1 + 2 * recorded.index(number)
        arranged += found[first : first + 2]
    return arranged


def _inputs_of(
    model: PreTrainedModel, module: nn.Module, batches: Sequence[Batch]
) -> list[torch.Tensor]:
    """Run a model, and return each input of one of its modules at the N real tokens, (N, …)."""
    parts: list[list[torch.Tensor]] = []
    with recorded_calls([module]) as calls:
        for batch in batches:
            calls.clear()
            model(**batch)
            real = batch["attention_mask"].bool()
            parts.append([values[real] for values in calls[0][0]])
    return [torch.cat(values) for values in zip(*parts, strict=True)]


def _fit_linear(linear: nn.Linear, inputs: torch.Tensor, target: torch.Tensor) -> None:
    """Bring a layer's output for `inputs` (N, I) closer to `target` (N, O)."""
    error = (target - linear(inputs)).double()
    weight, bias = _ridge(inputs.double(), error, LAYER_RIDGE)
    linear.weight.add_(weight)
    linear.bias.add_(bias)


def _fit_norm(norm: Any, sums: torch.Tensor, target: NormStates) -> None:
    """Fit scale and shift by least squares, for inputs `sums` (N, h)."""
    plain = nn.functional.layer_norm(sums, norm.normalized_shape, eps=norm.eps).double()
    centred = plain - plain.mean(0)
    after = target.after.double()
    centred_target = after - after.mean(0)
    scale = (centred * centred_target).mean(0) / centred.square().mean(0).clamp(min=1e-9)
    norm.weight.copy_(scale)
    norm.bias.copy_(after.mean(0) - scale * plain.mean(0))


def _ridge(
    x: torch.Tensor, target: torch.Tensor, share: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return weight (O, I) and bias (O,) of a ridge regression.

    Args:
        x: *Shape:* (N, I)
        target: *Shape:* (N, O)
        share: The penalty as a share of the mean variance of `x`.
    """
    centred = x - x.mean(0)
    products = centred.T @ centred
    penalty = share * products.diagonal().mean().clamp(min=1e-9)
    products += penalty * torch.eye(len(products)).to(products)
    weight = torch.linalg.solve(products, centred.T @ (target - target.mean(0))).T
    return weight, target.mean(0) - weight @ x.mean(0)


@torch.no_grad()
def refit_head(
    student: BertForSequenceClassification, teacher: PreTrainedModel, batches: Sequence[Batch]
) -> None:
    """Fit the student's classifier to the teacher's logits by ridge regression.

    The penalty is on changes of the weights.
    """
    head = student.eval().classifier
    errors = []
    with recorded_calls([head]) as calls:
        for batch in batches:
            errors.append(teacher(**batch).logits.double() - student(**batch).logits.double())
    pooled = torch.cat([inputs[0] for inputs, _ in calls]).double()
    weight, bias = _ridge(pooled, torch.cat(errors), HEAD_RIDGE)
    head.weight.add_(weight)
    head.bias.add_(bias)
