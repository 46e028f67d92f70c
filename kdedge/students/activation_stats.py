"""What a BERT teacher shows on the task's texts: where its hidden states vary, and which of its parts the answers hang on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields

import torch
from torch import nn
from transformers import PreTrainedModel

from kdedge.nn.losses import label_loss
from kdedge.nn.signals import Signals, read_signals
from kdedge.runtime.spec import Kind

Batch = dict[str, torch.Tensor]


@dataclass
class ActivationStats:
    """Sums over N texts, N' real tokens, of a teacher of L layers, A heads of D numbers, H wide, with F FFN units.

    heads (L, A), units (L, F), pooled (H,): importance |activation x gradient of the loss|, summed over a text's tokens before
    the bars and over texts after them: to first order, what removing the part costs (Michel et al. 2019, eq. 2; Molchanov et al. 2019).
    states (H,), products (H, H): hidden states of all layers and their outer products.
    moments (L, 3, A, D, D): outer products of queries, keys and values.
    context (L, A·D), active (L, F): what goes into the two output layers, by which the means of dropped parts are kept.
    """

    heads: torch.Tensor
    units: torch.Tensor
    pooled: torch.Tensor
    states: torch.Tensor
    products: torch.Tensor
    moments: torch.Tensor
    context: torch.Tensor
    active: torch.Tensor
    tokens: int

    @classmethod
    def empty(cls, teacher: PreTrainedModel) -> ActivationStats:
        config = teacher.config
        layers, heads, width, units = (
            config.num_hidden_layers,
            config.num_attention_heads,
            config.hidden_size,
            config.intermediate_size,
        )
        d = width // heads
        shapes = [
            (layers, heads),
            (layers, units),
            (width,),
            (width,),
            (width, width),
            (layers, 3, heads, d, d),
            (layers, width),
            (layers, units),
        ]
        zeros = [torch.zeros(shape, dtype=torch.float64, device=teacher.device) for shape in shapes]
        names = [field.name for field in fields(cls) if field.name != "tokens"]
        return cls(tokens=0, **dict(zip(names, zeros, strict=True)))

    def directions(self, width: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean of the hidden states (H,) and their `width` principal directions (H, width); no turn where nothing is left out."""
        count = self.tokens * (len(self.heads) + 1)
        mean = self.states / count
        if width == len(mean):
            return mean, torch.eye(width, dtype=mean.dtype, device=mean.device)
        turned: torch.Tensor = torch.linalg.eigh(self.products / count - mean.outer(mean))[1]
        return mean, turned.flip(1)[:, :width]


def by_head(values: torch.Tensor, heads: int, axis: int) -> torch.Tensor:
    """An axis of A·D numbers as two, (A, D)."""
    return values.reshape(*values.shape[:axis], heads, -1, *values.shape[axis + 1 :])


def collect_stats(
    teacher: PreTrainedModel, batches: Sequence[Batch], kind: Kind
) -> ActivationStats:
    """The evidence of all batches, which hold labels beside the teacher's inputs. The teacher is left as it was."""
    evidence = ActivationStats.empty(teacher)
    for batch in batches:
        inputs = {name: values for name, values in batch.items() if name != "labels"}
        with _watched(teacher) as seen:
            signals = read_signals(teacher, inputs, layers=True)
        gradients = torch.autograd.grad(label_loss(signals.logits, batch["labels"], kind), seen)
        with torch.no_grad():
            _add_importance(evidence, seen, gradients)
            _add_moments(evidence, seen, signals, batch["attention_mask"].bool())
    return evidence


@contextmanager
def _watched(teacher: PreTrainedModel) -> Iterator[list[torch.Tensor]]:
    """Collects, in this order, each layer's attention context and FFN activations, and at last the pooled output."""
    places: list[nn.Module] = [
        m
        for layer in teacher.bert.encoder.layer
        for m in (layer.attention.output.dense, layer.output.dense)
    ]
    seen: list[torch.Tensor] = []
    hooks = [
        place.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        for place in (*places, teacher.classifier)
    ]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def _add_importance(
    evidence: ActivationStats, seen: list[torch.Tensor], gradients: Sequence[torch.Tensor]
) -> None:
    costs = [(value * gradient).double() for value, gradient in zip(seen, gradients, strict=True)]
    heads = evidence.heads.shape[1]
    for layer in range(len(evidence.heads)):
        context, active = costs[2 * layer], costs[2 * layer + 1]  # (B, T, A·D), (B, T, F)
        evidence.heads[layer] += by_head(context, heads, 2).sum((1, 3)).abs().sum(0)
        evidence.units[layer] += active.sum(1).abs().sum(0)
    evidence.pooled += costs[-1].abs().sum(0)


def _add_moments(
    evidence: ActivationStats, seen: list[torch.Tensor], signals: Signals, real: torch.Tensor
) -> None:
    evidence.tokens += int(real.sum())
    for hidden in signals.hidden:
        states = hidden[real].double()  # (N', H)
        evidence.states += states.sum(0)
        evidence.products += states.T @ states
    for layer, vectors in enumerate(signals.vectors):
        for which, vector in enumerate(vectors):
            rows = vector.transpose(1, 2)[real].transpose(0, 1).double()  # (A, N', D)
            evidence.moments[layer, which] += rows.transpose(1, 2) @ rows
        evidence.context[layer] += seen[2 * layer][real].double().sum(0)
        evidence.active[layer] += seen[2 * layer + 1][real].double().sum(0)
